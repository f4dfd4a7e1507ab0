"""Results written chunk by chunk, in any order and by any number of processes: OME-Zarr 0.5, and TIFF made from it."""

from __future__ import annotations

import hashlib
import itertools
import math
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import tifffile

from septum.core.region import Region, cells_of, clip, scale
from septum.core.tiling import blocks
from septum.data.files import atomic_path, output_errors
from septum.data.images import CLASSIC_TIFF_BYTES
from septum.data.omezarr import is_zarr
from septum.data.stored import PixelSize
from septum.errors import OutputError

if TYPE_CHECKING:
    import zarr

OutputKind = Literal["labels", "classes", "probabilities"]

DTYPES = {"labels": ("uint32",), "classes": ("uint8",), "probabilities": ("uint8", "float16")}
SMALLEST_LEVEL = 512  # pixels; a pyramid ends with the first level that is not larger
COMPRESSION_LEVEL = 3  # of zstd, which writes the same bytes every time with one thread
AXIS_TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
TIFF_TILE = 512
TIFF_BAND = 8192  # pixels along a row of tiles, read at once


@dataclass(frozen=True, eq=False)
class ZarrSink:
    """One frame of one resolution level of an output: a Sink, and a Source of what was written.

    A chunk is written under another name and then renamed, so a chunk that exists is complete, whoever wrote it.
    """

    array: zarr.Array
    place: dict[str, int]  # position of the frame along t and z
    pixel_size: PixelSize | None

    @property
    def dtype(self) -> np.dtype:
        """Data type as stored."""
        dtype: np.dtype = np.dtype(self.array.dtype)
        return dtype

    @property
    def shape(self) -> tuple[int, int, int]:
        """(K, Y, X)."""
        size = self._size(self.array.shape)
        return size.get("c", 1), size["y"], size["x"]

    @property
    def chunk(self) -> tuple[int, int]:
        """(Y, X) pixels of a chunk; it contains all K values of its pixels."""
        size = self._size(self.array.chunks)
        return size["y"], size["x"]

    def read(self, region: Region) -> np.ndarray:
        """Return the (K, y, x) values of a region as stored, 0 where nothing was written."""
        values: np.ndarray = np.asarray(self.array[self._index(region)])
        return values.reshape(-1, *values.shape[-2:])

    def write(self, region: Region, array: np.ndarray) -> None:
        """Write the (K, y, x) values of whole chunks; probabilities from 0 to 1 are rounded to the stored type.

        Raises
        ------
        OutputError
            If the disk is full or the folder is read-only.
        """
        for part, step, size in zip(region, self.chunk, self.shape[1:], strict=True):
            if part.start % step or (part.stop % step and part.stop != size):
                raise ValueError(f"region {region} does not consist of whole chunks of {self.chunk} pixels")
        values = quantize(array, self.dtype)
        if "c" not in self._axes:
            values = values[0]
        with output_errors(_root(self.array)):
            self.array[self._index(region)] = values

    def is_done(self, region: Region) -> bool:
        """Whether all chunks of a region exist."""
        folder = _root(self.array) / self.array.path
        for y, x in cells_of(region, self.chunk):
            at = {**self.place, "c": 0, "y": y, "x": x}
            key = self.array.metadata.encode_chunk_key(tuple(at[axis] for axis in self._axes))
            if not (folder / key).exists():
                return False
        return True

    @property
    def _axes(self) -> tuple[str, ...]:
        names: tuple[str, ...] = self.array.metadata.dimension_names
        return names

    def _size(self, shape: Sequence[int]) -> dict[str, int]:
        return dict(zip(self._axes, shape, strict=True))

    def _index(self, region: Region) -> tuple[int | slice, ...]:
        where: dict[str, int | slice] = {"c": slice(None), "y": region[0], "x": region[1], **self.place}
        return tuple(where[axis] for axis in self._axes)


@dataclass(frozen=True, eq=False)
class ZarrOutput:
    """An OME-Zarr image being written: at full resolution by its sinks, then `finish` makes the pyramid."""

    path: Path
    kind: OutputKind
    levels: tuple[tuple[ZarrSink, ...], ...]  # per resolution level, the finest first: a sink per frame
    origin: tuple[int, int] = (0, 0)  # (y, x) of the first pixel in the image

    @property
    def frames(self) -> tuple[ZarrSink, ...]:
        """A sink per frame, in the order of the image's frames."""
        return self.levels[0]

    def finish(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Make the coarser levels from what was written, and remove files that killed writers left.

        Labels and classes take every second pixel, probabilities the mean of four. Existing chunks are kept.

        Parameters
        ----------
        progress : function of (done, total), optional
            Called after every chunk.

        Raises
        ------
        OutputError
            If the disk is full or the folder is read-only.
        """
        todo = [
            (fine, coarse, region)
            for before, after in itertools.pairwise(self.levels)
            for fine, coarse in zip(before, after, strict=True)
            for region in blocks(coarse.shape[1:], coarse.chunk, math.prod(coarse.chunk))
        ]
        for done, (fine, coarse, region) in enumerate(todo, 1):
            if not coarse.is_done(region):
                values = fine.read(clip(scale(region, 2), fine.shape[1:]))
                coarse.write(region, halve(values) if self.kind == "probabilities" else values[:, ::2, ::2])
            if progress:
                progress(done, len(todo))
        with output_errors(self.path):
            for left in self.path.rglob("*.partial"):
                left.unlink(missing_ok=True)


def create_zarr(
    path: str | Path,
    *,
    kind: OutputKind,
    shape: Sequence[int],
    chunk: Sequence[int],
    dtype: str | None = None,
    grid: Sequence[tuple[str, int]] = (),
    pixel_size: PixelSize | None = None,
    origin: tuple[int, int] = (0, 0),
) -> ZarrOutput:
    """Create an OME-Zarr image to write to, or open an existing one with the same layout.

    Parameters
    ----------
    path : path
        A folder, usually ``NAME.ome.zarr``. ``IMAGE.ome.zarr/labels/NAME`` puts labels into an image.
    kind : str
        ``labels`` (uint32), ``classes`` (uint8) or ``probabilities`` (uint8 or float16, one channel per class).
    shape : (K, Y, X)
        Shape of a frame. K is 1 for labels and classes.
    chunk : (Y, X)
        Pixels per chunk, the unit of writing.
    dtype : str, optional
        ``float16`` for probabilities that should not be rounded to 8 bit.
    grid : sequence of (axis, length)
        The frames, as in `ImageFile.grid`. Axes other than T and Z become one axis Z.
    pixel_size : (y, x) in micrometre per pixel, optional
    origin : (y, x)
        Position of the first pixel in the image, in pixels, so that viewers show a region in its place.

    Raises
    ------
    OutputError
        If something else exists there, or nothing can be written.
    """
    import zarr
    from zarr.codecs import ZstdCodec

    path, dtype = Path(path), dtype or DTYPES[kind][0]
    if dtype not in DTYPES[kind]:
        raise ValueError(f"{kind} are stored as {' or '.join(DTYPES[kind])}, not {dtype}")
    length = _lengths(grid)
    axes = [axis for axis in "tczyx" if axis in length or axis in "yx" or (axis == "c" and kind == "probabilities")]
    levels = _halvings(shape[1:])
    attributes = {
        "ome": _metadata(path, kind, axes, len(levels), pixel_size, origin),
        "septum": {"kind": kind, "grid": [[axis, n] for axis, n in grid], "origin": list(origin)},
    }
    with output_errors(path):
        begun = path.exists() and any(entry.suffix != ".partial" for entry in path.iterdir())
        if begun and _attributes(path) != attributes:
            raise OutputError(f"{path} exists with other contents; choose another name, or remove it")
        group = zarr.open_group(path, mode="a", attributes=attributes)
        for level, (height, width) in enumerate(levels):
            size = {**length, "c": shape[0], "y": height, "x": width}
            step = {"c": shape[0], "y": min(chunk[0], height), "x": min(chunk[1], width)}
            layout = tuple(size[axis] for axis in axes), tuple(step.get(axis, 1) for axis in axes), np.dtype(dtype)
            if str(level) in group:
                found = group[str(level)]
                if (found.shape, found.chunks, found.dtype) != layout:
                    existing = f"{found.dtype} {found.shape} in chunks of {found.chunks}"
                    raise OutputError(f"{path} exists with {existing}; choose another name, or remove it")
                continue
            group.create_array(
                str(level),
                shape=layout[0],
                chunks=layout[1],
                dtype=dtype,
                compressors=ZstdCodec(level=COMPRESSION_LEVEL),
                dimension_names=axes,
            )
        if _is_in_image(path):
            _list_label(path)
    return open_zarr_output(path)


def open_zarr_output(path: str | Path) -> ZarrOutput:
    """Open what `create_zarr` made, to continue writing."""
    import zarr

    path = Path(path)
    attributes = _attributes(path)
    if "septum" not in attributes:
        raise OutputError(f"{path} is not a result of Septum that can be continued; choose another name")
    group = zarr.open_group(path, mode="r+")
    grid = attributes["septum"]["grid"]
    places = _places(grid)
    image = attributes["ome"]["multiscales"][0]
    levels = []
    for level in image["datasets"]:
        scale = level["coordinateTransformations"][0]["scale"]
        pixel_size = (scale[-2], scale[-1]) if "unit" in image["axes"][-1] else None
        array = group[level["path"]].with_config(
            {"write_empty_chunks": True}
        )  # so that a chunk of zeros exists when done
        levels.append(tuple(ZarrSink(array, place, pixel_size) for place in places))
    y, x = attributes["septum"]["origin"]
    return ZarrOutput(path, attributes["septum"]["kind"], tuple(levels), (y, x))


def write_tiff(path: str | Path, output: ZarrOutput) -> None:
    """Write a finished output as a tiled OME-TIFF with its pyramid, whole or not at all. Same pixels, same bytes.

    It is a BigTIFF if its pixels may need more than 4 GB. OME-TIFF has no float16, which becomes float32.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    first: Any = output.frames[0].array
    axes = "".join(first.metadata.dimension_names).upper()
    dtype = np.dtype(np.float32) if first.dtype == np.float16 else np.dtype(first.dtype)
    pixels = sum(math.prod(level[0].array.shape) for level in output.levels)
    metadata: dict[str, Any] = {"axes": axes, "UUID": str(_uuid_of(output)), "Creator": "Septum"}
    if size := output.frames[0].pixel_size:
        metadata |= {"PhysicalSizeY": size[0], "PhysicalSizeX": size[1]}
        metadata |= {"PhysicalSizeYUnit": "µm", "PhysicalSizeXUnit": "µm"}
        if any(output.origin):
            planes = math.prod(first.shape[:-2])
            metadata["Plane"] = {
                name: [value] * planes
                for axis, start, step in zip("YX", output.origin, size, strict=True)
                for name, value in ((f"Position{axis}", start * step), (f"Position{axis}Unit", "µm"))
            }
    with (
        atomic_path(path) as temporary,
        tifffile.TiffWriter(temporary, ome=True, bigtiff=pixels * dtype.itemsize >= CLASSIC_TIFF_BYTES) as tif,
    ):
        for number, level in enumerate(output.levels):
            whole = {"subifds": len(output.levels) - 1, "metadata": metadata}
            tile = tuple(min(TIFF_TILE, 16 * math.ceil(size / 16)) for size in level[0].shape[1:])
            tif.write(
                _tiles(level, axes, tile, dtype),
                shape=level[0].array.shape,
                dtype=dtype,
                tile=tile,
                photometric="minisblack",
                compression="zlib",
                software="Septum",
                maxworkers=1,
                **({"subfiletype": 1, "metadata": None} if number else whole),
            )


def quantize(values: np.ndarray, dtype: np.dtype | type) -> np.ndarray:
    """Return values in the stored type: for uint8, probabilities in 0..1 become 0..255.

    Examples
    --------
    >>> quantize(np.array([0.0, 0.5, 1.0]), np.uint8)
    array([  0, 128, 255], dtype=uint8)
    """
    if values.dtype.kind == "f" and np.dtype(dtype) == np.uint8:
        values = np.floor(values * np.float32(255) + np.float32(0.5))
    return values.astype(dtype, copy=False)


def halve(values: np.ndarray) -> np.ndarray:
    """Return the mean of every 2 x 2 pixels of (K, y, x) uint8 or float16; at an odd edge, of those that exist.

    Examples
    --------
    >>> halve(np.array([[[0, 1, 5], [2, 3, 8]]], np.uint8))
    array([[[2, 7]]], dtype=uint8)
    """
    padded = np.pad(values, [(0, 0), *((0, size % 2) for size in values.shape[1:])], mode="edge")
    fours = padded.reshape(len(values), padded.shape[1] // 2, 2, padded.shape[2] // 2, 2)
    if values.dtype.kind == "u":
        rounded: np.ndarray = (fours.sum((2, 4), dtype=np.uint16) + 2) // 4
        return rounded.astype(values.dtype)
    mean: np.ndarray = fours.mean((2, 4), dtype=np.float32)
    return mean.astype(values.dtype)


def _halvings(shape: Sequence[int]) -> list[tuple[int, int]]:
    levels = [(shape[0], shape[1])]
    while max(levels[-1]) > SMALLEST_LEVEL:
        levels.append(((levels[-1][0] + 1) // 2, (levels[-1][1] + 1) // 2))
    return levels


def _lengths(grid: Sequence[tuple[str, int]]) -> dict[str, int]:
    """Return the axes of the frames in an output, with their lengths."""
    if all(axis in "TZ" for axis, _ in grid):
        return {axis.lower(): n for axis, n in grid}
    return {"z": math.prod(n for _, n in grid)}


def _places(grid: Sequence[tuple[str, int]]) -> list[dict[str, int]]:
    """Return the position of every frame along the axes of an output."""
    count = math.prod(n for _, n in grid)
    if not all(axis in "TZ" for axis, _ in grid):
        return [{"z": number} for number in range(count)]
    at = itertools.product(*(range(n) for _, n in grid))
    return [dict(zip((axis.lower() for axis, _ in grid), place, strict=True)) for place in at]


def _metadata(
    path: Path, kind: OutputKind, axes: list[str], levels: int, pixel_size: PixelSize | None, origin: tuple[int, int]
) -> dict[str, Any]:
    """Return OME-Zarr metadata. An every-second pixel lies where the pixel lay, a mean in the middle of its four."""
    size = {"y": pixel_size[0], "x": pixel_size[1]} if pixel_size else {"y": 1.0, "x": 1.0}
    unit = {"unit": "micrometer"} if pixel_size else {}
    datasets = []
    for level in range(levels):
        factor = 2.0**level
        steps: list[dict[str, Any]] = [
            {"type": "scale", "scale": [factor * size.get(axis, 1 / factor) for axis in axes]}
        ]
        middle = (factor - 1) / 2 if kind == "probabilities" else 0.0
        first = {axis: at + middle for axis, at in zip("yx", origin, strict=True)}
        if any(first.values()):
            steps.append(
                {"type": "translation", "translation": [first.get(axis, 0) * size.get(axis, 0) for axis in axes]}
            )
        datasets.append({"path": str(level), "coordinateTransformations": steps})
    described = [{"name": axis, "type": AXIS_TYPES[axis]} | (unit if axis in "yx" else {}) for axis in axes]
    image = {"name": kind, "type": "mean" if kind == "probabilities" else "every second pixel"}
    metadata: dict[str, Any] = {"version": "0.5", "multiscales": [image | {"axes": described, "datasets": datasets}]}
    if kind != "probabilities":
        source = {"source": {"image": "../../"}} if _is_in_image(path) else {}
        metadata["image-label"] = {"version": "0.5"} | source
    return metadata


def _is_in_image(path: Path) -> bool:
    """Whether a path is that of a label image inside an OME-Zarr image, not just in a folder called labels."""
    return path.parent.name == "labels" and is_zarr(path.parent.parent)


def _list_label(path: Path) -> None:
    """List a label image in its group, as OME-Zarr requires."""
    import zarr

    group = zarr.open_group(path.parent, mode="a")
    ome: dict[str, Any] = dict(group.attrs).get("ome", {"version": "0.5", "labels": []})
    if path.name not in ome["labels"]:
        group.attrs["ome"] = ome | {"labels": sorted([*ome["labels"], path.name])}


def _attributes(path: Path) -> dict[str, Any]:
    import zarr

    try:
        return dict(zarr.open_group(path, mode="r").attrs)
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # not a group, or damaged
        return {}


def _root(array: zarr.Array) -> Path:
    return Path(array.store.root)


def _uuid_of(output: ZarrOutput) -> uuid.UUID:
    """Return a UUID derived from the pixels at full resolution."""
    digest = hashlib.sha256()
    folder = output.path / output.frames[0].array.path
    for file in sorted(entry for entry in folder.rglob("*") if entry.is_file()):
        digest.update(f"{file.relative_to(folder).as_posix()}\n".encode())
        digest.update(file.read_bytes())
    return uuid.UUID(bytes=digest.digest()[:16], version=5)


def _tiles(level: tuple[ZarrSink, ...], axes: str, tile: Sequence[int], dtype: np.dtype) -> Iterator[np.ndarray]:
    """Yield the tiles of a level in the order of a TIFF: plane by plane, row by row."""
    sinks = {frozenset(sink.place.items()): sink for sink in level}
    _, height, width = level[0].shape
    names = [axis for axis in axes.lower() if axis not in "yx"]
    for plane in itertools.product(*map(range, level[0].array.shape[:-2])):
        at = dict(zip(names, plane, strict=True))
        channel = at.pop("c", 0)
        sink = sinks[frozenset(at.items())]
        for top in range(0, height, tile[0]):
            for start in range(0, width, TIFF_BAND):
                region = slice(top, min(top + tile[0], height)), slice(start, min(start + TIFF_BAND, width))
                band = sink.read(region)[channel].astype(dtype, copy=False)
                for left in range(0, band.shape[1], tile[1]):
                    yield band[:, left : left + tile[1]]
