"""What a label image is, and the array types for label images and masks.

A label image is a (Y, X) array of whole numbers. 0 is background; every other value is one instance, or one class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from numba import njit

from septum.errors import ImageError

if TYPE_CHECKING:
    from jaxtyping import Int32

Labels = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]

LARGEST_LABEL = np.iinfo(np.int32).max


def as_labels(labels: npt.ArrayLike) -> Int32[np.ndarray, "Y X"]:
    """Return a label image as int32.

    Parameters
    ----------
    labels : (Y, X) integer array

    Returns
    -------
    (Y, X) int32 array
        C-contiguous; not a copy if `labels` is that already.

    Raises
    ------
    ImageError
        If `labels` is not two-dimensional, not of an integer type, or has values below 0 or above 2**31 - 1.

    Examples
    --------
    >>> as_labels(np.array([[0, 7]], dtype=np.uint16))
    array([[0, 7]], dtype=int32)
    """
    array = np.asarray(labels)
    if array.ndim != 2 or array.dtype.kind not in "iu":
        raise ImageError(
            f"a label image must be a (Y, X) array of integers, got {array.dtype} of shape {array.shape}; "
            "select one plane, or number the objects with skimage.measure.label"
        )
    if array.size and (array.min() < 0 or array.max() > LARGEST_LABEL):
        raise ImageError(
            f"labels must lie in 0..{LARGEST_LABEL}, got {array.min()}..{array.max()}; "
            "renumber them, for example with skimage.segmentation.relabel_sequential"
        )
    return np.ascontiguousarray(array, dtype=np.int32)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def renumber_by_first_pixel(labels: Labels) -> None:
    """Number the instances 1..n, in place, in the order of their first pixels (row by row, from the left)."""
    numbers = np.zeros(labels.max() + 1 if labels.size else 1, dtype=np.int32)
    n = 0
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            label = labels[y, x]
            if label > 0:
                if numbers[label] == 0:
                    n += 1
                    numbers[label] = n
                labels[y, x] = numbers[label]
