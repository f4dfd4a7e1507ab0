"""Plurals, durations and tables as text."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from numbers import Real

from septum.errors import ConfigError


def plural(number: int, noun: str) -> str:
    """Return ``"1 image"``, ``"2 images"``."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def duration(seconds: float) -> str:
    """Return a duration in words.

    Examples
    --------
    >>> duration(8.2), duration(700), duration(9000)
    ('9 s', '12 min', '2.5 h')
    """
    if seconds < 100:
        return f"{math.ceil(seconds)} s"
    return f"{math.ceil(seconds / 60)} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def parse_duration(text: str) -> float:
    """Return the seconds of ``20min``, ``1h30min`` or ``90s``.

    Examples
    --------
    >>> parse_duration("1h30min"), parse_duration("90s"), parse_duration("0.5h")
    (5400.0, 90.0, 1800.0)
    """
    units = {"h": 3600.0, "min": 60.0, "m": 60.0, "s": 1.0}
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*(h|min|m|s)", text)
    if not parts or "".join("".join(part) for part in parts) != re.sub(r"\s", "", text):
        raise ConfigError(f"a budget must be a time such as 20min, 1h30min or 90s, got {text!r}")
    seconds = sum(float(number) * units[unit] for number, unit in parts)
    if seconds <= 0:
        raise ConfigError(f"a budget must be more than zero, such as 20min, got {text!r}")
    return seconds


def parse_budget(budget: str | float) -> float:
    """Return the seconds of a budget: a text such as ``20min``, or a number of seconds."""
    if isinstance(budget, str):
        return parse_duration(budget)
    if isinstance(budget, bool) or not isinstance(budget, Real) or not 0 < budget < math.inf:
        raise ConfigError(f"a budget must be a time such as 20min, or a number of seconds above 0, got {budget!r}")
    return float(budget)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows as aligned columns; a column of numbers is aligned to the right.

    Examples
    --------
    >>> print(table(["score", "F1"], [["image 1", "0.95"], ["image 2", "-"]]))
    score      F1
    image 1  0.95
    image 2     -
    """
    columns = []
    for title, *cells in zip(header, *rows, strict=True):
        width = max(map(len, (title, *cells)))
        right = all(re.fullmatch(r"-?[\d.]+(e-?\d+)?|nan|-", cell) for cell in cells)
        columns.append([cell.rjust(width) if right else cell.ljust(width) for cell in (title, *cells)])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))
