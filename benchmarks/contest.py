"""Which settings train best? They compete on the training images only; the test images are not used.

    SEPTUM_DATA=... python benchmarks/contest.py em --steps 1500 --seed 0 --set unet.base_channels=32
    SEPTUM_DATA=... python benchmarks/contest.py dic-hela --steps 1000 --set instances=rim
    SEPTUM_DATA=... python benchmarks/contest.py em --budget 5min --try deep-supervision
    SEPTUM_DATA=... python benchmarks/contest.py em-06-11 --budget 10min --set dice=1.0

em: train on slices 0-17 of ISBI 2012, choose on 18-23 (24-29 are the test). em-00-05, em-06-11 and em-12-17: choose on
those six slices, train on the other 18 of 0-23. dic-hela: choose on the last three frames of video 01, train on the
others (video 02 is the test). dsb2018: train on every second one of the first 20 images, choose on the other ten (the
last 20 are the test). Every entry, winner or loser, is recorded.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch
import tries

from septum.cli.arguments import parse_settings
from septum.config import TtaConfig
from septum.core.metrics import ctc, isbi, matching
from septum.core.tiling import ArraySource
from septum.data.catalog import find
from septum.data.dataset import Dataset, load_dataset, load_pairs
from septum.machine.generators import drain
from septum.model.model import Model
from septum.model.predict import segment
from septum.training.fit import fit
from septum.training.holdout import hold_out
from septum.training.recipe import recipe
from septum.training.request import TrainingRequest
from septum.words import parse_duration

LOG = Path(__file__).parent / "results" / "contest.jsonl"
EM_BLOCKS = {"em": 18, "em-00-05": 0, "em-06-11": 6, "em-12-17": 12}  # the first of the six slices to choose on


def split(name: str, kind: Any = None) -> tuple[Dataset, Dataset]:
    """Return the part to train on and the part to choose on, both from the training data."""
    if name in EM_BLOCKS:
        folder = find("isbi2012")
        images, labels = (sorted((folder / part).iterdir())[:24] for part in ("images", "labels"))
        pairs: list[Any] = [(image, label, None) for image, label in zip(images, labels, strict=True)]
        chosen = slice(EM_BLOCKS[name], EM_BLOCKS[name] + 6)
        return load_pairs(pairs[: chosen.start] + pairs[chosen.stop :], kind=kind), load_pairs(pairs[chosen])
    whole = load_dataset(find(name) / "01" if name == "dic-hela" else find(name))
    if name == "dic-hela":
        parts = range(len(whole.samples) - 3), range(len(whole.samples) - 3, len(whole.samples))
    else:
        parts = range(0, 20, 2), range(1, 20, 2)
    return subset(whole, parts[0]), subset(whole, parts[1])


def subset(dataset: Dataset, indices: Iterable[int]) -> Dataset:
    """Some samples of a data set."""
    samples = tuple(dataset.samples[index] for index in indices)
    return replace(dataset, samples=samples, hashes={sample.name: dataset.hashes[sample.name] for sample in samples})


def scores(model: Model, dataset: Dataset, em: bool, tta: TtaConfig | None = None) -> dict[str, float]:
    """Return V_Rand and V_Info at the best threshold for EM, or SEG, F1 and PQ for cells."""
    sources = [ArraySource(sample.image) for sample in dataset.samples]
    predictions = [drain(segment(model.net, model.card.config, source, tta=tta)) for source in sources]
    if em:
        best = isbi.evaluate_stack(
            np.stack([sample.labels > 0 for sample in dataset.samples]).astype(np.uint8),
            np.stack([np.clip(p.probabilities[1], 0, 1) for p in predictions]),
        ).best
        return {name: (round(float(value.value), 5), value.threshold) for name, value in best.items()}
    frames, matched = [], []
    for sample, prediction in zip(dataset.samples, predictions, strict=True):
        frames.append(ctc.match_frame(sample.labels, prediction.labels, frame=sample.name, ignore=sample.ignore))
        matched.append(
            matching.match(sample.labels, prediction.labels, ignore=sample.ignore, thresholds=[0.5, 0.7]).scores
        )
    at = matching.pool(matched).per_threshold
    return {
        "seg": round(float(ctc.pool(frames).seg_over_these_frames or 0), 5),
        "f1": round(at[0].f1, 5),
        "f1_at_0.7": round(at[1].f1, 5),
        "panoptic_quality": round(at[0].panoptic_quality, 5),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=[*EM_BLOCKS, "dic-hela", "dsb2018"])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--budget")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--try", dest="tried", choices=tries.TRIES, help="a training variant from tries.py")
    parser.add_argument("--kind", choices=["instances"], help="train EM on cell interiors as instances, with Eq. 2")
    parser.add_argument("--keep", type=Path, help="keep the run in this folder")
    arguments = parser.parse_args()
    training, choosing = split(arguments.data, arguments.kind)
    changes = {**parse_settings(arguments.settings), "steps": arguments.steps, "seed": arguments.seed}
    config = recipe("fast", training, torch.device("cpu"), changes)
    budget = parse_duration(arguments.budget) if arguments.budget else None
    if arguments.tried:
        tries.apply(arguments.tried)
    begin, begin_cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary) / "run"
        model = drain(fit(TrainingRequest(training, config, folder, held_out=hold_out(training), budget=budget)))
    entry = {
        "data": arguments.data,
        "settings": arguments.settings
        + ([f"kind={arguments.kind}"] if arguments.kind else [])
        + ([f"try={arguments.tried}"] if arguments.tried else []),
        "seed": arguments.seed,
        "steps": model.card.config.steps,
        "seconds": round(time.perf_counter() - begin, 1),
        "cpu_seconds": round(time.process_time() - begin_cpu, 1),
        "hardware": record.hardware(),
        "threads": torch.get_num_threads(),
        "commit": record.commit(),
        "versions": model.card.versions,
        "config": model.card.config.model_dump(mode="json"),
        "scores": scores(model, choosing, arguments.data in EM_BLOCKS),
        "scores_averaged_over_8": scores(
            model, choosing, arguments.data in EM_BLOCKS, TtaConfig(kind="dihedral", versions=8)
        ),
    }
    with LOG.open("a") as file:
        file.write(json.dumps(entry) + "\n")
    print(json.dumps(entry), flush=True)


if __name__ == "__main__":
    main()
