"""How much time and memory do the scores take on one core, compared with stardist.matching and py-ctcmetrics?

Run: OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python benchmarks/metrics.py
The extra ``demo`` installs stardist, ``dev`` py-ctcmetrics; missing ones are skipped. stardist's dense tables of
10,000 x 10,000 objects take about 4 GB and a minute. The challenge's Java code is not run here; it takes about 25 s per
slice and threshold.

The EM maps are simulated: cells between membranes, blurred, with correlated noise that opens and adds walls. If
SEPTUM_DATA names the data folder, the labels of the real ISBI 2012 stack replace the simulated cells.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import record
import tifffile
from PIL import Image
from scipy import ndimage

from septum.core.metrics import ctc, isbi, matching, overlap, surface, warping
from septum.evaluation import evaluate

N_SLICES, SLICE = 30, 512


def em_labels(size: int, n_cells: int, seed: int) -> np.ndarray:
    """(size, size) bool: Voronoi cells, separated by membranes three pixels wide."""
    rng = np.random.default_rng(seed)
    points = np.ones((size, size), bool)
    points[tuple(rng.integers(0, size, (2, n_cells)))] = False
    y, x = ndimage.distance_transform_edt(points, return_distances=False, return_indices=True)
    cells = y * size + x
    return ndimage.maximum_filter(cells, 3) == ndimage.minimum_filter(cells, 3)


def em_map(labels: np.ndarray, seed: int) -> np.ndarray:
    """Imitate a good network's map: blurred walls, some open, some added; float32 with 256 levels."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=labels.shape), 2)
    smooth = ndimage.gaussian_filter(1.0 * labels, 1)
    return (np.clip(2 * smooth - 0.8 + 3 * noise, 0, 1) * 255).round().astype(np.float32) / 255


def em_stack() -> tuple[np.ndarray, np.ndarray, str]:
    """Return 30 slices of labels and maps, and the source of the labels."""
    folder = Path(os.environ.get("SEPTUM_DATA", "")) / "isbi2012" / "train" / "labels"
    paths = sorted(folder.glob("*")) if "SEPTUM_DATA" in os.environ else []
    if paths:
        labels = np.stack([np.asarray(Image.open(path)) > 0 for path in paths])
    else:
        labels = np.stack([em_labels(SLICE, 400, seed) for seed in range(N_SLICES)])
    maps = np.stack([em_map(each, seed) for seed, each in enumerate(labels)])
    return labels, maps, "isbi2012/train/labels" if paths else "simulated"


def discs(n_side: int, spacing: int, seed: int, jitter: float) -> np.ndarray:
    """(n_side * spacing,) * 2 uint16: discs on a jittered grid, none cut by the frame."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((n_side * spacing,) * 2, np.uint16)
    radius = int(spacing * 0.4)
    for label, (row, column) in enumerate(np.ndindex(n_side, n_side), 1):
        cy, cx = (np.array([row, column]) + 0.5) * spacing + rng.normal(0, jitter, 2)
        y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
        top, left = (int(np.clip(c - radius, 0, len(labels) - 2 * radius - 1)) for c in (cy, cx))
        box = labels[top : top + 2 * radius + 1, left : left + 2 * radius + 1]
        box[(y**2 + x**2 < radius**2) & (box == 0)] = label
    return labels


def peak_bytes(prepare: Callable[[], Any], call: Callable[[Any], Any]) -> int:
    """Largest growth of this process's resident memory during a call (Linux)."""
    arguments = prepare()
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    before = _status("VmRSS")
    call(arguments)
    return _status("VmHWM") - before


def _status(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


class Repeated:
    """A stack that makes its slices on demand, so that only the measured code keeps any."""

    def __init__(self, make: Callable[[], np.ndarray], n: int) -> None:
        self.make, self.n = make, n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, z: int) -> np.ndarray:
        return self.make()


def stack_memory(n_slices: int, size: int, inverted: int = 0) -> float:
    """Peak bytes per pixel of one slice while scoring a stack, slices included; an inverted map is the worst case."""

    def call(stack: tuple[np.ndarray, np.ndarray]) -> None:
        labels, maps = stack
        isbi.evaluate_stack(Repeated(labels.copy, n_slices), Repeated(maps.copy, n_slices), thresholds=(0.1, 0.5))

    def prepare() -> tuple[np.ndarray, np.ndarray]:
        labels = em_labels(size, 400 * (size // SLICE) ** 2, 0)
        call((labels[:64, :64], em_map(labels[:64, :64], 0)))  # compile
        return labels, 1 - em_map(labels, 0) if inverted else em_map(labels, 0)

    return peak_bytes(prepare, call) / size**2


def matching_memory() -> float:
    """Peak bytes per pixel while matching two 4096 x 4096 images, without the images."""

    def prepare() -> tuple[np.ndarray, np.ndarray]:
        pair = discs(102, 40, 0, 0), discs(102, 40, 1, 3)
        matching.match(pair[0][:64, :64], pair[1][:64, :64])  # compile
        return pair

    pair_size = (102 * 40) ** 2
    return peak_bytes(prepare, lambda pair: matching.match(*pair)) / pair_size


def pairwise_memory(measure: str) -> float:
    """Peak bytes per pixel of one score of two 2048 x 2048 noise images, half foreground, without the images."""
    rng = np.random.default_rng(0)
    pair = [rng.random((2048, 2048)) < 0.5 for _ in range(2)]
    call = {
        "overlap": lambda pair: overlap.class_overlap(*pair),
        "surface": lambda pair: surface.surface_distance(*pair),
    }[measure]
    call([np.ascontiguousarray(each[:64, :64]) for each in pair])  # compile
    return peak_bytes(lambda: pair, call) / pair[0].size


def evaluation_memory(n_images: int, what: str) -> float:
    """Peak bytes per pixel of one 2040 x 2040 image while evaluating several in turn, without the images."""
    evaluate.WORKERS = 1
    prediction, truth = discs(51, 40, 1, 3), discs(51, 40, 0, 0)
    if what == "maps":
        prediction, truth = (0.7 * (prediction > 0)).astype(np.float32), (truth > 0).astype(np.uint8)

    def call(size: int, n: int = 1) -> None:
        part = [np.ascontiguousarray(each[:size, :size]) for each in (prediction, truth)]
        evaluate.evaluate_arrays([part[0]] * n, [part[1]] * n)

    return peak_bytes(lambda: call(400), lambda _: call(2040, n_images)) / prediction.size


def in_a_fresh_process(function: Callable[..., float], *arguments: int | str) -> float:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def time_isbi() -> dict[str, Any]:
    labels, maps, source = em_stack()
    list(isbi.count_slice(labels[0], maps[0]))
    per_threshold = {
        f"{t:.1f}": record.seconds(lambda t=t: warping.warp(labels[0], maps[0] > np.float64(t), maps[0], t))
        for t in isbi.THRESHOLDS
    }
    scores = isbi.evaluate_stack(labels, maps)
    return {
        "labels": source,
        "cells in the first slice": int(ndimage.label(labels[0])[1]),
        "best": {name: best.value for name, best in scores.best.items()},
        "warping error, one slice, one threshold": per_threshold,
        "warping error, slowest threshold, s": max(each["median_s"] for each in per_threshold.values()),
        "all measures, 30 slices, ten thresholds": record.seconds(
            lambda: isbi.evaluate_stack(labels, maps), repeats=3, warmups=0
        ),
    }


def time_matching() -> dict[str, Any]:
    try:
        from stardist.matching import matching as peer
    except ImportError:
        peer = None
    results: dict[str, Any] = {}
    for name, n_side, repeats in (("25 objects, 200 x 200", 5, 21), ("1,024 objects, 1280 x 1280", 32, 7)):
        results[name] = compare(peer, discs(n_side, 40, 0, 0), discs(n_side, 40, 1, 3), repeats)
    large = discs(100, 41, 0, 0)[:4096, :4096], discs(100, 41, 1, 3)[:4096, :4096]
    results["10,000 objects, 4096 x 4096"] = compare(peer, *large, repeats=3)
    return results


def compare(peer: Callable[..., Any] | None, truth: np.ndarray, prediction: np.ndarray, repeats: int) -> dict[str, Any]:
    result: dict[str, Any] = {
        "objects": [len(np.unique(labels)) - 1 for labels in (truth, prediction)],
        "septum, ten thresholds, records of all objects": record.seconds(
            lambda: matching.match(truth, prediction), max(repeats, 7)
        ),
        "septum, one threshold, records of all objects": record.seconds(
            lambda: matching.match(truth, prediction, thresholds=(0.5,)), max(repeats, 7)
        ),
    }
    if peer is None:
        return result | {"stardist": "not installed"}
    peer(truth[:64, :64], prediction[:64, :64])  # compile
    result["stardist, one threshold"] = record.seconds(lambda: peer(truth, prediction), repeats, warmups=0)
    ours = result["septum, one threshold, records of all objects"]["median_s"]
    result["stardist over septum"] = result["stardist, one threshold"]["median_s"] / ours
    found, theirs = matching.match(truth, prediction).scores.per_threshold[0], peer(truth, prediction)
    result["same counts"] = (found.tp, found.fp, found.fn) == (theirs.tp, theirs.fp, theirs.fn)
    return result


def time_ctc() -> dict[str, Any]:
    frames = [(np.pad(discs(12, 42, t, 0), 4), np.pad(discs(12, 42, t, 4), 4)) for t in range(100)]  # 512 x 512

    def ours() -> ctc.SequenceScores:
        return ctc.pool([ctc.match_frame(*pair, frame=f"{t:03}") for t, pair in enumerate(frames)])

    ours()
    result: dict[str, Any] = {"septum, SEG and DET of 100 frames": record.seconds(ours)}
    try:
        from ctc_metrics.metrics import seg
        from ctc_metrics.utils.representations import match
    except ImportError:
        return result | {"py-ctcmetrics": "not installed"}
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for t, pair in enumerate(frames[:10]):
            paths.append([f"{folder}/{name}{t:03}.tif" for name in ("truth", "result")])
            for path, labels in zip(paths[-1], pair, strict=True):
                tifffile.imwrite(path, labels)

        def theirs() -> float:
            matches = [match(*each) for each in paths]
            return seg([each[0] for each in matches], [each[4] for each in matches])

        result["py-ctcmetrics, SEG of 10 frames, files read"] = record.seconds(theirs, repeats=3)
        ten = ctc.pool([ctc.match_frame(*pair, frame=f"{t:03}") for t, pair in enumerate(frames[:10])])
        result["same SEG"] = abs(ten.seg_over_these_frames - theirs()) < 1e-12
    return result


def main() -> None:
    results = {
        "isbi": time_isbi(),
        "ctc": time_ctc(),
        "matching": time_matching(),
        "memory, bytes per pixel": {
            "stack of 1 slice 2048 x 2048": in_a_fresh_process(stack_memory, 1, 2048),
            "stack of 4 slices 2048 x 2048": in_a_fresh_process(stack_memory, 4, 2048),
            "stack of 2 slices 2048 x 2048, map inverted": in_a_fresh_process(stack_memory, 2, 2048, 1),
            "matching 10,404 objects 4080 x 4080": in_a_fresh_process(matching_memory),
            "overlap of noise 2048 x 2048": in_a_fresh_process(pairwise_memory, "overlap"),
            "outlines of noise 2048 x 2048": in_a_fresh_process(pairwise_memory, "surface"),
            "septum evaluate, 1 image of 2,601 objects": in_a_fresh_process(evaluation_memory, 1, "instances"),
            "septum evaluate, 4 images of 2,601 objects": in_a_fresh_process(evaluation_memory, 4, "instances"),
            "septum evaluate, 1 map at ten thresholds": in_a_fresh_process(evaluation_memory, 1, "maps"),
            "septum evaluate, 4 maps at ten thresholds": in_a_fresh_process(evaluation_memory, 4, "maps"),
        },
    }
    settings = {"threads": {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")}, "seed": 0}
    packages = ("numba", "scipy", "stardist", "py-ctcmetrics")
    record.save("metrics", settings=settings, results=results, packages=packages)


if __name__ == "__main__":
    main()
