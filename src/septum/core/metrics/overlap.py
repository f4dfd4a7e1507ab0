"""Overlap of class labels, pixel by pixel: intersection over union, Dice and pixel error.

Ignored pixels count nowhere. Several images pool by adding up their pixels; for the mean over images, take each one's
scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from numpy.typing import ArrayLike

from septum.core.metrics.contingency import contingency
from septum.errors import ImageError


@dataclass(frozen=True)
class ClassOverlap:
    """One class; the scores are None if neither truth nor prediction has a pixel of it."""

    label: int
    intersection: int  # pixels that truth and prediction share
    truth_pixels: int
    prediction_pixels: int
    iou: float | None
    dice: float | None


@dataclass(frozen=True)
class OverlapScores:
    """One image, or several pooled."""

    n_pixels: int
    wrong_pixels: int
    pixel_error: float  # wrong_pixels / n_pixels
    classes: tuple[ClassOverlap, ...]  # sorted by label


def class_overlap(
    truth: ArrayLike, prediction: ArrayLike, *, classes: Sequence[int] = (0, 1), ignore: ArrayLike | None = None
) -> OverlapScores:
    """Compare two class images.

    Parameters
    ----------
    truth, prediction : integer or bool arrays of one shape, any number of axes
        The class of each pixel.
    classes : sequence of int
        Classes to report in any case; those that occur are added.
    ignore : bool array of that shape, optional
        True where pixels are left out of the score.

    Raises
    ------
    ImageError
        If shapes differ, labels are not whole numbers, some are negative, or no pixel is left to compare.

    Examples
    --------
    >>> import numpy as np
    >>> scores = class_overlap(np.array([[0, 1, 1, 1]]), np.array([[0, 0, 1, 1]]))
    >>> scores.pixel_error, scores.classes[1].iou, scores.classes[1].dice
    (0.25, 0.6666666666666666, 0.8)
    """
    table = contingency(truth, prediction, ignore)
    if table.n_pixels == 0:
        raise ImageError("there is no pixel to compare: the image is empty or completely ignored; leave it out")
    truth_pixels = dict(zip(table.truth_ids.tolist(), table.truth_pixels.tolist(), strict=True))
    prediction_pixels = dict(zip(table.prediction_ids.tolist(), table.prediction_pixels.tolist(), strict=True))
    same = table.truth_ids[table.i] == table.prediction_ids[table.j]
    shared = dict(zip(table.truth_ids[table.i[same]].tolist(), table.overlap[same].tolist(), strict=True))
    # the table has no background: what is left over in each image, and in both
    truth_pixels[0] = table.n_pixels - int(table.truth_pixels.sum())
    prediction_pixels[0] = table.n_pixels - int(table.prediction_pixels.sum())
    shared[0] = truth_pixels[0] - int(table.prediction_pixels.sum() - table.overlap.sum())
    labels = sorted({*classes, *truth_pixels, *prediction_pixels})
    return _scores(
        table.n_pixels,
        [_class(c, shared.get(c, 0), truth_pixels.get(c, 0), prediction_pixels.get(c, 0)) for c in labels],
    )


def pool(images: Sequence[OverlapScores]) -> OverlapScores:
    """Add up the pixels of several images, class by class.

    Raises
    ------
    ImageError
        There is no image.
    """
    if not images:
        raise ImageError("there is no image to score; give at least one")
    labels = sorted({each.label for image in images for each in image.classes})
    classes = []
    for label in labels:
        parts = [each for image in images for each in image.classes if each.label == label]
        classes.append(
            _class(
                label,
                sum(part.intersection for part in parts),
                sum(part.truth_pixels for part in parts),
                sum(part.prediction_pixels for part in parts),
            )
        )
    return _scores(sum(image.n_pixels for image in images), classes)


def _class(label: int, intersection: int, truth_pixels: int, prediction_pixels: int) -> ClassOverlap:
    both = truth_pixels + prediction_pixels
    iou, dice = (intersection / (both - intersection), 2 * intersection / both) if both else (None, None)
    return ClassOverlap(label, intersection, truth_pixels, prediction_pixels, iou, dice)


def _scores(n_pixels: int, classes: Sequence[ClassOverlap]) -> OverlapScores:
    wrong = n_pixels - sum(each.intersection for each in classes)
    return OverlapScores(n_pixels, wrong, wrong / n_pixels, tuple(classes))
