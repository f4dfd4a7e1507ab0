"""Components that cross the borders of blocks: which belong together, and the numbers of the objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Edges:
    """What the neighbours of a block need: the number of its components, and the components along its four edges."""

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
    """Return what to add to the components of each block, so that no two blocks share a number; at the end the sum.

    Examples
    --------
    >>> first_numbers([3, 0, 2])
    array([0, 3, 3, 5])
    """
    return np.concatenate([[0], np.cumsum(np.asarray(counts, np.int64))]).astype(np.int64)


def join(grid: Sequence[Sequence[Edges]]) -> Ids:
    """Find which components of all blocks belong together.

    Parameters
    ----------
    grid : rows of Edges
        The edges of all blocks, in raster order. Components are numbered 1..n within each block.

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
    one, other = _touching(*_lines(grid, firsts))
    n = int(firsts[-1]) + 1
    graph = coo_array((np.ones(len(one), np.float32), (one, other)), shape=(n, n))
    count, component = connected_components(graph, directed=False)
    lowest = np.empty(count, np.int64)
    lowest[component[::-1]] = np.arange(n)[::-1]  # of the numbers of a component, the lowest is written last
    roots: Ids = lowest[component]
    return roots


def _lines(grid: Sequence[Sequence[Edges]], firsts: Ids) -> tuple[Ids, Ids]:
    """All lines of pixels that lie side by side across the borders of blocks, with a background pixel after each."""
    gap = np.zeros(1, np.int64)
    lines, others = [gap], [gap]
    above: list[Ids] = []
    number = 0
    for row in grid:
        tops, bottoms = [], []
        beside: Ids | None = None
        for block in row:
            top, bottom, left, right = (
                np.where(line > 0, line + firsts[number], 0)
                for line in (block.top, block.bottom, block.left, block.right)
            )
            number += 1
            if beside is not None:
                lines += beside, gap
                others += left, gap
            beside = right
            tops.append(top)
            bottoms.append(bottom)
        if above:
            lines += *above, gap
            others += *tops, gap
        above = bottoms
    return np.concatenate(lines), np.concatenate(others)


def _touching(line: Ids, other: Ids) -> tuple[Ids, Ids]:
    """The pairs of components that are 8-connected across two lines of pixels that lie side by side."""
    pairs = []
    for here, there in ((line, other), (line[1:], other[:-1]), (line[:-1], other[1:])):
        both = np.flatnonzero((here > 0) & (there > 0))
        a, b = here[both], there[both]
        new = np.append(True, (a[1:] != a[:-1]) | (b[1:] != b[:-1]))[: len(a)]  # one pair of each run of pixels
        pairs.append((a[new], b[new]))
    one, other = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return one, other


def number_objects(areas: Ids, first_pixels: Ids, smallest: int) -> Ids:
    """Number objects 1..n by their first pixel in raster order; those of fewer than `smallest` pixels get 0.

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
