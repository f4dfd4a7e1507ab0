"""Tracking markers of the Cell Tracking Challenge: where a frame may hold cells that nobody has outlined."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage


def unannotated(labels: np.ndarray, markers: np.ndarray) -> npt.NDArray[np.bool_] | None:
    """Return the background that may be an unannotated cell: the reading rule of challenge folders.

    Markers (``TRA``) lie on every cell, also on those that nobody has outlined (``SEG``). Around a marker that touches
    no object, background counts as unknown up to the distance that some outlined cell of the frame reaches from its own
    marker. A frame without any outlined cell says nothing about that distance: all of it is unknown.

    Parameters
    ----------
    labels : (Y, X) integer array
        Outlined cells, 0 is background.
    markers : (Y, X) integer array
        A mark on every cell, 0 elsewhere; numbers need not be those of the labels.

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
