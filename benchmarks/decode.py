"""How long does decoding 4096 x 4096 pixels with 10,000 touching objects take, on one core?

The probabilities imitate an uncertain network: the true classes, blurred and mixed with smooth noise, with holes to
fill and debris to remove. The same run times plain connected components of the foreground (scipy.ndimage.label) and
scikit-image's watershed from the same seeds on the same foreground. F1 at IoU 0.5 against the truth is reported too,
because plain components merge touching objects.
Run: OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python benchmarks/decode.py
"""

from __future__ import annotations

from typing import Any

import numpy as np
import record
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.segmentation import watershed

from septum.config import Decoding
from septum.core.decode import connected_components, decode
from septum.core.labels import renumber_by_first_pixel
from septum.core.metrics import matching
from septum.core.targets import TARGETS

SIDE, PER_SIDE, SEED = 4096, 100, 0
DECODING = {
    "border": Decoding(smallest_object=60, largest_hole=40),
    "rim": Decoding(smallest_object=60, largest_hole=40, reach=25),
}


def touching_cells() -> np.ndarray:
    """Nearest-centre regions of a jittered grid, cut off at a radius, so that they touch and leave gaps."""
    spacing = SIDE / PER_SIDE
    grid = np.indices((PER_SIDE, PER_SIDE)).reshape(2, -1).T + 0.5
    centres = (grid + np.random.default_rng(SEED).uniform(-0.25, 0.25, grid.shape)) * spacing
    distance, nearest = cKDTree(centres).query(np.indices((SIDE, SIDE)).reshape(2, -1).T)
    labels = np.where(distance < 0.55 * spacing, nearest + 1, 0).reshape(SIDE, SIDE).astype(np.int32)
    renumber_by_first_pixel(labels)
    return labels


def uncertain(classes: np.ndarray, n_classes: int) -> np.ndarray:
    """(Y, X) classes -> (K, Y, X) float32 probabilities with holes and debris."""
    rng = np.random.default_rng(SEED)
    mixed = np.empty((n_classes, *classes.shape), np.float32)
    for k in range(n_classes):
        noise = ndimage.gaussian_filter(rng.random(classes.shape, dtype=np.float32), 1.5)
        noise = np.exp((noise - noise.mean()) / noise.std())
        mixed[k] = ndimage.gaussian_filter((classes == k).astype(np.float32), 0.5) + 0.03 * noise
    mixed /= mixed.sum(0)
    return mixed


def main() -> None:
    labels = touching_cells()
    results: dict[str, Any] = {}
    for target, decoding in DECODING.items():
        chances = uncertain(TARGETS[target].encode(labels), TARGETS[target].n_classes(0))
        foreground = 1 - chances[0]
        seeds = connected_components(TARGETS[target].seeds(chances, decoding))
        ways = {
            "ours": lambda target=target, chances=chances, decoding=decoding: decode(target, chances, decoding),
            "components": lambda mask=foreground: ndimage.label(mask > 0.5)[0],
            "watershed": lambda chances=chances, mask=foreground, target=target, decoding=decoding: watershed(
                -mask, connected_components(TARGETS[target].seeds(chances, decoding)), mask=mask > 0.5
            ),
        }
        entry: dict[str, Any] = {"seeds": int(seeds.max())}
        for name, way in ways.items():
            decoded = way()
            entry[name] = {
                **record.seconds(way, repeats=5 if name == "ours" else 3),
                "objects": int(decoded.max()),
                "f1": matching.match(labels, decoded, thresholds=[0.5]).scores.per_threshold[0].f1,
            }
        for name in ("components", "watershed"):
            entry[name]["times_as_long_as_ours"] = entry[name]["median_s"] / entry["ours"]["median_s"]
        results[target] = entry
    settings = {
        "shape": [SIDE, SIDE],
        "objects": int(labels.max()),
        "decoding": {target: decoding.model_dump() for target, decoding in DECODING.items()},
        "seed": SEED,
        "cores": 1,
    }
    record.save("decode", settings=settings, results=results, packages=("scipy", "numba", "scikit-image"))


if __name__ == "__main__":
    main()
