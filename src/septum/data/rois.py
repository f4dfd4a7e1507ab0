"""ImageJ ROI archives: outlines drawn in Fiji -> label images."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import roifile

from septum.data.findings import BadFile

AREAS = (
    roifile.ROI_TYPE.POLYGON,
    roifile.ROI_TYPE.RECT,
    roifile.ROI_TYPE.OVAL,
    roifile.ROI_TYPE.FREEHAND,
    roifile.ROI_TYPE.TRACED,
)
WORDS = {"T": "time point", "Z": "slice"}


def read_rois(
    path: Path, shape: tuple[int, ...], grid: Sequence[tuple[str, int]]
) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
    """Draw the ROIs of an archive: each is one object, those named ``ignore`` are areas not annotated.

    A pixel belongs to a ROI if its centre does, as in ImageJ. Where ROIs overlap, the later one wins.

    Parameters
    ----------
    path : Path
        ``a.zip`` of the ROI manager.
    shape : (height, width)
        Of the image, pixels.
    grid : sequence of (axis, length)
        The axes of the frames, `septum.data.images.ImageFile.grid`. Of several frames, each ROI must know its slice or
        time point; of slices at several time points (axes T and Z) both.

    Returns
    -------
    labels : list of (Y, X) int32 arrays
        Per frame, objects numbered in the order of the archive.
    ignore : list of (Y, X) bool arrays or None
        Per frame, True where nothing is annotated.

    Raises
    ------
    ImageError
        If the archive cannot be read, or a ROI is not an area, lies outside the image, or has no slice.
    """
    several = [(axis, length) for axis, length in grid if length > 1]
    frames = math.prod(length for _, length in several)
    labels = [np.zeros(shape, np.int32) for _ in range(frames)]
    ignore: list[np.ndarray | None] = [None] * frames
    for number, roi in enumerate(_rois(path), start=1):
        frame = _frame(path, roi, several) if several else 0
        inside = _area(path, roi, shape)
        if (roi.name or "").lower().split("-")[0] == "ignore":  # ImageJ numbers equal names: ignore-1
            before = ignore[frame]
            ignore[frame] = inside if before is None else before | inside
        else:
            labels[frame][inside] = number
    return labels, ignore


def _rois(path: Path) -> list[Any]:
    try:
        if zipfile.is_zipfile(path):
            found = roifile.roiread(path)
            return found if isinstance(found, list) else [found]
    except Exception as error:  # roifile raises many kinds of errors for broken files
        raise BadFile("unreadable", path, f"is damaged ({error})", "save it again from ImageJ's ROI manager") from None
    raise BadFile("unreadable", path, "is no zip archive of ROIs", "save it again from ImageJ's ROI manager")


def _frame(path: Path, roi: Any, grid: Sequence[tuple[str, int]]) -> int:
    """Find the frame of a ROI, from 0, by the slice and time point that ImageJ keeps: from 1, or 0 if unknown."""
    kept = {"T": roi.t_position, "Z": roi.z_position}
    if len(grid) == 1 and min(kept.values()) <= 1:  # the one axis there is, whatever it is called
        kept = {grid[0][0]: max(roi.position, *kept.values())}
    if kept.keys() == dict(grid).keys() and all(1 <= kept[axis] <= length for axis, length in grid):
        return int(np.ravel_multi_index([kept[axis] - 1 for axis, _ in grid], [length for _, length in grid]))
    found = ", ".join(f"{WORDS.get(axis, 'page')} {position}" for axis, position in kept.items())
    expected = ", ".join(f"{WORDS.get(axis, 'page')} 1..{length}" for axis, length in grid)
    problem = f"has a ROI {roi.name!r} at {found}, expected {expected}"
    raise BadFile("frame-mismatch", path, problem, "in Fiji, tick 'Associate ROIs with slices' before adding ROIs")


def _area(path: Path, roi: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Tell which pixel centres lie inside a ROI, by the even-odd rule: (Y, X) bool."""
    if roi.roitype not in AREAS:
        problem = f"has a ROI {roi.name!r} of type {roi.roitype.name.lower()}, expected an area"
        raise BadFile("label-format", path, problem, "outline objects, or delete the ROI")
    inside = np.zeros(shape, bool)
    if roi.roitype == roifile.ROI_TYPE.OVAL and roi.subpixel_coordinates is None:
        y, x = np.ogrid[: shape[0], : shape[1]]
        down = (y + 0.5 - (roi.top + roi.bottom) / 2) / max((roi.bottom - roi.top) / 2, 0.5)
        across = (x + 0.5 - (roi.left + roi.right) / 2) / max((roi.right - roi.left) / 2, 0.5)
        inside = down**2 + across**2 <= 1
    else:
        for outline in roi.coordinates(multi=True):
            inside ^= _polygon(np.asarray(outline, float), shape)
    if not inside.any():
        problem = f"has a ROI {roi.name!r} outside its image of {shape[0]} x {shape[1]}"
        raise BadFile("size-mismatch", path, problem, "check that the ROIs were drawn on this image")
    return inside


def _polygon(outline: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Fill a polygon of (x, y) corners, row by row: a centre is inside if an odd number of edges lies to its right."""
    inside = np.zeros(shape, bool)
    start, end = outline, np.roll(outline, -1, axis=0)
    low, high = outline[:, 1].min(), outline[:, 1].max()
    centres = np.arange(shape[1]) + 0.5
    for row in range(max(0, int(low)), min(shape[0], int(np.ceil(high)))):
        y = row + 0.5
        crosses = (start[:, 1] <= y) != (end[:, 1] <= y)
        (x0, y0), (x1, y1) = start[crosses].T, end[crosses].T
        crossings = np.sort(x0 + (y - y0) * (x1 - x0) / (y1 - y0))
        inside[row] = (len(crossings) - np.searchsorted(crossings, centres, side="right")) % 2 == 1
    return inside
