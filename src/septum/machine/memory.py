"""Memory of this process and of the machine: how much is free, how much is in use, and how to use less."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import torch

DEFAULT_MEMORY = 2 * 10**9  # bytes that a prediction in memory may take beside image and result
FREE_SHARE = 0.9  # of the free memory may be used without a limit from the user
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # parameters of glibc
MOST_CACHED = 2**25  # bytes: how high glibc itself raises its threshold
TRAINING_MMAP_THRESHOLD = 2**23  # bytes; lower would slow down the steps of a training (measured: by 6 to 9 %)
CGROUPS = Path("/sys/fs/cgroup")


def measured_peak(action: Callable[[], object]) -> int:
    """Return the most memory, in bytes, that this process has held during an action.

    On other systems than Linux: the most that it has ever held.
    """
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again; psutil knows neither
        action()
        status = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) * 1024
    action()
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: in bytes


def resident() -> int:
    """Return the bytes of memory that this process uses now."""
    return int(psutil.Process().memory_info().rss)


def available() -> int:
    """Return the free bytes of memory: of the machine, or of the container or batch job that limits this process."""
    return min([int(psutil.virtual_memory().available), *cgroup_rooms()])


def default_limit() -> int:
    """Return the bytes that this process may hold where the user sets no limit."""
    return resident() + int(FREE_SHARE * available())


def cgroup_rooms(cgroups: Path = CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> list[int]:
    """Return the bytes that each control group of this process, and each group above, has left.

    Linux limits containers and batch jobs (Docker, Kubernetes, SLURM) by control groups, in version 1 or 2.

    Parameters
    ----------
    cgroups : path
        Where the groups are mounted.
    membership : path
        The file that names the groups of this process.
    """
    rooms = []
    for line in membership.read_text().splitlines() if membership.exists() else []:
        _, controllers, name = line.split(":", 2)
        if controllers == "":
            root, limit_file, usage_file, cache = cgroups, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            root, cache = cgroups / "memory", "total_inactive_file"
            limit_file, usage_file = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        group = root / name.lstrip("/")
        while group.is_relative_to(root):
            limit, usage = _read(group / limit_file), _read(group / usage_file)
            if limit.isdigit() and usage.isdigit():  # not "max", and visible from inside the container
                stat = dict(one.split() for one in _read(group / "memory.stat").splitlines())
                rooms.append(max(0, int(limit) - int(usage) + int(stat.get(cache, 0))))
            group = group.parent
    return rooms


def _read(path: Path) -> str:
    """The text of a file, or nothing where it cannot be read."""
    with suppress(OSError):
        return path.read_text().strip()
    return ""


def limit_allocator_cache(threshold: int = 2**20) -> None:
    """Make libraries cache less memory than they do for speed; call it before the first convolution.

    Arrays of at least `threshold` bytes return to the system when they are freed. By default glibc raises this
    threshold as it goes and keeps pieces that later arrays may not fit into (measured: 15 to 20 % more memory). PyTorch
    caches the compiled code of the last 100 shapes of a convolution instead of 1024: rotated and mirrored versions of
    an image have many shapes (measured: 65 MB less).
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "100")
    _mallopt(M_MMAP_THRESHOLD, threshold)


@contextmanager
def limited_allocator_cache() -> Iterator[None]:
    """Limit the allocator's cache for the work inside, and end with the thresholds that glibc raises itself to."""
    before = os.environ.get("ONEDNN_PRIMITIVE_CACHE_CAPACITY")
    limit_allocator_cache()
    try:
        yield
    finally:
        _mallopt(M_MMAP_THRESHOLD, MOST_CACHED)
        _mallopt(M_TRIM_THRESHOLD, 2 * MOST_CACHED)
        if before is None:
            del os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"]


def _mallopt(parameter: int, value: int) -> None:
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):  # another C library
            ctypes.CDLL(None).mallopt(parameter, value)


def trim_heap() -> None:
    """Return the memory that is free inside this process to the system, where glibc caches it."""
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def without_cached_memory(limit: int | None) -> Iterator[None]:
    """Cache no memory while arrays of other sizes are needed than in a training step, as by a prediction.

    Under a limit, smaller arrays return to the system at once, too; in a step that would take a quarter to half of the
    time (measured).
    """
    trim_heap()
    if limit is not None:
        limit_allocator_cache()
    try:
        yield
    finally:
        if limit is not None:
            limit_allocator_cache(TRAINING_MMAP_THRESHOLD)
        trim_heap()


def limit_gpu(limit: int, device: torch.device) -> None:
    """Let PyTorch take at most `limit` bytes of a GPU's memory."""
    import torch

    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total), device)


def lacks_memory(error: Exception) -> bool:
    """Whether an error says that the machine or its GPU is out of memory."""
    import torch

    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
