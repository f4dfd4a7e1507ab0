import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from septum.config import Decoding
from septum.core.decode import decode, fill_holes, finish, reach
from septum.core.labels import renumber_by_first_pixel
from septum.core.region import expand
from septum.core.targets import TARGETS


def probabilities(target, labels, rng=None):
    """What a perfect network would say, or one that is unsure by chance."""
    encoded = TARGETS[target].encode(labels)
    certain = np.moveaxis(np.eye(TARGETS[target].n_classes(0), dtype=np.float32)[encoded], -1, 0)
    if rng is None:
        return certain
    noise = ndimage.gaussian_filter(rng.random(certain.shape), (0, 2, 2)).astype(np.float32) ** 4 + 1e-6
    mixed = 0.6 * certain + 0.4 * noise / noise.sum(0)
    return mixed / mixed.sum(0)


def test_small_holes_are_filled_and_large_or_open_ones_kept():
    labels = np.full((9, 12), 2, np.int32)
    labels[0:2, 3] = 0  # reaches the edge
    labels[4, 2] = 0  # one pixel
    labels[4:6, 6:8] = 0  # four pixels
    labels[7, 10:12], labels[6:9, 9] = 3, 3
    filled = fill_holes(labels, 3)
    expected = labels.copy()
    expected[4, 2] = 2
    np.testing.assert_array_equal(filled, expected)
    assert not (fill_holes(labels, 4)[1:-1, 1:8] == 0)[2:].any()


def test_a_gap_between_two_objects_is_no_hole():
    labels = np.ones((5, 5), np.int32)
    labels[:, 3:] = 2
    labels[2, 2] = 0
    np.testing.assert_array_equal(fill_holes(labels, 9), labels)


def test_debris_is_dropped_and_numbers_follow_the_first_pixel():
    labels = np.zeros((20, 20), int)
    labels[12:18, 2:8], labels[2:8, 10:16], labels[0, 0] = 7, 4, 9
    decoded = decode("border", probabilities("border", labels), Decoding(smallest_object=20))
    assert decoded[0, 0] == 0
    assert (decoded[4, 12], decoded[14, 4]) == (1, 2)


@pytest.mark.parametrize("target", ["border", "rim"])
@pytest.mark.parametrize("seed", range(4))
def test_finish_depends_on_its_reach_only(target, seed):
    labels = _cells(seed)
    chances = probabilities(target, labels, np.random.default_rng(seed))
    decoding = Decoding(seed=0.7, foreground=0.4, reach=9, largest_hole=6)
    components = ndimage.label(TARGETS[target].seeds(chances, decoding), np.ones((3, 3)))[0].astype(np.int32)
    whole, far = finish(target, components, chances, decoding), reach(target, decoding)
    block = (slice(40, 90), slice(30, 100))
    wider = expand(block, far)
    part = finish(target, components[wider].copy(), chances[(slice(None), *wider)], decoding)
    np.testing.assert_array_equal(part[far:-far, far:-far], whole[block])


def _cells(seed):
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0, 128, (40, 2))
    y, x = np.mgrid[:128, :128]
    distance = np.hypot(y[..., None] - centres[:, 0], x[..., None] - centres[:, 1])
    return np.where(distance.min(-1) < 12, distance.argmin(-1) + 1, 0)


def disc(centre, radius):
    y, x = np.ogrid[:48, :64]
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2


ODD = {
    "background only": np.zeros((48, 64), int),
    "one cell that fills the image": np.ones((48, 64), int),
    "two cells": disc((20, 15), 9) * 1 + disc((28, 45), 9) * 2,
    "no background": np.kron([[1, 2], [3, 4]], np.ones((24, 32), int)),
    "an image of one pixel": np.ones((1, 1), int),
    "one row": np.repeat([[0, 1, 1, 1, 1, 1, 1, 0, 0, 0, 2, 2, 2, 2, 2, 2]], 1, axis=0),
}


@pytest.mark.parametrize("target", ["border", "rim"])
@pytest.mark.parametrize("case", ODD)
def test_odd_label_images_come_back(case, target):
    labels = ODD[case]
    decoding = Decoding(reach=TARGETS[target].needed_reach(labels))
    np.testing.assert_array_equal(decode(target, probabilities(target, labels), decoding), labels)


@pytest.mark.parametrize("target", ["border", "rim"])
def test_pieces_under_one_number_come_back_as_objects_of_their_own(target):
    labels = disc((20, 15), 9) * 5 + disc((28, 45), 9) * 5
    decoding = Decoding(reach=TARGETS[target].needed_reach(labels))
    expected = ODD["two cells"]
    np.testing.assert_array_equal(decode(target, probabilities(target, labels), decoding), expected)


@pytest.mark.parametrize("target", ["border", "rim"])
@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15)
def test_numbers_of_the_instances_do_not_matter(target, seed):
    rng = np.random.default_rng(seed)
    labels = _cells(seed)
    numbers = np.concatenate([[0], rng.permutation(500)[: labels.max()] + 1])
    np.testing.assert_array_equal(TARGETS[target].encode(numbers[labels]), TARGETS[target].encode(labels))
    assert TARGETS[target].needed_reach(numbers[labels]) == TARGETS[target].needed_reach(labels)


@pytest.mark.parametrize("turn", [np.flipud, np.fliplr, np.transpose], ids=["up-down", "left-right", "transposed"])
@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15)
def test_mirrored_probabilities_give_mirrored_objects_of_the_border_up_to_numbers(turn, seed):
    """Of the border only: where two cores grow towards one another, the tie goes by position."""
    labels = _cells(seed)
    chances = probabilities("border", labels, np.random.default_rng(seed))
    decoding = Decoding(seed=0.45, foreground=0.45, smallest_object=9, largest_hole=6)
    turned = np.stack([turn(chance) for chance in chances])
    result, expected = decode("border", turned, decoding), turn(decode("border", chances, decoding)).copy()
    renumber_by_first_pixel(expected)
    assert expected.max() > 1
    np.testing.assert_array_equal(result, expected)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15)
def test_mirrored_probabilities_move_no_more_than_ties_of_the_rim(seed):
    """The same objects cover the same foreground; a pixel of another object has two objects equally near."""
    labels = _cells(seed)
    chances = probabilities("rim", labels)
    decoding = Decoding(reach=TARGETS["rim"].needed_reach(labels))
    result = decode("rim", chances[:, :, ::-1].copy(), decoding)[:, ::-1].copy()
    expected = decode("rim", chances, decoding)
    renumber_by_first_pixel(result)
    np.testing.assert_array_equal(result > 0, expected > 0)
    assert result.max() == expected.max()
    assert (result != expected).mean() < 0.02


def test_a_hole_that_a_block_cuts_is_filled_as_in_the_whole():
    components = np.ones((12, 40), np.int32)
    components[5, 4:10] = 0  # six pixels, of which the block of columns 0 to 4 has one
    chances, decoding = np.stack([components == 0, components == 1]).astype(np.float32), Decoding(largest_hole=6)
    whole, far = finish("border", components, chances, decoding), reach("border", decoding)
    assert whole.all()
    part = finish("border", components[:, : 5 + far].copy(), chances[:, :, : 5 + far], decoding)
    np.testing.assert_array_equal(part[:, :5], whole[:, :5])
