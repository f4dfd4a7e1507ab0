"""How close do the paper's three experiments come to its numbers, fold by fold?

    SEPTUM_DATA=... python benchmarks/reproduce.py em --output DIR --budget 1h
    SEPTUM_DATA=... python benchmarks/reproduce.py dic-hela --output DIR --budget 1h --recipe paper

Runs `septum reproduce`, which continues a stopped run and keeps the results of every finished fold.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import record
import torch

from septum.cli.arguments import parse_settings
from septum.data.catalog import find
from septum.experiments.reproduce import EXPERIMENTS, Options, reproduce
from septum.machine.generators import drain
from septum.training.records import ImagesDone, StepDone
from septum.words import parse_duration


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(EXPERIMENTS))
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--recipe", choices=["fast", "paper"])
    parser.add_argument("--budget", type=parse_duration)
    parser.add_argument("--folds", type=lambda text: text.split(","))
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    options = Options(arguments.recipe, arguments.budget, parse_settings(arguments.set) or None, arguments.folds)
    steps = reproduce(arguments.name, find(EXPERIMENTS[arguments.name].data), arguments.output, options, device)

    def show(step: object) -> None:
        if not isinstance(step, StepDone | ImagesDone):
            print(step, flush=True)

    results = drain(steps, show).results
    scores, folds = results.pop("scores"), results.pop("folds")
    record.save(
        f"reproduce_{arguments.name}_{results['recipe']}",
        settings=results,
        results={"scores": scores, "folds": folds},
        packages=("scipy", "scikit-image"),
        device=record.gpu_name() if device.type == "cuda" else "",
    )


if __name__ == "__main__":
    main()
