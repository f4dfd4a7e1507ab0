"""fit(): one loop, readable from top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from pathlib import Path

import torch

from septum.config import DataSource, Decoding, TrainConfig
from septum.core.normalize import mean_normalization
from septum.data.dataset import Dataset
from septum.errors import ConfigError, DatasetError
from septum.machine.memory import limit_gpu, without_cached_memory
from septum.model.model import Model, ModelCard, load
from septum.training.holdout import HoldOut
from septum.training.memory import smaller
from septum.training.patches import Images, prepare
from septum.training.probe import begin_run
from septum.training.processes import ALONE, Processes
from septum.training.records import Changed, EndedEarly, Planned, Record, StepDone, Validated
from septum.training.run import RunConfig, RunFolder
from septum.training.schedule import CHECKPOINT_SECONDS
from septum.training.score import SCORE_NAMES
from septum.training.step import State, new_state, train_step
from septum.training.validate import choose_decoding, predictions

OVERTIME = 1.12  # a run that would take more than this share of its budget is ended early
DEAD_STEPS = 25  # after so many with the same answer for every pixel a network is given up


def fit(
    dataset: Dataset,
    config: TrainConfig,
    folder: str | Path,
    *,
    held_out: HoldOut,
    budget: float | None = None,
    device: torch.device | str = "cpu",
    resume: bool = False,
    start: Model | None = None,
    source: DataSource | None = None,
    max_memory: int | None = None,
    begin: float | None = None,
    processes: Processes = ALONE,
) -> Generator[Record, None, Model]:
    """Train a network; yields records, returns the best model.

    Closing the generator (``.close()``) saves a checkpoint first; with `resume` the training goes on and ends in the
    same weights, bit for bit on the same kind of CPU and number of threads, as one that was never stopped.

    Parameters
    ----------
    dataset : Dataset
        Annotated images.
    config : TrainConfig
        Everything that decides the weights; `steps` may be None if there is a budget.
    folder : path
        Of the run: config.json, log.jsonl, checkpoint.safetensors, model.safetensors.
    held_out : HoldOut
        What is judged and not trained on.
    budget : float, optional
        Seconds. Turned into a number of steps by a short probe, written down before the first step.
    device : torch.device
    resume : bool
        Go on with the run in `folder`.
    start : Model, optional
        Begin with the weights of this model.
    source : DataSource, optional
        Where the data set was read from: kept in config.json for the report.
    max_memory : int, optional
        Bytes that the process may hold (on a GPU: of its memory). Patches and batches are made smaller until they fit.
    begin : float, optional
        When the budget began, by `time.perf_counter`; by default now.
    processes : Processes
        Those that share the work, all with the same arguments. The first one writes; all of them read the folder.

    Raises
    ------
    ConfigError
        If the folder holds a run already, or there are neither steps nor a budget.
    DatasetError
        If the data of a resumed run have changed, or nothing is annotated.
    """
    begin = processes.told(time.perf_counter() if begin is None else begin)
    run, device = RunFolder(Path(folder), processes.writes), torch.device(device)
    if processes.told(run.exists()) and not resume:
        raise ConfigError(f"{run.path} already holds a run; go on with it by --resume or choose another --output")
    settings = run.config() if resume else None
    if settings:
        config, start = settings.train, load(run.start_file) if run.start_file.exists() else None
        run.check_data(dataset.hashes)
        if settings.max_memory is not None and device.type == "cuda":
            limit_gpu(settings.max_memory, device)
    _check_shares(config, processes)
    images = prepare(dataset, config, held_out, device)
    if not images:
        raise DatasetError("no pixel of the training images is annotated; check the ignore masks and labels")
    if settings is None:
        settings = begin_run(
            dataset, config, held_out, budget, max_memory, images, device, start, begin, source, processes
        )
        run.create(settings, start)
        config = settings.train
    state = new_state(config, device, start)
    if resume and (saved := run.load_checkpoint()):
        state.load(*saved)
    run.rewind_log(state.step)
    yield Planned(settings, settings.steps, state.step)

    begin = processes.clock() - state.seconds if resume else begin
    pace_begin, pace_step = processes.clock(), state.step
    ended = processes.told(run.ended_early(state.step))
    saved_at = processes.clock()
    while state.step < settings.steps and not ended:
        changed = None
        try:
            loss = train_step(state, images, config, settings.steps, processes)
        except (MemoryError, RuntimeError) as error:
            changed = with_less_memory(settings, state, error, processes)
        else:
            state.step += 1
            state.losses += (loss,)
            now = processes.clock()
            state.seconds = now - begin
            if trouble := trouble_of(state, loss):
                changed = with_lower_rate(settings, state, trouble)
                state = new_state(changed.train, device, start, state.seconds)
        if changed:
            settings, config = changed, changed.train
            run.save_checkpoint(state.tensors(), state.numbers())
            run.rewind_log(state.step)
            run.change(settings, state.step)
            pace_begin, pace_step = processes.clock(), state.step
            yield Changed(state.step, settings.changes[-1])
            continue
        steps = settings.steps
        pace = (now - pace_begin) / (state.step - pace_step)
        records: list[Record] = [StepDone(state.step, steps, loss, pace * (steps - state.step))]
        if budget_is_gone(settings, state) and state.step < steps:
            ended = True
            records.append(EndedEarly(state.step, steps, state.seconds))
            run.log({"step": state.step, "ended_early": True, "seconds": round(state.seconds, 2)})
        last = ended or state.step == steps
        if last or state.step % settings.log_every == 0:
            mean, rate = sum(state.losses) / len(state.losses), state.optimizer.param_groups[0]["lr"]
            run.log({"step": state.step, "loss": mean, "learning_rate": rate, "seconds": round(state.seconds, 2)})
            state.losses = ()
        if last or state.step % settings.validate_every == 0:
            with without_cached_memory(settings.max_memory):
                parts = predictions(state.average, config, dataset, held_out, settings.tile_memory)
                decoding, scores = choose_decoding(parts, config, dataset)
            best = not scores or scores["score"] >= state.best  # of equal ones the later, which has learned more
            if best:
                state.best = scores.get("score", state.best)
                run.save_model(Model(state.average, _card(settings, decoding, dataset, images, scores, state.step)))
            if scores:
                run.log({"step": state.step, "validation": scores})
                records.append(Validated(state.step, scores, best, SCORE_NAMES[config.kind]))
        overdue = settings.step_seconds is None and now - saved_at > CHECKPOINT_SECONDS  # no step was timed before
        if last or overdue or state.step % settings.checkpoint_every == 0:
            run.save_checkpoint(state.tensors(), state.numbers())
            saved_at = now
        try:
            yield from records  # all work of this step is done: here the caller may stop
        except GeneratorExit:
            run.save_checkpoint(state.tensors(), state.numbers())
            raise
    processes.told(None)  # the model is written
    del state, images
    return load(run.model_file, device)


def trouble_of(state: State, loss: float) -> str | None:
    """What is wrong with a training, if anything."""
    if not math.isfinite(loss):
        return f"the loss became {loss} at step {state.step}"
    if state.blind >= DEAD_STEPS:
        return f"up to step {state.step} the network gave every pixel the same answer for {state.blind} steps"
    return None


def with_lower_rate(settings: RunConfig, state: State, trouble: str) -> RunConfig:
    """Return the settings with which to begin again, once: a tenth of the learning rate, in the time that is left.

    Raises
    ------
    ConfigError
        If the rate was lowered before.
    """
    rate, steps = settings.train.learning_rate, settings.steps
    if "learning_rate" in settings.asked:
        raise ConfigError(
            f"{trouble}; lower the learning rate (now {rate:g}, a tenth of what was asked for) with "
            "--set learning_rate=..."
        )
    if settings.budget is not None:
        steps = max(1, round(steps * (1 - state.seconds / settings.budget)))
    why = f"{trouble}; begun again with a tenth of the learning rate, {rate / 10:g}, for {steps} steps"
    return settings.lowered({"learning_rate": rate / 10, "steps": steps}, why)


def with_less_memory(settings: RunConfig, state: State, error: Exception, processes: Processes) -> RunConfig:
    """Return the settings with which to go on after a step that found too little memory.

    Raises
    ------
    Exception
        The error itself if it is not about memory.
    ConfigError
        If nothing can be made smaller, or one of several processes is in need and the others are not.
    """
    train = smaller(settings.train, error)
    if processes.count > 1:
        raise ConfigError(
            f"memory ran out at step {state.step + 1}; with several processes begin anew with less for each: "
            f"--set batch={train.batch} --set patch={train.patch}"
        ) from None
    sizes = {"batch": train.batch, "patch": train.patch}
    size = f"{train.batch} patch{'es' if train.batch > 1 else ''} of {train.patch} pixels"
    return settings.lowered(sizes, f"memory ran out at step {state.step + 1}; gone on with {size} per step")


def _check_shares(config: TrainConfig, processes: Processes) -> None:
    if config.batch < processes.count:
        raise ConfigError(
            f"the batch of {config.batch} leaves nothing to do for some of the {processes.count} processes; "
            f"give each of them a patch per step by --set batch={processes.count}"
        )


def budget_is_gone(settings: RunConfig, state: State) -> bool:
    """Whether the run is far over its budget, as on a machine that became busy."""
    return settings.budget is not None and state.seconds + settings.finish_seconds > OVERTIME * settings.budget


def _card(
    settings: RunConfig, decoding: Decoding, dataset: Dataset, images: Images, scores: dict[str, float], step: int
) -> ModelCard:
    return ModelCard(
        config=settings.train.with_changes({"decoding": decoding.model_dump()}),
        class_names=dataset.class_names,
        channels=dataset.channels,
        pixel_size=dataset.pixel_size,
        data=dataset.hashes,
        held_out=settings.held_out,
        scores=scores,
        step=step,
        brightness=mean_normalization([image.normalization for image in images]),
        versions=settings.versions,
    )
