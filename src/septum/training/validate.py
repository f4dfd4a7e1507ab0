"""Predicting and scoring the held-out images; choosing the thresholds of the decoder by the scores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from septum.config import Decoding, TrainConfig
from septum.core.decode import decode
from septum.core.region import Region
from septum.core.tiling import ArraySource
from septum.core.unet import UNet
from septum.data.dataset import Dataset, Sample
from septum.data.keep import ArrayField, in_memory, temporary_keep
from septum.machine.generators import drain
from septum.machine.memory import trim_heap
from septum.model.predict import segment
from septum.training.holdout import HoldOut, pixels_of
from septum.training.score import ValidationImage, validation_scores


@dataclass(frozen=True, eq=False)
class Part:
    """A held-out image: what the network predicts, the truth, and the region that is scored."""

    sample: Sample
    block: Region
    probabilities: ArrayField[np.ndarray] = ArrayField()


def predictions(net: UNet, config: TrainConfig, dataset: Dataset, held_out: HoldOut, max_memory: int) -> Iterator[Part]:
    """Class probabilities of the held-out images, one by one."""
    net.eval()
    for index, block in held_out.blocks.items():
        sample = dataset.samples[index]
        predicted = drain(segment(net, config, ArraySource(sample.image), max_memory=max_memory))
        yield Part(sample, block, predicted.probabilities)
        del predicted
        trim_heap()


def pooled_scores(parts: Iterable[Part], decoding: Decoding, config: TrainConfig, dataset: Dataset) -> dict[str, float]:
    """Return the scores pooled over the held-out images; empty if there are none, or nothing to find in them."""

    def image(part: Part) -> ValidationImage:
        labels = decode(config.target, part.probabilities, decoding)[part.block]
        ignore = None if part.sample.ignore is None else part.sample.ignore[part.block]
        return ValidationImage(labels, part.sample.labels[part.block], ignore)

    return validation_scores(map(image, parts), dataset.kind, dataset.n_classes)


def bytes_kept(held_out: HoldOut, dataset: Dataset, config: TrainConfig) -> int:
    """Bytes of the probabilities that are kept in memory while thresholds are chosen."""
    if dataset.keep is not in_memory or config.kind == "classes":
        return 0
    return 4 * config.unet.n_classes * pixels_of(held_out, dataset)


THRESHOLDS = (0.5, 0.4, 0.6, 0.3, 0.7)  # tried in this order, nearest to 1/2 first
SMALLEST_GAIN = 0.01  # in score, for which thresholds are changed: few images are scored


def choose_decoding(parts: Iterable[Part], config: TrainConfig, dataset: Dataset) -> tuple[Decoding, dict[str, float]]:
    """Choose the thresholds of the decoder by the scores: first both as one, then each; return the scores, too.

    Of the thresholds within `SMALLEST_GAIN` of the best score, the one chosen before wins, then the one nearest to 1/2.
    If nothing is held out, or there is nothing to find, the settings stay and there are no scores. Classes have no
    thresholds.
    """
    decoding = config.decoding.with_changes({"seed": THRESHOLDS[0], "foreground": THRESHOLDS[0]})
    if config.kind == "classes":
        return config.decoding, pooled_scores(parts, decoding, config, dataset)
    with temporary_keep(dataset.keep) as keep:

        def kept(part: Part) -> Part:
            return replace(part, probabilities=keep(part.probabilities))

        parts = list(map(kept, parts))
        scores = pooled_scores(parts, decoding, config, dataset)
        if not scores:
            return config.decoding, scores
        for names in (("seed", "foreground"), ("seed",), ("foreground",)):
            others = [decoding.with_changes(dict.fromkeys(names, threshold)) for threshold in THRESHOLDS]
            scored = [(other, pooled_scores(parts, other, config, dataset)) for other in others if other != decoding]
            tried = [(decoding, scores), *scored]
            best = max(scores["score"] for _, scores in tried)
            decoding, scores = next(entry for entry in tried if entry[1]["score"] >= best - SMALLEST_GAIN)
    return decoding, scores
