import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from septum.config import UNetConfig
from septum.core import bands
from septum.core.bands import band_memory, logits_in_bands, waiting
from septum.core.unet import UNet, cropped, input_size


def in_bands(net, image, heights, at_a_time):
    with torch.inference_mode():
        return torch.cat(list(logits_in_bands(net, image.split(heights, dim=2), at_a_time)), dim=2)


@settings(max_examples=60)
@given(
    depth=st.integers(1, 5),
    rows=st.integers(1, 60),
    columns=st.integers(1, 40),
    band=st.integers(1, 300),
    at_a_time=st.integers(1, 40),
    relu=st.booleans(),
    wide=st.booleans(),
    channels=st.integers(1, 3),
)
def test_bands_of_any_height_give_what_one_pass_gives(depth, rows, columns, band, at_a_time, relu, wide, channels):
    config = UNetConfig(depth=depth, base_channels=2, in_channels=channels, relu_after_up=relu, wide_last_up=wide)
    net = UNet(config, seed=rows).double().eval()
    image = torch.randn(1, channels, input_size(rows, depth), input_size(columns, depth), dtype=torch.float64)
    with torch.inference_mode():
        whole = net(image)
    assert (in_bands(net, image, band, at_a_time) - whole).abs().max() <= 1e-13 * whole.abs().max()


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_uneven_bands_in_float32(order):
    net = UNet(UNetConfig(depth=3, base_channels=8)).eval().to(memory_format=order)
    image = torch.randn(1, 1, input_size(200, 3), input_size(90, 3))
    heights = [1, 3, 40, 2, 100]
    with torch.inference_mode():
        whole = net(image)
    result = in_bands(net, image, [*heights, image.shape[2] - sum(heights)], 8)
    assert (result - whole).abs().max() <= 1e-6 * whole.abs().max()


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("rows", [1, 2, 4, 8, 16, 32])
def test_no_more_rows_wait_at_a_skip_than_are_counted(depth, rows, monkeypatch):
    most: dict[int, int] = {}
    add = bands._Rows.add

    def counted(self, band):
        add(self, band)
        if self.cropped:
            most[self.cropped] = max(most.get(self.cropped, 0), self.count)

    monkeypatch.setattr(bands._Rows, "add", counted)
    net = UNet(UNetConfig(base_channels=1, depth=depth)).eval()
    image = torch.zeros(1, 1, input_size(8 * rows * 2**depth, depth), input_size(1, depth))
    in_bands(net, image, rows * 2**depth, rows)
    assert most == {cropped(level, depth): waiting(level, depth, rows) for level in range(depth)}


@pytest.mark.parametrize("base", [4, 16])
@pytest.mark.parametrize("rows", [4, 8, 16])
def test_the_tensors_that_are_alive_are_those_counted(base, rows):
    """The counted bytes bound those of PyTorch's allocator, and not by much."""
    config = UNetConfig(base_channels=base)
    net = UNet(config).eval().to(memory_format=torch.channels_last)
    height, width = input_size(500, 4), input_size(600, 4)
    band = torch.zeros(1, 1, 16 * rows, width)

    def pieces():
        for start in range(0, height, 16 * rows):
            yield band[:, :, : height - start]

    with torch.inference_mode(), torch.profiler.profile(profile_memory=True) as profile:
        for _ in logits_in_bands(net, pieces(), rows):
            pass
    held, most = 0, 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    counted = band_memory(config, height, width, rows)
    assert 0.6 * counted < most <= counted
