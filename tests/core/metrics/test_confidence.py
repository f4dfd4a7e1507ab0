import numpy as np
import pytest

from septum.core.metrics.confidence import Interval, bootstrap, compare, f1, mean, with_ones
from septum.errors import ImageError


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_equals_resampling_by_hand(rng):
    counts = rng.integers(0, 9, (12, 3))
    draw, values = np.random.default_rng(0), []
    for _ in range(2000):
        tp, fp, fn = counts[draw.integers(12, size=12)].sum(0)
        values.append(2 * tp / (2 * tp + fp + fn))
    found = bootstrap(counts, unit="image", statistic=f1)
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(values, [2.5, 97.5])), abs=1e-12)
    tp, fp, fn = counts.sum(0)
    assert found.value == 2 * tp / (2 * tp + fp + fn)


def test_the_interval_of_a_mean_is_the_known_one(rng):
    values = rng.normal(3, 2, 400)
    found = bootstrap(with_ones(values), unit="object")
    half = 1.96 * values.std() / 20
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.08 * half)


def test_it_covers_the_truth_about_as_often_as_it_says(rng):
    hits = 0
    for _ in range(40):
        found = bootstrap(with_ones(rng.normal(size=40)), unit="object")
        hits += found.low <= 0 <= found.high
    assert hits >= 33  # 37 or so expected, sd 1.6


def test_the_same_data_give_the_same_interval(rng):
    values = with_ones(rng.random(30))
    assert bootstrap(values, unit="image") == bootstrap(values, unit="image")


@pytest.mark.parametrize(("unit", "fewest"), [("image", 5), ("object", 20)])
def test_too_few_units_give_no_interval_and_the_reason(unit, fewest, rng):
    few, enough = with_ones(rng.random(fewest - 1)), with_ones(rng.random(fewest))
    assert bootstrap(few, unit=unit) == Interval(
        float(mean(few.sum(0))), None, None, fewest - 1, unit, f"{fewest - 1} {unit}s, an interval needs {fewest}"
    )
    found = bootstrap(enough, unit=unit)
    assert found.low < found.value < found.high
    assert found.reason == ""
    assert compare(few, few, unit=unit).low is None


def test_paired_comparison_sees_what_unpaired_intervals_hide(rng):
    hard = rng.normal(0.7, 0.1, 30)  # images differ a lot, the two predictions little but always
    better, worse = with_ones(hard + 0.01 + rng.normal(0, 0.005, 30)), with_ones(hard)
    found = compare(better, worse, unit="image")
    assert 0 < found.low < 0.01 < found.high < 0.02
    assert bootstrap(better, unit="image").low < bootstrap(worse, unit="image").high
    turned = compare(worse, better, unit="image")
    assert (turned.value, turned.low, turned.high) == pytest.approx((-found.value, -found.high, -found.low))


def test_the_difference_of_equals_is_zero(rng):
    counts = rng.integers(0, 9, (12, 3))
    found = compare(counts, counts, unit="image", statistic=f1)
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_resamples_without_a_score_are_left_out():
    units = np.array([[0.0, 0.0]] * 4 + [[1.0, 2.0]])  # a third of the resamples miss the last
    found = bootstrap(units, unit="image")
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)


def test_f1_of_nothing_is_zero():
    assert f1(np.zeros(3)) == 0


def test_units_that_do_not_fit():
    with pytest.raises(ImageError, match="the same images in both predictions, got 6 and 7"):
        compare(np.ones((6, 2)), np.ones((7, 2)), unit="image")
    with pytest.raises(ImageError, match=r"with at least one unit, got \(0, 2\)"):
        bootstrap(np.ones((0, 2)), unit="image")
    with pytest.raises(ImageError, match=r"shape \(n, columns\) with at least one unit, got \(3,\)"):
        bootstrap(np.ones(3), unit="image")
