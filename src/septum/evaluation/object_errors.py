"""Which objects of one image are found, missed, invented, split, merged or mislabelled, and where they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from septum.core.metrics import matching
from septum.core.metrics.checks import Mask
from septum.core.metrics.contingency import contingency
from septum.evaluation.reading import pieces

Box = tuple[int, int, int, int]  # rows y0..y1 and columns x0..x1, the ends not included
KINDS = ("missed", "invented", "split", "merged", "mislabelled")


@dataclass(frozen=True)
class ObjectRow:
    """One true object, or one predicted object without a true partner: a row of the CSV."""

    kind: str  # matched, or one of KINDS
    matched: bool  # with IoU of at least 0.5, and of the same class
    truth: int | None  # its number, or that of the object which overlaps it best
    prediction: int | None
    iou: float
    truth_pixels: int
    prediction_pixels: int
    truth_class: int | None  # None for instances
    prediction_class: int | None
    box: Box


@dataclass(frozen=True)
class ObjectError:
    """One error: the objects that take part in it, what it costs, where it is."""

    kind: str  # one of KINDS
    truth: tuple[int, ...]
    prediction: tuple[int, ...]
    pixels: int
    box: Box
    said: str = ""  # of a mislabelled one: "class 1 as class 2"


@dataclass(frozen=True)
class Objects:
    """The objects of one image: scores, a row each, and the errors, worst first."""

    scores: matching.Scores
    n_truth: int  # rows of true objects; the others follow
    rows: tuple[ObjectRow, ...]
    errors: tuple[ObjectError, ...]

    def count(self, kind: str) -> int:
        """How many errors there are of a kind."""
        return sum(error.kind == kind for error in self.errors)


def compare_instances(truth: np.ndarray, labels: np.ndarray, ignore: Mask | None) -> Objects:
    """Compare the objects of two (Y, X) instance label images."""
    found = matching.match(truth, labels, ignore=ignore)
    own, other = boxes(truth), boxes(labels)
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
            own[row.truth] if k < found.scores.n_truth else other[row.prediction],  # type: ignore[index]
        )
        for k, row in enumerate(found.objects)
    ]
    errors = [
        ObjectError(
            e.kind, e.truth, e.prediction, e.pixels, _union([*map(own.get, e.truth), *map(other.get, e.prediction)])
        )
        for e in found.errors
    ]
    return Objects(found.scores, found.scores.n_truth, tuple(rows), tuple(errors))


def compare_pieces(truth: np.ndarray, labels: np.ndarray, ignore: Mask | None, names: Sequence[int]) -> Objects:
    """Compare the 4-connected pieces of two (Y, X) class images, each piece an object with a class.

    A piece is mislabelled if more than half of it is of one other class (not background) in the other image; the
    other errors are those that are left when mislabelled pieces are set aside. ``names`` are the numbers that the
    classes 0, 1, ... have in the truth.
    """
    own, other = pieces(truth, ignore), pieces(labels, ignore)
    found = compare_instances(own, other, ignore)
    own_class, other_class = _class_of(own, truth), _class_of(other, labels)
    wrong_truth = _mislabelled(own, own_class, labels, ignore)
    wrong_prediction = _mislabelled(other, other_class, truth, ignore)
    own_boxes = boxes(own)
    errors = [
        ObjectError(
            "mislabelled",
            (piece,),
            (),
            pixels,
            own_boxes[piece],
            f"class {names[own_class[piece]]} as class {names[given]}",
        )
        for piece, (given, pixels) in wrong_truth.items()
    ]
    for error in found.errors:
        left = (set(error.truth) - set(wrong_truth), set(error.prediction) - set(wrong_prediction))
        fewest = {"missed": (1, 0), "invented": (0, 1), "split": (1, 2), "merged": (2, 1)}[error.kind]
        if len(left[0]) >= fewest[0] and len(left[1]) >= fewest[1]:
            errors.append(error)
    rows = []
    for k, row in enumerate(found.rows):
        truth_class = None if row.truth is None else int(own_class[row.truth])
        prediction_class = None if row.prediction is None else int(other_class[row.prediction])
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
                None if truth_class is None else names[truth_class],
                None if prediction_class is None else names[prediction_class],
                row.box,
            )
        )
    errors.sort(key=lambda error: -error.pixels)
    return Objects(found.scores, found.n_truth, tuple(rows), tuple(errors))


def boxes(labels: np.ndarray) -> dict[int, Box]:
    """Smallest box around every object of a (Y, X) label image.

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
    """Stretch the sides (y0, y1, x0, x1) of every box over its object, run by run."""
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


def _class_of(numbered: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Class of every piece, by its number."""
    of: np.ndarray = np.zeros(numbered.max(initial=0) + 1, classes.dtype)
    of[numbered] = classes
    return of


def _mislabelled(
    numbered: np.ndarray, own_class: np.ndarray, classes: np.ndarray, ignore: Mask | None
) -> dict[int, tuple[int, int]]:
    """Pieces most of which are another class in the other image: that class, and how many pixels."""
    table = contingency(numbered, classes, ignore)
    most = 2 * table.overlap > table.truth_pixels[table.i]
    piece, given, pixels = table.truth_ids[table.i[most]], table.prediction_ids[table.j[most]], table.overlap[most]
    return {int(p): (int(g), int(n)) for p, g, n in zip(piece, given, pixels, strict=True) if own_class[p] != g}
