"""Honest validation: which images, or which block of the only one, the network is judged on and never trained on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import ndimage

from septum.config import Kind
from septum.data.dataset import Dataset, Sample

Region = tuple[slice, slice]


@dataclass(frozen=True)
class HoldOut:
    """What is kept apart. `blocks` maps a sample's index to the part that is judged."""

    blocks: dict[int, Region]
    guards: dict[int, Region]  # the block and its guard band, whose labels carry no weight
    description: str

    def trains_on(self, index: int) -> bool:
        """Whether any part of a sample is for training."""
        return index not in self.blocks or index in self.guards


def hold_out(dataset: Dataset) -> HoldOut:
    """Choose what to validate on.

    Of two or more images, a fifth (at least one): contiguous frames, since neighbours in a stack or video are alike;
    those with the most annotated pixels, the last of equals, of all that hold an object and leave every class that is
    annotated for the training. Of a single image, or if no such frames exist, of the one with the most annotated
    pixels: the quarter at one of its ends whose share of foreground is nearest to the whole image's, by the same
    conditions if that can be; a guard of one median object diameter around it is neither trained on nor judged.
    """
    samples, known = dataset.samples, [_classes(sample, dataset.kind) for sample in dataset.samples]
    count = max(1, len(samples) // 5)
    windows = [range(start, start + count) for start in range(len(samples) - count + 1)]
    everything = set().union(*known)

    def is_fair(window: range) -> bool:
        learned = set().union(*(classes for index, classes in enumerate(known) if index not in window))
        return learned == everything and any(known[index] - {0} for index in window)

    fair = [window for window in windows if is_fair(window)]
    if fair:
        chosen = max(fair, key=lambda window: (sum(_annotated(samples[index]) for index in window), window.start))
        names = f"{samples[chosen[0]].name}" + (f" to {samples[chosen[-1]].name}" if count > 1 else "")
        blocks = {index: (slice(None), slice(None)) for index in chosen}
        return HoldOut(blocks, {}, f"{count} of {len(samples)} images held out for validation: {names}")
    index = max(range(len(samples)), key=lambda index: (bool(known[index] - {0}), _annotated(samples[index]), index))
    elsewhere = set().union(*known[:index], *known[index + 1 :])
    return _part_of(samples[index], index, everything - elsewhere, dataset)


def largest(held_out: HoldOut, dataset: Dataset) -> HoldOut:
    """Return the hold-out with only the largest of its images."""
    index = max(held_out.blocks, key=lambda index: dataset.samples[index].labels.size, default=None)
    return held_out if index is None else replace(held_out, blocks={index: held_out.blocks[index]})


def pixels_of(held_out: HoldOut, dataset: Dataset, context: int = 0) -> int:
    """Return the number of pixels of the images that are predicted to judge what is held out, with those around."""
    shapes = [dataset.samples[index].labels.shape for index in held_out.blocks]
    return sum((height + 2 * context) * (width + 2 * context) for height, width in shapes)


def nothing_held_out() -> HoldOut:
    """Return the hold-out of a final training on everything."""
    return HoldOut({}, {}, "nothing held out: trained on everything")


def _part_of(sample: Sample, index: int, needed: set[int], dataset: Dataset) -> HoldOut:
    """Hold out a quarter of one image, if possible with objects, and with all `needed` classes outside the guard."""
    guard = _object_diameter(sample.labels)
    whole = np.mean(_labels_known(sample, ...) > 0)

    def unfairness(ends: tuple[Region, Region]) -> tuple[bool, bool, float]:
        judged = _labels_known(sample, ends[0])
        rest = np.ones(sample.labels.shape, bool)
        rest[ends[1]] = False
        learned = _as_classes(_labels_known(sample, rest), dataset.kind)
        share = np.mean(judged > 0) if judged.size else np.inf
        return not needed <= learned, not (judged > 0).any(), float(abs(share - whole))

    block, guarded = min((_end_block(sample.labels.shape, end, guard) for end in range(4)), key=unfairness)
    area = f"rows {block[0].start}-{block[0].stop - 1}, columns {block[1].start}-{block[1].stop - 1}"
    if len(dataset.samples) == 1:
        why = "one image only: its block"
    else:
        why = f"no whole image can be spared, each alone has a class or the only objects: of {sample.name} the block"
    return HoldOut(
        {index: block},
        {index: guarded},
        f"{why} {area} held out for validation, with a guard of {guard} pixels around it; "
        "scores on a block of the same image are optimistic",
    )


def _labels_known(sample: Sample, where: Any) -> np.ndarray:
    """The labels of the annotated pixels of a region or mask, flat."""
    labels: np.ndarray = sample.labels[where]
    return labels.ravel() if sample.ignore is None else labels[~sample.ignore[where]]


def _as_classes(labels: np.ndarray, kind: Kind) -> set[int]:
    """Which classes occur; of instances background 0 and foreground 1."""
    classes = labels > 0 if kind == "instances" else labels
    return set(np.flatnonzero(np.bincount(classes)).tolist())


def _classes(sample: Sample, kind: Kind) -> set[int]:
    return _as_classes(_labels_known(sample, ...), kind)


def _annotated(sample: Sample) -> float:
    """Annotated share of the pixels."""
    return 1.0 if sample.ignore is None else float(np.mean(~sample.ignore))


def _end_block(shape: tuple[int, ...], end: int, guard: int) -> tuple[Region, Region]:
    """Quarter of the image at its bottom, top, right or left, and the same with its guard band."""
    axis, at_start = (0, end == 1) if end < 2 else (1, end == 3)
    size = shape[axis]
    quarter = max(1, size // 4)
    guard = min(guard, size // 4)
    cut = slice(0, quarter) if at_start else slice(size - quarter, size)
    guarded = slice(0, quarter + guard) if at_start else slice(size - quarter - guard, size)
    full = slice(0, shape[1 - axis])
    return ((cut, full), (guarded, full)) if axis == 0 else ((full, cut), (full, guarded))


def _object_diameter(labels: np.ndarray) -> int:
    """Median equivalent diameter of the connected foreground objects, in pixels, at least 8."""
    objects, count = ndimage.label(labels > 0) if labels.max() <= 1 else (labels, int(labels.max()))
    areas = np.bincount(objects.ravel(), minlength=count + 1)[1:]
    areas = areas[areas > 0]
    return max(8, round(2 * float(np.sqrt(np.median(areas) / np.pi)))) if len(areas) else 8
