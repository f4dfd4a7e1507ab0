"""From a data set on disk to a trained run folder: checks, settings, training, and the final training on everything."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from septum.choices import Kind, Recipe
from septum.config import DataSource, TrainConfig, UNetConfig
from septum.data.check import check_dataset
from septum.data.dataset import Dataset, load_dataset, shapes
from septum.data.keep import scratch_folder
from septum.errors import ConfigError, DeviceError
from septum.machine.device import be_deterministic
from septum.machine.memory import TRAINING_MMAP_THRESHOLD, limit_allocator_cache
from septum.model.model import Model, load
from septum.training.fit import fit
from septum.training.holdout import hold_out, nothing_held_out
from septum.training.memory import check_largest, data_bytes, largest_bytes, room_for_data
from septum.training.processes import SINGLE_PROCESS, Processes
from septum.training.recipe import recipe
from septum.training.records import Finished, Notice, Record
from septum.training.request import TrainingRequest
from septum.training.run import RunFolder
from septum.training.score import SCORE_NAMES
from septum.words import plural


@dataclass(frozen=True)
class TrainOptions:
    """The options of `septum train`."""

    data: Path
    output: Path
    labels: Path | None = None
    recipe: Recipe | None = None
    budget: float | None = None  # seconds
    steps: int | None = None
    max_memory: int | None = None  # bytes
    deterministic: bool = False
    begin: float = field(default_factory=time.perf_counter)  # of the budget
    seed: int | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    start: Path | None = None
    resume: bool = False
    final: bool = False
    kind: Kind | None = None
    channel: int | None = None
    unlabeled: int | None = None


def train_files(
    options: TrainOptions, device: torch.device, processes: Processes = SINGLE_PROCESS
) -> Generator[Record, None, Model]:
    """Check the data, train, and with `final` train again on everything; yields records, returns the model."""
    _check_options(options)
    run, memory = RunFolder(options.output, processes.writes), options.max_memory
    if options.resume:
        given = [options.recipe, options.budget, options.steps, options.seed, options.start, options.changes or None]
        given.append(options.max_memory)
        if any(value is not None for value in given):
            raise ConfigError("--resume continues with the settings in config.json; leave the other options out")
        settings = run.config()  # raises an error if there is nothing to continue
        options = replace(_as_started(options, settings.source), deterministic=settings.deterministic is not None)
        memory = settings.max_memory
    if memory is not None:
        limit_allocator_cache(TRAINING_MMAP_THRESHOLD)
    if options.deterministic:
        be_deterministic()
    images = shapes(options.data, labels=options.labels, channel=options.channel)
    if memory is not None and device.type == "cpu":
        check_largest(images, memory)
    needed = data_bytes(images)
    room, folder = room_for_data(memory, device, largest_bytes(images)), run.path / f"streamed{processes.rank}"
    if needed <= room:
        with _device_watched(device, run, options):
            return (yield from _train(options, run, device, processes, None))
    yield Notice(
        f"the data set needs {needed / 1e6:.0f} MB of memory, but only {room / 1e6:.0f} MB are free for it: it is "
        f"streamed from files in {folder}, which are removed at the end"
    )
    with scratch_folder(folder), _device_watched(device, run, options):
        return (yield from _train(options, run, device, processes, folder))


def _as_started(options: TrainOptions, source: DataSource | None) -> TrainOptions:
    """Return the options with those about the data that the run was started with; ConfigError if they differ."""
    if source is None:
        return options
    for name in ("kind", "channel", "unlabeled"):
        given, before = getattr(options, name), getattr(source, name)
        if given not in (None, before):
            started = f"without --{name}" if before is None else f"with --{name} {before}"
            raise ConfigError(f"{options.output} was started {started}, got --{name} {given}; leave it out to continue")
    labels = options.labels or (Path(source.labels) if source.labels else None)
    return replace(options, labels=labels, kind=source.kind, channel=source.channel, unlabeled=source.unlabeled)


def _train(
    options: TrainOptions, run: RunFolder, device: torch.device, processes: Processes, folder: Path | None
) -> Generator[Record, None, Model]:
    """Train on a data set in memory, or in the files of a folder."""
    dataset = load_dataset(
        options.data,
        labels=options.labels,
        kind=options.kind,
        channel=options.channel,
        unlabeled=options.unlabeled,
        folder=folder,
    )
    for text in [*dataset.notes, *map(str, check_dataset(dataset))]:
        yield Notice(text)
    start = load(options.start, "cpu") if options.start else None
    config = run.config().train if options.resume else make_config(options, dataset, device, start)
    for text in _small_images(dataset, config):
        yield Notice(text)
    held_out = hold_out(dataset)
    if options.final and not options.resume and processes.from_first(run.is_finished()):
        _check_same(config, dataset, start, run)
    else:
        source = DataSource(
            data=str(options.data.resolve()),
            labels=str(options.labels.resolve()) if options.labels else None,
            kind=options.kind,
            channel=options.channel,
            unlabeled=options.unlabeled,
        )
        request = TrainingRequest(
            dataset,
            config,
            run.path,
            held_out=held_out,
            budget=None if config.steps else options.budget or DEFAULT_BUDGET,
            max_memory=options.max_memory,
            begin=options.begin,
            device=device,
            resume=options.resume,
            start=start,
            source=source,
            processes=processes,
        )
        model = yield from fit(request)
    if not options.final:
        yield _finished(run, model)
        return model
    return (yield from _train_on_everything(dataset, run, device, processes))


DEFAULT_BUDGET = 20 * 60.0  # seconds
DEVICE_FAILED = (
    "CUDA error",
    "CUDA driver error",
    "cuDNN error",
    "CUBLAS_STATUS",
    "MPS backend",
)  # in texts of PyTorch


@contextmanager
def _device_watched(device: torch.device, run: RunFolder, options: TrainOptions) -> Iterator[None]:
    """Report in one sentence that a device failed, and how to continue."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.AcceleratorError) and not any(text in str(error) for text in DEVICE_FAILED):
            raise
        saved = run.load_checkpoint()
        kept = f"everything up to step {saved[1]['step']} is saved" if saved else "nothing was saved yet"
        again = f"septum train {options.data} --output {options.output} --resume{' --final' * options.final}"
        raise DeviceError(
            f"the {device.type} device failed or disappeared ({str(error).splitlines()[0]}); {kept}: check the device, "
            f"for example with nvidia-smi, then {'continue with: ' + again if run.exists() else 'start again'}"
        ) from None


def _check_options(options: TrainOptions) -> None:
    """Refuse options that are wrong whatever the data are, before any image is read."""
    if options.steps is not None and options.steps < 1:
        raise ConfigError(f"--steps must be at least 1, got {options.steps}")
    if options.budget is not None and (options.steps is not None or "steps" in options.changes):
        raise ConfigError("a budget and a number of steps both set the length of the training; give one of them")
    if options.start and (network := [name for name in options.changes if name.split(".")[0] == "unet"]):
        raise ConfigError(f"--from keeps the network of its model; leave out --set {network[0]}, or --from")
    TrainConfig(unet=UNetConfig()).with_changes(options.changes)


def make_config(options: TrainOptions, dataset: Dataset, device: torch.device, start: Model | None) -> TrainConfig:
    """Return the recipe's settings for this data, with the user's changes."""
    changes = dict(options.changes)
    if start is not None:
        changes |= _taken_from(start.card.config, dataset, changes)
    if options.steps is not None:
        changes["steps"] = options.steps
    if options.seed is not None:
        changes["seed"] = options.seed
    return recipe(options.recipe or "fast", dataset, device, changes)


def _taken_from(before: TrainConfig, dataset: Dataset, changes: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that --from takes from its model; refuse a model of another kind of labels."""
    if before.kind != dataset.kind:
        raise ConfigError(
            f"the model of --from was trained on {before.kind}, but these labels are {dataset.kind}; "
            f"choose another model, or override the kind of labels with --kind {before.kind}"
        )
    given = changes.get("instances", before.instances)
    if dataset.kind == "instances" and given != before.instances:
        raise ConfigError(
            f"the model of --from was trained with instances={before.instances}, got --set instances={given}; "
            "leave it out, or choose another model"
        )
    return {"unet": before.unet.model_dump(), "instances": before.instances}


def _small_images(dataset: Dataset, config: TrainConfig) -> list[str]:
    small = [sample for sample in dataset.samples if min(sample.labels.shape) < config.patch]
    if not small:
        return []
    some = f"{len(small)} of {plural(len(dataset.samples), 'image')} {'is' if len(small) == 1 else 'are'}"
    return [
        f"{some} smaller than a training patch of {config.patch} x {config.patch} pixels; "
        "mirrored pixels fill the rest; --set patch=N makes patches smaller"
    ]


def _check_same(config: TrainConfig, dataset: Dataset, start: Model | None, run: RunFolder) -> None:
    """Refuse a final training with other data, settings or first weights than the run whose scores it takes."""
    settings, started_from = run.config(), run.start()
    run.check_data(dataset.hashes)
    before = settings.train.with_changes(settings.asked)
    asked = config if config.steps else config.with_changes({"steps": before.steps})
    if asked != before or (start and not (started_from and _same_weights(start, started_from))):
        raise ConfigError(
            f"{run.path} was trained with other settings; use these with --resume --final, or choose another --output"
        )


def _same_weights(one: Model, other: Model) -> bool:
    first, second = one.net.state_dict(), other.net.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def _finished(run: RunFolder, model: Model) -> Finished:
    card = model.card
    return Finished(
        run.path, run.model_file, card.step, run.last_step(), card.scores, SCORE_NAMES[card.config.kind], card.held_out
    )


def _train_on_everything(
    dataset: Dataset, run: RunFolder, device: torch.device, processes: Processes
) -> Generator[Record, None, Model]:
    """Train again with nothing held out, with the settings, first weights and number of steps of the earlier run."""
    before = run.config()
    final = RunFolder(run.path / "final", processes.writes)
    steps = processes.from_first(run.last_step())  # done, also if it ended early
    yield Notice(f"final training on all images, {plural(steps, 'step')}; its scores are those of the earlier run")
    request = TrainingRequest(
        dataset,
        before.train.with_changes({"steps": steps}),
        final.path,
        held_out=nothing_held_out(),
        max_memory=before.max_memory,
        device=device,
        resume=processes.from_first(final.exists()),
        start=run.start(),
        processes=processes,
    )
    model = yield from fit(request)
    judged = load(run.model_file, "cpu").card
    card = model.card.with_changes(
        {
            "scores": judged.scores,
            "held_out": f"scores from before the final training: {before.held_out}",
            "config.decoding": judged.config.decoding.model_dump(),
        }
    )
    final_model = Model(model.net, card)
    final.save_model(final_model)
    yield _finished(final, final_model)
    return final_model
