"""Growth of numbered regions inside a mask, by a bounded number of steps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from septum.core.weight_map import Labels

Mask = npt.NDArray[np.bool_]


def grow(components: Labels, mask: Mask, steps: int) -> Labels:
    """Grow regions into the free pixels of a mask, all at the same pace, never through pixels outside it.

    Steps to the 4 neighbours and to the 8 neighbours take turns, which makes distances octagonal, close to Euclidean.
    Where two regions arrive in the same step, the one from above wins, then from the left, right, below, then from the
    diagonals in raster order: ties go by position. A pixel depends on what lies within `steps` pixels of it.

    Parameters
    ----------
    components : (Y, X) int32 array
        0 is free, every other value is one region; regions may lie outside the mask.
    mask : (Y, X) bool array
        Where growth is allowed.
    steps : int
        At most so many pixels far.

    Returns
    -------
    (Y, X) int32 array

    Examples
    --------
    >>> grow(np.array([[1, 0, 0, 0, 0, 2]], np.int32), np.array([[1, 1, 1, 1, 0, 1]], bool), steps=9)
    array([[1, 1, 1, 1, 0, 2]], dtype=int32)
    """
    grown: Labels = _grow(components, mask, steps)
    return grown


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _grow(components: Labels, mask: Mask, steps: int) -> Labels:
    height, width = components.shape
    labels = components.copy()
    dy = np.array([-1, 0, 0, 1, -1, -1, 1, 1])
    dx = np.array([0, -1, 1, 0, -1, 1, -1, 1])
    # The free pixels beside a region are the first front; each step looks only at the pixels beside what it added.
    waiting = np.zeros(labels.shape, dtype=np.bool_)
    front = [(0, 0) for _ in range(0)]
    for y in range(height):
        for x in range(width):
            if labels[y, x] == 0 and mask[y, x]:
                for k in range(8):
                    v, u = y + dy[k], x + dx[k]
                    if 0 <= v < height and 0 <= u < width and labels[v, u] != 0:
                        waiting[y, x] = True
                        front.append((y, x))
                        break
    for step in range(steps):
        neighbours = 4 if step % 2 == 0 else 8
        added = [(0, 0, np.int32(0)) for _ in range(0)]
        left = [(0, 0) for _ in range(0)]
        for y, x in front:
            number = np.int32(0)
            for k in range(neighbours):
                v, u = y + dy[k], x + dx[k]
                if 0 <= v < height and 0 <= u < width and labels[v, u] != 0:
                    number = labels[v, u]
                    break
            if number:
                added.append((y, x, number))
            else:
                left.append((y, x))
        if not added and not left:
            break
        for y, x, number in added:
            labels[y, x] = number
        front = left
        for y, x, _ in added:
            for k in range(8):
                v, u = y + dy[k], x + dx[k]
                if 0 <= v < height and 0 <= u < width and labels[v, u] == 0 and mask[v, u] and not waiting[v, u]:
                    waiting[v, u] = True
                    front.append((v, u))
    return labels
