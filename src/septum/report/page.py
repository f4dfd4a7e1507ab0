"""Records, pictures and curves -> one HTML file that needs no network, no script and no second file."""

from __future__ import annotations

import base64
import bisect
import importlib.resources
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeGuard

import jinja2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from septum.data.files import write_text
from septum.errors import ImageError

_PAGE_BYTES = 4_500_000  # what pictures may fill with their captions; leaves a page of 5 MB some for the rest
_MARKUP_BYTES = 120  # of one picture
_CROP_SIDE = 128  # pixels; pictures up to this size are crops: enlarged with crisp pixels, compressed without blur
_SHORT = 24  # characters; cells up to this length are not broken into lines
_SHOWN = 40  # pictures of a section, and what fills their last row; the others are folded away


@dataclass(frozen=True)
class Number:
    """One key number: ``Number(0.9312, "F1 at IoU 0.5", "125 nuclei")``."""

    value: float | str
    label: str
    note: str = ""


@dataclass(frozen=True)
class Headline:
    """A row of key numbers, for the top of the page."""

    numbers: Sequence[Number]


@dataclass(frozen=True)
class Text:
    """Paragraphs of plain text."""

    title: str
    paragraphs: Sequence[str]


@dataclass(frozen=True)
class Table:
    """Rows under a header; columns of numbers are set right, rounded to four digits, with the best in bold if asked.

    None and NaN appear as a dash. `best` says per column name which value to emphasise.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    note: str = ""
    best: Mapping[str, Literal["highest", "lowest"]] = field(default_factory=dict)


@dataclass(frozen=True)
class Curves:
    """Named series (x, y) in one diagram; points that are not finite (or not positive, with `log_y`) are left out.

    With `smooth`, a series is drawn pale, and on top its running mean over a twenty-fifth of its points. The axis goes
    over `y_range`, or as far as the points do.
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
    """An (Y, X, 3) uint8 picture; `alt` is what a reader who does not see it is told."""

    rgb: NDArray[np.uint8]
    caption: str
    alt: str


@dataclass(frozen=True)
class Pictures:
    """Pictures side by side, at most `columns` of them where the screen is wide; `legend` names colours in them."""

    title: str
    pictures: Sequence[Picture]
    columns: int = 3
    note: str = ""
    legend: Mapping[str, ArrayLike] = field(default_factory=dict)


Section = Headline | Text | Table | Curves | Pictures


def write_page(path: Path, *, title: str, subtitle: str = "", sections: Sequence[Section], footer: str = "") -> None:
    """Write a self-contained page, whole or not at all.

    Pictures are kept exactly (lossless WebP) while they are few. Beyond, all are compressed just as far as keeps a
    page of thirty images and five thousand crops under 5 MB: crops keep crisp outlines and get fewer grey levels,
    larger pictures become JPEG (without subsampling of colours) and smaller, 1024 pixels a side at most.

    Parameters
    ----------
    path : Path
        The file to write; a present one is replaced.
    title, subtitle, footer : str
        Plain text; the subtitle stands under the title.
    sections : sequence of Headline, Text, Table, Curves, Pictures
        In the order of the page. From four titles on the page begins with a list of them.

    Raises
    ------
    ImageError
        If a picture is not an (Y, X, 3) uint8 array with pixels.
    """
    pictures = [picture for section in sections if isinstance(section, Pictures) for picture in section.pictures]
    for rgb in (picture.rgb for picture in pictures):
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0 or rgb.dtype != np.uint8:
            raise ImageError(f"a picture on a page is a (Y, X, 3) array of uint8, got {rgb.dtype} of {rgb.shape}")
    compression = _compression(pictures)
    template = importlib.resources.files("septum.report").joinpath("page.html.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    html = environment.from_string(template).render(
        title=title,
        subtitle=subtitle,
        footer=footer,
        sections=[_view(section, compression) | {"anchor": f"s{i}"} for i, section in enumerate(sections, 1)],
    )
    write_text(path, html)


def training_sections(records: Iterable[Mapping[str, Any]]) -> list[Section]:
    """Return the curves of a training run from the records of its ``log.jsonl``; none for what was not recorded.

    Parameters
    ----------
    records : iterable of mappings
        ``{"step": 10, "loss": 0.31, ...}`` per step group, ``{"step": 100, "validation": {"score": 0.9, ...}}`` per
        validation; others are passed over.

    Examples
    --------
    >>> [section.title for section in training_sections([{"step": 1, "loss": 0.7}])]
    ['Training loss']
    """
    records = list(records)
    losses = [(r["step"], r["loss"]) for r in records if _is_number(r.get("loss"))]
    scores = [
        (r["step"], r["validation"]["score"]) for r in records if _is_number(r.get("validation", {}).get("score"))
    ]
    sections: list[Section] = []
    if losses:
        steps, values = zip(*losses, strict=True)
        sections.append(
            Curves(
                "Training loss",
                "step",
                "loss",
                {"loss": (steps, values)},
                note="Pale: as recorded. Strong: running mean.",
                smooth=True,
                log_y=True,
            )
        )
    if scores:
        steps, values = zip(*scores, strict=True)
        best = max(scores, key=lambda pair: pair[1])
        sections.append(
            Curves(
                "Validation score",
                "step",
                "score",
                {"validation": (steps, values)},
                note=f"Best: {_single(best[1])} at step {_single(best[0])}.",
            )
        )
    return sections


def shrink(rgb: NDArray[np.uint8], max_side: int) -> NDArray[np.uint8]:
    """Return a picture reduced by area averaging until its longer side is at most `max_side`; as it is if it fits.

    Examples
    --------
    >>> shrink(np.zeros((600, 300, 3), np.uint8), 200).shape
    (200, 100, 3)
    """
    if max(rgb.shape[:2]) <= max_side:
        return rgb
    image = Image.fromarray(rgb)
    image.thumbnail((max_side, max_side), Image.Resampling.BOX)
    return np.asarray(image)


class _Compression(NamedTuple):
    step: int  # crops: channels are rounded to multiples of it
    quality: int | None  # larger pictures: of JPEG; None is lossless
    max_side: int  # larger pictures, pixels


_COMPRESSIONS = (
    _Compression(1, None, 1024),
    _Compression(8, 85, 1024),
    _Compression(16, 70, 1024),
    _Compression(16, 55, 768),
    _Compression(32, 55, 512),
    _Compression(32, 40, 512),
    _Compression(32, 40, 384),
    _Compression(32, 30, 256),
    _Compression(64, 30, 256),
)


def _compression(pictures: Sequence[Picture]) -> _Compression:
    """Return the mildest compression that keeps the page small, judged by a sample of the crops and of the others."""
    groups = [[p for p in pictures if _is_crop(p)], [p for p in pictures if not _is_crop(p)]]
    limit = _PAGE_BYTES - sum(_MARKUP_BYTES + len(p.caption) + len(p.alt) for p in pictures)

    def fits(compression: _Compression) -> bool:
        total = 0.0
        for group in groups:
            sample = group[:: len(group) // 25 + 1]
            total += sum(len(_data_uri(p, compression)) for p in sample) * len(group) / max(1, len(sample))
        return total <= limit

    return _COMPRESSIONS[bisect.bisect_left(_COMPRESSIONS[:-1], True, key=fits)]


def _is_crop(picture: Picture) -> bool:
    return bool(max(picture.rgb.shape[:2]) <= _CROP_SIDE)


def _data_uri(picture: Picture, compression: _Compression) -> str:
    buffer = io.BytesIO()
    kind = "webp"
    if _is_crop(picture):
        # Not a lossy format: those that make small files halve the resolution of colour, and one-pixel outlines fade.
        step = compression.step
        rounded = np.minimum((picture.rgb.astype(np.uint16) + step // 2) // step * step, 255).astype(np.uint8)
        Image.fromarray(rounded).save(buffer, "WEBP", lossless=True)
    elif compression.quality is None:
        Image.fromarray(shrink(picture.rgb, compression.max_side)).save(buffer, "WEBP", lossless=True, quality=20)
    else:
        kind = "jpeg"
        small = Image.fromarray(shrink(picture.rgb, compression.max_side))
        small.save(buffer, "JPEG", quality=compression.quality, subsampling="4:4:4")
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _view(section: Section, compression: _Compression) -> dict[str, Any]:
    """Return what the template needs to know of a section, all numbers as text."""
    match section:
        case Headline(numbers):
            shown = [{"value": _single(n.value), "label": n.label, "note": n.note} for n in numbers]
            return {"kind": "headline", "title": "", "note": "", "numbers": shown}
        case Text(title, paragraphs):
            return {"kind": "text", "title": title, "note": "", "paragraphs": paragraphs}
        case Table():
            return {"kind": "table", "title": section.title, "note": section.note, **_table(section)}
        case Curves():
            return {"kind": "curves", "title": section.title, "note": section.note, **_chart(section)}
        case Pictures():
            return {
                "kind": "pictures",
                "title": section.title,
                "note": section.note,
                "columns": section.columns,
                "legend": {name: _css_colour(colour) for name, colour in section.legend.items()},
                "crops": all(_is_crop(picture) for picture in section.pictures),
                "pictures": [_figure(picture, compression) for picture in section.pictures],
                "shown": math.ceil(_SHOWN / section.columns) * section.columns,
            }


def _css_colour(colour: ArrayLike) -> str:
    red, green, blue = (int(channel) for channel in np.asarray(colour))
    return f"rgb({red} {green} {blue})"


def _figure(picture: Picture, compression: _Compression) -> dict[str, Any]:
    height, width = picture.rgb.shape[:2]
    return {
        "source": _data_uri(picture, compression),
        "width": width,
        "height": height,
        "crop": _is_crop(picture),
        "caption": picture.caption,
        "alt": picture.alt,
    }


def _table(table: Table) -> dict[str, Any]:
    """Cells as text, and per cell the CSS classes 'number', 'short' and 'best'."""
    columns = [_column([row[i] for row in table.rows], table.best.get(name)) for i, name in enumerate(table.header)]
    numeric = [any("number" in classes for _, classes in column) for column in columns]
    header = [(name, "number" if right else "") for name, right in zip(table.header, numeric, strict=True)]
    return {"header": header, "rows": list(zip(*columns, strict=True))}


def _column(cells: Sequence[object], best: Literal["highest", "lowest"] | None) -> list[tuple[str, str]]:
    numbers = [cell for cell in cells if _is_number(cell)]
    decimals = _decimals(numbers)
    right = ["number"] if numbers and all(_is_number(cell) or _is_gap(cell) for cell in cells) else []
    winners = {max(numbers) if best == "highest" else min(numbers)} if best and numbers else set()
    texts = [_text(cell, decimals) for cell in cells]
    short = [["short"] * (not right and len(text) <= _SHORT) for text in texts]
    bold = [["best"] * (_is_number(cell) and cell in winners) for cell in cells]
    return [(text, " ".join(right + s + b)) for text, s, b in zip(texts, short, bold, strict=True)]


def _is_number(cell: object) -> TypeGuard[float]:
    return isinstance(cell, Real) and not isinstance(cell, bool) and math.isfinite(cell)


def _is_gap(cell: object) -> bool:
    return cell is None or (isinstance(cell, Real) and math.isnan(cell))


def _decimals(values: Sequence[float]) -> int:
    """Digits after the point that show the largest value to four digits, without zeros at the end of every value."""
    largest = max(map(abs, values), default=0)
    # one digit more for a largest value of 1, so that columns of scores look alike whether or not one is perfect
    decimals = 0 if largest == 0 else min(max(3 - math.floor(math.log10(largest)) + (largest == 1), 0), 9)
    while decimals and all(round(value, decimals) == round(value, decimals - 1) for value in values):
        decimals -= 1
    return decimals


def _text(cell: object, decimals: int) -> str:
    if _is_gap(cell):
        return "–"
    if isinstance(cell, bool | np.bool_):
        return "yes" if cell else "no"
    if not _is_number(cell):
        return str(cell)
    vanishes = cell != 0 and round(cell, decimals) == 0
    return f"{cell:.2g}" if vanishes else f"{cell:,.{decimals}f}"


def _single(value: object) -> str:
    return _text(value, _decimals([value]) if _is_number(value) else 0)


def _chart(curves: Curves) -> dict[str, Any]:
    """Lines in a square of 1000 x 1000, ticks in percent of its sides from the left and the top."""
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
    for series, pale, x, y in drawn:
        keep = _extremes(y)
        points = [f"{1000 * a:.1f},{1000 * d:.1f}" for a, d in zip(across(x[keep]), down(y[keep]), strict=True)]
        lines.append({"series": series, "pale": pale, "points": points, "dots": len(points) <= 40})
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
    """Mean over the points at most half a window away; fewer at the ends."""
    total = np.concatenate([[0], np.cumsum(y)])
    position = np.arange(len(y))
    first, last = np.maximum(position - window // 2, 0), np.minimum(position + window // 2 + 1, len(y))
    return np.asarray((total[last] - total[first]) / (last - first))


def _extremes(y: NDArray[np.float64], runs: int = 300) -> NDArray[np.intp]:
    """Positions of at most two points per run of points, the lowest and the highest: the line looks the same."""
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
    """Multiples of 1, 2 or 5 times a power of ten from at most `low` to at least `high`, and their labels."""
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
    first, last, low, high = (_single(value) for value in (y[0], y[-1], y.min(), y.max()))
    return (
        f"{name}: {curves.y_label} from {first} at {curves.x_label} {_single(x[0])} "
        f"to {last} at {curves.x_label} {_single(x[-1])}, lowest {low}, highest {high}"
    )
