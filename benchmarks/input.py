"""What share of a training step does its input take (drawing, warping, grey values, weights), and what takes the rest?

Run: python benchmarks/input.py [--threads 2]

Also: what does it cost that a training, even a killed one, repeats bit for bit? On a CPU all sums have a fixed order
anyway. The cost is one random generator per (seed, step, sample, purpose), and a checkpoint every half minute. On a
GPU, `septum train --deterministic` reports the slowdown of deterministic algorithms.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import record
import torch

from septum.config import TrainConfig
from septum.core.randomness import generator, torch_seed
from septum.data.dataset import from_arrays
from septum.data.simulate import membranes
from septum.training.holdout import nothing_held_out
from septum.training.patches import draw_batch, prepare
from septum.training.recipe import recipe
from septum.training.run import RunFolder
from septum.training.schedule import CHECKPOINT_SECONDS
from septum.training.step import State, new_state, train_step

WIDTHS = {
    "base 16, recipe fast": ("fast", {"unet.base_channels": 16}, 15),
    "paper width, recipe paper": ("paper", {}, 4),
}


def cost_of_repeatability(state: State, config: TrainConfig, step_seconds: float) -> dict[str, Any]:
    """Seconds for a step's generators and for a checkpoint, and both as a share of training time."""

    def generators() -> None:
        for sample in range(config.batch):
            for purpose in ("position", "geometry", "grey"):
                generator(config.seed, 1, sample, purpose)
            torch_seed(config.seed, 1, f"dropout of sample {sample}")

    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder))
        saved = record.seconds(lambda: run.save_checkpoint(state.tensors(), state.numbers()))
    drawn = record.seconds(generators)
    share = drawn["median_s"] / step_seconds + saved["median_s"] / CHECKPOINT_SECONDS
    return {"generators": drawn, "checkpoint": saved, "share": round(share, 5)}


def measure(name: str, changes: dict[str, Any], steps: int, device: torch.device) -> dict[str, Any]:
    """Time whole steps and their input alone, in turn, and profile the operators of one step."""
    image, labels = membranes((512, 512), 200, seed=0)
    dataset = from_arrays([image], [labels])
    config = recipe(name, dataset, device, changes)
    images = prepare(dataset, config, nothing_held_out(), device)
    state = new_state(config, device)

    def wait() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    whole, draws = [], []
    for number in range(steps + 1):
        begin = wait()
        train_step(state, images, config, 1000)
        middle = wait()
        draw_batch(images, config, number, range(config.batch))
        end = wait()
        if number:  # the first run allocates
            whole.append(middle - begin)
            draws.append(end - middle)
    with torch.profiler.profile() as profile:
        train_step(state, images, config, 1000)
    on_cpu = device.type == "cpu"
    events = {e.key: e.self_cpu_time_total if on_cpu else e.self_device_time_total for e in profile.key_averages()}
    total = sum(events.values())
    shares = sorted(((name, time_ / total) for name, time_ in events.items()), key=lambda pair: -pair[1])
    return {
        "precision": config.precision,
        "step": {"median_s": statistics.median(whole), "repeats_s": whole},
        "input": {"median_s": statistics.median(draws), "repeats_s": draws},
        "share_of_input": round(statistics.median(draws) / statistics.median(whole), 4),
        "repeating": cost_of_repeatability(state, config, statistics.median(whole)),
        "operators_of_a_step": {name: round(share, 4) for name, share in shares[:12]},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    threads = parser.parse_args().threads
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    results = {title: measure(*setting, device) for title, setting in WIDTHS.items()}
    gpu = record.gpu_name() if device.type == "cuda" else ""
    record.save("input", settings={"image": [512, 512], "threads": threads}, results=results, device=gpu)


if __name__ == "__main__":
    main()
