"""Regions: rectangular parts of an image with any number of axes, and the integer arithmetic on them.

A region has one slice per spatial axis, with an integer start and stop and no step. It may reach outside the image,
except where something is read or written.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

Region = tuple[slice, ...]


def whole(shape: Sequence[int]) -> Region:
    """Return the region that is all of an image.

    Examples
    --------
    >>> whole((20, 30))
    (slice(0, 20, None), slice(0, 30, None))
    """
    return tuple(slice(0, size) for size in shape)


def origin_of(region: Region) -> tuple[int, ...]:
    """Return the first pixel of a region.

    Examples
    --------
    >>> origin_of((slice(4, 10), slice(-2, 3)))
    (4, -2)
    """
    return tuple(part.start for part in region)


def shape_of(region: Region) -> tuple[int, ...]:
    """Return the number of pixels per axis.

    Examples
    --------
    >>> shape_of((slice(4, 10), slice(-2, 3)))
    (6, 5)
    """
    return tuple(part.stop - part.start for part in region)


def shift(region: Region, by: Sequence[int]) -> Region:
    """Move a region by a number of pixels per axis.

    Examples
    --------
    >>> shift((slice(4, 10), slice(-2, 3)), (1, 2))
    (slice(5, 11, None), slice(0, 5, None))
    """
    return tuple(slice(part.start + step, part.stop + step) for part, step in zip(region, by, strict=True))


def relative_to(region: Region, outer: Region) -> Region:
    """Return a region in coordinates that begin at the first pixel of another: an index into its array.

    Examples
    --------
    >>> relative_to((slice(4, 10),), (slice(3, 20),))
    (slice(1, 7, None),)
    """
    return shift(region, [-start for start in origin_of(outer)])


def expand(region: Region, by: int) -> Region:
    """Add pixels on every side.

    Examples
    --------
    >>> expand((slice(4, 10), slice(-2, 3)), 2)
    (slice(2, 12, None), slice(-4, 5, None))
    """
    return tuple(slice(part.start - by, part.stop + by) for part in region)


def scale(region: Region, factor: int) -> Region:
    """Return the same region in an image whose pixels are `factor` times smaller.

    Examples
    --------
    >>> scale((slice(4, 10),), 2)
    (slice(8, 20, None),)
    """
    return tuple(slice(part.start * factor, part.stop * factor) for part in region)


def intersect(one: Region, other: Region) -> Region:
    """Return the part that two regions share; empty regions have a stop that is not after the start.

    Examples
    --------
    >>> intersect((slice(4, 10),), (slice(-3, 7),))
    (slice(4, 7, None),)
    """
    return tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other, strict=True))


def clip(region: Region, shape: Sequence[int]) -> Region:
    """Return the part of a region that lies inside an image.

    Examples
    --------
    >>> clip((slice(-3, 7), slice(4, 10)), (5, 20))
    (slice(0, 5, None), slice(4, 10, None))
    """
    return intersect(region, whole(shape))


def cells_of(region: Region, cell: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield the indices of the cells of a grid that a region touches, such as the chunks of a file, in raster order.

    Parameters
    ----------
    region : Region
        Not empty.
    cell : sequence of int
        Pixels of a cell per axis. The first cell begins at pixel 0.

    Examples
    --------
    >>> list(cells_of((slice(3, 7), slice(0, 2)), cell=(4, 2)))
    [(0, 0), (1, 0)]
    """
    return itertools.product(
        *(range(part.start // size, -(-part.stop // size)) for part, size in zip(region, cell, strict=True))
    )


def cell_region(index: Sequence[int], cell: Sequence[int], shape: Sequence[int]) -> Region:
    """Return the pixels of one cell of a grid; the last cells of an image of this shape are cut at its edge.

    Examples
    --------
    >>> cell_region((1, 0), cell=(4, 2), shape=(6, 2))
    (slice(4, 6, None), slice(0, 2, None))
    """
    starts = [at * size for at, size in zip(index, cell, strict=True)]
    return clip(shift(whole(cell), starts), shape)
