import numpy as np
import pytest

from septum.core.normalize import NormalizedSource, measure
from septum.core.tiling import ArraySource

IMAGE = np.random.default_rng(0).integers(0, 4000, (2, 40, 50)).astype(np.uint16)


def test_standardize_gives_zero_mean_and_unit_deviation_per_channel():
    result = measure(IMAGE, "standardize")(IMAGE)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result.mean(axis=(1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(result.std(axis=(1, 2)), 1, rtol=1e-6)


@pytest.mark.parametrize("mode", ["standardize", "percentile"])
def test_brightness_and_contrast_of_the_image_do_not_matter(mode):
    np.testing.assert_allclose(
        measure(IMAGE * 3.0 + 70, mode)(IMAGE * 3.0 + 70), measure(IMAGE, mode)(IMAGE), rtol=0, atol=1e-5
    )


def test_percentile_puts_the_1st_at_0_and_the_99_8th_at_1():
    result = measure(IMAGE, "percentile")(IMAGE)
    np.testing.assert_allclose(np.percentile(result, [1, 99.8], axis=(1, 2)), [[0, 0], [1, 1]], atol=1e-6)


def test_dtype_is_im2double():
    np.testing.assert_array_equal(measure(IMAGE, "dtype")(IMAGE), (IMAGE / 65535).astype(np.float32))
    floats = IMAGE.astype(np.float64)
    np.testing.assert_array_equal(measure(floats, "dtype")(floats), floats.astype(np.float32))


@pytest.mark.parametrize("mode", ["standardize", "percentile"])
def test_a_constant_image_is_shifted_to_zero(mode):
    flat = np.full((1, 4, 4), 7, np.uint8)
    np.testing.assert_array_equal(measure(flat, mode)(flat), 0)


def test_a_region_is_normalised_by_the_whole_image():
    normalization = measure(IMAGE, "standardize")
    region = (slice(3, 9), slice(10, 20))
    read = NormalizedSource(ArraySource(IMAGE), normalization).read(region)
    np.testing.assert_array_equal(read, normalization(IMAGE)[:, 3:9, 10:20])
