"""Memory of this process and of the machine: how much there is, how much is held, how to hold less."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from septum.errors import ConfigError

FREE = 0.9  # of the memory that nobody uses is planned with
M_MMAP_THRESHOLD = -3  # a parameter of glibc
LARGE_ARRAY = 2**23  # bytes that go back at once in steps of a training (measured: 6 to 9 % of their time)


def measured_peak(action: Callable[[], object]) -> int:
    """Return the most memory, in bytes, that this process has held while it did something.

    Elsewhere than on Linux: the most that it has ever held.
    """
    if sys.platform == "win32":
        raise ConfigError("a limit of memory for training needs Linux or macOS; leave out --max-memory")
    status = Path("/proc/self/status")
    if status.exists():
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        action()
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    action()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: in bytes


def available() -> int | None:
    """Return the bytes of memory that are free, where that can be known."""
    table = Path("/proc/meminfo")
    if not table.exists():
        return None
    line = next(line for line in table.read_text().splitlines() if line.startswith("MemAvailable"))
    return int(line.split()[1]) * 1024


def resident() -> int:
    """Return the bytes of memory that this process holds now, 0 where that cannot be known."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def hold_little(large: int = 2**20) -> None:
    """Make libraries keep less memory than they do for speed: call it before the first convolution.

    Arrays of `large` bytes go back to the system when they are freed, as at first; later glibc keeps them, in pieces
    that the next arrays may not fit into (measured: 15 to 20 % more, until the end). PyTorch keeps compiled code for
    the last 100 shapes of a convolution, not 1024: versions of an image have many (measured: 65 MB less).
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "100")
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):  # another C library
            ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, large)


def give_back() -> None:
    """Give the memory that is free inside this process back to the system, where glibc holds it."""
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def other_sizes(limit: int | None) -> Iterator[None]:
    """While arrays of other sizes than those of a step are needed, as by a prediction, keep no room for either.

    Under a limit smaller arrays, too, go back at once; in steps that would take time (measured: a quarter to a half).
    """
    give_back()
    if limit is not None:
        hold_little()
    try:
        yield
    finally:
        if limit is not None:
            hold_little(LARGE_ARRAY)
        give_back()


def free() -> int:
    """Return the bytes that this process may hold if it takes nine tenths of what is free."""
    left = available()
    return resident() + (DEFAULT_MEMORY if left is None else int(FREE * left))


def limit_gpu(limit: int, device: torch.device) -> None:
    """Let PyTorch take no more than this of a GPU's memory."""
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total), device)


def lacks_memory(error: Exception) -> bool:
    """Whether an error says that memory is short, of this machine or of its GPU."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


DEFAULT_MEMORY = 2 * 10**9  # bytes that a prediction in memory may take beside image and result
