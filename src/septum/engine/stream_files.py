"""An image file too large for memory -> label and probability files: plans, runs here or on workers, cleans up."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from septum.config import TtaConfig
from septum.core.bands import logits_in_bands
from septum.core.layout import TooLittleMemory
from septum.core.unet import UNet, input_size, multiply_adds
from septum.data.files import write_text
from septum.data.images import ImageFile, fit_channels, open_image
from septum.data.sinks import write_tiff
from septum.engine.cluster import connect, run_on
from septum.engine.memory import resident
from septum.engine.model import Model
from septum.engine.predict import in_fastest_order
from septum.engine.stream import PLAN, Job, Step, open_mask, run_here
from septum.engine.stream_plan import (
    Box,
    Request,
    StreamPlan,
    check_same,
    choose_tiles,
    identity,
    read_plan,
    write_or_resume,
)
from septum.engine.verify import Certificate, certify
from septum.errors import ConfigError, ImageError

PROBE_SIDE = 250  # output pixels of the tile that is timed


@dataclass(frozen=True)
class StreamOptions:
    """What a streamed prediction is asked for beyond model and image."""

    format: Literal["zarr", "tiff"] = "zarr"
    probabilities: Literal["uint8", "float16"] = "uint8"
    tta: TtaConfig | None = None
    channel: int | None = None
    level: int = 0
    region: Box | None = None
    mask: Path | None = None
    workers: int = 1
    cluster: str | None = None
    verify: int = 0


@dataclass(frozen=True)
class StreamStarted:
    """A plan is written; the note says what will happen."""

    path: Path
    notes: tuple[str, ...]


@dataclass(frozen=True)
class StreamProgress:
    """How much of a step of a frame is done."""

    step: str
    frame: int
    done: int
    total: int


@dataclass(frozen=True)
class StreamDone:
    """The results are there; with certificates, if they were asked for."""

    path: Path
    outputs: tuple[Path, ...]
    objects: int
    certificates: tuple[Certificate, ...]
    skipped: bool = False


StreamRecord = StreamStarted | StreamProgress | StreamDone


def stream_file(
    model: Model, model_path: Path, model_hash: str, path: Path, output: Path, options: StreamOptions, max_memory: int
) -> Generator[StreamRecord, None, None]:
    """Predict one image file that is not loaded; goes on where a killed run stopped.

    Raises
    ------
    OutputError
        If the results that are there, or were begun, are of another model, image or setting.
    ConfigError
        If the memory is too little for a tile; the sentence says how much works.
    """
    stem = stem_of(path)
    folder, written = output / f"{stem}_work", output / f"{stem}_plan.json"
    plan = make_plan(model, model_path, model_hash, path, options, max_memory)
    suffix = "ome.zarr" if options.format == "zarr" else "tif"
    outputs = tuple(output / f"{stem}_{name}.{suffix}" for name in ("labels", "probabilities"))
    if written.exists() and not folder.exists() and all(file.exists() for file in outputs):
        check_same(written, read_plan(written).request, plan.request)
        yield StreamDone(path, (*outputs, written), 0, (), skipped=True)
        return
    plan = write_or_resume(folder / PLAN, plan)
    job = Job(folder)
    speed = network_speed(model.net)
    processes = options.workers if options.cluster is None else 1
    yield StreamStarted(path, (job.image.description, plan.describe(speed, processes)))
    objects = yield from _run(job, options)
    certificates = tuple(certify(job, options.verify)) if options.verify else ()
    for number, result in enumerate(job.outputs):
        result.finish()
        if options.format == "tiff":
            write_tiff(outputs[number], result)
        yield StreamProgress("pyramid", 0, number + 1, len(job.outputs))
    write_text(written, plan.model_dump_json(indent=1) + "\n")
    if options.format == "tiff":
        for result in job.outputs:
            shutil.rmtree(result.path)
    shutil.rmtree(folder)
    yield StreamDone(path, (*outputs, written), objects, certificates)


def _run(job: Job, options: StreamOptions) -> Generator[StreamRecord, None, int]:
    if options.workers == 1 and options.cluster is None:
        return (yield from _records(run_here(job)))
    with connect(options.cluster, options.workers) as client:
        return (yield from _records(run_on(client, job)))


def _records(steps: Generator[tuple[Step, int, int], None, int]) -> Generator[StreamRecord, None, int]:
    while True:
        try:
            step, done, total = next(steps)
        except StopIteration as end:
            return int(end.value)
        yield StreamProgress(step.name, step.frame, done, total)


def make_plan(
    model: Model, model_path: Path, model_hash: str, path: Path, options: StreamOptions, max_memory: int
) -> StreamPlan:
    """Plan the prediction of one image within the memory of all processes together."""
    image = open_image(path, channel=options.channel, level=options.level)
    for frame in image.frames:
        fit_channels(frame, model.card.channels)
    if options.mask is not None:
        open_mask(options.mask, image)
    height, width = image.frames[0].shape[1:]
    y0, y1, x0, x1 = options.region or (0, height, 0, width)
    if not (0 <= y0 < y1 <= height and 0 <= x0 < x1 <= width):
        raise ImageError(
            f"the region {y0}:{y1},{x0}:{x1} does not lie in {path.name}, which has {height} rows and {width} columns; "
            "give one inside"
        )
    processes = options.workers if options.cluster is None else 1
    # with several workers each of them is a process beside this one
    others = resident() * (processes + 1) if processes > 1 else resident()
    try:
        layout = choose_tiles((y1 - y0, x1 - x0), model.net.config, (max_memory - others) // processes, options.tta)
    except TooLittleMemory as error:
        raise too_little(max_memory, processes * error.missing) from None
    return StreamPlan(
        request=Request(
            model=model_hash,
            image=identity(path),
            mask=None if options.mask is None else identity(options.mask),
            channel=options.channel,
            level=options.level,
            region=options.region,
            tta=options.tta,
            probabilities=options.probabilities,
            device=model.net.output.weight.device.type,
        ),
        model_path=str(model_path.resolve()),
        image_path=str(path.resolve()),
        mask_path=None if options.mask is None else str(options.mask.resolve()),
        shape=(y1 - y0, x1 - x0),
        origin=(y0, x0),
        frames=len(image.frames),
        threads=max(1, torch.get_num_threads() // processes),
        **layout,  # type: ignore[arg-type]
    )


def too_little(max_memory: int, missing: int) -> ConfigError:
    """Return the error that says how much memory works."""
    return ConfigError(
        f"{max_memory / 1e6:.0f} MB of memory are too little for a single tile of this network; the smallest that "
        f"works is --max-memory {10 * math.ceil((max_memory + missing) / 1e7) + 10}MB"
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
            for logits in logits_in_bands(net, torch.split(pixels, 8 * 2**net.config.depth, dim=2)):
                logits.cpu()
        seconds.append(time.perf_counter() - start)
    return multiply_adds(net.config, (side, side)) / min(seconds)


def needs_streaming(image: ImageFile, n_classes: int, max_memory: int) -> bool:
    """Whether an image and its results in memory would take more than half of what there is."""
    channels, height, width = image.frames[0].shape
    per_pixel = channels * (image.dtype.itemsize + 12) + 12 * n_classes + 16
    return len(image.frames) * height * width * per_pixel > max(0, max_memory - resident()) / 2


def stem_of(path: Path) -> str:
    """Return the name of an image without what says its format.

    Examples
    --------
    >>> stem_of(Path("a/slide.ome.zarr")), stem_of(Path("b.ome.tif")), stem_of(Path("c.1.tif"))
    ('slide', 'b', 'c.1')
    """
    return path.stem.removesuffix(".ome")


def parse_region(text: str) -> Box:
    """Turn ``y0:y1,x0:x1`` into four numbers.

    Examples
    --------
    >>> parse_region("0:512,1024:2048")
    (0, 512, 1024, 2048)
    """
    try:
        (y0, y1), (x0, x1) = ((int(number) for number in part.split(":")) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"a region is y0:y1,x0:x1 in pixels, such as 0:512,1024:2048, got {text!r}") from None
    return y0, y1, x0, x1
