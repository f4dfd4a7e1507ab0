"""Labels of an image that is not loaded: the steps of `septum.core.decode.decode`, block by block, each restartable."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from septum.config import Decoding
from septum.core.decode import connected_components, decode, finish, reach
from septum.core.objects import sums_of_objects
from septum.core.overlay import downsample
from septum.core.region import (
    Region,
    cell_region,
    cells_of,
    clip,
    expand,
    intersect,
    origin_of,
    relative_to,
    shape_of,
    shift,
)
from septum.core.stitch import Edges, edges, first_numbers, join, number_objects
from septum.core.targets import INSTANCE_TARGETS
from septum.core.tiling import Sink, Source
from septum.data.files import atomic_path

THUMBNAIL_SIDE = 1024  # pixels of the longer side of an overlay, at most


class Store(Sink, Protocol):
    """A Sink that can be read."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def read(self, region: Region) -> np.ndarray: ...


@dataclass(frozen=True)
class BlockDecoding:
    """Labels of one image, block by block.

    The blocks of a step may be done in any order, by any process, and repeated after a crash. Between two steps the
    findings of all blocks are combined (`join_components`, `join_objects`). The result equals that of `decode` on the
    whole image. Memory grows with the number of objects (about 20 bytes each), not with the number of pixels.
    """

    target: str
    decoding: Decoding
    size: int  # pixels per side of a block, a multiple of the stores' chunks
    probabilities: Store  # as stored: uint8, or a float type
    labels: Store
    components: Store | None  # instances only, (1, Y, X) uint32: numbered within each block
    objects: Store | None  # the same, numbered over the whole image, extended and without small holes
    folder: Path  # of the findings of blocks
    image: Source  # raw values; the labels are those of the part that begins at `origin`
    origin: tuple[int, int] = (0, 0)

    @property
    def steps(self) -> list[tuple[str, Callable[[int], None]]]:
        """The steps in order; each takes the number of a block."""
        if self.target == "classes":
            return [("classes", self.write_classes)]
        return [
            ("components", self.find_components),
            ("objects", self.finish_objects),
            ("labels", self.write_labels),
        ]

    @property
    def halvings(self) -> int:
        """How often the image is halved for an overlay, which is also a level of the labels' pyramid."""
        return max(0, math.ceil(math.log2(max(self.labels.shape[1:]) / THUMBNAIL_SIDE)))

    @property
    def grid(self) -> tuple[int, int]:
        """Number of blocks (down, across)."""
        _, height, width = self.labels.shape
        return -(-height // self.size), -(-width // self.size)

    @property
    def count(self) -> int:
        return self.grid[0] * self.grid[1]

    def region(self, block: int) -> Region:
        """Return the pixels of a block."""
        return cell_region(divmod(block, self.grid[1]), (self.size, self.size), self.labels.shape[1:])

    def is_done(self, step: str, block: int) -> bool:
        """Whether a step is done for a block."""
        return self._findings_file(step, block).exists()

    def write_classes(self, block: int) -> None:
        """Write the most probable class of every pixel, and save a thumbnail of the image."""
        region = self.region(block)
        classes = decode("classes", self.probabilities.read(region))
        self.labels.write(region, classes[None].astype(np.uint8))
        self._save_findings("classes", block, small=downsample(self._pixels(region), 2**self.halvings))

    def find_components(self, block: int) -> None:
        """Number the components of the seeds within a block."""
        assert self.components is not None
        region = self.region(block)
        seeds = INSTANCE_TARGETS[self.target].seeds(as_probabilities(self.probabilities.read(region)), self.decoding)
        found = connected_components(seeds)
        self.components.write(region, found[None].astype(np.uint32))
        self._save_findings("components", block, **asdict(edges(found)))

    def join_components(self) -> None:
        """Find out which components of different blocks are connected."""
        if (self.folder / "roots.npy").exists():
            return
        found = [self._edges_of(block) for block in range(self.count)]
        across = self.grid[1]
        roots = join([found[start : start + across] for start in range(0, self.count, across)])
        self._save_array("firsts", first_numbers([one.count for one in found]))
        self._save_array("roots", roots)

    def finish_objects(self, block: int) -> None:
        """Extend the components and fill holes; save how many pixels each object has here, and its first pixel."""
        assert self.components is not None
        assert self.objects is not None
        region, (_, height, width) = self.region(block), self.labels.shape
        far = reach(self.target, self.decoding)
        wider = clip(expand(region, far), (height, width))
        ids, components = np.unique(self._roots_in(wider), return_inverse=True)
        if ids[0] != 0:  # there is no background here, and component 0 must stay background
            ids, components = np.concatenate([[0], ids]), components + 1
        components = components.reshape(shape_of(wider))
        probabilities = as_probabilities(self.probabilities.read(wider))
        labels = finish(self.target, components.astype(np.int32), probabilities, self.decoding)
        labels = labels[relative_to(region, wider)]
        self.objects.write(region, ids[labels][None].astype(np.uint32))
        here, first, areas = np.unique(labels, return_index=True, return_counts=True)
        rows, columns = np.divmod(first, labels.shape[1])
        places = (rows + region[0].start) * width + columns + region[1].start
        some = here > 0
        self._save_findings("objects", block, ids=ids[here][some], areas=areas[some], places=places[some])

    def join_objects(self) -> int:
        """Number the objects of the whole image by their first pixels; return how many there are."""
        if not (self.folder / "numbers.npy").exists():
            n = len(np.load(self.folder / "roots.npy", mmap_mode="r"))
            areas, first = np.zeros(n, np.int64), np.full(n, np.iinfo(np.int64).max)
            for block in range(self.count):
                found = self._findings("objects", block)
                np.add.at(areas, found["ids"], found["areas"])
                np.minimum.at(first, found["ids"], found["places"])
            self._save_array("numbers", number_objects(areas, first, self.decoding.smallest_object))
        return int(np.load(self.folder / "numbers.npy", mmap_mode="r").max(initial=0))

    def write_labels(self, block: int) -> None:
        """Write the final numbers; save the sums for measurements of objects, and a thumbnail of the image."""
        assert self.objects is not None
        numbers = np.load(self.folder / "numbers.npy", mmap_mode="r")
        region = self.region(block)
        labels = numbers[self.objects.read(region)]
        self.labels.write(region, labels.astype(np.uint32))
        pixels = self._pixels(region)
        sums = sums_of_objects(labels[0], pixels, origin_of(region))
        self._save_findings("labels", block, small=downsample(pixels, 2**self.halvings), **asdict(sums))

    def thumbnail(self) -> np.ndarray:
        """Return the (C, y, x) image at the size of the overlay, once all blocks are done."""
        rows = [
            np.concatenate(
                [
                    self.finding(self.steps[-1][0], down * self.grid[1] + across, "small")
                    for across in range(self.grid[1])
                ],
                axis=2,
            )
            for down in range(self.grid[0])
        ]
        return np.concatenate(rows, axis=1)

    def _pixels(self, region: Region) -> np.ndarray:
        return self.image.read(shift(region, self.origin))

    def _roots_in(self, region: Region) -> np.ndarray:
        """Components of a region that may span many blocks, numbered over the whole image and joined."""
        assert self.components is not None
        firsts = np.load(self.folder / "firsts.npy", mmap_mode="r")
        roots = np.load(self.folder / "roots.npy", mmap_mode="r")
        found = np.zeros(shape_of(region), np.int64)
        for down, across in cells_of(region, (self.size, self.size)):
            block = down * self.grid[1] + across
            part = intersect(region, self.region(block))
            ids = self.components.read(part)[0].astype(np.int64)
            found[relative_to(part, region)] = np.where(ids > 0, roots[ids + firsts[block]], 0)
        return found

    def _edges_of(self, block: int) -> Edges:
        found = self._findings("components", block)
        return Edges(int(found["count"]), found["top"], found["bottom"], found["left"], found["right"])

    def _findings_file(self, step: str, block: int) -> Path:
        return self.folder / step / f"{block}.npz"

    def _save_findings(self, step: str, block: int, **values: object) -> None:
        with atomic_path(self._findings_file(step, block)) as beside:
            np.savez(beside, **values)  # type: ignore[arg-type]

    def finding(self, step: str, block: int, name: str) -> np.ndarray:
        """Return one of the arrays that a step saved for a block."""
        with np.load(self._findings_file(step, block)) as values:
            value: np.ndarray = values[name]
        return value

    def _findings(self, step: str, block: int) -> dict[str, np.ndarray]:
        with np.load(self._findings_file(step, block)) as values:
            return {name: values[name] for name in values.files}

    def _save_array(self, name: str, values: np.ndarray) -> None:
        with atomic_path(self.folder / f"{name}.npy") as beside:
            np.save(beside, values)


def finish_step(blocks: BlockDecoding, step: str) -> int:
    """Combine the findings of all blocks in a step; returns the number of objects once it is known."""
    if step == "components":
        blocks.join_components()
    return blocks.join_objects() if step == "objects" else 0


def as_probabilities(stored: np.ndarray) -> np.ndarray:
    """Return stored probabilities as float32 from 0 to 1: 0..255 of uint8, others as they are.

    Examples
    --------
    >>> as_probabilities(np.array([0, 51, 255], np.uint8))
    array([0. , 0.2, 1. ], dtype=float32)
    """
    values: np.ndarray = stored.astype(np.float32)
    return values / np.float32(255) if stored.dtype == np.uint8 else values
