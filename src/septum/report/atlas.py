"""The atlas: crops of every error of an evaluation, largest first, and overviews of the whole images."""

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
from septum.report.pictures import shrink
from septum.report.sections import Picture

MOST_CROPS = 5000  # crops of objects on one page; the CSV lists all
MOST_REGIONS = 300  # crops of mismatches; as many of suspicious labels
SMALL_CROPS_ABOVE = 400  # with more crops than this, all are small
SMALL_SIDE, LARGE_SIDE = 40, 96  # pixels, side of a crop
FEW_IMAGES = 4  # up to this number, whole images are shown large
MOST_IMAGES = 30  # whole images on the page
CONFIDENT = 0.9  # probability above which a contradiction between prediction and truth is suspicious
_SURROUNDINGS = 6  # pixels shown around an error, at least
_CLEARANCE = 2  # pixels between an error and the marks at its corners
_MASK_COLOUR = 3  # class number whose colour has no other meaning on the page
_LONGEST_NAME = 28  # characters of an image name under a picture


@dataclass(frozen=True)
class Crop:
    """A crop around one error."""

    kind: str
    rank: float  # crops are sorted by it, highest first
    picture: Picture


@dataclass(frozen=True)
class Atlas:
    """The pictures of one image, or of all; crops of the largest errors first."""

    objects: tuple[Crop, ...]
    mismatches: tuple[Crop, ...]  # of the warping error
    suspicious: tuple[Crop, ...]  # labels contradicted by a confident prediction
    whole_images: tuple[Picture, ...]  # image, truth, prediction against truth


def make_atlas(evaluation: Evaluation) -> Atlas:
    """Read the images of an evaluation again, a few at a time, and crop what is wrong."""
    errors = [(k, error) for k, image in enumerate(evaluation.images) for error in image.objects.errors]
    shown: dict[int, list[ObjectError]] = {}  # the largest errors, by image
    for k, error in sorted(errors, key=lambda item: -item[1].pixels)[:MOST_CROPS]:
        shown.setdefault(k, []).append(error)
    side = SMALL_SIDE if len(errors) > SMALL_CROPS_ABOVE else LARGE_SIDE
    whole_side = 1024 if len(evaluation.images) <= FEW_IMAGES else 512
    threshold = mismatch_threshold(evaluation)
    names = short_names([image.name for image in evaluation.images])

    def crops_of_image(k: int) -> Atlas:
        image, name = evaluation.images[k], names[k]
        arrays = image.arrays()
        rgb = _screen_image(image, arrays)
        crop = partial(_crop, rgb, arrays.labels, arrays.truth, evaluation.kind)
        whole_images = partial(_whole_image, name, None if image.image is None else rgb, arrays, evaluation)
        return Atlas(
            tuple(_object_crop(name, error, crop(error.box, side)) for error in shown.get(k, [])),
            _mismatches(name, arrays, rgb, threshold) if threshold is not None and image.isbi else (),
            _suspicious(name, arrays, crop),
            whole_images(whole_side) if k < MOST_IMAGES else (),
        )

    with ThreadPoolExecutor(WORKERS) as workers:
        parts = list(workers.map(crops_of_image, range(len(evaluation.images))))
    return Atlas(
        _largest((crop for part in parts for crop in part.objects), MOST_CROPS),
        _largest((crop for part in parts for crop in part.mismatches), MOST_REGIONS),
        _largest((crop for part in parts for crop in part.suspicious), MOST_REGIONS),
        tuple(picture for part in parts for picture in part.whole_images),
    )


def mismatch_threshold(evaluation: Evaluation) -> float | None:
    """Return the threshold of the best warping error; of the best V_Rand if the maps are empty at the former."""
    if evaluation.isbi is None:
        return None
    best = evaluation.isbi.best["warping_error"].threshold
    empty = any(row.threshold == best and row.foreground_fraction == 0 for row in evaluation.isbi.per_threshold)
    return evaluation.isbi.best["v_rand"].threshold if empty else best


def short_names(names: Sequence[str]) -> list[str]:
    """Shorten names of more than 28 characters for captions to the part in which they differ.

    Examples
    --------
    >>> short_names(["a", "2024-03-17_HeLa_40x_position_01_projected", "2024-03-17_HeLa_40x_position_02_projected"])
    ['a', '…_40x_position_01_projected', '…_40x_position_02_projected']
    """
    long = [name for name in names if len(name) > _LONGEST_NAME]
    differs = next((k for k, letters in enumerate(zip(*long, strict=False)) if len(set(letters)) > 1), 0)
    short = [_excerpt(name, differs) if len(name) > _LONGEST_NAME else name for name in names]
    return short if len(set(short)) == len(set(names)) else list(names)


def _excerpt(name: str, place: int) -> str:
    """Return the part of a long name around a position."""
    room = _LONGEST_NAME - 2
    start = max(0, min(place - room // 2, len(name) - room))
    return "…" * (start > 0) + name[start : start + room] + "…" * (start + room < len(name))


def _largest(crops: Iterable[Crop], most: int) -> tuple[Crop, ...]:
    return tuple(heapq.nlargest(most, crops, key=lambda crop: crop.rank))


def _object_crop(name: str, error: ObjectError, picture: Rgb) -> Crop:
    objects = ", ".join(
        f"{what} {', '.join(map(str, numbers[:4]))}{' …' * (len(numbers) > 4)}"
        for what, numbers in (("truth", error.truth), ("predicted", error.prediction))
        if numbers
    )
    caption = f"{name} · {error.detail or objects} · {_pixels(error.pixels)}"
    return Crop(error.kind, error.pixels, Picture(picture, caption, error.kind))


def _screen_image(image: ImageRecord, arrays: Arrays) -> Rgb:
    """Return the image as an (Y, X, 3) picture, black if there is none."""
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


def _whole_image(name: str, rgb: Rgb | None, arrays: Arrays, evaluation: Evaluation, side: int) -> tuple[Picture, ...]:
    """Return pictures of image, truth, and prediction against truth; without an image only the last, on black."""
    kind, labels, truth = evaluation.kind, arrays.labels, arrays.truth
    ground = np.zeros((*truth.shape, 3), np.uint8) if rgb is None else rgb
    painted = paint(ground, labels, truth=truth, kind=kind)
    against = Picture(shrink(painted, side), f"{name}: prediction against truth", "prediction against truth")
    if rgb is None:
        return (against,)
    is_mask = len(evaluation.classes) == 2 and kind == "classes"
    truth_only = paint(rgb, truth * _MASK_COLOUR if is_mask else truth, kind=kind)
    return (
        Picture(shrink(rgb, side), name, "image"),
        Picture(shrink(truth_only, side), f"{name}: truth", "truth"),
        against,
    )


def _crop(rgb: Rgb, labels: np.ndarray, truth: np.ndarray, kind: Kind, box: Box, side: int) -> Rgb:
    """Return the surroundings of a box, at most `side` pixels wide, with labels, truth and the box marked."""
    window = _window(box, labels.shape)
    small = shrink(rgb[window], side)
    # shrunk before painting, so that outlines stay one pixel wide
    rows, columns = (
        ((np.arange(n) + 0.5) * whole / n).astype(int)
        for n, whole in zip(small.shape[:2], rgb[window].shape[:2], strict=True)
    )
    picked = [part[window][np.ix_(rows, columns)] for part in (labels, truth)]
    return _mark_corners(paint(small, picked[0], truth=picked[1], kind=kind), box, window)


def _mark_corners(picture: Rgb, box: Box, window: Region) -> Rgb:
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
    """Return a square that contains a box and its surroundings and lies inside the image."""
    y0, y1, x0, x1 = box
    width = max(SMALL_SIDE, max(y1 - y0, x1 - x0) + 2 * _SURROUNDINGS)

    def around(low: int, high: int, size: int) -> slice:
        start = max(0, min((low + high - width) // 2, size - width))
        return slice(start, min(size, start + width))

    return around(y0, y1, shape[0]), around(x0, x1, shape[1])


def _mismatches(name: str, arrays: Arrays, rgb: Rgb, threshold: float) -> tuple[Crop, ...]:
    """Return crops of the connected mismatches of the warping error, on the thresholded map against the truth."""
    interior = arrays.labels.astype(np.float32) if arrays.foreground is None else arrays.foreground
    codes = isbi.warping_mismatches(arrays.truth, interior, threshold, ignore=arrays.ignore)
    proposal = isbi.binarize(interior, threshold, arrays.ignore).astype(np.int32)
    found = [
        (pixels, code, box) for code in range(1, len(MISMATCHES) + 1) for box, pixels, _ in _regions(codes == code)
    ]
    crops = []
    for pixels, code, box in heapq.nlargest(MOST_REGIONS, found):
        kind = MISMATCHES[code - 1].replace("_", " ")
        picture = _crop(rgb, proposal, arrays.truth, "classes", box, LARGE_SIDE)
        marked = codes[_window(box, codes.shape)] == code
        picture[shrink(np.repeat(marked[..., None], 3, 2) * np.uint8(255), LARGE_SIDE).any(2)] = CONFUSED
        crops.append(Crop(kind, pixels, Picture(picture, f"{name} · {_pixels(pixels)}", kind)))
    return tuple(crops)


def _suspicious(name: str, arrays: Arrays, crop: Callable[[Box, int], Rgb]) -> tuple[Crop, ...]:
    """Return crops where the prediction is confident of another class than the truth, at least three pixels wide."""
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
    # outlines that are off by a pixel do not count
    wide = ndimage.binary_opening(contradicts, np.ones((3, 3)))
    found = sorted(_regions(wide, confidence), key=lambda region: -region[1])[:MOST_REGIONS]
    crops = []
    for box, pixels, mean_probability in found:
        caption = f"{name} · {_pixels(pixels)} · probability\N{NO-BREAK SPACE}{mean_probability:.2f}"
        crops.append(
            Crop("suspicious", pixels * mean_probability, Picture(crop(box, LARGE_SIDE), caption, "contradiction"))
        )
    return tuple(crops)


def _pixels(number: int) -> str:
    return f"{number}\N{NO-BREAK SPACE}px"


def _regions(mask: np.ndarray, values: np.ndarray | None = None) -> Iterator[tuple[Box, int, float]]:
    """Yield the box, number of pixels and mean value of every 8-connected region."""
    regions, n = ndimage.label(mask, np.ones((3, 3)))
    pixels = np.bincount(regions.ravel(), minlength=n + 1)
    sums = np.bincount(regions.ravel(), None if values is None else values.ravel(), minlength=n + 1)
    for number, (rows, columns) in enumerate(ndimage.find_objects(regions), 1):
        box = (rows.start, rows.stop, columns.start, columns.stop)
        yield box, int(pixels[number]), float(sums[number] / pixels[number])


def pictures_by_kind(crops: Sequence[Crop]) -> dict[str, list[Picture]]:
    """Return the pictures of each kind in their order."""
    found: dict[str, list[Picture]] = {}
    for crop in crops:
        found.setdefault(crop.kind, []).append(crop.picture)
    return found
