"""Does it help to begin with a trained network, when there are one or three images of another kind?

    SEPTUM_DATA=... python benchmarks/finetune.py --seeds 0 1 2

dsb2018 holds two kinds of images: grey fluorescence (nuclei bright on dark), and tissue stained in colour (nuclei dark
on bright), told apart by whether their three channels are equal. Start: a network trained on the fluorescence images
alone, by the recipe fast. So it has never seen stained tissue; the network that ships (nuclei) has, and is not used.
Target: the first one or three of the stained images in the order of their names, tested on the last two, which take
part in no choice. Both ways get the same images, the same of them held out, and the same numbers of steps, each number
a training of its own with its schedule fitted to it. A step costs the same either way, so that steps stand for time.
Asked: F1 at IoU 0.5 on the test images by the number of steps, and the first number of steps that reaches a score.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch
from contest import subset

from septum.core.metrics import matching
from septum.core.tiling import ArraySource
from septum.data.catalog import find
from septum.data.dataset import Dataset, load_dataset
from septum.data.images import is_grey
from septum.engine.holdout import hold_out
from septum.engine.model import Model, load
from septum.engine.plan import recipe
from septum.engine.predict import drain, segment
from septum.engine.run import RunFolder
from septum.engine.train import fit

TEST = 2  # of the stained images
WAYS = ("from scratch", "from fluorescence")


def train(dataset: Dataset, steps: int, seed: int, start: Model | None, run: Path) -> Model:
    """Train as `septum train --steps` does, or with `--from`."""
    changes: dict[str, Any] = {"steps": steps, "seed": seed}
    if start is not None:
        changes |= {"unet": start.card.config.unet.model_dump(), "instances": start.card.config.instances}
    config = recipe("fast", dataset, torch.device("cpu"), changes)
    resume = RunFolder(run).exists()
    return drain(fit(dataset, config, run, held_out=hold_out(dataset), start=start, resume=resume))


def test_f1(model: Model, test: Dataset) -> float:
    """F1 at IoU 0.5 over the objects of all test images."""
    matched = []
    for sample in test.samples:
        labels = drain(segment(model.net, model.card.config, ArraySource(sample.image))).labels
        matched.append(matching.match(sample.labels, labels, ignore=sample.ignore, thresholds=[0.5]).scores)
    return float(matching.pool(matched).per_threshold[0].f1)


def summary(trainings: list[dict[str, Any]], counts: list[int], steps: list[int]) -> list[dict[str, Any]]:
    """Mean F1 by steps, and the steps after which each way reaches nine tenths of the best mean from scratch."""
    rows = []
    for count in counts:
        means = {
            way: [
                float(np.mean([t["f1"] for t in trainings if (t["images"], t["steps"], t["way"]) == (count, n, way)]))
                for n in steps
            ]
            for way in WAYS
        }
        wanted = 0.9 * max(means[WAYS[0]])
        reached = {
            way: next((n for n, f1 in zip(steps, means[way], strict=True) if f1 >= wanted), None) for way in WAYS
        }
        rows.append({"images": count, "steps": steps, "mean_f1": means, "score": wanted, "steps_to_score": reached})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[25, 50, 100, 200, 400])
    parser.add_argument("--images", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--start-steps", type=int, default=800, help="of the network to begin with")
    arguments = parser.parse_args()
    whole = load_dataset(find("dsb2018"))
    stained = [n for n, sample in enumerate(whole.samples) if not is_grey(sample.image)]
    grey = [n for n in range(len(whole.samples)) if n not in stained]
    fluorescence, test = subset(whole, grey), subset(whole, stained[-TEST:])
    run = Path("scratch") / f"finetune-start-{arguments.start_steps}"
    train(fluorescence, arguments.start_steps, 0, None, run)
    start = load(run)
    trainings = []
    for count in arguments.images:
        training = subset(whole, stained[:count])
        for steps in arguments.steps:
            for seed in arguments.seeds:
                for way in WAYS:
                    begin = time.perf_counter()
                    with tempfile.TemporaryDirectory() as folder:
                        first = start if way == WAYS[1] else None
                        model = train(training, steps, seed, first, Path(folder) / "run")
                    entry = {"images": count, "steps": steps, "seed": seed, "way": way}
                    entry |= {"seconds": round(time.perf_counter() - begin, 1), "f1": round(test_f1(model, test), 5)}
                    print(entry, flush=True)
                    trainings.append(entry)
    results = {
        "summary": summary(trainings, arguments.images, arguments.steps),
        "start_on_test": test_f1(start, test),
        "trainings": trainings,
    }
    settings = {**vars(arguments), "fluorescence": len(grey), "stained": [whole.samples[n].name for n in stained]}
    record.save("finetune", settings={**settings, "threads": torch.get_num_threads()}, results=results)


if __name__ == "__main__":
    main()
