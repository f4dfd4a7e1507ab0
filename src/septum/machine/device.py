"""Which device the network runs on, and what that device is fastest at."""

from __future__ import annotations

import functools
import math
import os
import time
from typing import Literal

import torch

from septum.errors import ConfigError


def pick_device(name: str | torch.device) -> torch.device:
    """Return a device by its name, such as ``"cpu"`` or ``"cuda:1"``; ``"auto"`` is the first of cuda, mps and cpu.

    Under torchrun each process gets its own GPU.

    Raises
    ------
    ConfigError
        If the name is unknown or the device is not available.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    available = [kind for kind, is_present in present.items() if is_present]
    try:
        device = torch.device(available[0] if name == "auto" else name)
    except (RuntimeError, TypeError):
        raise ConfigError(f"there is no device {str(name)!r}; available: auto, {', '.join(available)}") from None
    if device.type not in available or (device.index or 0) >= max(1, torch.cuda.device_count()):
        raise ConfigError(f"device {device} is not available on this machine; available: {', '.join(available)}")
    local = os.environ.get("LOCAL_RANK")  # set by torchrun
    return torch.device("cuda", int(local)) if local and device.type == "cuda" else device


def fastest_order(device: torch.device) -> torch.memory_format:
    """Return the order of memory in which convolutions in float32 are fastest: channels last on a CPU with AVX-512.

    Measured: 124 against 297 GFLOP/s there, while channels first is faster with AVX2. The order decides the last bits
    of the result, so it follows from the CPU and not from a measurement that may turn out either way.
    """
    wide = device.type == "cpu" and "AVX512" in torch.backends.cpu.get_cpu_capability()
    return torch.channels_last if wide else torch.contiguous_format


def be_deterministic() -> None:
    """Let this process use only algorithms that give the same bits on the same device every time."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # asked for by CUDA's matrix products
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def fastest_precision(device: torch.device) -> Literal["float32", "bfloat16"]:
    """Return bfloat16 where its convolutions are faster by half: GPUs that have it, CPUs with matrix units for it."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    return "bfloat16" if device.type == "cpu" and _gain_of_bfloat16() > 1.5 else "float32"


@functools.cache  # of this machine, so it is measured once
def _gain_of_bfloat16() -> float:
    """How many times as fast a convolution is in bfloat16 on the CPU; where it is emulated, far less than once."""

    def seconds(dtype: torch.dtype, order: torch.memory_format) -> float:
        image = torch.ones(1, 32, 192, 192, dtype=dtype).contiguous(memory_format=order)
        weight = torch.ones(32, 32, 3, 3, dtype=dtype).contiguous(memory_format=order)
        begin = time.perf_counter()
        torch.nn.functional.conv2d(image, weight)
        return time.perf_counter() - begin

    single = brief = math.inf  # the best of many, since the machine may be busy
    for tried in range(20):
        single = min(single, seconds(torch.float32, torch.contiguous_format))
        brief = min(brief, seconds(torch.bfloat16, torch.channels_last))
        if tried >= 2 and brief > single:
            break
    return single / brief
