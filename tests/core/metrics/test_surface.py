import numpy as np
import pytest
from scipy import ndimage
from skimage.metrics import hausdorff_distance
from skimage.segmentation import find_boundaries

from septum.core.metrics.surface import outline, surface_distance


def blobs(seed, shape=(60, 70)):
    rng = np.random.default_rng(seed)
    fields = ndimage.gaussian_filter(rng.normal(size=(2, *shape)), (0, *[4] * len(shape)))
    return fields[0] > 0.02, fields[0] + 0.4 * fields[1] > 0.02


def slow(truth, prediction, size):
    """By distance transforms of the eroded masks' complements."""
    edges = [mask & ~ndimage.binary_erosion(mask) for mask in (truth, prediction)]
    there, back = (ndimage.distance_transform_edt(~a, size)[b] for a, b in (edges, edges[::-1]))
    return max(np.percentile(there, 95), np.percentile(back, 95)), np.concatenate([there, back]).mean()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("shape", "size"), [((60, 70), (0.5, 0.2)), ((12, 20, 24), (2.0, 0.4, 0.3))])
def test_equals_distance_transforms(seed, shape, size):
    truth, prediction = blobs(seed, shape)
    scores = surface_distance(truth, prediction, pixel_size=size)
    pixels, micrometres = slow(truth, prediction, [1] * len(shape)), slow(truth, prediction, size)
    assert (scores.hausdorff_95_px, scores.mean_surface_distance_px) == pytest.approx(pixels, abs=1e-12)
    assert (scores.hausdorff_95_um, scores.mean_surface_distance_um) == pytest.approx(micrometres, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_outlines_equal_skimages_inner_boundaries_away_from_the_frame(seed):
    mask, _ = blobs(seed)
    expected = find_boundaries(mask, connectivity=1, mode="inner")
    np.testing.assert_array_equal(outline(mask)[1:-1, 1:-1], expected[1:-1, 1:-1])
    np.testing.assert_array_equal(outline(mask)[0], mask[0])


def test_equals_skimages_hausdorff_distance_where_all_percentiles_agree():
    for shift in [(0, 7), (3, 4), (10, 0)]:
        a = np.zeros((30, 30), bool)
        a[8, 9] = True
        b = np.roll(a, shift, (0, 1))
        scores = surface_distance(a, b, pixel_size=(0.5, 0.5))
        assert scores.hausdorff_95_px == scores.mean_surface_distance_px == hausdorff_distance(a, b)
        assert scores.hausdorff_95_um == hausdorff_distance(a, b) / 2
    for seed in range(3):
        a, b = blobs(seed)
        assert surface_distance(a, b).hausdorff_95_px <= hausdorff_distance(outline(a), outline(b))


def test_concentric_squares_are_a_pixel_apart():
    inner = np.zeros((40, 40), bool)
    inner[10:30, 10:30] = True
    scores = surface_distance(inner, ndimage.binary_dilation(inner, np.ones((3, 3))), pixel_size=(0.1, 0.1))
    assert scores.hausdorff_95_px == 1
    assert scores.mean_surface_distance_px == pytest.approx(1 + 4 * (2**0.5 - 1) / (76 + 84))  # four corners
    assert scores.hausdorff_95_um == pytest.approx(0.1)


def test_swapping_changes_nothing_and_the_same_mask_is_at_zero():
    truth, prediction = blobs(0)
    a, b = surface_distance(truth, prediction), surface_distance(prediction, truth)
    assert a.hausdorff_95_px == b.hausdorff_95_px
    assert a.mean_surface_distance_px == pytest.approx(b.mean_surface_distance_px)
    assert surface_distance(truth, truth * 7).hausdorff_95_px == 0
    assert a.hausdorff_95_um is a.mean_surface_distance_um is None


def test_an_empty_mask_has_no_distance_and_says_so():
    truth, nothing = blobs(0)[0], np.zeros((60, 70), bool)
    assert surface_distance(truth, nothing).reason == "no outline in prediction"
    assert surface_distance(nothing, nothing).reason == "no outline in truth and prediction"
    assert surface_distance(truth, nothing).hausdorff_95_px is None


def test_ignored_pixels_take_part_in_nothing():
    truth, prediction = blobs(0)
    ignore = np.zeros_like(truth)
    ignore[20:50, 10:40] = True
    scores = surface_distance(truth, prediction, ignore=ignore)
    assert scores == surface_distance(truth ^ ignore, prediction & ~ignore, ignore=ignore)
    assert scores != surface_distance(truth, prediction)
    everywhere = np.ones_like(truth)
    assert surface_distance(everywhere, everywhere, ignore=ignore).hausdorff_95_px == 0
    assert not outline(everywhere, ignore)[1:-1, 1:-1].any()  # a border to the ignored part is no outline
