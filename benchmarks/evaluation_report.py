"""How long do scoring and the evaluation report take, and how large is the report?

Run: python benchmarks/evaluation_report.py
Thirty simulated 512 x 512 images with about 5,000 objects, most of them wrong, to fill the error atlas; and thirty
membrane maps at ten thresholds, with the mismatches of the warping error drawn. Limits: 5 MB, 10 s.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import record
from metrics import em_stack
from scipy import ndimage

from septum.evaluation.evaluate import WORKERS, Evaluation, evaluate_arrays
from septum.report.evaluation import report_evaluation

N_IMAGES, SIZE, N_OBJECTS = 30, 512, 170


def cells(seed: int) -> np.ndarray:
    """(SIZE, SIZE) int32: touching discs, cut where they meet."""
    rng = np.random.default_rng(seed)
    seeds = np.ones((SIZE, SIZE), bool)
    seeds[tuple(rng.integers(0, SIZE, (2, N_OBJECTS)))] = False
    distance, (y, x) = ndimage.distance_transform_edt(seeds, return_indices=True)
    return np.where(distance < 16, np.unique(y * SIZE + x, return_inverse=True)[1].reshape(SIZE, SIZE) + 1, 0)


def with_errors(truth: np.ndarray, seed: int) -> np.ndarray:
    """Return the truth with nine of ten objects missed, moved, split or merged."""
    rng = np.random.default_rng(seed)
    prediction = truth.copy()
    fate = rng.choice(["fine", "missed", "split", "merged", "moved"], truth.max() + 1, p=[0.1, 0.3, 0.3, 0.2, 0.1])
    for label in np.unique(truth)[1:]:
        where = truth == label
        if fate[label] == "missed":
            prediction[where] = 0
        elif fate[label] == "split":
            prediction[where & (np.arange(SIZE) > np.nonzero(where)[1].mean())] = 1000 + label
        elif fate[label] == "merged":
            prediction[where] = max(label - 1, 1)
        elif fate[label] == "moved":
            prediction[where] = 0
            prediction[np.roll(where, 12, axis=0)] = label
    return prediction


def image_of(labels: np.ndarray, seed: int) -> np.ndarray:
    """A grey-value image of bright objects with noise."""
    noise = np.random.default_rng(seed).normal(20, 8, labels.shape)
    return np.clip(ndimage.gaussian_filter(120.0 * (labels > 0), 1.5) + noise, 0, 255).astype(np.uint8)


def measure(evaluate: Callable[[], Evaluation]) -> dict[str, Any]:
    """Measure seconds of scoring, and seconds, bytes and errors of the page, in the second of two runs."""
    for _ in range(2):  # the first run compiles
        began = time.perf_counter()
        found = evaluate()
        scored = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            page = report_evaluation(Path(folder) / "report.html", found)
            answer = {
                "images": len(found.images),
                "true_objects": sum(image.objects.n_truth for image in found.images),
                "errors": sum(len(image.objects.errors) for image in found.images),
                "score_seconds": scored - began,
                "page_seconds": time.perf_counter() - scored,
                "page_bytes": page.stat().st_size,
            }
    return answer


def main() -> None:
    truths = [cells(seed) for seed in range(N_IMAGES)]
    predictions = [with_errors(truth, seed) for seed, truth in enumerate(truths)]
    images = [image_of(truth, seed) for seed, truth in enumerate(truths)]
    answers = {"instances": measure(lambda: evaluate_arrays(predictions, truths, images=images))}
    masks, maps, where_from = em_stack()
    pictures = [image_of(mask, seed) for seed, mask in enumerate(masks)]
    answers["membranes"] = measure(lambda: evaluate_arrays(maps, masks, images=pictures)) | {"labels": where_from}
    for name, answer in answers.items():
        print(name, answer)
    settings = {"images": N_IMAGES, "side": SIZE, "repeats": 2, "threads": WORKERS}
    record.save("evaluation_report", settings=settings, results=answers, packages=("numba", "scipy", "pillow"))


if __name__ == "__main__":
    main()
