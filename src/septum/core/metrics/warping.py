"""Warping error: warp a segmentation by flips that keep its topology, and classify the mismatches that remain.

Jain et al., "Boundary Learning by Optimization with Topological Constraints", CVPR 2010, as coded for ISBI 2012.
Foreground (cell interior) is 4-connected, background (membrane) 8-connected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import ndimage

from septum.core.labels import Mask
from septum.errors import ConfigError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, UInt8

MISMATCHES = ("split", "merger", "hole_addition", "hole_deletion", "object_addition", "object_deletion")  # codes 1..6
_OFFSETS = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))  # clockwise from north: bits 0..7


def simple_points() -> Bool[np.ndarray, " 256"]:
    """Return for each of the 256 neighbourhoods whether flipping its centre keeps the topology.

    Bit k of the index is the neighbour k, clockwise from north. The centre is simple if exactly one 4-component of the
    foreground among the neighbours touches it by an edge, and the background among them is one 8-component.

    Examples
    --------
    >>> int(simple_points().sum())
    116
    """
    table = np.zeros(256, bool)
    for code in range(256):
        ring = [code >> k & 1 for k in range(8)]
        window = np.zeros((3, 3), int)
        for (y, x), value in zip(_OFFSETS, ring, strict=True):
            window[1 + y, 1 + x] = value
        foreground = ndimage.label(window)[0]
        touching = {int(foreground[1 + y, 1 + x]) for y, x in _OFFSETS[::2]} - {0}
        window[1, 1] = 1  # the centre is neither
        background = ndimage.label(window == 0, np.ones((3, 3)))[1]
        table[code] = len(touching) == 1 and background == 1
    return table


_SIMPLE = simple_points()


def warp(
    labels: Bool[np.ndarray, "Y X"],
    proposal: Bool[np.ndarray, "Y X"],
    probabilities: Float32[np.ndarray, "Y X"],
    threshold: float,
    radius: int = 20,
) -> UInt8[np.ndarray, "Y X"]:
    """Warp the labels towards the proposal and classify the mismatches that no simple flip removes.

    Mismatches are flipped in order of decreasing ``abs(probability - threshold)``, ties column by column, pass after
    pass, wherever the pixel is simple in the current labels. Outside the image is membrane.

    Parameters
    ----------
    labels, proposal : (Y, X) bool arrays
        True = cell interior.
    probabilities, threshold : (Y, X) float32 array, float
        What the proposal was thresholded from.
    radius : int, pixels
        A leftover interior pixel between two parts of one object is a split if the parts do not meet within the
        ``2 * radius + 1`` window about it, else the deletion of a hole. The challenge's script uses 20.

    Raises
    ------
    ConfigError
        The radius is below 1.

    Returns
    -------
    (Y, X) uint8 array
        0 where labels and proposal agree in the end, else 1 + the place in ``MISMATCHES``.

    Examples
    --------
    >>> cells = np.array([[1, 1, 0, 1, 1]], bool)
    >>> warp(cells, np.ones((1, 5), bool), np.ones((1, 5), np.float32), 0.5)    # the wall is gone: one merger
    array([[0, 0, 2, 0, 0]], dtype=uint8)
    """
    if radius < 1:
        raise ConfigError(f"the warping error's radius must be at least 1 pixel, got {radius}; the challenge's is 20")
    source = np.pad(labels, 1).view(np.uint8)
    mismatches = _by_certainty(labels != proposal, probabilities, threshold)
    leftover = _flip(source.ravel(), mismatches, source.shape[1], _SIMPLE)
    return _classify(source, ndimage.label(source)[0], leftover, radius)[1:-1, 1:-1]  # type: ignore[no-any-return]


def _by_certainty(mismatch: Mask, probabilities: NDArray[np.float32], threshold: float) -> NDArray[np.int32]:
    """Flat indices of the mismatches in the padded image, surest first; ties column by column."""
    x, y = np.divmod(np.flatnonzero(mismatch.T).astype(np.int32), np.int32(len(mismatch)))
    places = (y + 1) * np.int32(mismatch.shape[1] + 2) + x + 1
    uncertainty = -np.abs(probabilities[y, x] - np.float64(threshold)).astype(np.float32)
    del x, y
    return places[np.argsort(uncertainty, kind="stable")]


@njit(cache=True, nogil=True)
def _flip(source, mismatches, width, simple):  # type: ignore[no-untyped-def]
    """Flip simple mismatches until a pass flips none; return those that remain."""
    around = np.array([-width, 1 - width, 1, 1 + width, width, width - 1, -1, -1 - width])
    n, before = len(mismatches), -1
    while n != before:
        before, n = n, 0
        for place in mismatches[:before]:
            code = 0
            for k in range(8):
                code |= source[place + around[k]] << k
            if simple[code]:
                source[place] ^= 1
            else:
                mismatches[n] = place
                n += 1
    return mismatches[:n]


@njit(cache=True, nogil=True)
def _classify(source, components, leftover, radius):  # type: ignore[no-untyped-def]
    """Classify each remaining mismatch by the components among its eight neighbours."""
    codes = np.zeros(source.shape, np.uint8)
    stamp = np.zeros(source.shape, np.int32)
    stack = np.empty(min(source.size, (2 * radius + 1) ** 2), np.int32)
    ids = np.empty(8, np.int32)
    for number, place in enumerate(leftover):
        y, x = place // source.shape[1], place % source.shape[1]
        interior = source[y, x] == 1
        n_ids = 0
        for dy in range(-1, 2):
            for dx in range(-1, 2):
                component = components[y + dy, x + dx]
                if (dy != 0 or dx != 0) and not (ids[:n_ids] == component).any():
                    ids[n_ids] = component
                    n_ids += 1
        if n_ids == 1 and ids[0] == 0:
            codes[y, x] = 6 if interior else 5
        elif n_ids == 1:
            codes[y, x] = 3 if interior else 4
        elif n_ids == 2 and not interior:
            codes[y, x] = 3
        elif n_ids == 2:
            codes[y, x] = 1 if _ids_without(source, y, x, radius, stamp, number + 1, stack) > 2 else 4
        else:
            codes[y, x] = 1 if interior else 2
    return codes


@njit(cache=True, nogil=True)
def _ids_without(source, y, x, radius, stamp, mark, stack):  # type: ignore[no-untyped-def]
    """How many components the neighbours of an interior pixel have, with it removed and its window labelled again."""
    height, width = source.shape
    top, bottom = max(0, y - radius), min(height - 1, y + radius)
    left, right = max(0, x - radius), min(width - 1, x + radius)
    stamp[y, x] = mark
    parts, background = 0, 0
    for dy in range(-1, 2):
        for dx in range(-1, 2):
            if source[y + dy, x + dx] == 0:
                background = 1
            elif stamp[y + dy, x + dx] != mark:
                parts += 1
                stamp[y + dy, x + dx] = mark
                stack[0] = (y + dy) * width + x + dx
                n = 1
                while n > 0:
                    n -= 1
                    row, column = stack[n] // width, stack[n] % width
                    for near_row, near_column in (
                        (row - 1, column),
                        (row + 1, column),
                        (row, column - 1),
                        (row, column + 1),
                    ):
                        inside = top <= near_row <= bottom and left <= near_column <= right
                        if inside and source[near_row, near_column] == 1 and stamp[near_row, near_column] != mark:
                            stamp[near_row, near_column] = mark
                            stack[n] = near_row * width + near_column
                            n += 1
    return parts + background
