"""The measures of the ISBI 2012 challenge for membrane segmentation: pixel, Rand and warping error, V_Rand, V_Info.

All of them threshold the map: cell interior is where the probability, in float32, is above the threshold, in float64.
In the labels it is every non-zero pixel. Interior is 4-connected; slices are scored one by one.

Ignored pixels are membrane in both images and are not counted: not as pixels, in Rand pairs, as mismatches or in any
denominator; and no cell is connected through them. A slice that is ignored as a whole is left out.

Sources: Arganda-Carreras et al., "Crowdsourcing the creation of image segmentation algorithms for connectomics",
Frontiers in Neuroanatomy 9:142, 2015; the challenge's own code (Fiji, Trainable Segmentation), whose values the tests
reproduce.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from septum.core.labels import Mask
from septum.core.metrics.checks import (
    check_ignore,
    check_labels,
    check_probabilities,
    check_same_shape,
    check_thresholds,
)
from septum.core.metrics.contingency import Contingency, contingency
from septum.core.metrics.warping import MISMATCHES, warp
from septum.errors import ImageError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, Int32, UInt8

THRESHOLDS = tuple(accumulate([0.1] * 9, initial=0.0))  # as the challenge adds them up: 0.30000000000000004, ...
RADIUS = 20  # pixels, see warping.warp


@dataclass(frozen=True)
class Pairs:
    """Counts from which a precision and a recall follow; they add up over slices."""

    tp: int
    fp: int
    fn: int

    def __add__(self, other: Pairs) -> Pairs:
        return Pairs(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @property
    def precision(self) -> float:
        return self.tp / (self.tp + self.fp) if self.fp else 1.0

    @property
    def recall(self) -> float:
        return self.tp / (self.tp + self.fn) if self.fn else 1.0

    @property
    def f_score(self) -> float:
        return 2 * self.tp / (2 * self.tp + self.fp + self.fn) if self.tp else float(self.fp == self.fn == 0)


@dataclass(frozen=True)
class SliceCounts:
    """What one slice adds to the scores at one threshold."""

    threshold: float
    n_pixels: int
    n_foreground: int  # interior pixels of the thresholded map
    pixels: Pairs
    mismatch_pixels: dict[str, int]
    mismatch_clusters: int  # connected groups of split pixels and of merger pixels
    rand: Pairs
    v_rand: Pairs
    v_info: float
    v_info_unthinned: float


@dataclass(frozen=True)
class RandScores:
    """Foreground-restricted Rand: precision falls with mergers, recall with splits."""

    precision: float
    recall: float
    f_score_over_slices_pooled: float
    error: float


@dataclass(frozen=True)
class VRandScores:
    """Foreground-restricted Rand after thinning the membranes by a watershed."""

    precision_pooled: float
    recall_pooled: float
    f_score_pooled: float
    f_score_mean_of_slices: float


@dataclass(frozen=True)
class IsbiThresholdScores:
    """Every measure at one threshold, over one or more slices."""

    threshold: float
    pixel_error: float  # fraction of pixels that differ
    pixel_f_score: float
    warping_error_all_mismatches: float
    warping_error_splits_and_mergers: float
    warping_error_splits_and_mergers_clustered: float
    mismatch_pixels: dict[str, int]
    rand_foreground_restricted: RandScores
    v_rand_thinned: VRandScores
    v_info_thinned_mean_of_slices: float
    v_info_unthinned_mean_of_slices: float
    foreground_fraction: (
        float  # of the thresholded map: at 0 it has no splits and no mergers, and a warping error of 0 says nothing
    )


@dataclass(frozen=True)
class Best:
    """The best value over the thresholds, and the first threshold that gives it."""

    value: float
    threshold: float


@dataclass(frozen=True)
class IsbiScores:
    """Scores at every threshold, and the challenge's single numbers.

    ``best`` has the keys ``pixel_error`` (1 - F), ``warping_error``, ``rand_error`` (1 - F), for which lower is
    better, and ``v_rand`` (mean of slices), ``v_rand_pooled``, ``v_info``, for which higher is better.
    """

    per_threshold: tuple[IsbiThresholdScores, ...]
    best: dict[str, Best]


@dataclass(frozen=True)
class StackScores(IsbiScores):
    """Scores over all slices, and of every slice by its index."""

    per_slice: dict[int, IsbiScores]


def evaluate_stack(
    labels: Sequence[ArrayLike] | NDArray[Any],
    probabilities: Sequence[ArrayLike] | NDArray[Any],
    *,
    ignore: Sequence[ArrayLike] | NDArray[Any] | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
    radius: int = RADIUS,
) -> StackScores:
    """Score a stack slice by slice; only one slice is held at a time, so arrays may be memory-mapped.

    Parameters
    ----------
    labels : (Z, Y, X) integer or bool array, or a sequence of (Y, X) arrays
        Non-zero = cell interior.
    probabilities : (Z, Y, X) float array, or a sequence of (Y, X) arrays
        Probability of cell interior, 0..1.
    ignore : (Z, Y, X) bool array or sequence, optional
        True where pixels are left out of the score.
    thresholds : sequence of float
        Thresholds of the probability, in 0..1.
    radius : int, pixels
        Distinguishes splits from deleted holes, see ``warping.warp``.

    Raises
    ------
    ImageError
        Numbers of slices or shapes differ, probabilities outside 0..1, labels that are not whole numbers or negative,
        or a slice without a single interior pixel.
    ConfigError
        A threshold outside 0..1, or none, or a radius below 1.

    Examples
    --------
    >>> cells = np.array([[[1, 1, 0, 1, 1]]])
    >>> scores = evaluate_stack(cells, cells * 0.95)
    >>> scores.best["v_rand"], scores.best["warping_error"]
    (Best(value=1.0, threshold=0.0), Best(value=0.0, threshold=0.0))
    """
    check_same_length("probabilities", probabilities, labels)
    if ignore is not None:
        check_same_length("ignore", ignore, labels)
    slices = {}
    for z in range(len(labels)):
        counts = list(
            count_slice(
                labels[z], probabilities[z], None if ignore is None else ignore[z], thresholds, radius, f"slice {z}"
            )
        )
        if counts:
            slices[z] = counts
    return pool(slices)


def check_same_length(name: str, stack: Sequence[Any] | NDArray[Any], labels: Sequence[Any] | NDArray[Any]) -> None:
    """Raise ImageError unless both stacks have the same number of slices."""
    if len(stack) != len(labels):
        raise ImageError(
            f"{name} has {len(stack)} slices, but labels has {len(labels)}; pair the stacks slice by slice"
        )


def pool(slices: Mapping[int, Sequence[SliceCounts]]) -> StackScores:
    """Combine counted slices, ``{index: list(count_slice(...))}``, into the scores of all and of each."""
    if not slices:
        raise ImageError(
            "there is no slice to score: the stack is empty or all of it is ignored; give at least one slice"
        )
    every = _scores([_pool_threshold(counts) for counts in zip(*slices.values(), strict=True)])
    each = {z: _scores([_pool_threshold([count]) for count in counts]) for z, counts in slices.items()}
    return StackScores(every.per_threshold, every.best, each)


def count_slice(
    labels: ArrayLike,
    probabilities: ArrayLike,
    ignore: ArrayLike | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
    radius: int = RADIUS,
    name: str = "slice",
) -> Iterator[SliceCounts]:
    """Yield the counts of one (Y, X) slice, threshold by threshold; none if all of it is ignored.

    ``name`` is what errors call the slice; the rest is as in ``evaluate_stack``.

    Raises
    ------
    ImageError, ConfigError
        As in ``evaluate_stack``.
    """
    check_thresholds(thresholds, 0, 1, "as probabilities do")
    truth, interior_probability, mask = _slice(labels, probabilities, ignore, name)
    n_pixels = truth.size - (0 if mask is None else int(mask.sum()))
    if n_pixels == 0:
        return
    if not truth.any():
        raise ImageError(
            f"{name} of the truth has no cell interior (no pixel above 0), so no measure is defined; leave it out"
        )
    for threshold in thresholds:
        proposal = binarize(interior_probability, threshold, mask)
        yield _count(truth, proposal, interior_probability, float(threshold), n_pixels, radius)


def warping_mismatches(
    labels: ArrayLike,
    probabilities: ArrayLike,
    threshold: float,
    *,
    ignore: ArrayLike | None = None,
    radius: int = RADIUS,
) -> UInt8[np.ndarray, "Y X"]:
    """Return where the mismatches of the warping error are: 0 = none, k = ``MISMATCHES[k - 1]``.

    Parameters
    ----------
    labels, probabilities, ignore : (Y, X) arrays
        One slice, as in ``evaluate_stack``.

    Examples
    --------
    >>> warping_mismatches([[1, 1, 0, 1, 1]], np.full((1, 5), 0.9), 0.5)
    array([[0, 0, 2, 0, 0]], dtype=uint8)
    """
    truth, interior_probability, mask = _slice(labels, probabilities, ignore, "slice")
    proposal = binarize(interior_probability, threshold, mask)
    return warp(truth, proposal, interior_probability, threshold, radius)


def binarize(
    probabilities: Float32[np.ndarray, "*shape"], threshold: float, ignore: Bool[np.ndarray, "*shape"] | None = None
) -> Bool[np.ndarray, "*shape"]:
    """Return where the float32 map is above the threshold in float64; False where ignored.

    Examples
    --------
    >>> binarize(np.float32([51 / 255, 0.2]), 0.2)     # float32 rounds both up
    array([ True,  True])
    """
    proposal = probabilities > np.float64(threshold)
    return proposal if ignore is None else proposal & ~ignore


def rand_pairs(table: Contingency) -> Pairs:
    """Count pairs of true-interior pixels; those in no predicted segment are segments of one pixel each.

    ``precision = tp / (tp + fp)`` and ``recall = tp / (tp + fn)`` are those of the foreground-restricted Rand index.
    """
    together = _within_truth(table)
    outside = int(table.truth_pixels.sum() - table.overlap.sum())
    both = int((table.overlap**2).sum()) + outside
    return Pairs(both, int((together**2).sum()) + outside - both, int((table.truth_pixels**2).sum()) - both)


def information_f_score(table: Contingency) -> float:
    """Return V_Info, ``2 I / (H(A) + H(B))`` over the true interior; 0 if truth or prediction is one segment."""
    n = float(table.truth_pixels.sum())
    outside = (n - table.overlap.sum()) / n * np.log(1 / n)  # segments of one pixel each
    s_a = _plogp(table.truth_pixels / n)
    s_b = _plogp(_within_truth(table) / n) + outside
    s_ab = _plogp(table.overlap / n) + outside
    if s_a + s_b == 0:
        return 0.0
    return float(2 * (s_ab - s_a - s_b) / (-s_a - s_b))


def thin(segments: Int32[np.ndarray, "Y X"]) -> Int32[np.ndarray, "Y X"]:
    """Grow segments into the membrane until lines of at most one pixel are left between them.

    The watershed of Vincent and Soille (IEEE PAMI 13(6), 1991) on the inverted binary map, 4-connected, in the
    challenge's order of pixels (column by column) and with its global flag.

    Parameters
    ----------
    segments : (Y, X) int32 array
        4-connected components of the interior, 0 = membrane.

    Examples
    --------
    >>> thin(np.array([[1, 0, 0, 0, 0, 2]], np.int32))
    array([[1, 1, 1, 0, 2, 2]], dtype=int32)
    """
    if not segments.any():
        return np.ones_like(segments)  # all membrane: one basin
    return _flood(segments)  # type: ignore[no-any-return]


@njit(cache=True, nogil=True)
def _flood(segments):  # type: ignore[no-untyped-def]
    """The second level of the watershed; the first, the interior, is its components."""
    mask, queued = -2, -3
    height, width = segments.shape
    labels = np.where(segments == 0, np.int32(mask), segments)
    queue = np.empty(segments.size, np.int32)
    n = 0
    for x in range(width):
        for y in range(height):
            if labels[y, x] == mask and (
                (x > 0 and labels[y, x - 1] >= 0)
                or (y > 0 and labels[y - 1, x] >= 0)
                or (x < width - 1 and labels[y, x + 1] >= 0)
                or (y < height - 1 and labels[y + 1, x] >= 0)
            ):
                labels[y, x] = queued
                queue[n] = y * width + x
                n += 1
    flag, k = False, 0
    while k < n:
        y, x = queue[k] // width, queue[k] % width
        k += 1
        for near_y, near_x in ((y, x - 1), (y - 1, x), (y, x + 1), (y + 1, x)):
            if not (0 <= near_y < height and 0 <= near_x < width):
                continue
            here, near = labels[y, x], labels[near_y, near_x]
            if near > 0:
                if here == queued or (here == 0 and flag):
                    labels[y, x] = near
                elif here > 0 and here != near:
                    labels[y, x] = 0
                    flag = False
            elif near == 0:
                if here == queued:
                    labels[y, x] = 0
                    flag = True
            elif near == mask:
                labels[near_y, near_x] = queued
                queue[n] = near_y * width + near_x
                n += 1
    return labels


def _slice(
    labels: ArrayLike, probabilities: ArrayLike, ignore: ArrayLike | None, name: str
) -> tuple[Mask, NDArray[np.float32], Mask | None]:
    """One checked slice: interior of the truth, probabilities in float32, ignored pixels."""
    truth = check_labels(labels, f"{name} of the truth") != 0
    probabilities = np.asarray(probabilities)
    check_same_shape(f"{name} of the probabilities", probabilities, truth, "its truth")
    if truth.ndim != 2:
        raise ImageError(f"{name} has {truth.ndim} axes, but a slice is (Y, X); give a stack as (Z, Y, X)")
    mask = check_ignore(ignore, truth)
    shown = probabilities if mask is None else np.where(mask, 0, probabilities)  # whatever they are, even NaN
    interior_probability = check_probabilities(shown, f"{name} of the probabilities")
    return (truth if mask is None else truth & ~mask), interior_probability, mask


def _count(
    truth: Mask, proposal: Mask, probabilities: NDArray[np.float32], threshold: float, n_pixels: int, radius: int
) -> SliceCounts:
    codes = warp(truth, proposal, probabilities, threshold, radius)  # first, while nothing else is held in memory
    histogram = np.bincount(codes.ravel(), minlength=len(MISMATCHES) + 1)[1:]
    cells, segments = ndimage.label(truth)[0], ndimage.label(proposal)[0]
    rand = contingency(cells, segments)
    thinned = contingency(cells, thin(segments))
    tp = int((truth & proposal).sum())
    fp, fn = int(proposal.sum()) - tp, int(truth.sum()) - tp
    return SliceCounts(
        threshold=threshold,
        n_pixels=n_pixels,
        n_foreground=tp + fp,
        pixels=Pairs(tp, fp, fn),
        mismatch_pixels=dict(zip(MISMATCHES, histogram.tolist(), strict=True)),
        mismatch_clusters=ndimage.label(codes == 1)[1] + ndimage.label(codes == 2, np.ones((3, 3)))[1],
        rand=rand_pairs(rand),
        v_rand=rand_pairs(thinned),
        v_info=information_f_score(thinned),
        v_info_unthinned=information_f_score(rand),
    )


def _within_truth(table: Contingency) -> NDArray[np.int64]:
    """(P,) pixels of every predicted segment inside the true interior."""
    return np.bincount(table.j, table.overlap, len(table.prediction_ids)).astype(np.int64)


def _plogp(p: NDArray[np.float64]) -> float:
    p = p[p > 0]
    return float((p * np.log(p)).sum())


def _pool_threshold(counts: Sequence[SliceCounts]) -> IsbiThresholdScores:
    """Scores of one or more slices at one threshold."""
    n = sum(count.n_pixels for count in counts)
    nothing = Pairs(0, 0, 0)
    pixels = sum((count.pixels for count in counts), nothing)
    rand = sum((count.rand for count in counts), nothing)
    v_rand = sum((count.v_rand for count in counts), nothing)
    mismatches = {name: sum(count.mismatch_pixels[name] for count in counts) for name in MISMATCHES}
    return IsbiThresholdScores(
        threshold=counts[0].threshold,
        pixel_error=(pixels.fp + pixels.fn) / n,
        pixel_f_score=pixels.f_score,
        warping_error_all_mismatches=sum(mismatches.values()) / n,
        warping_error_splits_and_mergers=(mismatches["split"] + mismatches["merger"]) / n,
        warping_error_splits_and_mergers_clustered=sum(count.mismatch_clusters for count in counts) / n,
        mismatch_pixels=mismatches,
        rand_foreground_restricted=RandScores(rand.precision, rand.recall, rand.f_score, 1 - rand.f_score),
        v_rand_thinned=VRandScores(
            v_rand.precision, v_rand.recall, v_rand.f_score, float(np.mean([count.v_rand.f_score for count in counts]))
        ),
        v_info_thinned_mean_of_slices=float(np.mean([count.v_info for count in counts])),
        v_info_unthinned_mean_of_slices=float(np.mean([count.v_info_unthinned for count in counts])),
        foreground_fraction=sum(count.n_foreground for count in counts) / n,
    )


def _scores(rows: Sequence[IsbiThresholdScores]) -> IsbiScores:
    def best(values: Sequence[float], sign: int) -> Best:
        k = int(np.argmax([sign * value for value in values]))
        return Best(values[k], rows[k].threshold)

    return IsbiScores(
        tuple(rows),
        {
            "pixel_error": best([1 - row.pixel_f_score for row in rows], -1),
            "warping_error": best([row.warping_error_splits_and_mergers for row in rows], -1),
            "rand_error": best([row.rand_foreground_restricted.error for row in rows], -1),
            "v_rand": best([row.v_rand_thinned.f_score_mean_of_slices for row in rows], 1),
            "v_rand_pooled": best([row.v_rand_thinned.f_score_pooled for row in rows], 1),
            "v_info": best([row.v_info_thinned_mean_of_slices for row in rows], 1),
        },
    )
