"""Instance matching: how many true objects are found, how well, and which are missed, invented, split or merged.

A true and a predicted object match at a threshold t if their intersection over union (IoU) is at least t. Only t >=
0.5 is allowed, for then the matching is unique: with IoU > 0.5 each object contains more than half of the other, so
neither has a second such partner; with IoU = 0.5 exactly, one object can be two halves that each match it, where any
choice gives the same scores, and the half that comes first in raster order is taken. So the best assignment, as
stardist.matching finds it with a dense table, is read off the sparse one.

Ignored pixels are background in both images: what is left of an object is all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from septum.core.labels import Mask
from septum.core.metrics.checks import check_thresholds
from septum.core.metrics.contingency import Contingency, Indices, contingency
from septum.errors import ImageError

THRESHOLDS = tuple(round(0.5 + 0.05 * k, 2) for k in range(10))
_NOTHING = (None, 0.0, 0)  # number, IoU and pixels of no overlapping object
Outcome = Literal["matched", "missed", "invented", "split", "merged"]


@dataclass(frozen=True)
class ThresholdScores:
    """Counts and scores at one IoU threshold; a score without objects to count is 0, as in stardist.matching."""

    threshold: float
    tp: int  # matched pairs
    fp: int  # predicted objects without a partner
    fn: int  # true objects without a partner
    precision: float
    recall: float
    f1: float
    average_precision: float  # tp / (tp + fp + fn), stardist's accuracy
    mean_matched_iou: float  # over matched pairs, stardist's mean_matched_score
    mean_true_iou: float  # over true objects, a missed one counting 0, stardist's mean_true_score
    panoptic_quality: float  # sum of IoU / (tp + fp / 2 + fn / 2), Kirillov et al. 2019
    iou_sum: float  # over matched pairs; what pooling adds up


@dataclass(frozen=True)
class MatchingScores:
    """Scores of one image, or pooled over images."""

    n_truth: int
    n_prediction: int
    per_threshold: tuple[ThresholdScores, ...]
    mean_average_precision: float  # mean of average_precision over the thresholds
    aggregated_jaccard: float  # Kumar et al. 2017
    aggregated_intersection: int  # pixels; what pooling adds up
    aggregated_union: int


@dataclass(frozen=True)
class ObjectRecord:
    """One true object, or one predicted object without a partner at IoU 0.5.

    ``prediction`` of a true object is its partner, or else the predicted object that overlaps it best, and likewise for
    ``truth``; None if nothing overlaps. ``iou`` is with that object. One in a split or merger is of that kind even if
    it is matched too.
    """

    kind: Outcome
    matched: bool
    truth: int | None
    prediction: int | None
    iou: float
    truth_pixels: int
    prediction_pixels: int


@dataclass(frozen=True)
class ObjectError:
    """One error, for a list of the worst.

    missed: a true object in no pair, split or merger. invented: such a predicted object. split: a true object with
    two or more predicted objects that each lie in it by more than half and together cover more than half of it; one
    of them may match it. merged: the same with the roles exchanged. ``pixels`` ranks them: the object's size if missed
    or invented, else what the largest part leaves of the whole.
    """

    kind: Literal["missed", "invented", "split", "merged"]
    truth: tuple[int, ...]
    prediction: tuple[int, ...]
    pixels: int


@dataclass(frozen=True)
class Matching:
    """One image: its scores, a record of each object, and its errors, worst first."""

    scores: MatchingScores
    objects: tuple[ObjectRecord, ...]
    errors: tuple[ObjectError, ...]


def match(
    truth: ArrayLike,
    prediction: ArrayLike,
    *,
    ignore: ArrayLike | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
) -> Matching:
    """Match the objects of two label images.

    Parameters
    ----------
    truth, prediction : integer arrays of one shape, any number of axes
        0 is background, every other number one object.
    ignore : bool array of that shape, optional
        True where pixels are left out of the score.
    thresholds : sequence of float
        IoU thresholds, 0.5 <= t <= 1.

    Raises
    ------
    ImageError
        If shapes differ, or labels are not whole numbers or are negative.
    ConfigError
        For a threshold outside 0.5..1, or no threshold.

    Examples
    --------
    >>> found = match(np.array([[1, 1, 1, 1, 0, 2, 2]]), np.array([[0, 5, 5, 5, 0, 0, 0]]))
    >>> found.scores.per_threshold[0].f1, found.scores.per_threshold[0].mean_matched_iou
    (0.6666666666666666, 0.75)
    >>> found.errors
    (ObjectError(kind='missed', truth=(2,), prediction=(), pixels=2),)
    """
    check_thresholds(thresholds, 0.5, 1, "where the matching of objects is unique")
    table = contingency(truth, prediction, ignore)
    pairs = _partners(table)
    iou = table.iou
    intersection, union = _aggregated_jaccard(table)
    n_truth, n_prediction = len(table.truth_ids), len(table.prediction_ids)
    rows = []
    for t in thresholds:
        matched = pairs[iou[pairs] >= t]
        tp = len(matched)
        rows.append(_score(t, tp, n_prediction - tp, n_truth - tp, float(iou[matched].sum())))
    objects, errors = _records(table, pairs)
    return Matching(_scores(n_truth, n_prediction, rows, intersection, union), objects, errors)


def pool(images: Sequence[MatchingScores]) -> MatchingScores:
    """Add up images that were scored at the same thresholds: every object counts the same, whatever its image.

    Raises
    ------
    ImageError
        If no image has a true object.
    """
    n_truth = sum(image.n_truth for image in images)
    if n_truth == 0:
        raise ImageError(
            "the truth has no object in any image, so no score is defined; give at least one annotated object"
        )
    rows = [
        _score(
            at[0].threshold,
            sum(row.tp for row in at),
            sum(row.fp for row in at),
            sum(row.fn for row in at),
            sum(row.iou_sum for row in at),
        )
        for at in zip(*(image.per_threshold for image in images), strict=True)
    ]
    return _scores(
        n_truth,
        sum(image.n_prediction for image in images),
        rows,
        sum(image.aggregated_intersection for image in images),
        sum(image.aggregated_union for image in images),
    )


def _score(threshold: float, tp: int, fp: int, fn: int, iou_sum: float) -> ThresholdScores:
    return ThresholdScores(
        threshold=float(threshold),
        tp=tp,
        fp=fp,
        fn=fn,
        precision=_ratio(tp, tp + fp),
        recall=_ratio(tp, tp + fn),
        f1=_ratio(2 * tp, 2 * tp + fp + fn),
        average_precision=_ratio(tp, tp + fp + fn),
        mean_matched_iou=_ratio(iou_sum, tp),
        mean_true_iou=_ratio(iou_sum, tp + fn),
        panoptic_quality=_ratio(iou_sum, tp + fp / 2 + fn / 2),
        iou_sum=iou_sum,
    )


def _scores(
    n_truth: int, n_prediction: int, rows: Sequence[ThresholdScores], intersection: int, union: int
) -> MatchingScores:
    mean = float(np.mean([row.average_precision for row in rows]))
    return MatchingScores(n_truth, n_prediction, tuple(rows), mean, _ratio(intersection, union), intersection, union)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _partners(table: Contingency) -> Indices:
    """Indices of the overlapping pairs with IoU >= 0.5, at most one per object."""
    pairs = np.flatnonzero(table.iou >= 0.5)
    pairs = pairs[np.sort(np.unique(table.i[pairs], return_index=True)[1])]
    return pairs[np.sort(np.unique(table.j[pairs], return_index=True)[1])]


def _aggregated_jaccard(table: Contingency) -> tuple[int, int]:
    """Intersection and union in pixels: each true object with its best overlap, plus predicted objects never chosen."""
    best = _best_overlaps(table)[0]
    chosen = best[best >= 0]
    unused = np.ones(len(table.prediction_ids), bool)
    unused[table.j[chosen]] = False
    intersection = table.overlap[chosen].sum()
    union = table.truth_pixels.sum() + table.prediction_pixels[table.j[chosen]].sum() - intersection
    return int(intersection), int(union + table.prediction_pixels[unused].sum())


def _best_overlaps(table: Contingency) -> tuple[Indices, Indices]:
    """Index of the pair of highest IoU of every true and every predicted object, -1 without any.

    Ties go to the larger overlap, then to the first.
    """
    order = np.lexsort((np.arange(len(table.i)), -table.overlap, -table.iou))[::-1]
    best_of_truth, best_of_prediction = np.full(len(table.truth_ids), -1), np.full(len(table.prediction_ids), -1)
    best_of_truth[table.i[order]] = best_of_prediction[table.j[order]] = order  # the last write wins: the best
    return best_of_truth, best_of_prediction


def _records(table: Contingency, pairs: Indices) -> tuple[tuple[ObjectRecord, ...], tuple[ObjectError, ...]]:
    """Name each object: matched, part of a split or merger, else missed or invented."""
    truth_ids, prediction_ids = table.truth_ids.tolist(), table.prediction_ids.tolist()
    truth_kind: list[Outcome] = ["missed"] * len(truth_ids)
    prediction_kind: list[Outcome] = ["invented"] * len(prediction_ids)
    for i, j in zip(table.i[pairs], table.j[pairs], strict=True):
        truth_kind[i] = prediction_kind[j] = "matched"

    errors = []
    in_truth = table.overlap * 2 > table.prediction_pixels[table.j]
    in_prediction = table.overlap * 2 > table.truth_pixels[table.i]
    for i, parts, pixels in _wholes(table.i, table.truth_pixels, in_truth, table.overlap):
        errors.append(ObjectError("split", (truth_ids[i],), tuple(prediction_ids[j] for j in table.j[parts]), pixels))
        truth_kind[i] = "split"
        for j in table.j[parts]:
            prediction_kind[j] = "split"
    for j, parts, pixels in _wholes(table.j, table.prediction_pixels, in_prediction, table.overlap):
        errors.append(ObjectError("merged", tuple(truth_ids[i] for i in table.i[parts]), (prediction_ids[j],), pixels))
        prediction_kind[j] = "merged"
        for i in table.i[parts]:
            truth_kind[i] = "merged"
    for i, pixels in enumerate(table.truth_pixels.tolist()):
        if truth_kind[i] == "missed":
            errors.append(ObjectError("missed", (truth_ids[i],), (), pixels))
    for j, pixels in enumerate(table.prediction_pixels.tolist()):
        if prediction_kind[j] == "invented":
            errors.append(ObjectError("invented", (), (prediction_ids[j],), pixels))
    errors.sort(key=lambda error: -error.pixels)  # stable, so ties keep this order

    best_of_truth, best_of_prediction = _best_overlaps(table)
    found, alone = np.zeros(len(truth_ids), bool), np.ones(len(prediction_ids), bool)
    found[table.i[pairs]], alone[table.j[pairs]] = True, False
    i_of, j_of, iou = table.i.tolist(), table.j.tolist(), table.iou.tolist()
    truth_pixels, prediction_pixels = table.truth_pixels.tolist(), table.prediction_pixels.tolist()
    objects = []
    for i, k in enumerate(best_of_truth.tolist()):
        j_id, j_iou, j_pixels = (prediction_ids[j_of[k]], iou[k], prediction_pixels[j_of[k]]) if k >= 0 else _NOTHING
        objects.append(
            ObjectRecord(truth_kind[i], bool(found[i]), truth_ids[i], j_id, j_iou, truth_pixels[i], j_pixels)
        )
    for j in np.flatnonzero(alone).tolist():
        k = int(best_of_prediction[j])
        i_id, i_iou, i_pixels = (truth_ids[i_of[k]], iou[k], truth_pixels[i_of[k]]) if k >= 0 else _NOTHING
        objects.append(
            ObjectRecord(prediction_kind[j], False, i_id, prediction_ids[j], i_iou, i_pixels, prediction_pixels[j])
        )
    return tuple(objects), tuple(errors)


def _wholes(side: Indices, pixels: Indices, within: Mask, overlap: Indices) -> list[tuple[int, Indices, int]]:
    """Objects with two or more of the other side within, covering over half: index, pairs, pixels left over."""
    parts = np.bincount(side[within], minlength=len(pixels))
    covered = np.bincount(side[within], overlap[within], minlength=len(pixels))
    wholes = (parts >= 2) & (covered * 2 > pixels)
    pairs = np.flatnonzero(within & wholes[side])
    pairs = pairs[np.argsort(side[pairs], kind="stable")]
    groups = np.split(pairs, np.cumsum(parts[wholes])[:-1]) if len(pairs) else []
    return [(int(side[g[0]]), g, int(pixels[side[g[0]]] - overlap[g].max())) for g in groups]
