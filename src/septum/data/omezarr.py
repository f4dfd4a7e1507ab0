"""OME-Zarr 0.4 (Zarr 2) and 0.5 (Zarr 3), and plain Zarr arrays that name their axes, read by regions."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from septum.core.region import cell_region, cells_of
from septum.data.findings import BadFile
from septum.data.stored import MICROMETRE, Index, PixelSize, Stored, check_level

if TYPE_CHECKING:
    import zarr

METADATA_FILES = ("zarr.json", ".zattrs", ".zgroup", ".zarray")  # of Zarr 3 and 2; one of them makes a folder a Zarr
AXIS_LETTERS = {"t": "T", "c": "C", "z": "Z", "y": "Y", "x": "X", "time": "T", "channel": "C"}
NAME_THE_AXES = (
    'name its axes: dimension_names=["c", "y", "x"] in Zarr 3, the attribute _ARRAY_DIMENSIONS in Zarr 2, '
    "or write it as OME-Zarr"
)


def is_zarr(path: Path) -> bool:
    """Whether a path is a folder with the metadata of a Zarr group or array."""
    return path.is_dir() and any((path / name).is_file() for name in METADATA_FILES)


def open_zarr(path: Path, level: int) -> Stored:
    """Open an OME-Zarr image, or a Zarr array with known axes, at a resolution level."""
    import zarr

    if not is_zarr(path):
        problem = "is a folder but not a Zarr (it has neither zarr.json nor .zgroup)"
        raise BadFile("unreadable", path, problem, "give an image file or an OME-Zarr")
    with _damage_reported(path, "its Zarr metadata cannot be read"):
        node = zarr.open(path, mode="r")
    if isinstance(node, zarr.Array):
        check_level(path, level, 1)
        axes, size = _axes_of_array(path, node), (node.shape[-2:],)
        return _stored(path, node, axes, "its dimension names", None, "it has no OME metadata", size, 0)
    ome: dict[str, Any] = dict(node.attrs)
    ome = ome.get("ome", ome)
    if "multiscales" not in ome:
        return _first_image(path, ome, level)
    with _damage_reported(path, "its OME metadata are incomplete"):
        image = ome["multiscales"][0]
        datasets, axes, units = image["datasets"], _axes(image["axes"]), _units(image["axes"])
        arrays = [node[dataset["path"]] for dataset in datasets]
        y, x = axes.index("Y"), axes.index("X")
        wrong = [array.shape for array in arrays if array.ndim != len(axes)]
    if wrong:
        problem = f"has axes {axes}, but an array of shape {wrong[0]}"
        raise BadFile("unreadable", path, problem, "write it again as OME-Zarr")
    levels = tuple((array.shape[y], array.shape[x]) for array in arrays)
    check_level(path, level, len(arrays))
    with _damage_reported(path, "its coordinate transformations cannot be read"):
        scale = _scale(image, datasets[level], len(axes))
        pixel_size, source = _pixel_size((scale[y], scale[x]), (units[y], units[x]))
    stored = _stored(path, arrays[level], axes, "OME metadata", pixel_size, source, levels, level)
    several = len(ome["multiscales"])
    return replace(stored, remarks=(f"first of {several} images",)) if several > 1 else stored


def _first_image(path: Path, ome: dict[str, Any], level: int) -> Stored:
    """Open the first image of a converted series; for other groups, say which image to name."""
    if "bioformats2raw.layout" in ome and is_zarr(path / "0"):
        images = sum(entry.name.isdigit() for entry in path.iterdir())
        stored = open_zarr(path / "0", level)
        return replace(stored, remarks=(*stored.remarks, f"first of {images} images")) if images > 1 else stored
    inside = sorted(entry for entry in path.iterdir() if is_zarr(entry))
    if "plate" in ome:
        problem, inside = "is a plate of many images", sorted(path.glob("*/*/0"))
    elif "labels" in ome:
        problem = "is a group of label images"
    else:
        problem = "is a Zarr group without OME metadata (no multiscales)"
    fix = f"name an image inside, such as {inside[0]}" if inside else "write it as OME-Zarr"
    raise BadFile("unreadable", path, problem, fix)


def _stored(
    path: Path,
    array: zarr.Array,
    axes: str,
    axes_from: str,
    pixel_size: PixelSize | None,
    pixel_size_from: str,
    levels: tuple[tuple[int, int], ...],
    level: int,
) -> Stored:
    blosc = array.shards is None and any("Blosc" in type(codec).__name__ for codec in array.compressors)
    root = Path(array.store.root)

    def load(index: Index) -> np.ndarray:
        for chunk in _touched(array, index) if blosc else ():
            if _is_truncated(root / _key(array, chunk)):
                raise _damaged(path, f"chunk {_key(array, chunk)} is truncated")
        try:
            return np.asarray(array[index])
        except Exception as error:  # each codec raises its own errors
            raise _damaged(path, f"chunk {_broken_chunk(array, index)} cannot be decoded: {error}") from None

    return Stored(
        format="OME-Zarr",
        axes=axes,
        axes_from=axes_from,
        shape=tuple(array.shape),
        dtype=np.dtype(array.dtype),
        load=load,
        pixel_size=pixel_size,
        pixel_size_from=pixel_size_from,
        chunk=(array.chunks[axes.index("Y")], array.chunks[axes.index("X")]),
        levels=levels,
        level=level,
    )


def _touched(array: zarr.Array, index: Index) -> Iterator[tuple[int, ...]]:
    """Yield the grid positions of the chunks (or shards) that an index touches."""
    parts = (part if isinstance(part, slice) else slice(part, part + 1) for part in index)
    region = tuple(slice(*part.indices(size)[:2]) for part, size in zip(parts, array.shape, strict=True))
    return cells_of(region, array.shards or array.chunks)


def _key(array: zarr.Array, chunk: tuple[int, ...]) -> str:
    return f"{array.path}/{array.metadata.encode_chunk_key(chunk)}".lstrip("/")


def _is_truncated(file: Path) -> bool:
    """Whether a Blosc file is shorter than its header says: the decoder would read beyond its memory."""
    try:
        with open(file, "rb") as chunk:
            header = chunk.read(16)
        return len(header) < 16 or file.stat().st_size < int.from_bytes(header[12:], "little")
    except FileNotFoundError:
        return False  # a missing chunk has the fill value


def _broken_chunk(array: zarr.Array, index: Index) -> str:
    """Return the first chunk touched by an index that cannot be read."""
    steps = array.shards or array.chunks
    for chunk in _touched(array, index):
        try:
            array[cell_region(chunk, steps, array.shape)]
        except Exception:
            return _key(array, chunk)
    return "of a file that changed meanwhile"


def _axes(axes: Sequence[Any]) -> str:
    """Return a letter per axis: by its name, otherwise by its type, otherwise any unused letter."""
    letters: list[str] = []
    for axis in axes:
        name, kind = (axis, "") if isinstance(axis, str) else (axis["name"], axis.get("type", ""))
        free = next(letter for letter in "IQRUVW" if letter not in letters)
        letters.append(AXIS_LETTERS.get(name.lower(), AXIS_LETTERS.get(kind, free)))
    return "".join(letters)


def _axes_of_array(path: Path, array: zarr.Array) -> str:
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    if names is None and array.ndim == 2:
        return "YX"
    if names is None or any(str(name).lower() not in AXIS_LETTERS for name in names):
        found = f"{names}, expected t, c, z, y, x" if names else "not named"
        problem = f"is a Zarr array of shape {array.shape} whose axes are {found}"
        raise BadFile("unreadable", path, problem, NAME_THE_AXES)
    return _axes(names)


def _units(axes: Sequence[Any]) -> list[str]:
    return ["" if isinstance(axis, str) else axis.get("unit") or "" for axis in axes]


def _scale(image: dict[str, Any], dataset: dict[str, Any], n: int) -> np.ndarray:
    """Return the units per pixel and axis of a dataset, including the scale of the whole image."""
    steps = dataset.get("coordinateTransformations", []) + image.get("coordinateTransformations", [])
    scales = [np.ones(n), *(np.asarray(step["scale"]) for step in steps if step["type"] == "scale")]
    return functools.reduce(np.multiply, scales)


def _pixel_size(scale: tuple[float, float], units: tuple[str, str]) -> tuple[PixelSize | None, str]:
    if not all(unit.lower() in MICROMETRE for unit in units):
        return None, "the OME metadata have no unit of length"
    y, x = (float(one) * MICROMETRE[unit.lower()] for one, unit in zip(scale, units, strict=True))
    return (y, x), "OME metadata"


@contextmanager
def _damage_reported(path: Path, what: str) -> Iterator[None]:
    """Turn any error of zarr, and anything missing in the metadata, into one sentence."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise _damaged(path, f"{what}: {reason}") from None


def _damaged(path: Path, reason: str) -> BadFile:
    return BadFile("unreadable", path, f"is damaged or incomplete ({reason})", "copy or write the Zarr again")
