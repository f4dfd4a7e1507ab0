"""The written plan of a streamed prediction: what was asked for, and all that decides the bytes of the result."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from septum.choices import Statistics, StoredProbability
from septum.config import Settings, TtaConfig, UNetConfig
from septum.core.layout import OVERHEAD, TooLittleMemory, plan_layout
from septum.core.normalize import Normalization
from septum.data.files import write_text
from septum.errors import ConfigError, OutputError
from septum.words import duration

Box = tuple[int, int, int, int]  # y0, y1, x0, x1
CHUNKS = (512, 256, 128)  # pixels per side of a chunk of the result; smaller ones where memory is short
BLOCK = 1024  # pixels per side of a block of the decoding
# Seconds per pixel of all but the network, by which progress and the time that is left are reckoned: CPU time of one
# core of a Xeon for 2,048 x 2,048 pixels with 526 objects, rounded; another machine or image may differ by a few times
PIXEL_SECONDS = {
    "statistics": 6e-9,
    "components": 2e-8,
    "objects": 2e-7,
    "labels": 6e-8,
    "classes": 6e-8,
    "pyramid": 3e-8,
    "table": 1e-8,
}
ALONE = ("statistics", "table", "pyramid")  # what one process does, however many there are
LESS = 0.75  # of the memory that a run was begun with: its tiles are made smaller, since free memory always varies
WHOLE_HASH = 2**30  # bytes up to which all of a file is hashed
DECODING = 170 * 10**6  # bytes that a process grows by while it decodes blocks and makes pyramids
SAMPLES, SAMPLE = 256, 2**16  # else so many pieces of so many bytes


class Request(Settings):
    """What was asked for. A run that was begun with another one is not gone on with."""

    model: str  # sha256 of the model file
    image: str  # `identity` of the image
    mask: str | None = None  # that of the mask
    channel: int | None = None
    level: int = 0
    region: Box | None = None
    tta: TtaConfig | None = None
    probabilities: StoredProbability = "uint8"
    statistics: Statistics = "image"  # where the brightness comes from
    device: str = "cpu"


class StreamPlan(Settings):
    """Everything that decides the bytes of the result, written before the first tile."""

    format: int = 1
    request: Request
    model_path: str
    image_path: str
    mask_path: str | None = None
    shape: tuple[int, int]  # (Y, X) of the result
    origin: tuple[int, int] = (0, 0)  # of the result in the image
    frames: int
    stride: tuple[int, int]  # output pixels of a tile
    rows: int  # of the image that pass through the network together
    chunk: int  # pixels per side of a chunk of the result
    block: int = BLOCK  # pixels per side of a block of the decoding
    threads: int  # of the network's convolutions, per process
    memory: int  # bytes that a process grows by
    multiply_adds: int  # per frame
    redundancy: float  # these, over those of one pass over the whole
    normalization: tuple[Normalization, ...] = ()  # of each frame, once the result is there
    keeps_zarr: bool = False  # Zarr results were there before, and stay beside the TIFF that is asked for now

    @property
    def tiles(self) -> int:
        """Number of tiles per frame."""
        return math.prod(math.ceil(size / step) for size, step in zip(self.shape, self.stride, strict=True))

    def seconds(self, step: str, multiply_adds_per_second: float, processes: int = 1) -> float:
        """Foresee how long a step of a frame takes: the network by its speed, the others by their pixels."""
        if step == "tiles":
            return self.multiply_adds / multiply_adds_per_second / processes
        versions = 1 if step in ALONE else processes
        return PIXEL_SECONDS[step] * math.prod(self.shape) / versions

    def describe(self, network: float, rest: float, processes: int = 1) -> str:
        """Say in one sentence what will happen, and how many seconds the network and all else will take."""
        frames = f"{self.frames} frames of " if self.frames > 1 else ""
        return (
            f"{frames}{self.shape[0]} x {self.shape[1]} pixels in {self.tiles} tiles of {self.stride[0]} x "
            f"{self.stride[1]}, {100 * (self.redundancy - 1):.1f} % more multiply-adds than in one pass, "
            f"{self.memory / 1e6:.0f} MB beside the program{' per worker' if processes > 1 else ''}, "
            f"about {duration(network + rest)}, {duration(network)} of it for the network"
        )


def choose_tiles(shape: Sequence[int], config: UNetConfig, max_memory: int, tta: TtaConfig | None) -> dict[str, object]:
    """Return the part of a plan that follows from a memory budget: the largest chunks that leave good tiles."""
    if max_memory < DECODING:
        raise TooLittleMemory(max_memory, DECODING)
    for chunk in CHUNKS:
        try:
            layout = plan_layout(shape, config, max_memory, step=chunk, tta=tta)
        except TooLittleMemory:
            if chunk == CHUNKS[-1]:
                raise
            continue
        break
    return {**asdict(layout), "chunk": chunk, "memory": max(DECODING, layout.memory)}


def smaller(plan: StreamPlan, config: UNetConfig) -> StreamPlan:
    """Return a plan whose tiles, or bands, take less memory, by half if it can be; what was written stays of use.

    Raises
    ------
    ConfigError
        If there is none.
    """
    memory = plan.memory
    while True:
        memory = OVERHEAD + (memory - OVERHEAD) // 2
        try:
            layout = plan_layout(plan.shape, config, memory, step=plan.chunk, tta=plan.request.tta)
        except TooLittleMemory:
            raise ConfigError(
                f"not even the smallest tile of this network fits into the memory of {plan.request.device}; "
                "choose another --device, or a machine with more"
            ) from None
        if (layout.stride, layout.rows) != (plan.stride, plan.rows):
            return plan.model_copy(update=asdict(layout))


def write_or_resume(path: Path, plan: StreamPlan, config: UNetConfig) -> StreamPlan:
    """Write a plan, or return the one that is there if it is for the same request, within the memory of the new one.

    Raises
    ------
    OutputError
        If a run was begun with another request; the sentence says what differs.
    ConfigError
        If its chunks are too large for the memory that there is now.
    """
    if not path.exists():
        write_text(path, plan.model_dump_json(indent=1) + "\n")
        return plan
    begun = read_plan(path)
    check_same(path, begun.request, plan.request)
    kept = begun.keeps_zarr or plan.keeps_zarr
    now = begun.model_copy(update={"threads": plan.threads, "keeps_zarr": kept})
    if plan.memory < LESS * begun.memory:
        try:
            layout = plan_layout(begun.shape, config, plan.memory, step=begun.chunk, tta=begun.request.tta)
        except TooLittleMemory:
            raise ConfigError(
                f"{path.parent} was begun with {begun.memory / 1e6:.0f} MB, and its smallest tile does not fit into "
                f"{plan.memory / 1e6:.0f} MB; give it more --max-memory, or choose another --output"
            ) from None
        now = now.model_copy(update=asdict(layout))
    if now != begun:
        write_text(path, now.model_dump_json(indent=1) + "\n")
    return now


def check_same(path: Path, old: Request, new: Request) -> None:
    """Raise OutputError if two requests differ."""
    differing = [name for name in Request.model_fields if getattr(old, name) != getattr(new, name)]
    if differing:
        raise OutputError(
            f"{path} is of a result with another {', '.join(differing)}; choose another --output, or "
            f"remove {_results_of(path)}"
        )


def _results_of(plan: Path) -> str:
    """Say which files belong to a plan, that of a result or that of a run."""
    begun = plan.parent.name.endswith("_work")
    output = plan.parent.parent if begun else plan.parent
    stem = plan.parent.name.removesuffix("_work") if begun else plan.name.removesuffix("_plan.json")
    return f"{stem}_work, {stem}_plan.json, {stem}_labels.* and {stem}_probabilities.* of {output}"


def read_plan(path: Path) -> StreamPlan:
    """Read a written plan; OutputError if it is damaged."""
    try:
        return StreamPlan.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise OutputError(
            f"there is no {path} here; the workers of a cluster have to see the same folders, by the same names"
        ) from None
    except ValueError:
        raise OutputError(f"{path} is no plan of Septum; remove {_results_of(path)} and begin again") from None


def identity(path: Path) -> str:
    """Return what tells one version of an image from another, fast enough for terabytes.

    Up to 1 GiB the sha256 of a file. Of a larger one that of its size, time of change, and 256 pieces of 64 KiB spread
    evenly. Of a folder (OME-Zarr) that of its metadata, and of name, size and time of change of every file in it.
    """
    digest = hashlib.sha256()
    if path.is_dir():
        for folder, folders, files in os.walk(path):
            folders.sort()
            for name in sorted(files):
                file = Path(folder, name)
                entry = file.stat()
                digest.update(f"{file.relative_to(path).as_posix()} {entry.st_size} {entry.st_mtime_ns}\n".encode())
                if name in ("zarr.json", ".zattrs", ".zarray", ".zgroup"):
                    digest.update(file.read_bytes())
        return digest.hexdigest()
    entry = path.stat()
    with path.open("rb") as stream:
        if entry.st_size <= WHOLE_HASH:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{entry.st_size} {entry.st_mtime_ns}\n".encode())
        for number in range(SAMPLES):
            stream.seek(number * (entry.st_size - SAMPLE) // (SAMPLES - 1))
            digest.update(stream.read(SAMPLE))
    return digest.hexdigest()
