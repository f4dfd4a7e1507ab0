"""How a training starts: memory and time are probed, and the settings that they allow are written down."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial

import torch

from septum.config import TrainConfig
from septum.core.layout import OVERHEAD
from septum.core.unet import margin
from septum.errors import ConfigError
from septum.machine.memory import limit_gpu, measured_peak, resident, trim_heap, without_cached_memory
from septum.model.versions import versions
from septum.training.holdout import HoldOut, largest, pixels_of
from septum.training.memory import (
    fit_memory,
    libraries_bytes,
    patches_text,
    smaller_step,
    state_bytes,
    step_bytes,
    tile_memory,
)
from septum.training.patches import Images
from septum.training.request import TrainingRequest
from septum.training.run import RunConfig
from septum.training.schedule import Probe, Schedule, plan_steps
from septum.training.step import State, determinism_slowdown, new_state, train_step
from septum.training.validate import Part, bytes_kept, choose_decoding, pooled_scores, predictions


def begin_run(request: TrainingRequest, images: Images) -> RunConfig:
    """Probe memory and time with steps that leave no trace, and return the settings that they allow."""
    if request.config.steps is None and request.budget is None:
        raise ConfigError("the training needs a length; give a budget, such as 20min, or a number of steps")
    if request.max_memory is not None and request.processes.count > 1:
        raise ConfigError(
            "--max-memory limits a single process; with several, leave it out "
            "and use smaller patches with --set patch=N"
        )
    trim_heap()
    needs = MemoryNeeds.of(request)
    trial = Trial(request, images, largest(request.held_out, request.dataset), needs.tile)
    config = within_memory(trial, needs)
    config, schedule = within_time(trial, config)
    settings = RunConfig(
        train=request.config.with_changes({"steps": schedule.steps}),
        budget=request.budget,
        max_memory=request.max_memory,
        tile_memory=needs.tile,
        deterministic=slowdown(trial, config),
        source=request.source,
        held_out=request.held_out.description,
        data=request.dataset.hashes,
        device=request.device.type,
        threads=torch.get_num_threads(),
        versions=versions(),
        **{name: value for name, value in asdict(schedule).items() if name != "steps"},
    )
    if config == request.config:
        return settings
    why = f"to fit into memory, a step has {patches_text(config)} instead of {patches_text(request.config)}"
    return settings.lowered({"batch": config.batch, "patch": config.patch}, why)


@dataclass(frozen=True)
class MemoryNeeds:
    """Bytes that a training takes beside the arrays of its steps."""

    held: int  # by the process, before the first step
    libraries: int  # loaded by the first step
    state: int  # weights, gradients, optimiser
    kept: int  # predictions of the other held-out images, while one is predicted
    tile: int  # of a prediction
    predicts: bool  # whether anything is held out

    @classmethod
    def of(cls, request: TrainingRequest) -> MemoryNeeds:
        """Measure what is held and count the rest."""
        dataset, config, held_out = request.dataset, request.config, request.held_out
        libraries = libraries_bytes()
        held, state = resident() if request.device.type == "cpu" else 0, state_bytes(config)
        kept = bytes_kept(held_out, dataset, config) - bytes_kept(largest(held_out, dataset), dataset, config)
        shapes = [dataset.samples[index].labels.shape for index in held_out.blocks]
        tile = tile_memory(request.max_memory, (request.max_memory or 0) - held - state - kept, config.unet, shapes)
        return cls(held, libraries, state, kept, tile, bool(shapes))

    def counted(self, config: TrainConfig) -> int:
        """Bytes that a training with steps of this size is expected to hold."""
        tile = self.tile - OVERHEAD // 2 if self.predicts else 0  # the rest of it is counted among the libraries
        return self.held + self.state + self.libraries + max(step_bytes(config), tile) + self.kept


@dataclass(frozen=True)
class Trial:
    """The parts of a training, to be tried out; the largest held-out image stands for all of them."""

    request: TrainingRequest
    images: Images
    held_out: HoldOut  # the largest image only
    tile_memory: int

    def new_state(self, config: TrainConfig) -> State:
        return new_state(config, self.request.device, self.request.start)

    def step(self, state: State, config: TrainConfig, number: int) -> None:
        state.step = number
        train_step(state, self.images, config, 1000, self.request.processes)

    def predict(self, state: State, config: TrainConfig) -> list[Part]:
        with without_cached_memory(self.request.max_memory):
            return list(predictions(state.average, config, self.request.dataset, self.held_out, self.tile_memory))

    def score(self, parts: list[Part], config: TrainConfig) -> None:
        with without_cached_memory(self.request.max_memory):
            choose_decoding(parts, config, self.request.dataset)

    def peak(self, config: TrainConfig) -> int:
        """Bytes that the process needs at most in a training with steps of this size."""
        return measured_peak(partial(self._take_memory, config))

    def _take_memory(self, config: TrainConfig) -> None:
        """All that takes memory: a step, one with all that the optimiser keeps, a validation, and a step after it."""
        state, dataset = self.new_state(config), self.request.dataset
        for number in range(2):
            self.step(state, config, number)
        with without_cached_memory(self.request.max_memory):
            parts = predictions(state.average, config, dataset, self.held_out, self.tile_memory)
            pooled_scores(parts, config.decoding, config, dataset)
        self.step(state, config, 2)


def within_memory(trial: Trial, needs: MemoryNeeds) -> TrainConfig:
    """Return the settings with patches and a batch that stay within the memory limit.

    On a GPU as they are: there a step that does not fit fails, and the next ones are made smaller.
    """
    request, limit = trial.request, trial.request.max_memory
    if limit is None:
        return request.config
    if request.device.type == "cuda":
        limit_gpu(limit, request.device)
        return request.config
    return fit_memory(request.config, limit, lambda config: trial.peak(config) + needs.kept, needs.counted)


def within_time(trial: Trial, config: TrainConfig) -> tuple[TrainConfig, Schedule]:
    """Plan the steps that fit into the budget; while a step runs out of memory, with smaller steps."""
    request = trial.request
    while True:
        state = trial.new_state(config)
        probe = Probe(
            step=partial(trial.step, state, config),
            predict=partial(trial.predict, state, config),
            score=partial(trial.score, config=config),
            predicted=_times(trial, margin(config.unet.depth)),
            scored=_times(trial, 0),
        )
        budget = None if config.steps else request.budget
        try:
            spent = request.processes.clock() - request.begin
            return config, plan_steps(config.steps, budget, spent, probe, request.processes.clock)
        except (MemoryError, RuntimeError) as error:
            smaller = smaller_step(config, error)
            if request.processes.count > 1:
                raise
            config = smaller


def _times(trial: Trial, context: int) -> float:
    """How many times as many pixels all held-out images have as the largest one, each with its surroundings."""
    dataset = trial.request.dataset
    return pixels_of(trial.request.held_out, dataset, context) / max(1, pixels_of(trial.held_out, dataset, context))


def slowdown(trial: Trial, config: TrainConfig) -> float | None:
    """Return how many times as long a step takes if PyTorch was asked to be deterministic; otherwise None."""
    if not torch.are_deterministic_algorithms_enabled():
        return None
    if trial.request.device.type != "cuda":
        return 1.0  # on a CPU a training is deterministic anyway
    return determinism_slowdown(partial(trial.step, trial.new_state(config), config))
