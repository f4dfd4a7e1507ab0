"""Grow numbered components inside a mask, by a limited number of steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from septum.core.labels import Labels, Mask

if TYPE_CHECKING:
    from jaxtyping import Bool, Int32


def grow(components: Int32[np.ndarray, "Y X"], mask: Bool[np.ndarray, "Y X"], steps: int) -> Int32[np.ndarray, "Y X"]:
    """Grow components into the free pixels of a mask, all at the same pace, never through pixels outside it.

    Steps to the 4 neighbours and to the 8 neighbours take turns, which makes distances octagonal, close to Euclidean.
    Where two components arrive in the same step, the one from above wins, then left, right, below, then the diagonals
    in raster order: ties go by position. A pixel depends on what lies within `steps` pixels of it.

    Parameters
    ----------
    components : (Y, X) int32 array
        0 is free, every other value is one component; components may lie outside the mask.
    mask : (Y, X) bool array
        Where growth is allowed.
    steps : int
        Largest number of steps.

    Returns
    -------
    (Y, X) int32 array

    Examples
    --------
    >>> grow(np.array([[1, 0, 0, 0, 0, 2]], np.int32), np.array([[1, 1, 1, 1, 0, 1]], bool), steps=9)
    array([[1, 1, 1, 1, 0, 2]], dtype=int32)
    """
    labels = np.pad(components, 1)  # a frame outside the mask, so that no pixel has to check for the edge
    _grow(labels.ravel(), np.pad(mask, 1).ravel(), labels.shape[1], steps)
    grown: Labels = labels[1:-1, 1:-1].copy()
    return grown


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _grow(labels: Labels, free: Mask, width: int, steps: int) -> None:
    """Grow in place; `labels` and `free` are flat, `free` is used up."""
    around = np.array([-width, -1, 1, width, -width - 1, -width + 1, width - 1, width + 1])
    # The free pixels beside a region are the first front; each step looks only at the pixels beside what it added.
    front = [0 for _ in range(0)]
    for pixel in range(len(labels)):
        if free[pixel] and labels[pixel] == 0:
            for k in range(8):
                if labels[pixel + around[k]] != 0:
                    front.append(pixel)
                    free[pixel] = False
                    break
    for step in range(steps):
        if len(front) == 0:
            break
        added, numbers, left = [0 for _ in range(0)], [np.int32(0) for _ in range(0)], [0 for _ in range(0)]
        for pixel in front:
            number = np.int32(0)
            for k in range(4 if step % 2 == 0 else 8):
                if labels[pixel + around[k]] != 0:
                    number = labels[pixel + around[k]]
                    break
            if number:
                added.append(pixel)
                numbers.append(number)
            else:
                left.append(pixel)
        for pixel, number in zip(added, numbers):  # noqa: B905 (compiled: knows no strict)
            labels[pixel] = number
        front = left
        for pixel in added:
            for k in range(8):
                beside = pixel + around[k]
                if free[beside] and labels[beside] == 0:
                    free[beside] = False
                    front.append(beside)
