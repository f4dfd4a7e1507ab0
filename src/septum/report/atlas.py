"""The atlas: every error of an evaluation as a crop, worst first, and what the images look like as a whole."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import ndimage

from septum.choices import Kind
from septum.core.metrics import isbi
from septum.core.metrics.warping import MISMATCHES
from septum.core.overlay import CONFUSED, MARK, Rgb, paint, to_rgb
from septum.core.region import Region, origin_of, shape_of
from septum.data.images import as_channels
from septum.errors import ImageError
from septum.evaluation.evaluate import WORKERS
from septum.evaluation.object_errors import Box, ObjectError
from septum.evaluation.reading import Arrays
from septum.evaluation.record import Evaluation, ImageRecord
from septum.report.page import Picture, shrink

MOST = 5000  # crops of objects on one page; the rest is in the CSV
MOST_REGIONS = 300  # crops of mismatches, and of suspicious labels
MANY = 400  # from so many crops on they are small
SMALL, LARGE = 40, 96  # pixels, side of a crop
FEW_IMAGES = 4  # that are shown large
MOST_IMAGES = 30  # that are shown as a whole
CONFIDENT = 0.9  # probability from which a prediction that contradicts the truth is suspicious
_SURROUNDINGS = 6  # pixels shown around an error, at least
_CLEARANCE = 2  # pixels between an error and the marks at its corners
_GREEN = 3  # a class whose colour has no other meaning on the page
_LONGEST_NAME = 28  # characters of an image's name under a picture


@dataclass(frozen=True)
class Entry:
    """One crop."""

    kind: str
    rank: float  # the worst has the largest
    picture: Picture


@dataclass(frozen=True)
class Atlas:
    """What can be seen of one image, or of all; entries worst first."""

    objects: tuple[Entry, ...]
    mismatches: tuple[Entry, ...]  # of the warping error
    suspicious: tuple[Entry, ...]  # labels that a confident prediction contradicts
    wholes: tuple[Picture, ...]  # image, truth, prediction against truth


def make_atlas(evaluation: Evaluation) -> Atlas:
    """Read the images of an evaluation once more, few at a time, and cut out what is wrong."""
    errors = [(-error.pixels, k, n) for k, image in enumerate(evaluation.images) for n, error in _numbered(image)]
    drawn: dict[int, list[ObjectError]] = {}
    for _, k, n in sorted(errors)[:MOST]:
        drawn.setdefault(k, []).append(evaluation.images[k].objects.errors[n])
    side = SMALL if len(errors) > MANY else LARGE
    whole_side = 1024 if len(evaluation.images) <= FEW_IMAGES else 512
    threshold = mismatch_threshold(evaluation)
    names = short_names([image.name for image in evaluation.images])

    def look(k: int) -> Atlas:
        image, name = evaluation.images[k], names[k]
        arrays = image.arrays()
        rgb = _picture(image, arrays)
        crop = partial(_crop, rgb, arrays.labels, arrays.truth, evaluation.kind)
        wholes = partial(_wholes, name, None if image.image is None else rgb, arrays, evaluation)
        return Atlas(
            tuple(_object(name, error, crop(error.box, side)) for error in drawn.get(k, [])),
            _mismatches(name, arrays, rgb, threshold) if threshold is not None and image.isbi else (),
            _suspicious(name, arrays, crop),
            wholes(whole_side) if k < MOST_IMAGES else (),
        )

    with ThreadPoolExecutor(WORKERS) as workers:
        looks = list(workers.map(look, range(len(evaluation.images))))
    return Atlas(
        _worst((entry for each in looks for entry in each.objects), MOST),
        _worst((entry for each in looks for entry in each.mismatches), MOST_REGIONS),
        _worst((entry for each in looks for entry in each.suspicious), MOST_REGIONS),
        tuple(picture for each in looks for picture in each.wholes),
    )


def mismatch_threshold(evaluation: Evaluation) -> float | None:
    """The threshold of the best warping error, or of the best V_Rand where that leaves nothing of the maps."""
    if evaluation.isbi is None:
        return None
    best = evaluation.isbi.best["warping_error"].threshold
    empty = any(row.threshold == best and row.foreground_fraction == 0 for row in evaluation.isbi.per_threshold)
    return evaluation.isbi.best["v_rand"].threshold if empty else best


def short_names(names: Sequence[str]) -> list[str]:
    """What images are called under their pictures: names of up to 28 letters, of longer ones the part that differs.

    Examples
    --------
    >>> short_names(["a", "2024-03-17_HeLa_40x_position_01_projected", "2024-03-17_HeLa_40x_position_02_projected"])
    ['a', '…_40x_position_01_projected', '…_40x_position_02_projected']
    """
    long = [name for name in names if len(name) > _LONGEST_NAME]
    differs = next((k for k, letters in enumerate(zip(*long, strict=False)) if len(set(letters)) > 1), 0)
    short = [_window_of(name, differs) if len(name) > _LONGEST_NAME else name for name in names]
    return short if len(set(short)) == len(set(names)) else list(names)


def _window_of(name: str, place: int) -> str:
    """The part of a long name about a place."""
    room = _LONGEST_NAME - 2
    start = max(0, min(place - room // 2, len(name) - room))
    return "…" * (start > 0) + name[start : start + room] + "…" * (start + room < len(name))


def _numbered(image: ImageRecord) -> Iterator[tuple[int, ObjectError]]:
    return enumerate(image.objects.errors)


def _worst(entries: Iterable[Entry], most: int) -> tuple[Entry, ...]:
    return tuple(heapq.nlargest(most, entries, key=lambda entry: entry.rank))


def _object(name: str, error: ObjectError, picture: Rgb) -> Entry:
    taking_part = ", ".join(
        f"{what} {', '.join(map(str, numbers[:4]))}{' …' * (len(numbers) > 4)}"
        for what, numbers in (("truth", error.truth), ("predicted", error.prediction))
        if numbers
    )
    caption = f"{name} · {error.said or taking_part} · {_pixels(error.pixels)}"
    return Entry(error.kind, error.pixels, Picture(picture, caption, error.kind))


def _picture(image: ImageRecord, arrays: Arrays) -> Rgb:
    """The image as a screen shows it, or dark where there is none."""
    shape = arrays.truth.shape
    if image.image is None:
        return np.zeros((*shape, 3), np.uint8)
    rgb = to_rgb(as_channels(image.image()))
    if rgb.shape[:2] != shape:
        raise ImageError(
            f"the image of {image.name} has shape {rgb.shape[:2]}, but its truth has {shape}; "
            "give images of the same size with --images"
        )
    return rgb


def _wholes(name: str, rgb: Rgb | None, arrays: Arrays, evaluation: Evaluation, side: int) -> tuple[Picture, ...]:
    """The image, its truth, and the prediction against it; the last alone, on black, where there is no image."""
    kind, labels, truth = evaluation.kind, arrays.labels, arrays.truth
    ground = np.zeros((*truth.shape, 3), np.uint8) if rgb is None else rgb
    painted = paint(ground, labels, truth=truth, kind=kind)
    against = Picture(shrink(painted, side), f"{name}: prediction against truth", "prediction against truth")
    if rgb is None:
        return (against,)
    # of two classes the only foreground gets a colour that means nothing else on the page
    alone = paint(rgb, truth * _GREEN if len(evaluation.classes) == 2 and kind == "classes" else truth, kind=kind)
    return Picture(shrink(rgb, side), name, "image"), Picture(shrink(alone, side), f"{name}: truth", "truth"), against


def _crop(rgb: Rgb, labels: np.ndarray, truth: np.ndarray, kind: Kind, box: Box, side: int) -> Rgb:
    """Labels and truth painted on the surroundings of a box, at most `side` pixels wide, its corners marked."""
    window = _window(box, labels.shape)
    small = shrink(rgb[window], side)
    # reduced before they are painted, so that outlines stay one pixel wide
    rows, columns = (
        ((np.arange(n) + 0.5) * whole / n).astype(int)
        for n, whole in zip(small.shape[:2], rgb[window].shape[:2], strict=True)
    )
    picked = [part[window][np.ix_(rows, columns)] for part in (labels, truth)]
    return _cornered(paint(small, picked[0], truth=picked[1], kind=kind), box, window)


def _cornered(picture: Rgb, box: Box, window: Region) -> Rgb:
    """Mark the corners of a box on the picture of a window, in place."""
    (top, bottom), (left, right) = (
        (
            max(0, int((low - start) * size / extent) - _CLEARANCE),
            min(size, -int((start - high) * size // extent) + _CLEARANCE) - 1,
        )
        for low, high, start, extent, size in zip(
            box[::2], box[1::2], origin_of(window), shape_of(window), picture.shape[:2], strict=True
        )
    )
    arm = min(bottom - top, right - left) // 4 + 1
    rows, columns = (
        np.r_[top : top + arm, bottom - arm + 1 : bottom + 1],
        np.r_[left : left + arm, right - arm + 1 : right + 1],
    )
    picture[np.ix_(rows, [left, right])] = MARK
    picture[np.ix_([top, bottom], columns)] = MARK
    return picture


def _window(box: Box, shape: tuple[int, ...]) -> Region:
    """The square around a box and what surrounds it, moved inside the image."""
    y0, y1, x0, x1 = box
    width = max(SMALL, max(y1 - y0, x1 - x0) + 2 * _SURROUNDINGS)

    def around(low: int, high: int, size: int) -> slice:
        start = max(0, min((low + high - width) // 2, size - width))
        return slice(start, min(size, start + width))

    return around(y0, y1, shape[0]), around(x0, x1, shape[1])


def _mismatches(name: str, arrays: Arrays, rgb: Rgb, threshold: float) -> tuple[Entry, ...]:
    """Connected mismatches of the warping error, marked on the thresholded map against the truth."""
    interior = arrays.labels.astype(np.float32) if arrays.foreground is None else arrays.foreground
    codes = isbi.warping_mismatches(arrays.truth, interior, threshold, ignore=arrays.ignore)
    proposal = isbi.binarize(interior, threshold, arrays.ignore).astype(np.int32)
    found = [
        (pixels, code, box) for code in range(1, len(MISMATCHES) + 1) for box, pixels, _ in _regions(codes == code)
    ]
    entries = []
    for pixels, code, box in heapq.nlargest(MOST_REGIONS, found):
        kind = MISMATCHES[code - 1].replace("_", " ")
        picture = _crop(rgb, proposal, arrays.truth, "classes", box, LARGE)
        marked = codes[_window(box, codes.shape)] == code
        picture[shrink(np.repeat(marked[..., None], 3, 2) * np.uint8(255), LARGE).any(2)] = CONFUSED
        entries.append(Entry(kind, pixels, Picture(picture, f"{name} · {_pixels(pixels)}", kind)))
    return tuple(entries)


def _suspicious(name: str, arrays: Arrays, crop: Callable[[Box, int], Rgb]) -> tuple[Entry, ...]:
    """Where the prediction is confident of another class than the truth, at least three pixels wide."""
    if arrays.foreground is not None:
        predicted = (arrays.foreground > 0.5).astype(np.int32)
        confidence, truth = np.maximum(arrays.foreground, 1 - arrays.foreground), (arrays.truth > 0).astype(np.int32)
    elif arrays.probabilities is not None:
        predicted, confidence, truth = arrays.probabilities.argmax(0), arrays.probabilities.max(0), arrays.truth
    else:
        return ()
    contradicts = (predicted != truth) & (confidence >= CONFIDENT)
    if arrays.hidden is not None:
        contradicts &= ~arrays.hidden
    # outlines that are a pixel off are no contradiction
    wide = ndimage.binary_opening(contradicts, np.ones((3, 3)))
    found = sorted(_regions(wide, confidence), key=lambda region: -region[1])[:MOST_REGIONS]
    entries = []
    for box, pixels, sure in found:
        caption = f"{name} · {_pixels(pixels)} · probability\N{NO-BREAK SPACE}{sure:.2f}"
        entries.append(Entry("suspicious", pixels * sure, Picture(crop(box, LARGE), caption, "contradiction")))
    return tuple(entries)


def _pixels(number: int) -> str:
    return f"{number}\N{NO-BREAK SPACE}px"


def _regions(mask: np.ndarray, values: np.ndarray | None = None) -> Iterator[tuple[Box, int, float]]:
    """Box, pixels and mean value of every 8-connected region."""
    numbered, n = ndimage.label(mask, np.ones((3, 3)))
    pixels = np.bincount(numbered.ravel(), minlength=n + 1)
    sums = np.bincount(numbered.ravel(), None if values is None else values.ravel(), minlength=n + 1)
    for number, (rows, columns) in enumerate(ndimage.find_objects(numbered), 1):
        box = (rows.start, rows.stop, columns.start, columns.stop)
        yield box, int(pixels[number]), float(sums[number] / pixels[number])


def by_kind(entries: Sequence[Entry]) -> dict[str, list[Picture]]:
    """Pictures of each kind in their order, the kind with the worst entry first."""
    found: dict[str, list[Picture]] = {}
    for entry in entries:
        found.setdefault(entry.kind, []).append(entry.picture)
    return found
