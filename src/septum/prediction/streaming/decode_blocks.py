"""Labels of an image that is not loaded: the steps of `septum.core.decode.decode`, block by block, each restartable."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from septum.config import Decoding
from septum.core.decode import connected, decode, finish, reach
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

LARGEST = 1024  # pixels per side of what is kept for an overlay


class Store(Sink, Protocol):
    """A Sink that can be read."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def read(self, region: Region) -> np.ndarray: ...


@dataclass(frozen=True)
class BlockDecoding:
    """Labels of one image, block by block.

    Each step works on blocks that may be done in any order, by any process, and again after a crash. Between two steps
    stands a barrier: what all blocks found is put together (`join_components`, `join_objects`). The result is what
    `decode` makes of the whole image. Memory grows with the number of objects (some 20 bytes each), not of pixels.
    """

    target: str
    decoding: Decoding
    size: int  # pixels per side of a block, a multiple of the stores' chunks
    probabilities: Store  # as stored: uint8, or a float type
    labels: Store
    components: Store | None  # instances only, (1, Y, X) uint32: numbered within each block
    objects: Store | None  # the same with numbers of the whole image, extended and without small holes
    folder: Path  # of what the blocks tell each other
    image: Source  # grey values as they are, of which the labels show the part that begins at `origin`
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
        """How often the image is halved for an overlay; the labels' pyramid has that level."""
        return max(0, math.ceil(math.log2(max(self.labels.shape[1:]) / LARGEST)))

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
        return self._note(step, block).exists()

    def write_classes(self, block: int) -> None:
        """Write the most probable class of every pixel; tell how the image looks from afar."""
        region = self.region(block)
        classes = decode("classes", self.probabilities.read(region))
        self.labels.write(region, classes[None].astype(np.uint8))
        self._tell("classes", block, small=downsample(self._pixels(region), 2**self.halvings))

    def find_components(self, block: int) -> None:
        """Number the components of the seeds within a block."""
        assert self.components is not None
        region = self.region(block)
        seeds = INSTANCE_TARGETS[self.target].seeds(as_probabilities(self.probabilities.read(region)), self.decoding)
        found = connected(seeds)
        self.components.write(region, found[None].astype(np.uint32))
        self._tell("components", block, **asdict(edges(found)))

    def join_components(self) -> None:
        """Find out which components of all blocks are one."""
        if (self.folder / "roots.npy").exists():
            return
        told = [self._edges_of(block) for block in range(self.count)]
        across = self.grid[1]
        roots = join([told[start : start + across] for start in range(0, self.count, across)])
        self._save("firsts", first_numbers([one.count for one in told]))
        self._save("roots", roots)

    def finish_objects(self, block: int) -> None:
        """Extend the components and fill holes; tell how many pixels each object has here, and which is the first."""
        assert self.components is not None
        assert self.objects is not None
        region, (_, height, width) = self.region(block), self.labels.shape
        far = reach(self.target, self.decoding)
        wider = clip(expand(region, far), (height, width))
        ids, components = np.unique(self._roots_in(wider), return_inverse=True)
        if ids[0] != 0:  # no background: component 0 must stay what is free
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
        self._tell("objects", block, ids=ids[here][some], areas=areas[some], places=places[some])

    def join_objects(self) -> int:
        """Number the objects of the whole image by their first pixels; return how many there are."""
        if not (self.folder / "numbers.npy").exists():
            n = len(np.load(self.folder / "roots.npy", mmap_mode="r"))
            areas, first = np.zeros(n, np.int64), np.full(n, np.iinfo(np.int64).max)
            for block in range(self.count):
                told = self._told("objects", block)
                np.add.at(areas, told["ids"], told["areas"])
                np.minimum.at(first, told["ids"], told["places"])
            self._save("numbers", number_objects(areas, first, self.decoding.smallest_object))
        return int(np.load(self.folder / "numbers.npy", mmap_mode="r").max(initial=0))

    def write_labels(self, block: int) -> None:
        """Write the final numbers; tell what adds up to measurements of objects, and how the image looks from afar."""
        assert self.objects is not None
        numbers = np.load(self.folder / "numbers.npy", mmap_mode="r")
        region = self.region(block)
        labels = numbers[self.objects.read(region)]
        self.labels.write(region, labels.astype(np.uint32))
        pixels = self._pixels(region)
        sums = sums_of_objects(labels[0], pixels, origin_of(region))
        self._tell("labels", block, small=downsample(pixels, 2**self.halvings), **asdict(sums))

    def thumbnail(self) -> np.ndarray:
        """Return the (C, y, x) image of the halved labels, once all blocks are done."""
        rows = [
            np.concatenate(
                [self.told(self.steps[-1][0], down * self.grid[1] + across, "small") for across in range(self.grid[1])],
                axis=2,
            )
            for down in range(self.grid[0])
        ]
        return np.concatenate(rows, axis=1)

    def _pixels(self, region: Region) -> np.ndarray:
        return self.image.read(shift(region, self.origin))

    def _roots_in(self, region: Region) -> np.ndarray:
        """Components of a region that may reach into many blocks, numbered for the whole image and joined."""
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
        told = self._told("components", block)
        return Edges(int(told["count"]), told["top"], told["bottom"], told["left"], told["right"])

    def _note(self, step: str, block: int) -> Path:
        return self.folder / step / f"{block}.npz"

    def _tell(self, step: str, block: int, **values: object) -> None:
        with atomic_path(self._note(step, block)) as beside:
            np.savez(beside, **values)  # type: ignore[arg-type]

    def told(self, step: str, block: int, name: str) -> np.ndarray:
        """Return one of the things that a block told in a step."""
        with np.load(self._note(step, block)) as values:
            value: np.ndarray = values[name]
        return value

    def _told(self, step: str, block: int) -> dict[str, np.ndarray]:
        with np.load(self._note(step, block)) as values:
            return {name: values[name] for name in values.files}

    def _save(self, name: str, values: np.ndarray) -> None:
        with atomic_path(self.folder / f"{name}.npy") as beside:
            np.save(beside, values)


def finish_step(blocks: BlockDecoding, step: str) -> int:
    """Put together what all blocks found in a step; returns the number of objects once it is known."""
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
