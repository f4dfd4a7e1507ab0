import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from septum.core.normalize import NormalizedSource, _keys, _moments, _value, measure_normalization
from septum.core.region import shape_of
from septum.core.tiling import ArraySource
from septum.errors import ImageError

IMAGE = np.random.default_rng(0).integers(0, 4000, (2, 40, 50)).astype(np.uint16)


def test_standardize_gives_zero_mean_and_unit_deviation_per_channel():
    result = measure_normalization(IMAGE, "standardize")(IMAGE)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result.mean(axis=(1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(result.std(axis=(1, 2)), 1, rtol=1e-6)


@pytest.mark.parametrize("mode", ["standardize", "percentile"])
def test_brightness_and_contrast_of_the_image_do_not_matter(mode):
    np.testing.assert_allclose(
        measure_normalization(IMAGE * 3.0 + 70, mode)(IMAGE * 3.0 + 70),
        measure_normalization(IMAGE, mode)(IMAGE),
        rtol=0,
        atol=1e-5,
    )


def test_percentile_puts_the_1st_at_0_and_the_99_8th_at_1():
    result = measure_normalization(IMAGE, "percentile")(IMAGE)
    np.testing.assert_allclose(np.percentile(result, [1, 99.8], axis=(1, 2)), [[0, 0], [1, 1]], atol=1e-6)


def test_dtype_is_im2double():
    np.testing.assert_array_equal(measure_normalization(IMAGE, "dtype")(IMAGE), (IMAGE / 65535).astype(np.float32))
    floats = IMAGE.astype(np.float64)
    np.testing.assert_array_equal(measure_normalization(floats, "dtype")(floats), floats.astype(np.float32))


@pytest.mark.parametrize("mode", ["standardize", "percentile"])
def test_a_constant_image_is_shifted_to_zero(mode):
    flat = np.full((1, 4, 4), 7, np.uint8)
    np.testing.assert_array_equal(measure_normalization(flat, mode)(flat), 0)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("mode", ["standardize", "percentile"])
def test_a_mask_that_is_zero_everywhere_is_refused(mode, dtype):
    image = np.ones((1, 4, 4), dtype)
    with pytest.raises(ImageError, match=r"the mask of the image is zero everywhere"):
        measure_normalization(image, mode, np.zeros((4, 4), np.uint8))


def test_a_region_is_normalised_by_the_whole_image():
    normalization = measure_normalization(IMAGE, "standardize")
    region = (slice(3, 9), slice(10, 20))
    read = NormalizedSource(ArraySource(IMAGE), normalization).read(region)
    np.testing.assert_array_equal(read, normalization(IMAGE)[:, 3:9, 10:20])


class Cut(ArraySource):
    """An image that is stored in chunks of some size."""

    chunk = (7, 11)

    def read(self, region):
        sizes.append(math.prod(shape_of(region)))
        return super().read(region)


sizes = []
TYPES = [
    np.uint8,
    np.int8,
    np.uint16,
    np.int16,
    np.uint32,
    np.int32,
    np.int64,
    np.float16,
    np.float32,
    np.float64,
    ">f4",
    ">i2",
]


def draw(dtype, shape=(2, 61, 53), seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return (rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 4, shape)).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, np.dtype(dtype).newbyteorder("="), endpoint=True).astype(dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("block", [64, 10**6])
def test_streamed_statistics_are_numpys_of_the_whole_image(dtype, masked, block, monkeypatch):
    monkeypatch.setattr("septum.core.normalize.BLOCK_PIXELS", block)
    image = draw(dtype)
    mask = np.random.default_rng(1).random(image.shape[1:]) < 0.3 if masked else None
    pixels = image[:, mask] if masked else image.reshape(2, -1)
    result = measure_normalization(Cut(image), "standardize", mask)
    np.testing.assert_allclose(result.offset, pixels.mean(1, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(result.scale, pixels.std(1, dtype=np.float64), rtol=1e-12)
    result = measure_normalization(Cut(image), "percentile", mask)
    low, high = np.percentile(pixels.astype(np.float64), [1, 99.8], axis=1)
    np.testing.assert_allclose(result.offset, low, rtol=1e-14)
    np.testing.assert_allclose(result.scale, high - low, rtol=1e-14)


@pytest.mark.parametrize("mode", ["standardize", "percentile"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_integers_give_the_same_bits_however_the_image_is_cut(mode, dtype, monkeypatch):
    image = draw(dtype)
    whole = measure_normalization(image, mode)
    for block in (1, 50, 997):
        monkeypatch.setattr("septum.core.normalize.BLOCK_PIXELS", block)
        assert measure_normalization(image, mode) == measure_normalization(Cut(image), mode) == whole


def test_mean_and_deviation_of_integers_are_exact_rationals():
    image = np.array([[[0, 65535, 65535]]], np.uint16)
    result = measure_normalization(image, "standardize")
    assert result.offset == (43690.0,)
    assert result.scale == (float(np.sqrt(2 * 21845**2)),)


def test_sums_do_not_overflow_in_the_largest_images():
    """65535 in half of 100,000 x 100,000 pixels and 65533 in the other: mean 65534, deviation 1."""
    counts = np.zeros(2**16, np.int64)
    counts[[65533, 65535]] = 5 * 10**9
    assert _moments(counts, np.dtype(np.uint16)) == (65534.0, 1.0)


@given(
    st.lists(st.floats(width=32, allow_nan=False), min_size=2, max_size=50), st.sampled_from([np.float32, np.float64])
)
def test_keys_keep_the_order_of_floats_and_give_them_back(values, dtype):
    array = np.sort(np.array(values, dtype))
    keys = _keys(array)
    assert (np.diff(keys.astype(object)) >= 0).all() or (array == 0).sum() > 1  # 0.0 and -0.0 are equal
    np.testing.assert_array_equal([_value(int(key), array.dtype) for key in keys], array)


def test_percentiles_of_floats_are_exact_beside_an_outlier():
    image = np.full((1, 40, 50), 1e-3, np.float32)
    image[0, 0] = np.linspace(0, 1, 50)
    image[0, 39, 49] = 1e30
    low, high = np.percentile(image.astype(np.float64), [1, 99.8])
    result = measure_normalization(image, "percentile")
    assert (result.offset[0], result.scale[0]) == pytest.approx((low, high - low), rel=1e-14)


def test_a_constant_of_floats_is_shifted_to_zero():
    flat = np.full((1, 40, 50), 0.1)
    assert measure_normalization(flat, "standardize").scale == (1.0,)
    np.testing.assert_array_equal(measure_normalization(flat, "standardize")(flat), 0)


def test_an_image_is_read_in_blocks_of_bounded_size(monkeypatch):
    monkeypatch.setattr("septum.core.normalize.BLOCK_PIXELS", 200)
    for dtype, passes in ((np.uint16, 1), (np.float32, 2), (np.float64, 4)):
        sizes.clear()
        measure_normalization(Cut(draw(dtype, (1, 61, 53))), "percentile")
        assert max(sizes) <= 200
        assert sum(sizes) == passes * 61 * 53 + 1  # and one pixel to learn the type


@pytest.mark.parametrize("mode", ["standardize", "percentile"])
def test_what_cannot_be_measured_is_refused(mode, monkeypatch):
    monkeypatch.setattr("septum.core.normalize.BLOCK_PIXELS", 200)
    image = np.zeros((2, 40, 50), np.float32)
    with pytest.raises(ImageError, match=r"a.tif is zero everywhere; make it non-zero where"):
        measure_normalization(image, mode, np.zeros((40, 50)), name="a.tif")
    with pytest.raises(
        ImageError, match=r"mask of the image is 40 x 51, but the image is 40 x 50; give a mask of the same"
    ):
        measure_normalization(image, mode, np.ones((40, 51)))
    image[1, 39, 7] = np.inf
    with pytest.raises(ImageError, match=r"a.tif has pixels that are NaN .* the first at channel 1, row 39, column 7;"):
        measure_normalization(Cut(image), mode, name="a.tif")
