"""How long does one core take to deform a 512 x 512 image and its labels, compared with MONAI and batchgeneratorsv2?

Run: python benchmarks/augment.py   (the extra ``benchmarks`` installs the peers; missing ones are skipped)
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import record
import torch
from scipy import ndimage

from septum.config import AugmentConfig
from septum.core.augment import (
    apply_grey,
    draw_geometry,
    draw_grey,
    sampling_grid,
    warp_image,
    warp_labels,
    warp_weights,
)

SIZE = 512
REPEATS = 31
OURS = AugmentConfig()
MONAI = {
    "spacing": (255.5, 255.5),
    "magnitude_range": (10, 10),  # standard deviation of the control points, pixels
    "rotate_range": float(np.pi),
    "prob": 1.0,
    "padding_mode": "reflection",
    "mode": ("bilinear", "nearest"),
}
BATCHGENERATORS = {
    "patch_size": (SIZE, SIZE),
    "patch_center_dist_from_border": 0,
    "random_crop": False,
    "p_elastic_deform": 1,
    "elastic_deform_scale": (0.25, 0.25),  # sigma of the Gaussian over the patch size
    "elastic_deform_magnitude": (20, 20),  # largest displacement, pixels: about that of 9 draws of sd 10
    "p_rotation": 1,
    "rotation": (-float(np.pi), float(np.pi)),
    "padding_mode_image": "reflection",
    "border_mode_seg": "reflection",
}


def cells(count: int, rng: np.random.Generator) -> np.ndarray:
    """Voronoi cells numbered from 0, (SIZE, SIZE) int32."""
    seeds = np.zeros((SIZE, SIZE), np.int32)
    seeds[tuple(rng.integers(0, SIZE, (2, count)))] = np.arange(1, count + 1)
    nearest = ndimage.distance_transform_edt(seeds == 0, return_distances=False, return_indices=True)
    return seeds[tuple(nearest)] - 1


def ours(image: torch.Tensor, labels: torch.Tensor) -> Callable[[], Any]:
    """Image and labels: draw, grid, both warps."""
    rng = np.random.default_rng(0)
    centre = [((SIZE - 1) / 2, (SIZE - 1) / 2)]

    def call() -> tuple[torch.Tensor, torch.Tensor]:
        grid = sampling_grid([draw_geometry(OURS, rng)], centre, (SIZE, SIZE))
        return warp_image([image], grid), warp_labels([labels], grid)

    return call


def training_patch(image: torch.Tensor, labels: torch.Tensor) -> Callable[[], Any]:
    """The whole input of a training step of the paper: a 572 tile with new grey values, its 388 labels and weights."""
    rng = np.random.default_rng(0)
    weights = torch.rand(labels.shape)

    def call() -> tuple[torch.Tensor, ...]:
        centre = rng.uniform(0, SIZE - 1, (1, 2))
        grid = sampling_grid([draw_geometry(OURS, rng)], centre, (572, 572))
        tile = apply_grey(warp_image([image], grid), [draw_grey(OURS, rng)])
        output = grid[:, 92:-92, 92:-92]
        return tile, warp_labels([labels], output), warp_weights([weights], output)

    return call


def monai(image: torch.Tensor, labels: torch.Tensor) -> Callable[[], Any]:
    """Rand2DElastic for a dictionary: one grid for image and labels."""
    from monai.transforms import Rand2DElasticd

    transform = Rand2DElasticd(keys=("image", "labels"), **MONAI)
    sample = {"image": image, "labels": labels[None].float()}
    return lambda: transform(sample)


def batchgenerators(image: torch.Tensor, labels: torch.Tensor, mode_seg: str = "bilinear") -> Callable[[], Any]:
    """SpatialTransform; its default reads labels bilinearly, one by one."""
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform

    transform = SpatialTransform(**BATCHGENERATORS, mode_seg=mode_seg)
    return lambda: transform(image=image, segmentation=labels[None].to(torch.int16))


def main() -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.standard_normal((1, SIZE, SIZE)).astype(np.float32))
    few, many = (torch.from_numpy(cells(count, rng)) for count in (2, 100))
    questions: dict[str, Callable[[], Callable[[], Any]]] = {
        "septum, 2 labels": lambda: ours(image, few),
        "septum, 100 labels": lambda: ours(image, many),
        "MONAI Rand2DElasticd, 2 labels": lambda: monai(image, few),
        "MONAI Rand2DElasticd, 100 labels": lambda: monai(image, many),
        "batchgeneratorsv2 SpatialTransform, 2 labels": lambda: batchgenerators(image, few),
        "batchgeneratorsv2 SpatialTransform, 100 labels": lambda: batchgenerators(image, many),
        "batchgeneratorsv2 SpatialTransform, 100 labels, mode_seg nearest": lambda: batchgenerators(
            image, many, "nearest"
        ),
        "septum, training patch of the paper: 572 image with grey values, 388 labels and weights": (
            lambda: training_patch(image, many)
        ),
    }
    results: dict[str, Any] = {}
    calls: dict[str, Callable[[], Any]] = {}
    for name, make in questions.items():
        try:
            calls[name] = make()
        except ImportError as error:
            results[name] = f"not measured: {error}"
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(REPEATS):  # in turn, so that other load on the machine affects all of them
        for name, call in calls.items():
            times[name] += record.seconds(call, repeats=1, warmups=2)["repeats_s"]
    for name, repeats in times.items():
        results[name] = {"median_s": statistics.median(repeats), "min_s": min(repeats), "repeats_s": repeats}
    base = results["septum, 100 labels"]["median_s"]
    for result in results.values():
        if isinstance(result, dict):
            result["over_septum_100_labels"] = result["median_s"] / base
    settings = {
        "size": SIZE,
        "threads": 1,
        "repeats": REPEATS,
        "seed": 0,
        "septum": OURS.model_dump(),
        "monai": MONAI,
        "batchgeneratorsv2": BATCHGENERATORS,
    }
    record.save("augment", settings=settings, results=results, packages=("monai", "batchgeneratorsv2"))


if __name__ == "__main__":
    main()
