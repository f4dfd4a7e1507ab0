"""Components that cross blocks: which of them are one, and the numbers of the objects they become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Edges:
    """What a block's neighbours need to know of it: how many components it has, and which lie along its four edges."""

    count: int
    top: Ids
    bottom: Ids
    left: Ids
    right: Ids


def edges(components: npt.NDArray[np.integer]) -> Edges:
    """Return the edges of the (y, x) components 1..n of a block.

    Examples
    --------
    >>> edges(np.array([[1, 0], [1, 2]])).right
    array([0, 2])
    """
    ids = [components[0], components[-1], components[:, 0], components[:, -1]]
    top, bottom, left, right = (np.array(line, np.int64) for line in ids)
    return Edges(int(components.max(initial=0)), top, bottom, left, right)


def first_numbers(counts: Sequence[int]) -> Ids:
    """Return what is added to the components of each block, so that no two blocks share a number; at the end the sum.

    Examples
    --------
    >>> first_numbers([3, 0, 2])
    array([0, 3, 3, 5])
    """
    return np.concatenate([[0], np.cumsum(np.asarray(counts, np.int64))]).astype(np.int64)


def join(grid: Sequence[Sequence[Edges]]) -> Ids:
    """Find out which components of an image are one.

    Parameters
    ----------
    grid : rows of Edges
        Of all blocks, in raster order. A block's components are numbered 1..n within it.

    Returns
    -------
    (N + 1,) int64 array
        For component c of block b, at ``first_numbers(counts)[b] + c``: the lowest such number of all components that
        it is 8-connected with, directly or through others. Entry 0 is 0, the background.

    Examples
    --------
    >>> left, right = edges(np.array([[1], [0]])), edges(np.array([[0], [1]]))
    >>> join([[left, right]])
    array([0, 1, 1])
    """
    firsts = first_numbers([block.count for row in grid for block in row])
    parents = np.arange(firsts[-1] + 1)
    above: Ids | None = None
    number = 0
    for row in grid:
        tops, bottoms = [], []
        beside: Ids | None = None
        for block in row:
            first = firsts[number]
            if beside is not None:
                _unite_lines(parents, beside, _global(block.left, first))
            beside = _global(block.right, first)
            tops.append(_global(block.top, first))
            bottoms.append(_global(block.bottom, first))
            number += 1
        if above is not None:
            _unite_lines(parents, above, np.concatenate(tops))
        above = np.concatenate(bottoms)
    _flatten(parents)
    return parents


def _global(ids: Ids, first: int) -> Ids:
    result: Ids = np.where(ids > 0, ids + first, 0)
    return result


def number_objects(areas: Ids, first_pixels: Ids, smallest: int) -> Ids:
    """Number objects 1..n by their first pixel in raster order; smaller ones, and those without a pixel, get 0.

    Examples
    --------
    >>> number_objects(np.array([0, 5, 1, 7]), np.array([0, 80, 3, 20]), smallest=2)
    array([0, 2, 0, 1])
    """
    kept = areas >= max(1, smallest)
    kept[0] = False
    order = np.flatnonzero(kept)
    order = order[np.argsort(first_pixels[order], kind="stable")]
    numbers = np.zeros(len(areas), np.int64)
    numbers[order] = np.arange(1, len(order) + 1)
    return numbers


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _root(parents: Ids, one: int) -> int:
    while parents[one] != one:
        parents[one] = parents[parents[one]]
        one = parents[one]
    return one


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _unite_lines(parents: Ids, line: Ids, other: Ids) -> None:
    """Unite what is 8-connected across two lines of pixels that lie side by side."""
    for k in range(len(line)):
        if line[k] == 0:
            continue
        for j in range(max(0, k - 1), min(len(other), k + 2)):
            if other[j] > 0:
                a, b = _root(parents, line[k]), _root(parents, other[j])
                if a < b:
                    parents[b] = a
                else:
                    parents[a] = b


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _flatten(parents: Ids) -> None:
    for one in range(len(parents)):
        parents[one] = parents[parents[one]]  # a parent is never larger than its child
