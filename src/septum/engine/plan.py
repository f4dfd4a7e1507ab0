"""From a budget of time to a number of steps, and from a recipe to the settings of a training."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from septum.config import AugmentConfig, TrainConfig, UNetConfig, WeightMapConfig
from septum.core.objects import smallest_inner_object
from septum.data.dataset import Dataset

VALIDATIONS = 20  # per run, fewer if they took more than a tenth of the budget
CHECKPOINT_SECONDS = 30.0
PROBE_STEPS = 4


@dataclass(frozen=True)
class Schedule:
    """When what happens, in steps."""

    steps: int
    validate_every: int
    checkpoint_every: int
    log_every: int
    step_seconds: float | None


def recipe(name: str, dataset: Dataset, device: torch.device) -> TrainConfig:
    """Return the settings of a recipe for a data set.

    ``paper``: the paper's network and training to the letter; learning rate and schedule are ours, since the paper
    does not state them (docs/baseline.md). ``fast``: the same network family, narrower on a CPU, trained with Adam.
    """
    target: Literal["border", "classes"] = "border" if dataset.kind == "instances" else "classes"
    classes = dataset.n_classes if target == "classes" else 2
    if name == "paper":
        return TrainConfig(
            recipe="paper",
            target=target,
            unet=UNetConfig(in_channels=dataset.channels, n_classes=classes),
            augment=AugmentConfig(),
            optimizer="sgd",
            momentum=0.99,
            learning_rate=1e-4,
            schedule="constant",
            patch=388,
            batch=1,
        )
    shortest = min(min(sample.labels.shape) for sample in dataset.samples)
    objects = [smallest_inner_object(sample.labels) for sample in dataset.samples] if target == "border" else []
    return TrainConfig(
        recipe="fast",
        target=target,
        unet=UNetConfig(
            in_channels=dataset.channels,
            n_classes=classes,
            base_channels=16 if device.type == "cpu" else 64,
            dropout=0.0,
        ),
        # Eq. 2 makes much of the background between cells: they need their share; plain classes are best left alone.
        weight_map=WeightMapConfig(balance="frequency" if target == "border" else "none"),
        optimizer="adam",
        learning_rate=1e-3,
        schedule="cosine",
        weight_average=0.99,
        patch=164 if shortest < 400 else 388,
        smallest_object=min((size for size in objects if size), default=0) // 4,
        batch=1,
    )


def plan_steps(
    steps: int | None,
    budget: float | None,
    spent: float,
    probe_step: Callable[[int], object],
    probe_validation: Callable[[], object] | None,
) -> Schedule:
    """Turn a budget in seconds into a schedule, or lay out a given number of steps.

    The budget is probed with a few steps and one validation, whose results are thrown away by the caller.
    `spent` seconds of the budget are gone already.
    """
    begin = time.perf_counter()
    step_seconds = None
    if steps is None:
        assert budget is not None
        probe_step(0)  # the first step pays for allocations
        start = time.perf_counter()
        for step in range(1, PROBE_STEPS + 1):
            probe_step(step)
        step_seconds = (time.perf_counter() - start) / PROBE_STEPS
        start = time.perf_counter()
        if probe_validation:
            probe_validation()
        validation_seconds = time.perf_counter() - start
        left = budget - spent - (time.perf_counter() - begin)
        validations = (
            max(2, min(VALIDATIONS, int(0.1 * left / max(validation_seconds, 1e-3)))) if probe_validation else 0
        )
        steps = max(1, int((left - validations * validation_seconds) / step_seconds * 0.97))
    else:
        validations = VALIDATIONS if probe_validation else 0
    log_every = max(1, steps // 200)
    every_seconds = max(1, round(CHECKPOINT_SECONDS / step_seconds)) if step_seconds else max(1, steps // 20)
    return Schedule(
        steps=steps,
        validate_every=max(1, steps // validations) if validations else steps,
        checkpoint_every=min(steps, every_seconds),
        log_every=log_every,
        step_seconds=step_seconds,
    )
