"""Overlap tiles with mirrored borders: which pixels to read, which to keep, and where they go."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from septum.core.region import Region, origin_of, shape_of, shift
from septum.core.unet import check_stride, input_size, margin

if TYPE_CHECKING:
    from jaxtyping import Int, Shaped


class Source(Protocol):
    """One image, in memory or on disk."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, Y, X)."""
        ...

    @property
    def chunk(self) -> tuple[int, ...]:
        """(Y, X) pixels that are stored or decoded together; regions on this grid are read fastest."""
        ...

    def read(self, region: Region) -> Shaped[np.ndarray, "C y x"]:
        """Return (C, y, x) pixels of a region inside the image."""
        ...


class Sink(Protocol):
    """Where the results of tiles go."""

    def write(self, region: Region, array: Shaped[np.ndarray, "K y x"]) -> None:
        """Keep (K, y, x) values of a region."""
        ...


@dataclass(frozen=True)
class ArraySource:
    """A (C, Y, X) array as a Source."""

    array: Shaped[np.ndarray, "C Y X"]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def chunk(self) -> tuple[int, ...]:
        return 1, self.array.shape[2]

    def read(self, region: Region) -> Shaped[np.ndarray, "C y x"]:
        return self.array[(slice(None), *region)]


class ArraySink:
    """A (K, Y, X) array as a Sink."""

    def __init__(self, shape: Sequence[int], dtype: type = np.float32) -> None:
        self.array: np.ndarray = np.zeros(tuple(shape), dtype)

    def write(self, region: Region, array: Shaped[np.ndarray, "K y x"]) -> None:
        self.array[(slice(None), *region)] = array


@dataclass(frozen=True)
class Tile:
    """One call of the network. `read` may reach outside the image, where pixels are mirrored."""

    read: Region  # input pixels, in image coordinates
    crop: Region  # which of the network's output pixels to keep
    write: Region  # where they go, inside the image

    def place(self, depth: int) -> Region:
        """Return the pixels of the image that the tile predicts."""
        return shift(self.crop, [start + margin(depth) for start in origin_of(self.read)])


def tiles(shape: Sequence[int], stride: Sequence[int], depth: int, origin: Sequence[int] = (0, 0)) -> Iterator[Tile]:
    """Cut an image, or a region of it, into tiles in raster order: every pixel is written exactly once.

    Parameters
    ----------
    shape : (Y, X)
        Size of the image or region, in pixels.
    stride : (Y, X)
        Output pixels between neighbouring tiles: multiples of ``2**depth``, since the network is equivariant only to
        such shifts (its poolings lie on a grid). The last tile of an axis is as small as the rest of the image.
    depth : int
        Depth of the network.
    origin : (Y, X)
        First pixel of the region in the image. Tiles are read from the image and written to the region.

    Raises
    ------
    ConfigError
        If a stride is not a multiple of ``2**depth``.

    Examples
    --------
    >>> [tile.write for tile in tiles((20, 30), stride=(16, 32), depth=4)]
    [(slice(0, 16, None), slice(0, 30, None)), (slice(16, 20, None), slice(0, 30, None))]
    """
    lost = margin(depth)
    axes = []
    for size, step, first in zip(shape, stride, origin, strict=True):
        check_stride(step, depth)
        off = first % 2**depth  # the poolings lie on the grid of the image
        axis = []
        for start in range(0, size, step):
            kept = min(step, size - start)
            begin = first + start - off - lost
            read = slice(begin, begin + input_size(kept + off, depth))
            axis.append((read, slice(off, off + kept), slice(start, start + kept)))
        axes.append(axis)
    for parts in itertools.product(*axes):
        reads, crops, writes = zip(*parts, strict=True)
        yield Tile(reads, crops, writes)


def blocks(shape: Sequence[int], chunk: Sequence[int], pixels: int) -> Iterator[Region]:
    """Cut an image into blocks of whole chunks, in raster order.

    Parameters
    ----------
    shape : (Y, X)
        Size of the image, in pixels.
    chunk : (Y, X)
        That of a `Source`. A chunk of more than `pixels` is cut into bands.
    pixels : int
        Largest number of pixels of a block.

    Examples
    --------
    >>> list(blocks((4, 5), chunk=(2, 2), pixels=8))
    [(slice(0, 2, None), slice(0, 4, None)), (slice(0, 2, None), slice(4, 5, None)),
     (slice(2, 4, None), slice(0, 4, None)), (slice(2, 4, None), slice(4, 5, None))]
    """
    rows, columns = (min(part, size) for part, size in zip(chunk, shape, strict=True))
    columns = min(shape[1], columns * max(1, pixels // (rows * columns)))
    rows = rows * (pixels // (rows * columns)) or max(1, pixels // columns)
    for top in range(0, shape[0], rows):
        for left in range(0, shape[1], columns):
            yield slice(top, min(top + rows, shape[0])), slice(left, min(left + columns, shape[1]))


STATISTICS_TILE = 260  # output pixels per side of a tile on which the layers' statistics are measured


def measured_tiles(shape: Sequence[int], depth: int) -> list[Region]:
    """Return the tiles of an image on which the layers' statistics are measured: at most two per axis, all of one size.

    An axis of up to 260 pixels is one tile. A longer axis has two tiles of 260 output pixels, in the middle of its
    halves and on the grid of the poolings. So an image of up to 504 x 504 pixels is covered; a larger one is measured
    in four places.

    Examples
    --------
    >>> [region[0] for region in measured_tiles((200, 1000), depth=4)]
    [slice(-92, 304, None), slice(-92, 304, None)]
    >>> [region[1] for region in measured_tiles((200, 1000), depth=4)]
    [slice(36, 480, None), slice(532, 976, None)]
    """
    step, lost = 2**depth, margin(depth)
    axes = []
    for size in shape:
        starts = [0]
        if size > STATISTICS_TILE:
            middles = (max(STATISTICS_TILE / 2, size / 4), min(size - STATISTICS_TILE / 2, 3 * size / 4))
            starts = [math.ceil((middle - STATISTICS_TILE / 2) / step) * step for middle in middles]
        side = input_size(min(size, STATISTICS_TILE), depth)
        axes.append([slice(start - lost, start - lost + side) for start in starts])
    return list(itertools.product(*axes))


def reflect(indices: Int[np.ndarray, " n"], size: int) -> Int[np.ndarray, " n"]:
    """Map any integer coordinates into 0..size-1 by mirroring at the borders, without repeating the edge pixel.

    The coordinates may lie many times the size of the image away.

    Examples
    --------
    >>> reflect(np.arange(-3, 6), size=3)
    array([1, 2, 1, 0, 1, 2, 1, 0, 1])
    >>> reflect(np.arange(-2, 3), size=1)
    array([0, 0, 0, 0, 0])
    """
    if size == 1:
        return np.zeros_like(indices)
    folded = np.mod(indices, 2 * size - 2)
    mirrored: np.ndarray = np.minimum(folded, 2 * size - 2 - folded)
    return mirrored


def read_mirrored(source: Source, region: Region) -> Shaped[np.ndarray, "C y x"]:
    """Read (C, y, x) pixels of a region that may reach outside the image; no other pixels are read."""
    indices = [
        reflect(np.arange(part.start, part.stop), size) for part, size in zip(region, source.shape[1:], strict=True)
    ]
    inside = tuple(slice(int(index.min()), int(index.max()) + 1) for index in indices)
    pixels = source.read(inside)
    local = [index - start for index, start in zip(indices, origin_of(inside), strict=True)]
    if all(len(index) == size and index[0] <= index[-1] for index, size in zip(local, shape_of(inside), strict=True)):
        return pixels
    index: tuple[Any, ...] = np.ix_(*local)
    return pixels[(slice(None), *index)]
