"""How many pixels every true object shares with every predicted one: a sparse table from one pass over both images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from septum.core.metrics.checks import check_pair

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64, Integer

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Contingency:
    """Objects and overlaps of two label images, in the order in which they first appear (raster order).

    Ignored pixels are not counted; an object with only ignored pixels does not appear. The order does not depend on
    the label numbers, so scores that break ties by it are the same for permuted labels.
    """

    n_pixels: int  # not ignored
    truth_ids: Integer[np.ndarray, " T"]  # label numbers
    truth_pixels: Int64[np.ndarray, " T"]
    prediction_ids: Integer[np.ndarray, " P"]
    prediction_pixels: Int64[np.ndarray, " P"]
    i: Int64[np.ndarray, " K"]  # index into truth_ids of every overlapping pair
    j: Int64[np.ndarray, " K"]  # index into prediction_ids
    overlap: Int64[np.ndarray, " K"]  # pixels that the pair shares

    @property
    def iou(self) -> Float64[np.ndarray, " K"]:
        """Intersection over union of every overlapping pair."""
        union = self.truth_pixels[self.i] + self.prediction_pixels[self.j] - self.overlap
        iou: NDArray[np.float64] = self.overlap / union
        return iou


def contingency(truth: ArrayLike, prediction: ArrayLike, ignore: ArrayLike | None = None) -> Contingency:
    """Count the pixels that objects of two label images share; memory grows with the number of overlaps only.

    Parameters
    ----------
    truth, prediction : integer arrays of one shape, any number of axes
        Label images: 0 is background, every other number is one object, connected or not.
    ignore : bool array of that shape, optional
        True where pixels are left out of the score.

    Raises
    ------
    ImageError
        If shapes differ, labels are not whole numbers, or some are negative.

    Examples
    --------
    >>> table = contingency(np.array([[7, 7, 7, 0]]), np.array([[0, 2, 2, 2]]))
    >>> table.truth_ids, table.prediction_ids, table.overlap, table.iou
    (array([7]), array([2]), array([2]), array([0.5]))
    """
    truth, prediction, mask = check_pair(truth, prediction, ignore)
    a, a_ids = _narrow(truth)
    b, b_ids = _narrow(prediction)
    keys, counts = _tally(a, b, np.zeros(0, bool) if mask is None else np.ascontiguousarray(mask).ravel())
    a, b = keys >> 32, keys & 0x7FFFFFFF
    truth_ids, truth_pixels = _objects(a, counts)
    prediction_ids, prediction_pixels = _objects(b, counts)
    pair = (a > 0) & (b > 0)
    return Contingency(
        n_pixels=int(counts.sum()),
        truth_ids=truth_ids if a_ids is None else a_ids[truth_ids],
        truth_pixels=truth_pixels,
        prediction_ids=prediction_ids if b_ids is None else b_ids[prediction_ids],
        prediction_pixels=prediction_pixels,
        i=_positions(truth_ids, a[pair]),
        j=_positions(prediction_ids, b[pair]),
        overlap=counts[pair],
    )


def _narrow(labels: NDArray[Any]) -> tuple[NDArray[np.int32], NDArray[Any] | None]:
    """Flat int32 labels, and the numbers that they stand for where those do not fit into 31 bits."""
    if labels.dtype.itemsize >= 4 and labels.size and labels.max() > 0x7FFFFFFF:
        background = np.zeros(1, labels.dtype)  # there may be none, but its number must stay 0
        ids, flat = np.unique(np.append(labels.ravel(), background), return_inverse=True)
        return flat[:-1].astype(np.int32), ids
    return np.ascontiguousarray(labels).ravel().astype(np.int32, copy=False), None


def _objects(labels: Indices, counts: Indices) -> tuple[Indices, Indices]:
    """Numbers and pixels of the objects, in order of first appearance."""
    ids, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    pixels = np.bincount(inverse, counts, len(ids)).astype(np.int64)
    order = np.argsort(first)
    order = order[ids[order] > 0]
    return ids[order], pixels[order]


def _positions(ids: Indices, wanted: Indices) -> Indices:
    order = np.argsort(ids)
    return order[np.searchsorted(ids, wanted, sorter=order)]


@njit(cache=True, nogil=True)
def _slot(keys, key):  # type: ignore[no-untyped-def]
    """Where a key is, or belongs, in an open-addressing table of power-of-two size; -1 is free."""
    slot = (key * 0x9E3779B97F4A7C1 >> 32) & (len(keys) - 1)  # Fibonacci hashing: the upper half depends on every bit
    while keys[slot] != -1 and keys[slot] != key:
        slot = (slot + 1) & (len(keys) - 1)
    return slot


@njit(cache=True, nogil=True)
def _tally(truth, prediction, ignore):  # type: ignore[no-untyped-def]
    """Count every (truth << 32 | prediction) that is not ignored, run by run, in order of first appearance."""
    table = np.full(1024, -1, np.int64)
    number = np.zeros(1024, np.int64)
    keys = np.zeros(512, np.int64)
    counts = np.zeros(512, np.int64)
    n, start = 0, 0
    for k in range(1, truth.size + 1):
        if (
            k < truth.size
            and truth[k] == truth[start]
            and prediction[k] == prediction[start]
            and (ignore.size == 0 or ignore[k] == ignore[start])
        ):
            continue
        if ignore.size > 0 and ignore[start]:
            start = k
            continue
        key = np.int64(truth[start]) << 32 | np.int64(prediction[start])
        slot = _slot(table, key)
        if table[slot] == -1:
            if n == len(keys):  # half full: double
                keys, counts = np.append(keys, np.zeros(n, np.int64)), np.append(counts, np.zeros(n, np.int64))
                table, number = np.full(4 * n, -1, np.int64), np.zeros(4 * n, np.int64)
                for m in range(n):
                    slot = _slot(table, keys[m])
                    table[slot], number[slot] = keys[m], m
                slot = _slot(table, key)
            table[slot], number[slot], keys[n] = key, n, key
            n += 1
        counts[number[slot]] += k - start
        start = k
    return keys[:n], counts[:n]
