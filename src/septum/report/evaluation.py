"""The page of an evaluation: scores with intervals, curves, overlays, and an atlas of every error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from numpy.typing import ArrayLike

from septum.core.metrics.confidence import Interval
from septum.core.metrics.warping import MISMATCHES
from septum.core.overlay import AGREEMENT, CONFUSED, MARK, PREDICTION, TRUTH
from septum.evaluation.record import SCORE_NAMES, Evaluation
from septum.evaluation.tables import (
    class_rows,
    format_interval,
    format_score,
    listed_scores,
    score_columns,
    score_label,
    split_by_class,
    threshold_scores,
)
from septum.report.atlas import (
    CONFIDENT,
    MOST_IMAGES,
    MOST_REGIONS,
    Atlas,
    make_atlas,
    mismatch_threshold,
    pictures_by_kind,
)
from septum.report.page import write_page
from septum.report.sections import Curves, Headline, Number, Picture, Pictures, Section, Table, Text
from septum.report.training_curves import training_sections
from septum.words import plural

_HEADLINE = {
    "f1": "F1 at IoU 0.5",
    "mean_matched_iou": "mean IoU of matched objects",
    "panoptic_quality": "panoptic quality",
    "seg": "SEG",
    "det": "DET",
    "v_rand": "V_Rand",
    "v_info": "V_Info",
    "warping_error": "warping error",
    "pixel_error": "pixel error",
}
_MEANINGS = {
    "f1": "objects found: harmonic mean of precision and recall at IoU 0.5",
    "precision": "share of the predicted objects that match a true one",
    "recall": "share of the true objects that are found",
    "mean_matched_iou": "overlap of matched objects, intersection over union",
    "panoptic_quality": "panoptic quality: F1 times mean IoU",
    "average_precision": "average precision at IoU 0.5: matches as a share of true and invented objects",
    "mean_average_precision": "mean of AP over IoU 0.5 to 0.95",
    "aggregated_jaccard": "aggregated Jaccard index: IoU of the objects, with penalties for errors",
    "seg": "mean IoU of the true objects, 0 for a missed one (Cell Tracking Challenge)",
    "det": "detection: 1 minus the cost of the errors (Cell Tracking Challenge)",
    "pixel_error": "share of wrong pixels; lower is better",
    "iou": "overlap of the pixels, intersection over union",
    "dice": "overlap of the pixels, F1",
    "hausdorff_95_px": "distance of the outlines, 95th percentile; lower is better",
    "hausdorff_95_um": "the same in micrometres",
    "mean_surface_distance_px": "mean distance of the outlines; lower is better",
    "mean_surface_distance_um": "the same in micrometres",
    "pixel_f_error": "ISBI 2012 pixel error; lower is better",
    "warping_error": "share of pixels that split or merge segments; lower is better (ISBI 2012)",
    "rand_error": "disagreement on which pixels belong together; lower is better (ISBI 2012)",
    "v_rand": "agreement on which pixels belong together (ISBI 2012)",
    "v_info": "information that the segments share with the truth (ISBI 2012)",
}
_ERRORS = {
    "missed": "True objects with no prediction at IoU >= 0.5, largest error first.",
    "invented": "Predicted objects with no true object at IoU >= 0.5, largest error first.",
    "split": "True objects covered by two or more predicted objects, largest error first.",
    "merged": "Predicted objects that cover two or more true objects, largest error first.",
    "mislabelled": "True objects mostly predicted as another class, largest error first.",
}


def report_evaluation(
    path: str | Path, evaluation: Evaluation, *, other: Evaluation | None = None, run: Path | None = None
) -> Path:
    """Write the page, whole or not at all, and return its path.

    Parameters
    ----------
    path : path
        The file to write.
    evaluation : Evaluation
        Its images are read again, a few at a time.
    other : Evaluation, optional
        Of other predictions against the same truth; the page then shows the difference of the scores.
    run : Path, optional
        The run folder of the training; the page then shows its curves.

    Raises
    ------
    ImageError
        An image differs in size from its truth.
    ModelError
        `run` contains no run.
    OutputError
        The page cannot be written.
    """
    training = _training(run) if run is not None else []
    atlas = make_atlas(evaluation)
    sections: list[Section] = [Headline(_headline(evaluation))]
    warnings = evaluation.warnings_with(other)
    if warnings:
        sections.append(Text("Warnings", [*map(_sentence, warnings)]))
    measures = [f"Measure {name}: {reason}." for name, reason in evaluation.measures.items()]
    sections.append(Text("What was compared", [*map(_sentence, evaluation.notes), *measures]))
    sections += _curves(evaluation)
    sections += _score_tables("Scores over all images", "value", evaluation.scores, evaluation)
    if other is not None:
        title = "Difference to the other predictions"
        sections += _score_tables(title, "difference", evaluation.compare(other), evaluation)
    sections += [*_image_table(evaluation), *training, *_whole_images(evaluation, atlas), *_errors(evaluation, atlas)]
    sections += [*_mismatches(evaluation, atlas), *_suspicious(evaluation, atlas)]
    subtitle = f"{plural(len(evaluation.images), 'image')}, labels read as {evaluation.kind}"
    write_page(Path(path), title="Evaluation: predictions against truth", subtitle=subtitle, sections=sections)
    return Path(path)


def _training(run: Path) -> list[Section]:
    from septum.training.run import RunFolder

    folder = RunFolder(run)
    folder.config()  # raises ModelError if there is no run
    return training_sections(folder.records())


def _headline(evaluation: Evaluation) -> list[Number]:
    labels = {name: label for name, label in _HEADLINE.items() if name in evaluation.scores}
    if evaluation.kind == "instances" and len(labels) > 1:
        labels.pop("pixel_error", None)
    numbers = []
    for name, label in labels.items():
        interval = evaluation.scores[name]
        between = f"95 %: {format_interval(interval)}" if interval.low is not None else ""
        numbers.append(Number(format_score(interval.value), label, between))
    return numbers


def _curves(evaluation: Evaluation) -> list[Section]:
    sections: list[Section] = []
    if evaluation.matching is not None:
        at = evaluation.matching.per_threshold
        x = [row.threshold for row in at]
        series: dict[str, tuple[ArrayLike, ArrayLike]] = {
            "F1": (x, [row.f1 for row in at]),
            "precision": (x, [row.precision for row in at]),
            "recall": (x, [row.recall for row in at]),
            "average precision": (x, [row.average_precision for row in at]),
        }
        note = "Scores as the required overlap (IoU) rises. Higher is better; a flat curve means accurate outlines."
        title = "Objects found, by IoU threshold"
        sections.append(Curves(title, "IoU threshold", "score", series, note=note, y_range=(0, 1)))
    if evaluation.isbi is not None:
        rows = evaluation.isbi.per_threshold
        x = [row.threshold for row in rows]
        table = [threshold_scores(row) for row in rows]
        series = {
            "V_Rand": (x, [row["V_Rand"] for row in table]),
            "V_Info": (x, [row["V_Info"] for row in table]),
            "Rand F": (x, [1 - row["Rand error"] for row in table]),
            "pixel F": (x, [1 - row["1 - pixel F"] for row in table]),
        }
        best = evaluation.isbi.best["v_rand"]
        across = "probability threshold"
        note = "Scores after thresholding the probability maps; higher is better. "
        note += f"Best V_Rand: {format_score(best.value)} at threshold {best.threshold:.1f}."
        sections.append(Curves("ISBI 2012, by threshold", across, "score", series, note=note, y_range=(0, 1)))
        warping = {"warping error": (x, [row["warping error"] for row in table])}
        best = evaluation.isbi.best["warping_error"]
        note = "Share of pixels that split or merge segments; lower is better. "
        note += f"Best: {format_score(best.value)} at threshold {best.threshold:.1f}."
        sections.append(Curves("Warping error, by threshold", across, "error", warping, note=note))
    return sections


def _score_tables(title: str, column: str, scores: Mapping[str, Interval], evaluation: Evaluation) -> list[Section]:
    """Return a table with a row per score and, if there are many classes, a table with a row per class."""
    by_class, others = split_by_class(evaluation, [name for name in listed_scores(evaluation) if name in scores])
    note, with_intervals = _interval_note([scores[name] for name in others])
    header = ["score", column, *(["95 % interval"] if with_intervals else []), "meaning"]
    rows = []
    for name, interval in ((name, scores[name]) for name in others):
        between = [format_interval(interval) or interval.reason] if with_intervals else []
        meaning = _MEANINGS[name.split(".")[0]]
        rows.append([score_label(evaluation, name), format_score(interval.value), *between, meaning])
    tables: list[Section] = [Table(title, header, rows, note)]
    if by_class:
        names = ["class", *(SCORE_NAMES[name] for name in by_class)]
        note = "One row per class, with the 95 % interval in brackets where there is one."
        tables.append(Table(f"{title}, by class", names, class_rows(evaluation, scores, by_class), note))
    return tables


def _interval_note(intervals: Sequence[Interval]) -> tuple[str, bool]:
    """Say how the 95 % intervals are to be read, or why there are none; and whether there are some."""
    reasons = {interval.reason for interval in intervals}
    if len(reasons) == 1 and "" not in reasons:
        return f"All images together, without intervals ({reasons.pop()}).", False
    note = "All images together. The interval shows how far a score may differ by chance"
    for unit in ("image", "object"):
        numbers = {interval.n for interval in intervals if interval.low is not None and interval.unit == unit}
        note += f", from resampling {plural(max(numbers), unit)}" if numbers else ""
    note += "."
    if any(interval.unit == "object" and interval.low is not None for interval in intervals):
        note += " Resampling the objects of a few images shows the uncertainty for these images, not for others."
    return note, True


def _sentence(text: str) -> str:
    """Start with a capital letter and end with a full stop."""
    return text[0].upper() + text[1:] + "." * (not text.endswith("."))


def _image_table(evaluation: Evaluation) -> list[Section]:
    names, kinds = score_columns(evaluation), evaluation.error_kinds
    header = ["image", "true objects", *kinds, *(score_label(evaluation, name) for name in names)]
    rows: list[list[object]] = []
    for k, image in enumerate(evaluation.images):
        scores = evaluation.image_scores(k)
        counts = [image.objects.scores.n_truth, *(image.objects.count(kind) for kind in kinds)]
        rows.append([image.name, *counts, *(scores[name] for name in names)])
    note = "True objects, errors by kind, and scores of every image."
    return [Table("Scores per image", header, rows, note)]


def _legend(evaluation: Evaluation) -> dict[str, ArrayLike]:
    """Return the colours in which predictions are drawn against their truth."""
    legend: dict[str, ArrayLike] = {"only in the truth": TRUTH, "only predicted": PREDICTION}
    if evaluation.kind == "instances":
        return legend | {"outlines agree": AGREEMENT}
    return legend | ({"different classes": CONFUSED} if len(evaluation.classes) > 2 else {})


def _whole_images(evaluation: Evaluation, atlas: Atlas) -> list[Section]:
    hidden = len(evaluation.images) - MOST_IMAGES
    if all(image.image is None for image in evaluation.images):
        note = "The predictions against their truth, on black: no images were found. Give them with --images."
    else:
        note = "Each image, its truth, and its prediction against the truth."
    if hidden > 0:
        note += f" {plural(hidden, 'more image')} not shown."
    if any(image.ignored_pixels for image in evaluation.images):
        note += " Nothing is drawn on ignored pixels."
    return [Pictures("Images, truth and predictions", atlas.whole_images, 3, note, _legend(evaluation))]


def _errors(evaluation: Evaluation, atlas: Atlas) -> list[Section]:
    if not atlas.objects:
        return [Text("Errors", ["No object is missed, invented, split or merged."])]
    sections: list[Section] = []
    pictures = pictures_by_kind(atlas.objects)
    for kind in evaluation.error_kinds:
        if kind in pictures:
            number = sum(image.objects.count(kind) for image in evaluation.images)
            left_out = number - len(pictures[kind])
            note = _ERRORS[kind] + (f" {left_out} smaller ones are only in the CSV." if left_out else "")
            legend = _legend(evaluation) | {"the error": MARK}
            sections.append(_crops(f"{kind.capitalize()}: {number}", pictures[kind], note, legend))
    return sections


def _mismatches(evaluation: Evaluation, atlas: Atlas) -> list[Section]:
    threshold, pictures = mismatch_threshold(evaluation), pictures_by_kind(atlas.mismatches)
    sections: list[Section] = []
    for kind in (name.replace("_", " ") for name in MISMATCHES):
        if kind in pictures:
            note = f"Pixels that count as {kind} in the warping error at threshold {threshold:.1f}, largest first."
            if len(atlas.mismatches) == MOST_REGIONS:
                note += f" Only the largest {MOST_REGIONS} of all kinds are shown."
            legend = {"only in the truth": TRUTH, "only predicted": PREDICTION, kind: CONFUSED, "the error": MARK}
            sections.append(_crops(f"Warping, {kind}: {len(pictures[kind])}", pictures[kind], note, legend))
    return sections


def _suspicious(evaluation: Evaluation, atlas: Atlas) -> list[Section]:
    if not atlas.suspicious:
        return []
    note = (
        f"Here the prediction contradicts the truth with a probability of {CONFIDENT} or more. Either the network or "
        "the label is wrong; check these labels first."
    )
    legend = _legend(evaluation) | {"the contradiction": MARK}
    pictures = [crop.picture for crop in atlas.suspicious]
    return [_crops(f"Suspicious labels: {len(pictures)}", pictures, note, legend)]


def _crops(title: str, pictures: list[Picture], note: str, legend: Mapping[str, ArrayLike]) -> Pictures:
    return Pictures(title, pictures, 6 if len(pictures) <= 60 else 8, note, legend)
