"""Plurals and durations in sentences."""

from __future__ import annotations

import math


def count(number: int, noun: str) -> str:
    """Return ``"1 image"``, ``"2 images"``."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def duration(seconds: float) -> str:
    """Say how long something takes.

    Examples
    --------
    >>> duration(8.2), duration(700), duration(9000)
    ('9 s', '12 min', '2.5 h')
    """
    if seconds < 100:
        return f"{math.ceil(seconds)} s"
    return f"{math.ceil(seconds / 60)} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
