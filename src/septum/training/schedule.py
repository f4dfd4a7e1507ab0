"""From a time budget to a number of steps, and what happens at which step."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from septum.errors import ConfigError
from septum.words import duration

VALIDATIONS = 20  # per run; fewer if they would take more than a tenth of the budget
CHECKPOINT_SECONDS = 30.0
PROBE_STEPS = 4  # at least, after the first one
PROBE_SECONDS = 5.0  # of steps, if that is less than a twentieth of the budget
SHARE_FOR_STEPS = 0.97  # the rest is for checkpoints and models written
FEWEST_STEPS = 10  # a shorter plan is refused
# A shorter plan gets a warning. Measured with recipe fast on stained nuclei: F1 0.11 after 25 steps, 0.60 after 100
# (benchmarks/results/finetune.jsonl); with recipe paper on EM: V_Rand 0.44 after 19 steps, 0.84 after 90 (peers.jsonl).
ENOUGH_STEPS = 100


@dataclass(frozen=True)
class Schedule:
    """How many steps, and how often things happen between them."""

    steps: int
    validate_every: int
    checkpoint_every: int
    log_every: int
    step_seconds: float | None
    finish_seconds: float  # from the last step to the chosen model: a validation


@dataclass(frozen=True)
class Probe:
    """What takes time in a training: a step, a prediction of held-out images, and scoring it."""

    step: Callable[[int], object]
    predict: Callable[[], Any]
    score: Callable[[Any], object]  # what `predict` returned, and choose the decoder's thresholds
    predicted: float  # predicting all held-out images takes this many times as long as `predict`; 0: there are none
    scored: float  # and scoring them, as `score`


def plan_steps(
    steps: int | None,
    budget: float | None,
    spent: float,
    probe: Probe,
    clock: Callable[[], float] = time.perf_counter,
) -> Schedule:
    """Turn a budget in seconds into a schedule, or make the schedule of a given number of steps.

    A budget is probed: some seconds of steps and one validation are timed, whose results the caller throws away.
    `spent` seconds of the budget are gone already.

    Raises
    ------
    ConfigError
        If the budget is too short for FEWEST_STEPS.
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
            enough = duration(_enough(steps, budget, step_seconds))
            raise ConfigError(
                f"a budget of {budget:.3g} s is too short: setup took {spent:.2g} s, a step takes {step_seconds:.2g} s "
                f"and the validation at the end {finish_seconds:.2g} s; give at least {math.ceil(1.1 * needed)} s, "
                f"better {enough}, or --steps"
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


def few_steps(steps: int, budget: float | None, step_seconds: float | None) -> str | None:
    """Return a warning if a plan has too few steps to learn much, with a budget that is enough.

    Examples
    --------
    >>> few_steps(40, budget=30.0, step_seconds=0.5)
    '40 steps are too few to learn much; give a budget of 79 s or more, for at least 100 steps'
    >>> few_steps(40, None, None)
    '40 steps are too few to learn much; train for at least 100 steps'
    """
    if steps >= ENOUGH_STEPS:
        return None
    too_few = f"{steps} steps are too few to learn much"
    if budget is None or step_seconds is None:
        return f"{too_few}; train for at least {ENOUGH_STEPS} steps"
    enough = duration(_enough(steps, budget, step_seconds))
    return f"{too_few}; give a budget of {enough} or more, for at least {ENOUGH_STEPS} steps"


def _enough(steps: int, budget: float, step_seconds: float) -> float:
    """Seconds for enough steps, if this budget is for these; with a longer probe, and a tenth more for validations."""
    missing = (ENOUGH_STEPS - steps + PROBE_STEPS) * step_seconds / SHARE_FOR_STEPS
    return (budget + missing) / 0.8


def _measure(action: Callable[[int], object], at_least: float, at_most: float, clock: Callable[[], float]) -> float:
    """Median seconds of a repeated action, without the first time, which pays for allocations (if time allows)."""
    times: list[float] = []
    begin = now = clock()
    while len(times) <= PROBE_STEPS or now - begin < at_least:
        action(len(times))
        times.append(clock() - now)
        now += times[-1]
        if now - begin + min(times) > (at_most if len(times) > 1 else 3 * at_most):
            break
    return statistics.median(times[1:] or times)
