"""What label values mean: decided from all images, with a note or a warning for what a user may not expect."""

import numpy as np
import pytest
from skimage.measure import label

from septum.errors import ConfigError, DatasetError, ImageError
from septum.evaluation.cases import cases_from_arrays
from septum.evaluation.reading import number_components, read, survey, without_unannotated

INSTANCES = np.kron([[1, 0, 2], [0, 3, 0]], np.ones((4, 4), int))
MASK = (INSTANCES > 0) * 255
CLASSES = np.kron([[10, 20, 10], [20, 0, 20]], np.ones((4, 4), int))


def decided(prediction, truth, kind=None, **options):
    invert = options.pop("invert", False)
    cases = cases_from_arrays([prediction], [truth], **options)
    found = survey(cases, kind, invert=invert)
    return found, read(cases.images[0], found.reading)


def test_instances_are_taken_as_they_are():
    found, arrays = decided(INSTANCES * 5, INSTANCES)
    assert (found.reading.kind, found.reading.values, found.reading.maps) == ("instances", (0, 1), False)
    np.testing.assert_array_equal(arrays.truth, INSTANCES)
    np.testing.assert_array_equal(arrays.labels, INSTANCES * 5)
    assert found.warnings == ()
    assert decided(INSTANCES, INSTANCES, "instances")[0].notes == ("read as instances, as specified",)


@pytest.mark.parametrize("foreground", [1, 7, 255])
def test_any_value_but_0_is_the_foreground_of_a_mask(foreground):
    found, arrays = decided((INSTANCES > 1) * foreground, MASK)
    assert found.reading.two_classes
    np.testing.assert_array_equal(arrays.truth, INSTANCES > 0)
    np.testing.assert_array_equal(arrays.labels, INSTANCES > 1)


def test_a_mask_as_instances_is_split_into_components():
    found, arrays = decided(MASK, MASK, "instances")
    assert found.reading.split_truth
    assert found.reading.split_prediction
    np.testing.assert_array_equal(arrays.truth, label(MASK > 0, connectivity=1))
    np.testing.assert_array_equal(arrays.labels, arrays.truth)
    assert "every 4-connected component of the true masks counts as one object" in found.notes
    found, arrays = decided(MASK, INSTANCES)
    assert not found.reading.split_truth
    (warning,) = found.warnings
    assert warning.startswith("the predictions contain only 0 and 255, but the truth contains instances")
    assert arrays.labels.max() == 3


def test_maps_are_thresholded_above_one_half_and_may_be_inverted():
    chance = np.where(MASK, 0.75, 0.5).astype(np.float32)
    found, arrays = decided(chance, MASK)
    assert found.reading.maps
    np.testing.assert_array_equal(arrays.labels, MASK > 0)
    np.testing.assert_array_equal(arrays.foreground, chance)
    found, arrays = decided(chance, MASK, invert=True)
    np.testing.assert_array_equal(arrays.foreground, 1 - chance)
    assert "predictions inverted, as specified" in found.notes
    two = np.stack([1 - chance, chance])
    np.testing.assert_array_equal(decided(two, MASK)[1].foreground, chance)
    three = np.stack([1 - chance, chance / 2, chance / 2])  # foreground is all that is not background
    np.testing.assert_allclose(decided(three, MASK)[1].foreground, chance, atol=1e-7)


def test_classes_are_numbered_by_their_order_in_the_truth():
    found, arrays = decided(np.where(CLASSES == 20, 10, CLASSES), CLASSES, "classes")
    assert (found.reading.values, found.reading.by_index) == ((0, 10, 20), False)
    np.testing.assert_array_equal(arrays.truth, CLASSES // 10)
    np.testing.assert_array_equal(arrays.labels, np.minimum(CLASSES // 10, 1))
    found, arrays = decided(CLASSES // 10, CLASSES, "classes")
    assert found.reading.by_index
    np.testing.assert_array_equal(arrays.labels, arrays.truth)
    assert found.notes[-1].endswith("as septum predict does: 0 is 0, 1 is 10, 2 is 20 in the truth")


def test_the_largest_probability_decides_the_class():
    truth = CLASSES // 10
    chances = np.stack([truth == k for k in range(3)]).astype(np.float32) * 0.7 + 0.1
    found, arrays = decided(chances, truth, "classes")
    assert found.reading.maps
    np.testing.assert_array_equal(arrays.labels, truth)
    np.testing.assert_array_equal(arrays.probabilities, chances)
    with pytest.raises(ImageError, match="has 2 probability maps, but the truth has 3 classes"):
        decided(chances[:2], truth, "classes")


def test_truth_and_prediction_are_0_where_ignored():
    ignore = np.zeros(INSTANCES.shape, bool)
    ignore[:, :3] = True
    _, arrays = decided(INSTANCES, INSTANCES, "instances", ignore=[ignore])
    for array in (arrays.truth, arrays.labels):
        np.testing.assert_array_equal(array, np.where(ignore, 0, INSTANCES))
    np.testing.assert_array_equal(arrays.hidden, ignore)


@pytest.mark.parametrize(
    ("prediction", "truth", "kind", "invert", "error", "sentence"),
    [
        (INSTANCES, INSTANCES * 0, None, False, ImageError, "the truth has no object and no foreground in any image"),
        (INSTANCES, INSTANCES, None, True, ConfigError, "the truth contains instances; leave --invert out"),
        (CLASSES, CLASSES, "classes", True, ConfigError, "the truth has 3 classes; leave --invert out"),
        (INSTANCES / 2, INSTANCES, None, False, ImageError, "contains fractions, but the truth contains instances"),
        (np.arange(70), np.arange(70), "classes", False, DatasetError, "the truth contains 70 values, too many"),
        (MASK[:-1], MASK, None, False, ImageError, "has shape"),
    ],
)  # fmt: skip
def test_what_cannot_be_scored_is_refused(prediction, truth, kind, invert, error, sentence):
    with pytest.raises(error, match=sentence):
        decided(np.atleast_2d(prediction), np.atleast_2d(truth), kind, invert=invert)


@pytest.mark.parametrize("seed", range(3))
def test_components_of_each_class_are_numbered_apart(seed):
    rng = np.random.default_rng(seed)
    classes, ignore = rng.integers(0, 4, (12, 15)), rng.random((12, 15)) < 0.1
    numbered = number_components(classes, ignore)
    masks = [label((classes == k) & ~ignore, connectivity=1) for k in (1, 2, 3)]
    assert numbered.max() == sum(mask.max() for mask in masks)
    for mask in masks:  # the same components, whatever their numbers
        pairs = set(zip(mask[mask > 0].tolist(), numbered[mask > 0].tolist(), strict=True))
        assert len(pairs) == mask.max() == len({number for _, number in pairs})
    assert not numbered[ignore | (classes == 0)].any()
    np.testing.assert_array_equal(number_components(classes == 1, None), label(classes == 1, connectivity=1))


def test_only_predictions_that_lie_mostly_in_unannotated_areas_are_removed():
    unknown = np.zeros((1, 12), bool)
    unknown[:, 6:] = True
    truth = np.array([[1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]])
    half = np.array([[0, 0, 0, 0, 5, 5, 5, 5, 0, 0, 0, 0]])
    np.testing.assert_array_equal(without_unannotated(half, truth, unknown), half)
    more = np.array([[0, 0, 0, 0, 0, 5, 5, 5, 0, 0, 0, 0]])
    assert not without_unannotated(more, truth, unknown).any()
    unknown[:, 5] = True
    matched = np.full((1, 12), 4)  # more than half lies there, but it matches an outlined object
    np.testing.assert_array_equal(without_unannotated(matched, truth, unknown), matched)
