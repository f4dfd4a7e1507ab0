"""Overlap-tile geometry in integers, with mirrored borders: which pixels to read, which to keep, where they go."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from septum.config import UNetConfig
from septum.core.unet import SCRATCH, check_stride, input_size, margin, multiply_adds, peak_memory
from septum.errors import ConfigError

Region = tuple[slice, ...]


class Source(Protocol):
    """One image, in memory or on disk."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, Y, X)."""
        ...

    @property
    def pixel_size(self) -> tuple[float, float] | None:
        """Micrometre per pixel (y, x), if known."""
        ...

    @property
    def chunk(self) -> tuple[int, ...]:
        """(Y, X) pixels that are stored or decoded together: regions that keep to this grid are read fastest."""
        ...

    def read(self, region: Region) -> np.ndarray:
        """Return (C, y, x) pixels of a region inside the image."""
        ...


class Sink(Protocol):
    """Where the results of tiles go."""

    def write(self, region: Region, array: np.ndarray) -> None:
        """Keep (K, y, x) values of a region."""
        ...

    def is_done(self, region: Region) -> bool:
        """Whether the region was written before."""
        ...


@dataclass(frozen=True)
class ArraySource:
    """A (C, Y, X) array as a Source."""

    array: np.ndarray
    pixel_size: tuple[float, float] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def chunk(self) -> tuple[int, ...]:
        return 1, self.array.shape[2]

    def read(self, region: Region) -> np.ndarray:
        return self.array[(slice(None), *region)]


class ArraySink:
    """A (K, Y, X) array as a Sink."""

    def __init__(self, shape: Sequence[int], dtype: type = np.float32) -> None:
        self.array: np.ndarray = np.zeros(tuple(shape), dtype)
        self._written: set[tuple[int, ...]] = set()

    def write(self, region: Region, array: np.ndarray) -> None:
        self.array[(slice(None), *region)] = array
        self._written.add(tuple(part.start for part in region))

    def is_done(self, region: Region) -> bool:
        return tuple(part.start for part in region) in self._written


@dataclass(frozen=True)
class Tile:
    """One call of the network. `read` may reach outside the image, where pixels are mirrored."""

    read: Region  # input pixels, in image coordinates
    crop: Region  # which of the network's output pixels to keep
    write: Region  # where they go, inside the image


def tiles(shape: Sequence[int], stride: Sequence[int], depth: int) -> Iterator[Tile]:
    """Cut an image into tiles in raster order: every pixel is written exactly once.

    Parameters
    ----------
    shape : (Y, X)
        Of the image, in pixels; any number of axes.
    stride : (Y, X)
        Output pixels between neighbouring tiles per axis: multiples of ``2**depth``, since the network is
        equivariant to such shifts only (its poolings lie on a grid). The last tile of an axis shrinks to what is left.
    depth : int
        Of the network.

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
    for size, step in zip(shape, stride, strict=True):
        check_stride(step, depth)
        axis = []
        for start in range(0, size, step):
            kept = min(step, size - start)
            read = slice(start - lost, start - lost + input_size(kept, depth))
            axis.append((read, slice(0, kept), slice(start, start + kept)))
        axes.append(axis)
    for parts in itertools.product(*axes):
        reads, crops, writes = zip(*parts, strict=True)
        yield Tile(reads, crops, writes)


def blocks(shape: Sequence[int], chunk: Sequence[int], pixels: int) -> Iterator[Region]:
    """Cut an image into blocks of whole chunks, in raster order.

    Parameters
    ----------
    shape : (Y, X)
        Of the image, in pixels.
    chunk : (Y, X)
        As of a `Source`. One that has more than `pixels` is cut into bands.
    pixels : int
        That a block has at most.

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


MEASURED = 260  # output pixels per side of a tile on which the layers' statistics are measured


def measured_tiles(shape: Sequence[int], depth: int) -> list[Region]:
    """Return the tiles of an image on which the layers' statistics are measured: at most two per axis, all of one size.

    An axis of up to 260 pixels is one tile; a longer one has two of 260 output pixels, in the middle of its halves, on
    the grid of the poolings. So an image of up to 504 x 504 is seen whole, a larger one in four places.

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
        if size > MEASURED:
            middles = (max(MEASURED / 2, size / 4), min(size - MEASURED / 2, 3 * size / 4))
            starts = [math.ceil((middle - MEASURED / 2) / step) * step for middle in middles]
        side = input_size(min(size, MEASURED), depth)
        axes.append([slice(start - lost, start - lost + side) for start in starts])
    return list(itertools.product(*axes))


def reflect(indices: np.ndarray, size: int) -> np.ndarray:
    """Map any integer coordinates into 0..size-1 by mirroring at the borders, without repeating the edge pixel.

    Index arithmetic, so that the reach may be many times the size of the image.

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


def read_mirrored(source: Source, region: Region) -> np.ndarray:
    """Read (C, y, x) pixels of a region that may reach outside the image; only what is needed is read."""
    indices = [
        reflect(np.arange(part.start, part.stop), size) for part, size in zip(region, source.shape[1:], strict=True)
    ]
    inside = tuple(slice(int(index.min()), int(index.max()) + 1) for index in indices)
    pixels = source.read(inside)
    local = [index - part.start for index, part in zip(indices, inside, strict=True)]
    if all(
        len(index) == part.stop - part.start and index[0] <= index[-1]
        for index, part in zip(local, inside, strict=True)
    ):
        return pixels
    index: tuple[Any, ...] = np.ix_(*local)
    return pixels[(slice(None), *index)]


def plan_stride(shape: Sequence[int], config: UNetConfig, max_memory: int) -> tuple[int, ...]:
    """Choose the stride per axis that costs the fewest multiply-adds within a memory budget.

    Parameters
    ----------
    shape : (Y, X)
        Of the image, in pixels.
    config : UNetConfig
        Of the network.
    max_memory : int
        Bytes that the activations and scratch space of one tile may take.

    Raises
    ------
    ConfigError
        If not even the smallest tile fits; the sentence says how much it takes.

    Examples
    --------
    >>> from septum.config import paper_2015
    >>> plan_stride((512, 512), paper_2015(), max_memory=2 * 10**9)
    (512, 512)
    >>> plan_stride((512, 512), paper_2015(), max_memory=300 * 10**6)
    (512, 176)
    """
    step = 2**config.depth

    def strides(size: int) -> list[int]:  # the balanced ones: 1, 2, 3, ... tiles along the axis
        steps = math.ceil(size / step)
        return sorted({math.ceil(steps / tiles) * step for tiles in range(1, steps + 1)}, reverse=True)

    best, best_cost = None, math.inf
    choices = [strides(size) for size in shape]
    for stride in itertools.product(*choices):
        tile = [input_size(min(part, size), config.depth) for part, size in zip(stride, shape, strict=True)]
        if SCRATCH * peak_memory(config, tile) > max_memory:
            continue
        cost = _total(shape, stride, config, multiply_adds)
        if cost < best_cost:
            best, best_cost = stride, cost
    if best is None:
        smallest = [input_size(min(step, size), config.depth) for size in shape]
        raise ConfigError(
            f"a memory budget of {max_memory / 1e6:.0f} MB is too small for this network, whose smallest tile takes "
            f"{math.ceil(SCRATCH * peak_memory(config, smallest) / 1e6)} MB; give at least that much"
        )
    return best


def _total(
    shape: Sequence[int], stride: Sequence[int], config: UNetConfig, cost: Callable[[UNetConfig, Sequence[int]], int]
) -> int:
    """Sum a cost over all tiles: along an axis only the full tiles and the last one differ."""
    axes = []
    for size, step in zip(shape, stride, strict=True):
        full, rest = divmod(size, step)
        axes.append(
            [(full, input_size(step, config.depth))] * (full > 0) + [(1, input_size(rest, config.depth))] * (rest > 0)
        )
    return sum(
        math.prod(count for count, _ in parts) * cost(config, [size for _, size in parts])
        for parts in itertools.product(*axes)
    )
