"""The report of an evaluation: scores with intervals, curves, overlays, and an atlas of every error."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from numpy.typing import ArrayLike

from septum.core.metrics.confidence import Interval
from septum.core.metrics.warping import MISMATCHES
from septum.core.overlay import AGREEMENT, CONFUSED, MARK, PREDICTION, TRUTH
from septum.evaluation.record import NAMES, Evaluation
from septum.evaluation.tables import (
    between,
    called,
    class_rows,
    columns,
    listed,
    shown,
    split_by_class,
    threshold_scores,
)
from septum.report.atlas import CONFIDENT, MOST_IMAGES, MOST_REGIONS, Atlas, by_kind, make_atlas, mismatch_threshold
from septum.report.page import (
    Curves,
    Headline,
    Number,
    Picture,
    Pictures,
    Section,
    Table,
    Text,
    training_sections,
    write_page,
)
from septum.words import count

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
_WHAT = {
    "missed": "True objects that no predicted one overlaps with an IoU of 0.5 or more.",
    "invented": "Predicted objects that no true one overlaps with an IoU of 0.5 or more.",
    "split": "True objects that two or more predicted ones share.",
    "merged": "Predicted objects that cover two or more true ones.",
    "mislabelled": "True objects most of which is predicted as another class.",
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
        Its images are read once more, one at a time.
    other : Evaluation, optional
        Of other predictions on the same truth, for the difference of the scores.
    run : Path, optional
        The run folder of the training, for its curves.

    Raises
    ------
    ImageError
        An image differs in size from its truth.
    ModelError
        There is no run in `run`.
    OutputError
        The page cannot be written.
    """
    training = _training(run) if run is not None else []
    atlas = make_atlas(evaluation)
    sections: list[Section] = [Headline(_headline(evaluation))]
    warnings = evaluation.warnings_with(other)
    if warnings:
        sections.append(Text("Warnings", [*map(_sentence, warnings)]))
    why = [f"{name}: {reason}." for name, reason in evaluation.measures.items()]
    sections.append(Text("What was measured", [*map(_sentence, evaluation.notes), *why]))
    sections += _curves(evaluation)
    sections += _score_tables("Scores over all images", "value", evaluation.scores, evaluation)
    if other is not None:
        title = "Difference to the other predictions"
        sections += _score_tables(title, "difference", evaluation.compare(other), evaluation)
    sections += [*_image_table(evaluation), *training, *_wholes(evaluation, atlas), *_errors(evaluation, atlas)]
    sections += [*_mismatches(evaluation, atlas), *_suspicious(evaluation, atlas)]
    subtitle = f"{count(len(evaluation.images), 'image')}, {evaluation.kind}"
    write_page(Path(path), title="Predictions against the truth", subtitle=subtitle, sections=sections)
    return Path(path)


def _training(run: Path) -> list[Section]:
    from septum.training.run import RunFolder

    folder = RunFolder(run)
    folder.config()  # says so if there is no run
    return training_sections(folder.records())


def _headline(evaluation: Evaluation) -> list[Number]:
    named = {name: label for name, label in _HEADLINE.items() if name in evaluation.scores}
    if evaluation.kind == "instances" and len(named) > 1:
        named.pop("pixel_error", None)
    numbers = []
    for name, label in named.items():
        interval = evaluation.scores[name]
        numbers.append(Number(shown(interval.value), label, between(interval)))
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
        note = "How the scores fall when a matched object must overlap its partner better."
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
        note = f"Best V_Rand: {shown(best.value)} at the threshold {best.threshold:.1f}."
        across = "threshold of the probability"
        sections.append(Curves("ISBI 2012, by threshold", across, "score", series, note=note, y_range=(0, 1)))
        warping = {"warping error": (x, [row["warping error"] for row in table])}
        best = evaluation.isbi.best["warping_error"]
        note = f"Best: {shown(best.value)} at the threshold {best.threshold:.1f}."
        sections.append(Curves("Warping error, by threshold", across, "error", warping, note=note))
    return sections


def _score_tables(title: str, column: str, scores: Mapping[str, Interval], evaluation: Evaluation) -> list[Section]:
    """A line per score; a line per class if there are many."""
    by_class, others = split_by_class(evaluation, [name for name in listed(evaluation) if name in scores])
    reasons = {scores[name].reason for name in others}
    for_all = reasons.pop() if len(reasons) == 1 else ""  # the one reason why there is no interval at all
    header = ["score", column] if for_all else ["score", column, "95 % interval", "resampled over"]
    rows = []
    for name, interval in ((name, scores[name]) for name in others):
        over = interval.reason or count(interval.n, interval.unit)
        row = [called(evaluation, name), shown(interval.value), between(interval) or "–", over]
        rows.append(row[: len(header)])
    by_object = any(scores[name].unit == "object" and scores[name].low is not None for name in others)
    note = "Resampling objects of a few images says how sure a score is for these images, not for others." * by_object
    tables: list[Section] = [Table(title, header, rows, f"No intervals ({for_all})." if for_all else note)]
    if by_class:
        names = ["class", *(NAMES[name] for name in by_class)]
        tables.append(Table(f"{title}, by class", names, class_rows(evaluation, scores, by_class)))
    return tables


def _sentence(said: str) -> str:
    """Begun with a capital letter, ended with a full stop."""
    return said[0].upper() + said[1:] + "." * (not said.endswith("."))


def _image_table(evaluation: Evaluation) -> list[Section]:
    names, kinds = columns(evaluation), evaluation.error_kinds
    header = ["image", "true objects", *kinds, *(called(evaluation, name) for name in names)]
    rows: list[list[object]] = []
    for k, image in enumerate(evaluation.images):
        scores = evaluation.image_scores(k)
        counts = [image.objects.scores.n_truth, *(image.objects.count(kind) for kind in kinds)]
        rows.append([image.name, *counts, *(scores[name] for name in names)])
    return [Table("Image by image", header, rows)]


def _legend(evaluation: Evaluation) -> dict[str, ArrayLike]:
    """What colours say where a prediction is drawn against its truth."""
    legend: dict[str, ArrayLike] = {"only in the truth": TRUTH, "only predicted": PREDICTION}
    if evaluation.kind == "instances":
        return legend | {"outlines of both": AGREEMENT}
    return legend | ({"another class": CONFUSED} if len(evaluation.classes) > 2 else {})


def _wholes(evaluation: Evaluation, atlas: Atlas) -> list[Section]:
    hidden = len(evaluation.images) - MOST_IMAGES
    alone = all(image.image is None for image in evaluation.images)
    note = "" if alone else "Each image, its truth, and then the prediction against the truth, where the colours mean:"
    if hidden > 0:
        note = f"{count(hidden, 'more image')} not shown. {note}"
    if any(image.ignored_pixels for image in evaluation.images):
        note = f"Nothing is drawn where pixels are ignored. {note}"
    return [Pictures("Images, truth and predictions", atlas.wholes, 3, note, _legend(evaluation))]


def _errors(evaluation: Evaluation, atlas: Atlas) -> list[Section]:
    if not atlas.objects:
        return [Text("Errors", ["No object is missed, invented, split or merged."])]
    sections: list[Section] = []
    kinds = by_kind(atlas.objects)
    for kind in evaluation.error_kinds:
        if kind in kinds:
            number = sum(image.objects.count(kind) for image in evaluation.images)
            left = number - len(kinds[kind])
            note = _WHAT[kind] + " Worst first, by the pixels that it costs."
            note += f" {left} smaller ones are in the CSV only." if left else ""
            legend = _legend(evaluation) | {"where to look": MARK}
            sections.append(_crops(f"{kind.capitalize()}: {number}", kinds[kind], note, legend))
    return sections


def _mismatches(evaluation: Evaluation, atlas: Atlas) -> list[Section]:
    threshold, kinds = mismatch_threshold(evaluation), by_kind(atlas.mismatches)
    sections: list[Section] = []
    for kind in (name.replace("_", " ") for name in MISMATCHES):
        if kind in kinds:
            note = f"Mismatches of the warping error at the threshold {threshold:.1f}, largest first."
            if len(atlas.mismatches) == MOST_REGIONS:
                note += f" The largest {MOST_REGIONS} of all types are shown."
            legend = {"only in the truth": TRUTH, "only predicted": PREDICTION, kind: CONFUSED, "where to look": MARK}
            sections.append(_crops(f"Warping, {kind}: {len(kinds[kind])}", kinds[kind], note, legend))
    return sections


def _suspicious(evaluation: Evaluation, atlas: Atlas) -> list[Section]:
    if not atlas.suspicious:
        return []
    note = (
        f"Here the prediction is confident (probability {CONFIDENT} or more) and contradicts the truth. Either the "
        "network is wrong, or the label is: look at these before you trust either."
    )
    legend = _legend(evaluation) | {"where to look": MARK}
    return [
        _crops(
            f"Suspicious labels: {len(atlas.suspicious)}", [entry.picture for entry in atlas.suspicious], note, legend
        )
    ]


def _crops(title: str, pictures: list[Picture], note: str, legend: Mapping[str, ArrayLike]) -> Pictures:
    return Pictures(title, pictures, 6 if len(pictures) <= 60 else 8, note, legend)
