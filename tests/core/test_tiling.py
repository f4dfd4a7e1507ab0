import copy

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from septum.config import UNetConfig
from septum.core.region import shape_of, shift
from septum.core.tiling import (
    STATISTICS_TILE,
    ArraySink,
    ArraySource,
    blocks,
    measured_tiles,
    read_mirrored,
    reflect,
    tiles,
)
from septum.core.unet import UNet, input_size, is_admissible, margin
from septum.errors import ConfigError
from septum.model.model import load
from septum.model.predict import fit_to_image, predict_logits, predict_region


@given(
    shape=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    steps=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    depth=st.integers(1, 4),
)
def test_every_pixel_is_written_exactly_once(shape, steps, depth):
    count = np.zeros(shape, int)
    for tile in tiles(shape, [step * 2**depth for step in steps], depth):
        count[tile.write] += 1
        for read, crop, write in zip(tile.read, tile.crop, tile.write, strict=True):
            assert write.stop - write.start == crop.stop - crop.start
            assert read.stop - read.start == input_size(write.stop - write.start, depth)
            assert write.start - read.start == margin(depth)
    np.testing.assert_array_equal(count, 1)


@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    chunk=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    pixels=st.integers(1, 500),
)
def test_blocks_cover_every_pixel_once_in_whole_chunks(shape, chunk, pixels):
    count = np.zeros(shape, int)
    for region in blocks(shape, chunk, pixels):
        count[region] += 1
        assert count[region].size <= max(pixels, min(chunk[1], shape[1]))
        if min(chunk[0], shape[0]) * min(chunk[1], shape[1]) <= pixels:
            assert all(part.start % step == 0 for part, step in zip(region, chunk, strict=True))
    np.testing.assert_array_equal(count, 1)


@given(size=st.integers(1, 12), before=st.integers(0, 40), after=st.integers(0, 40))
def test_reflect_is_numpys_mirror_without_the_edge(size, before, after):
    expected = np.pad(np.arange(size), (before, after), mode="reflect") if size > 1 else np.zeros(before + 1 + after)
    np.testing.assert_array_equal(reflect(np.arange(-before, size + after), size), expected)


@given(
    shape=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    start=st.tuples(st.integers(-60, 30), st.integers(-60, 30)),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
)
def test_reading_mirrored_is_a_crop_of_the_padded_image(shape, start, size):
    image = np.random.default_rng(0).random((2, *shape))
    pad = 120
    padded = image
    for axis in (1, 2):
        index = reflect(np.arange(-pad, image.shape[axis] + pad), image.shape[axis])
        padded = np.take(padded, index, axis)
    region = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
    expected = padded[(slice(None), *shift(region, (pad, pad)))]
    np.testing.assert_array_equal(read_mirrored(ArraySource(image), region), expected)


def test_only_what_is_needed_is_read():
    class Counting(ArraySource):
        def read(self, region):
            regions.append(region)
            return super().read(region)

    regions = []
    read_mirrored(Counting(np.zeros((1, 1000, 1000))), (slice(-10, 5), slice(990, 1020)))
    assert regions == [(slice(0, 11), slice(979, 1000))]


def predict_tiled(net, image, stride, rows=16):
    """In tiles, and every tile in bands."""
    sink = ArraySink((net.config.n_classes, *image.shape[1:]), image.dtype.type)
    for tile in tiles(image.shape[1:], stride, net.config.depth):
        for region, logits in predict_logits(net, ArraySource(image), tile, rows):
            sink.write(region, logits)
    return sink.array


def predict_whole(net, image):
    """One pass over the padded image, by the network alone."""
    lost, depth = margin(net.config.depth), net.config.depth
    padded = image
    for axis in (1, 2):
        size = input_size(image.shape[axis], depth)
        padded = np.take(padded, reflect(np.arange(-lost, size - lost), image.shape[axis]), axis)
    with torch.no_grad():
        logits = net(torch.from_numpy(np.ascontiguousarray(padded))[None])[0].numpy()
    return logits[:, : image.shape[1], : image.shape[2]]


PRIMES = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67]
SIDES = st.one_of(st.just(1), st.sampled_from(PRIMES), st.integers(1, 70))


@pytest.mark.slow
@settings(max_examples=220, deadline=None)
@given(
    shape=st.tuples(SIDES, SIDES),
    steps=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    depth=st.sampled_from([2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5]),
    channels=st.integers(1, 3),
    classes=st.integers(2, 4),
    rows=st.sampled_from([7, 16, 33, 64, 500]),
    normalization=st.sampled_from(["none", "none", "none", "image"]),
    seed=st.integers(0, 9),
)
@example(shape=(1, 83), steps=(1, 1), depth=2, channels=1, classes=2, rows=8, normalization="none", seed=0)
@example(shape=(79, 1), steps=(1, 1), depth=3, channels=2, classes=3, rows=16, normalization="image", seed=0)
@example(shape=(3, 5), steps=(5, 5), depth=5, channels=1, classes=2, rows=64, normalization="none", seed=0)
@example(
    shape=(1, 1), steps=(1, 1), depth=4, channels=1, classes=3, rows=7, normalization="none", seed=4
)  # its logits cancel
def test_tiled_equals_whole(shape, steps, depth, channels, classes, rows, normalization, seed):
    """Within 1e-5 of the largest logit in float32 and 1e-12 in float64, labels included.

    Layers normalised by the image divide by spreads that may be small, and so enlarge the rounding of float32, which
    differs between a pass in bands and a pass in one. There the tiles are held to the exact logits, of float64, and may
    be four times as far from them as one pass in float32 is, whose distance is itself one draw of a rounding (of 2,000
    networks and images like these, without AVX-512, 0.25 % were more than twice as far, the farthest 3.7 times).
    """
    config = UNetConfig(
        depth=depth, base_channels=4, in_channels=channels, n_classes=classes, normalization=normalization
    )
    image = np.random.default_rng(seed).standard_normal((channels, *shape))
    stride = [step * 2**depth for step in steps]
    for dtype, bound in ((np.float64, 1e-12), (np.float32, 1e-5)):
        pixels = image.astype(dtype)
        net = fit_to_image(UNet(config, seed).to(torch.from_numpy(pixels).dtype).eval(), ArraySource(pixels))
        expected, tiled = predict_whole(net, pixels), predict_tiled(net, pixels, stride, rows)
        allowed = bound * np.abs(expected).max()
        if normalization == "image" and dtype is np.float32:
            exact = predict_whole(copy.deepcopy(net).double(), pixels.astype(np.float64))
            expected, allowed = exact, max(allowed, 4 * np.abs(expected - exact).max())
        assert np.abs(tiled - expected).max() <= allowed
        best = np.sort(expected, axis=0)
        clear = best[-1] - best[-2] > 2 * allowed
        np.testing.assert_array_equal(tiled.argmax(0)[clear], expected.argmax(0)[clear])


def test_tiled_equals_whole_at_the_papers_depth():
    net = UNet(UNetConfig(base_channels=2)).double().eval()
    image = np.random.default_rng(0).standard_normal((1, 150, 70))
    whole = predict_whole(net, image)
    for stride in ((16, 16), (64, 32), (96, 80)):
        assert np.abs(predict_tiled(net, image, stride) - whole).max() <= 1e-12 * np.abs(whole).max()


def test_the_papers_stride_of_388_is_refused_because_tiles_would_not_meet():
    with pytest.raises(ConfigError, match=r"multiple of 2\*\*depth = 16 .* got 388; the nearest valid value is 384"):
        list(tiles((1000, 1000), (388, 388), depth=4))


def test_a_stride_off_the_grid_would_be_seen():
    """The property above can fail: tiles cut 8 pixels off the grid differ from the whole by far more than rounding."""
    net = UNet(UNetConfig(base_channels=2)).double().eval()
    image = np.random.default_rng(0).standard_normal((1, 60, 60))
    shifted = predict_whole(net, image[:, 8:])
    whole = predict_whole(net, image)[:, 8:]
    inner = slice(40, 44)
    assert np.abs(shifted - whole)[:, inner].max() > 1e-3 * np.abs(whole).max()


@pytest.mark.parametrize(
    "region", [(slice(37, 60), slice(5, 90)), (slice(0, 1), slice(89, 90)), (slice(16, 32), slice(0, 90))]
)
def test_a_region_is_a_crop_of_the_whole(region):
    net = UNet(UNetConfig(base_channels=2, depth=3)).double().eval()
    image = np.random.default_rng(0).standard_normal((1, 70, 90))
    whole = predict_whole(net, image)[(slice(None), *region)]
    part = predict_region(net, ArraySource(image), region, rows=24)
    assert np.abs(part - whole).max() <= 1e-12 * np.abs(whole).max()


@given(
    shape=st.tuples(st.integers(1, 1500), st.integers(1, 1500)),
    depth=st.integers(1, 4),
)
def test_measured_tiles_lie_on_the_grid_are_alike_and_see_small_images_whole(shape, depth):
    regions = measured_tiles(shape, depth)
    assert len({shape_of(region) for region in regions}) == 1
    assert len(regions) == (1 + (shape[0] > STATISTICS_TILE)) * (1 + (shape[1] > STATISTICS_TILE))
    seen = [np.zeros(size, bool) for size in shape]
    for region in regions:
        for part, axis in zip(region, seen, strict=True):
            first, size = part.start + margin(depth), part.stop - part.start - 2 * margin(depth)
            assert first % 2**depth == 0
            assert is_admissible(part.stop - part.start, depth)
            axis[max(0, first) : first + size] = True
    for axis in seen:
        assert axis.all() or len(axis) > 2 * STATISTICS_TILE - 2**depth


@pytest.mark.parametrize("shape", [(300, 700), (90, 33)])
def test_tiles_of_a_normalised_network_meet(shape):
    net = UNet(UNetConfig(base_channels=4, depth=3, normalization="image")).double().eval()
    image = ArraySource(np.random.default_rng(0).normal(size=(1, *shape)))
    plain = fit_to_image(net, image)
    results = []
    for stride in ((304, 704), (64, 104)):
        results.append(predict_tiled(plain, image.array, stride))
    assert np.abs(results[0] - results[1]).max() <= 1e-12 * np.abs(results[0]).max()


def test_tiles_of_a_trained_normalised_network_meet_in_float32():
    """Trained layers do not enlarge the rounding as random ones may: the bound is that of any other network."""
    image = np.random.default_rng(0).normal(size=(1, 170, 210)).astype(np.float32)
    net = fit_to_image(load("em-membrane").net, ArraySource(image))
    whole = predict_whole(net, image)
    assert np.abs(predict_tiled(net, image, (64, 48)) - whole).max() <= 1e-5 * np.abs(whole).max()
