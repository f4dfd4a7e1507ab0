"""Training patches: data set -> normalised images, class maps and weights -> one augmented batch per step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from septum.config import TrainConfig
from septum.core import augment
from septum.core.normalize import measure
from septum.core.randomness import generator
from septum.core.targets import TARGETS
from septum.core.unet import input_size, margin
from septum.core.weight_map import class_weights, weight_map
from septum.data.dataset import Dataset
from septum.engine.holdout import HoldOut


@dataclass(frozen=True)
class TrainingImage:
    """One image as the network sees it, with what it shall learn from it."""

    image: Tensor  # (C, Y, X) float32, normalised
    classes: Tensor  # (Y, X) uint8
    weights: Tensor  # (Y, X) float32, 0 where nothing is known or where it is held out
    positions: np.ndarray  # flat indices of the pixels that carry weight


@dataclass(frozen=True)
class Batch:
    """What one step learns from."""

    images: Tensor  # (N, C, y + 2 margin, x + 2 margin)
    classes: Tensor  # (N, y, x) int64
    weights: Tensor  # (N, y, x) float32


def prepare(dataset: Dataset, config: TrainConfig, held_out: HoldOut, device: torch.device) -> list[TrainingImage]:
    """Normalise the images, encode the labels and weigh every pixel. Class balance is counted over all of them."""
    target = TARGETS[config.target]
    used, unknown = [], []
    for index, sample in enumerate(dataset.samples):
        if not held_out.trains_on(index):
            continue
        ignore = np.zeros(sample.labels.shape, bool) if sample.ignore is None else sample.ignore.copy()
        if index in held_out.guards:
            ignore[held_out.guards[index]] = True
        # Labels that are held out shall not even bend the weights beside them.
        labels = np.where(ignore, 0, sample.labels)
        if ignore.any():
            ignore |= target.unsure(labels, ignore)
        unknown.append(ignore)
        used.append((sample, labels))
    classes = [target.encode(labels) for _, labels in used]
    counts = sum(
        np.bincount(encoded[~ignore].ravel(), minlength=config.unet.n_classes)
        for encoded, ignore in zip(classes, unknown, strict=True)
    )
    balance = class_weights(counts)
    images = []
    for (sample, labels), encoded, ignore in zip(used, classes, unknown, strict=True):
        instances = labels if config.kind == "instances" else None
        weights = weight_map(instances, encoded, config.weight_map, balance, ignore)
        pixels = measure(sample.image, config.normalize)(sample.image)
        images.append(
            TrainingImage(
                torch.from_numpy(pixels).to(device),
                torch.from_numpy(encoded).to(device),
                torch.from_numpy(weights).to(device),
                np.flatnonzero(weights),
            )
        )
    return [image for image in images if len(image.positions)]


def draw_batch(images: list[TrainingImage], config: TrainConfig, step: int, samples: Iterable[int]) -> Batch:
    """Draw, warp and grey-shift patches of one step, each a function of (seed, step, sample) alone.

    The centre of a patch is uniform over all pixels that carry weight.
    """
    lost = margin(config.unet.depth)
    size = input_size(config.patch, config.unet.depth)
    device = images[0].image.device
    ends = np.cumsum([len(image.positions) for image in images])
    chosen, geometries, centres, greys = [], [], [], []
    for sample in samples:
        rng = generator(config.seed, step, sample, "position")
        draw = int(rng.integers(ends[-1]))
        index = int(np.searchsorted(ends, draw, side="right"))
        image = images[index]
        pixel = image.positions[draw - ends[index]]  # negative: counted from the end
        chosen.append(image)
        centres.append(np.unravel_index(pixel, image.image.shape[1:]))
        geometries.append(augment.draw_geometry(config.augment, generator(config.seed, step, sample, "geometry")))
        rng = generator(config.seed, step, sample, "grey")
        greys.append(augment.draw_grey(config.augment, rng, channels=image.image.shape[0]))
    # The middle of an even number of pixels lies between two: without a rotation nothing is interpolated.
    grid = augment.sampling_grid(geometries, np.array(centres) + 0.5, (size, size), device)
    inner = grid[:, lost : size - lost, lost : size - lost]
    return Batch(
        augment.apply_grey(augment.warp_image([image.image for image in chosen], grid), greys),
        augment.warp_labels([image.classes for image in chosen], inner).long(),
        augment.warp_weights([image.weights for image in chosen], inner),
    )
