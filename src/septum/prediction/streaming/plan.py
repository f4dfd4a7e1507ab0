"""The plan of a streamed prediction, as written to its folder: the request, and all that decides the result's bytes."""

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
from septum.words import duration, plural

Bounds = tuple[int, int, int, int]  # y0, y1, x0, x1
CHUNKS = (512, 256, 128)  # pixels per side of a chunk of the result; smaller ones if memory is short
BLOCK = 1024  # pixels per side of a block of the decoding
# Seconds per pixel of all steps except the network, to estimate progress and the remaining time: CPU time of one core
# of a Xeon for 2,048 x 2,048 pixels with 526 objects, rounded; other machines and images may differ several times
PIXEL_SECONDS = {
    "statistics": 6e-9,
    "components": 2e-8,
    "objects": 2e-7,
    "labels": 6e-8,
    "classes": 6e-8,
    "pyramid": 3e-8,
    "table": 1e-8,
}
SINGLE_PROCESS_STEPS = ("statistics", "table", "pyramid")  # however many processes there are
SHRINK_PLAN_BELOW = 0.75  # of the memory that a run started with; free memory always varies a little
WHOLE_HASH = 2**30  # bytes up to which a whole file is hashed
DECODING = 170 * 10**6  # bytes that a process grows by while it decodes blocks and writes pyramids
SAMPLES, SAMPLE = 256, 2**16  # of a larger file: number of pieces, and bytes of each


class StreamRequest(Settings):
    """What is to be predicted, and how. A run continues only with the request it started with."""

    model: str  # sha256 of the model file
    image: str  # `fingerprint_image` of the image
    mask: str | None = None  # the same of the mask
    channel: int | None = None
    level: int = 0
    region: Bounds | None = None
    tta: TtaConfig | None = None
    probabilities: StoredProbability = "uint8"
    statistics: Statistics = "image"  # where the brightness comes from
    device: str = "cpu"


class StreamPlan(Settings):
    """Everything that decides the bytes of the result, written before the first tile."""

    format: int = 1
    request: StreamRequest
    model_path: str
    image_path: str
    mask_path: str | None = None
    shape: tuple[int, int]  # (Y, X) of the result
    origin: tuple[int, int] = (0, 0)  # of the result in the image
    frames: int
    stride: tuple[int, int]  # output pixels of a tile
    rows: int  # of the image that pass through the network at a time
    chunk: int  # pixels per side of a chunk of the result
    block: int = BLOCK  # pixels per side of a block of the decoding
    threads: int  # of the network's convolutions, per process
    memory: int  # bytes that a process grows by
    multiply_adds: int  # per frame
    redundancy: float  # multiply-adds divided by those of one pass over the whole image
    normalization: tuple[Normalization, ...] = ()  # of each frame, once the result is written
    keeps_zarr: bool = False  # Zarr results existed before, and stay beside the requested TIFF

    @property
    def tiles(self) -> int:
        """Number of tiles per frame."""
        return math.prod(math.ceil(size / step) for size, step in zip(self.shape, self.stride, strict=True))

    def seconds(self, step: str, multiply_adds_per_second: float, processes: int = 1) -> float:
        """Estimate how long a step of a frame takes: the network by its speed, other steps by the number of pixels."""
        if step == "tiles":
            return self.multiply_adds / multiply_adds_per_second / processes
        sharing = 1 if step in SINGLE_PROCESS_STEPS else processes
        return PIXEL_SECONDS[step] * math.prod(self.shape) / sharing

    def describe(self, network: float, rest: float, processes: int = 1) -> str:
        """Describe the plan in one sentence, with the estimated seconds of the network and of all other steps."""
        frames = f"{self.frames} frames of " if self.frames > 1 else ""
        return (
            f"{frames}{self.shape[0]} x {self.shape[1]} pixels in {plural(self.tiles, 'tile')} of {self.stride[0]} x "
            f"{self.stride[1]}; {100 * (self.redundancy - 1):.1f} % more computation than in one pass; "
            f"{self.memory / 1e6:.0f} MB of memory{' per worker' if processes > 1 else ''} in addition to the program; "
            f"about {duration(network + rest)}, of which the network takes {duration(network)}"
        )


def choose_tiles(shape: Sequence[int], config: UNetConfig, max_memory: int, tta: TtaConfig | None) -> dict[str, object]:
    """Return the fields of a plan that follow from a memory budget: tiles, bands, and the largest chunks that fit."""
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


def shrink_plan(plan: StreamPlan, config: UNetConfig) -> StreamPlan:
    """Return a plan whose tiles or bands take less memory, half of it if possible; finished chunks stay valid.

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
                "choose another --device or a machine with more memory"
            ) from None
        if (layout.stride, layout.rows) != (plan.stride, plan.rows):
            return plan.model_copy(update=asdict(layout))


def write_or_resume(path: Path, plan: StreamPlan, config: UNetConfig) -> StreamPlan:
    """Write a plan, or return the existing one if its request is the same, fitted into the memory of the new one.

    Raises
    ------
    OutputError
        If the run was started with another request; the message names what differs.
    ConfigError
        If its chunks are too large for the memory of the new plan.
    """
    if not path.exists():
        write_text(path, plan.model_dump_json(indent=1) + "\n")
        return plan
    earlier = read_plan(path)
    check_same(path, earlier.request, plan.request)
    keeps_zarr = earlier.keeps_zarr or plan.keeps_zarr
    now = earlier.model_copy(update={"threads": plan.threads, "keeps_zarr": keeps_zarr})
    if plan.memory < SHRINK_PLAN_BELOW * earlier.memory:
        try:
            layout = plan_layout(earlier.shape, config, plan.memory, step=earlier.chunk, tta=earlier.request.tta)
        except TooLittleMemory:
            raise ConfigError(
                f"{path.parent} was started with {earlier.memory / 1e6:.0f} MB, and its smallest tile does not fit "
                f"into {plan.memory / 1e6:.0f} MB; raise --max-memory or choose another --output"
            ) from None
        now = now.model_copy(update=asdict(layout))
    if now != earlier:
        write_text(path, now.model_dump_json(indent=1) + "\n")
    return now


def check_same(path: Path, old: StreamRequest, new: StreamRequest) -> None:
    """Raise OutputError if two requests differ."""
    differing = [name for name in StreamRequest.model_fields if getattr(old, name) != getattr(new, name)]
    if differing:
        raise OutputError(
            f"{path} belongs to a result with another {', '.join(differing)}; choose another --output or "
            f"remove {_results_of(path)}"
        )


def _results_of(plan: Path) -> str:
    """Name the files that belong to a plan, whether its run is finished or not."""
    unfinished = plan.parent.name.endswith("_work")
    output = plan.parent.parent if unfinished else plan.parent
    stem = plan.parent.name.removesuffix("_work") if unfinished else plan.name.removesuffix("_plan.json")
    return f"{stem}_work, {stem}_plan.json, {stem}_labels.* and {stem}_probabilities.* in {output}"


def read_plan(path: Path) -> StreamPlan:
    """Read a written plan; OutputError if it is damaged."""
    try:
        return StreamPlan.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise OutputError(
            f"{path} does not exist on this machine; all workers of a cluster must see the same folders under the same "
            "names"
        ) from None
    except ValueError:
        raise OutputError(
            f"{path} is damaged or not a plan of Septum; remove {_results_of(path)} and run again"
        ) from None


def fingerprint_image(path: Path) -> str:
    """Return a sha256 that changes when an image changes, fast enough for terabytes.

    A file of up to 1 GiB is hashed as a whole; of a larger file its size, its modification time, and 256 evenly spaced
    pieces of 64 KiB; of a folder (OME-Zarr) its metadata, and the name, size and modification time of every file.
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
