import numpy as np
import pytest
from scipy.spatial.distance import dice, jaccard

from septum.core.metrics.overlap import class_overlap, pool

TRUTH, PREDICTION = np.random.default_rng(0).integers(0, 4, (2, 5, 17, 13))


def test_equals_scipys_dissimilarities():
    scores = class_overlap(TRUTH, PREDICTION)
    assert [each.label for each in scores.classes] == [0, 1, 2, 3]
    for each in scores.classes:
        a, b = (each.label == TRUTH).ravel(), (each.label == PREDICTION).ravel()
        assert each.iou == pytest.approx(1 - jaccard(a, b), abs=1e-15)
        assert each.dice == pytest.approx(1 - dice(a, b), abs=1e-15)
        assert (each.truth_pixels, each.prediction_pixels) == (a.sum(), b.sum())
    assert scores.pixel_error == (TRUTH != PREDICTION).mean()


def test_pooling_equals_one_large_image():
    assert pool([class_overlap(*pair) for pair in zip(TRUTH, PREDICTION, strict=True)]) == class_overlap(
        TRUTH, PREDICTION
    )


def test_ignoring_pixels_equals_leaving_them_out():
    ignore = np.random.default_rng(1).random(TRUTH.shape) < 0.4
    assert class_overlap(TRUTH, PREDICTION, ignore=ignore) == class_overlap(TRUTH[~ignore], PREDICTION[~ignore])


def test_a_class_that_occurs_nowhere_has_no_score():
    scores = class_overlap(np.zeros((3, 3), int), np.zeros((3, 3), int), classes=(0, 1, 5))
    assert [(each.label, each.iou, each.dice) for each in scores.classes] == [
        (0, 1, 1),
        (1, None, None),
        (5, None, None),
    ]
    assert class_overlap(np.ones((3, 3), bool), np.zeros((3, 3), bool)).classes[1].iou == 0


def test_a_perfect_prediction_is_perfect():
    scores = class_overlap(TRUTH, TRUTH)
    assert scores.pixel_error == scores.wrong_pixels == 0
    assert {(each.iou, each.dice) for each in scores.classes} == {(1, 1)}


def test_renaming_classes_renames_the_scores():
    names = np.array([2, 0, 9, 1])
    plain = {each.label: each.iou for each in class_overlap(TRUTH, PREDICTION).classes}
    renamed = {each.label: each.iou for each in class_overlap(names[TRUTH], names[PREDICTION]).classes}
    assert renamed == {names[label]: iou for label, iou in plain.items()}
