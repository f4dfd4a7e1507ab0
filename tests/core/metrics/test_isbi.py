import json
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from septum.core.metrics import isbi
from septum.core.metrics.contingency import contingency
from septum.core.metrics.warping import MISMATCHES

DATA = os.environ.get("SEPTUM_DATA")
GOLDEN = Path(DATA).parent / "golden" / "isbi_metrics" if DATA else None
CASES = ["synthetic_11", "synthetic_12", "synthetic_13", "em_slices_24_25"]


def simulated(n_slices=2, size=64, seed=0):
    """Cells between membranes, and a map that has lost some walls, gained others, and is noisy."""
    rng = np.random.default_rng(seed)
    labels, maps = [], []
    for _ in range(n_slices):
        points = np.ones((size, size), bool)
        points[tuple(rng.integers(0, size, (2, 14)))] = False
        places = ndimage.distance_transform_edt(points, return_distances=False, return_indices=True)
        cells = places[0] * size + places[1]
        walls = ndimage.maximum_filter(cells, 3) != ndimage.minimum_filter(cells, 3)
        noise = ndimage.gaussian_filter(rng.normal(size=(size, size)), 2)
        labels.append((~walls).astype(np.uint8) * 255)
        maps.append(np.clip(ndimage.gaussian_filter(1.0 * ~walls, 1) + 1.5 * noise, 0, 1))
    return np.stack(labels), (np.stack(maps) * 255).round().astype(np.float32) / 255


def assert_equal(expected, found, where=""):
    if isinstance(expected, dict):
        for key in expected:
            assert_equal(expected[key], found[key], f"{where}/{key}")
    elif isinstance(expected, list | tuple):
        assert len(expected) == len(found)
        for k, pair in enumerate(zip(expected, found, strict=True)):
            assert_equal(*pair, f"{where}/{k}")
    elif isinstance(expected, int):
        assert expected == found, where
    else:
        assert found == pytest.approx(expected, abs=1e-9, rel=0), where


@pytest.mark.skipif(GOLDEN is None or not GOLDEN.exists(), reason="needs golden/ beside the folder SEPTUM_DATA names")
@pytest.mark.parametrize("case", CASES)
def test_equals_the_challenges_own_code(case):
    labels, maps = (tifffile.imread(GOLDEN / case / f"{name}.tif") for name in ("label", "probability"))
    expected = json.loads((GOLDEN / case / "expected.json").read_text())
    shape = (-1, *labels.shape[-2:])
    scores = isbi.evaluate_stack(labels.reshape(shape), maps.reshape(shape).astype(np.float32) / np.float32(255))
    assert_equal(expected["per_threshold"], asdict(scores)["per_threshold"])


def test_the_thresholds_are_added_up_as_the_challenge_does():
    assert isbi.THRESHOLDS[3] == 0.30000000000000004
    assert isbi.THRESHOLDS[8] == 0.7999999999999999
    assert len(isbi.THRESHOLDS) == 10


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_a_map_is_held_in_float32_and_compared_in_float64(dtype):
    cells = np.ones((1, 1, 2), np.uint8)
    maps = np.full((1, 1, 2), 51 / 255, dtype)
    scores = isbi.evaluate_stack(cells, maps, thresholds=[0.2])
    assert scores.per_threshold[0].foreground_fraction == (dtype is not np.float16)  # float32 rounds up, float16 down


def slow_rand(truth, segments):
    """Foreground-restricted Rand from a dense table, every pixel in no segment a segment of its own."""
    inside = truth > 0
    a, b = truth[inside], segments[inside].copy()
    b[b == 0] = segments.max() + 1 + np.arange((b == 0).sum())
    table = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(table, (a, b), 1)
    both, ours, theirs = (table**2).sum(), (table.sum(0) ** 2).sum(), (table.sum(1) ** 2).sum()
    p = table / table.sum()
    h_a, h_b, h_ab = (-(q[q > 0] * np.log(q[q > 0])).sum() for q in (p.sum(1), p.sum(0), p))
    return both / ours, both / theirs, 2 * (h_a + h_b - h_ab) / (h_a + h_b)


def slow_thin(proposal):
    """Vincent and Soille's flooding of the inverted map with both of its levels, step by step."""
    height, width = proposal.shape
    labels = np.full(proposal.shape, -1)
    current, flag = 0, False

    def around(y, x):
        near = ((y, x - 1), (y - 1, x), (y, x + 1), (y + 1, x))
        return [(v, u) for v, u in near if 0 <= v < height and 0 <= u < width]

    for level in (True, False):
        level_pixels = [(y, x) for x in range(width) for y in range(height) if proposal[y, x] == level]
        queue = []
        for p in level_pixels:
            labels[p] = -2
            if any(labels[q] >= 0 for q in around(*p)):
                labels[p] = -3
                queue.append(p)
        while queue:
            p = queue.pop(0)
            for q in around(*p):
                if labels[q] > 0:
                    if labels[p] == -3 or (labels[p] == 0 and flag):
                        labels[p] = labels[q]
                    elif labels[p] > 0 and labels[p] != labels[q]:
                        labels[p], flag = 0, False
                elif labels[q] == 0:
                    if labels[p] == -3:
                        labels[p], flag = 0, True
                elif labels[q] == -2:
                    labels[q] = -3
                    queue.append(q)
        for p in level_pixels:
            if labels[p] == -2:
                current += 1
                labels[p], queue = current, [p]
                while queue:
                    for r in around(*queue.pop(0)):
                        if labels[r] == -2:
                            labels[r] = current
                            queue.append(r)
    return labels


@pytest.mark.parametrize("seed", range(4))
def test_rand_and_information_equal_the_slow_versions(seed):
    labels, maps = simulated(1, 40, seed)
    cells = ndimage.label(labels[0])[0]
    for threshold in (0.0, 0.4, 0.9, 1.0):
        (row,) = isbi.evaluate_stack(labels, maps, thresholds=[threshold]).per_threshold
        proposal = maps[0].astype(float) > threshold
        precision, recall, info = slow_rand(cells, ndimage.label(proposal)[0])
        assert row.rand_foreground_restricted.precision == pytest.approx(precision, abs=1e-12)
        assert row.rand_foreground_restricted.recall == pytest.approx(recall, abs=1e-12)
        assert row.v_info_unthinned_mean_of_slices == pytest.approx(info, abs=1e-12)
        thinned = slow_thin(proposal)
        precision, recall, info = slow_rand(cells, thinned)
        assert row.v_rand_thinned.precision_pooled == pytest.approx(precision, abs=1e-12)
        assert row.v_rand_thinned.recall_pooled == pytest.approx(recall, abs=1e-12)
        assert row.v_info_thinned_mean_of_slices == pytest.approx(info if thinned.max() > 1 else 0, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_thinning_equals_the_watershed_with_both_levels(seed):
    rng = np.random.default_rng(seed)
    for density in (0.02, 0.1, 0.5, 0.9):
        proposal = rng.random((19, 23)) < density
        found, expected = isbi.thin(ndimage.label(proposal)[0]), slow_thin(proposal)
        assert ((found == 0) == (expected == 0)).all()
        assert (
            len(set(zip(found.flat, expected.flat, strict=True))) == len(np.unique(found)) == len(np.unique(expected))
        )


def test_a_perfect_map_scores_perfectly_at_every_threshold():
    labels, _ = simulated()
    scores = isbi.evaluate_stack(labels, (labels > 0) * 0.95)
    assert {name: best.value for name, best in scores.best.items()} == pytest.approx(
        {"pixel_error": 0, "warping_error": 0, "rand_error": 0, "v_rand": 1, "v_rand_pooled": 1, "v_info": 1}
    )
    for row in scores.per_threshold:
        assert row.pixel_error == row.warping_error_all_mismatches == 0
        assert row.v_rand_thinned.f_score_mean_of_slices == 1


def test_thicker_membranes_cost_rand_but_neither_warping_nor_the_thinned_scores():
    labels = np.zeros((1, 60, 60), bool)
    for y, x in np.ndindex(3, 3):
        labels[0, 20 * y + 1 : 20 * y + 19, 20 * x + 1 : 20 * x + 19] = True
    eroded = ndimage.binary_erosion(labels[0], iterations=2)[None]
    (row,) = isbi.evaluate_stack(labels, eroded * 1.0, thresholds=[0.5]).per_threshold
    assert row.warping_error_all_mismatches == 0
    assert row.rand_foreground_restricted.f_score_over_slices_pooled < 0.8
    assert row.v_rand_thinned.f_score_pooled > 0.999


def test_the_code_of_an_interior_pixel_does_not_matter():
    labels, maps = simulated()
    classes = ndimage.label(labels)[0].astype(np.int64)
    assert isbi.evaluate_stack(classes, maps) == isbi.evaluate_stack(labels > 0, maps)


def test_slices_stand_for_themselves():
    labels, maps = simulated(3)
    scores = isbi.evaluate_stack(labels, maps)
    for z in range(3):
        alone = isbi.evaluate_stack(labels[[z]], maps[[z]])
        assert (scores.per_slice[z].per_threshold, scores.per_slice[z].best) == (alone.per_threshold, alone.best)
    turned = isbi.evaluate_stack(labels[::-1], list(maps[::-1]))
    assert_equal(asdict(scores)["per_threshold"], asdict(turned)["per_threshold"])
    mean = np.mean([scores.per_slice[z].per_threshold[4].v_rand_thinned.f_score_pooled for z in range(3)])
    assert scores.per_threshold[4].v_rand_thinned.f_score_mean_of_slices == pytest.approx(mean, abs=1e-12)
    pixels = sum(scores.per_slice[z].per_threshold[4].mismatch_pixels["merger"] for z in range(3))
    assert scores.per_threshold[4].mismatch_pixels["merger"] == pixels


def test_the_best_is_the_best_of_the_thresholds():
    labels, maps = simulated(3)
    scores = isbi.evaluate_stack(labels, maps)
    errors = [row.warping_error_splits_and_mergers for row in scores.per_threshold]
    assert scores.best["warping_error"] == isbi.Best(min(errors), isbi.THRESHOLDS[int(np.argmin(errors))])
    f_scores = [row.pixel_f_score for row in scores.per_threshold]
    assert scores.best["pixel_error"] == isbi.Best(1 - max(f_scores), isbi.THRESHOLDS[int(np.argmax(f_scores))])
    v_rand = [row.v_rand_thinned.f_score_mean_of_slices for row in scores.per_threshold]
    assert scores.best["v_rand"] == isbi.Best(max(v_rand), isbi.THRESHOLDS[int(np.argmax(v_rand))])


def test_a_map_below_every_threshold_is_seen_to_be_empty():
    labels, maps = simulated(1)
    (row,) = isbi.evaluate_stack(labels, maps * 0, thresholds=[0.5]).per_threshold
    assert row.foreground_fraction == row.warping_error_splits_and_mergers == 0
    assert row.mismatch_pixels["object_deletion"] > 0
    assert row.pixel_f_score == 0


def test_ignored_pixels_take_part_in_nothing():
    labels, maps = simulated(2)
    rng = np.random.default_rng(1)
    ignore = np.zeros_like(labels, bool)
    ignore[:, 20:40, 10:50] = True
    other_labels, other_maps = labels.copy(), maps.copy()
    other_labels[ignore], other_maps[ignore] = rng.integers(0, 2, ignore.sum()), rng.random(ignore.sum())
    scores = isbi.evaluate_stack(labels, maps, ignore=ignore)
    assert scores == isbi.evaluate_stack(other_labels, other_maps, ignore=ignore)
    assert scores == isbi.evaluate_stack(labels, np.where(ignore, np.nan, maps), ignore=ignore)
    assert scores != isbi.evaluate_stack(labels, maps)
    kept = ~ignore
    wrong = ((labels > 0) != (maps > 0.5))[kept].mean()
    (row,) = isbi.evaluate_stack(labels, maps, ignore=ignore, thresholds=[0.5]).per_threshold
    assert row.pixel_error == pytest.approx(wrong)
    codes = isbi.warping_mismatches(labels[0], maps[0], 0.5, ignore=ignore[0])
    assert codes.any()
    assert not codes[ignore[0]].any()


def test_an_ignored_margin_is_as_good_as_cut_off():
    labels, maps = simulated(1)
    ignore = np.ones_like(labels, bool)
    ignore[:, 5:-9, 11:-4] = False
    whole = isbi.evaluate_stack(labels, maps, ignore=ignore)
    cut = isbi.evaluate_stack(labels[:, 5:-9, 11:-4], maps[:, 5:-9, 11:-4])
    for a, b in zip(whole.per_threshold, cut.per_threshold, strict=True):
        assert a.pixel_error == b.pixel_error
        assert a.mismatch_pixels == b.mismatch_pixels
        assert a.rand_foreground_restricted == b.rand_foreground_restricted


def test_a_slice_ignored_as_a_whole_is_left_out():
    labels, maps = simulated(3)
    ignore = np.zeros_like(labels, bool)
    ignore[1] = True
    scores = isbi.evaluate_stack(labels, maps, ignore=ignore)
    assert scores.per_threshold == isbi.evaluate_stack(labels[::2], maps[::2]).per_threshold
    assert list(scores.per_slice) == [0, 2]


def test_the_picture_shows_the_counted_mismatches():
    labels, maps = simulated(1)
    for row in isbi.evaluate_stack(labels, maps).per_threshold:
        codes = isbi.warping_mismatches(labels[0], maps[0], row.threshold)
        counts = [int((codes == k).sum()) for k in range(1, 7)]
        assert counts == list(row.mismatch_pixels.values())
        assert list(row.mismatch_pixels) == list(MISMATCHES)


def test_one_slice_is_read_at_a_time(tmp_path):
    labels, maps = simulated(3)
    held = []

    class Lazy:
        def __len__(self):
            return 3

        def __getitem__(self, z):
            held.append(z)
            return maps[z]

    assert isbi.evaluate_stack(labels, Lazy()) == isbi.evaluate_stack(labels, maps)
    assert held == [0, 1, 2]


def test_one_segment_in_truth_or_prediction_has_no_information():
    one, two = np.array([[1, 1, 0, 0]]), np.array([[1, 2, 0, 0]])
    assert isbi.information_f_score(contingency(one, one)) == 0
    assert isbi.information_f_score(contingency(one, two)) == 0
    assert isbi.information_f_score(contingency(two, one)) == 0
    assert isbi.information_f_score(contingency(two, two)) == 1
