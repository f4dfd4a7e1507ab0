"""Predictions x truth -> one record per image, by the measures that fit the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from septum.config import Kind
from septum.core.metrics import matching, overlap
from septum.core.metrics.checks import check_same_shape
from septum.data.kind import decide_kind
from septum.data.labels import as_labels
from septum.engine.pairing import Case, Cases, cases_from_files
from septum.errors import ImageError


@dataclass(frozen=True, eq=False)
class ImageRecord:
    name: str
    overlap: overlap.Scores
    matching: matching.Matching | None


@dataclass(frozen=True, eq=False)
class Evaluation:
    kind: Kind
    notes: tuple[str, ...]
    images: tuple[ImageRecord, ...]

    @property
    def note(self) -> str:
        return "; ".join(self.notes)

    def table(self) -> tuple[list[str], list[list[str]]]:
        rows = [(r.name, r.overlap, r.matching.scores if r.matching else None) for r in self.images]
        pooled = matching.pool([r.matching.scores for r in self.images if r.matching]) if self.kind == "instances" else None
        rows.append(("all", overlap.pool([r.overlap for r in self.images]), pooled))
        header = ["image", *(["F1", "mean IoU"] if pooled else []), "pixel error", "IoU", "Dice"]
        return header, [
            [name, *([f"{m.per_threshold[0].f1:.4f}", f"{m.per_threshold[0].mean_matched_iou:.4f}"] if m else []),
             f"{o.pixel_error:.4f}", f"{o.classes[1].iou or 0:.4f}", f"{o.classes[1].dice or 0:.4f}"]
            for name, o, m in rows
        ]

    def as_json(self) -> dict[str, Any]:
        header, rows = self.table()
        return {"kind": self.kind, "images": [dict(zip(header, row, strict=True)) for row in rows]}


def evaluate_files(predictions: Path, truth: Path, *, kind: Kind | None = None) -> Evaluation:
    return _evaluate(cases_from_files(Path(predictions), Path(truth)), kind)


def evaluate_arrays(
    predictions: Sequence[np.ndarray], truth: Sequence[np.ndarray], *, kind: str | None = None,
    ignore: Sequence[np.ndarray | None] | None = None,
) -> Evaluation:
    masks = [None] * len(truth) if ignore is None else ignore
    cases = [
        Case(f"image {k}", f"truth {k}", f"prediction {k}", partial(np.asarray, t), partial(np.asarray, p),
             ignore=None if m is None else partial(np.asarray, m))
        for k, (p, t, m) in enumerate(zip(predictions, truth, masks, strict=True))
    ]
    return _evaluate(Cases(tuple(cases), ()), kind)  # type: ignore[arg-type]


def _evaluate(found: Cases, kind: Kind | None) -> Evaluation:
    notes = list(found.notes)
    if kind is None:
        kind, reason = decide_kind([case.truth() for case in found.cases])
        notes.append(reason)
    return Evaluation(kind, tuple(notes), tuple(_score(case, kind) for case in found.cases))


def _score(case: Case, kind: Kind) -> ImageRecord:
    truth = case.truth()
    prediction = case.prediction()
    prediction = as_labels(prediction[0] if prediction.ndim == 3 else prediction, case.prediction_name)
    check_same_shape(case.prediction_name, prediction, truth, case.truth_name)
    ignore = case.ignore() if case.ignore else None
    if kind == "instances":
        return ImageRecord(case.name, overlap.overlap(truth > 0, prediction > 0, ignore=ignore), matching.match(truth, prediction, ignore=ignore))
    return ImageRecord(case.name, overlap.overlap(truth, prediction, ignore=ignore), None)
