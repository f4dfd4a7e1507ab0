"""Objects that are wrong: their kinds, boxes and sizes, by hand and against slow versions."""

import numpy as np
import pytest

from septum.evaluation.object_errors import KINDS, boxes, compare_components, compare_instances


def draw(shape=(20, 40), **squares):
    """A label image from squares: ``a1=(2, 8, 3, 9)`` draws label 1 on rows 2 to 7 and columns 3 to 8."""
    labels = np.zeros(shape, np.int32)
    for name, (y0, y1, x0, x1) in squares.items():
        labels[y0:y1, x0:x1] = int(name[1:])
    return labels


@pytest.mark.parametrize("seed", range(5))
def test_boxes_are_the_smallest_that_hold_every_pixel_of_an_object(seed):
    labels = np.random.default_rng(seed).integers(0, 6, (7, 9)) * 1000
    expected = {}
    for number in set(labels.ravel().tolist()) - {0}:
        y, x = np.nonzero(labels == number)
        expected[number] = (y.min(), y.max() + 1, x.min(), x.max() + 1)
    assert boxes(labels) == expected
    assert boxes(labels * 0) == {}


def test_each_kind_of_error_has_its_objects_pixels_and_box():
    truth = draw(a1=(2, 8, 2, 8), a2=(2, 8, 12, 22), a3=(12, 18, 2, 8), a4=(12, 18, 8, 14))
    prediction = draw(a5=(2, 8, 12, 17), a6=(2, 8, 17, 22), a7=(12, 18, 2, 14), a8=(12, 16, 30, 34))
    objects = compare_instances(truth, prediction, None)
    errors = {error.kind: error for error in objects.errors if error.kind in ("split", "merged")}
    assert (errors["split"].truth, errors["split"].prediction) == ((2,), (5, 6))
    assert errors["split"].box == (2, 8, 12, 22)
    assert (errors["merged"].truth, errors["merged"].prediction) == ((3, 4), (7,))
    assert errors["merged"].box == (12, 18, 2, 14)
    missed = [error for error in objects.errors if error.kind == "missed"]
    assert [(error.truth, error.pixels, error.box) for error in missed] == [((1,), 36, (2, 8, 2, 8))]
    invented = [error for error in objects.errors if error.kind == "invented"]
    assert [(error.prediction, error.pixels, error.box) for error in invented] == [((8,), 16, (12, 16, 30, 34))]
    assert [objects.count(kind) for kind in KINDS] == [1, 1, 1, 1, 0]


def test_a_row_per_true_object_and_then_one_per_prediction_without_a_match():
    truth = draw(a1=(2, 8, 2, 8), a2=(2, 8, 12, 18))
    prediction = draw(a9=(2, 8, 2, 9), a4=(12, 16, 30, 34))
    objects = compare_instances(truth, prediction, None)
    assert objects.n_truth == 2
    first, second, third = objects.rows
    assert (first.kind, first.matched, first.truth, first.prediction) == ("matched", True, 1, 9)
    assert first.iou == pytest.approx(36 / 42)
    assert (first.truth_pixels, first.prediction_pixels, first.box) == (36, 42, (2, 8, 2, 8))
    assert (second.kind, second.matched, second.truth, second.prediction) == ("missed", False, 2, None)
    assert (third.kind, third.truth, third.prediction, third.box) == ("invented", None, 4, (12, 16, 30, 34))
    assert {row.truth_class for row in objects.rows} == {None}


def test_the_components_of_a_mask_are_its_objects():
    truth = draw(a1=(2, 8, 2, 8), b1=(2, 8, 12, 18))
    prediction = draw(a1=(2, 8, 2, 18))
    of_mask = compare_components(truth, prediction, None, (0, 1))
    of_instances = compare_instances(draw(a1=(2, 8, 2, 8), b2=(2, 8, 12, 18)), prediction, None)
    assert of_mask.scores == of_instances.scores
    assert of_mask.errors == of_instances.errors


def test_a_component_is_mislabelled_if_most_of_it_has_one_other_class():
    truth = draw(a1=(2, 8, 2, 8), a2=(2, 8, 20, 26))
    half = np.where((truth == 1) & (np.arange(40) < 5), 2, truth)  # exactly half of the first
    objects = compare_components(truth, half, None, (0, 7, 9))
    assert objects.count("mislabelled") == 0
    more = np.where((truth == 1) & (np.arange(40) < 6), 2, truth)
    objects = compare_components(truth, more, None, (0, 7, 9))
    (error,) = objects.errors
    assert (error.kind, error.detail, error.pixels) == ("mislabelled", "class 7 as class 9", 24)
    assert error.box == (2, 8, 2, 8)
    assert [(row.kind, row.matched, row.truth_class) for row in objects.rows[: objects.n_truth]] == [
        ("mislabelled", False, 7),
        ("matched", True, 9),
    ]


def test_mislabelled_components_take_no_part_in_other_errors():
    truth = draw(a1=(2, 8, 2, 12))
    parts = draw(a1=(2, 8, 2, 7), b1=(2, 8, 8, 12))
    assert [error.kind for error in compare_components(truth, parts, None, (0, 1, 2)).errors] == ["split"]
    parts[parts == 1] = np.where(np.nonzero(parts == 1)[1] > 7, 2, 1)  # the second part has another class
    assert [error.kind for error in compare_components(truth, parts, None, (0, 1, 2)).errors] == []


def test_ignored_pixels_do_not_make_an_object_mislabelled():
    truth = draw(a1=(2, 8, 2, 8))
    prediction = np.where((truth == 1) & (np.arange(40) < 6), 2, truth)
    assert compare_components(truth, prediction, None, (0, 1, 2)).count("mislabelled") == 1
    ignore = np.zeros(truth.shape, bool)
    ignore[:, 2:5] = True  # of the four wrong columns
    assert compare_components(truth, prediction, ignore, (0, 1, 2)).count("mislabelled") == 0


def test_background_is_no_other_class():
    truth = draw(a1=(2, 8, 2, 8))
    objects = compare_components(truth, truth * 0, None, (0, 1, 2))
    assert [error.kind for error in objects.errors] == ["missed"]


def test_ignored_pixels_hide_objects_and_cut_them():
    truth, prediction = draw(a1=(2, 8, 2, 8)), draw(a3=(2, 8, 12, 18))
    ignore = np.zeros(truth.shape, bool)
    ignore[:, 12:] = True
    assert [error.kind for error in compare_instances(truth, prediction, ignore).errors] == ["missed"]
    whole = draw(a1=(2, 8, 2, 18))
    ignore = np.zeros(truth.shape, bool)
    ignore[:, 9] = True  # cuts the component in two
    assert compare_components(whole, whole, ignore, (0, 1)).n_truth == 2
