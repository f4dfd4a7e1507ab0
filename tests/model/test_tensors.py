import sys

import pytest
import safetensors.torch
import torch

from septum.machine.memory import measured_peak
from septum.model.tensors import read_tensors, write_tensors


def test_safetensors_reads_tensors_of_every_memory_order_and_type(tmp_path):
    weights = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).reshape(2, 3, 4, 5)
    tensors = {
        "last": weights.to(memory_format=torch.channels_last),
        "part": weights[:, 1],
        "scalar": torch.tensor(7.0),
        "nothing": torch.zeros(0, 3),
        "learned": torch.nn.Parameter(weights),
        **{str(dtype): weights.to(dtype) for dtype in (torch.float64, torch.float16, torch.bfloat16)},
    }
    write_tensors(tmp_path / "a.safetensors", tensors, {"text": '\u00e4 and "b"'})
    read, metadata = read_tensors(tmp_path / "a.safetensors")
    assert metadata == {"text": '\u00e4 and "b"'}
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)
    whole = safetensors.torch.load((tmp_path / "a.safetensors").read_bytes())  # stricter: the whole file, in order
    assert all(torch.equal(whole[name], tensor) for name, tensor in tensors.items())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets the peak begin anew")
def test_the_memory_of_a_tensor_is_freed_with_it(tmp_path):
    write_tensors(tmp_path / "a.safetensors", {str(n): torch.ones(50, 200, 500) for n in range(6)}, {})  # 20 MB each
    nothing = measured_peak(lambda: None)

    def take_out():
        tensors, _ = read_tensors(tmp_path / "a.safetensors")
        while tensors:
            assert tensors.popitem()[1].sum() == 50 * 200 * 500

    assert measured_peak(take_out) - nothing < 45e6


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets the peak begin anew")
def test_writing_takes_the_memory_of_one_tensor(tmp_path):
    tensors = {
        str(n): torch.ones(1, 50, 200, 500).to(memory_format=torch.channels_last)
        for n in range(6)  # 20 MB each
    }
    nothing = measured_peak(lambda: None)
    assert measured_peak(lambda: write_tensors(tmp_path / "a.safetensors", tensors, {})) - nothing < 25e6
