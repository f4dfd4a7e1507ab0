"""One score of one image as a number. The records of the other files have all scores of a family, and pool images."""

from __future__ import annotations

from numpy.typing import ArrayLike

from septum.core.metrics import ctc, matching, overlap


def f1(truth: ArrayLike, prediction: ArrayLike, *, threshold: float = 0.5, ignore: ArrayLike | None = None) -> float:
    """F1 of instances: the harmonic mean of precision and recall. A match has an IoU of at least `threshold`.

    Parameters
    ----------
    truth, prediction : integer arrays of one shape, any number of axes
        0 is background, every other value one object.
    threshold : float
        Smallest IoU of a match, 0.5 to 1: below 0.5 a match would not be unique.
    ignore : bool array of that shape, optional
        True where pixels are left out of the score.

    Raises
    ------
    ConfigError
        For another threshold.
    ImageError
        If shapes differ, labels are not integers, or some are negative.

    Examples
    --------
    >>> f1([[1, 1, 0, 2]], [[1, 1, 0, 0]])          # one of two objects found: precision 1, recall 1/2
    0.6666666666666666
    """
    return _at(truth, prediction, threshold, ignore).f1


def average_precision(
    truth: ArrayLike, prediction: ArrayLike, *, threshold: float = 0.5, ignore: ArrayLike | None = None
) -> float:
    """Average precision of instances at one IoU: ``tp / (tp + fp + fn)``.

    Parameters and errors are those of :func:`f1`.

    Examples
    --------
    >>> average_precision([[1, 1, 0, 2]], [[1, 1, 0, 0]])
    0.5
    """
    return _at(truth, prediction, threshold, ignore).average_precision


def panoptic_quality(
    truth: ArrayLike, prediction: ArrayLike, *, threshold: float = 0.5, ignore: ArrayLike | None = None
) -> float:
    """Panoptic quality of instances: F1 times the mean IoU of the matches.

    Parameters and errors are those of :func:`f1`.

    Examples
    --------
    >>> panoptic_quality([[1, 1, 1, 2]], [[1, 1, 0, 0]])          # F1 2/3, IoU of the match 2/3
    0.4444444444444444
    """
    return _at(truth, prediction, threshold, ignore).panoptic_quality


def aggregated_jaccard(truth: ArrayLike, prediction: ArrayLike, *, ignore: ArrayLike | None = None) -> float:
    """Aggregated Jaccard index of instances (Kumar et al. 2017). Parameters and errors are those of :func:`f1`.

    Examples
    --------
    >>> aggregated_jaccard([[1, 1, 0, 2]], [[1, 1, 0, 0]])          # 2 pixels shared, 3 in the union
    0.6666666666666666
    """
    return matching.match(truth, prediction, ignore=ignore, thresholds=[0.5]).scores.aggregated_jaccard


def seg(truth: ArrayLike, prediction: ArrayLike, *, ignore: ArrayLike | None = None) -> float:
    """SEG of the Cell Tracking Challenge for one frame.

    The mean Jaccard index of the true objects, each with the predicted object that covers more than half of it, or 0 if
    there is none. Parameters and errors are those of :func:`f1`; also an ImageError without true objects.

    Examples
    --------
    >>> seg([[1, 1, 0, 2]], [[1, 1, 0, 0]])
    0.5
    """
    return ctc.pool([ctc.match_frame(truth, prediction, frame="0", ignore=ignore)]).seg_over_these_frames


def iou(truth: ArrayLike, prediction: ArrayLike, *, label: int = 1, ignore: ArrayLike | None = None) -> float | None:
    """Intersection over union of the pixels of one class.

    Parameters
    ----------
    truth, prediction : bool or integer arrays of one shape, any number of axes
        Class numbers; masks are classes 0 and 1.
    label : int
        The class.
    ignore : bool array of that shape, optional
        True where pixels are left out of the score.

    Returns
    -------
    float or None
        None if neither array has a pixel of the class.

    Raises
    ------
    ImageError
        If shapes differ, or the classes are not integers.

    Examples
    --------
    >>> iou([[1, 1, 1, 0]], [[0, 1, 1, 1]])
    0.5
    """
    return _class(truth, prediction, label, ignore).iou


def dice(truth: ArrayLike, prediction: ArrayLike, *, label: int = 1, ignore: ArrayLike | None = None) -> float | None:
    """Dice coefficient of the pixels of one class: ``2 * IoU / (1 + IoU)``. All else is as for :func:`iou`.

    Examples
    --------
    >>> dice([[1, 1, 1, 0]], [[0, 1, 1, 1]])
    0.6666666666666666
    """
    return _class(truth, prediction, label, ignore).dice


def _at(
    truth: ArrayLike, prediction: ArrayLike, threshold: float, ignore: ArrayLike | None
) -> matching.ThresholdScores:
    return matching.match(truth, prediction, ignore=ignore, thresholds=[threshold]).scores.per_threshold[0]


def _class(truth: ArrayLike, prediction: ArrayLike, label: int, ignore: ArrayLike | None) -> overlap.ClassOverlap:
    classes = overlap.class_overlap(truth, prediction, classes=[label], ignore=ignore).classes
    return next(each for each in classes if each.label == label)
