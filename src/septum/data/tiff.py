"""TIFF, BigTIFF, OME-TIFF and ImageJ stacks: parsed by tifffile, read by regions."""

from __future__ import annotations

import functools
import logging
import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile

from septum.data.findings import BadFile
from septum.data.stored import MICROMETRE, Index, PixelSize, Stored, check_level, coarser, plausible

DAMAGED_FIX = "copy the file again, or open it in Fiji and save it again"
CACHE_BYTES = 16 * 2**20  # of decoded strips or tiles kept per file, for neighbouring regions
RESOLUTION_UNIT = {2: ("inch", 25400.0), 3: ("centimetre", 1e4)}  # TIFF tag 296
PageReader = Callable[[int, slice, slice], np.ndarray]  # page, rows, columns -> (y, x), (y, x, S) or (S, y, x)
METADATA_NAMES = {"ome": "OME metadata", "imagej": "ImageJ metadata", "shaped": "tifffile metadata"}


class Page(NamedTuple):
    """Where the strips or tiles of one page are stored."""

    file: Path
    offsets: tuple[int, ...]
    counts: tuple[int, ...]
    jpegtables: bytes | None


def open_tiff(path: Path, level: int) -> Stored:
    """Open the first image series of a TIFF at a resolution level; of an OME-TIFF set, only the frames in this file."""
    with _logged_errors() as logged:
        try:
            with tifffile.TiffFile(path) as tif:
                stored = _stored(path, tif, level)
        except BadFile:
            raise
        except Exception as error:  # tifffile raises many kinds of errors for damaged files
            raise _damaged(path, str(error) or type(error).__name__) from None
    if logged:
        raise _damaged(path, logged[0])
    return stored


def _stored(path: Path, tif: tifffile.TiffFile, level: int) -> Stored:
    if not tif.series:
        raise _damaged(path, "it contains no image")
    files = _files_of_set(tif)
    own = [series for series in tif.series if files == 1 or any(_lies_in(tif, part) for part in series)]
    if not own:
        raise _irregular(path, files)
    full = own[0]
    check_level(path, level, len(full.levels))
    series = full.levels[level]
    page = series.keyframe
    levels = tuple(_height_and_width(one) for one in full.levels)
    remarks = [f"one of {files} files of an OME-TIFF set, only its own frames are read"] if files > 1 else []
    if len(own) > 1:
        others = ", ".join(" x ".join(map(str, other.shape)) for other in own[1:])
        remarks.append(f"first of {len(own)} image series (others: {others})")
    photometric = int(page.photometric)
    if photometric in (5, 8) or (photometric == 6 and page.compression in (1, 5, 8)):
        space = {5: "CMYK", 6: "YCbCr", 8: "CIE Lab"}[photometric]
        raise BadFile("unreadable", path, f"is {space}, expected greyscale or RGB", "save it as RGB")
    palette = None
    if photometric == 3 and tif.is_imagej:
        remarks.append("lookup table ignored, because ImageJ uses it for display only")
    elif photometric == 3:
        palette = (page.colormap.T >> 8).astype(np.uint8)
    pixel_size, source = _pixel_size(tif, full.keyframe)
    if pixel_size:
        down, across = coarser(levels[0], levels[level])
        pixel_size = pixel_size[0] * down, pixel_size[1] * across
    load, shape, chunk = _loader(path, tif, series, level, files)
    extra = [int(sample) for sample in page.extrasamples]
    return Stored(
        format="TIFF",
        axes=series.axes,
        axes_from=METADATA_NAMES.get(series.kind, "the TIFF pages"),
        shape=shape,
        dtype=np.dtype(series.dtype),
        load=load,
        pixel_size=pixel_size,
        pixel_size_from=source,
        chunk=chunk,
        levels=levels,
        level=level,
        palette=palette,
        alpha="S" in series.axes and bool(extra) and extra[-1] in (1, 2),
        remarks=tuple(remarks),
    )


def _loader(
    path: Path, tif: tifffile.TiffFile, series: Any, level: int, files: int
) -> tuple[Callable[[Index], np.ndarray], tuple[int, ...], tuple[int, int]]:
    """Return how to read parts of a series, the shape of the part in this file, and the (Y, X) pixels of a chunk."""
    page = series.keyframe
    height, width = _height_and_width(series)
    if 0 in series.shape:
        return lambda index: np.zeros(series.shape, series.dtype)[index], tuple(series.shape), (1, width)
    dtype = series.dtype.newbyteorder(tif.byteorder)
    plain = getattr(series, "transform", None) is None
    if series.dataoffset is not None and not series.is_multifile and plain:
        if series.dataoffset + math.prod(series.shape) * series.dtype.itemsize > path.stat().st_size:
            raise _damaged(path, "it is too short for its pixels")
        shape = tuple(series.shape)
        return lambda index: np.memmap(path, dtype, "r", series.dataoffset, shape)[index], shape, (1, width)
    parts = {index: part for index, part in enumerate(series) if files == 1 or _lies_in(tif, part)}
    pages = {index: _page(path, index, part) for index, part in parts.items()}
    n = len(page.axes)
    regular = (
        page.axes in ("YX", "YXS", "SYX")
        and series.axes.endswith(page.axes)
        and math.prod(series.shape[:-n]) == len(series)
        and page.imagedepth == 1
        and plain
    )
    if not regular and files > 1:
        raise _irregular(path, files)
    if not regular:
        whole = functools.cache(lambda: _whole(path, level))
        return lambda index: whole()[index], tuple(series.shape), (1, width)
    grid = np.arange(len(series)).reshape(series.shape[:-n])
    if len(pages) < grid.size:
        grid = grid[np.ix_(*map(np.unique, np.nonzero(np.isin(grid, list(pages)))))]
    if len(pages) < grid.size:
        raise _irregular(path, files)
    if page.is_final and all(map(_is_contiguous, pages.values())):
        read, chunk = _mapped(pages, page, dtype), (1, width)
    else:
        tile_height, tile_width = _segment_shape(page)
        read, chunk = _decoded(pages, page), (min(tile_height, height), min(tile_width, width))

    def load(index: Index) -> np.ndarray:
        inside = dict(zip(page.axes, index[-n:], strict=True))
        chosen = grid[index[:-n]]
        parts = [read(number, inside["Y"], inside["X"]) for number in chosen.ravel()]
        block: np.ndarray = np.stack(parts).reshape(*chosen.shape, *parts[0].shape)
        return block[(..., *(inside[axis] if axis == "S" else slice(None) for axis in page.axes))]

    return load, (*grid.shape, *series.shape[-n:]), chunk


def _files_of_set(tif: tifffile.TiffFile) -> int:
    """Return the number of files of an OME-TIFF set; each file describes all of them."""
    elements = ElementTree.fromstring(tif.ome_metadata).iter() if tif.is_ome else ()
    return len({element.text for element in elements if element.tag.endswith("}UUID")}) or 1


def _lies_in(tif: tifffile.TiffFile, page: Any) -> bool:
    return page is not None and page.parent is tif


def _height_and_width(series: Any) -> tuple[int, int]:
    size = dict(zip(series.axes, series.shape, strict=True))
    return size.get("Y", 1), size.get("X", 1)


def _page(path: Path, index: int, page: Any) -> Page:
    if page is None or not page.dataoffsets:
        raise _damaged(path, f"page {index} is missing")
    file = Path(page.parent.filehandle.path)
    size = file.stat().st_size
    if any(offset + count > size for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)):
        raise _damaged(path, f"it ends in the middle of page {index}")
    return Page(file, tuple(page.dataoffsets), tuple(page.databytecounts), page.jpegtables)


def _is_contiguous(page: Page) -> bool:
    ends = [offset + count for offset, count in zip(page.offsets, page.counts, strict=True)]
    return all(page.counts) and ends[:-1] == list(page.offsets[1:])


def _mapped(pages: dict[int, Page], keyframe: Any, dtype: np.dtype) -> PageReader:
    """Read parts of pages that are stored uncompressed and contiguously."""

    def read(number: int, rows: slice, columns: slice) -> np.ndarray:
        page = pages[number]
        inside = {"Y": rows, "X": columns}
        pixels = np.memmap(page.file, dtype, "r", page.offsets[0], keyframe.shape)
        return pixels[tuple(inside.get(axis, slice(None)) for axis in keyframe.axes)]

    return read


def _decoded(pages: dict[int, Page], keyframe: Any) -> PageReader:
    """Read parts of pages strip by strip or tile by tile."""
    return functools.partial(_read_page, _decoder(pages, keyframe), keyframe)


def _decoder(pages: dict[int, Page], keyframe: Any) -> Callable[[int, int], tuple[np.ndarray | None, tuple, tuple]]:
    """Return a function (page, segment) -> pixels, position, shape that caches what it decoded last."""
    tables = keyframe.compression in (6, 7, 34892, 33007)  # the JPEG family
    decode, header = keyframe.decode, keyframe.jpegheader
    segment_bytes: int = math.prod(_segment_shape(keyframe)) * keyframe.shaped[-1] * keyframe.dtype.itemsize

    @functools.lru_cache(maxsize=max(1, CACHE_BYTES // segment_bytes))
    def decoded(number: int, segment: int) -> tuple[np.ndarray | None, tuple, tuple]:
        page = pages[number]
        try:
            with open(page.file, "rb") as file:
                file.seek(page.offsets[segment])
                data = file.read(page.counts[segment]) or None  # None: a segment that was never written, all zeros
            options = {"jpegtables": page.jpegtables, "jpegheader": header} if tables else {}
            result: tuple[np.ndarray | None, tuple, tuple] = decode(data, segment, **options)
        except Exception as error:  # each codec raises its own errors
            raise _damaged(page.file, f"strip or tile {segment} of page {number} cannot be decoded: {error}") from None
        return result

    return decoded


def _segment_shape(page: Any) -> tuple[int, int]:
    return (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)


def _read_page(decode: Callable, page: Any, number: int, rows: slice, columns: slice) -> np.ndarray:
    """Decode the strips or tiles that a region touches: (y, x), (y, x, S) or (S, y, x)."""
    planes, _, height, width, samples = page.shaped
    tile_height, tile_width = _segment_shape(page)
    down, across = math.ceil(height / tile_height), math.ceil(width / tile_width)
    y0, y1, _ = rows.indices(height)
    x0, x1, _ = columns.indices(width)
    out = np.zeros((planes, y1 - y0, x1 - x0, samples), page.dtype)
    for plane in range(planes):
        for row in range(y0 // tile_height, math.ceil(y1 / tile_height)):
            for column in range(x0 // tile_width, math.ceil(x1 / tile_width)):
                pixels, (_, _, top, left, _), _ = decode(number, (plane * down + row) * across + column)
                if pixels is None:
                    continue
                ya, yb = max(y0, top), min(y1, top + pixels.shape[1])
                xa, xb = max(x0, left), min(x1, left + pixels.shape[2])
                part = pixels[0, ya - top : yb - top, xa - left : xb - left]
                out[plane, ya - y0 : yb - y0, xa - x0 : xb - x0] = part
    if page.axes == "YX":
        return out[0, :, :, 0]
    return out[0] if page.axes == "YXS" else out[..., 0]


def _whole(path: Path, level: int) -> np.ndarray:
    """Decode a file with an unusual layout as a whole."""
    with _logged_errors():
        pixels = np.asarray(tifffile.imread(path, series=0, level=level))
    pixels.flags.writeable = False  # it is kept for the next region
    return pixels


def _pixel_size(tif: tifffile.TiffFile, page: Any) -> tuple[PixelSize | None, str]:
    if not tif.is_ome:
        return _tag_pixel_size(tif, page)
    size = _ome_pixel_size(tif.ome_metadata)
    if size:
        return size, "OME metadata"
    size, source = _tag_pixel_size(tif, page)
    return size, source if size else f"the OME metadata have none, and {source}"


def _tag_pixel_size(tif: tifffile.TiffFile, page: Any) -> tuple[PixelSize | None, str]:
    resolution = [page.tags.valueof(code) for code in (283, 282)]  # pixels per unit (y, x)
    if not all(resolution) or any(0 in pair for pair in resolution):
        return None, "the file has no resolution tag"
    unit_per_pixel = [denominator / numerator for numerator, denominator in resolution]
    if tif.is_imagej:
        unit = _plain(str((tif.imagej_metadata or {}).get("unit", "")))
        if unit in MICROMETRE and unit not in ("inch", "in", "cm"):  # ImageJ also uses these two for printing
            return (unit_per_pixel[0] * MICROMETRE[unit], unit_per_pixel[1] * MICROMETRE[unit]), "ImageJ metadata"
    name, factor = RESOLUTION_UNIT.get(page.tags.valueof(296), ("", 0.0))
    if not name:
        return None, "its resolution has no unit of length"
    return plausible((unit_per_pixel[0] * factor, unit_per_pixel[1] * factor), f"resolution tag per {name}")


def _ome_pixel_size(xml: str) -> PixelSize | None:
    for element in ElementTree.fromstring(xml).iter():
        if element.tag.endswith("}Pixels"):
            sizes = []
            for axis in "YX":
                unit = _plain(element.get(f"PhysicalSize{axis}Unit", "µm"))
                sizes.append(float(element.get(f"PhysicalSize{axis}", "0")) * MICROMETRE.get(unit, 0.0))
            return (sizes[0], sizes[1]) if all(sizes) else None
    return None


def _plain(unit: str) -> str:
    # ImageJ writes the letter mu as an escape; Unicode has it twice, as the micro sign and as the Greek letter
    return re.sub(r"\\u00b5|\u03bc", "µ", unit.strip().lower())


@contextmanager
def _logged_errors() -> Iterator[list[str]]:
    """Collect the errors that tifffile logs, and keep everything it logs out of the terminal."""
    found: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.ERROR:
                found.append(re.sub(r"<tifffile\.Tiff\w+ [^>]*> ", "", record.getMessage()))

    logger, collector = logging.getLogger("tifffile"), Collector()
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(collector)
    try:
        yield found
    finally:
        logger.removeHandler(collector)
        logger.propagate = propagate


def _irregular(path: Path, files: int) -> BadFile:
    problem = f"is one of {files} files of an OME-TIFF set, with an irregular selection of its frames"
    return BadFile("unreadable", path, problem, "save the set as one file, with Fiji or bfconvert")


def _damaged(path: Path, reason: str) -> BadFile:
    return BadFile("unreadable", path, f"is damaged or truncated ({reason})", DAMAGED_FIX)
