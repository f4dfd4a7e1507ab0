import numpy as np
import pytest
import torch

from septum.config import TrainConfig, TtaConfig, UNetConfig
from septum.core.decode import decode
from septum.core.layout import plan_layout
from septum.core.normalize import measure_normalization
from septum.core.tiling import ArraySource
from septum.core.tta import transformed, versions
from septum.core.unet import UNet
from septum.machine.generators import drain
from septum.model import predict as module
from septum.model.predict import PixelsDone, in_fastest_order, predict_probabilities, segment, softmax

CONFIG = TrainConfig(unet=UNetConfig(base_channels=3, depth=2))
NET = UNet(CONFIG.unet, seed=1).eval()
IMAGE = np.random.default_rng(0).integers(0, 255, (1, 70, 50)).astype(np.uint8)


def whole(net, pixels):
    """One tile that is large enough for everything."""
    return drain(predict_probabilities(net, ArraySource(pixels), max_memory=10**12))


def little(tta=None):
    """The memory with which the image takes the smallest tiles."""
    layout = plan_layout(IMAGE.shape[1:], CONFIG.unet, 10**12, tile_pixels=1, tta=tta)
    assert layout.stride == (4, 4)
    assert layout.multiply_adds > plan_layout(IMAGE.shape[1:], CONFIG.unet, 10**12, tta=tta).multiply_adds
    return layout.memory


def test_a_small_memory_budget_changes_the_tiles_and_not_the_result():
    few = drain(segment(NET, CONFIG, ArraySource(IMAGE), max_memory=little()))
    many = drain(segment(NET, CONFIG, ArraySource(IMAGE)))
    np.testing.assert_allclose(few.probabilities, many.probabilities, atol=1e-6)
    np.testing.assert_array_equal(few.labels, many.labels)


@pytest.mark.parametrize("shape", [(10, 10), (1, 5000), (1, 1)])
def test_any_size_is_predicted_exactly(shape):
    image = np.random.default_rng(1).random((1, *shape))
    result = drain(segment(NET, CONFIG, ArraySource(image), max_memory=102 * 10**6))
    pixels = measure_normalization(image, "standardize")(image)
    np.testing.assert_allclose(result.probabilities, whole(NET, pixels), atol=1e-6)
    assert result.labels.shape == shape


def by_hand(version, pixels):
    place = tuple(slice(0, size) for size in pixels.shape[1:])
    return version.back(whole(NET, transformed(version, pixels))[(slice(None), *version.needs(place))], place)


def test_averaging_is_the_mean_over_the_versions_done_by_hand():
    pixels = measure_normalization(IMAGE, "standardize")(IMAGE)
    for config in (TtaConfig(), TtaConfig(kind="dihedral", versions=8)):
        expected = np.mean([by_hand(version, pixels) for version in versions(config, IMAGE.shape[1:])], axis=0)
        result = drain(segment(NET, CONFIG, ArraySource(IMAGE), tta=config))
        np.testing.assert_allclose(result.probabilities, expected, atol=1e-5)
        np.testing.assert_array_equal(result.labels, decode("border", result.probabilities))


def test_averaging_logits_is_a_setting():
    config = TtaConfig(kind="dihedral", versions=8, average="logits")
    result = drain(segment(NET, CONFIG, ArraySource(IMAGE), tta=config))
    probabilities = drain(segment(NET, CONFIG, ArraySource(IMAGE), tta=TtaConfig(kind="dihedral", versions=8)))
    assert np.abs(result.probabilities - probabilities.probabilities).max() > 1e-4
    np.testing.assert_allclose(result.probabilities.sum(axis=0), 1, atol=1e-6)


def test_eightfold_averaging_commutes_with_turning_the_image():
    config = TtaConfig(kind="dihedral", versions=8)
    straight = drain(segment(NET, CONFIG, ArraySource(IMAGE), tta=config)).probabilities
    turned = np.ascontiguousarray(np.rot90(IMAGE, axes=(1, 2)))
    back = np.rot90(drain(segment(NET, CONFIG, ArraySource(turned), tta=config)).probabilities, -1, axes=(1, 2))
    np.testing.assert_allclose(straight, back, atol=1e-5)


def test_progress_counts_every_pixel_once():
    for tta in (None, TtaConfig(kind="dihedral", versions=8)):
        records = list(segment(NET, CONFIG, ArraySource(IMAGE), tta=tta, max_memory=little(tta)))
        done = [record.done for record in records]
        assert done == sorted(set(done))
        assert records[-1] == PixelsDone(70 * 50, 70 * 50)


@pytest.mark.parametrize("tta", [TtaConfig(), TtaConfig(kind="dihedral", versions=8)])
def test_averaging_in_tiles_is_averaging_of_the_whole(tta):
    few = drain(segment(NET, CONFIG, ArraySource(IMAGE), tta=tta, max_memory=little(tta)))
    one = drain(segment(NET, CONFIG, ArraySource(IMAGE), tta=tta))
    np.testing.assert_allclose(few.probabilities, one.probabilities, atol=1e-6)


def test_a_zoomed_prediction_lies_on_the_original_grid():
    result = drain(segment(NET, CONFIG, ArraySource(IMAGE), zoom=(0.5, 2.0)))
    assert result.probabilities.shape == (2, 70, 50)
    same = drain(segment(NET, CONFIG, ArraySource(IMAGE), zoom=(1.0, 1.0)))
    plain = drain(segment(NET, CONFIG, ArraySource(IMAGE)))
    np.testing.assert_allclose(same.probabilities, plain.probabilities, atol=1e-6)


def test_softmax():
    logits = np.array([[[0.0, 1000.0]], [[0.0, 0.0]]], np.float32)
    np.testing.assert_array_equal(softmax(logits), [[[0.5, 1.0]], [[0.5, 0.0]]])


@pytest.mark.gpu
def test_a_gpu_predicts_what_the_cpu_does():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    net = UNet(CONFIG.unet, seed=1).eval().cuda()
    there = drain(segment(net, CONFIG, ArraySource(IMAGE))).probabilities
    np.testing.assert_allclose(there, drain(segment(NET, CONFIG, ArraySource(IMAGE))).probabilities, atol=1e-4)


@pytest.mark.parametrize("normalization", ["none", "image"])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_a_prediction_leaves_the_order_of_the_weights_in_memory_as_it_was(order, normalization, monkeypatch):
    other = torch.channels_last if order == torch.contiguous_format else torch.contiguous_format
    monkeypatch.setattr(module, "fastest_order", lambda device: other)
    net = UNet(CONFIG.unet.with_changes({"normalization": normalization}), seed=1).eval().to(memory_format=order)
    before = [(weight, weight.stride(), weight.data_ptr()) for weight in net.parameters()]
    first = drain(segment(net, CONFIG, ArraySource(IMAGE)))
    for weight, (same, stride, place) in zip(net.parameters(), before, strict=True):
        assert weight is same
        assert (weight.stride(), weight.data_ptr()) == (stride, place)
    again = drain(segment(net, CONFIG, ArraySource(IMAGE)))
    np.testing.assert_array_equal(first.probabilities, again.probabilities)
    if normalization == "none":  # the bits of a network that is in the fastest order itself
        converted = UNet(CONFIG.unet, seed=1).eval().to(memory_format=order).to(memory_format=other)
        expected = drain(segment(converted, CONFIG, ArraySource(IMAGE)))
        np.testing.assert_array_equal(first.probabilities, expected.probabilities)


def test_a_network_that_is_in_the_fastest_order_is_not_copied():
    net = in_fastest_order(UNet(CONFIG.unet, seed=1).eval())
    again = in_fastest_order(net)
    assert [w.data_ptr() for w in again.parameters()] == [w.data_ptr() for w in net.parameters()]
