"""How long does the separation weight of 2048 x 2048 pixels with 2,400 touching cells take, and how exact is it?

Compared on one core: brute force, with one distance transform per instance over the whole image (timed on a crop and
scaled, since its cost is instances x pixels), and one per instance in its bounding box, enlarged until it is exact.
Run: OMP_NUM_THREADS=1 python benchmarks/weight_map.py
"""

from __future__ import annotations

import math

import numpy as np
import record
from scipy import ndimage
from scipy.spatial import cKDTree

from septum.core.targets import border
from septum.core.weight_map import separation_weight

SIDE, PER_SIDE, CROP, SEED = 2048, 49, 512, 0
PRESETS = {"paper": (10.0, 5.0), "falk2019": (50.0, 6.0)}


def touching_cells() -> np.ndarray:
    """Nearest-centre regions of a jittered grid, cut off at a radius, so that they touch and leave gaps."""
    spacing = SIDE / PER_SIDE
    grid = np.indices((PER_SIDE, PER_SIDE)).reshape(2, -1).T + 0.5
    centres = (grid + np.random.default_rng(SEED).uniform(-0.25, 0.25, grid.shape)) * spacing
    distance, nearest = cKDTree(centres).query(np.indices((SIDE, SIDE)).reshape(2, -1).T)
    return np.where(distance < 0.55 * spacing, nearest + 1, 0).reshape(SIDE, SIDE)


def brute_force(
    labels: np.ndarray, where: np.ndarray, w0: float, sigma: float, margin: int | None = None
) -> np.ndarray:
    """One exact distance transform per instance, over the whole image or within `margin` pixels of its box."""
    d1, d2 = np.full((2, *labels.shape), np.inf)
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        if margin is None:
            box = np.s_[:, :]
        else:
            box = tuple(slice(max(0, side.start - margin), side.stop + margin) for side in box)
        distance = ndimage.distance_transform_edt(labels[box] != label)
        d2[box] = np.minimum(d2[box], np.maximum(d1[box], distance))
        d1[box] = np.minimum(d1[box], distance)
    return np.where(where, w0 * np.exp(-((d1 + d2) ** 2) / (2 * sigma**2)), 0)


def main() -> None:
    labels = touching_cells()
    where = border.encode(labels) == 0  # background and cut border, as in training
    crop = np.s_[:CROP, :CROP]
    results = {}
    for name, (w0, sigma) in PRESETS.items():
        margin = math.ceil(sigma * math.sqrt(2 * math.log(w0 / 1e-6)))
        ours = record.seconds(lambda w0=w0, sigma=sigma: separation_weight(labels, w0=w0, sigma=sigma, where=where))
        boxes = record.seconds(
            lambda w0=w0, sigma=sigma, margin=margin: brute_force(labels, where, w0, sigma, margin),
            repeats=3,
            warmups=0,
        )
        brute = record.seconds(
            lambda w0=w0, sigma=sigma: brute_force(labels[crop], where[crop], w0, sigma), repeats=3, warmups=0
        )
        on_crop = separation_weight(labels[crop], w0=w0, sigma=sigma, where=where[crop])
        whole = separation_weight(labels, w0=w0, sigma=sigma, where=where)
        scale = (SIDE / CROP) ** 2 * labels.max() / (len(np.unique(labels[crop])) - 1)
        results[name] = {
            "ours": ours,
            "boxes": boxes,
            "brute_force_on_crop": brute,
            "brute_force_scaled_to_whole_s": brute["median_s"] * scale,
            "times_faster_than_boxes": boxes["median_s"] / ours["median_s"],
            "times_faster_than_brute_force": brute["median_s"] * scale / ours["median_s"],
            "max_difference_to_brute_force_on_crop": float(
                np.abs(on_crop - brute_force(labels[crop], where[crop], w0, sigma)).max()
            ),
            "max_difference_to_boxes": float(np.abs(whole - brute_force(labels, where, w0, sigma, margin)).max()),
        }
    settings = {
        "shape": [SIDE, SIDE],
        "cells": int(labels.max()),
        "weighted_share": float(where.mean()),
        "crop": CROP,
        "seed": SEED,
        "cores": 1,
    }
    record.save("weight_map", settings=settings, results=results, packages=("scipy", "numba"))


if __name__ == "__main__":
    main()
