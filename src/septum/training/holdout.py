"""Honest validation: which images, or which block of a single image, are scored and never trained on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import ndimage

from septum.choices import Kind
from septum.core.region import Region, shape_of, whole
from septum.data.dataset import Dataset, Sample
from septum.data.kind import components


@dataclass(frozen=True)
class HoldOut:
    """What is held out. `blocks` maps the index of a sample to the region that is scored."""

    blocks: dict[int, Region]
    guards: dict[int, Region]  # the block with its guard band: pixels of weight zero in training
    description: str

    def trains_on(self, index: int) -> bool:
        """Whether any part of a sample is trained on."""
        return index not in self.blocks or index in self.guards


def hold_out(dataset: Dataset) -> HoldOut:
    """Choose what to hold out for validation.

    Two or more images: a fifth of them, at least one. They are consecutive, since neighbours in a stack or video are
    alike, contain an object, and leave every annotated class to the training. Of all such choices, the one with the
    most annotated pixels; of equal ones, the last.

    A single image, or no such choice: a block at one end of the image with the most annotated pixels. It has a quarter
    of the annotated pixels; of the four ends, the one whose share of foreground is nearest to the whole image's, if
    possible by the conditions above. A guard around it, as wide as the median object but at most a quarter of the side,
    is neither trained on nor scored.
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
        blocks = {index: whole(samples[index].labels.shape) for index in chosen}
        return HoldOut(blocks, {}, f"{count} of {len(samples)} images held out for validation: {names}")
    index = max(range(len(samples)), key=lambda index: (bool(known[index] - {0}), _annotated(samples[index]), index))
    elsewhere = set().union(*known[:index], *known[index + 1 :])
    return _part_of(samples[index], index, everything - elsewhere, dataset)


def largest(held_out: HoldOut, dataset: Dataset) -> HoldOut:
    """Return the largest of the held-out images alone."""
    index = max(held_out.blocks, key=lambda index: dataset.samples[index].labels.size, default=None)
    return held_out if index is None else replace(held_out, blocks={index: held_out.blocks[index]})


def pixels_of(held_out: HoldOut, dataset: Dataset, context: int = 0) -> int:
    """Return the number of pixels of the held-out images, each with `context` pixels on every side."""
    shapes = [dataset.samples[index].labels.shape for index in held_out.blocks]
    return sum((height + 2 * context) * (width + 2 * context) for height, width in shapes)


def nothing_held_out() -> HoldOut:
    """Hold out nothing, as for a final training on all images."""
    return HoldOut({}, {}, "nothing held out: trained on everything")


def _part_of(sample: Sample, index: int, needed: set[int], dataset: Dataset) -> HoldOut:
    """Hold out a block of one image, if possible with objects, and with all `needed` classes outside the guard."""
    guard = _object_diameter(sample.labels, dataset.kind)
    whole = np.mean(_labels_known(sample, ...) > 0)
    known = np.ones(sample.labels.shape, bool) if sample.ignore is None or sample.ignore.all() else ~sample.ignore

    def unfairness(ends: tuple[Region, Region]) -> tuple[bool, bool, float, int]:
        judged = _labels_known(sample, ends[0])
        rest = np.ones(sample.labels.shape, bool)
        rest[ends[1]] = False
        learned = _as_classes(_labels_known(sample, rest), dataset.kind)
        share = np.mean(judged > 0) if judged.size else np.inf
        taken = int(known[ends[1]].sum())  # annotated pixels that the training loses
        return not needed <= learned, not (judged > 0).any(), float(abs(share - whole)), taken

    block, guarded = min((_end_block(known, end, guard) for end in range(4)), key=unfairness)
    width = max(wide - cut for cut, wide in zip(shape_of(block), shape_of(guarded), strict=True))
    area = f"rows {block[0].start}-{block[0].stop - 1}, columns {block[1].start}-{block[1].stop - 1}"
    if len(dataset.samples) == 1:
        part = "part of the single image"
    else:
        part = f"each image is the only one with some class or with objects, so part of {sample.name}"
    return HoldOut(
        {index: block},
        {index: guarded},
        f"{part} is held out for validation ({area}, plus an unused guard strip of {width} pixels); "
        "validating on part of a training image gives optimistic scores",
    )


def _labels_known(sample: Sample, where: Any) -> np.ndarray:
    """The labels of the annotated pixels of a region or mask, flat."""
    labels: np.ndarray = sample.labels[where]
    return labels.ravel() if sample.ignore is None else labels[~sample.ignore[where]]


def _as_classes(labels: np.ndarray, kind: Kind) -> set[int]:
    """Return the classes that occur; for instances, 0 is background and 1 is foreground."""
    classes = labels > 0 if kind == "instances" else labels
    return set(np.flatnonzero(np.bincount(classes)).tolist())


def _classes(sample: Sample, kind: Kind) -> set[int]:
    return _as_classes(_labels_known(sample, ...), kind)


def _annotated(sample: Sample) -> float:
    """Share of annotated pixels."""
    return 1.0 if sample.ignore is None else float(np.mean(~sample.ignore))


def _end_block(known: np.ndarray, end: int, guard: int) -> tuple[Region, Region]:
    """The bottom, top, right or left of an image, with a quarter of its annotated pixels; and that with its guard."""
    axis, at_start = (0, end == 1) if end < 2 else (1, end == 3)
    size, counts = known.shape[axis], known.sum(1 - axis)  # of every row or column
    counts = counts if at_start else counts[::-1]
    annotated, total = np.flatnonzero(counts), counts.sum()
    lines = max(int(np.searchsorted(np.cumsum(counts), total / 4, "right")), int(annotated[0]) + 1)
    wide = min(size, lines + min(guard, int(annotated[-1] + 1 - annotated[0]) // 4))
    cut, guarded = (slice(0, n) if at_start else slice(size - n, size) for n in (lines, wide))
    full = slice(0, known.shape[1 - axis])
    return ((cut, full), (guarded, full)) if axis == 0 else ((full, cut), (full, guarded))


def _object_diameter(labels: np.ndarray, kind: Kind) -> int:
    """Median equivalent diameter of the objects in pixels, at least 8; for classes, of their connected components."""
    if labels.max() <= 1:
        areas = np.bincount(ndimage.label(labels > 0)[0].ravel())[1:]
    else:
        areas = components(labels)[2] if kind == "classes" else np.unique(labels[labels > 0], return_counts=True)[1]
    return max(8, round(2 * float(np.sqrt(np.median(areas) / np.pi)))) if len(areas) else 8
