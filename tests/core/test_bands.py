import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from septum.config import UNetConfig
from septum.core.bands import logits_in_bands
from septum.core.unet import UNet, input_size


def in_bands(net, image, heights):
    with torch.inference_mode():
        return torch.cat(list(logits_in_bands(net, image.split(heights, dim=2))), dim=2)


@settings(max_examples=60)
@given(
    depth=st.integers(1, 5),
    rows=st.integers(1, 60),
    columns=st.integers(1, 40),
    band=st.integers(1, 300),
    relu=st.booleans(),
    wide=st.booleans(),
    channels=st.integers(1, 3),
)
def test_bands_of_any_height_give_what_one_pass_gives(depth, rows, columns, band, relu, wide, channels):
    config = UNetConfig(depth=depth, base_channels=2, in_channels=channels, relu_after_up=relu, wide_last_up=wide)
    net = UNet(config, seed=rows).double().eval()
    image = torch.randn(1, channels, input_size(rows, depth), input_size(columns, depth), dtype=torch.float64)
    with torch.inference_mode():
        whole = net(image)
    assert (in_bands(net, image, band) - whole).abs().max() <= 1e-13 * whole.abs().max()


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_uneven_bands_in_float32(order):
    net = UNet(UNetConfig(depth=3, base_channels=8)).eval().to(memory_format=order)
    image = torch.randn(1, 1, input_size(200, 3), input_size(90, 3))
    heights = [1, 3, 40, 2, 100]
    with torch.inference_mode():
        whole = net(image)
    result = in_bands(net, image, [*heights, image.shape[2] - sum(heights)])
    assert (result - whole).abs().max() <= 1e-6 * whole.abs().max()
