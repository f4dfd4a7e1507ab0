"""A target for classes: the class of every pixel, for semantic segmentation and for masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from septum.core.labels import as_labels
from septum.core.loss import weighted_cross_entropy
from septum.errors import ImageError

if TYPE_CHECKING:
    from jaxtyping import Bool, UInt8

LARGEST_CLASS_ID = 255  # class ids are stored as uint8

loss = weighted_cross_entropy


def n_classes(largest_label: int) -> int:
    """Return the number of classes 0..largest_label, at least two.

    Examples
    --------
    >>> n_classes(3), n_classes(0)
    (4, 2)
    """
    return max(2, largest_label + 1)


def encode(labels: npt.ArrayLike) -> UInt8[np.ndarray, "Y X"]:
    """Check the class ids and return them unchanged.

    Parameters
    ----------
    labels : (Y, X) integer array
        Class ids 0..K-1.

    Returns
    -------
    (Y, X) uint8 array

    Raises
    ------
    ImageError
        If `labels` is not a label image or has an id above 255.

    Examples
    --------
    >>> encode(np.array([[0, 2]]))
    array([[0, 2]], dtype=uint8)
    """
    labels = as_labels(labels)
    if labels.size and labels.max() > LARGEST_CLASS_ID:
        raise ImageError(
            f"class ids must lie in 0..{LARGEST_CLASS_ID}, got {labels.max()}; "
            "if each object has its own number, these are instances: leave out kind='classes'"
        )
    return labels.astype(np.uint8)


def ambiguous(labels: npt.ArrayLike, unknown: Bool[np.ndarray, "Y X"]) -> Bool[np.ndarray, "Y X"]:
    """Return no pixel: the class of a pixel does not depend on others."""
    return np.zeros(unknown.shape, bool)
