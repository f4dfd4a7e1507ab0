"""Streamed prediction of an image file: carries out a plan, here or on workers, and writes the result files."""

from __future__ import annotations

import shutil
from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np

from septum.core.overlay import overlay
from septum.core.region import whole
from septum.data.files import write_text
from septum.data.images import write_png
from septum.data.names import stem_of
from septum.data.sinks import write_tiff
from septum.errors import OutputError
from septum.machine.generators import mapped
from septum.machine.memory import lacks_memory
from septum.model.model import Model
from septum.prediction.records import StreamDone, StreamProgress, StreamRecord, StreamStarted
from septum.prediction.streaming.cluster import connect, run_on
from septum.prediction.streaming.decide import PlannedStream, StreamOptions
from septum.prediction.streaming.job import PLAN, Job, Step, has_finished_piece, run_here
from septum.prediction.streaming.object_table import write_table
from septum.prediction.streaming.plan import StreamPlan, check_same, read_plan, shrink_plan, write_or_resume
from septum.prediction.streaming.verify import certify


def stream_file(planned: PlannedStream, output: Path, notes: Sequence[str] = ()) -> Generator[StreamRecord, None, None]:
    """Predict one image file without loading it; continues where an earlier run stopped. Starts with `notes`.

    Raises
    ------
    OutputError
        If existing or unfinished results are from a different model, image or setting.
    """
    inputs, options, plan = planned.inputs, planned.options, planned.plan
    model, path = inputs.model, inputs.image.path
    stem = stem_of(path)
    folder, written = output / f"{stem}_work", output / f"{stem}_plan.json"
    suffix = "ome.zarr" if options.format == "zarr" else "tif"
    results = tuple(output / f"{stem}_{name}.{suffix}" for name in ("labels", "probabilities"))
    stores = tuple(output / f"{stem}_{name}.ome.zarr" for name in ("labels", "probabilities"))
    outputs = (*results, *_extras(model, plan, output, stem))
    unfinished = (folder / PLAN).exists()
    if written.exists():
        finished = read_plan(written)
        check_same(written, finished.request, plan.request)
        if all(file.exists() for file in outputs):
            shutil.rmtree(folder, ignore_errors=True)
            if options.verify:
                note = "not verified, because the results were already there; choose another --output to verify"
                yield StreamStarted(path, (note,))
            yield StreamDone(path, (*outputs, written), 0, (), skipped=True)
            return
        # a result is missing: written again together with the others
        had_zarr = options.format == "tiff" and all(store.exists() for store in stores)
        plan = finished.model_copy(update={"normalization": (), "keeps_zarr": had_zarr})
    elif unfinished and not has_finished_piece(folder) and read_plan(folder / PLAN).request != plan.request:
        for left in (folder, *stores):  # as after an image that could not be read and was repaired
            shutil.rmtree(left, ignore_errors=True)
        unfinished = False
    elif not unfinished and (existing := [file for file in (*results, *stores) if file.exists()]):
        raise OutputError(
            f"{existing[0]} exists without {written.name}, which records how it was made; choose another --output or "
            "remove it"
        )
    plan = write_or_resume(folder / PLAN, plan, model.net.config)
    written.unlink(missing_ok=True)  # until the results are complete again
    job = Job(folder, inputs)
    estimate = TimeEstimate(job, planned)
    note = estimate.describe() + ("; continues an earlier run" if unfinished else "")
    yield StreamStarted(path, (job.image.description, *notes, note))
    while True:
        try:
            objects = yield from _run(job, options, estimate)
            break
        except (MemoryError, RuntimeError) as error:
            if not lacks_memory(error):
                raise
            plan = shrink_plan(plan, model.net.config)
        write_text(folder / PLAN, plan.model_dump_json(indent=1) + "\n")
        job = Job(folder, inputs)
        estimate = TimeEstimate(job, planned)
        yield StreamStarted(path, (f"memory ran out, so the tiles are smaller now: {estimate.describe()}",))
    certificates = tuple(certify(job, options.verify)) if options.verify else ()
    for number, result in enumerate(job.outputs):
        result.finish()
        if options.format == "tiff":
            write_tiff(results[number], result)
        yield estimate.progress(Step("pyramid", 0, len(job.outputs)), number + 1, len(job.outputs))
    _write_extras(job, path, outputs[len(results) :])
    yield estimate.progress(Step("table", 0, 1), 1, 1)
    plan = plan.model_copy(update={"normalization": tuple(map(job.normalization, range(plan.frames)))})
    write_text(written, plan.model_dump_json(indent=1) + "\n")
    shutil.rmtree(folder)
    if options.format == "tiff" and not plan.keeps_zarr:
        for store in stores:
            shutil.rmtree(store)
    yield StreamDone(path, (*outputs, written), objects, certificates)


class TimeEstimate:
    """The estimated seconds of all steps of a prediction, and its progress in terms of these."""

    def __init__(self, job: Job, planned: PlannedStream) -> None:
        self.plan, self.processes = job.plan, planned.options.processes
        steps = [(step.name, step.frame) for step in job.steps()]
        frames = job.plan.frames
        self.seconds = {
            step: job.plan.seconds(step[0], planned.speed, self.processes)
            * (frames if step[0] in ("pyramid", "table") else 1)
            for step in [*steps, ("pyramid", 0), ("table", 0)]
        }

    def describe(self) -> str:
        """Describe in one sentence what will happen."""
        network = sum(seconds for (name, _), seconds in self.seconds.items() if name == "tiles")
        return self.plan.describe(network, sum(self.seconds.values()) - network, self.processes)

    def progress(self, step: Step, done: int, total: int) -> StreamProgress:
        """Return the record of a step's progress."""
        current, order = (step.name, step.frame), list(self.seconds)
        before = sum(self.seconds[one] for one in order[: order.index(current)])
        fraction = (before + self.seconds[current] * done / total) / sum(self.seconds.values())
        return StreamProgress(step.name, step.frame, done, total, fraction)


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
        write_png(picture, overlay(blocks.thumbnail(), labels, kind=job.model.card.kind))
    if job.model.card.kind == "instances":
        write_table(files[-1], path.name, frames, job.image.pixel_size)


def _run(job: Job, options: StreamOptions, estimate: TimeEstimate) -> Generator[StreamRecord, None, int]:
    def record(progress: tuple[Step, int, int]) -> StreamProgress:
        return estimate.progress(*progress)

    if options.workers == 1 and options.cluster is None:
        return (yield from mapped(run_here(job), record))
    with connect(options.cluster, options.workers) as client:
        return (yield from mapped(run_on(client, job), record))
