import os
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

from septum.core.metrics import matching
from septum.core.metrics.matching import ObjectError, match

DATA = os.environ.get("SEPTUM_DATA")


def nuclei(n=40, size=128, seed=0, jitter=2.0):
    """Truth and a prediction that moved, lost, split and merged some of its discs."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    truth, prediction = np.zeros((2, size, size), np.int32)
    for label in range(1, n + 1):
        cy, cx, radius = *rng.uniform(0, size, 2), rng.uniform(3, 9)
        truth[(np.hypot(y - cy, x - cx) < radius) & (truth == 0)] = label
        if rng.random() < 0.85:
            cy, cx, radius = np.array([cy, cx, radius]) + rng.normal(0, jitter, 3)
            disc = (np.hypot(y - cy, x - cx) < radius) & (prediction == 0)
            prediction[disc] = rng.integers(1, n) if rng.random() < 0.1 else label
            if rng.random() < 0.2:
                prediction[disc & (x < cx)] = label + n
    return truth, prediction


def assert_equals_stardist(truth, prediction, thresholds=matching.THRESHOLDS):
    stardist = pytest.importorskip("stardist.matching", reason="needs stardist, the extra 'demo'")
    found = match(truth, prediction, thresholds=thresholds).scores.per_threshold
    peer = stardist.matching(
        truth.astype(np.int32), prediction.astype(np.int32), thresh=list(thresholds)
    )  # compiled once
    for ours, theirs in zip(found, peer, strict=True):
        pairs = {
            "tp": "tp",
            "fp": "fp",
            "fn": "fn",
            "precision": "precision",
            "recall": "recall",
            "f1": "f1",
            "average_precision": "accuracy",
            "mean_matched_iou": "mean_matched_score",
            "mean_true_iou": "mean_true_score",
            "panoptic_quality": "panoptic_quality",
        }
        for mine, name in pairs.items():
            tolerance = 2e-6 if "iou" in mine or "quality" in mine else 1e-15  # its IoU are float32
            assert getattr(ours, mine) == pytest.approx(getattr(theirs, name), abs=tolerance), (ours.threshold, mine)


@pytest.mark.parametrize("seed", range(12))
def test_equals_stardist_on_simulated_nuclei(seed):
    assert_equals_stardist(*nuclei(seed=seed, jitter=seed / 3))


def test_equals_stardist_on_noise_holes_empty_images_and_single_objects():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 5, (2, 12, 12))
    ring = np.ones((9, 9), int)
    ring[3:6, 3:6] = 0
    holed = np.where(rng.random((9, 9)) < 0.2, 0, ring)
    nothing, one = np.zeros((9, 9), int), np.ones((9, 9), int)
    for truth, prediction in [noise, (ring, holed), (one, ring), (one, one), (noise[0], noise[0]), (ring, one)]:
        assert_equals_stardist(truth, prediction)
        assert_equals_stardist(prediction * 1000, truth)  # gaps in the numbers
    for truth, prediction in [(nothing, one), (one, nothing), (nothing, nothing)]:
        assert_equals_stardist(truth, prediction)


def test_equals_stardist_in_three_dimensions():
    truth = np.zeros((6, 20, 20), np.uint8)
    truth[1:5, 2:9, 2:9], truth[0:3, 10:18, 5:17] = 4, 9
    assert_equals_stardist(truth, np.roll(truth, (1, 1, -1), (0, 1, 2)), [0.5, 0.6])


def test_equals_stardist_on_5000_objects():
    labels = np.arange(1, 5001).reshape(50, 100).repeat(8, 0).repeat(8, 1)
    truth = labels * (np.indices(labels.shape).max(0) % 8 > 0)
    prediction = np.roll(labels, (1, 2), (0, 1)) * (np.random.default_rng(0).random(labels.shape) < 0.9)
    assert_equals_stardist(truth, prediction, [0.5])


def test_equals_stardist_on_its_own_real_nuclei():
    stardist = pytest.importorskip("stardist", reason="needs stardist, the extra 'demo'")
    truth = tifffile.imread(Path(stardist.__file__).parent / "data" / "images" / "mask2d.tif")
    assert len(np.unique(truth)) == 126
    for prediction in (truth, np.roll(truth, (3, 2), (0, 1)), ndimage.grey_erosion(truth, 3), truth // 2):
        assert_equals_stardist(truth, prediction)


@pytest.mark.skipif(DATA is None, reason="needs the folder that SEPTUM_DATA names")
def test_equals_stardist_on_real_images():
    paths = sorted((Path(DATA) / "dsb2018" / "labels").iterdir())[:6]
    assert len(paths) == 6
    for path in paths:
        truth = np.asarray(Image.open(path))
        assert truth.max() > 1
        assert_equals_stardist(truth, ndimage.grey_dilation(np.roll(truth, 1, 0), 3))


def test_pooling_equals_stardists_data_set():
    stardist = pytest.importorskip("stardist.matching", reason="needs stardist, the extra 'demo'")
    truths, predictions = zip(*(nuclei(seed=seed) for seed in range(4)), strict=True)
    pooled = matching.pool([match(*pair).scores for pair in zip(truths, predictions, strict=True)])
    for ours in pooled.per_threshold:
        theirs = stardist.matching_dataset(truths, predictions, thresh=ours.threshold, show_progress=False)
        assert (ours.tp, ours.fp, ours.fn) == (theirs.tp, theirs.fp, theirs.fn)
        assert ours.f1 == pytest.approx(theirs.f1, abs=1e-15)
        assert ours.panoptic_quality == pytest.approx(theirs.panoptic_quality, abs=2e-6)
    assert pooled.n_truth == sum(len(np.unique(truth)) - 1 for truth in truths)


def test_pooling_one_image_changes_nothing():
    scores = match(*nuclei()).scores
    assert matching.pool([scores]) == scores


def test_an_iou_at_the_threshold_counts_to_the_last_bit():
    """k of 20 pixels against 0.5, 0.55, ...: equality must not be lost to rounding."""
    for k, threshold in zip(range(10, 20), matching.THRESHOLDS, strict=True):
        truth, prediction = np.ones((1, 20), int), (np.arange(20) < k)[None].astype(int)
        assert [row.tp for row in match(truth, prediction).scores.per_threshold] == [
            int(t <= threshold) for t in matching.THRESHOLDS
        ]


def test_an_object_of_two_halves_matches_one_of_them():
    whole, halves = np.array([[3, 3, 3, 3]]), np.array([[8, 8, 1, 1]])
    for truth, prediction in ((whole, halves), (halves, whole)):
        row = match(truth, prediction).scores.per_threshold[0]
        assert (row.tp, row.fp + row.fn, row.mean_matched_iou) == (1, 1, 0.5)
    first, *_ = match(whole, halves).objects
    assert (first.truth, first.prediction) == (3, 8)  # the first in raster order, whatever its number


def slow_aggregated_jaccard(truth, prediction):
    intersection, union, used = 0, 0, set()
    for i in np.unique(truth[truth > 0]):
        overlaps = [(((truth == i) & (prediction == j)).sum(), j) for j in np.unique(prediction[prediction > 0])]
        unions = {j: ((truth == i) | (prediction == j)).sum() for _, j in overlaps}
        n, j = max(overlaps, key=lambda pair: (pair[0] / unions[pair[1]], pair[0]))
        intersection, union = intersection + n, union + (unions[j] if n else (truth == i).sum())
        used |= {j} if n else set()
    return intersection / (
        union + sum((prediction == j).sum() for j in np.unique(prediction[prediction > 0]) if j not in used)
    )


@pytest.mark.parametrize("seed", range(4))
def test_aggregated_jaccard_equals_the_slow_version(seed):
    truth, prediction = nuclei(seed=seed)
    assert match(truth, prediction).scores.aggregated_jaccard == pytest.approx(
        slow_aggregated_jaccard(truth, prediction)
    )


def test_a_perfect_prediction_is_perfect():
    truth, _ = nuclei()
    found = match(truth, truth)
    assert found.scores.mean_average_precision == found.scores.aggregated_jaccard == 1
    assert all(row.panoptic_quality == row.mean_true_iou == 1 for row in found.scores.per_threshold)
    assert found.errors == ()
    assert {(row.kind, row.iou) for row in found.objects} == {("matched", 1.0)}


@pytest.mark.parametrize("seed", range(4))
def test_label_numbers_do_not_matter(seed):
    truth, prediction = nuclei(seed=seed)
    rng = np.random.default_rng(seed)
    names, others = (np.concatenate([[0], rng.permutation(500)[:99] + 1]) for _ in range(2))
    plain, renamed = match(truth, prediction), match(names[truth], others[prediction])
    assert renamed.scores == plain.scores

    def rename(error):
        return ObjectError(
            error.kind, tuple(names[list(error.truth)]), tuple(others[list(error.prediction)]), error.pixels
        )

    assert renamed.errors == tuple(rename(error) for error in plain.errors)
    assert [row.iou for row in renamed.objects] == [row.iou for row in plain.objects]


@pytest.mark.parametrize("seed", range(4))
def test_every_object_is_told_of_exactly_once(seed):
    truth, prediction = nuclei(seed=seed)
    found = match(truth, prediction)
    truths = [row.truth for row in found.objects[: found.scores.n_truth]]
    assert sorted(truths) == np.unique(truth)[1:].tolist()
    row = found.scores.per_threshold[0]
    partners = [each for each in found.objects[: found.scores.n_truth] if each.matched]
    assert len(partners) == row.tp
    assert all(each.matched == (each.iou >= 0.5) for each in found.objects)
    alone = [each.prediction for each in found.objects[found.scores.n_truth :]]
    assert len(alone) == row.fp
    assert sorted(alone + [each.prediction for each in partners]) == np.unique(prediction)[1:].tolist()
    for each in found.objects:
        assert each.truth_pixels == ((truth == each.truth).sum() if each.truth else 0)
        assert each.prediction_pixels == ((prediction == each.prediction).sum() if each.prediction else 0)
        if each.truth and each.prediction:
            a, b = truth == each.truth, prediction == each.prediction
            assert each.iou == (a & b).sum() / (a | b).sum()
        else:
            assert each.iou == 0
    named = {(error.kind, k) for error in found.errors for k in (error.truth or error.prediction)}
    for each in found.objects:
        if each.kind in ("missed", "invented"):
            assert (each.kind, each.truth if each.kind == "missed" else each.prediction) in named
    assert [error.pixels for error in found.errors] == sorted((error.pixels for error in found.errors), reverse=True)


def test_planted_errors_are_named():
    truth, prediction = np.zeros((2, 40, 60), int)
    truth[2:12, 2:22] = 1  # found well
    prediction[2:12, 3:22] = 11
    truth[2:12, 30:50] = 2  # split in halves
    prediction[2:12, 30:40], prediction[2:12, 40:50] = 12, 13
    truth[15:25, 2:12], truth[15:25, 13:23] = 3, 4  # merged, the wall filled
    prediction[15:25, 2:23] = 14
    truth[15:25, 30:45] = 5  # missed, but for a speck
    prediction[16:18, 31:33] = 15
    prediction[28:38, 2:9] = 16  # invented
    truth[28:38, 30:50] = 6  # split with most in one piece, which matches
    prediction[28:38, 30:46], prediction[28:38, 47:50] = 17, 18
    found = match(truth, prediction)
    assert set(found.errors) == {
        ObjectError("split", (2,), (12, 13), 100),
        ObjectError("split", (6,), (17, 18), 40),
        ObjectError("merged", (3, 4), (14,), 110),
        ObjectError("missed", (5,), (), 150),
        ObjectError("invented", (), (15,), 4),
        ObjectError("invented", (), (16,), 70),
    }
    assert {row.truth: row.kind for row in found.objects if row.truth and row.kind not in ("invented",)} == {
        1: "matched",
        2: "split",
        3: "merged",
        4: "merged",
        5: "missed",
        6: "split",
    }
    by_prediction = {row.prediction: (row.kind, row.iou) for row in found.objects}
    assert by_prediction[17] == ("split", 0.8)
    assert by_prediction[18] == ("split", 0.15)
    assert by_prediction[15] == ("invented", 4 / 150)
    assert by_prediction[16] == ("invented", 0.0)
    swapped = match(prediction, truth)
    turn = {"split": "merged", "merged": "split", "missed": "invented", "invented": "missed"}
    assert {(turn[e.kind], e.prediction, e.truth, e.pixels) for e in swapped.errors} == {
        astuple(e) for e in found.errors
    }


def test_specks_that_cover_less_than_half_do_not_split_a_missed_object():
    truth, prediction = np.ones((2, 10, 20), int)
    prediction[:, 3:17] = 0
    prediction[:, 17:] = 2
    assert {error.kind: error.pixels for error in match(truth, prediction).errors} == {"missed": 200, "invented": 30}
    assert [error.kind for error in match(prediction, truth).errors] == ["invented", "missed", "missed"]


def test_a_small_object_swallowed_by_a_large_one_is_merged_not_missed():
    truth = np.ones((10, 20), int)
    truth[:3, :3] = 2
    assert match(truth, np.ones_like(truth)).errors == (ObjectError("merged", (2, 1), (1,), 9),)


def test_ignored_pixels_take_part_in_nothing():
    truth, prediction = nuclei()
    ignore = np.zeros_like(truth, bool)
    ignore[:, 60:90] = True
    strict = match(*(np.where(ignore, 0, labels) for labels in (truth, prediction)))
    assert match(truth, prediction, ignore=ignore) == strict
    for highest in (3, 60, 9999):  # numbers of objects that are there, or of none
        noise = np.random.default_rng(0).integers(0, highest, (2, *truth.shape))
        fresh = [np.where(ignore, n, labels) for n, labels in zip(noise, (truth, prediction), strict=True)]
        assert match(*fresh, ignore=ignore) == strict
