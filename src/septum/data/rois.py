"""ImageJ ROI archives (outlines drawn in Fiji) -> label images."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import roifile

from septum.data.findings import BadFile

AREA_TYPES = (
    roifile.ROI_TYPE.POLYGON,
    roifile.ROI_TYPE.RECT,
    roifile.ROI_TYPE.OVAL,
    roifile.ROI_TYPE.FREEHAND,
    roifile.ROI_TYPE.TRACED,
)
AXIS_NAMES = {"T": "time point", "Z": "slice"}


def read_rois(
    path: Path, shape: tuple[int, ...], grid: Sequence[tuple[str, int]]
) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
    """Draw the ROIs of an archive: each is one object, except that ROIs named ``ignore`` are unannotated areas.

    A pixel belongs to a ROI if its centre lies inside, as in ImageJ. Where ROIs overlap, the later one wins.

    Parameters
    ----------
    path : Path
        ``a.zip`` from the ROI Manager.
    shape : (height, width)
        Size of the image, pixels.
    grid : sequence of (axis, length)
        The axes of the frames, `septum.data.images.ImageFile.grid`. In an image with several frames, each ROI must
        store its slice or time point; with axes T and Z, both.

    Returns
    -------
    labels : list of (Y, X) int32 arrays
        Per frame; objects are numbered in the order of the archive.
    ignore : list of (Y, X) bool arrays or None
        Per frame; True where nothing is annotated.

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
    except Exception as error:  # roifile raises many kinds of errors for damaged files
        raise BadFile("unreadable", path, f"is damaged ({error})", "save it again from the ROI Manager") from None
    raise BadFile("unreadable", path, "is not a zip archive of ImageJ ROIs", "save it again from the ROI Manager")


def _frame(path: Path, roi: Any, grid: Sequence[tuple[str, int]]) -> int:
    """Return the frame of a ROI, counted from 0. ImageJ counts slices and time points from 1, and 0 means unknown."""
    stored = {"T": roi.t_position, "Z": roi.z_position}
    if len(grid) == 1 and min(stored.values()) <= 1:  # the single axis, whatever its name
        stored = {grid[0][0]: max(roi.position, *stored.values())}
    if stored.keys() == dict(grid).keys() and all(1 <= stored[axis] <= length for axis, length in grid):
        return int(np.ravel_multi_index([stored[axis] - 1 for axis, _ in grid], [length for _, length in grid]))
    found = ", ".join(f"{AXIS_NAMES.get(axis, 'page')} {position}" for axis, position in stored.items())
    expected = ", ".join(f"{AXIS_NAMES.get(axis, 'page')} 1..{length}" for axis, length in grid)
    problem = f"has the ROI {roi.name!r} at {found}, expected {expected}"
    raise BadFile("frame-mismatch", path, problem, "in Fiji, tick 'Associate ROIs with slices' before adding ROIs")


def _area(path: Path, roi: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return which pixel centres lie inside a ROI, by the even-odd rule: (Y, X) bool."""
    if roi.roitype not in AREA_TYPES:
        problem = f"has the ROI {roi.name!r} of type {roi.roitype.name.lower()}, expected an area"
        raise BadFile("label-format", path, problem, "outline the object, or delete the ROI")
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
        problem = f"has the ROI {roi.name!r} outside its image of {shape[0]} x {shape[1]} pixels"
        raise BadFile("size-mismatch", path, problem, "check that the ROIs were drawn on this image")
    return inside


def _polygon(outline: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Fill a polygon of (x, y) corners, row by row: a centre is inside if an odd number of edges is to its right."""
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
