"""Pictures as text inside a page, compressed so that the page stays small."""

from __future__ import annotations

import base64
import bisect
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from septum.report.sections import Picture

_PAGE_BYTES = 4_500_000  # for pictures and their captions; leaves room for the rest of a page of 5 MB
_MARKUP_BYTES = 120  # per picture
_CROP_SIDE = 128  # pixels; pictures up to this size are crops: enlarged with crisp pixels, compressed without blur


def shrink(rgb: NDArray[np.uint8], max_side: int) -> NDArray[np.uint8]:
    """Return a picture shrunk by area averaging to a longer side of at most `max_side` pixels; unchanged if it fits.

    Examples
    --------
    >>> shrink(np.zeros((600, 300, 3), np.uint8), 200).shape
    (200, 100, 3)
    """
    if max(rgb.shape[:2]) <= max_side:
        return rgb
    image = Image.fromarray(rgb)
    image.thumbnail((max_side, max_side), Image.Resampling.BOX)
    return np.asarray(image)


class Compression(NamedTuple):
    """How pictures are stored in the page."""

    step: int  # crops: channels are rounded to multiples of this
    quality: int | None  # larger pictures: JPEG quality; None is lossless
    max_side: int  # larger pictures, pixels


_COMPRESSIONS = (
    Compression(1, None, 1024),
    Compression(8, 85, 1024),
    Compression(16, 70, 1024),
    Compression(16, 55, 768),
    Compression(32, 55, 512),
    Compression(32, 40, 512),
    Compression(32, 40, 384),
    Compression(32, 30, 256),
    Compression(64, 30, 256),
)


def choose_compression(pictures: Sequence[Picture]) -> Compression:
    """Return the mildest compression that keeps the page small, estimated from a sample of the pictures."""
    groups = [[p for p in pictures if is_crop(p)], [p for p in pictures if not is_crop(p)]]
    limit = _PAGE_BYTES - sum(_MARKUP_BYTES + len(p.caption) + len(p.alt) for p in pictures)

    def fits(compression: Compression) -> bool:
        total = 0.0
        for group in groups:
            sample = group[:: len(group) // 25 + 1]
            total += sum(len(data_uri(p, compression)) for p in sample) * len(group) / max(1, len(sample))
        return total <= limit

    return _COMPRESSIONS[bisect.bisect_left(_COMPRESSIONS[:-1], True, key=fits)]


def is_crop(picture: Picture) -> bool:
    """Whether a picture is small: shown enlarged, with crisp pixels."""
    return bool(max(picture.rgb.shape[:2]) <= _CROP_SIDE)


def data_uri(picture: Picture, compression: Compression) -> str:
    """Return a picture as the text that an img element takes as its source."""
    buffer = io.BytesIO()
    kind = "webp"
    if is_crop(picture):
        # Lossless: lossy formats that make small files halve the resolution of colour, and one-pixel outlines fade.
        step = compression.step
        rounded = np.minimum((picture.rgb.astype(np.uint16) + step // 2) // step * step, 255).astype(np.uint8)
        Image.fromarray(rounded).save(buffer, "WEBP", lossless=True)
    elif compression.quality is None:
        Image.fromarray(shrink(picture.rgb, compression.max_side)).save(buffer, "WEBP", lossless=True, quality=20)
    else:
        kind = "jpeg"
        small = Image.fromarray(shrink(picture.rgb, compression.max_side))
        small.save(buffer, "JPEG", quality=compression.quality, subsampling="4:4:4")
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
