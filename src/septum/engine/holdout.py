"""Honest validation: which images, or which block of the only one, the network is judged on and never trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

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
    those with the most annotated pixels, the last of equals. Of a single image, the quarter at one of its ends whose
    share of foreground is nearest to the whole image's; a guard of one median object diameter around it is neither
    trained on nor judged.
    """
    samples = dataset.samples
    if len(samples) > 1:
        count = max(1, len(samples) // 5)
        windows = [range(start, start + count) for start in range(len(samples) - count + 1)]
        chosen = max(windows, key=lambda window: (_annotated([samples[index] for index in window]), window.start))
        names = f"{samples[chosen[0]].name}" + (f" to {samples[chosen[-1]].name}" if count > 1 else "")
        blocks = {index: (slice(None), slice(None)) for index in chosen}
        return HoldOut(blocks, {}, f"{count} of {len(samples)} images held out for validation: {names}")
    labels = samples[0].labels
    guard = _object_diameter(labels)
    block, guarded = min(
        (_end_block(labels.shape, end, guard) for end in range(4)),
        key=lambda pair: abs(np.mean(labels[pair[0]] > 0) - np.mean(labels > 0)),
    )
    area = f"rows {block[0].start}-{block[0].stop - 1}, columns {block[1].start}-{block[1].stop - 1}"
    return HoldOut(
        {0: block},
        {0: guarded},
        f"one image only: its block {area} held out for validation, with a guard of {guard} pixels around it; "
        "scores on a block of the same image are optimistic",
    )


def largest(held_out: HoldOut, dataset: Dataset) -> HoldOut:
    """Return the hold-out with only the largest of its images."""
    index = max(held_out.blocks, key=lambda index: dataset.samples[index].labels.size, default=None)
    return held_out if index is None else replace(held_out, blocks={index: held_out.blocks[index]})


def nothing_held_out() -> HoldOut:
    """Return the hold-out of a final training on everything."""
    return HoldOut({}, {}, "nothing held out: trained on everything")


def _annotated(samples: Sequence[Sample]) -> tuple[bool, float]:
    """Whether there is any foreground, without which nothing can be said, and the annotated share of the pixels."""
    shares = [1.0 if sample.ignore is None else float(np.mean(~sample.ignore)) for sample in samples]
    return any(bool((sample.labels > 0).any()) for sample in samples), sum(shares) / len(shares)


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
