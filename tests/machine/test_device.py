"""Which device is taken, and that what is fastest is measured once, by a clock that moves only when work is done."""

import functools

import pytest
import torch

from septum.errors import ConfigError
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


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_takes_a_gpu_if_there_is_one(monkeypatch, cuda, mps, expected):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2 * cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert device.pick_device("auto") == torch.device(expected)


def test_a_device_is_taken_by_name_if_it_is_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert device.pick_device("cuda:1") == device.pick_device(torch.device("cuda", 1)) == torch.device("cuda", 1)
    assert device.pick_device("cpu") == torch.device("cpu")
    monkeypatch.setenv("LOCAL_RANK", "1")  # as torchrun sets it: every process has a GPU of its own
    assert device.pick_device("auto") == torch.device("cuda", 1)
    assert device.pick_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="device cuda:2 is not available on this machine; available: cuda, "):
        device.pick_device("cuda:2")
    with pytest.raises(ConfigError, match="there is no device 'gpu'; available: auto, cuda, "):
        device.pick_device("gpu")
