"""How does Septum compare with its peers, given the same images, measures and time? One record per contestant.

    SEPTUM_DATA=... OMP_NUM_THREADS=2 python benchmarks/peers.py em --budget 20min
    SEPTUM_DATA=... OMP_NUM_THREADS=2 python benchmarks/peers.py dsb2018 --images 1 2 5 10 20 --budget 5min
    SEPTUM_DATA=... OMP_NUM_THREADS=2 python benchmarks/peers.py dic-hela dic-hela-reverse --budget 20min

em: ISBI 2012, train on slices 0-23, test on 24-29, with the challenge's measures of the probabilities, in one pass and
averaged over eight flips and quarter-turns. em-00-05 to em-18-23: test on another block, train on the other 24 slices;
recipe fast was chosen with these slices. em-choosing: within slices 0-23, like contest.py. dsb2018: train on the first
N of the first 20 images, test on the last 20, all as grey values. dic-hela: train on video 01, test on 02, and the
reverse; F1 at IoU 0.5 to 0.9, and SEG. contestants.py says what each contestant does. On EM, fast holds out a fifth of
its slices; fast-final and the peers train on all. A missing peer is skipped, and the record says so. Peers whose
packages conflict get their own Python:

    python -m venv torch-peers
    echo PATH/TO/.venv/lib/python3.11/site-packages > torch-peers/lib/python3.11/site-packages/septum.pth
    torch-peers/bin/pip install torch==2.13.0 monai nnunetv2 cellpose==3.1.1.2
    python -m venv tf-peers
    tf-peers/bin/pip install tensorflow-cpu tf_keras stardist
    ... peers.py em --python torch-peers/bin/python --python stardist=tf-peers/bin/python

A long comparison can be run in parts (`--contestants`). Appends one line per contestant to results/peers.jsonl.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import record
from contest import split as split_to_choose
from contest import subset
from contestants import NAMES, THREADS

from septum.core.metrics import ctc, isbi, matching
from septum.data.catalog import find
from septum.data.dataset import Dataset, load_dataset, load_pairs
from septum.words import parse_duration

LOG = record.RESULTS / "peers.jsonl"
HERE = Path(__file__).parent
FOR = {
    "em": ("fast", "fast-final", "paper", "monai", "nnunet"),
    "cells": ("fast", "stardist", "cellpose"),
}
BLOCKS = ("em-00-05", "em-06-11", "em-12-17", "em-18-23")
DATA = ("em", *BLOCKS, "em-choosing", "dsb2018", "dic-hela", "dic-hela-reverse")
IOUS = (0.5, 0.6, 0.7, 0.8, 0.9)
NEEDS = {"monai": "monai", "nnunet": "nnunetv2", "stardist": "stardist.models", "cellpose": "cellpose.models"}


def split(name: str, images: int) -> tuple[Dataset, Dataset]:
    """Return the training part and the test part."""
    if name == "em-choosing":
        return split_to_choose("em")
    if name.startswith("em"):
        folder = find("isbi2012")
        files = (sorted((folder / part).iterdir()) for part in ("images", "labels"))
        pairs: list[Any] = [(image, label, None) for image, label in zip(*files, strict=True)]
        first = int(name[3:5]) if name in BLOCKS else 24
        return load_pairs(pairs[:first] + pairs[first + 6 :]), load_pairs(pairs[first : first + 6])
    if name == "dsb2018":
        whole = load_dataset(find("dsb2018"))
        return subset(whole, range(images)), subset(whole, range(20, 40))
    videos = [load_dataset(find("dic-hela") / video) for video in ("01", "02")]
    return (videos[1], videos[0]) if name.endswith("reverse") else (videos[0], videos[1])


def grey(image: np.ndarray) -> np.ndarray:
    """(1, Y, X): the mean of the channels, in the image's type."""
    return image.mean(axis=0, keepdims=True).round().astype(image.dtype)


def write_task(training: Dataset, test: Dataset, kind: str, path: Path) -> None:
    """Write the arrays for a process without Septum."""
    arrays: dict[str, Any] = {"kind": kind}
    for n, sample in enumerate(training.samples):
        arrays |= {f"images_{n}": grey(sample.image), f"labels_{n}": sample.labels}
        if sample.ignore is not None:
            arrays[f"ignore_{n}"] = sample.ignore
    np.savez(path, **arrays, **{f"test_{n}": grey(sample.image) for n, sample in enumerate(test.samples)})


def scores_em(test: Dataset, results: list[np.ndarray]) -> dict[str, Any]:
    """The challenge's measures at their best thresholds."""
    truth = np.stack([sample.labels for sample in test.samples])
    scores = {}
    for number, name in enumerate(("one_pass", "averaged_over_8")):
        best = isbi.evaluate_stack(truth, np.stack([np.clip(result[number], 0, 1) for result in results])).best
        names = ("v_rand", "v_info", "warping_error", "pixel_error")
        scores[name] = {
            measure: {"value": round(float(best[measure].value), 6), "threshold": best[measure].threshold}
            for measure in names
        }
    return scores


def scores_cells(test: Dataset, results: list[np.ndarray]) -> dict[str, Any]:
    """F1 at several overlaps, SEG."""
    frames, matched = [], []
    for sample, labels in zip(test.samples, results, strict=True):
        frames.append(ctc.match_frame(sample.labels, labels, frame=sample.name, ignore=sample.ignore))
        matched.append(matching.match(sample.labels, labels, ignore=sample.ignore, thresholds=IOUS).scores)
    at = matching.pool(matched).per_threshold
    seg = ctc.pool(frames).seg_over_these_frames
    return {
        "seg": round(float(seg or 0), 5),
        "f1": {str(iou): round(one.f1, 5) for iou, one in zip(IOUS, at, strict=True)},
        "objects": at[0].tp + at[0].fn,
    }


def compete(name: str, python: str, task: Path, budget: float, seed: int) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Let one contestant train and predict; returns no results and the reason if it cannot."""
    needed = NEEDS.get(name)
    if needed and subprocess.run([python, "-c", f"import {needed}"], capture_output=True, check=False).returncode:
        return [], {"left_out": f"{needed.split('.')[0]} is not installed for {python}"}
    out = task.with_name("out.npz")
    command = [python, str(HERE / "contestants.py"), name, str(task), str(out), str(budget), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return [], {"left_out": f"failed: {done.stderr.strip().splitlines()[-1]}"}
    with np.load(out) as arrays:
        count = sum(key.startswith("result_") for key in arrays)
        return [arrays[f"result_{n}"] for n in range(count)], json.loads(str(arrays["about"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", choices=DATA)
    parser.add_argument("--budget", default="20min")
    parser.add_argument("--contestants", nargs="+", choices=NAMES, help="default: all for the data set")
    parser.add_argument(
        "--images", type=int, nargs="+", default=[1, 2, 5, 10, 20], help="numbers of training images of dsb2018"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="[NAME=]PATH",
        help="Python of the peers, or PEER=PYTHON for one of them",
    )
    arguments = parser.parse_args()
    commit = record.commit()
    pythons = dict(part.rpartition("=")[::2] for part in arguments.python)
    budget = parse_duration(arguments.budget)
    for data in arguments.data:
        kind = "em" if data.startswith("em") else "cells"
        for images in arguments.images if data == "dsb2018" else [0]:
            training, test = split(data, images)
            for name in [name for name in arguments.contestants or FOR[kind] if name in FOR[kind]]:
                ours = name in ("fast", "fast-final", "paper")
                python = sys.executable if ours else pythons.get(name) or pythons.get("") or sys.executable
                with tempfile.TemporaryDirectory() as folder:
                    task = Path(folder) / "task.npz"
                    write_task(training, test, kind, task)
                    results, about = compete(name, python, task, budget, arguments.seed)
                scores = (scores_em if kind == "em" else scores_cells)(test, results) if results else None
                entry = {
                    "data": data,
                    "training_images": len(training.samples),
                    "test_images": len(test.samples),
                    "contestant": name,
                    "budget_s": budget,
                    "seed": arguments.seed,
                    "scores": scores,
                    "about": about,
                    "date": datetime.date.today().isoformat(),
                    "hardware": record.hardware(),
                    "threads": THREADS,
                    "commit": commit,
                }
                with LOG.open("a") as file:
                    file.write(json.dumps(entry) + "\n")
                print(json.dumps(entry), flush=True)


if __name__ == "__main__":
    main()
