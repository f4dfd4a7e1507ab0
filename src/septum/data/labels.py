"""Label images: files of whole numbers, or refused with the reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from septum.data.findings import BadFile
from septum.data.images import ImageFile, from_stored, is_grey, open_stored
from septum.data.keep import Keep, in_memory
from septum.data.stored import PixelSize

MAX_LABEL = 2**31 - 1


class LabelFile(NamedTuple):
    """The label images of a file."""

    frames: tuple[np.ndarray, ...]  # one (Y, X) int32 array per frame, numbers as in the file
    pixel_size: PixelSize | None  # micrometre per pixel (y, x)
    description: str


def read_labels(path: str | Path, keep: Keep = in_memory) -> LabelFile:
    """Read a label image or stack.

    Numbers are kept as they are in the file; of a PNG or TIFF with a colour table, the numbers of the colours.
    Grey values saved as RGB are read as grey.

    Parameters
    ----------
    path : path
        TIFF or PNG, 2-D or a stack.
    keep : callable
        Where the frames go, one by one: `septum.data.keep`.

    Returns
    -------
    LabelFile
        One (Y, X) int32 array per frame.

    Raises
    ------
    ImageError
        If the file cannot be read, is a JPEG, has colours or several channels, or holds fractions, negative numbers,
        NaN, or numbers beyond 2147483647.
    """
    path = Path(path)
    file = open_labels(path)
    frames = []
    for frame in file.frames:
        pixels = frame.read()
        if len(pixels) > 1 and not is_grey(pixels):
            fix = "save one number per pixel as a grey-value TIFF (axes YX, or ZYX for a stack)"
            raise BadFile("label-format", path, f"has {len(pixels)} channels, expected one (no colours)", fix)
        frames.append(keep(as_labels(pixels[0], path)))
    return LabelFile(tuple(frames), file.pixel_size, file.description)


def open_labels(path: Path) -> ImageFile:
    """Open a file of label numbers; of a colour table, the numbers of the colours are taken, however transparent."""
    stored = open_stored(path)
    if stored.format == "JPEG":
        fix = "draw or export the labels as TIFF or PNG; a mask that exists as JPEG only must be thresholded first"
        raise BadFile("label-format", path, "is a JPEG, whose compression changes label numbers", fix)
    if stored.palette is not None:
        stored = replace(stored, palette=None, alpha=False)
    return from_stored(path, stored)


def as_labels(values: np.ndarray, name: str | Path) -> np.ndarray:
    """Return (Y, X) numbers as int32 labels; ImageError if they are not whole numbers from 0 to 2147483647.

    Examples
    --------
    >>> as_labels(np.array([[0.0, 3.0]]), "a.tif")
    array([[0, 3]], dtype=int32)
    """
    if values.dtype.kind not in "buif":
        raise BadFile("label-values", name, f"has values of type {values.dtype}, expected integers", "convert them")
    if values.dtype.kind == "f" and not (whole := np.isfinite(values) & (values == np.round(values))).all():
        example = values[~whole][0]
        problem = f"has values that are not whole numbers, such as {example:.4g}"
        fix = "save labels, not probabilities, as integers, and resize labels by nearest neighbour only"
        raise BadFile("label-values", name, problem, fix)
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    if low < 0:
        raise BadFile("label-values", name, f"has negative labels, such as {low}", "number objects 1, 2, 3, ...")
    if high > MAX_LABEL:
        raise BadFile(
            "label-values", name, f"has labels beyond {MAX_LABEL}, such as {high}", "number objects 1, 2, 3, ..."
        )
    return values.astype(np.int32)


def grey_edges(labels: np.ndarray) -> bool:
    """Whether a label image was blurred, resized with interpolation, or compressed like a photograph.

    Then numbers in between lie along the edges. Counted are the pixels at an edge that lie strictly between their
    neighbours and have at most two of their eight neighbours on their side: in a sound label image these occur only
    where three labels meet. A tenth of all edge pixels, and three different numbers among them, tell (measured: at most
    0.001 in real labels, 0.05 in simulated tissue of cells four pixels wide; at least 0.17 after resizing, 0.19 after
    JPEG of quality 95).

    Parameters
    ----------
    labels : (Y, X) integer array
        One label image.

    Examples
    --------
    >>> disc = np.hypot(*np.mgrid[-9:10, -9:10])
    >>> grey_edges((255 * (disc < 6)).astype(int)), grey_edges((255 * np.clip(7 - disc, 0, 1)).astype(int))
    (False, True)
    """
    if min(labels.shape) < 3:
        return False
    inner = labels[1:-1, 1:-1]
    lowest, highest, alike = inner.copy(), inner.copy(), np.zeros(inner.shape, np.uint8)
    for dy in range(3):
        for dx in range(3):
            neighbour = labels[dy : dy + inner.shape[0], dx : dx + inner.shape[1]]
            np.minimum(lowest, neighbour, out=lowest)
            np.maximum(highest, neighbour, out=highest)
            alike += neighbour == inner
    edge = lowest < highest
    between = (lowest < inner) & (inner < highest) & (alike <= 3)
    return bool(between.sum() >= 0.1 * edge.sum() > 0) and len(np.unique(inner[between])) >= 3
