"""The measures of the Cell Tracking Challenge that need no tracks: SEG, and DET, which is the detection part of TRA.

A predicted object matches a true one if it covers strictly more than half of its pixels; so a true object has at most
one match, while one predicted object may match several. Every object counts the same, whatever its frame: there is no
mean of means. Source: the challenge's SEGMeasure and DETMeasure; Matula et al., PLoS ONE 10(12) e0144959, 2015.

Ignored pixels are background in both images: what is left of an object is all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from septum.core.metrics.contingency import contingency
from septum.errors import ImageError

SPLIT, MISSED, INVENTED = 5, 10, 1  # the challenge's weights of each operation that corrects a detection


@dataclass(frozen=True)
class ReferenceObject:
    """One true object and the predicted one that matches it, if any."""

    frame: str
    label: int
    pixels: int
    prediction: int | None
    jaccard: float  # 0 if unmatched


@dataclass(frozen=True)
class FrameScores:
    """One frame: its true objects, and the operations that would correct the detections."""

    frame: str
    objects: tuple[ReferenceObject, ...]
    n_split: int  # splits of predicted objects that match several true ones: one fewer than those
    n_missed: int  # true objects without a match
    n_invented: int  # predicted objects that match nothing


@dataclass(frozen=True)
class SequenceScores:
    """SEG and DET over frames; the first three fields are those of the official log."""

    jaccard_per_reference_label: dict[str, dict[str, float]]  # frame -> label -> Jaccard index
    seg_over_these_frames: float
    n_reference: int
    det: float  # 1 - min(aogm_d, aogm_d0) / aogm_d0
    aogm_d: int  # 5 * n_split + 10 * n_missed + n_invented
    aogm_d0: int  # 10 * n_reference
    n_split: int
    n_missed: int
    n_invented: int


def match_frame(truth: ArrayLike, prediction: ArrayLike, *, frame: str, ignore: ArrayLike | None = None) -> FrameScores:
    """Match the objects of one frame.

    Parameters
    ----------
    truth, prediction : integer arrays of one shape, any number of axes
        0 is background, every other number one object.
    frame : str
        Name of the frame in the records.
    ignore : bool array of that shape, optional
        True where pixels are left out of the score.

    Raises
    ------
    ImageError
        If shapes differ, labels are not whole numbers, or some are negative.

    Examples
    --------
    >>> match_frame(np.array([[1, 1, 1, 0]]), np.array([[0, 4, 4, 4]]), frame="000").objects
    (ReferenceObject(frame='000', label=1, pixels=3, prediction=4, jaccard=0.5),)
    """
    table = contingency(truth, prediction, ignore)
    match = np.flatnonzero(2 * table.overlap > table.truth_pixels[table.i])
    partner = np.full(len(table.truth_ids), -1)
    jaccard = np.zeros(len(table.truth_ids))
    partner[table.i[match]], jaccard[table.i[match]] = table.j[match], table.iou[match]
    uses = np.bincount(table.j[match], minlength=len(table.prediction_ids))
    objects = tuple(
        ReferenceObject(
            frame,
            int(table.truth_ids[i]),
            int(table.truth_pixels[i]),
            int(table.prediction_ids[partner[i]]) if partner[i] >= 0 else None,
            float(jaccard[i]),
        )
        for i in range(len(table.truth_ids))
    )
    return FrameScores(
        frame,
        objects,
        n_split=int(np.maximum(uses - 1, 0).sum()),
        n_missed=int((partner < 0).sum()),
        n_invented=int((uses == 0).sum()),
    )


def pool(frames: Sequence[FrameScores]) -> SequenceScores:
    """Score a sequence from its frames, or several sequences together (name their frames like ``"01/000"``).

    Raises
    ------
    ImageError
        If no frame has a true object, so that SEG is not defined, or two frames have the same name.
    """
    names = [frame.frame for frame in frames]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ImageError(f"frame {min(twice)!r} appears twice; name the frames of several sequences like '01/000'")
    jaccards = [each.jaccard for frame in frames for each in frame.objects]
    if not jaccards:
        raise ImageError(
            "the truth has no object in any frame, so SEG is not defined; give at least one annotated object"
        )
    n_split = sum(frame.n_split for frame in frames)
    n_missed = sum(frame.n_missed for frame in frames)
    n_invented = sum(frame.n_invented for frame in frames)
    aogm_d, aogm_d0 = SPLIT * n_split + MISSED * n_missed + INVENTED * n_invented, MISSED * len(jaccards)
    return SequenceScores(
        jaccard_per_reference_label={
            frame.frame: {str(each.label): each.jaccard for each in frame.objects} for frame in frames
        },
        seg_over_these_frames=float(np.mean(jaccards)),
        n_reference=len(jaccards),
        det=1 - min(aogm_d, aogm_d0) / aogm_d0,
        aogm_d=aogm_d,
        aogm_d0=aogm_d0,
        n_split=n_split,
        n_missed=n_missed,
        n_invented=n_invented,
    )
