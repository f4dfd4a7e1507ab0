"""Record the answer of a benchmark as a JSON file: settings, versions, commit, hardware and every repeat."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import re
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def hardware() -> str:
    """Return a short name of the machine that works as part of a file name, such as ``cpu2-amd-epyc``."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].split(":")[1].strip() if lines else model
    words = re.sub(r"\((r|tm)\)", "", model.lower()).split()
    return f"cpu{os.cpu_count()}-" + "-".join(words[:2])


def gpu_name() -> str:
    """Return the name of the CUDA device, in a form that works as part of a file name."""
    import torch

    return "gpu-" + "-".join(torch.cuda.get_device_name().lower().split())


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python and of those of the named packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def commit() -> str:
    """Return the commit of the measured checkout."""
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip()


def seconds(function: Callable[[], Any], repeats: int = 7, warmups: int = 1) -> dict[str, Any]:
    """Time a call after warm-ups: the median in seconds, and every repeat."""
    for _ in range(warmups):
        function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return {"median_s": statistics.median(times), "repeats_s": times}


def save(
    question: str, *, settings: dict[str, Any], results: Any, packages: tuple[str, ...] = (), device: str = ""
) -> Path:
    """Write ``results/<question>_<hardware>_<date>.json`` and return its path."""
    today = datetime.date.today().isoformat()
    name = device or hardware()
    record = {
        "question": question,
        "date": today,
        "hardware": name,
        "commit": commit(),
        "versions": versions("torch", "numpy", *packages),
        "settings": settings,
        "results": results,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{question}_{name}_{today}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))
    print(f"-> {path}")
    return path
