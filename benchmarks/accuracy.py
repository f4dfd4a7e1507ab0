"""How good is a network after a given training time, on real images that it has not seen?

    SEPTUM_DATA=... python benchmarks/accuracy.py em --budget 30min
    SEPTUM_DATA=... python benchmarks/accuracy.py dic-hela --budget 20min
    SEPTUM_DATA=... python benchmarks/accuracy.py em --recipe paper --budget 10min      (on a GPU)

em: ISBI 2012, slices 0-23 for training (20-23 of these for validation), 24-29 for testing. dic-hela: video 01 for
training, 02 for testing. Only the final weights are scored on the test part. Writes the run, overlays and the record.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import record
import torch

from septum.config import TtaConfig
from septum.core.metrics import ctc, isbi, matching, overlap
from septum.core.overlay import overlay as draw
from septum.core.tiling import ArraySource
from septum.data.catalog import find
from septum.data.dataset import Dataset, load_dataset, load_pairs
from septum.data.images import write_png
from septum.machine.generators import drain
from septum.model.model import Model, load
from septum.model.predict import Prediction, segment
from septum.training.fit import fit
from septum.training.holdout import hold_out
from septum.training.recipe import recipe
from septum.training.records import Validated
from septum.training.request import TrainingRequest
from septum.training.run import RunFolder
from septum.words import parse_duration

TTA = {"none": None, "rotations 7": TtaConfig(), "dihedral 8": TtaConfig(kind="dihedral", versions=8)}


def em() -> tuple[Dataset, Dataset]:
    """Slices 0-23 and 24-29."""
    folder = find("isbi2012")
    images, labels = (sorted((folder / part).iterdir()) for part in ("images", "labels"))
    pairs = [(image, label, None) for image, label in zip(images, labels, strict=True)]
    return load_pairs(pairs[:24]), load_pairs(pairs[24:])


def dic_hela() -> tuple[Dataset, Dataset]:
    """Videos 01 and 02."""
    folder = find("dic-hela")
    return load_dataset(folder / "01"), load_dataset(folder / "02")


def train(dataset: Dataset, name: str, budget: float, run: RunFolder, device: torch.device) -> Model:
    """Train, or use an existing run (a stopped one is continued)."""
    config = recipe(name, dataset, device)
    steps = fit(
        TrainingRequest(
            dataset,
            config,
            run.path,
            held_out=hold_out(dataset),
            budget=budget,
            device=device,
            resume=run.exists(),
        )
    )
    return drain(steps, lambda record: print(record, flush=True) if isinstance(record, Validated) else None)


def scores_em(test: Dataset, predictions: list[Prediction]) -> dict[str, object]:
    """Pixel error and IoU of the class map; the challenge's measures of the probabilities at ten thresholds."""
    pooled = overlap.pool(
        [overlap.class_overlap(s.labels, p.labels) for s, p in zip(test.samples, predictions, strict=True)]
    )
    challenge = isbi.evaluate_stack(
        np.stack([s.labels for s in test.samples]),
        np.stack([np.clip(p.probabilities[1], 0, 1) for p in predictions]),
    )
    return {
        "pixel_error": pooled.pixel_error,
        "iou_membrane": pooled.classes[0].iou,
        "iou_interior": pooled.classes[1].iou,
        "mean_iou": (pooled.classes[0].iou + pooled.classes[1].iou) / 2,
        "isbi": {name: vars(best) for name, best in challenge.best.items()},
    }


def scores_dic_hela(test: Dataset, predictions: list[Prediction]) -> dict[str, object]:
    """SEG pooled over reference objects, F1 and mean IoU of matched instances."""
    frames, matched = [], []
    for sample, prediction in zip(test.samples, predictions, strict=True):
        frames.append(ctc.match_frame(sample.labels, prediction.labels, frame=sample.name, ignore=sample.ignore))
        matched.append(matching.match(sample.labels, prediction.labels, ignore=sample.ignore, thresholds=[0.5]).scores)
    at = matching.pool(matched).per_threshold[0]
    return {
        "seg": ctc.pool(frames).seg_over_these_frames,
        "f1": at.f1,
        "mean_matched_iou": at.mean_matched_iou,
        "objects": at.tp + at.fn,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=["em", "dic-hela"])
    parser.add_argument("--recipe", choices=["fast", "paper"], default="fast")
    parser.add_argument("--budget", default="30min")
    parser.add_argument(
        "--run", type=Path, help="run folder; an existing run is continued, or used as it is if it is finished"
    )
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    run = RunFolder(arguments.run or Path("scratch") / f"{arguments.data}-{arguments.recipe}")
    train_set, test_set = em() if arguments.data == "em" else dic_hela()
    train(train_set, arguments.recipe, parse_duration(arguments.budget), run, device)
    model = load(run.path, device)
    measure = scores_em if arguments.data == "em" else scores_dic_hela
    results: dict[str, object] = {"validation": model.card.scores, "best_step": model.card.step}
    for name, tta in TTA.items():
        sources = [ArraySource(sample.image) for sample in test_set.samples]
        predictions = [drain(segment(model.net, model.card.config, source, tta=tta)) for source in sources]
        results[f"test, averaging {name}"] = measure(test_set, predictions)
        if tta is None:
            for sample, prediction in zip(test_set.samples, predictions, strict=True):
                rgb = draw(sample.image, prediction.labels, truth=sample.labels, kind=test_set.kind)
                write_png(run.path / f"test_{Path(sample.name).stem}.png", rgb)
    seconds = [r["seconds"] for r in run.records() if "seconds" in r]
    settings = {"run": run.config().model_dump(mode="json"), "seconds": seconds[-1]}
    record.save(
        f"accuracy_{arguments.data}_{arguments.recipe}",
        settings=settings,
        results=results,
        packages=("scipy", "scikit-image"),
        device=record.gpu_name() if device.type == "cuda" else "",
    )


if __name__ == "__main__":
    main()
