"""What a page is made of: key numbers, text, tables, curves and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Number:
    """One key number, such as ``Number(0.9312, "F1 at IoU 0.5", "125 nuclei")``."""

    value: float | str
    label: str
    note: str = ""


@dataclass(frozen=True)
class Headline:
    """A row of key numbers, for the top of the page."""

    numbers: Sequence[Number]


@dataclass(frozen=True)
class Command:
    """A command line to copy."""

    line: str


@dataclass(frozen=True)
class Text:
    """Paragraphs of plain text, and commands between them."""

    title: str
    paragraphs: Sequence[str | Command]


@dataclass(frozen=True)
class Table:
    """Rows under a header. Columns of numbers are right-aligned and rounded to four digits; None and NaN become a dash.

    `best` says by column name which value is set in bold. A header of empty
    names is not shown, and a `folded` table opens with a click.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    note: str = ""
    best: Mapping[str, Literal["highest", "lowest"]] = field(default_factory=dict)
    folded: bool = False


@dataclass(frozen=True)
class Curves:
    """Named series (x, y) in one chart; points that are not finite (or not positive, with `log_y`) are left out.

    With `smooth`, a series is drawn thin, and its running mean over 1/25 of its points thick. The y axis covers
    `y_range`, or else the range of the points.
    """

    title: str
    x_label: str
    y_label: str
    series: Mapping[str, tuple[ArrayLike, ArrayLike]]
    note: str = ""
    smooth: bool = False
    log_y: bool = False
    y_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class Picture:
    """An (Y, X, 3) uint8 picture; `alt` describes it to readers who cannot see it."""

    rgb: NDArray[np.uint8]
    caption: str
    alt: str


@dataclass(frozen=True)
class Pictures:
    """Pictures side by side, at most `columns` in a row on a wide screen; `legend` names the colours in them."""

    title: str
    pictures: Sequence[Picture]
    columns: int = 3
    note: str = ""
    legend: Mapping[str, ArrayLike] = field(default_factory=dict)


Section = Headline | Text | Table | Curves | Pictures
