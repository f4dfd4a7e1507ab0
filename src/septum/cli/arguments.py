"""Arguments of the commands: their types, and from text to values."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from septum.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch


class Recipe(StrEnum):
    fast = "fast"
    paper = "paper"


class Paper(StrEnum):
    em = "em"
    dic_hela = "dic-hela"
    phc_u373 = "phc-u373"


class Kind(StrEnum):
    instances = "instances"
    classes = "classes"


class Format(StrEnum):
    zarr = "zarr"
    tiff = "tiff"


class Stored(StrEnum):
    uint8 = "uint8"
    float16 = "float16"


class Statistics(StrEnum):
    image = "image"
    model = "model"


class Device(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the result.")]


Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]


KindOption = Annotated[
    Kind | None, typer.Option(help="What the labels are; by default read from the data and said aloud.")
]


LabelsOption = Annotated[
    Path | None, typer.Option(help="The label file or folder, if DATA is an image or a folder of images only.")
]


ChannelOption = Annotated[int | None, typer.Option(min=0, help="Use this channel of the images only.")]


UnlabeledOption = Annotated[
    int | None, typer.Option(min=0, help="The label of pixels that nobody annotated, such as 0 between scribbles.")
]


DeviceOption = Annotated[Device, typer.Option(help="Where the network runs.")]


def check_outputs(**files: Path | None) -> None:
    """Refuse what results cannot be called, by option, before the work is done."""
    from septum.data.files import check_writable
    from septum.data.images import SUFFIXES

    given = {option: path for option, path in files.items() if path is not None}
    for option, path in given.items():
        if path.suffix.lower() in SUFFIXES:
            raise ConfigError(f"--{option} {path} has the name of an image; give a name of its own kind")
        check_writable(path)
    if len({path.resolve() for path in given.values()}) < len(given):
        raise ConfigError(f"{' and '.join('--' + option for option in given)} name one file; give each its own")


def parse_duration(text: str) -> float:
    """Turn ``20min``, ``1h30min``, ``90s`` into seconds.

    Examples
    --------
    >>> parse_duration("1h30min"), parse_duration("90s"), parse_duration("0.5h")
    (5400.0, 90.0, 1800.0)
    """
    units = {"h": 3600.0, "min": 60.0, "m": 60.0, "s": 1.0}
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*(h|min|m|s)", text)
    if not parts or "".join("".join(part) for part in parts) != re.sub(r"\s", "", text):
        raise ConfigError(f"a budget is a time such as 20min, 1h30min or 90s, got {text!r}")
    seconds = sum(float(number) * units[unit] for number, unit in parts)
    if seconds <= 0:
        raise ConfigError(f"the budget must be more than zero, got {text!r}; give for example 20min")
    return seconds


def parse_bytes(text: str) -> int:
    """Turn ``2GB``, ``500MB`` into bytes.

    Examples
    --------
    >>> parse_bytes("1.5GB")
    1500000000
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(kB|KB|MB|GB|TB)", text.strip())
    if not match or float(match[1]) <= 0:
        raise ConfigError(f"an amount of memory is a number with a unit, such as 2GB or 500MB, got {text!r}")
    return round(float(match[1]) * {"K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[match[2][0].upper()])


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """Turn ``["unet.depth=3"]`` into ``{"unet.depth": 3}``; values are JSON, or else words."""
    changes: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set takes NAME=VALUE, such as --set unet.base_channels=32, got {pair!r}")
        try:
            changes[name] = json.loads(value)
        except ValueError:
            changes[name] = value
    return changes


def parse_tta(versions: int | None) -> Any:
    """Turn the number of --tta into settings."""
    from septum.config import TtaConfig

    if versions is None:
        return None
    if versions == 8:
        return TtaConfig(kind="dihedral", versions=8)
    if versions == 7:
        return TtaConfig(kind="rotations", versions=7)
    raise ConfigError(f"--tta takes 7 (rotations, as in the paper) or 8 (flips and quarter-turns), got {versions}")


def pick_device(device: Device) -> torch.device:
    """Return the device that was asked for, or the best there is."""
    import torch

    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    name = next(name for name in ("cuda", "mps", "cpu") if available[name]) if device is Device.auto else device.value
    if not available[name]:
        there = ", ".join(other for other, is_there in available.items() if is_there)
        raise ConfigError(f"there is no {name} device here; available: {there}")
    local = os.environ.get("LOCAL_RANK")  # from torchrun: each process has a GPU of its own
    return torch.device(name, int(local)) if local and name == "cuda" else torch.device(name)


@contextmanager
def interruptible() -> Iterator[list[bool]]:
    """Turn the first Ctrl-C into an entry of the list that is yielded; the second one stops at once."""
    asked: list[bool] = []

    def note(_signal: int, _frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(True)
        print("\nfinishing this step, then saving (press Ctrl-C again to stop at once)", file=sys.stderr)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
