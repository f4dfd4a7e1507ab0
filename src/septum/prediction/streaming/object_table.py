"""The table of objects of a streamed prediction, written piece by piece from the findings of the blocks."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from septum.core.objects import Sums, rows_of_sums
from septum.data.files import atomic_path
from septum.prediction.streaming.decode_blocks import BlockDecoding

PIECE = 500_000  # objects that are added up at a time: their sums take 40 MB with two channels


def write_table(
    path: Path, image: str, frames: Sequence[BlockDecoding], pixel_size: tuple[float, float] | None
) -> None:
    """Write a row per object: frame, number, area, position, mean intensities. The file is complete or absent."""
    with atomic_path(path) as beside, beside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        names: list[str] = []
        for number, blocks in enumerate(frames):
            for sums in summed(blocks):
                for row in rows_of_sums(sums, pixel_size):
                    if not names:
                        names = list(row)
                        writer.writerow(["image", "frame", *names])
                    writer.writerow([image, number, *row.values()])
        if not names:
            writer.writerow(["image", "frame", "object"])


def summed(blocks: BlockDecoding, piece: int = PIECE) -> Iterator[Sums]:
    """Yield the sums of all objects of a frame in order of their numbers, `piece` objects at a time."""
    spans = [_span(blocks.finding("labels", block, "ids")) for block in range(blocks.count)]
    count, channels = max(last for _, last in spans), blocks.image.shape[0]
    for first in range(1, count + 1, piece):
        n = min(piece, count + 1 - first)
        areas, places = np.zeros(n, np.int64), np.zeros((n, 2), np.int64)
        values = np.zeros((n, channels))
        for block, (lowest, highest) in enumerate(spans):
            if highest < first or lowest >= first + n:
                continue
            ids = blocks.finding("labels", block, "ids")
            here = slice(*np.searchsorted(ids, [first, first + n]))
            at = ids[here] - first
            areas[at] += blocks.finding("labels", block, "areas")[here]
            places[at] += blocks.finding("labels", block, "places")[here]
            values[at] += blocks.finding("labels", block, "values")[here]
        yield Sums(np.arange(first, first + n), areas, places, values)


def _span(ids: np.ndarray) -> tuple[int, int]:
    """The lowest and the highest number in a block; both 0 if there is no object."""
    return (int(ids[0]), int(ids[-1])) if len(ids) else (0, 0)
