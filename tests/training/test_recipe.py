"""Time by a clock that only moves when something is done: the plan must come out right to the second."""

import math
import re

import numpy as np
import pytest
import torch

from septum.data.dataset import from_arrays
from septum.errors import ConfigError
from septum.training.recipe import recipe
from septum.training.schedule import ENOUGH_STEPS, FEWEST_STEPS, Probe, few_steps, plan_steps
from septum.words import parse_duration


class Machine:
    """Takes so many seconds for a step, for predicting what is held out, and for choosing thresholds by its scores."""

    def __init__(self, step, predict=0.0, score=0.0, first=1.0, hiccup=1.0, images=4):
        self.now, self.times = 0.0, (step, predict, score)
        self.first, self.hiccup = first, hiccup
        self.images = images if predict else 0  # the times are those of all of them, one is probed
        self.steps_probed = 0

    def clock(self):
        return self.now

    def take(self, seconds):
        self.now += seconds

    def step(self, number):
        assert number == self.steps_probed
        self.take(self.times[0] * {0: self.first, 2: self.hiccup}.get(number, 1.0))
        self.steps_probed += 1

    def plan(self, budget, spent=0.0):
        _, predict, score = (seconds / max(1, self.images) for seconds in self.times)
        probe = Probe(
            self.step,
            lambda: self.take(predict),
            lambda _: self.take(score),
            predicted=self.images,
            scored=self.images,
        )
        return plan_steps(None, budget, spent, probe, self.clock)

    def whole_run(self, schedule, spent):
        """Seconds of a training that goes by this plan."""
        step, predict, score = self.times
        validations = math.ceil(schedule.steps / schedule.validate_every) if predict else 0
        return spent + self.now + schedule.steps * step + validations * (predict + score)


@pytest.mark.parametrize("budget", [20.0, 40.0, 1200.0])
@pytest.mark.parametrize(
    "machine",
    [
        {"step": 0.004},
        {"step": 0.004, "first": 500.0},  # whatever is compiled or allocated at first
        {"step": 0.05, "predict": 0.3, "score": 0.7},
        {"step": 0.05, "predict": 0.3, "score": 0.7, "first": 20.0, "hiccup": 10.0},
        {"step": 0.3, "predict": 2.0, "score": 0.9, "hiccup": 5.0},
        {"step": 0.8, "predict": 1.0, "score": 0.001},
    ],
)
def test_a_run_by_the_plan_takes_its_budget(machine, budget):
    machine = Machine(**machine)
    spent = 2.5
    schedule = machine.plan(budget, spent)
    assert 0.9 * budget < machine.whole_run(schedule, spent) <= budget


def test_the_time_of_a_validation_is_estimated_from_one_image_for_predicting_and_scoring():
    """Predicting goes by the pixels with those around, scoring by the pixels themselves."""
    machine = Machine(0.01)
    probe = Probe(machine.step, lambda: machine.take(0.2), lambda _: machine.take(0.1), predicted=5, scored=3)
    assert plan_steps(None, 100.0, 0.0, probe, machine.clock).finish_seconds == pytest.approx(5 * 0.2 + 3 * 0.1)


def test_a_plan_validates_twenty_times_or_for_a_tenth_of_the_time():
    assert Machine(0.01, 0.05).plan(100.0).steps > 8000
    schedule = Machine(0.01, 0.05).plan(100.0)
    assert math.ceil(schedule.steps / schedule.validate_every) == 20
    schedule = Machine(0.01, 2.0).plan(100.0)
    assert math.ceil(schedule.steps / schedule.validate_every) == 4  # of what is left after the probe
    assert Machine(0.01).plan(100.0).validate_every == Machine(0.01).plan(100.0).steps


def test_a_probe_of_slow_steps_is_short_compared_with_the_budget():
    machine = Machine(12.0, first=1.5)
    machine.plan(1200.0)
    assert 12.0 * 2.5 <= machine.now <= 0.15 * 1200.0
    machine = Machine(0.001)
    machine.plan(1200.0)
    assert 5.0 <= machine.now < 5.1


def test_a_budget_that_is_too_short_is_refused_with_one_that_is_not():
    machine = Machine(1.0, predict=2.0, score=0.9)
    message = (
        r"a budget of 10 s is too short: setup took [\d.]+ s, a step takes 1 s and the validation at the end 2.9 s; "
        r"give at least (\d+) s, better (\d) min, or --steps"
    )
    with pytest.raises(ConfigError, match=message) as error:
        machine.plan(10.0, spent=1.0)
    least, better = map(int, re.fullmatch(message, str(error.value)).groups())
    assert Machine(1.0, predict=2.0, score=0.9).plan(least, spent=1.0).steps >= FEWEST_STEPS
    assert Machine(1.0, predict=2.0, score=0.9).plan(60 * better, spent=1.0).steps >= ENOUGH_STEPS


@pytest.mark.parametrize("spent", [0.0, 6.0])
@pytest.mark.parametrize("budget", [25.0, 70.0])
@pytest.mark.parametrize(
    "machine",
    [
        {"step": 0.5},
        {"step": 0.3, "predict": 0.3, "score": 0.2},
        {"step": 0.6, "predict": 2.0, "score": 0.9},
    ],
)
def test_a_plan_with_too_few_steps_comes_with_a_budget_that_is_enough(machine, budget, spent):
    plan = Machine(**machine).plan(budget, spent)
    warning = few_steps(plan.steps, budget, plan.step_seconds)
    if plan.steps >= ENOUGH_STEPS:
        assert warning is None
        return
    message = r"(\d+) steps are too few to learn much; give a budget of (\d+ \w+) or more, for at least 100 steps"
    steps, enough = re.fullmatch(message, warning).groups()
    assert int(steps) == plan.steps
    seconds = parse_duration(enough)
    assert Machine(**machine).plan(seconds, spent).steps >= ENOUGH_STEPS
    assert seconds < 1.5 * (budget + (ENOUGH_STEPS - plan.steps) * plan.step_seconds) + 10  # and not much more


def test_a_number_of_steps_that_is_too_small_has_no_budget_to_compare():
    assert few_steps(ENOUGH_STEPS - 1, None, None) == (
        "99 steps are too few to learn much; train for at least 100 steps"
    )
    assert few_steps(ENOUGH_STEPS, None, None) is None


def test_a_given_number_of_steps_needs_no_probe():
    machine = Machine(1.0, predict=1.0)
    probe = Probe(machine.step, lambda: machine.take(1.0), lambda _: None, predicted=1, scored=1)
    assert plan_steps(1000, None, 0.0, probe, machine.clock).steps == 1000
    assert machine.now == 0.0


@pytest.mark.parametrize(("kind", "balance", "dice"), [("classes", "none", 1.0), ("instances", "frequency", 0.0)])
def test_recipe_fast_balances_classes_by_their_overlap_and_the_user_has_the_last_word(kind, balance, dice):
    data = from_arrays([np.zeros((1, 20, 20))], [np.arange(400).reshape(20, 20) // 200], kind=kind)
    config = recipe("fast", data, torch.device("cpu"))
    assert (config.weight_map.balance, config.dice) == (balance, dice)
    changed = recipe("fast", data, torch.device("cpu"), {"dice": 0.5, "weight_map.balance": "freiburg"})
    assert (changed.weight_map.balance, changed.dice) == ("freiburg", 0.5)
