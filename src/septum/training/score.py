"""The scores of a validation, pooled over the held-out images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from septum.choices import Kind
from septum.core.metrics import matching, overlap

SCORE_NAMES: Mapping[Kind, str] = {"instances": "panoptic quality", "classes": "mean IoU"}  # of "score"


@dataclass(frozen=True)
class ValidationImage:
    """A predicted (Y, X) label image, its truth, and the pixels that are not scored."""

    predicted: np.ndarray
    truth: np.ndarray
    ignore: np.ndarray | None = None


def validation_scores(images: Iterable[ValidationImage], kind: str, n_classes: int) -> dict[str, float]:
    """Return scores by name; `score` decides which weights are kept.

    For instances it is the panoptic quality at IoU 0.5, which falls with every missed, invented, split or merged object
    and with inexact outlines; for classes, the mean IoU of those that occur. Empty if there is nothing to find.
    """
    if kind == "instances":
        matched, found = [], False
        for i in images:  # one at a time is in memory
            found |= bool((i.truth > 0).any())
            matched.append(matching.match(i.truth, i.predicted, ignore=i.ignore, thresholds=[0.5]).scores)
        if not found:
            return {}
        at = matching.pool(matched).per_threshold[0]
        return {"score": at.panoptic_quality, "f1": at.f1, "mean_matched_iou": at.mean_matched_iou}
    parts = [
        overlap.class_overlap(i.truth, i.predicted, classes=range(n_classes), ignore=i.ignore)
        for i in images
        if i.ignore is None or not i.ignore.all()
    ]
    if not parts:
        return {}
    pooled = overlap.pool(parts)
    ious = [each.iou for each in pooled.classes if each.iou is not None]
    return {"score": float(np.mean(ious)), "mean_iou": float(np.mean(ious)), "pixel_error": pooled.pixel_error}
