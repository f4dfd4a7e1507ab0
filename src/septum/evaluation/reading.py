"""What the values in predictions and truth mean: decided once for all images, then applied to one image at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from scipy import ndimage
from skimage.measure import label

from septum.choices import Kind
from septum.core.labels import Mask
from septum.core.metrics.checks import check_probabilities, check_same_shape
from septum.core.metrics.contingency import contingency
from septum.data.kind import MAX_LABEL_CLASSES, decide_kind
from septum.data.labels import as_label_image, grey_edges
from septum.data.markers import unannotated
from septum.errors import ConfigError, DatasetError, ImageError
from septum.evaluation.cases import Case, Cases
from septum.words import plural


@dataclass(frozen=True)
class Reading:
    """How to read the images of an evaluation; the same for all of them."""

    kind: Kind
    values: tuple[int, ...]  # class 0, 1, ... as numbered in the truth; (0, 1) for instances and masks
    maps: bool = False  # predictions are probability maps, not labels
    has_probabilities: bool = False  # probability maps exist, alone or beside labels
    by_index: bool = False  # predictions number classes 0, 1, ... whatever the values of the truth
    split_truth: bool = False  # every 4-connected component is one object
    split_prediction: bool = False
    invert: bool = False

    @property
    def two_classes(self) -> bool:
        """Whether the truth is a mask, with foreground wherever it is not 0."""
        return self.kind == "classes" and len(self.values) == 2 and self.values[0] == 0


@dataclass(frozen=True, eq=False)
class Arrays:
    """One image, ready to be scored."""

    truth: np.ndarray  # (Y, X) int32: instances, or classes 0..K-1; 0 where ignored
    labels: np.ndarray  # the same, predicted; also 0 where ignored
    foreground: np.ndarray | None  # (Y, X) float32 probability of foreground
    probabilities: np.ndarray | None  # (K, Y, X) float32, for three classes or more
    ignore: Mask | None  # (Y, X), not scored
    unannotated: Mask | None  # (Y, X), background that may contain cells: no object there counts as invented

    @property
    def hidden(self) -> Mask | None:
        """Mask of the pixels that are not compared, or None."""
        parts = [mask for mask in (self.ignore, self.unannotated) if mask is not None]
        return np.logical_or.reduce(parts) if parts else None


@dataclass(frozen=True)
class Survey:
    """The decision, with notes and warnings for the user."""

    reading: Reading
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


class _TrueLabels(Sequence[np.ndarray]):
    """The true label images, read one at a time."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self.cases = cases

    def __len__(self) -> int:
        return len(self.cases)

    @overload
    def __getitem__(self, k: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, k: slice) -> Sequence[np.ndarray]: ...
    def __getitem__(self, k: int | slice) -> np.ndarray | Sequence[np.ndarray]:
        return _TrueLabels(self.cases[k]) if isinstance(k, slice) else _read_truth(self.cases[k])

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(_read_truth, self.cases)


@dataclass(frozen=True)
class _ValuesFound:
    """What a look at all images found. Names are those of the first such file, "" if there is none."""

    truth: frozenset[int]
    labels: frozenset[int]  # of predictions with whole numbers
    fractions: str  # a prediction with fractions or several maps
    soft: str  # a prediction of whole numbers with soft edges
    only_maps: str  # probability maps without labels
    maps_beside_labels: bool

    @property
    def has_probabilities(self) -> bool:
        return bool(self.fractions or self.only_maps or self.maps_beside_labels)


def survey(found: Cases, kind: Kind | None = None, *, invert: bool = False) -> Survey:
    """Look at all images once and decide how they are read.

    The kind of the labels is `kind` if given, instances in challenge folders, and else detected from the truth
    (`septum.data.kind.decide_kind`). Predictions are probability maps if some contain fractions, or if the truth has
    two values and the predictions have soft edges.

    Raises
    ------
    ImageError, DatasetError
        The truth is empty, an image cannot be read, or labels are not whole numbers.
    ConfigError
        `invert` for anything but two classes.
    """
    seen = _scan(found.images)
    if not max(seen.truth, default=0) > 0:
        where = " outside the ignored pixels" if any(case.ignore is not None for case in found.images) else ""
        raise ImageError(
            f"the truth has no object and no foreground in any image{where}, so no score is defined; "
            "give at least one image with an object in it"
        )
    kind_given = kind is not None
    if kind is not None:
        reason = f"read as {kind}, as specified"
    elif found.challenge:
        kind, reason = "instances", "read as instances: the Cell Tracking Challenge numbers cells"
    else:
        kind, reason = decide_kind(_TrueLabels(found.images))
    two_classes = kind == "classes" and len(seen.truth | {0}) == 2
    if invert and not two_classes:
        has = "contains instances" if kind == "instances" else f"has {len(seen.truth)} classes"
        raise ConfigError(f"--invert is for maps and masks of two classes, but the truth {has}; leave --invert out")
    if kind == "instances":
        decided = _instances(seen, masks_are_instances=kind_given and not found.challenge, challenge=found.challenge)
    elif two_classes:
        decided = _mask(seen, invert)
    else:
        decided = _several_classes(seen)
    return Survey(decided.reading, (reason, *decided.notes), decided.warnings)


def _scan(cases: Sequence[Case]) -> _ValuesFound:
    truth_values: set[int] = set()
    label_values: set[int] = set()
    fractions = soft = only_maps = ""
    for case in cases:
        truth = case.truth()
        ignore = _ignored(case, truth)
        truth_values.update(_values(truth, ignore))
        if case.prediction is None:
            only_maps = only_maps or case.prediction_name
            continue
        stored = _zero_where_ignored(case.prediction(), ignore)
        if stored.dtype.kind == "f" and (len(stored) > 1 or not np.array_equal(stored, np.round(stored))):
            fractions = fractions or case.prediction_name
            continue
        labels = as_label_image(stored, case.prediction_name)
        label_values.update(_values(labels, ignore))
        if len(label_values) > 2 and grey_edges(labels):
            soft = soft or case.prediction_name
    maps_beside_labels = any(case.probabilities is not None for case in cases)
    return _ValuesFound(
        frozenset(truth_values), frozenset(label_values), fractions, soft, only_maps, maps_beside_labels
    )


def _instances(seen: _ValuesFound, *, masks_are_instances: bool, challenge: bool) -> Survey:
    if seen.fractions or seen.only_maps:
        raise ImageError(
            f"{seen.fractions or seen.only_maps} contains fractions, but the truth contains instances, which are "
            "whole numbers; give label images, such as the a_labels.tif that septum predict writes"
        )
    split_truth = masks_are_instances and len(seen.truth | {0}) <= 2
    split_prediction = not challenge and len(seen.labels | {0}) <= 2
    notes, warnings = [], _soft_edge_warning(seen)
    if split_truth:
        notes.append("every 4-connected component of the true masks counts as one object")
    elif split_prediction and len(seen.labels) == 2:
        values = " and ".join(map(str, sorted(seen.labels)))
        warnings.append(
            f"the predictions contain only {values}, but the truth contains instances: "
            "every 4-connected component counts as one object"
        )
    reading = Reading(
        "instances",
        (0, 1),
        has_probabilities=seen.has_probabilities,
        split_truth=split_truth,
        split_prediction=split_prediction,
    )
    return Survey(reading, tuple(notes), tuple(warnings))


def _mask(seen: _ValuesFound, invert: bool) -> Survey:
    maps = bool(seen.fractions or seen.soft or (seen.only_maps and not seen.labels))
    notes = []
    if seen.soft and not seen.fractions:
        notes.append(f"predictions such as {seen.soft} have soft edges: read as probability maps, where 255 means 1")
    if not maps and len(seen.labels | {0}) > 2:
        notes.append(
            f"the predictions contain {len(seen.labels)} values: every pixel that is not 0 counts as foreground"
        )
    if invert:
        notes.append("predictions inverted, as specified")
    reading = Reading("classes", (0, 1), maps, has_probabilities=maps or seen.has_probabilities, invert=invert)
    return Survey(reading, tuple(notes), ())


def _several_classes(seen: _ValuesFound) -> Survey:
    if len(seen.truth) > MAX_LABEL_CLASSES:
        raise DatasetError(
            f"the truth contains {len(seen.truth)} values, too many for classes (at most {MAX_LABEL_CLASSES}); "
            "they are probably instances: leave --kind classes out"
        )
    maps = bool(seen.fractions or (seen.only_maps and not seen.labels))
    by_index = not seen.labels <= seen.truth and seen.labels <= set(range(len(seen.truth)))
    values = tuple(sorted(seen.truth if by_index or maps else seen.truth | seen.labels))
    notes = []
    if by_index:
        mapping = ", ".join(f"{k} is {value}" for k, value in enumerate(values))
        notes.append(f"the predictions number the classes in order, as septum predict does: {mapping} in the truth")
    warnings = () if maps else tuple(_soft_edge_warning(seen))
    return Survey(Reading("classes", values, maps, seen.has_probabilities, by_index), tuple(notes), warnings)


def _soft_edge_warning(seen: _ValuesFound) -> list[str]:
    """Return a warning if label images look like probability maps."""
    if not seen.soft:
        return []
    return [
        f"predictions such as {seen.soft} have soft edges, as probability maps do, or labels resized with "
        "interpolation: every value in between counts as a label"
    ]


def read(case: Case, reading: Reading) -> Arrays:
    """Read one image as decided; ImageError for shapes that differ and probabilities outside 0..1."""
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
        labels = _classes(as_label_image(stored, case.prediction_name), reading, reading.by_index)
        labels = 1 - labels if reading.invert else labels
    elif foreground is not None:
        labels = (foreground > 0.5).astype(np.int32)
    else:
        assert probabilities is not None  # a prediction is labels or maps
        labels = probabilities.argmax(0).astype(np.int32)
    truth, labels = _zero_where_ignored(_classes(truth, reading), ignore), _zero_where_ignored(labels, ignore)
    if reading.split_truth:
        truth = number_components((truth > 0).astype(np.int32), None)
    if reading.split_prediction:
        labels = number_components((labels > 0).astype(np.int32), None)
    return Arrays(truth, labels, foreground, probabilities, ignore, unannotated)


def _classes(labels: np.ndarray, reading: Reading, by_index: bool = False) -> np.ndarray:
    """Class numbers as in the files -> 0..K-1; instances are returned unchanged."""
    if reading.two_classes:
        return np.asarray(labels != 0, np.int32)
    if reading.kind == "instances" or by_index:
        return labels
    index: np.ndarray = np.searchsorted(reading.values, labels).astype(np.int32)
    return index


def _per_class(chances: np.ndarray, reading: Reading, name: str) -> np.ndarray:
    if len(chances) != len(reading.values):
        maps = plural(len(chances), "probability map")
        raise ImageError(
            f"{name} has {maps}, but the truth has {len(reading.values)} classes; "
            "give one map per class, background first"
        )
    return chances


def _unannotated(case: Case, truth: np.ndarray) -> Mask | None:
    """Return where the background of a challenge frame may be an unannotated cell."""
    if case.markers is None:
        return None
    markers = case.markers()
    check_same_shape(f"the markers of {case.name}", markers, truth, case.truth_name)
    return unannotated(truth, markers)


def without_unannotated(labels: np.ndarray, truth: np.ndarray, unannotated: Mask) -> np.ndarray:
    """Remove predicted objects that lie mostly in unannotated areas and match no outlined cell.

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


def number_components(classes: np.ndarray, ignore: Mask | None) -> np.ndarray:
    """Number the 4-connected components of all classes except 0; ignored pixels belong to none and connect nothing.

    Examples
    --------
    >>> number_components(np.array([[1, 1, 2, 0, 2]]), None)
    array([[1, 1, 2, 0, 3]], dtype=int32)
    """
    seen = classes if ignore is None else np.where(ignore, 0, classes)
    if seen.max(initial=0) <= 1:
        found: np.ndarray = ndimage.label(seen)[0]  # a third of the memory
        return found
    numbered: np.ndarray = label(seen, background=0, connectivity=1)
    return numbered.astype(np.int32)


def _read_truth(case: Case) -> np.ndarray:
    """Return the true labels, 0 where ignored."""
    truth = case.truth()
    return _zero_where_ignored(truth, _ignored(case, truth))


def _zero_where_ignored(pixels: np.ndarray, ignore: Mask | None) -> np.ndarray:
    """(Y, X) or (C, Y, X) pixels, 0 where ignored."""
    if ignore is None or pixels.shape[-2:] != ignore.shape:  # `read` raises an error if they differ
        return pixels
    blanked: np.ndarray = np.where(ignore, 0, pixels)
    return blanked


def _values(labels: np.ndarray, ignore: Mask | None) -> set[int]:
    """Return the values of the pixels that are not ignored; 0 is included only if it occurs."""
    seen = labels if ignore is None or labels.shape != ignore.shape else labels[~ignore]
    return set(np.unique(seen).tolist())


def _ignored(case: Case, truth: np.ndarray) -> Mask | None:
    if case.ignore is None:
        return None
    ignore: Mask = case.ignore() != 0
    check_same_shape(f"the ignore mask of {case.name}", ignore, truth, case.truth_name)
    return ignore


def _probabilities(case: Case, stored: np.ndarray | None, ignore: Mask | None) -> np.ndarray | None:
    """Return (K, Y, X) float32 probabilities, 0 where ignored: the prediction itself, or the file beside it."""
    name = case.prediction_name
    if stored is None:
        if case.probabilities is None:
            return None
        stored = case.probabilities()
    stored = _zero_where_ignored(stored, ignore)
    if stored.dtype.kind in "bui" and _is_mask(stored):
        mask: np.ndarray = (stored != 0).astype(np.float32)
        return mask
    if stored.dtype == np.uint8:
        stored = stored.astype(np.float32) / np.float32(255)
    return check_probabilities(stored, name)


def _is_mask(stored: np.ndarray) -> bool:
    """Whether an image contains only 0 and one other value, or only 1: a mask among probability maps."""
    high = stored.max()
    return len(stored) == 1 and bool(((stored == 0) | (stored == high)).all() and (stored.min() == 0 or high == 1))
