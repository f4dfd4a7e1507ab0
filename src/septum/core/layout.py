"""How an image is cut into tiles and these into bands: the fewest multiply-adds within a memory budget."""

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

TILE_PIXELS = 2**24  # that a tile has at most: what a crash may cost, and what machines share
BAND_COST = {32: 1.0, 16: 1.07, 8: 1.13, 4: 1.4, 2: 2.1, 1: 4.2}  # rows that a layer works on -> time per multiply-add
SCRATCH = 1.1  # growth of the process over the values counted
TURNED = 80 * 10**6  # bytes of code that PyTorch compiles for the convolutions' shapes where versions have many
READ = 36  # bytes of a value that is read, until it is normalised, and of those that wait in line
OVERHEAD = 100 * 10**6  # bytes that it grows by beyond that: decoding, compression, libraries


class TooLittleMemory(ConfigError):
    """Not even the smallest tile fits; `missing` bytes more would do."""

    def __init__(self, max_memory: int, smallest: int) -> None:
        self.missing = smallest - max_memory
        super().__init__(
            f"a memory budget of {max_memory / 1e6:.0f} MB for a tile is too small for this network, whose smallest "
            f"takes {math.ceil(smallest / 1e6)} MB; give at least {math.ceil(self.missing / 1e6)} MB more"
        )


@dataclass(frozen=True)
class Layout:
    """Tiles and bands of one image."""

    stride: tuple[int, int]  # output pixels of a tile per axis
    rows: int  # of the input that are read together, and pass the deepest level together
    memory: int  # bytes that the process grows by
    multiply_adds: int  # of all tiles
    redundancy: float  # these, over those of one pass over the whole image


def plan_layout(
    shape: Sequence[int],
    config: UNetConfig,
    max_memory: int,
    *,
    step: int = 1,
    tta: TtaConfig | None = None,
    tile_pixels: int = TILE_PIXELS,
) -> Layout:
    """Choose tiles and bands of an image.

    Parameters
    ----------
    shape : (Y, X)
        Of the image, in pixels.
    config : UNetConfig
        Of the network.
    max_memory : int
        Bytes that the process may grow by.
    step : int
        Strides are multiples of this and of ``2**depth``; the chunk of the result.
    tta : TtaConfig, optional
        Versions that are averaged.
    tile_pixels : int
        Output pixels that a tile may have, if the smallest has fewer.

    Raises
    ------
    TooLittleMemory
        If not even the smallest tile fits; the sentence says how much it takes.

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
    """Return the bytes that the smallest tile of an image takes."""
    try:
        plan_layout(shape, config, 0)
    except TooLittleMemory as error:
        return error.missing
    raise AssertionError("a tile takes no memory")


def aligned(region: Region, depth: int) -> Region:
    """Return a region that begins on the grid of the poolings.

    Examples
    --------
    >>> aligned((slice(19, 30),), depth=4)
    (slice(16, 30, None),)
    """
    return tuple(slice(part.start // 2**depth * 2**depth, part.stop) for part in region)


def _strides(size: int, grid: int) -> list[int]:
    """The strides that leave no small rest: 1, 2, 3, ... tiles along the axis; at most about 40 of them."""
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
        kept = TURNED + config.n_classes * (8 * largest + 28 * height * width)
        if tta.kind == "rotations":
            read = max(read, (widest + rows) ** 2 // 2)  # a turned band is read as the rectangle around it
    memory: int = int(SCRATCH * network) + OVERHEAD + kept + READ * config.in_channels * read
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
