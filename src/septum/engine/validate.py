"""What is held out, predicted and judged; the thresholds of the decoder chosen on it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import numpy as np

from septum.config import Decoding, TrainConfig
from septum.core.decode import decode
from septum.core.tiling import ArraySource
from septum.core.unet import UNet
from septum.data.dataset import Dataset, Sample
from septum.engine.holdout import HoldOut, Region
from septum.engine.model import Model
from septum.engine.predict import drain, segment
from septum.engine.score import ValidationImage, validation_scores

Part = tuple[np.ndarray, Sample, Region]  # probabilities of a held-out image, the truth, and where it is judged


def predictions(net: UNet, config: TrainConfig, dataset: Dataset, held_out: HoldOut, max_memory: int) -> Iterator[Part]:
    """Class probabilities of what is held out, image by image."""
    net.eval()
    for index, block in held_out.blocks.items():
        sample = dataset.samples[index]
        predicted = drain(segment(net, config, ArraySource(sample.image), max_memory=max_memory))
        yield predicted.probabilities, sample, block


def judged(parts: Iterable[Part], decoding: Decoding, config: TrainConfig, dataset: Dataset) -> dict[str, float]:
    """Scores on what is held out, pooled over it; empty if nothing is, or nothing is there to find."""
    images = []
    for probabilities, sample, block in parts:
        labels = decode(config.target, probabilities, decoding)[block]
        ignore = None if sample.ignore is None else sample.ignore[block]
        images.append(ValidationImage(labels, sample.labels[block], ignore))
    return validation_scores(images, dataset.kind, dataset.n_classes) if images else {}


THRESHOLDS = (0.5, 0.4, 0.6, 0.3, 0.7)  # that are tried
GAIN = 0.01  # of the score: what others have to be better than the least daring by, since few images are judged


def with_chosen_decoding(
    model: Model, dataset: Dataset, held_out: HoldOut, max_memory: int
) -> tuple[Model, dict[str, float] | None]:
    """Choose the thresholds of the decoder on what is held out; the model with them, and its scores.

    Of all that come within `GAIN` of the best score, those nearest to 1/2. The same model and None if nothing is held
    out, or nothing is there to find.
    """
    config = model.card.config
    parts = list(predictions(model.net, config, dataset, held_out, max_memory))
    tried: list[tuple[Decoding, dict[str, float]]] = []
    pairs = itertools.product(THRESHOLDS, THRESHOLDS)
    for seed, foreground in sorted(pairs, key=lambda pair: abs(pair[0] - 0.5) + abs(pair[1] - 0.5)):
        decoding = config.decoding.with_changes({"seed": seed, "foreground": foreground})
        if scores := judged(parts, decoding, config, dataset):
            tried.append((decoding, scores))
    if not tried:
        return model, None
    best = max(scores["score"] for _, scores in tried)
    decoding, scores = next(entry for entry in tried if entry[1]["score"] >= best - GAIN)
    card = model.card.with_changes({"config.decoding": decoding.model_dump(), "scores": scores})
    return Model(model.net, card), scores
