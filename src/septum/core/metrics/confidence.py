"""Confidence intervals: percentile bootstrap over images or objects, and paired comparison of two predictions.

A score is a function of sums over units: F1 of summed (tp, fp, fn), a mean of summed (value, 1). A resample draws as
many units as there are, with replacement (Efron and Tibshirani 1993); resamples for which the score is not defined are
left out. Objects of one image are alike: intervals over the objects of few images are too narrow for other images.
Prefer images where there are at least five.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from septum.errors import ImageError

if TYPE_CHECKING:
    from jaxtyping import Float64

Sums = NDArray[np.float64]
Statistic = Callable[[Sums], Sums]  # (..., K) sums over units -> (...) score
Unit = Literal["image", "object"]
FEWEST = {"image": 5, "object": 20}
LEVEL, REPEATS, SEED = 0.95, 2000, 0


@dataclass(frozen=True)
class Interval:
    """A score with its interval, or the reason why there is none."""

    value: float
    low: float | None
    high: float | None
    n: int
    unit: Unit
    reason: str = ""


def mean(sums: Float64[np.ndarray, "*n K"]) -> Float64[np.ndarray, "*n"]:
    """Mean of the values in ``with_ones``, or any sum over a sum; NaN where the second sum is 0."""
    found: Sums = np.full(sums.shape[:-1], np.nan)
    np.divide(sums[..., 0], sums[..., 1], out=found, where=sums[..., 1] != 0)
    return found


def f1(sums: Float64[np.ndarray, "*n 3"]) -> Float64[np.ndarray, "*n"]:
    """F1 from the columns (tp, fp, fn); 0 where there is nothing to count."""
    tp, wrong = sums[..., 0], sums[..., 1] + sums[..., 2]
    return np.asarray(2 * tp / np.maximum(2 * tp + wrong, 1))


def with_ones(values: ArrayLike) -> Float64[np.ndarray, "n 2"]:
    """(n,) values -> the (n, 2) units whose ``mean`` is asked for.

    Examples
    --------
    >>> bootstrap(with_ones([0.5, 0.7]), unit="image")
    Interval(value=0.6, low=None, high=None, n=2, unit='image', reason='2 images, an interval needs 5')
    """
    values = np.asarray(values, float)
    return np.stack([values, np.ones_like(values)], axis=-1)


def bootstrap(units: ArrayLike, *, unit: Unit, statistic: Statistic = mean) -> Interval:
    """Score with its 95 % interval, from 2000 resamples with a fixed seed.

    Parameters
    ----------
    units : (n, K) array
        What each image or object adds to the sums.
    unit : 'image' or 'object'
        What was sampled; fewer than 5 images or 20 objects give no interval.
    statistic : function of (..., K) sums
        The score: `mean`, `f1`, or another function.

    Examples
    --------
    >>> counts = [[9, 1, 0], [8, 0, 2], [10, 0, 0], [7, 2, 3], [9, 0, 1]]    # tp, fp, fn of five images
    >>> interval = bootstrap(counts, unit="image", statistic=f1)
    >>> round(interval.value, 3), round(interval.low, 3), round(interval.high, 3)
    (0.905, 0.821, 0.969)
    """
    units = _check(units)
    return _interval(units, unit, statistic)


def compare(units: ArrayLike, others: ArrayLike, *, unit: Unit, statistic: Statistic = mean) -> Interval:
    """Difference of two predictions' scores on the same truth, first minus second, with its 95 % interval.

    Both are resampled together, unit by unit, so what makes an image hard for both cancels out. If 0 lies outside the
    interval, the difference is larger than chance explains.

    Parameters
    ----------
    units, others : (n, K) arrays
        What each image or object adds to the sums of either prediction, in the same order.
    unit, statistic
        As in ``bootstrap``.

    Raises
    ------
    ImageError
        If the two have different numbers of units or columns.
    """
    units, others = _check(units), _check(others)
    if units.shape != others.shape:
        raise ImageError(
            f"a paired comparison needs the same {unit}s in both predictions, got {len(units)} and {len(others)}; "
            "score both on one truth"
        )
    k = units.shape[1]
    both = np.concatenate([units, others], axis=1)
    return _interval(both, unit, lambda sums: statistic(sums[..., :k]) - statistic(sums[..., k:]))


def _check(units: ArrayLike) -> Sums:
    units = np.asarray(units, float)
    if units.ndim != 2 or not len(units):
        raise ImageError(f"units to resample must have shape (n, columns) with at least one unit, got {units.shape}")
    return units


def _interval(units: Sums, unit: Unit, statistic: Statistic) -> Interval:
    n = len(units)
    value = float(statistic(units.sum(axis=0)))
    if n < FEWEST[unit]:
        return Interval(value, None, None, n, unit, f"{n} {unit}s, an interval needs {FEWEST[unit]}")
    rng = np.random.default_rng(SEED)
    sums = np.stack([np.bincount(rng.integers(n, size=n), minlength=n) @ units for _ in range(REPEATS)])
    low, high = np.nanquantile(statistic(sums), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high), n, unit)
