"""Label images: files of whole numbers. Anything else is refused with the reason."""

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

    frames: tuple[np.ndarray, ...]  # one (Y, X) int32 array per frame, values as in the file
    pixel_size: PixelSize | None  # micrometre per pixel (y, x)
    description: str


def read_labels(path: str | Path, keep: Keep = in_memory) -> LabelFile:
    """Read a label image or stack.

    Values are kept as they are in the file. In a PNG or TIFF with a colour table, the indices of the colours are the
    labels. Greyscale saved as RGB is read as greyscale.

    Parameters
    ----------
    path : path
        Any format but JPEG, 2-D or a stack.
    keep : callable
        Where the frames go, one by one (`septum.data.keep`).

    Returns
    -------
    LabelFile
        One (Y, X) int32 array per frame.

    Raises
    ------
    ImageError
        If the file cannot be read, is a JPEG, has colours or several channels, or contains fractions, negative values,
        NaN, or values above 2147483647.
    """
    path = Path(path)
    file = open_labels(path)
    frames = []
    for frame in file.frames:
        frames.append(keep(as_label_image(frame.read(), path)))
    return LabelFile(tuple(frames), file.pixel_size, file.description)


def open_labels(path: Path) -> ImageFile:
    """Open a label file; in a file with a colour table, the indices of the colours are the labels."""
    stored = open_stored(path)
    if stored.format == "JPEG":
        fix = "export the labels as TIFF or PNG (if only the JPEG exists, threshold it first)"
        raise BadFile("label-format", path, "is a JPEG, whose compression changes label values", fix)
    if stored.palette is not None:
        stored = replace(stored, palette=None, alpha=False)
    return from_stored(path, stored)


def as_label_image(pixels: np.ndarray, name: str | Path) -> np.ndarray:
    """(C, Y, X) pixels as stored -> (Y, X) int32 labels; ImageError for colours and whatever `as_labels` refuses."""
    if len(pixels) > 1 and not is_grey(pixels):
        fix = "save one label per pixel as a greyscale TIFF (axes YX, or ZYX for a stack)"
        raise BadFile("label-format", name, f"has {len(pixels)} channels, expected one label per pixel", fix)
    return as_labels(pixels[0], name)


def as_labels(values: np.ndarray, name: str | Path) -> np.ndarray:
    """Return (Y, X) values as int32 labels; ImageError if they are not whole numbers from 0 to 2147483647.

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
        fix = "save integer labels instead of probabilities, and resize labels with nearest neighbour only"
        raise BadFile("label-values", name, problem, fix)
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    if low < 0:
        raise BadFile("label-values", name, f"has negative labels, such as {low}", "number objects 1, 2, 3, ...")
    if high > MAX_LABEL:
        raise BadFile(
            "label-values", name, f"has labels above {MAX_LABEL}, such as {high}", "number objects 1, 2, 3, ..."
        )
    return values.astype(np.int32)


def grey_edges(labels: np.ndarray) -> bool:
    """Whether a label image was blurred, resized with interpolation, or compressed as a JPEG.

    All three leave intermediate values along the edges. A pixel at an edge counts if its value lies strictly between
    those of its neighbours and at most two of its eight neighbours share it. In an intact label image this happens only
    where three labels meet. The image is refused if a tenth of all edge pixels count and they have at least three
    different values. Measured shares: at most 0.001 in real labels and 0.05 in simulated tissue of cells four pixels
    wide; at least 0.17 after resizing and 0.19 after JPEG compression of quality 95.

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
