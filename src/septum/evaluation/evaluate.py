"""Predictions x truth -> one record per image, by the measures that fit the data."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from septum.choices import Kind
from septum.core.metrics import ctc, isbi
from septum.core.metrics.checks import check_same_shape
from septum.core.metrics.overlap import Scores, overlap
from septum.core.metrics.surface import surface_distance
from septum.data.stored import PixelSize
from septum.errors import ConfigError, ImageError, did_you_mean
from septum.evaluation.cases import Case, Cases, cases_from_arrays, numbers
from septum.evaluation.object_errors import compare_instances, compare_pieces
from septum.evaluation.pairing import cases_from_files
from septum.evaluation.reading import Arrays, Reading, read, survey, without_unannotated
from septum.evaluation.record import Evaluation, ImageRecord
from septum.words import count

__all__ = ["MEASURES", "Evaluation", "evaluate_arrays", "evaluate_files"]

MEASURES = ("matching", "overlap", "isbi", "ctc")
WORKERS = min(4, os.cpu_count() or 1)  # images scored at the same time
FAR_BETTER = 0.2  # of Dice: by so much the inverse must beat a map for a warning

Progress = Callable[[int, int], None]


def evaluate_files(
    predictions: str | Path,
    truth: str | Path,
    *,
    kind: Kind | None = None,
    metrics: Sequence[str] | None = None,
    ignore: str | Path | None = None,
    images: str | Path | None = None,
    invert: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Score files or folders of predictions against files or folders of truth.

    Parameters
    ----------
    predictions, truth : path
        Paired as `septum.evaluation.pairing.cases_from_files` says. Predictions are label images or maps of
        probabilities (floats in 0..1, or 8 bit).
    kind : {"instances", "classes"}, optional
        What the labels are; by default read from the truth, and said in `Evaluation.notes`.
    metrics : sequence of {"matching", "overlap", "isbi", "ctc"}, optional
        By default those that fit the data; `Evaluation.measures` says which, and why.
    ignore, images : path, optional
        Ignore masks (non-zero takes part in nothing), and images for the report; by default ``ignore/`` and
        ``images/`` beside the truth.
    invert : bool
        Score the inverse of maps or masks: where membranes were given as foreground.
    progress : function of (done, total), optional
        Called after every image.

    Raises
    ------
    DatasetError
        Files without partner.
    ImageError
        Files that cannot be read, shapes that differ, labels that are not whole numbers, an empty truth,
        probabilities outside 0..1.
    ConfigError
        Measures that are unknown or do not fit the data.
    """
    paths = [None if path is None else Path(path) for path in (ignore, images)]
    found = cases_from_files(Path(predictions), Path(truth), ignore=paths[0], images=paths[1])
    return _evaluate(found, kind, metrics, invert, progress)


def evaluate_arrays(
    predictions: Sequence[np.ndarray],
    truth: Sequence[np.ndarray],
    *,
    kind: Kind | None = None,
    metrics: Sequence[str] | None = None,
    probabilities: Sequence[np.ndarray | None] | None = None,
    ignore: Sequence[np.ndarray | None] | None = None,
    images: Sequence[np.ndarray | None] | None = None,
    pixel_size: PixelSize | None = None,
    invert: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Score arrays; as `evaluate_files`.

    Parameters
    ----------
    predictions : sequence of (Y, X) integer arrays, or of (Y, X) or (K, Y, X) float arrays
        Labels, or the probability of foreground or of every class.
    truth : sequence of (Y, X) integer arrays
    probabilities : sequence of (Y, X) or (K, Y, X) float arrays or None, optional
        Beside predicted labels.
    ignore : sequence of (Y, X) bool arrays or None, optional
        True where a pixel takes part in nothing.
    images : sequence of (Y, X) or (C, Y, X) arrays or None, optional
        For the report.
    pixel_size : (y, x) in micrometre per pixel, optional
        For distances in micrometres.
    kind, metrics, invert, progress
        As in `evaluate_files`.

    Examples
    --------
    >>> truth, prediction = np.array([[1, 1, 0, 2]]), np.array([[3, 3, 0, 0]])
    >>> evaluation = evaluate_arrays([prediction], [truth], kind="instances")
    >>> evaluation.scores["recall"].value, evaluation.images[0].objects.count("missed")
    (0.5, 1)
    """
    found = cases_from_arrays(
        predictions, truth, probabilities=probabilities, ignore=ignore, images=images, pixel_size=pixel_size
    )
    return _evaluate(found, kind, metrics, invert, progress)


def _evaluate(
    found: Cases, kind: Kind | None, metrics: Sequence[str] | None, invert: bool, progress: Progress | None
) -> Evaluation:
    _check_names(metrics)
    decided = survey(found, kind, invert=invert)
    reading = decided.reading
    measures = _fitting(reading, found.challenge) if metrics is None else _asked(metrics, reading)
    score = partial(_score, reading=reading, measures=tuple(measures))
    images: list[ImageRecord] = []
    with ThreadPoolExecutor(WORKERS) as workers:
        for done, record in enumerate(workers.map(score, found.images), 1):
            images.append(record)
            if progress is not None:
                progress(done, len(found.images))
        detections = tuple(workers.map(_detect, found.detections)) if "ctc" in measures else ()
    evaluation = Evaluation(
        kind=reading.kind,
        classes=reading.values,
        measures=measures,
        notes=(found.rule, *decided.notes, *_left_out(images, measures)),
        warnings=decided.warnings,
        images=tuple(images),
        detections=detections if found.challenge else None,
    )
    found_out = [*_empty(evaluation), *_inverse(evaluation.overlap, reading), *_nothing_left(evaluation)]
    return replace(evaluation, warnings=(*decided.warnings, *found_out))


def _check_names(metrics: Sequence[str] | None) -> None:
    for name in metrics or ():
        if name not in MEASURES:
            raise ConfigError(f"there are no measures {name!r}{did_you_mean(name, MEASURES)}")
    if metrics is not None and not metrics:
        raise ConfigError(f"no measures were asked for; known are: {', '.join(MEASURES)}")


def _fitting(reading: Reading, challenge: bool) -> dict[str, str]:
    """The measures that fit the data, and why."""
    if reading.kind == "instances":
        measures = {
            "matching": "missed, invented, split and merged objects, since the truth numbers instances",
            "overlap": "of the foreground, as for every label image",
        }
        return measures | ({"ctc": "SEG and DET, since these are challenge folders"} if challenge else {})
    measures = {"overlap": "pixels and outlines of each class, since the truth holds classes"}
    if reading.two_classes and reading.has_probabilities:
        measures["isbi"] = "the measures of ISBI 2012 at ten thresholds, since there are maps for a mask of two classes"
    return measures


def _asked(metrics: Sequence[str], reading: Reading) -> dict[str, str]:
    """The measures that were asked for; ConfigError if they cannot be taken."""
    for name in metrics:
        if name in ("matching", "ctc") and reading.kind != "instances":
            raise ConfigError(
                f"the measures {name!r} need instances, but the truth holds classes; "
                'add --kind instances (kind="instances") to take each connected piece of a mask as one object'
            )
        if name == "isbi" and not reading.two_classes:
            what = "numbers instances" if reading.kind == "instances" else f"has {len(reading.values)} classes"
            raise ConfigError(
                f"the measures 'isbi' need a mask of two classes, membrane 0 and cell interior, but the truth {what}; "
                "choose others, or give the mask"
            )
    return {name: "as told" for name in MEASURES if name in metrics}


def _score(case: Case, reading: Reading, measures: Sequence[str]) -> ImageRecord:
    """Measure one image; the only place where its arrays are in memory."""
    arrays = read(case, reading)
    truth, labels, hidden = arrays.truth, arrays.labels, arrays.hidden
    if hidden is not None and hidden.all():
        raise ImageError(f"{case.truth_name} is ignored as a whole, so there is nothing to score; leave it out")
    instances = reading.kind == "instances"
    pixels = (truth > 0, labels > 0) if instances else (truth, labels)
    compared = labels if arrays.unannotated is None else without_unannotated(labels, truth, arrays.unannotated)
    outlines = {}
    if "overlap" in measures and not instances:
        outlines = {
            label: surface_distance(truth == label, labels == label, pixel_size=case.pixel_size, ignore=hidden)
            for label in range(1, len(reading.values))
        }
    return ImageRecord(
        name=case.name,
        overlap=overlap(*pixels, classes=range(len(reading.values)), ignore=hidden),
        surface=outlines,
        objects=compare_instances(truth, compared, hidden)
        if instances
        else compare_pieces(truth, labels, hidden, reading.values),
        # the challenge knows no unannotated pixels: true objects count as they are
        ctc=ctc.match_frame(truth, labels, frame=case.frame or case.name, ignore=arrays.ignore)
        if "ctc" in measures
        else None,
        isbi=_count_slice(case, arrays) if "isbi" in measures else (),
        video=case.video,
        ignored_pixels=0 if arrays.ignore is None else int(arrays.ignore.sum()),
        partly_annotated=arrays.unannotated is not None,
        arrays=partial(read, case, reading),
        image=case.image,
    )


def _count_slice(case: Case, arrays: Arrays) -> tuple[isbi.SliceCounts, ...]:
    """Counts at ten thresholds; none for a slice without cell interior, where nothing is defined."""
    if not (arrays.truth > 0 if arrays.ignore is None else (arrays.truth > 0) & ~arrays.ignore).any():
        return ()
    interior = arrays.labels.astype(np.float32) if arrays.foreground is None else arrays.foreground
    return tuple(isbi.count_slice(arrays.truth, interior, arrays.ignore, name=case.name))


def _detect(case: Case) -> ctc.FrameScores:
    """Compare the markers of a challenge frame with its mask."""
    assert case.prediction is not None  # masks of the challenge are labels
    markers, labels = case.truth(), numbers(case.prediction(), case.prediction_name)
    check_same_shape(case.prediction_name, labels, markers, case.truth_name)
    ignore = case.ignore() if case.ignore is not None else None
    return ctc.match_frame(markers, labels, frame=f"{case.video}_{case.frame}", ignore=ignore)


def _left_out(images: Sequence[ImageRecord], measures: dict[str, str]) -> list[str]:
    """Say what could not be compared."""
    partly = [image.name for image in images if image.partly_annotated]
    without = [image.name for image in images if not image.isbi] if "isbi" in measures else []
    ignored = sum(image.ignored_pixels for image in images)
    notes = [f"{count(ignored, 'pixel')} ignored: they take part in nothing"] if ignored else []
    if partly:
        notes.append(
            f"only partly annotated, since some marked cell is not outlined: {', '.join(partly)}; "
            "the background around it is not compared, except for SEG and DET"
        )
    if without:
        notes.append(f"isbi leaves out {', '.join(without)}: no cell interior in the truth")
    return notes


def _empty(evaluation: Evaluation) -> list[str]:
    """Warn of predictions with nothing in them."""
    if any(each.label > 0 and each.prediction_pixels > 0 for each in evaluation.overlap.classes):
        return []
    return ["the predictions are empty: no image has a pixel that is predicted as anything but background"]


def _inverse(pixels: Scores, reading: Reading) -> list[str]:
    """Warn of maps or masks whose inverse fits the truth far better; that of an empty one does, and says nothing."""
    foreground = pixels.classes[1]
    if not reading.two_classes or foreground.prediction_pixels == 0:
        return []
    # the inverse predicts what was not predicted
    shared = foreground.truth_pixels - foreground.intersection
    both = foreground.truth_pixels + pixels.n_pixels - foreground.prediction_pixels
    dice, inverse = foreground.dice or 0.0, 2 * shared / both if both else 0.0
    if inverse < dice + FAR_BETTER:
        return []
    cure = "leave --invert out" if reading.invert else "--invert applies it"
    return [
        f"the inverse of the predictions would score far better, Dice {inverse:.4f} instead of {dice:.4f}; "
        f"if membranes were given as foreground, {cure}"
    ]


def _nothing_left(evaluation: Evaluation) -> list[str]:
    """Warn of a warping error that is small because the thresholded maps are empty."""
    if evaluation.isbi is None:
        return []
    best = evaluation.isbi.best["warping_error"]
    at = next(row for row in evaluation.isbi.per_threshold if row.threshold == best.threshold)
    if at.foreground_fraction > 0:
        return []
    return [
        f"the best warping error, {best.value:.6f}, says nothing: above the threshold {best.threshold:.1f} the maps "
        "are empty, without splits and mergers; look at the other thresholds"
    ]
