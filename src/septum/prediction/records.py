"""The records that a prediction yields: how far it is and which files it has written. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FileStarted:
    """An image is open; `notes` describe it and warn of problems."""

    path: Path
    frames: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class FrameProgress:
    """How many pixels of one frame are done."""

    frame: int
    done: int
    total: int


@dataclass(frozen=True)
class FileDone:
    """The results of an image are written, or were there already (`skipped`)."""

    path: Path
    outputs: tuple[Path, ...]
    objects: int
    skipped: bool


@dataclass(frozen=True)
class StreamStarted:
    """The plan of a streamed image is written; `notes` describe image and plan. Yielded again if memory ran short."""

    path: Path
    notes: tuple[str, ...]


@dataclass(frozen=True)
class StreamProgress:
    """How much of a step of a frame is done, and the fraction of the whole prediction by estimated time."""

    step: str
    frame: int
    done: int
    total: int
    fraction: float


@dataclass(frozen=True)
class Certificate:
    """How a region of a streamed result compares with one pass over it and its surroundings."""

    frame: int
    region: tuple[slice, ...]
    difference: float  # the largest between two probabilities
    rounding: float  # half a step of the stored probabilities: a difference that rounding explains
    differing: int  # pixels whose label differs from that of their object


@dataclass(frozen=True)
class StreamDone:
    """The results of a streamed image are written, or were there already (`skipped`)."""

    path: Path
    outputs: tuple[Path, ...]
    objects: int
    certificates: tuple[Certificate, ...]  # of the regions that were verified
    skipped: bool = False


FileRecord = FileStarted | FrameProgress | FileDone
StreamRecord = StreamStarted | StreamProgress | StreamDone
