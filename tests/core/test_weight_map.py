import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from septum.config import WeightMapConfig, falk_2019
from septum.core.targets import border, rim
from septum.core.weight_map import class_weights, separation_weight, weight_map
from septum.errors import ConfigError, DatasetError, ImageError

BALANCE = np.array([0.25, 1.0])


def distances(labels):
    """Brute force: one exact distance transform per instance, (n, Y, X) sorted along n."""
    each = [ndimage.distance_transform_edt(labels != label) for label in np.unique(labels[labels > 0])]
    return np.sort(each, axis=0)


def slow_separation_weight(labels, where, w0, sigma):
    if len(np.unique(labels[labels > 0])) < 2:
        return np.zeros(labels.shape)
    d1, d2 = distances(labels)[:2]
    return np.where(where, w0 * np.exp(-((d1 + d2) ** 2) / (2 * sigma**2)), 0)


def cells(seed, shape, n, radius):
    """Touching cells: the pixels nearest to each of n centres, and not farther than the radius."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0, shape, (n, 2))
    y, x = np.indices(shape)
    distance = np.hypot(y[..., None] - centres[:, 0], x[..., None] - centres[:, 1])
    return np.where(distance.min(-1) < radius, distance.argmin(-1) + 1, 0)


SPARSE = st.sampled_from([0, 0, 0, 0, 0, 0, 1, 2, 3, 4])  # instances of single pixels, in several pieces
IMAGES = arrays.arrays(np.int32, st.tuples(st.integers(1, 12), st.integers(1, 40)), elements=SPARSE)


@given(IMAGES, st.sampled_from([(10.0, 5.0), (50.0, 6.0), (1.0, 0.7), (0.0, 5.0)]), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_separation_weight_equals_one_distance_transform_per_instance(labels, preset, seed):
    where = np.random.default_rng(seed).random(labels.shape) < 0.5
    w0, sigma = preset
    ours = separation_weight(labels, w0=w0, sigma=sigma, where=where)
    np.testing.assert_allclose(ours, slow_separation_weight(labels, where, w0, sigma), atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize(("w0", "sigma"), [(10.0, 5.0), (50.0, 6.0), (10.0, 30.0)])
@pytest.mark.parametrize(("n", "radius"), [(60, 15), (40, 6), (8, 3), (2, 1)])
def test_separation_weight_of_cells_equals_brute_force_across_blocks_of_rows(w0, sigma, n, radius):
    labels = cells(n, (400, 60), n, radius)
    ours = separation_weight(labels, w0=w0, sigma=sigma)
    np.testing.assert_allclose(ours, slow_separation_weight(labels, labels == 0, w0, sigma), atol=1e-5, rtol=1e-6)


def test_table_of_the_papers_values():
    expected = {2: 9.23, 3: 8.35, 4: 7.26, 6: 4.87, 8: 2.78, 10: 1.35, 15: 0.11}
    for total, weight in expected.items():
        gap = np.zeros((1, total + 1), int)
        gap[0, 0], gap[0, -1] = 1, 2
        np.testing.assert_allclose(separation_weight(gap)[0, 1:-1], weight, atol=0.005)


@pytest.mark.parametrize("ids", [(0, 0), (1, 1), (1, 0)])
def test_fewer_than_two_instances_have_no_separation(ids):
    labels = np.zeros((9, 9), int)
    labels[2, 2], labels[6, 6] = ids
    assert not separation_weight(labels).any()


def test_mirroring_and_turning_the_labels_turns_the_weights():
    labels = cells(0, (70, 50), 20, 7)
    weights = separation_weight(labels)
    for turn in (np.transpose, np.fliplr, np.flipud, np.rot90):
        np.testing.assert_array_equal(separation_weight(turn(labels)), turn(weights))


def test_numbers_and_integer_type_of_the_instances_do_not_matter():
    labels = cells(1, (50, 50), 12, 8)
    numbers = np.concatenate([[0], np.random.default_rng(0).permutation(60000)[:12] + 1])
    np.testing.assert_array_equal(separation_weight(numbers[labels].astype(np.uint16)), separation_weight(labels))
    np.testing.assert_array_equal(separation_weight(labels.astype(">i8")), separation_weight(labels))


def test_cut_border_pixels_have_distance_zero_to_their_own_instance():
    labels = np.array([[1, 1, 1, 2, 2, 2]])
    ours = separation_weight(labels, where=border.encode(labels) == 0)
    expected = 10 * np.exp(-1 / 50)  # d1 = 0, d2 = 1
    np.testing.assert_allclose(ours, [[0, 0, expected, expected, 0, 0]], rtol=1e-6)


def test_class_weights_give_every_class_the_same_total_and_the_rarest_1():
    counts = np.array([900, 30, 70])
    weights = class_weights(counts)
    np.testing.assert_allclose(weights * counts, 30)
    assert weights.max() == 1
    np.testing.assert_array_equal(class_weights([900, 0, 30, 70]), np.insert(weights, 1, 0))


def test_class_weights_of_nothing_are_refused():
    with pytest.raises(DatasetError, match="no annotated pixel"):
        class_weights([0, 0])


def test_paper_map_is_balance_plus_separation_on_background_and_border():
    labels = cells(2, (80, 80), 25, 9)
    classes = border.encode(labels)
    ignore = np.random.default_rng(0).random(labels.shape) < 0.2
    ours = weight_map(labels, classes, WeightMapConfig(), BALANCE, ignore)
    expected = np.where(classes == 1, 1.0, 0.25 + slow_separation_weight(labels, classes == 0, 10, 5))
    np.testing.assert_allclose(ours, np.where(ignore, 0, expected), atol=1e-5)
    assert (ours.dtype, ours[ignore].any()) == (np.float32, False)


def test_freiburg_map_equals_its_formula():
    labels = cells(3, (90, 90), 9, 11)
    classes = border.encode(labels)
    ours = weight_map(labels, classes, falk_2019(), BALANCE)
    d1, d2 = distances(labels)[:2]
    elsewhere = 0.1 + 50 * np.exp(-((d1 + d2) ** 2) / (2 * 6**2)) + 0.9 * np.exp(-(d1**2) / (2 * 10**2))
    np.testing.assert_allclose(ours, np.where(classes == 1, 1, elsewhere), atol=1e-5)


def test_freiburg_ridge_between_touching_cells_weighs_50_3():
    labels = np.repeat([[1, 1, 1, 2, 2, 2]], 5, axis=0)
    ours = weight_map(labels, border.encode(labels), falk_2019(), BALANCE)
    np.testing.assert_allclose(ours[:, 2:4], 0.1 + 0.9 + 49.31, atol=0.005)


def test_frame_without_cells_weighs_the_background_weight():
    nothing = np.zeros((6, 6), np.uint8)
    np.testing.assert_allclose(weight_map(nothing, nothing, falk_2019(), BALANCE), 0.1)
    np.testing.assert_allclose(weight_map(nothing, nothing, WeightMapConfig(), BALANCE), 0.25)


def test_semantic_classes_have_balance_but_no_separation():
    classes = np.array([[1, 0, 2], [2, 0, 1]], np.uint8)
    balance = np.array([0.1, 1.0, 0.5])
    np.testing.assert_array_equal(weight_map(None, classes, WeightMapConfig(), balance), np.float32(balance)[classes])
    falk = weight_map(None, classes, falk_2019(), balance)
    np.testing.assert_allclose(falk, np.where(classes > 0, 1, 0.1 + 0.9 * np.exp(-1 / 200)), rtol=1e-6)


def test_without_balance_every_pixel_weighs_1_and_separation_comes_on_top():
    labels = np.array([[1, 0, 2]])
    ours = weight_map(labels, (labels > 0).astype(np.uint8), WeightMapConfig(balance="none"), BALANCE)
    np.testing.assert_allclose(ours, [[1, 10.231, 1]], atol=0.0005)


@pytest.mark.parametrize("settings", [{"w0": -1.0}, {"sigma": 0.0}])
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ConfigError, match="must not be negative and sigma must be positive"):
        separation_weight(np.array([[1, 0, 2]]), **settings)


def test_where_of_another_shape_is_refused():
    with pytest.raises(ImageError, match=r"\(1, 3\), got \(2, 3\)"):
        separation_weight(np.array([[1, 0, 2]]), where=np.ones((2, 3), bool))


def test_mask_instead_of_labels_is_refused():
    with pytest.raises(ImageError, match="integers, got bool"):
        separation_weight(np.ones((3, 3), bool))


def test_rims_between_touching_cells_are_weighted_and_cores_are_not():
    labels = np.repeat([[1] * 12 + [2] * 12], 12, axis=0)
    classes = rim.encode(labels)
    weights = weight_map(labels, classes, WeightMapConfig(balance="none"), np.ones(3))
    beside = 10 * np.exp(-(1**2) / (2 * 5**2))  # d1 = 0 inside a cell, d2 = 1 to the other
    assert weights[6, 11] == pytest.approx(1 + beside, abs=1e-5)
    np.testing.assert_array_equal(weights[classes == 2], 1)


def test_by_default_the_map_is_the_papers_with_the_balance_of_this_image():
    labels = cells(4, (70, 60), 12, 9)
    ignore = np.random.default_rng(1).random(labels.shape) < 0.3
    classes = border.encode(labels)
    balance = class_weights(np.bincount(classes[~ignore]))
    np.testing.assert_array_equal(
        weight_map(labels, ignore=ignore), weight_map(labels, classes, WeightMapConfig(), balance, ignore)
    )
    np.testing.assert_array_equal(weight_map(np.zeros((3, 4), int)), 1)  # nothing to tell apart


def test_a_map_of_nothing_is_refused():
    with pytest.raises(ImageError, match=r"needs labels .* or classes, got neither"):
        weight_map(None)
    with pytest.raises(DatasetError, match="no annotated pixel"):
        weight_map(np.eye(3, dtype=int), ignore=np.ones((3, 3), bool))
