"""Numbers as text: alike in a column, with few digits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import TypeGuard

import numpy as np


def is_number(cell: object) -> TypeGuard[float]:
    """Whether a value is a finite number, but not a bool."""
    return isinstance(cell, Real) and not isinstance(cell, bool) and math.isfinite(cell)


def is_gap(cell: object) -> bool:
    """Whether a value is missing: None or NaN."""
    return cell is None or (isinstance(cell, Real) and math.isnan(cell))


def decimals_of(values: Sequence[float]) -> int:
    """Return the decimals that show the largest value to four digits, without zeros at the end of every value."""
    largest = max(map(abs, values), default=0)
    # one more for a largest value of 1, so that columns of scores look alike whether or not one is perfect
    decimals = 0 if largest == 0 else min(max(3 - math.floor(math.log10(largest)) + (largest == 1), 0), 9)
    while decimals and all(round(value, decimals) == round(value, decimals - 1) for value in values):
        decimals -= 1
    return decimals


def format_cell(cell: object, decimals: int) -> str:
    """Return any value as text, numbers with `decimals`; numbers that would round to 0 keep two digits."""
    if is_gap(cell):
        return "–"
    if isinstance(cell, bool | np.bool_):
        return "yes" if cell else "no"
    if not is_number(cell):
        return str(cell)
    vanishes = cell != 0 and round(cell, decimals) == 0
    return f"{cell:.2g}" if vanishes else f"{cell:,.{decimals}f}"


def format_number(value: object) -> str:
    """Return a single value as text, a number with four digits at most.

    Examples
    --------
    >>> format_number(0.931249), format_number(31030658), format_number(None)
    ('0.9312', '31,030,658', '–')
    """
    return format_cell(value, decimals_of([value]) if is_number(value) else 0)
