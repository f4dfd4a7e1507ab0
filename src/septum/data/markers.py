"""Tracking markers of the Cell Tracking Challenge: where a frame may contain cells that nobody has outlined."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage


def unannotated(labels: np.ndarray, markers: np.ndarray) -> npt.NDArray[np.bool_] | None:
    """Return the background that may belong to cells without an outline.

    Every cell has a marker (``TRA``), but some have no outline (``SEG``). Around a marker without an outline,
    background is unknown up to the largest distance that an outlined cell of the frame extends from its own marker. A
    frame without any outline is unknown as a whole.

    Parameters
    ----------
    labels : (Y, X) integer array
        Outlined cells, 0 is background.
    markers : (Y, X) integer array
        A mark on every cell, 0 elsewhere. Their values need not match the labels.

    Returns
    -------
    (Y, X) bool array or None
        None if every marker lies on an outlined cell.

    Examples
    --------
    >>> labels = np.array([[1, 1, 1, 0, 0, 0, 0, 0, 0]])
    >>> markers = np.array([[0, 5, 0, 0, 0, 0, 7, 0, 0]])
    >>> unannotated(labels, markers).astype(int)
    array([[0, 0, 0, 0, 0, 1, 1, 1, 0]])
    """
    uncovered = np.setdiff1d(markers, markers[labels > 0])
    uncovered = uncovered[uncovered > 0]
    if not len(uncovered):
        return None
    farthest = 0.0
    for marker in np.unique(markers[(markers > 0) & (labels > 0)]):
        own = markers == marker
        cells, pixels = np.unique(labels[own & (labels > 0)], return_counts=True)
        cell = cells[pixels.argmax()]
        farthest = max(farthest, ndimage.distance_transform_edt(~own)[labels == cell].max())
    if farthest == 0 and not (labels > 0).any():
        return np.ones(labels.shape, bool)
    around = ndimage.distance_transform_edt(~np.isin(markers, uncovered)) <= farthest
    unknown: npt.NDArray[np.bool_] = around & (labels == 0)
    return unknown
