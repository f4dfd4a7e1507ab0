"""How much memory and time does streamed prediction of large images take, and how far is the plan from one pass?

    python benchmarks/large.py

Real runs of `septum predict` with random weights on random uint8 images: a base-4 network on 4,096 x 4,096 and
16,384 x 16,384, and the paper's width on 400 rows of 8,192 for two budgets. The peak is that of the whole process.
The plans of 8,192 x 8,192 at paper width are only made, not run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import record
import tifffile
import torch

from septum.config import TrainConfig, UNetConfig, paper_2015
from septum.core.layout import plan_layout
from septum.core.unet import UNet
from septum.engine.model import Model, ModelCard

# A process inherits the peak of the one that starts it: a small one stands between it and the benchmark.
BETWEEN = """import resource, subprocess, sys
subprocess.run([sys.executable, "-m", "septum", *sys.argv[1:]], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)"""
PROCESS = 500_000_000  # bytes of the program itself, for the plans that are only made


def model_file(folder: Path, unet: UNetConfig) -> Path:
    """A network with random weights."""
    card = ModelCard(
        config=TrainConfig(kind="classes", unet=unet),
        class_names=("background", "foreground"),
        channels=1,
        pixel_size=None,
        data={},
        held_out="random weights",
        scores={},
        step=0,
        versions={},
    )
    path = folder / f"base{unet.base_channels}.safetensors"
    Model(UNet(unet).eval(), card).save(path)
    return path


def image_file(folder: Path, shape: tuple[int, int]) -> Path:
    """A tiled TIFF of random grey values."""
    path = folder / f"{shape[0]}x{shape[1]}.tif"
    rng = np.random.default_rng(0)
    tifffile.imwrite(path, rng.integers(0, 256, shape, np.uint8), tile=(512, 512))
    return path


def run(model: Path, image: Path, folder: Path, *options: str) -> dict[str, Any]:
    """One run of `septum predict`: its peak resident memory and its time."""
    output = folder / "-".join([model.stem, image.stem, *options]).replace(":", "_")
    words = ["predict", str(model), str(image), "--output", str(output), "--format", "zarr", "--quiet", *options]
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", BETWEEN, *words], capture_output=True, text=True, check=True)
    return {"peak_bytes": int(done.stdout.split()[-1]), "seconds": round(time.perf_counter() - begin, 1)}


def main() -> None:
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        small = model_file(folder, UNetConfig(base_channels=4))
        for side in (4096, 16384):
            results[f"base 4, {side} x {side}, 1 GB"] = run(
                small, image_file(folder, (side, side)), folder, "--max-memory", "1GB"
            )
        paper, strip = model_file(folder, paper_2015()), image_file(folder, (400, 8192))
        for budget in (1, 2):
            name = f"paper width, 400 x 8192, {budget} GB"
            results[name] = run(paper, strip, folder, "--max-memory", f"{budget}GB")
            results[name]["peak_over_budget"] = results[name]["peak_bytes"] / (budget * 1e9)
    for budget in (2, 8):
        layout = plan_layout((8192, 8192), paper_2015(), budget * 10**9 - PROCESS, step=512)
        results[f"plan of 8192 x 8192 at paper width, {budget} GB"] = {"multiply_adds_over_one_pass": layout.redundancy}
    settings = {"threads": torch.get_num_threads(), "cores": os.cpu_count(), "seed": 0}
    record.save("large", settings=settings, results=results, packages=("tifffile", "zarr"))


if __name__ == "__main__":
    main()
