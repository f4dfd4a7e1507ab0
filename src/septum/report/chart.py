"""Curves as lines, ticks and labels that the page's template draws."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from septum.report.numbers import format_number
from septum.report.sections import Curves


def chart_view(curves: Curves) -> dict[str, Any]:
    """Return lines in a square of 1000 x 1000, and ticks in percent of its sides from the left and the top."""
    named = {name: _points(x, y, curves.log_y) for name, (x, y) in curves.series.items()}
    named = {name: points for name, points in named.items() if len(points[0])}
    if not named:
        return {"lines": []}
    drawn = [(i, curves.smooth, x, y) for i, (x, y) in enumerate(named.values())]
    if curves.smooth:
        drawn += [(i, False, x, _running_mean(y, len(y) // 25)) for i, (x, y) in enumerate(named.values())]
    all_x, all_y = (np.concatenate([points[axis] for points in named.values()]) for axis in (0, 1))
    x0, x1 = _range(all_x)
    x0 = 0.0 if 0 < x0 <= x1 / 10 else x0
    x_ticks = [(tick, label) for tick, label in zip(*_ticks(x0, x1), strict=True) if x0 <= tick <= x1]
    y_ticks = list(zip(*_ticks(*(curves.y_range or _range(all_y)), curves.log_y), strict=True))

    def scale(y: ArrayLike) -> NDArray[np.float64]:
        return np.log10(np.asarray(y, float)) if curves.log_y else np.asarray(y, float)

    bottom, top = scale(y_ticks[0][0]), scale(y_ticks[-1][0])

    def across(x: ArrayLike) -> NDArray[np.float64]:
        return (np.asarray(x, float) - x0) / (x1 - x0)

    def down(y: ArrayLike) -> NDArray[np.float64]:
        return 1 - (scale(y) - bottom) / (top - bottom)

    lines = []
    for series, thin, x, y in drawn:
        keep = _extremes(y)
        points = [f"{1000 * a:.1f},{1000 * d:.1f}" for a, d in zip(across(x[keep]), down(y[keep]), strict=True)]
        lines.append({"series": series, "thin": thin, "points": points, "dots": len(points) <= 40})
    return {
        "x_label": curves.x_label,
        "y_label": curves.y_label + (" (logarithmic)" if curves.log_y else ""),
        "x_ticks": [(round(100 * float(across(tick)), 2), label) for tick, label in x_ticks],
        "y_ticks": [(round(100 * float(down(tick)), 2), label) for tick, label in y_ticks],
        "lines": lines,
        "names": list(named),
        "description": "; ".join(_description(name, x, y, curves) for name, (x, y) in named.items()),
    }


def _points(x: ArrayLike, y: ArrayLike, log_y: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = np.asarray(x, float), np.asarray(y, float)
    usable = np.isfinite(x) & np.isfinite(y) & ((y > 0) | (not log_y))
    return x[usable], y[usable]


def _running_mean(y: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Return the mean over the points at most half a window away; over fewer at the ends."""
    total = np.concatenate([[0], np.cumsum(y)])
    position = np.arange(len(y))
    first, last = np.maximum(position - window // 2, 0), np.minimum(position + window // 2 + 1, len(y))
    return np.asarray((total[last] - total[first]) / (last - first))


def _extremes(y: NDArray[np.float64], runs: int = 300) -> NDArray[np.intp]:
    """Return the positions of the lowest and the highest point of each run of points: the line looks the same."""
    if len(y) <= 2 * runs:
        return np.arange(len(y))
    parts = np.array_split(np.arange(len(y)), runs)
    kept = {int(part[k]) for part in parts for k in (np.argmin(y[part]), np.argmax(y[part]))}
    return np.array(sorted(kept | {0, len(y) - 1}))


def _range(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    pad = (abs(low) / 10 or 1.0) if math.isclose(low, high) else 0.0
    return low - pad, high + pad


def _ticks(low: float, high: float, log: bool = False) -> tuple[list[float], list[str]]:
    """Return multiples of 1, 2 or 5 times a power of ten from at most `low` to at least `high`, and their labels."""
    if log:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [m * 10.0**power for power in powers for m in (1, 2, 5)]
        first, last = max(t for t in ticks if t <= low * (1 + 1e-9)), min(t for t in ticks if t >= high * (1 - 1e-9))
        ticks = [tick for tick in ticks if first <= tick <= last]
        if len(ticks) > 7:
            ticks = [10.0**power for power in powers]
        return ticks, [f"{tick:g}" for tick in ticks]
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    ticks = [k * step for k in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)]
    return ticks, [f"{tick:,.{decimals}f}" for tick in ticks]


def _description(name: str, x: NDArray[np.float64], y: NDArray[np.float64], curves: Curves) -> str:
    first, last, low, high = (format_number(value) for value in (y[0], y[-1], y.min(), y.max()))
    return (
        f"{name}: {curves.y_label} from {first} at {curves.x_label} {format_number(x[0])} "
        f"to {last} at {curves.x_label} {format_number(x[-1])}, lowest {low}, highest {high}"
    )
