"""The atlas: every error of an evaluation as a crop, worst first, and what the images look like as a whole."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import ndimage

from septum.config import Kind
from septum.core.metrics import isbi
from septum.core.metrics.warping import MISMATCHES
from septum.core.overlay import CONFUSED, Rgb, paint, to_rgb
from septum.data.images import as_channels
from septum.engine.evaluate import WORKERS
from septum.engine.evaluation import Evaluation, ImageRecord
from septum.engine.object_errors import Box
from septum.engine.reading import Arrays
from septum.errors import ImageError
from septum.report.page import Picture, shrink

MOST = 5000  # crops of objects on one page; the rest is in the CSV
MOST_REGIONS = 300  # crops of mismatches, and of suspicious labels
MANY = 400  # from so many crops on they are small
SMALL, LARGE = 40, 96  # pixels, side of a crop
FEW_IMAGES = 4  # that are shown large
MOST_IMAGES = 30  # that are shown as a whole
CONFIDENT = 0.9  # probability from which a prediction that contradicts the truth is suspicious
_SURROUNDINGS = 6  # pixels shown around an error, at least


@dataclass(frozen=True)
class Entry:
    """One crop of the atlas."""

    kind: str
    rank: float  # the worst is the largest
    picture: Picture


@dataclass(frozen=True)
class Atlas:
    """Everything that can be seen of an evaluation; entries are in order, worst first."""

    objects: tuple[Entry, ...]
    mismatches: tuple[Entry, ...]
    suspicious: tuple[Entry, ...]
    wholes: tuple[Picture, ...]  # image, truth, prediction against truth, image by image
    n_objects: int  # errors there are, drawn or not


def make_atlas(evaluation: Evaluation) -> Atlas:
    """Read the images of an evaluation once more, one at a time, and cut out what is wrong."""
    ranked = sorted(
        (-error.pixels, k, n)
        for k, image in enumerate(evaluation.images)
        for n, error in enumerate(image.objects.errors)
    )
    drawn: dict[int, list[int]] = {}
    for _, k, n in ranked[:MOST]:
        drawn.setdefault(k, []).append(n)
    side = SMALL if len(ranked) > MANY else LARGE
    threshold = None if evaluation.isbi is None else evaluation.isbi.best["v_rand"].threshold
    whole_side = 1024 if len(evaluation.images) <= FEW_IMAGES else 512
    look = partial(_look, evaluation, drawn, side, threshold, whole_side)
    with ThreadPoolExecutor(WORKERS) as workers:
        looks = list(workers.map(look, range(len(evaluation.images))))
    objects, mismatches, suspicious = (
        heapq.nlargest(most, (entry for each in looks for entry in each[part]), key=lambda entry: entry.rank)
        for part, most in ((0, MOST), (1, MOST_REGIONS), (2, MOST_REGIONS))
    )
    wholes = tuple(picture for each in looks for picture in each[3])
    return Atlas(tuple(objects), tuple(mismatches), tuple(suspicious), wholes, len(ranked))


Look = tuple[list[Entry], list[Entry], list[Entry], list[Picture]]


def _look(
    evaluation: Evaluation, drawn: dict[int, list[int]], side: int, threshold: float | None, whole_side: int, k: int
) -> Look:
    """All crops of one image."""
    image, kind = evaluation.images[k], evaluation.kind
    arrays = image.arrays()
    rgb = _picture(image, arrays)
    crop = partial(_crop, rgb, arrays.labels, arrays.truth, kind)
    objects = []
    for n in drawn.get(k, []):
        error = image.objects.errors[n]
        which = " ".join(
            f"{what} {', '.join(map(str, numbers[:4]))}{' …' * (len(numbers) > 4)}"
            for what, numbers in (("truth", error.truth), ("predicted", error.prediction))
            if numbers
        )
        caption = ", ".join(filter(None, [image.name, error.said or which, f"{error.pixels} px"]))
        objects.append(Entry(error.kind, error.pixels, Picture(crop(error.box, side), caption, error.kind)))
    mismatches = [] if threshold is None or not image.isbi else _mismatches(image, arrays, rgb, threshold)
    wholes = _wholes(image, arrays, rgb, kind, whole_side) if k < MOST_IMAGES else []
    return objects, mismatches, _suspicious(image, arrays, crop), wholes


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


def _wholes(image: ImageRecord, arrays: Arrays, rgb: Rgb, kind: Kind, side: int) -> list[Picture]:
    against = shrink(paint(rgb, arrays.labels, truth=arrays.truth, kind=kind), side)
    compared = Picture(against, f"{image.name}: prediction against truth", "prediction against truth")
    if image.image is None:
        return [compared]
    truth = shrink(paint(rgb, arrays.truth, kind=kind), side)
    return [Picture(shrink(rgb, side), image.name, "image"), Picture(truth, f"{image.name}: truth", "truth"), compared]


def _window(box: Box, shape: tuple[int, ...], least: int) -> tuple[slice, slice]:
    """The square around a box and its surroundings, moved inside the image."""
    y0, y1, x0, x1 = box
    side = max(least, max(y1 - y0, x1 - x0) + 2 * _SURROUNDINGS)

    def around(low: int, high: int, size: int) -> slice:
        start = max(0, min((low + high - side) // 2, size - side))
        return slice(start, min(size, start + side))

    return around(y0, y1, shape[0]), around(x0, x1, shape[1])


def _crop(rgb: Rgb, labels: np.ndarray, truth: np.ndarray, kind: Kind, box: Box, side: int) -> Rgb:
    """Labels and truth painted on the surroundings of a box, at most `side` pixels wide."""
    window = _window(box, labels.shape, side)
    step = -(-max(rgb[window].shape[:2]) // side)
    # reduced before they are painted, so that outlines stay one pixel wide
    picked = (_picked(part[window], step) for part in (labels, truth))
    return paint(_reduced(rgb[window], step), next(picked), truth=next(picked), kind=kind)


def _painted(labels: np.ndarray, truth: np.ndarray, step: int) -> dict[str, np.ndarray]:
    middle = (slice(step // 2, None, step),) * 2
    rows, columns = labels.shape[0] // step, labels.shape[1] // step
    return {"labels": labels[middle][:rows, :columns], "truth": truth[middle][:rows, :columns]}


def _reduced(rgb: Rgb, step: int) -> Rgb:
    """Mean over blocks of `step` x `step` pixels; what is left over at the end is cut off."""
    rows, columns = rgb.shape[0] // step, rgb.shape[1] // step
    blocks = rgb[: rows * step, : columns * step].reshape(rows, step, columns, step, 3)
    return blocks.mean((1, 3)).astype(np.uint8)


def _mismatches(image: ImageRecord, arrays: Arrays, rgb: Rgb, threshold: float) -> list[Entry]:
    """Connected mismatches of the warping error, drawn on the thresholded map and the truth."""
    interior = arrays.labels.astype(np.float32) if arrays.foreground is None else arrays.foreground
    codes = isbi.warping_mismatches(arrays.truth, interior, threshold, ignore=arrays.ignore)
    proposal = isbi.binarize(interior.astype(np.float32), threshold, arrays.ignore).astype(np.int32)
    found = []
    for code, name in enumerate(MISMATCHES, 1):
        for box, pixels, _ in _regions(codes == code):
            found.append((pixels, name, box))
    entries = []
    for pixels, name, box in heapq.nlargest(MOST_REGIONS, found):
        window = _window(box, codes.shape, LARGE)
        small = _crop(rgb, proposal, arrays.truth, "classes", box, LARGE)
        step = -(-max(codes[window].shape) // LARGE)
        marked = codes[window] == MISMATCHES.index(name) + 1
        small[_any(marked, step)] = CONFUSED
        called = name.replace("_", " ")
        entries.append(Entry(called, pixels, Picture(small, f"{image.name}, {pixels} px", called)))
    return entries


def _any(mask: np.ndarray, step: int) -> np.ndarray:
    """Whether a block of `step` x `step` pixels holds a True."""
    rows, columns = mask.shape[0] // step, mask.shape[1] // step
    return np.asarray(mask[: rows * step, : columns * step].reshape(rows, step, columns, step).any((1, 3)))


def _suspicious(image: ImageRecord, arrays: Arrays, crop: Callable[[Box, int], Rgb]) -> list[Entry]:
    """Where the prediction is confident of another class than the truth, at least three pixels wide."""
    if arrays.foreground is not None:
        predicted = (arrays.foreground > 0.5).astype(np.int32)
        confidence, truth = np.maximum(arrays.foreground, 1 - arrays.foreground), (arrays.truth > 0).astype(np.int32)
    elif arrays.probabilities is not None:
        predicted, confidence, truth = arrays.probabilities.argmax(0), arrays.probabilities.max(0), arrays.truth
    else:
        return []
    contradicts = (predicted != truth) & (confidence >= CONFIDENT)
    if arrays.hidden is not None:
        contradicts &= ~arrays.hidden
    # outlines that are a pixel off are no contradiction
    wide = ndimage.binary_opening(contradicts, np.ones((3, 3)))
    found = sorted(_regions(wide, confidence), key=lambda region: -region[1])[:MOST_REGIONS]
    entries = []
    for box, pixels, sure in found:
        caption = f"{image.name}, {pixels} px, probability {sure:.2f}"
        entries.append(Entry("suspicious", pixels * sure, Picture(crop(box, LARGE), caption, "contradiction")))
    return entries


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
