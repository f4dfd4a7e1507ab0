"""The scores of an evaluation as text: tables to print, and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from septum.core.metrics.confidence import Interval
from septum.core.metrics.isbi import IsbiThresholdScores
from septum.evaluation.record import ISBI_RATIOS, SCORE_NAMES, Evaluation, ImageRecord
from septum.words import table

MOST_CLASS_COLUMNS = 4  # with more classes, scores per class get a table of their own


class TextTable(NamedTuple):
    """A title, a header, and rows of text."""

    title: str
    header: list[str]
    rows: list[list[str]]

    def __str__(self) -> str:
        return f"{self.title}\n{table(self.header, self.rows)}"


def score_tables(evaluation: Evaluation) -> list[TextTable]:
    """Return the scores per image, per class if there are many, per threshold, and over all images with intervals."""
    tables = [_per_image(evaluation)] if len(evaluation.images) > 1 else []
    by_class, others = split_by_class(evaluation, listed_scores(evaluation))
    if by_class:
        rows = class_rows(evaluation, evaluation.scores, by_class)
        tables.append(TextTable("per class", ["class", *(SCORE_NAMES[name] for name in by_class)], rows))
    if evaluation.isbi is not None:
        tables.append(_per_threshold(evaluation.isbi.per_threshold))
    rows = [[score_label(evaluation, name), *_score_cells(evaluation.scores[name])] for name in others]
    return [*tables, TextTable("all images", ["score", "value", "95 % interval"], rows)]


def difference_table(evaluation: Evaluation, other: Evaluation) -> TextTable:
    """Return `Evaluation.compare` as a table."""
    found = evaluation.compare(other)
    rows = [
        [score_label(evaluation, name), *_score_cells(found[name])]
        for name in listed_scores(evaluation)
        if name in found
    ]
    return TextTable("difference to the other predictions", ["score", "difference", "95 % interval"], rows)


def listed_scores(evaluation: Evaluation) -> list[str]:
    """Return the scores to show: all of them, except those of the background if the labels are instances."""
    return [name for name in evaluation.scores if not (evaluation.kind == "instances" and name.endswith(".0"))]


def split_by_class(evaluation: Evaluation, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the scores that every class has, if there are many classes, and all other scores."""
    if len(evaluation.classes) <= MOST_CLASS_COLUMNS:
        return [], list(names)
    of_class = [name for name in names if "." in name]
    scores = dict.fromkeys(name.split(".")[0] for name in of_class)
    return list(scores), [name for name in names if name not in of_class]


def class_rows(evaluation: Evaluation, scores: Mapping[str, Interval], names: Sequence[str]) -> list[list[str]]:
    """Return a row per class: its number, then each score with its interval if there is one."""

    def cell(interval: Interval | None) -> str:
        if interval is None:
            return "-"
        return format_score(interval.value) + (f" ({format_interval(interval)})" if interval.low is not None else "")

    return [[str(number), *(cell(scores.get(f"{name}.{number}")) for name in names)] for number in evaluation.classes]


def format_interval(interval: Interval) -> str:
    """Return ``"0.8000 to 0.9000"``, or "" without an interval."""
    return "" if interval.low is None else f"{format_score(interval.low)} to {format_score(interval.high)}"


def score_columns(evaluation: Evaluation) -> list[str]:
    """Return the scores that the table of images shows."""
    names = ["f1", "mean_matched_iou", "panoptic_quality", "mean_average_precision", "aggregated_jaccard", "seg"]
    names += ["pixel_error"]
    classes = evaluation.classes if evaluation.kind == "classes" else evaluation.classes[1:]
    if len(classes) <= MOST_CLASS_COLUMNS:
        names += [f"{score}.{number}" for score in ("iou", "dice") for number in classes]
    if len(evaluation.classes) == 2:
        names += [f"{score}.{classes[-1]}" for score in ("hausdorff_95_px", "mean_surface_distance_px")]
    return [name for name in [*names, *ISBI_RATIOS] if name in evaluation.scores]


def score_label(evaluation: Evaluation, name: str) -> str:
    """Return how tables name a score: "IoU 2" for ``iou.2``, "IoU" for a single foreground class, "V_Rand at 0.5"."""
    score, _, number = name.partition(".")
    if name in ISBI_RATIOS:
        return f"{SCORE_NAMES[name]} at {evaluation.best(name).threshold:.1f}"
    several = evaluation.kind == "classes" and (len(evaluation.classes) > 2 or score in ("iou", "dice"))
    return SCORE_NAMES[score] + (f" {number}" if number and several else "")


def format_score(value: float | None) -> str:
    """Return a score as text with four decimals, or six if it is small.

    Examples
    --------
    >>> format_score(0.5), format_score(0.000353), format_score(None)
    ('0.5000', '0.000353', '-')
    """
    if value is None:
        return "-"
    return f"{value:.4f}" if value == 0 or abs(value) >= 0.01 else f"{value:.6f}"


def threshold_scores(row: IsbiThresholdScores) -> dict[str, float]:
    """Return the challenge's scores at one threshold, by their names in tables."""
    return {
        "1 - pixel F": 1 - row.pixel_f_score,
        "warping error": row.warping_error_splits_and_mergers,
        "Rand error": row.rand_foreground_restricted.error,
        "V_Rand": row.v_rand_thinned.f_score_mean_of_slices,
        "V_Info": row.v_info_thinned_mean_of_slices,
    }


def objects_csv(evaluation: Evaluation) -> str:
    """Return CSV text with one line per object."""
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


def _per_image(evaluation: Evaluation) -> TextTable:
    names = score_columns(evaluation)
    kinds = evaluation.error_kinds if "matching" in evaluation.measures else ()
    rows = [
        [image.name, *_counts([image], kinds), *(format_score(evaluation.image_scores(k)[name]) for name in names)]
        for k, image in enumerate(evaluation.images)
    ]
    overall = [format_score(evaluation.scores[name].value) for name in names]
    rows.append(["all", *_counts(evaluation.images, kinds), *overall])
    header = ["image", *(["objects", *kinds] if kinds else []), *(score_label(evaluation, name) for name in names)]
    return TextTable("per image", header, rows)


def _counts(images: Sequence[ImageRecord], kinds: Sequence[str]) -> list[str]:
    if not kinds:
        return []
    objects = sum(image.objects.scores.n_truth for image in images)
    return [str(objects), *(str(sum(image.objects.count(kind) for image in images)) for kind in kinds)]


def _per_threshold(at: Sequence[IsbiThresholdScores]) -> TextTable:
    rows = [[f"{row.threshold:.1f}", *(format_score(value) for value in threshold_scores(row).values())] for row in at]
    return TextTable("per threshold", ["threshold", *threshold_scores(at[0])], rows)


def _score_cells(interval: Interval) -> tuple[str, str]:
    """Return a score and its interval, or the reason why there is none."""
    if interval.low is None:
        return format_score(interval.value), interval.reason
    return format_score(interval.value), f"{format_interval(interval)} over {interval.n} {interval.unit}s"
