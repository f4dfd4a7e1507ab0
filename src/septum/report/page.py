"""Sections -> one HTML file that needs no network, no script and no other file."""

from __future__ import annotations

import importlib.resources
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jinja2
import numpy as np
from numpy.typing import ArrayLike

from septum.data.files import write_text
from septum.errors import ImageError
from septum.report.chart import chart_view
from septum.report.numbers import decimals_of, format_cell, format_number, is_gap, is_number
from septum.report.pictures import Compression, choose_compression, data_uri, is_crop
from septum.report.sections import Command, Curves, Headline, Picture, Pictures, Section, Table, Text

_UNBROKEN = 24  # characters; shorter cells are kept on one line
_UNFOLDED = 40  # pictures of a section, rounded up to whole rows; the others are folded away


def write_page(path: Path, *, title: str, subtitle: str = "", sections: Sequence[Section], footer: str = "") -> None:
    """Write a self-contained page, whole or not at all.

    A few pictures are stored exactly (lossless WebP). Many are compressed, just enough to keep a page of thirty images
    and five thousand crops under 5 MB: crops keep crisp outlines but fewer grey levels; larger pictures become JPEG
    (without subsampling of colours), at most 1024 pixels wide and high.

    Parameters
    ----------
    path : Path
        The file to write or replace.
    title, subtitle, footer : str
        Plain text; the subtitle goes below the title.
    sections : sequence of Headline, Text, Table, Curves, Pictures
        In the order of the page. With four titles or more, the page starts with a list of links to them.

    Raises
    ------
    ImageError
        A picture is not an (Y, X, 3) uint8 array, or has no pixels.
    """
    pictures = [picture for section in sections if isinstance(section, Pictures) for picture in section.pictures]
    for rgb in (picture.rgb for picture in pictures):
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0 or rgb.dtype != np.uint8:
            raise ImageError(
                f"a picture on a page must be a (Y, X, 3) array of uint8, got {rgb.dtype} of shape {rgb.shape}"
            )
    compression = choose_compression(pictures)
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


def _view(section: Section, compression: Compression) -> dict[str, Any]:
    """Return what the template needs of a section, all numbers as text."""
    match section:
        case Headline(numbers):
            shown = [{"value": format_number(n.value), "label": n.label, "note": n.note} for n in numbers]
            return {"kind": "headline", "title": "", "note": "", "numbers": shown}
        case Text(title, paragraphs):
            parts = [(p.line, True) if isinstance(p, Command) else (p, False) for p in paragraphs]
            return {"kind": "text", "title": title, "note": "", "paragraphs": parts}
        case Table():
            return {
                "kind": "table",
                "title": section.title,
                "note": section.note,
                "folded": section.folded,
                **_table(section),
            }
        case Curves():
            return {"kind": "curves", "title": section.title, "note": section.note, **chart_view(section)}
        case Pictures():
            return {
                "kind": "pictures",
                "title": section.title,
                "note": section.note,
                "columns": section.columns,
                "legend": {name: _css_colour(colour) for name, colour in section.legend.items()},
                "crops": all(is_crop(picture) for picture in section.pictures),
                "pictures": [_figure(picture, compression) for picture in section.pictures],
                "unfolded": math.ceil(_UNFOLDED / section.columns) * section.columns,
            }


def _css_colour(colour: ArrayLike) -> str:
    red, green, blue = (int(channel) for channel in np.asarray(colour))
    return f"rgb({red} {green} {blue})"


def _figure(picture: Picture, compression: Compression) -> dict[str, Any]:
    height, width = picture.rgb.shape[:2]
    return {
        "source": data_uri(picture, compression),
        "width": width,
        "height": height,
        "crop": is_crop(picture),
        "caption": picture.caption,
        "alt": picture.alt,
    }


def _table(table: Table) -> dict[str, Any]:
    """Return cells as text, each with its CSS classes 'number', 'short' and 'best'."""
    columns = [_column([row[i] for row in table.rows], table.best.get(name)) for i, name in enumerate(table.header)]
    numeric = [any("number" in classes for _, classes in column) for column in columns]
    header = [(name, "number" if right else "") for name, right in zip(table.header, numeric, strict=True)]
    return {"header": header, "rows": list(zip(*columns, strict=True))}


def _column(cells: Sequence[object], best: Literal["highest", "lowest"] | None) -> list[tuple[str, str]]:
    numbers = [cell for cell in cells if is_number(cell)]
    decimals = decimals_of(numbers)
    right = ["number"] if numbers and all(is_number(cell) or is_gap(cell) for cell in cells) else []
    winners = {max(numbers) if best == "highest" else min(numbers)} if best and numbers else set()
    texts = [format_cell(cell, decimals) for cell in cells]
    short = [["short"] * (not right and len(text) <= _UNBROKEN) for text in texts]
    bold = [["best"] * (is_number(cell) and cell in winners) for cell in cells]
    return [(text, " ".join(right + s + b)) for text, s, b in zip(texts, short, bold, strict=True)]
