"""What is held out, predicted and judged; the thresholds of the decoder chosen on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from septum.config import Decoding, TrainConfig
from septum.core.decode import decode
from septum.core.tiling import ArraySource
from septum.core.unet import UNet
from septum.data.dataset import Dataset, Sample
from septum.engine.holdout import HoldOut, Region
from septum.engine.predict import drain, segment
from septum.engine.score import ValidationImage, validation_scores
from septum.engine.step import memory_format

Part = tuple[np.ndarray, Sample, Region]  # probabilities of a held-out image, the truth, and where it is judged


def predictions(net: UNet, config: TrainConfig, dataset: Dataset, held_out: HoldOut, max_memory: int) -> Iterator[Part]:
    """Class probabilities of what is held out, image by image."""
    net.eval()
    order = memory_format(config, net.output.weight.device)
    for index, block in held_out.blocks.items():
        sample = dataset.samples[index]
        predicted = drain(segment(net, config, ArraySource(sample.image), max_memory=max_memory))
        net.to(memory_format=order)  # type: ignore[call-overload]  # the optimiser's state lies as the weights did
        yield predicted.probabilities, sample, block


def judged(parts: Iterable[Part], decoding: Decoding, config: TrainConfig, dataset: Dataset) -> dict[str, float]:
    """Scores on what is held out, pooled over it; empty if nothing is, or nothing is there to find."""
    images = []
    for probabilities, sample, block in parts:
        labels = decode(config.target, probabilities, decoding)[block]
        ignore = None if sample.ignore is None else sample.ignore[block]
        images.append(ValidationImage(labels, sample.labels[block], ignore))
    return validation_scores(images, dataset.kind, dataset.n_classes) if images else {}


THRESHOLDS = (0.5, 0.4, 0.6, 0.3, 0.7)  # that are tried, those nearest to 1/2 first
GAIN = 0.01  # of the score: what another threshold has to be better by, since few images are judged


def choose_decoding(parts: Iterable[Part], config: TrainConfig, dataset: Dataset) -> tuple[Decoding, dict[str, float]]:
    """Choose the thresholds of the decoder on what is held out, both as one and then each; the scores with them.

    Of all that come within `GAIN` of the best score, the one that was chosen before, or nearest to 1/2. Settings as
    they were and no scores if nothing is held out, or nothing is there to find. Classes have no thresholds.
    """
    parts, decoding = list(parts), config.decoding.with_changes({"seed": THRESHOLDS[0], "foreground": THRESHOLDS[0]})
    scores = judged(parts, decoding, config, dataset)
    if not scores or config.kind == "classes":
        return config.decoding, scores
    for names in (("seed", "foreground"), ("seed",), ("foreground",)):
        others = [decoding.with_changes(dict.fromkeys(names, threshold)) for threshold in THRESHOLDS]
        scored = [(other, judged(parts, other, config, dataset)) for other in others if other != decoding]
        tried = [(decoding, scores), *scored]
        best = max(scores["score"] for _, scores in tried)
        decoding, scores = next(entry for entry in tried if entry[1]["score"] >= best - GAIN)
    return decoding, scores
