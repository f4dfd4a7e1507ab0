"""The scores of an evaluation as text: tables to print, CSV to keep."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from septum.core.metrics.confidence import Interval
from septum.core.metrics.isbi import ThresholdScores
from septum.evaluation.record import ISBI, NAMES, Evaluation, ImageRecord

IN_TABLE = 4  # classes that have columns of their own


class Table(NamedTuple):
    """Text in rows under a header."""

    title: str
    header: list[str]
    rows: list[list[str]]


def score_tables(evaluation: Evaluation) -> list[Table]:
    """Scores per image, of every class if there are many, per threshold, and over all images with their intervals."""
    tables = [_per_image(evaluation)] if len(evaluation.images) > 1 else []
    by_class, others = split_by_class(evaluation, listed(evaluation))
    if by_class:
        rows = class_rows(evaluation, evaluation.scores, by_class)
        tables.append(Table("per class", ["class", *(NAMES[name] for name in by_class)], rows))
    if evaluation.isbi is not None:
        tables.append(_per_threshold(evaluation.isbi.per_threshold))
    rows = [[called(evaluation, name), *_told(evaluation.scores[name])] for name in others]
    return [*tables, Table("over all", ["score", "value", "95 % interval"], rows)]


def difference_table(evaluation: Evaluation, other: Evaluation) -> Table:
    """`Evaluation.compare` as a table."""
    found = evaluation.compare(other)
    rows = [[called(evaluation, name), *_told(found[name])] for name in listed(evaluation) if name in found]
    return Table("difference to the other predictions", ["score", "difference", "95 % interval"], rows)


def listed(evaluation: Evaluation) -> list[str]:
    """The scores that a reader is shown: of instances there is no need to know the overlap of the background."""
    return [name for name in evaluation.scores if not (evaluation.kind == "instances" and name.endswith(".0"))]


def split_by_class(evaluation: Evaluation, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Of many classes: the scores that each has, for a table of their own, and all others."""
    if len(evaluation.classes) <= IN_TABLE:
        return [], list(names)
    of_class = [name for name in names if "." in name]
    scores = dict.fromkeys(name.split(".")[0] for name in of_class)
    return list(scores), [name for name in names if name not in of_class]


def class_rows(evaluation: Evaluation, scores: Mapping[str, Interval], names: Sequence[str]) -> list[list[str]]:
    """Of every class its number, then each score with its interval if there is one."""

    def cell(interval: Interval | None) -> str:
        if interval is None:
            return "-"
        return shown(interval.value) + (f" ({between(interval)})" if interval.low is not None else "")

    return [[str(number), *(cell(scores.get(f"{name}.{number}")) for name in names)] for number in evaluation.classes]


def between(interval: Interval) -> str:
    """The interval as text; nothing without one."""
    return "" if interval.low is None else f"{shown(interval.low)} to {shown(interval.high)}"


def columns(evaluation: Evaluation) -> list[str]:
    """The scores that a table of images has room for."""
    names = ["f1", "mean_matched_iou", "panoptic_quality", "mean_average_precision", "aggregated_jaccard", "seg"]
    names += ["pixel_error"]
    classes = evaluation.classes if evaluation.kind == "classes" else evaluation.classes[1:]
    if len(classes) <= IN_TABLE:
        names += [f"{score}.{number}" for score in ("iou", "dice") for number in classes]
    if len(evaluation.classes) == 2:
        names += [f"{score}.{classes[-1]}" for score in ("hausdorff_95_px", "mean_surface_distance_px")]
    return [name for name in [*names, *ISBI] if name in evaluation.scores]


def called(evaluation: Evaluation, name: str) -> str:
    """What a score is called: ``iou.2`` is "IoU 2", or "IoU" of the only foreground; V_Rand has its threshold."""
    score, _, number = name.partition(".")
    if name in ISBI:
        return f"{NAMES[name]} at {evaluation.best(name).threshold:.1f}"
    several = evaluation.kind == "classes" and (len(evaluation.classes) > 2 or score in ("iou", "dice"))
    return NAMES[score] + (f" {number}" if number and several else "")


def shown(value: float | None) -> str:
    """A score as text: four digits after the point, more for small ones.

    Examples
    --------
    >>> shown(0.5), shown(0.000353), shown(None)
    ('0.5000', '0.000353', '-')
    """
    if value is None:
        return "-"
    return f"{value:.4f}" if value == 0 or abs(value) >= 0.01 else f"{value:.6f}"


def threshold_scores(row: ThresholdScores) -> dict[str, float]:
    """The challenge's scores at one threshold, by their names in tables."""
    return {
        "1 - pixel F": 1 - row.pixel_f_score,
        "warping error": row.warping_error_splits_and_mergers,
        "Rand error": row.rand_foreground_restricted.error,
        "V_Rand": row.v_rand_thinned.f_score_mean_of_slices,
        "V_Info": row.v_info_thinned_mean_of_slices,
    }


def objects_csv(evaluation: Evaluation) -> str:
    """One line per object, as CSV text."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    classes = ["truth_class", "prediction_class"] if evaluation.kind == "classes" else []
    header = ["image", "kind", "matched", "truth", "prediction", *classes, "iou", "truth_px", "prediction_px"]
    writer.writerow([*header, "top_px", "left_px", "height_px", "width_px"])
    for image in evaluation.images:
        for row in image.objects.rows:
            numbers = [row.truth_class, row.prediction_class] if classes else []
            y0, y1, x0, x1 = row.box
            writer.writerow(
                [image.name, row.kind, int(row.matched), row.truth, row.prediction, *numbers, f"{row.iou:.6g}"]
                + [row.truth_pixels, row.prediction_pixels, y0, x0, y1 - y0, x1 - x0]
            )
    return text.getvalue()


def _per_image(evaluation: Evaluation) -> Table:
    names = columns(evaluation)
    kinds = evaluation.error_kinds if "matching" in evaluation.measures else ()
    rows = [
        [image.name, *_counts([image], kinds), *(shown(evaluation.image_scores(k)[name]) for name in names)]
        for k, image in enumerate(evaluation.images)
    ]
    over_all = [shown(evaluation.scores[name].value) for name in names]
    rows.append(["all", *_counts(evaluation.images, kinds), *over_all])
    header = ["image", *(["objects", *kinds] if kinds else []), *(called(evaluation, name) for name in names)]
    return Table("per image", header, rows)


def _counts(images: Sequence[ImageRecord], kinds: Sequence[str]) -> list[str]:
    if not kinds:
        return []
    objects = sum(image.objects.scores.n_truth for image in images)
    return [str(objects), *(str(sum(image.objects.count(kind) for image in images)) for kind in kinds)]


def _per_threshold(at: Sequence[ThresholdScores]) -> Table:
    rows = [[f"{row.threshold:.1f}", *(shown(value) for value in threshold_scores(row).values())] for row in at]
    return Table("per threshold", ["threshold", *threshold_scores(at[0])], rows)


def _told(interval: Interval) -> tuple[str, str]:
    """A score and its interval, or why there is none, as text."""
    if interval.low is None:
        return shown(interval.value), interval.reason
    return shown(interval.value), f"{between(interval)} over {interval.n} {interval.unit}s"
