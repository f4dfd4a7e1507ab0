"""From a budget of time to a number of steps, and from a recipe to the settings of a training."""

from __future__ import annotations

import functools
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from scipy import ndimage

from septum.config import AugmentConfig, Decoding, TrainConfig, UNetConfig, WeightMapConfig
from septum.core.objects import smallest_hole, smallest_inner_object
from septum.core.targets import TARGETS
from septum.data.dataset import Dataset, Sample
from septum.errors import ConfigError

VALIDATIONS = 20  # per run, fewer if they took more than a tenth of the budget
CHECKPOINT_SECONDS = 30.0
PROBE_STEPS = 4  # at least, after the first one
PROBE_SECONDS = 5.0  # of steps, if that is less than a twentieth of the budget
SHARE_FOR_STEPS = 0.97  # the rest is for checkpoints and models written
FEWEST_STEPS = 10


@dataclass(frozen=True)
class Schedule:
    """When what happens, in steps."""

    steps: int
    validate_every: int
    checkpoint_every: int
    log_every: int
    step_seconds: float | None
    finish_seconds: float  # from the last step to the chosen model: a validation


def recipe(name: str, dataset: Dataset, device: torch.device, changes: Mapping[str, Any] | None = None) -> TrainConfig:
    """Return the settings of a recipe for a data set, with the user's changes.

    ``paper``: the paper's network and training to the letter; learning rate and schedule are ours, since the paper
    does not state them (docs/baseline.md). ``fast``: the same network family, narrower on a CPU, normalised by image,
    trained with Adam; instances by their cores, with classes in balance; of classes the overlap counts too (Dice). Its
    settings come from a contest (benchmarks/contest.py).
    """
    changes = dict(changes or {})
    kind = dataset.kind
    instances = changes.setdefault("instances", "border" if name == "paper" else "rim")
    target = TARGETS.get("classes" if kind == "classes" else instances, TARGETS["border"])
    network = {"in_channels": dataset.channels, "n_classes": target.n_classes(dataset.n_classes - 1)}
    if name == "paper":
        config = TrainConfig(
            recipe="paper",
            kind=kind,
            unet=UNetConfig(**network),
            augment=AugmentConfig(),
            optimizer="sgd",
            momentum=0.99,
            learning_rate=1e-4,
            schedule="constant",
            patch=388,
            batch=1,
        )
    else:
        config = TrainConfig(
            recipe="fast",
            kind=kind,
            unet=UNetConfig(
                **network, base_channels=16 if device.type == "cpu" else 64, dropout=0.0, normalization="image"
            ),
            weight_map=WeightMapConfig(balance="none" if kind == "classes" else "frequency"),
            dice=1.0 if kind == "classes" else 0.0,
            decoding=_sizes(dataset.samples, target) if kind == "instances" else Decoding(),
            optimizer="adam",
            precision=fastest_precision(device),
            learning_rate=2e-3,
            schedule="cosine",
            weight_average=0.99,
            patch=260,
            batch=1,
        )
    return config.with_changes(changes)


def fastest_precision(device: torch.device) -> Literal["float32", "bfloat16"]:
    """Return bfloat16 where its convolutions are faster by half: GPUs that have it, CPUs with matrix units for it."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    return "bfloat16" if device.type == "cpu" and _gain_of_bfloat16() > 1.5 else "float32"


@functools.cache  # of this machine, so it is measured once
def _gain_of_bfloat16() -> float:
    """How many times as fast a convolution is in bfloat16 on the CPU; where it is emulated, far less than once."""

    def seconds(dtype: torch.dtype, order: torch.memory_format) -> float:
        image = torch.ones(1, 32, 192, 192, dtype=dtype).contiguous(memory_format=order)
        weight = torch.ones(32, 32, 3, 3, dtype=dtype).contiguous(memory_format=order)
        begin = time.perf_counter()
        torch.nn.functional.conv2d(image, weight)
        return time.perf_counter() - begin

    single = brief = math.inf  # the best of many, since the machine may be busy
    for tried in range(20):
        single = min(single, seconds(torch.float32, torch.contiguous_format))
        brief = min(brief, seconds(torch.bfloat16, torch.channels_last))
        if tried >= 2 and brief > single:
            break
    return single / brief


def _sizes(samples: Sequence[Sample], target: Any) -> Decoding:
    """What the training labels say about sizes.

    Debris: smaller than a quarter of the smallest object that neither the edge of its image nor that of what is
    annotated cuts. Holes: as small, and
    smaller than any hole in the labels. Reach: what the representation needs to give every object all of its pixels.
    """
    objects = [size for size in map(smallest_inner_object, map(_uncut, samples)) if size]
    debris = min(objects, default=0) // 4
    holes = [size for sample in samples if (size := smallest_hole(sample.labels))]
    return Decoding(
        smallest_object=debris,
        largest_hole=min([debris, *(size - 1 for size in holes)]),
        reach=max((target.needed_reach(sample.labels) for sample in samples), default=0),
    )


def _uncut(sample: Sample) -> np.ndarray:
    """The labels without objects beside pixels that are not annotated."""
    if sample.ignore is None:
        return sample.labels
    beside = ndimage.binary_dilation(sample.ignore, np.ones((3, 3)))
    uncut: np.ndarray = np.where(np.isin(sample.labels, sample.labels[beside]), 0, sample.labels)
    return uncut


@dataclass(frozen=True)
class Probe:
    """What a training is made of, to be tried out: a step, the prediction of what is held out, its scores."""

    step: Callable[[int], object]
    predict: Callable[[], Any]
    score: Callable[[Any], object]  # of what `predict` returned, and the choice of the decoder's thresholds
    predicted: float  # how many times what `predict` does a prediction of all that is held out takes; 0: nothing is
    scored: float  # and how many times what `score` does its scores


def plan_steps(
    steps: int | None,
    budget: float | None,
    spent: float,
    probe: Probe,
    clock: Callable[[], float] = time.perf_counter,
) -> Schedule:
    """Turn a budget in seconds into a schedule, or lay out a given number of steps.

    The budget is probed with steps for some seconds and one validation, whose results are thrown away by the caller.
    `spent` seconds of the budget are gone already.

    Raises
    ------
    ConfigError
        If the budget leaves time for no training worth the name.
    """
    begin = clock()
    step_seconds, finish_seconds = None, 0.0
    validations = VALIDATIONS if probe.predicted else 0
    if steps is None:
        assert budget is not None
        left = budget - spent
        step_seconds = _measure(probe.step, min(PROBE_SECONDS, 0.05 * left), 0.15 * left, clock)
        validation_seconds = 0.0
        if probe.predicted:
            start = clock()
            predicted = probe.predict()
            predict_seconds = probe.predicted * (clock() - start)
            score_seconds = probe.scored * _measure(lambda _: probe.score(predicted), 0.0, 0.1 * left, clock)
            validation_seconds = predict_seconds + score_seconds
            finish_seconds = validation_seconds
        spent += clock() - begin
        left = budget - spent - finish_seconds
        if probe.predicted:
            validations = max(1, min(VALIDATIONS, int(0.1 * left / max(validation_seconds, 1e-3))))
        steps = int((left - max(0, validations - 1) * validation_seconds) / step_seconds * SHARE_FOR_STEPS)
        if steps < FEWEST_STEPS:
            needed = spent + finish_seconds + FEWEST_STEPS * step_seconds / SHARE_FOR_STEPS
            raise ConfigError(
                f"a budget of {budget:.3g} s is too short: getting ready has taken {spent:.2g} s, a step takes "
                f"{step_seconds:.2g} s and the validation at the end {finish_seconds:.2g} s; "
                f"give at least {math.ceil(1.1 * needed)} s, or --steps"
            )
    every_seconds = max(1, round(CHECKPOINT_SECONDS / step_seconds)) if step_seconds else max(1, steps // 20)
    return Schedule(
        steps=steps,
        validate_every=math.ceil(steps / validations) if validations else steps,
        checkpoint_every=min(steps, every_seconds),
        log_every=max(1, steps // 200),
        step_seconds=step_seconds,
        finish_seconds=finish_seconds,
    )


def _measure(action: Callable[[int], object], at_least: float, at_most: float, clock: Callable[[], float]) -> float:
    """Median seconds of an action that is repeated for a while; the first one, which pays for allocations, is left out.

    Unless there is no time for another.
    """
    times: list[float] = []
    begin = now = clock()
    while len(times) <= PROBE_STEPS or now - begin < at_least:
        action(len(times))
        times.append(clock() - now)
        now += times[-1]
        if now - begin + min(times) > (at_most if len(times) > 1 else 3 * at_most):
            break
    return statistics.median(times[1:] or times)
