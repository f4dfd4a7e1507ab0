"""How much memory and time does streamed prediction take, and how much extra work do its plans add to one pass?

    PYTHONPATH=. python benchmarks/large.py [base4] [paper] [sparse] [instances]

Runs `septum predict` with random weights on random uint8 images. Each part writes a record; without arguments all parts
run. The peak is that of the whole process.

base4      4,096 x 4,096 and 16,384 x 16,384
paper      paper width on 200 rows of 8,192 for three budgets, and the plans for 8,192 x 8,192, which are not run
sparse     a mostly empty 65,536 x 65,536 OME-Zarr: the plan for all of it, and a run of a region
instances  base 16 with and without normalisation by image and averaging; 4,096 x 4,096 stored probabilities with 10,001
           objects, one of which runs through all blocks, decoded in blocks and at once
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
import zarr

from septum.choices import Kind
from septum.config import Decoding, TrainConfig, UNetConfig, paper_2015
from septum.core.decode import decode
from septum.core.layout import plan_layout
from septum.core.unet import UNet
from septum.model.model import Model, ModelCard
from septum.prediction.streaming.decode_blocks import as_probabilities
from tests.prediction.streaming.test_decode_blocks import crowd, in_blocks

# A process inherits the peak of its parent, so a small process starts the measured one.
BETWEEN = """import resource, subprocess, sys
subprocess.run([sys.executable, "-m", "septum", *sys.argv[1:]], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)"""
BETWEEN_PLAN = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]], check=True)"
PROCESS = 560_000_000  # bytes that the program itself takes, for plans that are not run


PLAN = """import sys
from septum.data.images import open_image
from septum.machine.memory import limit_allocator_cache
from septum.model.model import load_for_prediction
from septum.prediction.streaming.decide import StreamOptions, network_speed, plan_stream
path, image, memory = sys.argv[1:]
limit_allocator_cache()
model, options = load_for_prediction(path), StreamOptions()
speed = network_speed(model.net)
plan = plan_stream(model, open_image(image), options, max_memory=int(memory), speed=speed).plan
import resource
print(plan.tiles, plan.redundancy, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"""


def model_file(folder: Path, unet: UNetConfig, kind: Kind = "classes") -> Path:
    """A network with random weights."""
    card = ModelCard(
        config=TrainConfig(kind=kind, unet=unet),
        class_names=("background", "foreground"),
        channels=1,
        pixel_size=None,
        data={},
        held_out="random weights",
        scores={},
        step=0,
        versions={},
    )
    path = folder / f"base{unet.base_channels}_{unet.normalization}.safetensors"
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


def over_budget(found: dict[str, Any], budget: float) -> dict[str, Any]:
    return found | {"peak_over_budget": found["peak_bytes"] / budget}


def base4(folder: Path) -> dict[str, Any]:
    model = model_file(folder, UNetConfig(base_channels=4))
    return {
        f"{side} x {side}, 1 GB": run(model, image_file(folder, (side, side)), folder, "--max-memory", "1GB")
        for side in (4096, 16384)
    }


def paper(folder: Path) -> dict[str, Any]:
    model, strip = model_file(folder, paper_2015()), image_file(folder, (200, 8192))
    results = {}
    for budget in (1, 2, 8):
        found = run(model, strip, folder, "--max-memory", f"{budget}GB")
        results[f"200 x 8192, {budget} GB"] = over_budget(found, budget * 1e9)
    for budget in (1, 2, 8):
        layout = plan_layout((8192, 8192), paper_2015(), budget * 10**9 - PROCESS, step=512)
        results[f"plan of 8192 x 8192, {budget} GB"] = {"multiply_adds_over_one_pass": layout.redundancy}
    return results


def sparse(folder: Path) -> dict[str, Any]:
    """A run of 1,024 x 1,024 pixels in the middle, where chunks are stored."""
    side, path = 65536, folder / "sparse.zarr"
    array = zarr.create_array(
        path, shape=(side, side), chunks=(1024, 1024), dtype="uint8", dimension_names=("y", "x"), overwrite=True
    )
    middle = slice(side // 2 - 1024, side // 2 + 1024)
    array[middle, middle] = np.random.default_rng(0).integers(1, 256, (2048, 2048), np.uint8)
    model = model_file(folder, UNetConfig(base_channels=4))
    planned = subprocess.run(
        [sys.executable, "-c", BETWEEN_PLAN, PLAN, str(model), str(path), "1000000000"],
        capture_output=True,
        text=True,
        check=True,
    )
    tiles, redundancy, peak = planned.stdout.split()
    region = f"{side // 2 - 512}:{side // 2 + 512},{side // 2 - 512}:{side // 2 + 512}"
    return {
        "plan for all, 1 GB": {
            "tiles": int(tiles),
            "multiply_adds_over_one_pass": float(redundancy),
            "peak_bytes": int(peak),
        },
        f"region {region}, 1 GB": run(model, path, folder, "--max-memory", "1GB", "--region", region),
    }


def instances(folder: Path) -> dict[str, Any]:
    results, image = {}, image_file(folder, (1024, 1024))
    for normalization in ("none", "image"):
        model = model_file(folder, UNetConfig(base_channels=16, normalization=normalization), "instances")
        for options in ((), ("--tta", "7")):
            name = f"base 16, normalization {normalization}, 1024 x 1024, 700 MB {' '.join(options)}".strip()
            results[name] = over_budget(run(model, image, folder, "--max-memory", "700MB", *options), 700e6)
    stored = crowd(4096, 100)
    begin = time.perf_counter()
    count, streamed = in_blocks("border", Decoding(), stored, 1024, folder / "decoding")
    middle = time.perf_counter()
    at_once = decode("border", as_probabilities(stored), Decoding())
    results["4096 x 4096 decoded"] = {
        "objects": count,
        "pixels_that_differ": int((streamed != at_once).sum()),
        "seconds_in_blocks": round(middle - begin, 1),
        "seconds_at_once": round(time.perf_counter() - middle, 1),
    }
    return results


PARTS = {"base4": base4, "paper": paper, "sparse": sparse, "instances": instances}


def main() -> None:
    for part in sys.argv[1:] or PARTS:
        with tempfile.TemporaryDirectory() as temporary:
            results = PARTS[part](Path(temporary))
        settings = {"threads": torch.get_num_threads(), "cores": os.cpu_count(), "seed": 0}
        record.save(f"large_{part}", settings=settings, results=results, packages=("tifffile", "zarr"))


if __name__ == "__main__":
    main()
