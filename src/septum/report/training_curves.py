"""The curves of a training, from the records in its log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from septum.report.numbers import format_number, is_number
from septum.report.sections import Curves, Section


def training_sections(records: Iterable[Mapping[str, Any]], score_name: str = "score") -> list[Section]:
    """Return the curves of loss and score from the records of ``log.jsonl``; none for what was not recorded.

    Parameters
    ----------
    records : iterable of mappings
        ``{"step": 10, "loss": 0.31, ...}`` per step group, ``{"step": 100, "validation": {"score": 0.9, ...}}`` per
        validation; others are skipped.
    score_name : str
        What the score is, for its label.

    Examples
    --------
    >>> [section.title for section in training_sections([{"step": 1, "loss": 0.7}])]
    ['Training loss']
    """
    records = list(records)
    losses = [(r["step"], r["loss"]) for r in records if is_number(r.get("loss"))]
    scores = [(r["step"], r["validation"]["score"]) for r in records if is_number(r.get("validation", {}).get("score"))]
    sections: list[Section] = []
    if losses:
        steps, values = zip(*losses, strict=True)
        sections.append(
            Curves(
                "Training loss",
                "step",
                "loss",
                {"loss": (steps, values)},
                note="The loss on the training patches; it should fall. Thin: raw values. Thick: running mean.",
                smooth=True,
                log_y=True,
            )
        )
    if scores:
        steps, values = zip(*scores, strict=True)
        step, best = max(scores, key=lambda pair: pair[1])
        sections.append(
            Curves(
                "Validation score",
                "step",
                score_name,
                {"validation": (steps, values)},
                note="The score on the held-out images, which the network never trains on; it should rise. "
                f"Best: {format_number(best)} at step {format_number(step)}.",
            )
        )
    return sections
