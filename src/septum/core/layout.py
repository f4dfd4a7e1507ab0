"""How an image is cut into tiles, and tiles into bands: the fewest multiply-adds within a memory limit."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from septum.config import TtaConfig, UNetConfig
from septum.core.bands import band_memory
from septum.core.region import Region, shape_of, whole
from septum.core.tiling import measured_tiles
from septum.core.tta import versions
from septum.core.unet import freeze_memory, input_size, multiply_adds, n_weights
from septum.errors import ConfigError

TILE_PIXELS = 2**24  # largest tile: the work that a crash may lose, and the unit that machines share
BAND_COST = {32: 1.0, 16: 1.07, 8: 1.13, 4: 1.4, 2: 2.1, 1: 4.2}  # rows that a layer works on -> time per multiply-add
GROWTH = 1.1  # growth of the process relative to the values counted
KERNELS = 80 * 10**6  # bytes of code that PyTorch compiles, where versions have many different shapes
READ_BYTES = 36  # per value that is read, until it is normalised, with those that wait in the queue
OVERHEAD = 100 * 10**6  # bytes of growth beyond that: decoding, compression, libraries


class TooLittleMemory(ConfigError):
    """Not even the smallest tile fits; it needs `missing` more bytes."""

    def __init__(self, max_memory: int, smallest: int) -> None:
        self.missing = smallest - max_memory
        super().__init__(
            f"a memory limit of {max_memory / 1e6:.0f} MB is too small for this network, whose smallest tile needs "
            f"{math.ceil(smallest / 1e6)} MB; allow at least {math.ceil(self.missing / 1e6)} MB more"
        )


@dataclass(frozen=True)
class Layout:
    """Tiles and bands of one image."""

    stride: tuple[int, int]  # output pixels of a tile, per axis
    rows: int  # input rows that are read together, and pass the deepest level together
    memory: int  # bytes by which the process grows
    multiply_adds: int  # of all tiles
    redundancy: float  # ratio to the multiply-adds of one pass over the whole image


def plan_layout(
    shape: Sequence[int],
    config: UNetConfig,
    max_memory: int,
    *,
    step: int = 1,
    tta: TtaConfig | None = None,
    tile_pixels: int = TILE_PIXELS,
) -> Layout:
    """Choose the tiles and bands for an image.

    Parameters
    ----------
    shape : (Y, X)
        Size of the image, in pixels.
    config : UNetConfig
        The network.
    max_memory : int
        Bytes by which the process may grow.
    step : int
        Strides are multiples of this and of ``2**depth``: the chunk size of the result.
    tta : TtaConfig, optional
        The averaging over versions of the image, if any.
    tile_pixels : int
        Largest number of output pixels of a tile; the smallest possible tile may have more.

    Raises
    ------
    TooLittleMemory
        If not even the smallest tile fits; the error says how much it needs.

    Examples
    --------
    >>> from septum.config import paper_2015
    >>> plan = plan_layout((8192, 8192), paper_2015(), max_memory=1_500_000_000)
    >>> plan.stride, plan.rows, round(plan.redundancy, 3)
    ((8192, 1648), 512, 1.031)
    """
    grid = math.lcm(step, 2**config.depth)
    work_of = functools.cache(functools.partial(_work, shape, config=config, tta=tta))  # whatever the rows
    best, best_cost, smallest = None, math.inf, math.inf
    for deepest, slower in BAND_COST.items():
        rows = deepest * 2**config.depth
        for stride in itertools.product(*(_strides(size, grid) for size in shape)):
            memory = _memory(shape, stride, config, deepest, tta, step)
            smallest = min(smallest, memory)
            pixels = math.prod(min(part, size) for part, size in zip(stride, shape, strict=True))
            if memory > max_memory or (pixels > tile_pixels and stride != (grid, grid)):
                continue
            work = work_of(stride)
            if work * slower < best_cost:
                best, best_cost = (stride, rows, memory, work), work * slower
    if best is None:
        raise TooLittleMemory(max_memory, int(smallest))
    stride, rows, memory, work = best
    return Layout((stride[0], stride[1]), rows, memory, work, work / work_of(tuple(shape)))


def smallest_layout(shape: Sequence[int], config: UNetConfig) -> int:
    """Return how many bytes the smallest tile of an image needs."""
    try:
        plan_layout(shape, config, 0)
    except TooLittleMemory as error:
        return error.missing
    raise AssertionError("a tile takes no memory")


def aligned(region: Region, depth: int) -> Region:
    """Return a region, extended to begin on the grid of the poolings.

    Examples
    --------
    >>> aligned((slice(19, 30),), depth=4)
    (slice(16, 30, None),)
    """
    return tuple(slice(part.start // 2**depth * 2**depth, part.stop) for part in region)


def _strides(size: int, grid: int) -> list[int]:
    """The strides with 1, 2, 3, ... tiles of nearly equal size along the axis; at most about 40 strides."""
    steps = math.ceil(size / grid)
    counts = sorted({math.ceil(1.15**n) for n in range(200) if 1.15**n <= 2 * steps} | {1})
    return sorted({math.ceil(steps / min(count, steps)) * grid for count in counts}, reverse=True)


def _memory(
    shape: Sequence[int], stride: Sequence[int], config: UNetConfig, deepest: int, tta: TtaConfig | None, chunk: int
) -> int:
    height, width = (min(part, size) for part, size in zip(stride, shape, strict=True))
    rows = deepest * 2**config.depth
    network, largest, widest = 0, 0, 0
    for region in _in_versions(shape, whole((height, width)), config, tta):
        down, across = (input_size(size, config.depth) for size in shape_of(region))
        network = max(network, band_memory(config, down, across, deepest))
        largest = max(largest, math.prod(shape_of(region)))
        widest = max(widest, across)
    read = min(rows, down) * widest
    kept = 3 * 2 * min(chunk, height) * width * config.n_classes  # rows of a chunk, gathered and compressed
    if tta is not None:  # the sum in float64, a version there and back, two tiles that are being written
        kept = KERNELS + config.n_classes * (8 * largest + 28 * height * width)
        if tta.kind == "rotations":
            read = max(read, (widest + rows) ** 2 // 2)  # a turned band is read as the rectangle around it
    memory: int = int(GROWTH * network) + OVERHEAD + kept + READ_BYTES * config.in_channels * read
    if config.normalization == "none":
        return memory
    measured = measured_tiles(shape, config.depth)
    side = max(shape_of(measured[0]))
    # the network is there a second time, with the statistics of its layers built in
    memory = max(memory, OVERHEAD + freeze_memory(config, len(measured), side))
    return memory + 4 * n_weights(config)


def _in_versions(shape: Sequence[int], tile: Region, config: UNetConfig, tta: TtaConfig | None) -> Iterator[Region]:
    for version in versions(tta, (shape[0], shape[1])):
        yield aligned(version.needs(tile), config.depth)


def _work(shape: Sequence[int], stride: Sequence[int], config: UNetConfig, tta: TtaConfig | None) -> int:
    """Multiply-adds of all tiles: along an axis only the full ones and the last one differ."""
    axes = []
    for size, step in zip(shape, stride, strict=True):
        full, rest = divmod(size, step)
        axes.append([(full, step)] * (full > 0) + [(1, rest)] * (rest > 0))
    total = 0
    for (down, height), (across, width) in itertools.product(*axes):
        for region in _in_versions((max(shape[0], height), max(shape[1], width)), whole((height, width)), config, tta):
            sides = [input_size(size, config.depth) for size in shape_of(region)]
            total += down * across * multiply_adds(config, sides)
    return total
