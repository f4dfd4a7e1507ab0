"""An image file too large for memory -> label and probability files: plans, runs here or on workers, cleans up."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from septum.choices import Statistics, StoredProbability, StreamFormat
from septum.config import TtaConfig
from septum.core.bands import logits_in_bands
from septum.core.layout import TooLittleMemory
from septum.core.overlay import overlay
from septum.core.region import whole
from septum.core.unet import UNet, input_size, multiply_adds
from septum.data.files import write_text
from septum.data.images import ImageFile, fit_channels, open_image, write_png
from septum.data.names import stem_of
from septum.data.sinks import write_tiff
from septum.errors import ConfigError, ImageError, OutputError
from septum.machine.memory import lacks_memory, limit_allocator_cache, resident
from septum.model.model import Model
from septum.model.predict import in_fastest_order
from septum.prediction.records import StreamDone, StreamProgress, StreamRecord, StreamStarted
from septum.prediction.streaming.cluster import connect, run_on
from septum.prediction.streaming.job import PLAN, Job, Step, has_begun, open_mask, run_here
from septum.prediction.streaming.object_table import write_table
from septum.prediction.streaming.plan import (
    Box,
    Request,
    StreamPlan,
    check_same,
    choose_tiles,
    identity,
    read_plan,
    smaller,
    write_or_resume,
)
from septum.prediction.streaming.verify import certify

PROBE_SIDE = 250  # output pixels of the tile that is timed


@dataclass(frozen=True)
class StreamOptions:
    """What a streamed prediction is asked for beyond model and image."""

    format: StreamFormat = "zarr"
    probabilities: StoredProbability = "uint8"
    tta: TtaConfig | None = None
    channel: int | None = None
    level: int = 0
    region: Box | None = None
    mask: Path | None = None
    workers: int = 1
    cluster: str | None = None
    verify: int = 0
    statistics: Statistics = "image"


def stream_file(
    model: Model,
    model_path: Path,
    model_hash: str,
    path: Path,
    output: Path,
    options: StreamOptions,
    max_memory: int,
    notes: Sequence[str] = (),
) -> Generator[StreamRecord, None, None]:
    """Predict one image file that is not loaded; goes on where a killed run stopped. `notes` are said at its start.

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
    results = tuple(output / f"{stem}_{name}.{suffix}" for name in ("labels", "probabilities"))
    stores = tuple(output / f"{stem}_{name}.ome.zarr" for name in ("labels", "probabilities"))
    outputs = (*results, *_extras(model, plan, output, stem))
    begun = (folder / PLAN).exists()
    if written.exists():
        finished = read_plan(written)
        check_same(written, finished.request, plan.request)
        if all(file.exists() for file in outputs):
            shutil.rmtree(folder, ignore_errors=True)
            if options.verify:
                yield StreamStarted(path, ("not verified, since it was done before; choose another --output for that",))
            yield StreamDone(path, (*outputs, written), 0, (), skipped=True)
            return
        # a result is missing: made again like the others
        there_before = options.format == "tiff" and all(store.exists() for store in stores)
        plan = finished.model_copy(update={"normalization": (), "keeps_zarr": there_before})
    elif begun and not has_begun(folder) and read_plan(folder / PLAN).request != plan.request:
        for left in (folder, *stores):
            shutil.rmtree(left, ignore_errors=True)  # as after an image that could not be read: it may be mended
        begun = False
    elif not begun and (there := [file for file in (*results, *stores) if file.exists()]):
        raise OutputError(
            f"{there[0]} is there, but not {written.name}, which says how it was made; choose another --output, or "
            "remove it"
        )
    plan = write_or_resume(folder / PLAN, plan, model.net.config)
    written.unlink(missing_ok=True)  # until the results are whole again
    job = Job(folder, model)
    expected = Expected(job, network_speed(model.net), options)
    note = expected.describe() + ("; goes on with what was begun" if begun else "")
    yield StreamStarted(path, (job.image.description, *notes, note))
    while True:
        try:
            objects = yield from _run(job, options, expected)
            break
        except (MemoryError, RuntimeError) as error:
            if not lacks_memory(error):
                raise
            plan = smaller(plan, model.net.config)
        write_text(folder / PLAN, plan.model_dump_json(indent=1) + "\n")
        job = Job(folder, model)
        expected = Expected(job, network_speed(model.net), options)
        yield StreamStarted(path, (f"memory was short, the plan is made smaller: {expected.describe()}",))
    certificates = tuple(certify(job, options.verify)) if options.verify else ()
    for number, result in enumerate(job.outputs):
        result.finish()
        if options.format == "tiff":
            write_tiff(results[number], result)
        yield expected.progress(Step("pyramid", 0, len(job.outputs)), number + 1, len(job.outputs))
    _write_extras(job, path, outputs[len(results) :])
    yield expected.progress(Step("table", 0, 1), 1, 1)
    plan = plan.model_copy(update={"normalization": tuple(map(job.normalization, range(plan.frames)))})
    write_text(written, plan.model_dump_json(indent=1) + "\n")
    shutil.rmtree(folder)
    if options.format == "tiff" and not plan.keeps_zarr:
        for store in stores:
            shutil.rmtree(store)
    yield StreamDone(path, (*outputs, written), objects, certificates)


class Expected:
    """The seconds that the steps of a prediction are foreseen to take, and how far it has come by these."""

    def __init__(self, job: Job, multiply_adds_per_second: float, options: StreamOptions) -> None:
        self.plan, self.processes = job.plan, options.workers if options.cluster is None else 1
        steps = [(step.name, step.frame) for step in job.steps()]
        frames = job.plan.frames
        self.seconds = {
            step: job.plan.seconds(step[0], multiply_adds_per_second, self.processes)
            * (frames if step[0] in ("pyramid", "table") else 1)
            for step in [*steps, ("pyramid", 0), ("table", 0)]
        }

    def describe(self) -> str:
        """Say in one sentence what will happen."""
        network = sum(seconds for (name, _), seconds in self.seconds.items() if name == "tiles")
        return self.plan.describe(network, sum(self.seconds.values()) - network, self.processes)

    def progress(self, step: Step, done: int, total: int) -> StreamProgress:
        """Return the record of what is done of a step."""
        this, order = (step.name, step.frame), list(self.seconds)
        before = sum(self.seconds[one] for one in order[: order.index(this)])
        part = (before + self.seconds[this] * done / total) / sum(self.seconds.values())
        return StreamProgress(step.name, step.frame, done, total, part)


def _extras(model: Model, plan: StreamPlan, output: Path, stem: str) -> tuple[Path, ...]:
    """Return the files beside labels and probabilities: a picture per frame, and the table of objects."""
    single = plan.frames == 1
    names = [f"{stem}_overlay.png" if single else f"{stem}_overlay_{n:04d}.png" for n in range(plan.frames)]
    if model.card.kind == "instances":
        names.append(f"{stem}_objects.csv")
    return tuple(output / name for name in names)


def _write_extras(job: Job, path: Path, files: Sequence[Path]) -> None:
    frames = [job.decoding(frame) for frame in range(job.plan.frames)]
    for frame, (blocks, picture) in enumerate(zip(frames, files, strict=False)):
        small = job.labels.levels[blocks.halvings][frame]
        labels = small.read(whole(small.shape[1:]))[0].astype(np.int64)
        write_png(picture, overlay(blocks.from_afar(), labels, kind=job.model.card.kind))
    if job.model.card.kind == "instances":
        write_table(files[-1], path.name, frames, job.image.pixel_size)


def _run(job: Job, options: StreamOptions, expected: Expected) -> Generator[StreamRecord, None, int]:
    if options.workers == 1 and options.cluster is None:
        return (yield from _records(run_here(job), expected))
    with connect(options.cluster, options.workers) as client:
        return (yield from _records(run_on(client, job), expected))


def _records(
    steps: Generator[tuple[Step, int, int], None, int], expected: Expected
) -> Generator[StreamRecord, None, int]:
    while True:
        try:
            step, done, total = next(steps)
        except StopIteration as end:
            return int(end.value)
        yield expected.progress(step, done, total)


def make_plan(
    model: Model, model_path: Path, model_hash: str, path: Path, options: StreamOptions, max_memory: int
) -> StreamPlan:
    """Plan the prediction of one image within the memory of all processes together."""
    image = open_image(path, channel=options.channel, level=options.level)
    for frame in image.frames:
        fit_channels(frame, model.card.channels)
    if options.statistics == "model" and model.card.brightness is None:
        raise ConfigError(
            "the model does not say how bright its training images were, since it was made by an older Septum; train "
            "it again, or have the brightness measured where a --mask says"
        )
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
    limit_allocator_cache()
    network_speed(model.net)  # after which the process holds what libraries keep
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
            statistics=options.statistics,
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


@lru_cache(maxsize=1)
def network_speed(net: UNet) -> float:
    """Measure multiply-adds per second on a small tile, once."""
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
    """Whether an image and its results in memory would take more than half of what there is."""
    channels, height, width = image.frames[0].shape
    per_pixel = channels * (image.dtype.itemsize + 12) + 12 * n_classes + 16
    return len(image.frames) * height * width * per_pixel > max(0, max_memory - resident()) / 2


def is_begun(path: Path, output: Path) -> bool:
    """Whether the prediction of an image was begun, or done, as a streamed one: so the same command goes on with it."""
    stem = stem_of(path)
    results = output / f"{stem}_plan.json", output / f"{stem}_labels.ome.zarr"
    return (output / f"{stem}_work" / PLAN).exists() or all(result.exists() for result in results)


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
