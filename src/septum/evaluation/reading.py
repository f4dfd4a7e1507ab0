"""What the numbers of predictions and truth mean, decided once for all images; then one image at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from scipy import ndimage
from skimage.measure import label

from septum.choices import Kind
from septum.core.metrics.checks import Mask, check_probabilities, check_same_shape
from septum.core.metrics.contingency import contingency
from septum.data.kind import MOST_CLASSES, decide_kind
from septum.data.labels import grey_edges
from septum.data.markers import unannotated
from septum.errors import ConfigError, DatasetError, ImageError
from septum.evaluation.cases import Case, Cases, numbers


@dataclass(frozen=True)
class Reading:
    """How every image of an evaluation is read."""

    kind: Kind
    values: tuple[int, ...]  # the numbers in the truth of class 0, 1, ...; of instances and of two classes (0, 1)
    maps: bool = False  # predictions are probabilities rather than labels
    has_probabilities: bool = False  # there are some, alone or beside labels
    by_index: bool = False  # predictions number classes 0, 1, ... whatever the truth's numbers
    truth_pieces: bool = False  # each 4-connected piece is one object
    prediction_pieces: bool = False
    invert: bool = False

    @property
    def two_classes(self) -> bool:
        """Whether the truth is a mask: foreground is what is not 0."""
        return self.kind == "classes" and len(self.values) == 2 and self.values[0] == 0


@dataclass(frozen=True, eq=False)
class Arrays:
    """One image, ready to be scored."""

    truth: np.ndarray  # (Y, X) int32: instances, or classes 0..K-1; 0 where ignored
    labels: np.ndarray  # the same, predicted; also 0 where ignored
    foreground: np.ndarray | None  # (Y, X) float32 probability of what is not 0
    probabilities: np.ndarray | None  # (K, Y, X) float32, of three classes or more
    ignore: Mask | None  # (Y, X), takes part in nothing
    unannotated: Mask | None  # (Y, X), background that may hold cells: no object is invented there

    @property
    def hidden(self) -> Mask | None:
        """Where pixels and objects are not compared."""
        parts = [mask for mask in (self.ignore, self.unannotated) if mask is not None]
        return np.logical_or.reduce(parts) if parts else None


@dataclass(frozen=True)
class Survey:
    """What was decided, and what must be said of it."""

    reading: Reading
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


class _Truths(Sequence[np.ndarray]):
    """All true label images, read one at a time."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self.cases = cases

    def __len__(self) -> int:
        return len(self.cases)

    @overload
    def __getitem__(self, k: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, k: slice) -> Sequence[np.ndarray]: ...
    def __getitem__(self, k: int | slice) -> np.ndarray | Sequence[np.ndarray]:
        return _Truths(self.cases[k]) if isinstance(k, slice) else _truth(self.cases[k])

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(_truth, self.cases)


@dataclass(frozen=True)
class _Seen:
    """What all images hold; a name stands for the first file of its kind, "" for none."""

    truth: frozenset[int]
    labels: frozenset[int]  # of predictions that hold whole numbers
    fractions: str  # a prediction that holds fractions or several maps
    soft: str  # one of whole numbers with soft edges
    alone: str  # probabilities without labels
    beside: bool  # there are probabilities beside labels

    @property
    def has_probabilities(self) -> bool:
        return bool(self.fractions or self.alone or self.beside)


def survey(found: Cases, kind: Kind | None = None, *, invert: bool = False) -> Survey:
    """Look at all images once and decide how they are read.

    Kind: as told; instances in challenge folders; else read from the truth (`septum.data.kind.decide_kind`).
    Predictions are maps if some hold fractions, or if the truth has two values and they have soft edges.

    Raises
    ------
    ImageError, DatasetError
        The truth has nothing to find, an image cannot be read, or labels are not whole numbers.
    ConfigError
        `invert` where there are no two classes.
    """
    seen = _look(found.images)
    if not max(seen.truth, default=0) > 0:
        where = " outside the ignored pixels" if any(case.ignore is not None for case in found.images) else ""
        raise ImageError(
            f"the truth has no object and no foreground in any image{where}, so no score is defined; "
            "give at least one image with something in it"
        )
    told = kind is not None
    if kind is not None:
        reason = f"{kind}, as told"
    elif found.challenge:
        kind, reason = "instances", "instances, since the Cell Tracking Challenge numbers cells"
    else:
        kind, reason = decide_kind(_Truths(found.images))
    two_classes = kind == "classes" and len(seen.truth | {0}) == 2
    if invert and not two_classes:
        has = "numbers instances" if kind == "instances" else f"has {len(seen.truth)} classes"
        raise ConfigError(f"--invert is for maps and masks of two classes, but the truth {has}; leave it out")
    if kind == "instances":
        decided = _instances(seen, masks_told=told and not found.challenge, challenge=found.challenge)
    elif two_classes:
        decided = _mask(seen, invert)
    else:
        decided = _several_classes(seen)
    return Survey(decided.reading, (reason, *decided.notes), decided.warnings)


def _look(cases: Sequence[Case]) -> _Seen:
    truth_values: set[int] = set()
    label_values: set[int] = set()
    fractions = soft = alone = ""
    for case in cases:
        truth = case.truth()
        ignore = _ignored(case, truth)
        truth_values.update(_counted(truth, ignore))
        if case.prediction is None:
            alone = alone or case.prediction_name
            continue
        stored = _shown(case.prediction(), ignore)
        if stored.dtype.kind == "f" and (len(stored) > 1 or not np.array_equal(stored, np.round(stored))):
            fractions = fractions or case.prediction_name
            continue
        labels = numbers(stored, case.prediction_name)
        label_values.update(_counted(labels, ignore))
        if len(label_values) > 2 and grey_edges(labels):
            soft = soft or case.prediction_name
    beside = any(case.probabilities is not None for case in cases)
    return _Seen(frozenset(truth_values), frozenset(label_values), fractions, soft, alone, beside)


def _instances(seen: _Seen, *, masks_told: bool, challenge: bool) -> Survey:
    if seen.fractions or seen.alone:
        raise ImageError(
            f"{seen.fractions or seen.alone} holds fractions, but the truth numbers instances and labels are whole "
            "numbers; give label images, such as the a_labels.tif of septum predict"
        )
    truth_pieces = masks_told and len(seen.truth | {0}) <= 2
    prediction_pieces = not challenge and len(seen.labels | {0}) <= 2
    notes, warnings = [], _soft(seen)
    if truth_pieces:
        notes.append("each 4-connected piece of the true masks is one object")
    elif prediction_pieces and len(seen.labels) == 2:
        warnings.append(
            f"the predictions hold only {' and '.join(map(str, sorted(seen.labels)))}, although the truth numbers "
            "instances: each 4-connected piece is taken as one object"
        )
    reading = Reading(
        "instances",
        (0, 1),
        has_probabilities=seen.has_probabilities,
        truth_pieces=truth_pieces,
        prediction_pieces=prediction_pieces,
    )
    return Survey(reading, tuple(notes), tuple(warnings))


def _mask(seen: _Seen, invert: bool) -> Survey:
    maps = bool(seen.fractions or seen.soft or (seen.alone and not seen.labels))
    notes = []
    if seen.soft and not seen.fractions:
        notes.append(f"predictions such as {seen.soft} have soft edges: read as maps of probabilities, 255 being 1")
    if not maps and len(seen.labels | {0}) > 2:
        notes.append(f"the predictions hold {len(seen.labels)} numbers: whatever is not 0 is foreground")
    if invert:
        notes.append("predictions inverted, as told")
    reading = Reading("classes", (0, 1), maps, has_probabilities=maps or seen.has_probabilities, invert=invert)
    return Survey(reading, tuple(notes), ())


def _several_classes(seen: _Seen) -> Survey:
    if len(seen.truth) > MOST_CLASSES:
        raise DatasetError(
            f"the truth holds {len(seen.truth)} numbers, too many for classes (at most {MOST_CLASSES}); "
            "these are instances: leave out --kind classes"
        )
    maps = bool(seen.fractions or (seen.alone and not seen.labels))
    by_index = not seen.labels <= seen.truth and seen.labels <= set(range(len(seen.truth)))
    values = tuple(sorted(seen.truth if by_index or maps else seen.truth | seen.labels))
    notes = []
    if by_index:
        listed = ", ".join(f"{k} is {value}" for k, value in enumerate(values))
        notes.append(f"the predictions number classes in order, as septum predict does: {listed} in the truth")
    warnings = () if maps else tuple(_soft(seen))
    return Survey(Reading("classes", values, maps, seen.has_probabilities, by_index), tuple(notes), warnings)


def _soft(seen: _Seen) -> list[str]:
    """Warn of label images that look like maps."""
    if not seen.soft:
        return []
    return [
        f"predictions such as {seen.soft} have soft edges, like maps of probabilities or labels that were resized "
        "with interpolation: the numbers in between count as labels of their own"
    ]


def read(case: Case, reading: Reading) -> Arrays:
    """Read one image as was decided; ImageError for shapes that differ and probabilities that are none."""
    truth = case.truth()
    ignore = _ignored(case, truth)
    stored = None if case.prediction is None else case.prediction()
    chances = _probabilities(case, stored if reading.maps else None, ignore)
    for name, channels in ((case.prediction_name, stored), (f"the probabilities of {case.name}", chances)):
        if channels is not None:
            check_same_shape(name, channels[0], truth, case.truth_name)
    unannotated = _unannotated(case, truth)
    foreground = probabilities = None
    if chances is not None and (reading.kind == "instances" or reading.two_classes):
        foreground = chances[-1] if len(chances) <= 2 else 1 - chances[0]  # one map, or one per class
        foreground = 1 - foreground if reading.invert else foreground
    elif chances is not None:
        probabilities = _per_class(chances, reading, case.prediction_name)
    if stored is not None and not reading.maps:
        labels = _classes(numbers(stored, case.prediction_name), reading, reading.by_index)
        labels = 1 - labels if reading.invert else labels
    elif foreground is not None:
        labels = (foreground > 0.5).astype(np.int32)
    else:
        assert probabilities is not None  # a prediction is labels or maps
        labels = probabilities.argmax(0).astype(np.int32)
    truth, labels = _shown(_classes(truth, reading), ignore), _shown(labels, ignore)
    if reading.truth_pieces:
        truth = pieces((truth > 0).astype(np.int32), None)
    if reading.prediction_pieces:
        labels = pieces((labels > 0).astype(np.int32), None)
    return Arrays(truth, labels, foreground, probabilities, ignore, unannotated)


def _classes(labels: np.ndarray, reading: Reading, by_index: bool = False) -> np.ndarray:
    """Class numbers as in the files -> 0..K-1; instances as they are."""
    if reading.two_classes:
        return np.asarray(labels != 0, np.int32)
    if reading.kind == "instances" or by_index:
        return labels
    index: np.ndarray = np.searchsorted(reading.values, labels).astype(np.int32)
    return index


def _per_class(chances: np.ndarray, reading: Reading, name: str) -> np.ndarray:
    if len(chances) != len(reading.values):
        maps = "1 map" if len(chances) == 1 else f"{len(chances)} maps"
        raise ImageError(
            f"{name} has {maps} of probabilities, but the truth has {len(reading.values)} classes; "
            "give one map per class, background first"
        )
    return chances


def _unannotated(case: Case, truth: np.ndarray) -> Mask | None:
    """The background of a challenge frame that may be an unannotated cell."""
    if case.markers is None:
        return None
    markers = case.markers()
    check_same_shape("the markers", markers, truth, case.truth_name)
    return unannotated(truth, markers)


def without_unannotated(labels: np.ndarray, truth: np.ndarray, unannotated: Mask) -> np.ndarray:
    """Leave out predicted objects that lie by more than half where cells are not outlined, and match none that is.

    Examples
    --------
    >>> truth, labels = np.array([[1, 1, 0, 0, 0]]), np.array([[4, 4, 4, 0, 5]])
    >>> without_unannotated(labels, truth, truth == 0)
    array([[4, 4, 4, 0, 0]])
    """
    table = contingency(labels, unannotated)
    mostly = table.truth_ids[table.i[2 * table.overlap > table.truth_pixels[table.i]]]
    pairs = contingency(truth, labels, unannotated)
    matched = pairs.prediction_ids[pairs.j[pairs.iou >= 0.5]]
    annotated: np.ndarray = np.where(np.isin(labels, np.setdiff1d(mostly, matched)), 0, labels)
    return annotated


def pieces(classes: np.ndarray, ignore: Mask | None) -> np.ndarray:
    """Number the 4-connected pieces of every class but 0; ignored pixels belong to none and connect none.

    Examples
    --------
    >>> pieces(np.array([[1, 1, 2, 0, 2]]), None)
    array([[1, 1, 2, 0, 3]], dtype=int32)
    """
    seen = classes if ignore is None else np.where(ignore, 0, classes)
    if seen.max(initial=0) <= 1:
        found: np.ndarray = ndimage.label(seen)[0]  # in a third of the memory
        return found
    numbered: np.ndarray = label(seen, background=0, connectivity=1)
    return numbered.astype(np.int32)


def _truth(case: Case) -> np.ndarray:
    """The true labels, 0 where ignored."""
    truth = case.truth()
    return _shown(truth, _ignored(case, truth))


def _shown(pixels: np.ndarray, ignore: Mask | None) -> np.ndarray:
    """(Y, X) or (C, Y, X) pixels, 0 where ignored."""
    if ignore is None or pixels.shape[-2:] != ignore.shape:  # `read` says so if they differ
        return pixels
    shown: np.ndarray = np.where(ignore, 0, pixels)
    return shown


def _counted(labels: np.ndarray, ignore: Mask | None) -> set[int]:
    """The numbers of all pixels that are not ignored; 0 is one of them only if it is there."""
    seen = labels if ignore is None or labels.shape != ignore.shape else labels[~ignore]
    return set(np.unique(seen).tolist())


def _ignored(case: Case, truth: np.ndarray) -> Mask | None:
    if case.ignore is None:
        return None
    ignore: Mask = case.ignore() != 0
    check_same_shape(f"the ignore mask of {case.name}", ignore, truth, case.truth_name)
    return ignore


def _probabilities(case: Case, stored: np.ndarray | None, ignore: Mask | None) -> np.ndarray | None:
    """(K, Y, X) float32 probabilities, 0 where ignored: the prediction itself, or the file beside it."""
    name = case.prediction_name
    if stored is None:
        if case.probabilities is None:
            return None
        stored = case.probabilities()
    stored = _shown(stored, ignore)
    if stored.dtype.kind in "bui" and _is_mask(stored):
        mask: np.ndarray = (stored != 0).astype(np.float32)
        return mask
    if stored.dtype == np.uint8:
        stored = stored.astype(np.float32) / np.float32(255)
    return check_probabilities(stored, name)


def _is_mask(stored: np.ndarray) -> bool:
    """Whether whole numbers are nothing but 0 and one other, or all 1: a mask among maps."""
    high = stored.max()
    return len(stored) == 1 and bool(((stored == 0) | (stored == high)).all() and (stored.min() == 0 or high == 1))
