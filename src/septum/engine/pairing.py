"""Predictions x truth -> cases: which files are prediction, truth, ignore mask and image of one another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from septum.data.images import SUFFIXES, Frame, ImageFile, from_stored, is_grey, open_image, open_stored
from septum.data.labels import as_labels
from septum.data.layout import PARTNERS, stem
from septum.errors import DatasetError, ImageError, did_you_mean

Reader = Callable[[], np.ndarray]

MAP = "_probabilities"


@dataclass(frozen=True, eq=False)
class Case:
    """One image to score; its arrays are read when they are asked for, so that one at a time is in memory."""

    name: str
    truth_name: str  # what errors call the parts: a file, or "truth 3"
    prediction_name: str
    truth: Reader  # (Y, X) int32
    prediction: Reader | None  # (Y, X) or (C, Y, X) numbers as they are stored
    probabilities: Reader | None = None  # (K, Y, X), beside predicted labels
    ignore: Reader | None = None  # (Y, X), non-zero takes part in nothing
    image: Reader | None = None  # (C, Y, X)
    pixel_size: tuple[float, float] | None = None


@dataclass(frozen=True)
class Cases:
    """All that is to be scored, and by which rule it was found."""

    cases: tuple[Case, ...]
    notes: tuple[str, ...]


def cases_from_files(predictions: Path, truth: Path) -> Cases:
    """Pair files by their names."""
    for path in (predictions, truth):
        if not path.exists():
            raise DatasetError(f"{path} does not exist; check the path")
    found, wanted = _by_base(predictions), _by_base(truth)
    if predictions.is_file() and truth.is_file():
        found = dict(zip(wanted, found.values(), strict=True))
    cases = []
    for name, file in wanted.items():
        if name not in found:
            raise DatasetError(f"{file} has no prediction in {predictions}{did_you_mean(name, found)}")
        cases += _frames(name, found[name], file)
    for name, file in found.items():
        if name not in wanted:
            raise DatasetError(f"{file} has no truth in {truth}; remove it, or add its truth")
    return Cases(tuple(cases), (f"{len(cases)} images of equal names",))


def _by_base(path: Path) -> dict[str, Path]:
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
    return {_base(file): file for file in files if not stem(file).endswith(MAP) and "_overlay" not in stem(file)}


def _base(file: Path) -> str:
    name = stem(file)
    return next((name.removesuffix(end) for end in (*PARTNERS, MAP) if name.endswith(end)), name)


def _frames(name: str, prediction: Path, truth: Path) -> list[Case]:
    own, other = _open(prediction), _open(truth)
    if len(own.frames) != len(other.frames):
        raise DatasetError(
            f"{prediction} has {len(own.frames)} frames, but its truth {truth} has {len(other.frames)}; "
            "pair the stacks frame by frame"
        )
    several = len(own.frames) > 1
    return [
        Case(
            name=f"{name}_{index:03d}" if several else name,
            truth_name=str(truth.with_name(right.name)),
            prediction_name=str(prediction.with_name(left.name)),
            truth=partial(_labels, right, truth),
            prediction=left.read,
        )
        for index, (left, right) in enumerate(zip(own.frames, other.frames, strict=True))
    ]


def _open(path: Path) -> ImageFile:
    return from_stored(path, replace(open_stored(path), palette=None))


def _labels(frame: Frame, path: Path) -> np.ndarray:
    return as_labels(frame.read()[0], path)
