"""fit(): the training loop, readable from top to bottom."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

from septum.config import Decoding, TrainConfig
from septum.core.normalize import mean_normalization
from septum.data.dataset import Dataset
from septum.errors import ConfigError, DatasetError
from septum.machine.memory import limit_gpu, without_cached_memory
from septum.model.model import Model, ModelCard, load
from septum.training.memory import patches_text, smaller_step
from septum.training.patches import Images, prepare
from septum.training.probe import begin_run
from septum.training.processes import Processes
from septum.training.records import Changed, EndedEarly, Notice, Planned, Record, StepDone, Validated
from septum.training.request import TrainingRequest
from septum.training.run import RunConfig, RunFolder
from septum.training.schedule import CHECKPOINT_SECONDS, few_steps
from septum.training.score import SCORE_NAMES
from septum.training.step import State, new_state, train_step
from septum.training.validate import choose_decoding, predictions
from septum.words import plural

OVERTIME = 1.12  # a run that would take more than this share of its budget is ended early
COLLAPSED_STEPS = 25  # with the same answer for every pixel, after which training starts again


def fit(request: TrainingRequest) -> Generator[Record, None, Model]:
    """Train a network; yields records, returns the best model.

    Closing the generator (``.close()``) saves a checkpoint first. With `resume` the training continues, and ends in the
    same weights, bit for bit on the same kind of CPU and number of threads, as one that was never stopped.

    Raises
    ------
    ConfigError
        If the folder already contains a run, or there are neither steps nor a budget.
    DatasetError
        If the data of a resumed run have changed, or nothing is annotated.
    """
    dataset, held_out, device, processes = request.dataset, request.held_out, request.device, request.processes
    request = replace(request, begin=processes.from_first(request.begin))
    run = RunFolder(Path(request.folder), processes.writes)
    if processes.from_first(run.exists()) and not request.resume:
        raise ConfigError(f"{run.path} already contains a run; continue it with --resume or choose another --output")
    settings = run.config() if request.resume else None
    if settings:
        run.check_data(dataset.hashes)
        request = replace(request, config=settings.train, start=run.start())
        if settings.max_memory is not None and device.type == "cuda":
            limit_gpu(settings.max_memory, device)
    _check_shares(request.config, processes)
    images = prepare(dataset, request.config, held_out, device)
    if not images:
        raise DatasetError("no pixel of the training images is annotated; check the ignore masks and labels")
    if settings is None:
        settings = begin_run(request, images)
        run.create(settings, request.start)
    config, start = settings.train, request.start
    state = new_state(config, device, start)
    if request.resume and (saved := run.load_checkpoint()):
        state.load(*saved)
    run.rewind_log(state.step)
    yield Planned(settings, settings.steps, state.step)
    warning = few_steps(settings.steps, settings.budget, settings.step_seconds)
    if warning and not request.resume and start is None:  # weights of a model learn from fewer
        yield Notice(warning)

    begin = processes.clock() - state.seconds if request.resume else request.begin
    pace_begin, pace_step = processes.clock(), state.step
    ended = processes.from_first(run.early_end(state.step) is not None)
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
            records.append(EndedEarly(state.step, steps, state.seconds, config.schedule == "cosine"))
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
            best = not scores or scores["score"] >= state.best  # on a tie, the later one, which has learned more
            if best:
                state.best = scores.get("score", state.best)
                run.save_model(Model(state.average, _card(settings, decoding, dataset, images, scores, state.step)))
            if scores:
                run.log({"step": state.step, "validation": scores})
                records.append(Validated(state.step, scores, best, SCORE_NAMES[config.kind]))
        overdue = settings.step_seconds is None and now - saved_at > CHECKPOINT_SECONDS  # without a probe
        if last or overdue or state.step % settings.checkpoint_every == 0:
            run.save_checkpoint(state.tensors(), state.numbers())
            saved_at = now
        try:
            yield from records  # all work of this step is done: here the caller may stop
        except GeneratorExit:
            run.save_checkpoint(state.tensors(), state.numbers())
            raise
    processes.from_first(None)  # the model is written
    del state, images
    return load(run.model_file, device)


def trouble_of(state: State, loss: float) -> str | None:
    """Say what is wrong with a training, if anything."""
    if not math.isfinite(loss):
        return f"the loss became {loss} at step {state.step}"
    if state.collapsed_steps >= COLLAPSED_STEPS:
        return f"up to step {state.step}, every pixel got the same prediction for {state.collapsed_steps} steps"
    return None


def with_lower_rate(settings: RunConfig, state: State, trouble: str) -> RunConfig:
    """Return the settings with which to start again, once: a tenth of the learning rate, in the time that is left.

    Raises
    ------
    ConfigError
        If the rate was lowered before.
    """
    rate, steps = settings.train.learning_rate, settings.steps
    if "learning_rate" in settings.asked:
        raise ConfigError(
            f"{trouble}; set a learning rate below {rate:g}, the one last tried, with --set learning_rate=..."
        )
    if settings.budget is not None:
        steps = max(1, round(steps * (1 - state.seconds / settings.budget)))
    why = f"{trouble}; starting again with a tenth of the learning rate, {rate / 10:g}, for {plural(steps, 'step')}"
    return settings.lowered({"learning_rate": rate / 10, "steps": steps}, why)


def with_less_memory(settings: RunConfig, state: State, error: Exception, processes: Processes) -> RunConfig:
    """Return the settings with which to continue after a step that ran out of memory.

    Raises
    ------
    Exception
        The error itself if it is not about memory.
    ConfigError
        If nothing can be made smaller, or there are several processes, of which only one ran out.
    """
    train = smaller_step(settings.train, error)
    if processes.count > 1:
        raise ConfigError(
            f"memory ran out at step {state.step + 1}; with several processes, start a new run with smaller steps: "
            f"--set batch={train.batch} --set patch={train.patch}"
        ) from None
    sizes = {"batch": train.batch, "patch": train.patch}
    why = f"memory ran out at step {state.step + 1}; continuing with {patches_text(train)} per step"
    return settings.lowered(sizes, why)


def _check_shares(config: TrainConfig, processes: Processes) -> None:
    if config.batch < processes.count:
        raise ConfigError(
            f"a batch of {config.batch} is too small for {processes.count} processes; "
            f"give each process a patch per step with --set batch={processes.count}"
        )


def budget_is_gone(settings: RunConfig, state: State) -> bool:
    """Whether the run will exceed its budget by far, as on a machine that has become busy."""
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
