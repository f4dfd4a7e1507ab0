"""Does it help to start from a trained network, given one or three images of another kind?

    SEPTUM_DATA=... python benchmarks/finetune.py --seeds 0 1 2
    SEPTUM_DATA=... python benchmarks/finetune.py --seeds 1 --images 3 --steps 100      (a part of it)

dsb2018 has two kinds of images: grey fluorescence (bright nuclei on dark) and colour-stained tissue (dark nuclei on
bright). Images with three equal channels are fluorescence. The start is a network trained with recipe fast on the
fluorescence images only, so it has not seen stained tissue. (The shipped network nuclei has, and is not used.)
The target is the first one or three stained images, in the order of their names. The last two are for testing only.
Training from scratch and from the start uses the same images, the same held-out images and the same numbers of steps.
Each number of steps is its own training with its own schedule. A step costs the same in both, so steps stand for time.
The answer is F1 at IoU 0.5 on the test images per number of steps, and the first number of steps that reaches a score.
Appends one line per training to results/finetune.jsonl and summarises all lines at the end.
"""

from __future__ import annotations

import argparse
import datetime
import json
import tempfile
import time
from collections.abc import Iterator
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
from septum.machine.generators import drain
from septum.model.model import Model, load
from septum.model.predict import segment
from septum.training.fit import fit
from septum.training.holdout import hold_out
from septum.training.recipe import recipe
from septum.training.request import TrainingRequest
from septum.training.run import RunFolder

LOG = record.RESULTS / "finetune.jsonl"
TEST = 2  # of the stained images
WAYS = ("from scratch", "from fluorescence")


def train(dataset: Dataset, steps: int, seed: int, start: Model | None, run: Path) -> Model:
    """Train as `septum train --steps` does, or with `--from`."""
    changes: dict[str, Any] = {"steps": steps, "seed": seed}
    if start is not None:
        changes |= {"unet": start.card.config.unet.model_dump(), "instances": start.card.config.instances}
    config = recipe("fast", dataset, torch.device("cpu"), changes)
    resume = RunFolder(run).exists()
    return drain(fit(TrainingRequest(dataset, config, run, held_out=hold_out(dataset), start=start, resume=resume)))


def test_f1(model: Model, test: Dataset) -> float:
    """F1 at IoU 0.5, pooled over all test images."""
    matched = []
    for sample in test.samples:
        labels = drain(segment(model.net, model.card.config, ArraySource(sample.image))).labels
        matched.append(matching.match(sample.labels, labels, ignore=sample.ignore, thresholds=[0.5]).scores)
    return float(matching.pool(matched).per_threshold[0].f1)


def summary(trainings: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Mean F1 by steps, and the steps after which each way reaches nine tenths of the best mean from scratch."""
    for count in sorted({one["images"] for one in trainings}):
        found: dict[str, dict[int, list[float]]] = {way: {} for way in WAYS}
        for one in trainings:
            if one["images"] == count:
                found[one["way"]].setdefault(one["steps"], []).append(one["f1"])
        means = {way: {n: round(float(np.mean(f1)), 4) for n, f1 in sorted(found[way].items())} for way in WAYS}
        wanted = 0.9 * max(means[WAYS[0]].values(), default=0)
        reached = {way: next((n for n, f1 in means[way].items() if f1 >= wanted), None) for way in WAYS}
        yield {"images": count, "mean_f1": means, "score": round(wanted, 4), "steps_to_score": reached}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[25, 50, 100, 200, 400])
    parser.add_argument("--images", type=int, nargs="*", default=[1, 3], help="0 trains only the start network")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--start-steps", type=int, default=300, help="steps of the start network")
    arguments = parser.parse_args()
    whole = load_dataset(find("dsb2018"))
    stained = [n for n, sample in enumerate(whole.samples) if not is_grey(sample.image)]
    grey = [n for n in range(len(whole.samples)) if n not in stained]
    fluorescence, test = subset(whole, grey), subset(whole, stained[-TEST:])
    run = Path("scratch") / f"finetune-start-{arguments.start_steps}"
    train(fluorescence, arguments.start_steps, 0, None, run)
    start = load(run)
    for count in arguments.images:
        training = subset(whole, stained[:count])
        for steps in arguments.steps:
            for seed in arguments.seeds:
                for way in WAYS:
                    begin = time.perf_counter()
                    with tempfile.TemporaryDirectory() as folder:
                        first = start if way == WAYS[1] else None
                        model = train(training, steps, seed, first, Path(folder) / "run")
                    entry = {
                        "images": count,
                        "steps": steps,
                        "seed": seed,
                        "way": way,
                        "f1": round(test_f1(model, test), 5),
                        "seconds": round(time.perf_counter() - begin, 1),
                        "start_steps": arguments.start_steps,
                        "validation": model.card.scores,
                        "test": [sample.name for sample in test.samples],
                        "date": datetime.date.today().isoformat(),
                        "hardware": record.hardware(),
                        "threads": torch.get_num_threads(),
                        "commit": record.commit(),
                        "versions": record.versions("torch", "numpy"),
                    }
                    with LOG.open("a") as file:
                        file.write(json.dumps(entry) + "\n")
                    print(entry, flush=True)
    trainings = [json.loads(line) for line in LOG.read_text().splitlines()] if LOG.exists() else []
    for row in summary([one for one in trainings if one["start_steps"] == arguments.start_steps]):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
