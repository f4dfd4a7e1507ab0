"""Decides whether an image is streamed, and with which plan, before the first image is predicted."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from septum.choices import Statistics, StoredProbability, StreamFormat
from septum.config import TtaConfig
from septum.core.bands import logits_in_bands
from septum.core.layout import TooLittleMemory
from septum.core.unet import UNet, input_size, multiply_adds
from septum.data.images import ImageFile, fit_channels
from septum.data.names import stem_of
from septum.errors import ConfigError, ImageError
from septum.machine.memory import resident
from septum.model.model import Model
from septum.model.predict import in_fastest_order
from septum.prediction.streaming.job import PLAN, Inputs, open_mask
from septum.prediction.streaming.plan import Bounds, StreamPlan, StreamRequest, choose_tiles, fingerprint_image

PROBE_SIDE = 250  # output pixels of the tile that is timed


@dataclass(frozen=True)
class StreamOptions:
    """Options of a streamed prediction."""

    format: StreamFormat = "zarr"
    probabilities: StoredProbability = "uint8"
    tta: TtaConfig | None = None
    channel: int | None = None
    level: int = 0
    region: Bounds | None = None
    mask: Path | None = None
    workers: int = 1
    cluster: str | None = None
    verify: int = 0
    statistics: Statistics = "image"

    @property
    def processes(self) -> int:
        """Number of processes on this machine that do the work."""
        return self.workers if self.cluster is None else 1


@dataclass(frozen=True)
class PlannedStream:
    """A streamed prediction that is decided on and not yet started."""

    inputs: Inputs
    options: StreamOptions
    plan: StreamPlan
    speed: float  # of the network, in multiply-adds per second


def plan_stream(
    model: Model,
    image: ImageFile,
    options: StreamOptions,
    *,
    max_memory: int,
    speed: float,
    fingerprint: Callable[[Path], str] = fingerprint_image,
) -> PlannedStream:
    """Plan the prediction of one image within the memory of all processes together.

    `speed` is that of the network, measured before (`network_speed`), so that this process already has in memory what
    libraries keep.

    Raises
    ------
    ConfigError
        If the memory is too small for a tile (the message says how much is enough), or the model lacks something.
    ImageError
        If image, region and mask do not fit the model or one another.
    """
    file = model.saved()
    for frame in image.frames:
        fit_channels(frame, model.card.channels)
    if options.statistics == "model" and model.card.brightness is None:
        raise ConfigError(
            "the model was made by an older Septum and does not record the brightness of its training images; train it "
            "again, or use --statistics image, with --mask to measure only part of the image"
        )
    mask = None if options.mask is None else open_mask(options.mask, image)
    height, width = image.frames[0].shape[1:]
    y0, y1, x0, x1 = options.region or (0, height, 0, width)
    if not (0 <= y0 < y1 <= height and 0 <= x0 < x1 <= width):
        raise ImageError(
            f"the region {y0}:{y1},{x0}:{x1} is not inside {image.path.name}, which has {height} rows and {width} "
            "columns; choose a region inside it"
        )
    processes = options.processes
    # each of several workers is a process in addition to this one
    programs = resident() * (processes + 1 if processes > 1 else 1)
    try:
        layout = choose_tiles((y1 - y0, x1 - x0), model.net.config, (max_memory - programs) // processes, options.tta)
    except TooLittleMemory as error:
        raise too_little(max_memory, processes * error.missing) from None
    plan = StreamPlan(
        request=StreamRequest(
            model=file.sha256,
            image=fingerprint(image.path),
            mask=None if options.mask is None else fingerprint(options.mask),
            channel=options.channel,
            level=options.level,
            region=options.region,
            tta=options.tta,
            probabilities=options.probabilities,
            statistics=options.statistics,
            device=model.net.output.weight.device.type,
        ),
        model_path=str(file.path.resolve()),
        image_path=str(image.path.resolve()),
        mask_path=None if options.mask is None else str(options.mask.resolve()),
        shape=(y1 - y0, x1 - x0),
        origin=(y0, x0),
        frames=len(image.frames),
        threads=max(1, torch.get_num_threads() // processes),
        **layout,  # type: ignore[arg-type]
    )
    return PlannedStream(Inputs(model, image, mask), options, plan, speed)


def too_little(max_memory: int, missing: int) -> ConfigError:
    """Return the error that says how much memory is enough."""
    return ConfigError(
        f"{max_memory / 1e6:.0f} MB of memory are too little for a single tile of this network; "
        f"use at least --max-memory {10 * math.ceil((max_memory + missing) / 1e7) + 10}MB"
    )


def network_speed(net: UNet) -> float:
    """Measure multiply-adds per second on a small tile."""
    if net.config.normalization != "none":
        net = UNet(net.config.with_changes({"normalization": "none"})).to(net.output.weight.device).eval()
    net = in_fastest_order(net)
    side = input_size(PROBE_SIDE, net.config.depth)
    weight = net.output.weight
    pixels = torch.zeros(1, net.config.in_channels, side, side, dtype=weight.dtype, device=weight.device)
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        with torch.inference_mode():
            for logits in logits_in_bands(net, [pixels], rows=8):
                logits.cpu()
        seconds.append(time.perf_counter() - start)
    return multiply_adds(net.config, (side, side)) / min(seconds)


def needs_streaming(image: ImageFile, n_classes: int, max_memory: int) -> bool:
    """Whether an image and its results in memory would take more than half of the memory that is left."""
    channels, height, width = image.frames[0].shape
    per_pixel = channels * (image.dtype.itemsize + 12) + 12 * n_classes + 16
    return len(image.frames) * height * width * per_pixel > max(0, max_memory - resident()) / 2


def is_streamed_before(path: Path, output: Path) -> bool:
    """Whether the output folder has a finished or unfinished streamed prediction of an image, which continues so."""
    stem = stem_of(path)
    results = output / f"{stem}_plan.json", output / f"{stem}_labels.ome.zarr"
    return (output / f"{stem}_work" / PLAN).exists() or all(result.exists() for result in results)


def parse_region(text: str) -> Bounds:
    """Turn ``y0:y1,x0:x1`` into four numbers.

    Examples
    --------
    >>> parse_region("0:512,1024:2048")
    (0, 512, 1024, 2048)
    """
    try:
        (y0, y1), (x0, x1) = ((int(number) for number in part.split(":")) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"a region must be y0:y1,x0:x1 in pixels, such as 0:512,1024:2048, got {text!r}") from None
    return y0, y1, x0, x1
