import numpy as np
import pytest
from scipy import ndimage

from septum.config import Decoding
from septum.core.decode import decode
from septum.core.targets import rim


def cells(seed, shape=(96, 120)):
    """Touching cells: each pixel belongs to the nearest of some centres, if that is near."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform((0, 0), shape, (25, 2))
    y, x = np.mgrid[: shape[0], : shape[1]]
    distance = np.hypot(y[..., None] - centres[:, 0], x[..., None] - centres[:, 1])
    return np.where(distance.min(-1) < 14, distance.argmin(-1) + 1, 0)


def one_hot(classes):
    return np.moveaxis(np.eye(3, dtype=np.float32)[classes], -1, 0)


@pytest.mark.parametrize("seed", range(5))
def test_every_instance_has_a_core_and_cores_do_not_touch(seed):
    labels = cells(seed)
    classes = rim.encode(labels)
    np.testing.assert_array_equal(classes > 0, labels > 0)
    assert set(np.unique(labels[classes == 2])) == set(np.unique(labels)) - {0}
    spread = ndimage.maximum_filter(np.where(classes == 2, labels, 0), 3)
    touched = (classes == 2) & (spread != labels)
    assert not touched.any()


@pytest.mark.parametrize("seed", range(5))
def test_the_core_is_the_deep_part_by_a_brute_force_distance(seed):
    labels = cells(seed, (40, 50))
    classes = rim.encode(labels)
    for label in np.unique(labels)[1:]:
        inside, others = np.argwhere(labels == label), np.argwhere(labels != label)
        depth = np.sqrt(((inside[:, None] - others[None]) ** 2).sum(-1).min(1))
        expected = depth >= max(rim.CORE * depth.max(), min(2.0, depth.max())) - 1e-9
        np.testing.assert_array_equal(classes[tuple(inside.T)] == 2, expected)


@pytest.mark.parametrize("seed", range(5))
def test_cells_come_back_but_for_pixels_along_the_walls(seed):
    """Cores are grown at one pace, so where cells of different sizes touch the wall may move a little."""
    labels = cells(seed)
    reach = rim.needed_reach(labels)
    decoded = decode("rim", one_hot(rim.encode(labels)), Decoding(reach=reach))
    np.testing.assert_array_equal(decoded > 0, labels > 0)
    pairs = np.stack([labels[labels > 0], decoded[labels > 0]])
    agreeing = sum(np.unique(pairs[1][pairs[0] == label], return_counts=True)[1].max() for label in np.unique(pairs[0]))
    assert agreeing / pairs.shape[1] > 0.93


def test_alone_an_instance_comes_back_whole():
    y, x = np.mgrid[:60, :80]
    labels = (np.hypot((y - 30) / 22, (x - 40) / 33) < 1).astype(int) * 5
    decoded = decode("rim", one_hot(rim.encode(labels)), Decoding(reach=rim.needed_reach(labels)))
    np.testing.assert_array_equal(decoded, labels > 0)


def test_a_cut_is_no_outline_where_nothing_tells_that_it_is_one():
    """A cell of 20 columns, cut after 10: there it has no rim, or one that is not to be learned."""
    labels = np.zeros((30, 30), int)
    labels[5:25, 5:25] = 1
    unknown = np.zeros(labels.shape, bool)
    unknown[:, 15:] = True
    cut = np.where(unknown, 0, labels)
    ambiguous = rim.ambiguous(cut, unknown)
    assert (rim.encode(cut)[9:21, 14] == 1).all()  # taken as an outline
    assert ambiguous[9:21, 14].all()
    assert not ambiguous[5:25, 5].any()  # the outline that is known
    assert not ambiguous[cut == 0].any()


def test_few_pixels_that_are_sure_would_have_another_class_if_all_were_known():
    wrong = left = given_up = 0
    for seed in range(10):
        labels = cells(seed, (128, 128))
        unknown = np.kron(np.random.default_rng(seed).random((4, 4)) < 0.7, np.ones((32, 32), bool))
        cut = np.where(unknown, 0, labels)
        differs = (rim.encode(cut) != rim.encode(labels)) & ~unknown
        ambiguous = rim.ambiguous(cut, unknown)
        wrong, left, given_up = wrong + differs.sum(), left + (differs & ~ambiguous).sum(), given_up + ambiguous.sum()
    assert left < 0.25 * wrong
    assert given_up < 1.5 * wrong  # and not much else


@pytest.mark.parametrize("seed", range(3))
def test_what_is_not_annotated_far_from_all_cells_makes_nothing_unsure(seed):
    labels = cells(seed)
    unknown = ndimage.distance_transform_edt(labels == 0) > 2
    assert not rim.ambiguous(labels, unknown).any()
    assert not rim.ambiguous(labels, np.zeros(labels.shape, bool)).any()


def test_an_instance_that_fills_the_image_has_no_rim():
    assert (rim.encode(np.full((5, 9), 3)) == 2).all()


def test_each_piece_of_a_number_in_two_places_has_a_core():
    labels = np.zeros((30, 60), int)
    labels[2:28, 2:28] = labels[10:15, 40:45] = 7
    apart = np.where(np.arange(60) < 30, labels, 0), np.where(np.arange(60) < 30, 0, labels)
    np.testing.assert_array_equal(rim.encode(labels), sum(rim.encode(part) for part in apart))


def test_one_pixel_has_a_core():
    labels = np.zeros((3, 3), int)
    labels[1, 1] = 1
    assert rim.encode(labels)[1, 1] == 2
