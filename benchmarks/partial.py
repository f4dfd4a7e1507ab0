"""How much score is lost by annotating only 30 % of the pixels, or only a few images?

    SEPTUM_DATA=... python benchmarks/partial.py --steps 800 --seeds 0 1
    SEPTUM_DATA=... python benchmarks/partial.py --steps 800 --images 1 2 3 5 10 --shares 1

dsb2018: train on the first N of the first 20 images; the last 20 are for testing only. All trainings use recipe fast,
the same number of steps and the same held-out images. The annotated share of an image is made of 64 x 64 squares at
random places of a grid; the last square is cut to make the share exact. Everything else is ignored and its labels are
removed. The answer is F1 at IoU 0.5 on the test images, with its 95 % interval over images, and its ratio to F1 with
full annotation.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch
from contest import subset

from septum.cli.arguments import parse_settings
from septum.core.tiling import ArraySource
from septum.data.catalog import find
from septum.data.dataset import Dataset, load_dataset
from septum.evaluation.evaluate import evaluate_arrays
from septum.machine.generators import drain
from septum.model.model import Model
from septum.model.predict import segment
from septum.training.fit import fit
from septum.training.holdout import HoldOut, hold_out
from septum.training.recipe import recipe
from septum.training.request import TrainingRequest

SQUARE = 64  # pixels
F1 = "f1"


def annotated(shape: tuple[int, ...], share: float, rng: np.random.Generator) -> np.ndarray:
    """Return where an image is annotated: the given share of its pixels, exact to one row of a square."""
    mask, wanted = np.zeros(shape, bool), round(share * shape[0] * shape[1])
    corners = [(y, x) for y in range(0, shape[0], SQUARE) for x in range(0, shape[1], SQUARE)]
    for index in rng.permutation(len(corners)):
        y, x = corners[index]
        square = mask[y : y + SQUARE, x : x + SQUARE]
        square[: max(0, wanted - int(mask.sum())) // square.shape[1]] = True
    return mask


def partly(dataset: Dataset, share: float, seed: int) -> Dataset:
    """Return the data set with only a share of each image annotated."""
    if share == 1:
        return dataset
    rng, samples = np.random.default_rng(seed), []
    for sample in dataset.samples:
        ignore = ~annotated(sample.labels.shape, share, rng)
        samples.append(replace(sample, labels=np.where(ignore, 0, sample.labels), ignore=ignore))
    return replace(dataset, samples=tuple(samples))


def train(dataset: Dataset, held_out: HoldOut, steps: int, seed: int, changes: dict[str, Any]) -> Model:
    """Train with the recipe fast, as septum train does."""
    config = recipe("fast", dataset, torch.device("cpu"), {**changes, "steps": steps, "seed": seed})
    with tempfile.TemporaryDirectory() as folder:
        return drain(fit(TrainingRequest(dataset, config, Path(folder) / "run", held_out=held_out)))


def test_scores(model: Model, test: Dataset) -> dict[str, Any]:
    """F1 at IoU 0.5 and the other matching scores on the test images, with their intervals over images."""
    predicted = [drain(segment(model.net, model.card.config, ArraySource(s.image))).labels for s in test.samples]
    evaluation = evaluate_arrays(predicted, [s.labels for s in test.samples], kind="instances", metrics=["matching"])
    return {name: asdict(interval) for name, interval in evaluation.scores.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--images", type=int, nargs="+", default=[20], help="numbers of training images")
    parser.add_argument("--shares", type=float, nargs="+", default=[1.0, 0.3], help="annotated shares of the pixels")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    arguments = parser.parse_args()
    whole = load_dataset(find("dsb2018"))
    test = subset(whole, range(len(whole.samples) - 20, len(whole.samples)))
    results = []
    for count in arguments.images:
        for seed in arguments.seeds:
            for share in arguments.shares:
                full = subset(whole, range(count))
                training = partly(full, share, seed)
                begin = time.perf_counter()
                model = train(training, hold_out(full), arguments.steps, seed, parse_settings(arguments.settings))
                entry = {
                    "images": count,
                    "share": share,
                    "seed": seed,
                    "objects": sum(len(np.unique(sample.labels)) - 1 for sample in training.samples),
                    "held_out": model.card.held_out,
                    "validation": model.card.scores,
                    "seconds": round(time.perf_counter() - begin, 1),
                    "test": test_scores(model, test),
                }
                print({name: value for name, value in entry.items() if name != "test"}, flush=True)
                results.append(entry)
    summary = []
    for count in arguments.images:
        means = {}
        for share in arguments.shares:
            same = [entry for entry in results if (entry["images"], entry["share"]) == (count, share)]
            means[share] = float(np.mean([entry["test"][F1]["value"] for entry in same]))
        ratios = {share: means[share] / means[1.0] for share in means if share < 1 and means.get(1.0)}
        summary.append({"images": count, "f1": means, "ratio_to_full_annotation": ratios})
    settings = {**vars(arguments), "square": SQUARE, "test_images": [sample.name for sample in test.samples]}
    name = "partial" if arguments.images == [20] else "few_images"
    record.save(name, settings=settings, results={"summary": summary, "trainings": results})


if __name__ == "__main__":
    main()
