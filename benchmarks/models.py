"""Train the models that ship with Septum, and score their rounded weights on images they have not seen.

    SEPTUM_DATA=... python benchmarks/models.py nuclei --budget 20min --set augment.scale=0.4
    SEPTUM_DATA=... python benchmarks/models.py em-membrane --budget 20min

Instances are trained twice: first with a fifth held out to choose the decoder's thresholds, then on everything. For
classes nothing is chosen. Writes the run to scratch/, the model in half precision to src/septum/models/, and a record
of its scores.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch
from contest import subset

from septum.cli.arguments import parse_settings
from septum.config import TrainConfig, TtaConfig
from septum.core.metrics import isbi, matching
from septum.core.tiling import ArraySource
from septum.data.catalog import find
from septum.data.dataset import Dataset, load_dataset
from septum.machine.generators import drain
from septum.model.model import SHIPPED, Model, load
from septum.model.predict import segment
from septum.training.fit import fit
from septum.training.holdout import HoldOut, hold_out, nothing_held_out
from septum.training.recipe import recipe
from septum.training.records import Validated
from septum.training.request import TrainingRequest
from septum.training.run import RunFolder
from septum.words import parse_duration


@dataclass(frozen=True)
class Recipe:
    """What a shipped model is trained and scored on."""

    data: str
    training: range
    test: range
    about: tuple[str, ...]
    terms: str = ""
    channel: int | None = None  # of colour images


RECIPES = {
    "nuclei": Recipe(
        "dsb2018",
        range(30),
        range(30, 40),
        (
            "Nuclei in several kinds of light microscopy, mostly fluorescence. Takes one channel: grey values, or the "
            "red channel of stained tissue in colour (--channel 0).",
            "Trained on 30 images of the Data Science Bowl 2018 (stage1_train, CC0; Caicedo et al., Nature Methods "
            "2019); scored on 10 other images.",
            "Train it again: python benchmarks/models.py nuclei --set steps=2000 --set augment.scale=0.4",
        ),
        channel=0,
    ),
    "em-membrane": Recipe(
        "isbi2012",
        range(24),
        range(24, 30),
        (
            "Cell interior (foreground) and membranes (background) in serial-section electron micrographs of neural "
            "tissue, 4 x 4 nm per pixel.",
            "Trained on slices 0-23 of ISBI 2012 (Drosophila ventral nerve cord; Cardona et al., PLoS Biology 2010); "
            "scored on slices 24-29.",
            "Train it again: python benchmarks/models.py em-membrane --set steps=2000",
        ),
        terms="trained on the ISBI 2012 data: for non-commercial use only; cite Cardona et al. 2010, PLoS Biology "
        "8(10) e1000502; full terms in em-membrane.LICENSE.txt beside the model file",
    ),
}


def score(model: Model, test: Dataset) -> dict[str, float]:
    """Score the model's predictions, in one pass and averaged over eight versions of each image."""
    scores: dict[str, float] = {}
    for suffix, tta in (("", None), ("_averaged_over_8", TtaConfig(kind="dihedral", versions=8))):
        sources = [ArraySource(sample.image) for sample in test.samples]
        predictions = [drain(segment(model.net, model.card.config, source, tta=tta)) for source in sources]
        if test.kind == "classes":
            maps = np.stack([np.clip(prediction.probabilities[1], 0, 1) for prediction in predictions])
            best = isbi.evaluate_stack(np.stack([sample.labels for sample in test.samples]), maps).best
            measured = {name: best[name].value for name in ("v_rand", "v_info", "warping_error", "pixel_error")}
        else:
            pairs = zip(test.samples, predictions, strict=True)
            matched = [
                matching.match(s.labels, p.labels, ignore=s.ignore, thresholds=[0.5, 0.7]).scores for s, p in pairs
            ]
            at = matching.pool(matched).per_threshold
            measured = {"f1": at[0].f1, "f1_at_0.7": at[1].f1, "panoptic_quality": at[0].panoptic_quality}
        scores |= {name + suffix: round(float(value), 5) for name, value in measured.items()}
    return scores


def train(training: Dataset, config: TrainConfig, run: RunFolder, held_out: HoldOut, budget: float | None) -> Model:
    """Start or continue a training."""
    steps = fit(TrainingRequest(training, config, run.path, held_out=held_out, budget=budget, resume=run.exists()))
    return drain(steps, lambda record: print(record, flush=True) if isinstance(record, Validated) else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(RECIPES))
    parser.add_argument("--budget")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    arguments = parser.parse_args()
    name, made = arguments.name, RECIPES[arguments.name]
    dataset = load_dataset(find(made.data), channel=made.channel)
    training, test = subset(dataset, made.training), subset(dataset, made.test)
    run = RunFolder(Path("scratch") / f"model-{name}")
    final = RunFolder(run.path / "final")
    changes: dict[str, Any] = parse_settings(arguments.settings)
    config = recipe("fast", training, torch.device("cpu"), changes)
    budget = None if config.steps else parse_duration(arguments.budget or "20min")
    runs = [final]
    if config.kind == "instances":  # the decoder's thresholds are chosen on what is held out
        train(training, config, run, hold_out(training), budget)
        chosen = load(run.model_file).card.config.decoding
        # As `septum train --final`: again for as many steps, now with the images that chose them.
        config, budget, runs = run.config().train, None, [run, final]
    model = train(training, config, final, nothing_held_out(), budget)
    if config.kind == "instances":
        model = Model(model.net, model.card.with_changes({"config.decoding": chosen.model_dump()}))
    file = SHIPPED / f"{name}.safetensors"
    model.save(file, torch.float16)
    rounded = load(file)
    scores = score(rounded, test)
    held_out = f"{len(test.samples)} images that were not used for training, with the rounded weights of this file"
    card = rounded.card.with_changes({"about": made.about, "terms": made.terms, "scores": scores, "held_out": held_out})
    Model(rounded.net, card).save(file, torch.float16)
    seconds = [[r["seconds"] for r in part.records() if "seconds" in r][-1] for part in runs]
    settings = {"run": final.config().model_dump(mode="json"), "seconds": seconds}
    results = {"scores": scores, "step": model.card.step, "bytes": file.stat().st_size}
    record.save(f"model_{name}", settings=settings, results=results, packages=("scipy", "scikit-image"))


if __name__ == "__main__":
    main()
