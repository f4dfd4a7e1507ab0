"""fit(): one loop, readable from top to bottom."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from septum.config import DataSource, TrainConfig
from septum.core.decode import decode
from septum.core.loss import dice_loss
from septum.core.randomness import torch_seed
from septum.core.targets import TARGETS
from septum.core.tiling import ArraySource, Region
from septum.core.unet import UNet
from septum.data.dataset import Dataset, Sample
from septum.engine.holdout import HoldOut
from septum.engine.model import Model, ModelCard, load
from septum.engine.patches import TrainingImage, draw_batch, prepare
from septum.engine.plan import plan_steps
from septum.engine.predict import drain, segment
from septum.engine.processes import ALONE, Processes
from septum.engine.run import RunConfig, RunFolder
from septum.engine.score import ValidationImage, validation_scores
from septum.engine.versions import versions
from septum.errors import ConfigError, DatasetError

OVERTIME = 1.25  # a run that takes this much of its budget is ended early


@dataclass(frozen=True)
class Planned:
    """The run is written down and about to begin, or to go on from a step."""

    run: RunConfig
    steps: int
    step: int


@dataclass(frozen=True)
class StepDone:
    """One step of training."""

    step: int
    steps: int
    loss: float
    eta: float  # seconds


@dataclass(frozen=True)
class Validated:
    """The scores on what is held out."""

    step: int
    scores: dict[str, float]
    best: bool


@dataclass(frozen=True)
class EndedEarly:
    """The clock forced an end before the planned number of steps."""

    step: int
    steps: int
    seconds: float


Record = Planned | StepDone | Validated | EndedEarly


@dataclass
class State:
    """What a training consists of between two steps."""

    net: UNet
    average: UNet  # exponential average of the weights, or the same network
    optimizer: torch.optim.Optimizer
    step: int = 0
    best: float = -math.inf
    seconds: float = 0.0
    losses: tuple[float, ...] = ()  # since the last line of the log

    def tensors(self) -> dict[str, torch.Tensor]:
        """All tensors that a continued training needs."""
        tensors = {f"net.{name}": value for name, value in self.net.state_dict().items()}
        if self.average is not self.net:
            tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        for number, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": value for name, value in values.items() if value is not None}
        return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}

    def load(self, tensors: dict[str, torch.Tensor], numbers: dict[str, Any]) -> None:
        """Continue from what `tensors` and `numbers` returned."""
        for prefix, net in (("net.", self.net), ("average.", self.average)):
            part = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
            if part:
                net.load_state_dict(part)
        states: dict[int, dict[str, torch.Tensor]] = {}
        parameters = list(self.net.parameters())
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, number, key = name.split(".", 2)
                like = parameters[int(number)]
                if value.shape == like.shape:  # a fused optimiser takes them to lie in memory as the weights do
                    value = torch.empty_like(like, requires_grad=False).copy_(value)
                states.setdefault(int(number), {})[key] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": states, "param_groups": groups})
        self.step, self.seconds = numbers["step"], numbers["seconds"]
        self.best = -math.inf if numbers["best"] is None else numbers["best"]
        self.losses = tuple(numbers["losses"])

    def numbers(self) -> dict[str, Any]:
        """All numbers that a continued training needs."""
        best = None if math.isinf(self.best) else self.best
        return {"step": self.step, "seconds": self.seconds, "best": best, "losses": list(self.losses)}


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
    processes : Processes
        Those that share the work, all with the same arguments. The first one writes; all of them read the folder.

    Raises
    ------
    ConfigError
        If the folder holds a run already, or there are neither steps nor a budget.
    DatasetError
        If the data of a resumed run have changed, or nothing is annotated.
    """
    begin = processes.clock()
    run, device = RunFolder(Path(folder), processes.writes), torch.device(device)
    if processes.told(run.exists()) and not resume:
        raise ConfigError(f"{run.path} already holds a run; go on with it by --resume or choose another --output")
    settings = run.config() if resume else None
    if settings:
        config = settings.train
        if settings.data != dataset.hashes:
            raise DatasetError(f"the images or labels are not those that {run.path} was begun with; begin a new run")
    _check_shares(config, processes)
    images = prepare(dataset, config, held_out, device)
    if not images:
        raise DatasetError("no pixel of the training images is annotated; check the ignore masks and labels")
    state = new_state(config, device, start)
    if settings is None:
        settings = _plan(dataset, config, held_out, budget, images, state, begin, source, processes)
        run.create(settings)
        state = new_state(config, device, start)  # the probe's steps are thrown away
        config = settings.train
        if start is not None:  # a resumed run shall not need the model that it began with
            run.save_checkpoint(state.tensors(), state.numbers())
    elif saved := run.load_checkpoint():
        state.load(*saved)
    run.rewind_log(state.step)
    steps = config.steps
    assert steps is not None
    yield Planned(settings, steps, state.step)

    begin -= state.seconds
    pace_begin, pace_step = processes.clock(), state.step
    ended = False
    while state.step < steps and not ended:
        loss = train_step(state, images, config, steps, processes)
        state.step += 1
        state.losses += (loss,)
        now = processes.clock()
        state.seconds = now - begin
        if not math.isfinite(loss):
            raise ConfigError(
                f"the loss became {loss} at step {state.step}; lower the learning rate (now {config.learning_rate}) "
                "with --set learning_rate=..."
            )
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
            scores = validate(state.average, config, dataset, held_out)
            best = not scores or scores["score"] >= state.best  # of equal ones the later, which has learned more
            if best:
                state.best = scores.get("score", state.best)
                run.save_model(Model(state.average, _card(settings, dataset, scores, state.step)))
            if scores:
                run.log({"step": state.step, "validation": scores})
                records.append(Validated(state.step, scores, best))
        if last or state.step % settings.checkpoint_every == 0:
            run.save_checkpoint(state.tensors(), state.numbers())
        try:
            yield from records  # all work of this step is done: here the caller may stop
        except GeneratorExit:
            run.save_checkpoint(state.tensors(), state.numbers())
            raise
    processes.told(None)  # the model is written
    model = load(run.model_file, device)
    if config.kind == "instances" and not any("decoding" in record for record in run.records()):
        model, chosen = with_chosen_decoding(model, dataset, held_out)
        if chosen is not None:
            run.save_model(model)
            run.log({"step": state.step, "decoding": model.card.config.decoding.model_dump(), "validation": chosen})
            yield Validated(state.step, chosen, best=True)
    return model


def train_step(
    state: State, images: list[TrainingImage], config: TrainConfig, steps: int, processes: Processes = ALONE
) -> float:
    """Take one step: draw, predict, compare, change the weights. Returns the loss."""
    samples = range(processes.rank, config.batch, processes.count)
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(config, state.step, steps)
    batch = draw_batch(images, config, state.step, samples)
    seeds = [torch_seed(config.seed, state.step, f"dropout of sample {sample}") for sample in samples]
    with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
        logits = state.net.train()(batch.images.contiguous(memory_format=memory_format(config)), seeds)
    logits = logits.float()
    loss = TARGETS[config.target].loss(logits, batch.classes, batch.weights, config.loss_normalization, processes.sum)
    if config.dice:
        loss = loss + config.dice * dice_loss(logits, batch.classes, batch.weights, processes.sum)
    state.optimizer.zero_grad()
    loss.backward()
    processes.sum_gradients(state.net)
    state.optimizer.step()
    if state.average is not state.net:
        keep = min(config.weight_average, (1 + state.step) / (10 + state.step))  # follow closely at first
        with torch.no_grad():
            torch._foreach_lerp_(list(state.average.parameters()), list(state.net.parameters()), 1 - keep)
    result: float = loss.item()
    return result


def memory_format(config: TrainConfig) -> torch.memory_format:
    """Channels last where convolutions run in bfloat16, for which that is the faster order."""
    return torch.channels_last if config.precision == "bfloat16" else torch.contiguous_format


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """Learning rate of a step: a linear rise over the warm-up, then constant or a cosine to zero.

    Examples
    --------
    >>> from septum.config import UNetConfig
    >>> config = TrainConfig(unet=UNetConfig(), learning_rate=1.0, warmup=0.1)
    >>> [round(learning_rate(config, step, 100), 2) for step in (0, 4, 9, 55, 99)]
    [0.1, 0.5, 1.0, 0.5, 0.0]
    """
    warmup = config.warmup * steps
    if step < warmup:
        return config.learning_rate * (step + 1) / max(1.0, warmup)
    if config.schedule == "constant":
        return config.learning_rate
    progress = (step - warmup) / max(1.0, steps - warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def validate(net: UNet, config: TrainConfig, dataset: Dataset, held_out: HoldOut) -> dict[str, float]:
    """Scores on what is held out, pooled over it; empty if nothing is."""
    net.eval()
    images = []
    for index, block in held_out.blocks.items():
        sample = dataset.samples[index]
        predicted = drain(segment(net, config, ArraySource(sample.image))).labels
        images.append(ValidationImage(predicted[block], *_truth(sample, block)))
    return validation_scores(images, dataset.kind, dataset.n_classes) if images else {}


SEEDS = (0.5, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9)  # thresholds that are tried; of equally good ones the first
FOREGROUNDS = (0.5, 0.3, 0.4, 0.6, 0.7)


def with_chosen_decoding(model: Model, dataset: Dataset, held_out: HoldOut) -> tuple[Model, dict[str, float] | None]:
    """Choose the thresholds of the decoder on what is held out; the model with them, and its scores.

    The same model and None if nothing is held out, or nothing is there to find.
    """
    config, parts = model.card.config, []
    for index, block in held_out.blocks.items():
        sample = dataset.samples[index]
        probabilities = drain(segment(model.net, config, ArraySource(sample.image))).probabilities
        parts.append((probabilities, sample, block))
    best: dict[str, float] = {}
    decoding = config.decoding
    for seed, foreground in itertools.product(SEEDS, FOREGROUNDS):
        tried = config.decoding.with_changes({"seed": seed, "foreground": foreground})
        images = [
            ValidationImage(decode(config.target, chances, tried)[block], *_truth(sample, block))
            for chances, sample, block in parts
        ]
        scores = validation_scores(images, dataset.kind, dataset.n_classes) if images else {}
        if scores and scores["score"] > best.get("score", -math.inf):
            best, decoding = scores, tried
    if not best:
        return model, None
    card = model.card.with_changes({"config.decoding": decoding.model_dump(), "scores": best})
    return Model(model.net, card), best


def _truth(sample: Sample, block: Region) -> tuple[np.ndarray, np.ndarray | None]:
    return sample.labels[block], None if sample.ignore is None else sample.ignore[block]


def _check_shares(config: TrainConfig, processes: Processes) -> None:
    if config.batch < processes.count:
        raise ConfigError(
            f"the batch of {config.batch} leaves nothing to do for some of the {processes.count} processes; "
            f"give each of them a patch per step by --set batch={processes.count}"
        )


def budget_is_gone(settings: RunConfig, state: State) -> bool:
    """Whether the run is far over its budget, as on a machine that became busy."""
    return settings.budget is not None and state.seconds > OVERTIME * settings.budget


def new_state(config: TrainConfig, device: torch.device, start: Model | None = None) -> State:
    """Begin: weights drawn by the seed, or those of a model."""
    net = UNet(config.unet, config.seed)
    if start is not None:
        net.load_state_dict(start.net.state_dict())
    net = net.to(device).to(memory_format=memory_format(config))  # type: ignore[call-overload]
    average = copy.deepcopy(net) if config.weight_average else net
    optimizer: torch.optim.Optimizer
    if config.optimizer == "sgd":
        optimizer = torch.optim.SGD(
            net.parameters(), config.learning_rate, config.momentum, weight_decay=config.weight_decay, fused=True
        )
    else:
        optimizer = torch.optim.AdamW(
            net.parameters(),
            config.learning_rate,
            betas=(config.momentum, 0.999),
            weight_decay=config.weight_decay,
            fused=True,
        )
    return State(net, average, optimizer)


def _plan(
    dataset: Dataset,
    config: TrainConfig,
    held_out: HoldOut,
    budget: float | None,
    images: list[TrainingImage],
    state: State,
    begin: float,
    source: DataSource | None,
    processes: Processes,
) -> RunConfig:
    if config.steps is None and budget is None:
        raise ConfigError("how long to train is not said; give --budget such as 20min, or --steps")

    def probe_step(step: int) -> None:
        state.step = step
        train_step(state, images, config, 1000, processes)

    def probe_validation() -> None:
        validate(state.average, config, dataset, held_out)

    schedule = plan_steps(
        config.steps,
        budget if config.steps is None else None,
        processes.clock() - begin,
        probe_step,
        probe_validation if held_out.blocks else None,
        processes.clock,
    )
    plan = asdict(schedule)
    return RunConfig(
        train=config.with_changes({"steps": plan.pop("steps")}),
        budget=budget,
        source=source,
        held_out=held_out.description,
        data=dataset.hashes,
        device=images[0].image.device.type,
        threads=torch.get_num_threads(),
        versions=versions(),
        **plan,
    )


def _card(settings: RunConfig, dataset: Dataset, scores: dict[str, float], step: int) -> ModelCard:
    return ModelCard(
        config=settings.train,
        class_names=dataset.class_names,
        channels=dataset.channels,
        pixel_size=dataset.pixel_size,
        data=dataset.hashes,
        held_out=settings.held_out,
        scores=scores,
        step=step,
        versions=settings.versions,
    )
