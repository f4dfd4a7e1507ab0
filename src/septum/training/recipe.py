"""From a recipe to the settings of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
import torch
from scipy import ndimage

from septum.choices import Recipe
from septum.config import AugmentConfig, Decoding, TrainConfig, UNetConfig, WeightMapConfig
from septum.core.objects import smallest_hole, smallest_inner_object
from septum.core.targets import INSTANCE_TARGETS, TARGETS, InstanceTarget, Target, border, classes
from septum.data.dataset import Dataset, Sample
from septum.errors import ConfigError, did_you_mean
from septum.machine.device import fastest_precision


def recipe(
    name: Recipe, dataset: Dataset, device: torch.device, changes: Mapping[str, Any] | None = None
) -> TrainConfig:
    """Return the settings of a recipe for a data set, with the user's changes.

    ``paper``: network and training exactly as published. The paper does not state the learning rate and its schedule;
    these are ours (docs/baseline.md).

    ``fast``: the same kind of network, narrower on a CPU, with normalisation and Adam. Instances are learned as cores
    and rims, with balanced classes; for labels of classes the loss includes Dice. The settings were chosen by
    benchmarking (benchmarks/contest.py).
    """
    if name not in get_args(Recipe):
        raise ConfigError(f"there is no recipe {name!r}{did_you_mean(str(name), get_args(Recipe))}")
    changes = dict(changes or {})
    if changes.get("recipe", name) != name:
        raise ConfigError(
            f"recipe is {changes['recipe']!r} in the settings, but recipe {name!r} is used; "
            f"leave it out, or choose the recipe with --recipe {changes['recipe']}"
        )
    kind = dataset.kind
    instances = changes.setdefault("instances", "border" if name == "paper" else "rim")
    of_instances = INSTANCE_TARGETS.get(instances, border)  # an unknown name is refused by `with_changes` below
    target: Target = classes if kind == "classes" else of_instances
    network: dict[str, Any] = {"in_channels": dataset.channels, "n_classes": target.n_classes(dataset.n_classes - 1)}
    if name == "paper":
        config = TrainConfig(
            recipe="paper",
            kind=kind,
            unet=UNetConfig(**network),
            augment=AugmentConfig(),
            optimizer="sgd",
            momentum=0.99,
            learning_rate=1e-4,
            schedule="constant",
            patch=388,
            batch=1,
        )
    else:
        config = TrainConfig(
            recipe="fast",
            kind=kind,
            unet=UNetConfig(
                **network, base_channels=16 if device.type == "cpu" else 64, dropout=0.0, normalization="image"
            ),
            weight_map=WeightMapConfig(balance="none" if kind == "classes" else "frequency"),
            dice=1.0 if kind == "classes" else 0.0,
            decoding=_sizes(dataset.samples, of_instances) if kind == "instances" else Decoding(),
            optimizer="adam",
            precision=fastest_precision(device),
            learning_rate=2e-3,
            schedule="cosine",
            weight_average=0.99,
            patch=260,
            batch=1,
        )
    config = config.with_changes(changes)
    _check_fit(config, dataset)
    return config


def _check_fit(config: TrainConfig, dataset: Dataset) -> None:
    """Refuse a kind or a network that does not fit the data."""
    if config.kind != dataset.kind:
        raise ConfigError(
            f"kind is {config.kind!r} in the settings, but these labels are {dataset.kind}; "
            f"leave it out, or override the kind of labels with --kind {config.kind}"
        )
    needed = {"in_channels": dataset.channels, "n_classes": TARGETS[config.target].n_classes(dataset.n_classes - 1)}
    for name, value in needed.items():
        given = getattr(config.unet, name)
        if given != value:
            raise ConfigError(
                f"the network has unet.{name} = {given}, but these images and labels need {value}; "
                "leave it out, or choose another model"
            )


def _sizes(samples: Sequence[Sample], target: InstanceTarget) -> Decoding:
    """Return the sizes that decode predictions, from the training labels.

    Debris is smaller than a quarter of the smallest whole object: one that neither the edge of its image nor pixels
    without annotation cut. Holes to fill are as small, and smaller than any hole in the labels. The reach is what the
    representation needs to return all of its pixels to every object.
    """
    objects = [size for size in map(smallest_inner_object, map(_uncut, samples)) if size]
    debris = min(objects, default=0) // 4
    holes = [size for sample in samples if (size := smallest_hole(sample.labels))]
    return Decoding(
        smallest_object=debris,
        largest_hole=min([debris, *(size - 1 for size in holes)]),
        reach=max((target.needed_reach(sample.labels) for sample in samples), default=0),
    )


def _uncut(sample: Sample) -> np.ndarray:
    """The labels without the objects beside pixels that are not annotated."""
    if sample.ignore is None:
        return sample.labels
    beside = ndimage.binary_dilation(sample.ignore, np.ones((3, 3)))
    uncut: np.ndarray = np.where(np.isin(sample.labels, sample.labels[beside]), 0, sample.labels)
    return uncut
