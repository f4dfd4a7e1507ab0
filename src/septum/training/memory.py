"""How much memory a process uses and a training takes, measured; what to do if there is too little."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Sequence

import torch

from septum.config import TrainConfig, UNetConfig
from septum.core.layout import smallest_layout
from septum.core.unet import input_size, layers, margin, n_weights
from septum.data.dataset import Shape
from septum.errors import ConfigError
from septum.machine.memory import DEFAULT_MEMORY, default_limit, lacks_memory, resident

PLANNED_SHARE = 0.95  # of the memory limit is planned with; the rest is for what a measurement misses
LIBRARY_BYTES = 100 * 10**6  # that the first steps add to the process beside their arrays
FEATURE_MAP_COPIES = 3.0  # in a step: before and after normalisation, and the gradient
DATA_SHARE = 0.5  # of the memory that is left may be taken by a data set; a larger one is streamed
LARGEST_GROWTH = 2.0  # of a measured step over the one before it, in pixels


def tile_memory(limit: int | None, left: int, unet: UNetConfig, shapes: Iterable[Sequence[int]]) -> int:
    """Bytes that a tile may take when images of these (Y, X) shapes are predicted in a validation.

    Half of what is `left` beside data and weights, at most a quarter of the limit; at least that of the smallest tile.
    """
    if limit is None:
        return DEFAULT_MEMORY
    smallest = max((smallest_layout(shape, unet) for shape in shapes), default=0)
    return max(smallest, min(DEFAULT_MEMORY, limit // 4, left // 2))


def data_bytes(shapes: Iterable[Shape]) -> int:
    """Return the bytes of a data set in memory, with the arrays that a training derives from it.

    Per pixel: the image as in its file and as float32, labels, ignore mask, class, weight, and a position.

    Examples
    --------
    >>> data_bytes([Shape(channels=1, height=1000, width=1000, itemsize=1)]) / 1e6
    23.0
    """
    return sum(one.height * one.width * (one.channels * (one.itemsize + 4) + 4 + 1 + 1 + 4 + 8) for one in shapes)


def largest_bytes(shapes: Iterable[Shape]) -> int:
    """Return the bytes that the largest image of a data set takes at most while it is checked and prepared.

    Per pixel: 52 beside the image itself (measured), most of them to find the objects in its labels.
    """
    return max((one.height * one.width * (one.channels * (one.itemsize + 8) + 52) for one in shapes), default=0)


def check_largest(shapes: Iterable[Shape], limit: int) -> None:
    """Raise ConfigError if a single image of a data set needs more memory than this process may hold."""
    if (needed := resident() + largest_bytes(shapes)) > limit:
        raise ConfigError(
            f"the memory limit is {limit / 1e6:.0f} MB, but preparing the largest image takes {needed / 1e6:.0f} MB; "
            "raise --max-memory, or cut large images and their labels into parts"
        )


def room_for_data(limit: int | None, device: torch.device, largest: int) -> int:
    """Return the bytes that a data set may take before it is streamed, while its largest image is prepared."""
    left = (default_limit() if limit is None or device.type == "cuda" else limit) - resident()
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        left = min(left, total if limit is None else limit)
    return max(0, min(int(DATA_SHARE * left), left - largest))


def state_bytes(config: TrainConfig) -> int:
    """Bytes of the weights, their gradients, the optimiser's moments and the average.

    Examples
    --------
    >>> from septum.config import paper_2015
    >>> state_bytes(TrainConfig(unet=paper_2015(), optimizer="sgd")) / 1e6     # 3 * 4 bytes * 31,023,808 weights
    372.285696
    """
    moments = 2 if config.optimizer == "adam" else int(config.momentum > 0)
    return 4 * n_weights(config.unet) * (2 + moments + (config.weight_average > 0))


def step_bytes(config: TrainConfig) -> int:
    """Bytes that a step takes beside `state_bytes`: feature maps, their gradients, weights in another order."""
    side = input_size(config.patch, config.unet.depth)
    values = sum(width * math.prod(sizes) for _, _, width, _, sizes in layers(config.unet, (side, side)))
    return int(4 * FEATURE_MAP_COPIES * config.batch * values + 4 * n_weights(config.unet))


def libraries_bytes() -> int:
    """Bytes that a process grows by in its first steps, beside their arrays; 0 if it has taken steps before."""
    return 0 if "torch._dynamo" in sys.modules else LIBRARY_BYTES  # PyTorch loads it with the first optimiser


def fit_memory(
    config: TrainConfig, limit: int, peak: Callable[[TrainConfig], int], counted: Callable[[TrainConfig], int]
) -> TrainConfig:
    """Return the largest patch and batch, up to those of the settings, whose steps stay within a memory limit.

    Steps of rising size are measured, each only if it is expected to fit. The expectation is counted for the first;
    for the second, it is the measured first plus the counted difference; later it is a straight line through the two
    before.

    Parameters
    ----------
    config : TrainConfig
        The settings without a limit.
    limit : int
        Bytes that the process may hold.
    peak : callable
        Takes steps with the given settings and returns the most that the process has held, in bytes.
    counted : callable
        Returns what to expect of `peak`, without a step.

    Raises
    ------
    ConfigError
        If even the smallest patch takes too much; if that is expected, before it is tried.

    Examples
    --------
    >>> from septum.config import UNetConfig
    >>> wanted = TrainConfig(unet=UNetConfig(), patch=388, batch=1)
    >>> def peak(step):
    ...     return 10**8 + 4000 * pixels(step)     # 4000 * 452**2 = 0.82e9
    >>> fit_memory(wanted, 10**9, peak, counted=peak).patch
    276
    """
    sizes = [size for size in _patches(config) if size < config.patch]
    rising = [config.with_changes({"patch": size, "batch": 1}) for size in sizes]
    rising += [config.with_changes({"batch": batch}) for batch in range(1, config.batch + 1)]
    if (needed := counted(rising[0])) > limit:
        raise _too_little(limit, needed)

    def expected(step: TrainConfig) -> float:
        if len(measured) == 1:
            return measured[0][1] + counted(step) - counted(rising[0])
        (x0, y0), (x1, y1) = measured[-2:]
        return y1 + (y1 - y0) / (x1 - x0) * (pixels(step) - x1)

    measured: list[tuple[int, int]] = []
    fitting, tried = None, [rising[0]]
    while tried:
        measured.append((pixels(tried[-1]), peak(tried[-1])))
        if measured[-1][1] > limit:
            break
        fitting, taken = tried[-1], measured[-1][0]
        tried = [
            step
            for step in rising
            if taken < pixels(step) <= LARGEST_GROWTH * taken and expected(step) <= PLANNED_SHARE * limit
        ]
    if fitting is None:
        raise _too_little(limit, measured[-1][1])
    return fitting


def _too_little(limit: int, needed: int) -> ConfigError:
    return ConfigError(
        f"the memory limit is {limit / 1e6:.0f} MB, but training takes about {needed / 1e6:.0f} MB here, even with the "
        "smallest patches; raise --max-memory, use fewer images or a narrower network"
    )


def smaller_step(config: TrainConfig, error: Exception) -> TrainConfig:
    """Return settings whose steps take less memory: half the batch, then about half a patch.

    Raises
    ------
    Exception
        The error itself if it is not about memory.
    ConfigError
        If the patch is the smallest that the network allows.
    """
    if not lacks_memory(error):
        raise error
    if config.batch > 1:
        return config.with_changes({"batch": config.batch // 2})
    sizes = [size for size in _patches(config) if size <= 0.75 * config.patch]
    if not sizes:
        raise ConfigError(
            "not even a single patch of the smallest size fits into memory; use a narrower network"
        ) from error
    return config.with_changes({"patch": sizes[-1]})


def pixels(config: TrainConfig) -> int:
    """Number of pixels that go into the network in one step."""
    return config.batch * input_size(config.patch, config.unet.depth) ** 2


def patches_text(config: TrainConfig) -> str:
    """Say how large a step is.

    Examples
    --------
    >>> from septum.config import UNetConfig
    >>> patches_text(TrainConfig(unet=UNetConfig(), batch=2, patch=100))
    '2 patches of 100 x 100 pixels'
    """
    return f"{config.batch} patch{'es' if config.batch > 1 else ''} of {config.patch} x {config.patch} pixels"


def _patches(config: TrainConfig) -> list[int]:
    """Patch sizes that the network allows, up to that of the settings."""
    lost, step = 2 * margin(config.unet.depth), 2**config.unet.depth
    sides = range(input_size(1, config.unet.depth), input_size(config.patch, config.unet.depth) + 1, step)
    return [side - lost for side in sides]
