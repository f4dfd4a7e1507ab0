import os
from pathlib import Path

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from septum.core.decode import decode
from septum.core.targets import border
from septum.errors import ImageError

SQUARE = np.ones((5, 5), dtype=bool)
DATA = os.environ.get("SEPTUM_DATA")


def one_hot(classes):
    return np.stack([1 - classes, classes]).astype(np.float32)


def round_trip(labels):
    return decode("border", one_hot(border.encode(labels)))


def numbered_by_first_pixel(labels):
    found, first = np.unique(labels[labels > 0], return_index=True)
    table = np.zeros(labels.max() + 1, dtype=np.int32)
    table[found[np.argsort(first)]] = np.arange(1, len(found) + 1)
    return table[labels]


def five_wide(labels):
    """Of each object the largest part that is a union of 5x5 squares with 8-connected centres."""
    result = np.zeros_like(labels)
    for label in np.unique(labels[labels > 0]):
        centres, n = ndimage.label(ndimage.binary_erosion(labels == label, SQUARE), np.ones((3, 3)))
        if n:
            largest = np.bincount(centres[centres > 0]).argmax()
            result[ndimage.binary_dilation(centres == largest, SQUARE)] = label
    return result


def random_labels(rng):
    """Touching objects of one of three kinds, at least five pixels wide, cut by the image's edge."""
    height, width = rng.integers(12, 44, 2)
    y, x = np.mgrid[:height, :width]
    n, kind = rng.integers(1, 9), rng.integers(3)
    centres = rng.uniform(0, (height, width), (n, 2))
    labels = np.zeros((height, width), dtype=np.int64)
    if kind == 0:  # a tessellation, of the whole image or with holes
        distance = np.hypot(y[..., None] - centres[:, 0], x[..., None] - centres[:, 1])
        labels = np.where(distance.min(-1) < rng.uniform(8, 60), distance.argmin(-1) + 1, 0)
    for k, (cy, cx) in enumerate(centres if kind else []):
        half = rng.integers(2, 12, 2)
        inside = (abs(y - cy) <= half[0]) & (abs(x - cx) <= half[1])
        labels[inside if kind == 1 else np.hypot(y - cy, x - cx) <= half[0]] = k + 1
    return numbered_by_first_pixel(five_wide(labels))


def random_partition(rng):
    """The image cut into rectangles at least five pixels wide, a third of them background."""
    rectangles, done = [(0, 0, *rng.integers(10, 50, 2))], []
    while rectangles:
        y, x, height, width = rectangles.pop()
        if height >= 10 and rng.random() < 0.8:
            cut = rng.integers(5, height - 4)
            rectangles += [(y, x, cut, width), (y + cut, x, height - cut, width)]
        elif width >= 10 and rng.random() < 0.8:
            cut = rng.integers(5, width - 4)
            rectangles += [(y, x, height, cut), (y, x + cut, height, width - cut)]
        else:
            done.append((y, x, height, width))
    labels = np.zeros((max(r[0] + r[2] for r in done), max(r[1] + r[3] for r in done)), dtype=np.int64)
    for k, (y, x, height, width) in enumerate(done):
        labels[y : y + height, x : x + width] = (k + 1) * (rng.random() < 0.67)
    return numbered_by_first_pixel(labels)


def window(array, y, x):
    return array[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]


def slow_encode(labels):
    classes = np.zeros(labels.shape, dtype=np.uint8)
    for y, x in zip(*np.nonzero(labels), strict=True):
        classes[y, x] = set(window(labels, y, x).ravel().tolist()) <= {0, labels[y, x]}
    return classes


def objects_around(labels, y, x):
    return set(window(labels, y, x).ravel().tolist()) - {0}


def slow_largest(labels):
    """The labels and every pixel that the rule must add to them, found from the labels themselves, one by one."""
    uncut = labels * slow_encode(labels)
    result = uncut.copy()
    for y, x in np.ndindex(labels.shape):
        if len(objects_around(uncut, y, x)) == 1:
            result[y, x] = objects_around(uncut, y, x).pop()
    result = without_single_pixels(result, uncut)
    inside = np.zeros(labels.shape, dtype=bool)
    for y, x in np.ndindex(labels.shape[0] - 2, labels.shape[1] - 2):
        inside[y : y + 3, x : x + 3] |= len(np.unique(result[y : y + 3, x : x + 3])) == 1
    return without_single_pixels(np.where(inside, result, uncut), uncut)


def without_single_pixels(labels, uncut):
    """Drop what was added but touches nothing of another object, so that it would not be cut."""
    result = uncut.copy()
    for y, x in np.ndindex(labels.shape):
        if len(objects_around(labels, y, x)) > 1:
            result[y, x] = labels[y, x]
    return result


def test_encode_cuts_exactly_the_pixels_beside_another_instance():
    rng = np.random.default_rng(0)
    for _ in range(20):
        labels = rng.integers(0, 4, (9, 11)) * rng.integers(0, 2, (9, 11))
        np.testing.assert_array_equal(border.encode(labels), slow_encode(labels))


def test_remaining_pieces_of_different_instances_are_never_8_neighbours():
    rng = np.random.default_rng(1)
    for _ in range(50):
        labels = random_labels(rng)
        components, _ = ndimage.label(border.encode(labels), np.ones((3, 3)))
        for k in range(1, components.max() + 1):
            assert len(np.unique(labels[components == k])) == 1


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.integers(0, 1)))
@settings(max_examples=150, deadline=None)
def test_every_map_comes_back_from_its_labels(classes):
    np.testing.assert_array_equal(border.encode(decode("border", one_hot(classes))), classes)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=150, deadline=None)
def test_objects_five_pixels_wide_lose_nothing_and_gain_only_what_the_map_cannot_tell(seed):
    labels = random_labels(np.random.default_rng(seed))
    result = round_trip(labels)
    np.testing.assert_array_equal(border.encode(result), border.encode(labels))  # the two have the same map
    np.testing.assert_array_equal(numbered_by_first_pixel(result * (labels > 0)), labels)


def test_result_is_exact_but_for_the_pixels_predicted_from_the_labels():
    rng = np.random.default_rng(2)
    images = [
        labels for labels in (random_labels(rng) for _ in range(150)) if (border.encode(labels) != (labels > 0)).any()
    ]
    exact = 0
    for labels in images:
        largest = slow_largest(labels)
        np.testing.assert_array_equal(round_trip(labels), numbered_by_first_pixel(largest))
        exact += np.array_equal(largest, labels)
    assert exact > len(images) / 2 > 40  # of those with a border, which is two pixels wide in all of them


def test_partitions_into_rectangles_come_back_exactly():
    rng = np.random.default_rng(3)
    for _ in range(100):
        labels = random_partition(rng)
        np.testing.assert_array_equal(round_trip(labels), labels)


def beside(*widths, labels=(1, 2, 3, 4)):
    """Vertical strips, eight pixels high; a negative width is a gap."""
    numbers = iter(labels)
    return np.repeat([np.concatenate([np.full(abs(w), next(numbers) if w > 0 else 0) for w in widths])], 8, axis=0)


@pytest.mark.parametrize("gap", [1, 3, 4])
def test_gaps_of_any_width_but_two_are_kept(gap):
    labels = beside(6, -gap, 6)
    np.testing.assert_array_equal(round_trip(labels), labels)


def test_gap_of_two_pixels_has_the_map_of_a_border_and_is_given_to_the_instances():
    apart, touching = beside(6, -2, 6), beside(7, 7)
    np.testing.assert_array_equal(border.encode(apart), border.encode(touching))
    np.testing.assert_array_equal(round_trip(apart), touching)


def test_border_does_not_stick_out_into_the_background_where_it_ends():
    labels = np.concatenate([beside(9, 9), np.zeros((6, 18), int)])
    np.testing.assert_array_equal(round_trip(labels), labels)


@pytest.mark.parametrize("width", [3, 4])
def test_strips_of_three_or_four_pixels_between_neighbours_come_back(width):
    np.testing.assert_array_equal(round_trip(beside(6, width, 6)), beside(6, width, 6))


@pytest.mark.parametrize("width", [1, 2])
def test_thinner_strips_between_neighbours_are_lost_with_the_border(width):
    np.testing.assert_array_equal(round_trip(beside(6, width, 6)), beside(5, -width - 2, 5))


@pytest.mark.parametrize(
    ("width", "result"), [(1, beside(5, -2, -4)), (2, beside(5, -2, 1, -3)), (3, beside(6, 3, -2))]
)
def test_thin_strips_beside_one_neighbour(width, result):
    np.testing.assert_array_equal(round_trip(beside(6, width, width - 5)), result)


def test_thin_objects_that_touch_nothing_are_kept():
    labels = np.zeros((7, 7), int)
    labels[0, 0], labels[2, 1:6], labels[4:7, 3] = 1, 2, 3
    np.testing.assert_array_equal(round_trip(labels), labels)


def test_instances_split_by_the_cut_come_back_as_several():
    labels = beside(5, 5, 5, labels=(1, 2, 1))
    labels[3:5] = 1  # a bridge of two pixels through the middle strip: all of it is cut
    assert round_trip(labels).max() == 4


def test_enclosed_object_and_four_corners_come_back():
    labels = np.kron([[1, 2], [3, 4]], np.ones((11, 11), int))
    labels[14:19, 3:8] = 5
    np.testing.assert_array_equal(round_trip(labels), numbered_by_first_pixel(labels))


def test_numbers_follow_the_first_pixel_of_the_object_not_of_its_component():
    labels = np.zeros((12, 14), int)
    labels[:5, :6], labels[5:, :6], labels[5:, 9:] = 1, 2, 3  # the cut takes row 5 of object 2, but not of 3
    np.testing.assert_array_equal(round_trip(labels), labels)


def test_equal_probabilities_are_background():
    assert not decode("border", np.full((2, 4, 4), 0.5)).any()


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_giving_back_looks_no_farther_than_five_pixels(seed):
    rng = np.random.default_rng(seed)
    components, _ = ndimage.label(rng.random((24, 24)) < rng.uniform(0.1, 0.6), np.ones((3, 3)), output=np.int32)
    whole = border.give_border_back(components)
    part = border.give_border_back(np.ascontiguousarray(components[3:20, 4:22]))
    np.testing.assert_array_equal(part[5:-5, 5:-5], whole[8:15, 9:17])


@pytest.mark.skipif(DATA is None, reason="SEPTUM_DATA is not set")
def test_real_cells_come_back_with_the_same_map_and_nearly_all_pixels():
    for path in sorted(Path(str(DATA)).glob("DIC-C2DH-HeLa/0?_GT/SEG/*.tif")):
        labels = tifffile.imread(path)
        result = round_trip(labels)
        np.testing.assert_array_equal(border.encode(result), border.encode(labels))
        assert ((result > 0) != (labels > 0)).mean() < 0.002, path.name


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((4, 4), bool), "integers, got bool"),
        (np.zeros((4, 4), np.float32), "integers, got float32"),
        (np.zeros((3, 4, 4), int), r"of shape \(3, 4, 4\)"),
        (np.array([[-1, 0]]), r"got -1\.\.0"),
        (np.array([[0, 2**31]]), r"got 0\.\.2147483648"),
    ],
)
def test_what_is_no_label_image_is_refused(labels, message):
    with pytest.raises(ImageError, match=message):
        border.encode(labels)


def test_three_classes_are_refused():
    with pytest.raises(ImageError, match=r"needs probabilities of shape \(2, Y, X\), got \(3, 4, 4\); give those of"):
        decode("border", np.zeros((3, 4, 4)))


def test_network_needs_two_outputs_for_any_number_of_instances():
    assert border.n_classes(0) == border.n_classes(1000) == 2
