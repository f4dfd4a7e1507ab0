"""Predictions x truth -> an evaluation: one record per image, with the measures that fit the data."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np

from septum.choices import Kind
from septum.core.metrics import ctc, isbi
from septum.core.metrics.checks import check_same_shape
from septum.core.metrics.overlap import OverlapScores, class_overlap
from septum.core.metrics.surface import surface_distance
from septum.data.labels import as_label_image
from septum.data.stored import PixelSize
from septum.errors import ConfigError, ImageError, did_you_mean
from septum.evaluation.cases import Case, Cases, cases_from_arrays
from septum.evaluation.object_errors import compare_components, compare_instances
from septum.evaluation.pairing import cases_from_files
from septum.evaluation.reading import Arrays, Reading, read, survey, without_unannotated
from septum.evaluation.record import Evaluation, ImageRecord
from septum.words import plural

__all__ = ["MEASURES", "Evaluation", "evaluate_arrays", "evaluate_files"]

MEASURES = ("matching", "overlap", "isbi", "ctc")
WORKERS = min(4, os.cpu_count() or 1)  # threads, each with one image in memory
INVERSE_BETTER_BY = 0.2  # Dice; warn if the inverse of the predictions scores this much higher

ProgressCallback = Callable[[int, int], None]  # (images done, images in all)


def evaluate_files(
    predictions: str | Path,
    truth: str | Path,
    *,
    kind: Kind | None = None,
    metrics: Sequence[str] | None = None,
    ignore: str | Path | None = None,
    images: str | Path | None = None,
    invert: bool = False,
    progress: ProgressCallback | None = None,
) -> Evaluation:
    """Score files or folders of predictions against files or folders of truth.

    Parameters
    ----------
    predictions, truth : path
        Paired as described in `septum.evaluation.pairing.cases_from_files`. Predictions are label images or probability
        maps (floats in 0..1, or 8 bit).
    kind : {"instances", "classes"}, optional
        What the labels mean. Default: detected from the truth and reported in `Evaluation.notes`.
    metrics : sequence of {"matching", "overlap", "isbi", "ctc"}, optional
        Default: those that fit the data; `Evaluation.measures` says which, and why.
    ignore, images : path, optional
        Ignore masks (non-zero pixels are not scored) and images for the report. Default: ``ignore/`` and ``images/``
        beside the truth.
    invert : bool
        Score the inverse of maps or masks; for predictions with membranes as foreground.
    progress : function of (images done, images in all), optional
        Called after every image.

    Raises
    ------
    DatasetError
        A file has no partner.
    ImageError
        A file cannot be read, shapes differ, labels are not whole numbers, the truth is empty, or probabilities lie
        outside 0..1.
    ConfigError
        A measure is unknown or does not fit the data.
    """
    paths = [None if path is None else Path(path) for path in (ignore, images)]
    cases = cases_from_files(Path(predictions), Path(truth), ignore=paths[0], images=paths[1])
    return _evaluate(cases, kind, metrics, invert, progress)


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
    progress: ProgressCallback | None = None,
) -> Evaluation:
    """Score predictions against the truth.

    Parameters
    ----------
    predictions : sequence of (Y, X) integer arrays, or of (Y, X) or (K, Y, X) float arrays
        Labels, or probabilities: one map of the foreground or one map per class.
    truth : sequence of (Y, X) integer arrays
    probabilities : sequence of (Y, X) or (K, Y, X) float arrays or None, optional
        In addition to predicted labels.
    ignore : sequence of (Y, X) bool arrays or None, optional
        True where a pixel is not scored.
    images : sequence of (Y, X) or (C, Y, X) arrays or None, optional
        For the report.
    pixel_size : (y, x) in micrometre per pixel, optional
        For distances in micrometres.
    kind : {"instances", "classes"}, optional
        What the labels mean. By default detected from the truth; `Evaluation.notes` reports it.
    metrics : sequence of {"matching", "overlap", "isbi", "ctc"}, optional
        By default those that fit the data; `Evaluation.measures` says which, and why.
    invert : bool
        Score the inverse of maps or masks, for predictions whose foreground is the membranes.
    progress : function of (done, total), optional
        Called after every image.

    Returns
    -------
    Evaluation
        `scores` (name -> value with its 95 % interval), `images` (one record per image); `print` shows all of it.

    Raises
    ------
    DatasetError
        Not as many predictions as truths.
    ImageError
        Shapes that differ, labels that are not whole numbers, an empty truth, probabilities outside 0..1.
    ConfigError
        Measures that are unknown or do not fit the data.

    Examples
    --------
    >>> truth, prediction = np.array([[1, 1, 0, 2]]), np.array([[3, 3, 0, 0]])
    >>> evaluation = evaluate_arrays([prediction], [truth], kind="instances")
    >>> evaluation.scores["recall"].value, evaluation.images[0].objects.count("missed")
    (0.5, 1)
    """
    cases = cases_from_arrays(
        predictions, truth, probabilities=probabilities, ignore=ignore, images=images, pixel_size=pixel_size
    )
    return _evaluate(cases, kind, metrics, invert, progress)


def _evaluate(
    cases: Cases, kind: Kind | None, metrics: Sequence[str] | None, invert: bool, progress: ProgressCallback | None
) -> Evaluation:
    _check_names(kind, metrics)
    decided = survey(cases, kind, invert=invert)
    reading = decided.reading
    measures = _default_measures(reading, cases.challenge) if metrics is None else _chosen_measures(metrics, reading)
    score = partial(_score, reading=reading, measures=tuple(measures))
    images: list[ImageRecord] = []
    with ThreadPoolExecutor(WORKERS) as workers:
        for done, record in enumerate(workers.map(score, cases.images), 1):
            images.append(record)
            if progress is not None:
                progress(done, len(cases.images))
        detections = tuple(workers.map(_detect, cases.detections)) if "ctc" in measures else ()
    evaluation = Evaluation(
        kind=reading.kind,
        classes=reading.values,
        measures=measures,
        notes=(cases.rule, *decided.notes, *_exclusion_notes(images, measures)),
        warnings=decided.warnings,
        images=tuple(images),
        detections=detections if cases.challenge else None,
    )
    later = [
        *_empty_warning(evaluation),
        *_inverse_warning(evaluation.overlap, reading),
        *_empty_map_warning(evaluation),
    ]
    return replace(evaluation, warnings=(*decided.warnings, *later))


def _check_names(kind: str | None, metrics: Sequence[str] | None) -> None:
    if kind is not None and kind not in get_args(Kind):
        raise ConfigError(f"labels have no kind {kind!r}{did_you_mean(str(kind), get_args(Kind))}")
    for name in metrics or ():
        if name not in MEASURES:
            raise ConfigError(f"unknown measure {name!r}{did_you_mean(name, MEASURES)}")
    if metrics is not None and not metrics:
        raise ConfigError(f"the list of measures is empty; choose from {', '.join(MEASURES)}")


def _default_measures(reading: Reading, challenge: bool) -> dict[str, str]:
    """Return the measures that fit the data, and why."""
    if reading.kind == "instances":
        measures = {
            "matching": "matched, missed, invented, split and merged objects; the truth contains instances",
            "overlap": "pixels of the foreground; for every label image",
        }
        return measures | (
            {"ctc": "SEG and DET; these are folders of the Cell Tracking Challenge"} if challenge else {}
        )
    measures = {"overlap": "pixels and outlines of every class; the truth contains classes"}
    if reading.two_classes and reading.has_probabilities:
        measures["isbi"] = (
            "the ISBI 2012 measures at ten thresholds; the predictions are probability maps, the truth is a mask"
        )
    return measures


def _chosen_measures(metrics: Sequence[str], reading: Reading) -> dict[str, str]:
    """Return the measures the user chose; ConfigError if they do not fit the data."""
    for name in metrics:
        if name in ("matching", "ctc") and reading.kind != "instances":
            raise ConfigError(
                f"measure {name!r} needs instances, but the truth contains classes; "
                'add --kind instances (kind="instances") to count every connected component of a mask as one object'
            )
        if name == "isbi" and not reading.two_classes:
            what = "contains instances" if reading.kind == "instances" else f"has {len(reading.values)} classes"
            raise ConfigError(
                f"measure 'isbi' needs a mask of two classes, membrane 0 and cell interior, but the truth {what}; "
                "choose other measures, or give such a mask as truth"
            )
    return {name: "as specified" for name in MEASURES if name in metrics}


def _score(case: Case, reading: Reading, measures: Sequence[str]) -> ImageRecord:
    """Score one image; its arrays are in memory only here."""
    arrays = read(case, reading)
    truth, labels, hidden = arrays.truth, arrays.labels, arrays.hidden
    if hidden is not None and hidden.all():
        raise ImageError(f"every pixel of {case.truth_name} is ignored, so nothing can be scored; leave this image out")
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
        overlap=class_overlap(*pixels, classes=range(len(reading.values)), ignore=hidden),
        surface=outlines,
        objects=compare_instances(truth, compared, hidden)
        if instances
        else compare_components(truth, labels, hidden, reading.values),
        # the challenge has no ignored cells: true objects count in full
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
    """Return the counts at ten thresholds; none for a slice without cell interior, which has no scores."""
    if not (arrays.truth > 0 if arrays.ignore is None else (arrays.truth > 0) & ~arrays.ignore).any():
        return ()
    interior = arrays.labels.astype(np.float32) if arrays.foreground is None else arrays.foreground
    return tuple(isbi.count_slice(arrays.truth, interior, arrays.ignore, name=case.name))


def _detect(case: Case) -> ctc.FrameScores:
    """Compare the markers of a challenge frame with its mask."""
    assert case.prediction is not None  # predictions in challenge folders are labels
    markers, labels = case.truth(), as_label_image(case.prediction(), case.prediction_name)
    check_same_shape(case.prediction_name, labels, markers, case.truth_name)
    ignore = case.ignore() if case.ignore is not None else None
    return ctc.match_frame(markers, labels, frame=f"{case.video}_{case.frame}", ignore=ignore)


def _exclusion_notes(images: Sequence[ImageRecord], measures: dict[str, str]) -> list[str]:
    """Return notes on what is not compared."""
    partly = [image.name for image in images if image.partly_annotated]
    without = [image.name for image in images if not image.isbi] if "isbi" in measures else []
    ignored = sum(image.ignored_pixels for image in images)
    notes = [f"{plural(ignored, 'pixel')} ignored: not scored"] if ignored else []
    if partly:
        notes.append(
            f"only partly annotated (some marked cells have no outline): {', '.join(partly)}; "
            "the background around these cells is not compared, except for SEG and DET"
        )
    if without:
        notes.append(f"not scored by isbi, since the truth has no cell interior: {', '.join(without)}")
    return notes


def _empty_warning(evaluation: Evaluation) -> list[str]:
    """Return a warning if all predictions are empty."""
    if any(each.label > 0 and each.prediction_pixels > 0 for each in evaluation.overlap.classes):
        return []
    return ["the predictions are empty: every pixel of every image is predicted as background"]


def _inverse_warning(pixels: OverlapScores, reading: Reading) -> list[str]:
    """Return a warning if the inverse of maps or masks fits the truth far better; not for empty predictions."""
    foreground = pixels.classes[1]
    if not reading.two_classes or foreground.prediction_pixels == 0:
        return []
    shared = foreground.truth_pixels - foreground.intersection
    both = foreground.truth_pixels + pixels.n_pixels - foreground.prediction_pixels
    dice, inverse = foreground.dice or 0.0, 2 * shared / both if both else 0.0
    if inverse < dice + INVERSE_BETTER_BY:
        return []
    fix = "leave --invert out" if reading.invert else "add --invert"
    return [
        f"the inverse of the predictions would score far better (Dice {inverse:.4f} instead of {dice:.4f}); "
        f"if they have membranes as foreground, {fix}"
    ]


def _empty_map_warning(evaluation: Evaluation) -> list[str]:
    """Return a warning if the warping error is small only because the thresholded maps are empty."""
    if evaluation.isbi is None:
        return []
    best = evaluation.isbi.best["warping_error"]
    at = next(row for row in evaluation.isbi.per_threshold if row.threshold == best.threshold)
    if at.foreground_fraction > 0:
        return []
    return [
        f"the best warping error ({best.value:.6f}) is meaningless: at its threshold ({best.threshold:.1f}) the maps "
        "are empty, so nothing can be split or merged; look at the other thresholds"
    ]
