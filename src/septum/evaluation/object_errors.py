"""Which objects of one image are matched, missed, invented, split, merged or mislabelled, and where they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from septum.core.labels import Mask
from septum.core.metrics import matching
from septum.core.metrics.contingency import contingency
from septum.evaluation.reading import number_components

Box = tuple[int, int, int, int]  # y0, y1, x0, x1: rows y0 to y1 - 1 and columns x0 to x1 - 1
KINDS = ("missed", "invented", "split", "merged", "mislabelled")


@dataclass(frozen=True)
class ObjectRow:
    """One true object, or one predicted object without a match: a row of the CSV."""

    kind: str  # matched, or one of KINDS
    matched: bool  # IoU of at least 0.5 and the same class
    truth: int | None  # label of the true object; of an invented object, the true one that overlaps it most
    prediction: int | None
    iou: float
    truth_pixels: int
    prediction_pixels: int
    truth_class: int | None  # None for instances
    prediction_class: int | None
    box: Box


@dataclass(frozen=True)
class ObjectError:
    """One error: its objects, its size in pixels and its place."""

    kind: str  # one of KINDS
    truth: tuple[int, ...]
    prediction: tuple[int, ...]
    pixels: int
    box: Box
    detail: str = ""  # of a mislabelled object: "class 1 as class 2"


@dataclass(frozen=True)
class Objects:
    """The objects of one image: their scores, one row each, and the errors, largest first."""

    scores: matching.MatchingScores
    n_truth: int  # the first rows are the true objects, the rest invented ones
    rows: tuple[ObjectRow, ...]
    errors: tuple[ObjectError, ...]

    def count(self, kind: str) -> int:
        """Return the number of errors of one kind."""
        return sum(error.kind == kind for error in self.errors)


def compare_instances(truth: np.ndarray, labels: np.ndarray, ignore: Mask | None) -> Objects:
    """Compare the objects of two (Y, X) instance label images."""
    found = matching.match(truth, labels, ignore=ignore)
    truth_boxes, prediction_boxes = boxes(truth), boxes(labels)
    rows = [
        ObjectRow(
            row.kind,
            row.matched,
            row.truth,
            row.prediction,
            row.iou,
            row.truth_pixels,
            row.prediction_pixels,
            None,
            None,
            truth_boxes[row.truth] if k < found.scores.n_truth else prediction_boxes[row.prediction],  # type: ignore[index]
        )
        for k, row in enumerate(found.objects)
    ]
    errors = [
        ObjectError(
            e.kind,
            e.truth,
            e.prediction,
            e.pixels,
            _union([*map(truth_boxes.get, e.truth), *map(prediction_boxes.get, e.prediction)]),
        )
        for e in found.errors
    ]
    return Objects(found.scores, found.scores.n_truth, tuple(rows), tuple(errors))


def compare_components(truth: np.ndarray, labels: np.ndarray, ignore: Mask | None, values: Sequence[int]) -> Objects:
    """Compare the 4-connected components of two (Y, X) class images; each component is an object with a class.

    A component is mislabelled if more than half of it has one other class (not background) in the other image. The
    other kinds of error are counted without the mislabelled components. ``values`` are the numbers that stand for the
    classes 0, 1, ... in the truth file.
    """
    true_objects, predicted_objects = number_components(truth, ignore), number_components(labels, ignore)
    found = compare_instances(true_objects, predicted_objects, ignore)
    true_classes, predicted_classes = _class_of(true_objects, truth), _class_of(predicted_objects, labels)
    wrong_truth = _mislabelled(true_objects, true_classes, labels)
    wrong_prediction = _mislabelled(predicted_objects, predicted_classes, truth)
    true_boxes = boxes(true_objects)
    errors = [
        ObjectError(
            "mislabelled",
            (number,),
            (),
            pixels,
            true_boxes[number],
            f"class {values[true_classes[number]]} as class {values[predicted]}",
        )
        for number, (predicted, pixels) in wrong_truth.items()
    ]
    for error in found.errors:
        remaining = (set(error.truth) - set(wrong_truth), set(error.prediction) - set(wrong_prediction))
        fewest = {"missed": (1, 0), "invented": (0, 1), "split": (1, 2), "merged": (2, 1)}[error.kind]
        if len(remaining[0]) >= fewest[0] and len(remaining[1]) >= fewest[1]:
            errors.append(error)
    rows = []
    for k, row in enumerate(found.rows):
        truth_class = None if row.truth is None else int(true_classes[row.truth])
        prediction_class = None if row.prediction is None else int(predicted_classes[row.prediction])
        wrong = row.truth in wrong_truth if k < found.n_truth else row.prediction in wrong_prediction
        rows.append(
            ObjectRow(
                "mislabelled" if wrong else row.kind,
                row.matched and not wrong,
                row.truth,
                row.prediction,
                row.iou,
                row.truth_pixels,
                row.prediction_pixels,
                None if truth_class is None else values[truth_class],
                None if prediction_class is None else values[prediction_class],
                row.box,
            )
        )
    errors.sort(key=lambda error: -error.pixels)
    return Objects(found.scores, found.n_truth, tuple(rows), tuple(errors))


def boxes(labels: np.ndarray) -> dict[int, Box]:
    """Return the bounding box of every object in a (Y, X) label image.

    Examples
    --------
    >>> boxes(np.array([[0, 7, 7], [0, 0, 7]]))
    {7: (0, 2, 1, 3)}
    """
    numbers = np.unique(labels)
    numbers = numbers[numbers != 0]
    sides = np.tile(np.array([labels.shape[0], 0, labels.shape[1], 0]), (len(numbers), 1))
    _stretch(labels, numbers, sides)
    return {int(number): (y0, y1, x0, x1) for number, (y0, y1, x0, x1) in zip(numbers, sides.tolist(), strict=True)}


@njit(cache=True, nogil=True)
def _stretch(labels, numbers, sides):  # type: ignore[no-untyped-def]
    """Extend the sides (y0, y1, x0, x1) of every box to cover its object, one horizontal run at a time."""
    height, width = labels.shape
    for y in range(height):
        x = 0
        while x < width:
            number, start = labels[y, x], x
            while x < width and labels[y, x] == number:
                x += 1
            if number != 0:
                k = np.searchsorted(numbers, number)
                sides[k, 0], sides[k, 1] = min(sides[k, 0], y), y + 1
                sides[k, 2], sides[k, 3] = min(sides[k, 2], start), max(sides[k, 3], x)


def _union(parts: Sequence[Box | None]) -> Box:
    y0, y1, x0, x1 = zip(*(part for part in parts if part is not None), strict=True)
    return min(y0), max(y1), min(x0), max(x1)


def _class_of(components: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return an array that maps the number of a component to its class."""
    class_of: np.ndarray = np.zeros(components.max(initial=0) + 1, classes.dtype)
    class_of[components] = classes
    return class_of


def _mislabelled(components: np.ndarray, own_classes: np.ndarray, classes: np.ndarray) -> dict[int, tuple[int, int]]:
    """Map components whose larger part has another class in the other image to that class and its pixels."""
    table = contingency(components, classes)
    most = 2 * table.overlap > table.truth_pixels[table.i]
    number, other, pixels = table.truth_ids[table.i[most]], table.prediction_ids[table.j[most]], table.overlap[most]
    return {int(k): (int(c), int(n)) for k, c, n in zip(number, other, pixels, strict=True) if own_classes[k] != c}
