"""From a budget of time to a number of steps, and what happens at which of them."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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
