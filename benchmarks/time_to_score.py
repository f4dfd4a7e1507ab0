"""How long does training take to reach the paper network's published scores on EM, V_Rand 0.9728 and V_Info 0.9866?

    SEPTUM_DATA=... python benchmarks/time_to_score.py                                        (on a GPU)
    SEPTUM_DATA=... python benchmarks/time_to_score.py --budgets 5min 20min 60min --seeds 0   (on two cores)

ISBI 2012: train on slices 0-23, test on 24-29, in one pass and averaged over eight flips and quarter-turns. Schedules
depend on the budget, so each budget and seed is its own training, from images in memory to the chosen network. The
answer is the scores after each budget, and the seconds of the first budget whose median over the seeds reaches both
scores. The published scores are for the challenge's test images (Guo et al. 2019), whose truth is not public.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch
from peers import scores_em, split

from septum.config import TtaConfig
from septum.core.tiling import ArraySource
from septum.data.dataset import Dataset
from septum.machine.generators import drain
from septum.model.model import Model, load
from septum.model.predict import segment
from septum.training.fit import fit
from septum.training.holdout import hold_out
from septum.training.recipe import recipe
from septum.training.request import TrainingRequest
from septum.words import parse_duration

AIM = {"v_rand": 0.9728, "v_info": 0.9866}
WAYS = {"one_pass": None, "averaged_over_8": TtaConfig(kind="dihedral", versions=8)}


def train(training: Dataset, name: str, budget: float, seed: int, device: torch.device) -> tuple[Model, float]:
    """Train like `septum train --budget`; returns the chosen network and the seconds taken."""
    begin = time.perf_counter()
    config = recipe(name, training, device, {"seed": seed})
    with tempfile.TemporaryDirectory() as folder:
        run, held_out = Path(folder) / "run", hold_out(training)
        drain(fit(TrainingRequest(training, config, run, held_out=held_out, budget=budget, device=device, begin=begin)))
        return load(run, device), time.perf_counter() - begin


def judge(model: Model, test: Dataset) -> dict[str, Any]:
    """The challenge's measures on the test slices, in one pass and averaged."""
    results = [
        np.stack(
            [
                drain(segment(model.net, model.card.config, ArraySource(sample.image), tta=tta)).probabilities[1]
                for tta in WAYS.values()
            ]
        )
        for sample in test.samples
    ]
    return scores_em(test, results)


def median(trainings: list[dict[str, Any]], way: str) -> dict[str, float]:
    """Medians over the seeds of one budget: seconds, V_Rand and V_Info."""
    scores = {name: statistics.median(one["scores"][way][name]["value"] for one in trainings) for name in AIM}
    return {"seconds": statistics.median(one["seconds"] for one in trainings), **scores}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", choices=["fast", "paper"], default="fast")
    parser.add_argument("--budgets", nargs="+", default=["1min", "5min", "10min"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    training, test = split("em", 0)
    medians: dict[str, dict[str, dict[str, float]]] = {way: {} for way in WAYS}
    trainings = []
    for budget in sorted(arguments.budgets, key=parse_duration):
        for seed in arguments.seeds:
            model, seconds = train(training, arguments.recipe, parse_duration(budget), seed, device)
            about = {
                "seconds": round(seconds, 2),
                "chosen_step": model.card.step,
                "precision": model.card.config.precision,
            }
            trainings.append({"budget": budget, "seed": seed, **about, "scores": judge(model, test)})
            print(trainings[-1], flush=True)
        for way in WAYS:
            medians[way][budget] = median([one for one in trainings if one["budget"] == budget], way)
    reached = {
        way: next((m["seconds"] for m in found.values() if all(m[name] >= AIM[name] for name in AIM)), None)
        for way, found in medians.items()
    }
    record.save(
        f"time_to_score_em_{arguments.recipe}",
        settings={"aim": AIM, "budgets": arguments.budgets, "seeds": arguments.seeds},
        results={"seconds_to_aim": reached, "medians": medians, "trainings": trainings},
        packages=("scipy", "scikit-image"),
        device=record.gpu_name() if device.type == "cuda" else "",
    )


if __name__ == "__main__":
    main()
