"""Arguments that several commands share, and text -> values."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from septum import choices
from septum.errors import ConfigError

ModelArgument = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL", help="A run folder, a model file, or a network that ships with Septum: em-membrane, nuclei."
    ),
]
RecipeOption = Annotated[
    choices.Recipe | None, typer.Option(help="fast (default): good scores quickly; paper: exactly as published.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Change a setting, e.g. unet.base_channels=32; repeatable."),
]
KindOption = Annotated[
    choices.Kind | None,
    typer.Option(help="What label values mean: objects or classes. Default: detected from the data and reported."),
]
LabelsOption = Annotated[Path | None, typer.Option(help="The label file or folder, if DATA has images only.")]
ChannelOption = Annotated[
    int | None, typer.Option(min=0, metavar="N", help="Use only this channel of the images; the first is 0.")
]
UnlabeledOption = Annotated[
    int | None,
    typer.Option(min=0, metavar="N", help="The label value of unannotated pixels, e.g. 0 between scribbles."),
]
DeviceOption = Annotated[choices.Device, typer.Option(help="Where the network runs; auto takes a GPU if there is one.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress, only the result.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def check_outputs(**files: Path | None) -> None:
    """Refuse names that results cannot have, by option, before the work is done."""
    from septum.data.files import check_writable
    from septum.data.names import IMAGE_SUFFIXES

    given = {option: path for option, path in files.items() if path is not None}
    for option, path in given.items():
        if path.suffix.lower() in IMAGE_SUFFIXES:
            raise ConfigError(f"--{option} {path} ends like the name of an image; give it another suffix")
        check_writable(path)
    if len({path.resolve() for path in given.values()}) < len(given):
        raise ConfigError(f"{' and '.join('--' + option for option in given)} name the same file; choose two")


def parse_bytes(text: str) -> int:
    """Turn ``2GB``, ``500MB`` into bytes.

    Examples
    --------
    >>> parse_bytes("1.5GB")
    1500000000
    """
    from pydantic import ByteSize, TypeAdapter, ValidationError

    try:
        size = int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        size = 0
    if size <= 0 or not text.strip()[-1].isalpha():
        raise ConfigError(f"an amount of memory must be a number with a unit, such as 2GB or 500MB, got {text!r}")
    return size


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """Turn ``["unet.depth=3"]`` into ``{"unet.depth": 3}``; a value that is not JSON is text."""
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
