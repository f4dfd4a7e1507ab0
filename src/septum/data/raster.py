"""PNG and JPEG: files that are decoded as a whole when the first pixel is read."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import imagecodecs
import numpy as np
from PIL import JpegImagePlugin, PngImagePlugin

from septum.data.findings import BadFile
from septum.data.stored import Stored, check_level, plausible

SAMPLES_PER_PIXEL = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by PNG colour type: grey, RGB, palette, grey + alpha, RGB + alpha


def open_png(path: Path, level: int) -> Stored:
    """Open a PNG. Pillow reads only palettes, because it would reduce 16-bit colours to 8 bit."""
    check_level(path, level, 1)
    with open(path, "rb") as file:
        header = file.read(26)  # the IHDR chunk always comes first
    # the plugin itself, because Image.open refuses large images
    with _damage_reported(path), PngImagePlugin.PngImageFile(path) as image:
        bits, colour_type = header[24:]
        (width, height), info = image.size, image.info
        palette = image.getpalette("RGBA" if "transparency" in info else "RGB") if colour_type == 3 else None
    has_palette = colour_type == 3
    alpha = colour_type in (4, 6) or "transparency" in info
    colours = np.zeros((256, 4 if alpha else 3), np.uint8)
    colours.flat[: len(palette or ())] = palette or ()
    samples = SAMPLES_PER_PIXEL[colour_type] + ("transparency" in info and not has_palette)
    pixel_size, source = None, "the file has no resolution tag"
    if "dpi" in info and all(info["dpi"]):  # Pillow sets it only if the unit is the metre
        x, y = info["dpi"]
        pixel_size, source = plausible((25400 / y, 25400 / x), "resolution tag")
    return Stored(
        format="PNG",
        axes="YX" if samples == 1 else "YXS",
        axes_from="PNG",
        shape=(height, width) if samples == 1 else (height, width, samples),
        dtype=np.dtype(np.uint16 if bits == 16 else np.uint8),
        load=_loader(path, _png_palette_indices if has_palette else _png_pixels),
        pixel_size=pixel_size,
        pixel_size_from=source,
        chunk=(1, width),
        levels=((height, width),),
        palette=colours if has_palette else None,
        alpha=alpha,
    )


def open_jpeg(path: Path, level: int) -> Stored:
    """Open a JPEG. Its resolution is for printing, so its pixel size is unknown."""
    check_level(path, level, 1)
    with _damage_reported(path), JpegImagePlugin.JpegImageFile(path) as image:
        (width, height), mode = image.size, image.mode
    if mode not in ("L", "RGB"):
        raise BadFile("unreadable", path, f"is {mode}, expected greyscale or RGB", "save it as RGB")
    return Stored(
        format="JPEG",
        axes="YX" if mode == "L" else "YXS",
        axes_from="JPEG",
        shape=(height, width) if mode == "L" else (height, width, 3),
        dtype=np.dtype(np.uint8),
        load=_loader(path, _jpeg_pixels),
        pixel_size=None,
        pixel_size_from="JPEG files do not store it",
        chunk=(1, width),
        levels=((height, width),),
    )


def _loader(path: Path, decode: Callable[[Path], np.ndarray]) -> Callable:
    @functools.cache
    def pixels() -> np.ndarray:
        with _damage_reported(path):
            decoded = decode(path)
        decoded.flags.writeable = False  # it is kept for the next region
        return decoded

    return lambda index: pixels()[index]


def _png_pixels(path: Path) -> np.ndarray:
    return np.asarray(imagecodecs.png_decode(path.read_bytes()))


def _png_palette_indices(path: Path) -> np.ndarray:
    with PngImagePlugin.PngImageFile(path) as image:
        return np.asarray(image)


def _jpeg_pixels(path: Path) -> np.ndarray:
    # Pillow, because libjpeg itself fills a truncated image with grey
    with JpegImagePlugin.JpegImageFile(path) as image:
        return np.asarray(image)


@contextmanager
def _damage_reported(path: Path) -> Iterator[None]:
    """Turn any error of a decoder into one sentence."""
    try:
        yield
    except Exception as error:
        problem = f"is damaged or truncated ({error})"
        raise BadFile("unreadable", path, problem, "copy or export the file again") from None
