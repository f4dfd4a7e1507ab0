"""One image to score: its prediction, its truth and the files beside them; nothing is read until it is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np

from septum.core.metrics.checks import check_labels
from septum.data.images import Frame, ImageFile, as_channels, check_channels_first, open_image
from septum.data.labels import as_label_image, as_labels, open_labels
from septum.data.names import is_roi
from septum.data.rois import read_rois
from septum.data.stored import PixelSize
from septum.errors import DatasetError, ImageError

Reader = Callable[[], np.ndarray]


@dataclass(frozen=True, eq=False)
class Case:
    """One image to score. Its arrays are read on demand, so that only a few are in memory at once."""

    name: str
    truth_name: str  # its name in errors: a file, or "truth 3"
    prediction_name: str
    truth: Reader  # (Y, X) int32
    prediction: Reader | None  # (C, Y, X) as stored: labels, or one probability map per channel
    probabilities: Reader | None = None  # (K, Y, X), beside labels or alone
    ignore: Reader | None = None  # (Y, X), non-zero pixels are not scored
    markers: Reader | None = None  # (Y, X), one marker per cell (Cell Tracking Challenge, TRA)
    image: Reader | None = None  # (C, Y, X)
    pixel_size: PixelSize | None = None
    frame: str = ""  # its number in a video of the Cell Tracking Challenge
    video: str = ""


@dataclass(frozen=True, eq=False)
class Cases:
    """Everything to score, and how it was found."""

    images: tuple[Case, ...]
    rule: str
    detections: tuple[Case, ...] = ()  # frames of a challenge video whose truth are the markers
    challenge: bool = False


def cases_from_arrays(
    predictions: Sequence[np.ndarray],
    truth: Sequence[np.ndarray],
    *,
    probabilities: Sequence[np.ndarray | None] | None = None,
    ignore: Sequence[np.ndarray | None] | None = None,
    images: Sequence[np.ndarray | None] | None = None,
    pixel_size: PixelSize | None = None,
) -> Cases:
    """Pair arrays by their order; DatasetError if there are not equally many of each."""
    n = len(truth)
    given = {"predictions": predictions, "probabilities": probabilities, "ignore masks": ignore, "images": images}
    for what, arrays in given.items():
        if arrays is not None and len(arrays) != n:
            raise DatasetError(f"got {len(arrays)} {what} for {n} truths; give one of each per image")
        for k, array in enumerate(() if arrays is None else arrays):
            if array is not None:
                check_channels_first(np.asarray(array), f"number {k} of the {what}")
    cases = []
    for k in range(n):
        beside = [None if arrays is None else arrays[k] for arrays in (probabilities, ignore, images)]
        cases.append(
            Case(
                name=f"image {k}",
                truth_name=f"truth {k}",
                prediction_name=f"prediction {k}",
                truth=partial(_array_labels, truth[k], f"truth {k}"),
                prediction=partial(_channels, predictions[k]),
                probabilities=None if beside[0] is None else partial(_channels, beside[0]),
                ignore=None if beside[1] is None else partial(np.asarray, beside[1]),
                image=None if beside[2] is None else partial(as_channels, beside[2]),
                pixel_size=pixel_size,
            )
        )
    return Cases(tuple(cases), f"{n} image{'s' * (n != 1)} in memory")


def _array_labels(array: np.ndarray, name: str) -> np.ndarray:
    if np.ndim(array) != 2:
        fix = "give a list of label images, such as [labels]" if np.ndim(array) < 2 else "give one label per pixel"
        raise ImageError(f"{name} has shape {np.shape(array)}, expected (Y, X); {fix}")
    return as_labels(check_labels(array, name), name)


def _channels(array: np.ndarray) -> np.ndarray:
    array = np.asarray(array)
    return array[None] if array.ndim == 2 else array


def cases_of_files(
    name: str,
    truth: Path,
    labels: Path | None,
    probabilities: Path | None = None,
    ignore: Path | None = None,
    image: Path | None = None,
    markers: Path | None = None,
) -> list[Case]:
    """Pair one truth with its prediction (labels or probabilities): one case, or one per frame of a stack.

    Raises
    ------
    DatasetError
        The files have different numbers of frames.
    """
    prediction, masks, marks = (open_labels(path) if path else None for path in (labels, ignore, markers))
    maps, picture = (open_image(path) if path else None for path in (probabilities, image))
    leading = prediction or maps
    assert leading is not None  # the caller passes at least one of the two
    drawn_on = picture or leading  # ROIs refer to slices and time points of their image
    truths, roi_masks, pixel_size = _truth_readers(truth, leading.frames[0].shape[1:], drawn_on.grid)
    for other in filter(None, (prediction, maps, masks, marks, picture)):
        if len(other.frames) != len(truths):
            raise DatasetError(
                f"{other.path} has {len(other.frames)} frames, but the truth {truth} has {len(truths)}; "
                "every frame needs its truth"
            )
    return [
        Case(
            name=f"{name}_{k:03d}" if len(truths) > 1 else name,
            truth_name=_frame_name(truth, k, len(truths)),
            prediction_name=_frame_name(leading.path, k, len(truths)),
            truth=truths[k],
            prediction=_reader(prediction, k),
            probabilities=_reader(maps, k),
            ignore=roi_masks[k] or _label_reader(masks, k),
            markers=_label_reader(marks, k),
            image=_reader(picture, k),
            pixel_size=pixel_size or leading.pixel_size,
        )
        for k in range(len(truths))
    ]


def _truth_readers(
    truth: Path, shape: tuple[int, ...], grid: Sequence[tuple[str, int]]
) -> tuple[list[Reader], list[Reader | None], PixelSize | None]:
    """Return a reader per frame of the truth, a reader per ignore mask drawn as ROIs, and the pixel size."""
    if is_roi(truth):
        drawn = cache(partial(read_rois, truth, shape, grid))
        masks = drawn()[1]
        truths: list[Reader] = [partial(lambda k: drawn()[0][k], k) for k in range(len(masks))]
        return truths, [None if mask is None else partial(np.asarray, mask) for mask in masks], None
    file = open_labels(truth)
    return [partial(_read_labels, frame, truth) for frame in file.frames], [None] * len(file.frames), file.pixel_size


def _frame_name(path: Path, k: int, frames: int) -> str:
    return f"{path}, frame {k}" if frames > 1 else str(path)


def _reader(file: ImageFile | None, k: int) -> Reader | None:
    return None if file is None else file.frames[k].read


def _label_reader(file: ImageFile | None, k: int) -> Reader | None:
    return None if file is None else partial(_read_labels, file.frames[k], file.path)


def _read_labels(frame: Frame, path: Path) -> np.ndarray:
    """Return a frame as a (Y, X) label image."""
    return as_label_image(frame.read(), path)
