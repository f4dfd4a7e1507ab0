"""What is fastest is measured once, by a clock that only moves when something is done."""

import functools

import pytest
import torch

from septum.machine import device


@pytest.mark.parametrize(
    ("seconds", "expected", "tries"), [(10.0, "float32", 3), (0.9, "float32", 20), (0.5, "bfloat16", 20)]
)
def test_bfloat16_is_chosen_where_it_is_faster_by_half_which_is_measured_once_and_briefly_where_it_is_slower(
    monkeypatch, seconds, expected, tries
):
    now, done = [0.0], []

    def convolve(image, weight):
        done.append(image.dtype)
        now[0] += seconds if image.dtype == torch.bfloat16 else 1.0

    monkeypatch.setattr(device.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(torch.nn.functional, "conv2d", convolve)
    monkeypatch.setattr(device, "_gain_of_bfloat16", functools.cache(device._gain_of_bfloat16.__wrapped__))
    for _ in range(2):
        assert device.fastest_precision(torch.device("cpu")) == expected
    assert done == [torch.float32, torch.bfloat16] * tries
