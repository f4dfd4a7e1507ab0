"""Image files <-> (C, Y, X) arrays with a pixel size. Every image file is opened here."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from septum.core.region import Region, origin_of
from septum.data.files import atomic_path
from septum.data.findings import BadFile
from septum.data.npy import open_npy
from septum.data.omezarr import open_zarr
from septum.data.raster import open_jpeg, open_png
from septum.data.stored import PixelSize, Stored
from septum.data.tiff import open_tiff
from septum.errors import ImageError
from septum.words import plural

SUPPORTED = "TIFF, OME-Zarr, PNG, JPEG or NumPy file"
OPENERS: dict[bytes, Callable[[Path, int], Stored]] = {  # by the first bytes, so a wrong suffix does not matter
    b"II*\0": open_tiff,
    b"MM\0*": open_tiff,
    b"II+\0": open_tiff,
    b"MM\0+": open_tiff,
    b"\x89PNG": open_png,
    b"\xff\xd8\xff": open_jpeg,
    b"\x93NUMPY": open_npy,
}
FRAME_NAMES = {"Z": "slices", "T": "time points"}
CLASSIC_TIFF_BYTES = 2**32 - 2**25  # what fits with room for the metadata; more needs BigTIFF


@dataclass(frozen=True, eq=False)
class Frame:
    """One 2-D image of a file, read by regions: a `septum.core.tiling.Source`."""

    name: str
    shape: tuple[int, int, int]  # (C, Y, X)
    dtype: np.dtype
    chunk: tuple[int, int]  # (Y, X) pixels that are stored or decoded together
    load: Callable[[Region], np.ndarray]

    def read(self, region: Region = (slice(None), slice(None))) -> np.ndarray:
        """Return the (C, y, x) pixels of a region inside the image; by default all pixels."""
        return self.load(region)


@dataclass(frozen=True, eq=False)
class ImageFile:
    """An open image file. Z, T and unnamed axes are frames; C and samples (RGB) are channels."""

    path: Path
    axes: str  # as found in the file, such as "TZCYX"
    frames: tuple[Frame, ...]
    grid: tuple[tuple[str, int], ...]  # axes and lengths of the frames; the last axis varies fastest
    levels: tuple[tuple[int, int], ...]  # (Y, X) of every resolution level, the finest first
    pixel_size: PixelSize | None  # micrometre per pixel (y, x)
    dtype: np.dtype
    description: str  # all of this as one line of text
    format: str


def open_image(path: str | Path, *, channel: int | None = None, level: int = 0) -> ImageFile:
    """Open an image file; pixels are read later, by `Frame.read`.

    Axes come from OME, ImageJ or tifffile metadata; without metadata, pages are frames and samples of a pixel (RGB) are
    channels. The pixel size comes from the same metadata, or from a resolution tag in the range of microscopes
    (`septum.data.stored.plausible`). Otherwise it is unknown. The description names the source.

    Parameters
    ----------
    path : path
        TIFF, BigTIFF, OME-TIFF, ImageJ stack, OME-Zarr 0.4 or 0.5, PNG, JPEG or .npy, recognised by its content. All
        but PNG and JPEG are read by regions: only the strips, tiles or chunks that a region touches are decoded.
    channel : int, optional
        Use only this channel, counted from 0.
    level : int
        Resolution level of a pyramid: 0 is the finest. The pixel size is that of the level.

    Returns
    -------
    ImageFile
        Pixels keep the data type of the file (1-bit becomes 0 and 1). An alpha channel is dropped where it is opaque;
        reading a transparent pixel is an error.

    Raises
    ------
    ImageError
        If the file is missing, in another format, empty, truncated or damaged; also raised by `Frame.read`.

    Examples
    --------
    >>> open_image("a.tif").description                                             # doctest: +SKIP
    'a.tif: axes ZYX (from ImageJ metadata), 30 slices of 512 x 512, 1 channel, uint8,
    0.004 x 0.004 micrometre per pixel (from ImageJ metadata)'
    """
    return from_stored(Path(path), open_stored(Path(path), level), channel)


def open_stored(path: Path, level: int = 0) -> Stored:
    """Open a file of any supported format as stored: the palette not applied, alpha not dropped."""
    if path.is_dir():
        return open_zarr(path, level)
    try:
        with open(path, "rb") as file:
            first = file.read(16)
    except FileNotFoundError:
        raise BadFile("missing-file", path, f"does not exist{_near(path)}", "check the name") from None
    except OSError as error:
        raise BadFile("unreadable", path, f"cannot be opened ({error.strerror})", "give an image file") from None
    if not first:
        raise BadFile("unreadable", path, "is empty (0 bytes)", "copy or export the file again")
    for magic, opener in OPENERS.items():
        if first.startswith(magic):
            return opener(path, level)
    raise BadFile("unreadable", path, f"is not a {SUPPORTED}: it starts with {first!r}", "save the image as TIFF")


def from_stored(path: Path, stored: Stored, channel: int | None = None) -> ImageFile:
    """Sort the axes of a stored array into frames, channels, Y and X."""
    if 0 in stored.shape:
        raise BadFile("unreadable", path, f"has no pixels (shape {stored.shape})", "export the image again")
    if stored.axes.count("Y") != 1 or stored.axes.count("X") != 1:
        raise BadFile("unreadable", path, f"has axes {stored.axes}, expected Y and X", "save it as a plain TIFF")
    if stored.dtype.kind not in "buif":
        problem = f"has pixels of type {stored.dtype}, expected integers or floats"
        raise BadFile("unreadable", path, problem, "convert it")
    size = dict(zip(stored.axes, stored.shape, strict=True))
    samples = (stored.palette.shape[1] if stored.palette is not None else size.get("S", 1)) - stored.alpha
    channels = size.get("C", 1) * samples
    if channel is not None and not 0 <= channel < channels:
        problem = f"has {plural(channels, 'channel')}, counted from 0, but channel {channel} was requested"
        fix = f"choose one of 0..{channels - 1}" if channels > 1 else "omit the channel"
        raise BadFile("channels-differ", path, problem, fix)
    used = slice(None) if channel is None else slice(channel, channel + 1)
    dtype = stored.palette.dtype if stored.palette is not None else stored.dtype
    dtype = np.dtype(np.uint8) if dtype.kind == "b" else dtype.newbyteorder("=")
    frame_axes = [axis for axis in stored.axes if axis not in "CSYX"]
    grid = tuple(size[axis] for axis in frame_axes)

    def frame(number: int) -> Frame:
        position = dict(zip(frame_axes, map(int, np.unravel_index(number, grid)), strict=True)) if grid else {}

        def load(region: Region) -> np.ndarray:
            return np.array(_channels_first(path, stored, position, region)[used], dtype, order="C")

        name = path.name if n_frames == 1 else f"{path.name}, frame {number}"
        shape = (channels if channel is None else 1, size["Y"], size["X"])
        return Frame(name, shape, dtype, stored.chunk, load)

    n_frames = int(np.prod(grid, dtype=int))
    return ImageFile(
        path=path,
        axes=stored.axes,
        frames=tuple(map(frame, range(n_frames))),
        grid=tuple(zip(frame_axes, grid, strict=True)),
        levels=stored.levels,
        pixel_size=stored.pixel_size,
        dtype=dtype,
        description=_describe(path, stored, dict(zip(frame_axes, grid, strict=True)), channels, channel, dtype),
        format=stored.format,
    )


def _channels_first(path: Path, stored: Stored, position: dict[str, int], region: Region) -> np.ndarray:
    """Read a region of one frame as (C, y, x), without palette and alpha."""
    where: dict[str, int | slice] = {"Y": region[0], "X": region[1], **position}
    block = stored.load(tuple(where.get(axis, slice(None)) for axis in stored.axes))
    axes = "".join(axis for axis in stored.axes if axis in "CSYX")
    if stored.palette is not None:
        block, axes = stored.palette[block], axes + "S"
    block = block.transpose([axes.index(axis) for axis in "CSYX" if axis in axes])
    if stored.alpha:
        opaque = 1.0 if block.dtype.kind == "f" else np.iinfo(block.dtype).max
        if (block[..., -1, :, :] != opaque).any():
            raise BadFile(
                "unreadable",
                path,
                "is partly transparent, and the values of transparent pixels are undefined",
                "save it without an alpha channel (if that channel is data, with axes CYX)",
            )
        block = block[..., :-1, :, :]
    return block.reshape(-1, *block.shape[-2:])


def _describe(
    path: Path, stored: Stored, frames: dict[str, int], channels: int, channel: int | None, dtype: np.dtype
) -> str:
    """Describe in one line what was found, where, and how it is read."""
    size = dict(zip(stored.axes, stored.shape, strict=True))
    several = {axis: n for axis, n in frames.items() if n > 1}
    counted = " x ".join(f"{n} {FRAME_NAMES.get(axis, 'pages')}" for axis, n in several.items())
    parts = [
        f"axes {stored.axes} (from {stored.axes_from})",
        f"{counted} of {size['Y']} x {size['X']}" if counted else f"{size['Y']} x {size['X']}",
        plural(channels, "channel") + (f", only channel {channel} used" if channel is not None else ""),
        str(dtype),
    ]
    if len(stored.levels) > 1:
        parts.append(f"resolution level {stored.level} of 0..{len(stored.levels) - 1}")
    if stored.pixel_size:
        y, x = stored.pixel_size
        parts.append(f"{y:.4g} x {x:.4g} micrometre per pixel (from {stored.pixel_size_from})")
    else:
        parts.append(f"pixel size unknown ({stored.pixel_size_from})")
    if any(axis not in FRAME_NAMES for axis in several):
        parts.append("pages read as frames, because the file does not mark them as channels")
    if stored.palette is not None:
        parts.append("colour table applied")
    if stored.alpha:
        parts.append("alpha channel dropped")
    return f"{path.name}: " + ", ".join([*parts, *stored.remarks])


def _near(path: Path) -> str:
    """Suggest a file of the same folder with a similar name."""
    siblings = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, siblings, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def check_finite(pixels: np.ndarray, name: str, origin: Sequence[int] = (0, 0)) -> None:
    """Raise ImageError if an array contains NaN or infinity; `origin` is its first pixel in the image (row, column).

    Examples
    --------
    >>> check_finite(np.array([[[1.0, np.nan]]]), "a.tif")
    Traceback (most recent call last):
        ...
    septum.data.findings.BadFile: a.tif has 1 NaN or infinite pixel, the first at channel 0, row 0, column 1;
    replace such pixels, for example with 0
    """
    if pixels.dtype.kind != "f":
        return
    bad = ~np.isfinite(pixels)
    if bad.any():
        channel, row, column = np.argwhere(bad)[0] + [0, *origin]
        where = f"the first at channel {channel}, row {row}, column {column}"
        problem = f"has {plural(int(bad.sum()), 'NaN or infinite pixel')}, {where}"
        raise BadFile("not-finite", name, problem, "replace such pixels, for example with 0")


def as_channels(image: np.ndarray, channels: int | None = None, name: str = "the image") -> np.ndarray:
    """Check an array and return it as (C, Y, X).

    Parameters
    ----------
    image : (Y, X) or (C, Y, X) array
        Booleans become 0 and 1.
    channels : int, optional
        Number that a model expects. Three equal channels (greyscale saved as RGB) count as one.
    name : str
        Name of the image in errors.

    Raises
    ------
    ImageError
        For another number of axes or channels, no pixels, NaN or infinity.

    Examples
    --------
    >>> as_channels(np.zeros((4, 5))).shape
    (1, 4, 5)
    >>> as_channels(np.zeros((3, 4, 5)), channels=1).shape
    (1, 4, 5)
    """
    pixels = np.asarray(image)
    if pixels.ndim not in (2, 3):
        problem = f"has shape {pixels.shape}, expected (Y, X) or (C, Y, X)"
        raise BadFile("unreadable", name, problem, "give one 2-D image at a time")
    if pixels.shape[0] != channels:
        check_channels_first(pixels, name)
    if pixels.dtype.kind not in "buif":
        problem = f"has pixels of type {pixels.dtype}, expected integers or floats"
        raise BadFile("unreadable", name, problem, "convert it")
    if not pixels.size:
        raise BadFile("unreadable", name, f"has no pixels (shape {pixels.shape})", "give an image with pixels")
    pixels = pixels.astype(np.uint8) if pixels.dtype.kind == "b" else pixels
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    if channels == 1 and is_grey(pixels):
        pixels = pixels[:1]
    if channels is not None and len(pixels) != channels:
        problem = f"has {plural(len(pixels), 'channel')}, but the model was trained on {channels}"
        raise BadFile("channels-differ", name, problem, "choose or add channels to match")
    check_finite(pixels, name)
    return pixels


def check_channels_first(array: np.ndarray, name: str) -> None:
    """Raise ImageError if an array looks like (Y, X, C): only its last axis is short, as in RGB."""
    if array.ndim == 3 and array.shape[2] <= 4 < min(array.shape[:2]):
        problem = f"has shape {array.shape}, which looks like (Y, X, C), expected (Y, X) or (C, Y, X)"
        raise BadFile("channels-differ", name, problem, "move the channels first with np.moveaxis(image, -1, 0)")


@dataclass(frozen=True)
class FittedSource:
    """A frame with the channels that a model expects, checked while it is read."""

    frame: Frame
    channels: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.channels, *self.frame.shape[1:]

    @property
    def chunk(self) -> tuple[int, ...]:
        return self.frame.chunk

    def read(self, region: Region) -> np.ndarray:
        pixels = self.frame.read(region)
        check_finite(pixels, self.frame.name, origin_of(region))
        if len(pixels) == self.channels:
            return pixels
        if not is_grey(pixels):
            raise _channels_differ(self.frame, self.channels)
        return pixels[:1]


def fit_channels(frame: Frame, channels: int) -> FittedSource:
    """Return a frame as a Source with the channels of a model: `as_channels` for images that are not loaded.

    Raises
    ------
    ImageError
        For another number of channels. Reading pixels raises it for NaN, infinity, and colours where three equal
        channels (greyscale saved as RGB) are needed.
    """
    if frame.shape[0] != channels and (channels, frame.shape[0]) != (1, 3):
        raise _channels_differ(frame, channels)
    return FittedSource(frame, channels)


def _channels_differ(frame: Frame, channels: int) -> BadFile:
    problem = f"has {plural(frame.shape[0], 'channel')}, but the model was trained on {channels}"
    choose = f"choose one with --channel 0..{frame.shape[0] - 1}"
    fix = choose if channels == 1 else f"give images with {channels} channels"
    return BadFile("channels-differ", frame.name, problem, fix)


def is_grey(pixels: np.ndarray) -> bool:
    """Whether (3, Y, X) pixels are greyscale saved as RGB.

    Examples
    --------
    >>> is_grey(np.ones((3, 2, 2))), is_grey(np.arange(12).reshape(3, 2, 2)), is_grey(np.ones((1, 2, 2)))
    (True, False, False)
    """
    return len(pixels) == 3 and bool((pixels[0] == pixels[1]).all() and (pixels[0] == pixels[2]).all())


def write_labels(path: str | Path, labels: np.ndarray, pixel_size: PixelSize | None = None) -> None:
    """Write a label image as a compressed TIFF that ImageJ opens, whole or not at all.

    Parameters
    ----------
    path : path
        The file to write; missing folders are created.
    labels : (Y, X) or (Z, Y, X) integer array
        Not negative. Written as uint16, or as uint32 if a label is larger than 65535.
    pixel_size : (y, x) in micrometre per pixel, optional
        Stored in the file.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    if labels.ndim not in (2, 3) or labels.dtype.kind not in "bui" or (labels.size and labels.min() < 0):
        raise ImageError(
            f"labels for {path} must be (Y, X) or (Z, Y, X) integers >= 0, got {labels.dtype} {labels.shape}"
        )
    dtype = np.uint16 if not labels.size or labels.max() < 2**16 else np.uint32
    _write_tiff(path, labels.astype(dtype), "ZYX"[-labels.ndim :], pixel_size, compression="zlib")


def write_probabilities(path: str | Path, probabilities: np.ndarray, pixel_size: PixelSize | None = None) -> None:
    """Write (K, Y, X) or (Z, K, Y, X) probabilities as a float32 TIFF that ImageJ opens, classes as channels."""
    if probabilities.ndim not in (3, 4):
        raise ImageError(f"probabilities for {path} must be (K, Y, X) or a stack, got shape {probabilities.shape}")
    axes = "CYX" if probabilities.ndim == 3 else "ZCYX"
    _write_tiff(path, probabilities.astype(np.float32), axes, pixel_size, compression=None)


def write_png(path: str | Path, rgb: np.ndarray) -> None:
    """Write a (Y, X, 3) uint8 picture, whole or not at all."""
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ImageError(f"a picture for {path} must be (Y, X, 3) uint8, got {rgb.dtype} {rgb.shape}")
    with atomic_path(path) as temporary:
        Image.fromarray(rgb).save(temporary, format="PNG")


def _write_tiff(
    path: str | Path, array: np.ndarray, axes: str, pixel_size: PixelSize | None, compression: str | None
) -> None:
    imagej = array.dtype in (np.uint16, np.float32) and array.nbytes < CLASSIC_TIFF_BYTES
    metadata = {"axes": axes, **({"unit": "um"} if imagej and pixel_size else {})}
    # ImageJ stores pixels per unit (here micrometre), plain TIFF per centimetre
    per_pixel = (1.0 if imagej else 1e-4) * np.array(pixel_size) if pixel_size else None
    with atomic_path(path) as temporary:
        tifffile.imwrite(
            temporary,
            array,
            imagej=imagej,
            bigtiff=array.nbytes >= CLASSIC_TIFF_BYTES,
            photometric="minisblack",
            compression=compression,
            metadata=metadata,
            resolution=None if per_pixel is None else (1 / per_pixel[1], 1 / per_pixel[0]),
            resolutionunit=None if per_pixel is None else ("NONE" if imagej else "CENTIMETER"),
        )
