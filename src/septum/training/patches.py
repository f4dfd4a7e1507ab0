"""Training patches: data set -> normalised images, class maps and weights -> one augmented batch per step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from septum.config import TrainConfig
from septum.core import augment
from septum.core.normalize import Normalization, measure_normalization
from septum.core.randomness import generator
from septum.core.targets import TARGETS
from septum.core.unet import input_size, margin
from septum.core.weight_map import class_weights, weight_map
from septum.data.dataset import Dataset, Sample
from septum.data.keep import ArrayField, in_memory
from septum.training.holdout import HoldOut


@dataclass(frozen=True)
class TrainingImage:
    """One image as the network sees it, with the classes and weights to learn."""

    image: Tensor  # (C, Y, X) float32, normalised
    classes: Tensor  # (Y, X) uint8
    weights: Tensor  # (Y, X) float32, 0 where not annotated or held out
    positions: np.ndarray  # flat indices of the pixels with weight
    normalization: Normalization  # of the image

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, Y, X)."""
        return self.image.shape

    @property
    def count(self) -> int:
        """Number of pixels with weight."""
        return len(self.positions)

    @property
    def device(self) -> torch.device:
        return self.image.device

    def under(self, grid: Tensor) -> tuple[TrainingImage, Tensor]:
        """Return the region that a sampling grid reads, here the whole, and the grid in its coordinates."""
        return self, grid


@dataclass(frozen=True, eq=False)
class StreamedImage:
    """The same in files, of which a patch reads the region that it needs."""

    shape: tuple[int, ...]  # (C, Y, X)
    count: int  # of pixels with weight
    device: torch.device  # for the patches
    normalization: Normalization  # of the image
    image: ArrayField[np.ndarray] = ArrayField()
    classes: ArrayField[np.ndarray] = ArrayField()
    weights: ArrayField[np.ndarray] = ArrayField()
    positions: ArrayField[np.ndarray] = ArrayField()

    def under(self, grid: Tensor) -> tuple[TrainingImage, Tensor]:
        """Return the region that a sampling grid reads, and the grid in its coordinates."""
        region, grid = augment.region_of_grid(self.shape[1:], grid)

        def read(array: np.ndarray) -> Tensor:
            return torch.from_numpy(np.array(array[(..., *region)])).to(self.device)

        return TrainingImage(
            read(self.image), read(self.classes), read(self.weights), np.empty(0, int), self.normalization
        ), grid


Images = Sequence[TrainingImage] | Sequence[StreamedImage]


@dataclass(frozen=True)
class Batch:
    """The patches of one step."""

    images: Tensor  # (N, C, y + 2 margin, x + 2 margin)
    classes: Tensor  # (N, y, x) int64
    weights: Tensor  # (N, y, x) float32


@dataclass(frozen=True, eq=False)
class _Encoded:
    """An image whose classes are known, but not yet their weights."""

    sample: Sample
    classes: ArrayField[np.ndarray] = ArrayField()
    ignore: ArrayField[np.ndarray] = ArrayField()


def prepare(dataset: Dataset, config: TrainConfig, held_out: HoldOut, device: torch.device) -> Images:
    """Normalise the images, encode the labels and weight every pixel; classes are balanced over all images.

    The arrays of a data set in files are written into more files.
    """
    target, keep = TARGETS[config.target], dataset.keep
    encoded, counts = [], np.zeros(config.unet.n_classes, int)
    for index, sample in enumerate(dataset.samples):
        if not held_out.trains_on(index):
            continue
        ignore = np.zeros(sample.labels.shape, bool) if sample.ignore is None else np.array(sample.ignore)
        if index in held_out.guards:
            ignore[held_out.guards[index]] = True
        labels = np.where(ignore, 0, sample.labels)
        known = ignore | target.ambiguous(labels, ignore) if ignore.any() else ignore
        classes = target.encode(labels)
        counts += np.bincount(classes[~known].ravel(), minlength=config.unet.n_classes)
        # Held-out labels must not influence the weights of the pixels beside them.
        encoded.append(_Encoded(replace(sample, labels=keep(labels)), keep(classes), keep(known)))
    balance = class_weights(counts)
    images, streamed = [], []
    for one in encoded:
        instances = one.sample.labels if config.kind == "instances" else None
        weights = weight_map(instances, one.classes, config.weight_map, balance, one.ignore)
        positions = np.flatnonzero(weights)
        if not len(positions):
            continue
        normalization = measure_normalization(one.sample.image, config.normalize)
        pixels = normalization(one.sample.image)
        if keep is in_memory:
            image, of_pixels, weight = (torch.from_numpy(part).to(device) for part in (pixels, one.classes, weights))
            images.append(TrainingImage(image, of_pixels, weight, positions, normalization))
        else:
            arrays = keep(pixels), one.classes, keep(weights), keep(positions)
            streamed.append(StreamedImage(pixels.shape, len(positions), device, normalization, *arrays))
    return images or streamed


def draw_batch(images: Images, config: TrainConfig, step: int, samples: Iterable[int]) -> Batch:
    """Draw the patches of one step, deform them and change their grey values; a function of (seed, step, sample).

    The centre of a patch is uniform over all pixels with weight.
    """
    lost = margin(config.unet.depth)
    size = input_size(config.patch, config.unet.depth)
    ends = np.cumsum([image.count for image in images])
    chosen, geometries, centres, greys = [], [], [], []
    for sample in samples:
        rng = generator(config.seed, step, sample, "position")
        draw = int(rng.integers(ends[-1]))
        index = int(np.searchsorted(ends, draw, side="right"))
        image = images[index]
        pixel = image.positions[draw - ends[index]]  # negative: counted from the end
        chosen.append(image)
        centres.append(np.unravel_index(pixel, image.shape[1:]))
        geometries.append(augment.draw_geometry(config.augment, generator(config.seed, step, sample, "geometry")))
        rng = generator(config.seed, step, sample, "grey")
        greys.append(augment.draw_grey(config.augment, rng, channels=image.shape[0]))
    # The middle of an even number of pixels lies between two, so that nothing is interpolated without a rotation.
    grid = augment.sampling_grid(geometries, np.array(centres) + 0.5, (size, size), images[0].device)
    parts, grids = zip(*map(lambda image, one: image.under(one), chosen, grid), strict=True)
    grid = torch.stack(grids)
    inner = grid[:, lost : size - lost, lost : size - lost]
    return Batch(
        augment.apply_grey(augment.warp_image([part.image for part in parts], grid), greys),
        augment.warp_labels([part.classes for part in parts], inner).long(),
        augment.warp_weights([part.weights for part in parts], inner),
    )
