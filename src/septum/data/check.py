"""Check a data set: what is wrong with it and how to fix it.

Training refuses errors and prints warnings.

==================  =======  ==============================================================================
code                level    meaning
==================  =======  ==============================================================================
no-data             error    the path does not exist, cannot be read, or has no known layout
missing-file        error    a file that was named does not exist
unreadable          error    not an image, empty, truncated, damaged, transparent, or a name that is not UTF-8
missing-image       error    labels without an image
ambiguous-name      error    two files that belong to the same image
frame-mismatch      error    a stack and its labels have different numbers of slices
size-mismatch       error    an image and its labels or ignore mask have different sizes
not-finite          error    an image contains NaN or infinity
channels-differ     error    images have different numbers of channels, or lack the channel that was chosen
label-format        error    labels are a JPEG, have colours, or are ROIs without an area
label-values        error    labels are negative, fractions, too many for classes, or lack background 0
grey-edges          error    labels were resized with interpolation, blurred, or compressed as JPEG
nothing-annotated   error    the ignore mask covers the whole image
one-class           error    all annotated pixels of the data set have the same label
missing-label       warning  an image without labels, which is left out
missing-markers     warning  a challenge frame without tracking markers, although others have them
ignored-file        warning  a file in images/ or labels/ that is not an image
empty-labels        warning  labels that are all background
constant-image      warning  all pixels of an image have the same value
saturated           warning  many pixels of an image have its largest value
depth-differs       warning  images have different data types, such as uint8 and uint16
pixel-size-differs  warning  a pixel size more than 5 % off the usual one, or unknown in this image only
merged              warning  an object that looks like two touching ones with the same label
shared-number       warning  objects that do not touch have the same label
duplicate           warning  two images are identical
==================  =======  ==============================================================================
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

from septum.choices import Kind
from septum.data.dataset import Dataset, Sample, survey
from septum.data.findings import Finding, finding
from septum.data.kind import components

__all__ = ["Finding", "check", "check_dataset", "examine", "merged_objects"]

SATURATED_SHARE = 0.01  # of the pixels at the largest value
PIXEL_SIZE_DEVIATION = 0.05  # from the median of the data set
SPECK_SHARE = 0.1  # a piece smaller than this, relative to the largest with the same label, is a speck
NECK_SHARE = 0.5  # of the radius of the larger lobe
LOBE_SHARE = 0.7  # radius of the smaller lobe, of the larger one's
MIN_RADIUS = 3  # pixels; the outline of smaller objects is too coarse to judge


def check(
    path: str | Path,
    *,
    labels: str | Path | None = None,
    kind: Kind | None = None,
    channel: int | None = None,
    unlabeled: int | None = None,
) -> list[Finding]:
    """Find all problems of a data set, errors first. Parameters as in `septum.data.dataset.load_dataset`.

    Examples
    --------
    >>> for finding in check("cells"):                                                 # doctest: +SKIP
    ...     print(finding)
    cells/labels/a.png has 3 channels, expected one label per pixel; save one label per pixel as a greyscale TIFF (...)
    """
    return examine(path, labels=labels, kind=kind, channel=channel, unlabeled=unlabeled)[1]


def examine(
    path: str | Path,
    *,
    labels: str | Path | None = None,
    kind: Kind | None = None,
    channel: int | None = None,
    unlabeled: int | None = None,
) -> tuple[tuple[str, ...], list[Finding]]:
    """Return how a data set is read (nothing if none of it can be read), and what `check` finds."""
    dataset, findings = survey(path, labels=labels, kind=kind, channel=channel, unlabeled=unlabeled)
    found = [*findings, *(_of_pixels(dataset) if dataset else ())]
    return dataset.notes if dataset else (), sorted(found, key=lambda one: one.level != "error")


def check_dataset(dataset: Dataset) -> list[Finding]:
    """Return all warnings about a data set that was read."""
    return [*dataset.warnings, *_of_pixels(dataset)]


def _of_pixels(dataset: Dataset) -> Iterator[Finding]:
    for sample in dataset.samples:
        yield from _of_image(sample)
        yield from _of_labels(sample, dataset)
    yield from _differences(dataset)
    yield from _duplicates(dataset.samples)


def _of_image(sample: Sample) -> Iterator[Finding]:
    low, high = sample.image.min(), sample.image.max()
    if low == high:
        fix = "export the image again, or leave it out"
        yield finding("constant-image", sample.file, f"has the value {low} in every pixel", fix)
        return
    share = float(np.mean(sample.image == high))
    next_share = float(np.mean(sample.image == sample.image[sample.image < high].max()))
    if share >= SATURATED_SHARE and share > 2 * next_share:  # a smooth histogram falls towards its end
        problem = f"is saturated: {share:.1%} of its pixels have the largest value {high}"
        yield finding(
            "saturated", sample.file, problem, "lower the exposure or gain, or export without contrast stretching"
        )


def _of_labels(sample: Sample, dataset: Dataset) -> Iterator[Finding]:
    file = str(sample.label_path or f"label {sample.name}")
    if sample.label_path and sample.file != str(sample.image_path):
        file += f", frame {sample.frame}"
    if not sample.labels.any() and dataset.class_names[:1] == ("background",):
        yield finding("empty-labels", file, "has only background", "if there are objects, annotate them")
    if dataset.kind != "instances":
        return
    merged = merged_objects(sample.labels)
    if len(merged):
        labels = "a label" if len(merged) == 1 else "labels"
        problem = f"has {labels} that may cover several touching objects: {_listed(merged)}"
        yield finding("merged", file, problem, "check, and give each object its own number")
    _, values, areas = components(sample.labels)
    found, which = np.unique(values, return_inverse=True)
    largest = np.zeros(len(found))
    np.maximum.at(largest, which, areas)
    counts = np.bincount(which[areas >= SPECK_SHARE * largest[which]], minlength=len(found))
    if (counts > 1).any():
        problem = f"has the same label on objects that do not touch: {_listed(found[counts > 1])}"
        fix = 'give each object its own number, or use --kind classes (kind="classes") if labels are classes'
        yield finding("shared-number", file, problem, fix)


def _differences(dataset: Dataset) -> Iterator[Finding]:
    types = Counter(sample.image.dtype for sample in dataset.samples)
    usual = types.most_common(1)[0][0]
    for sample in dataset.samples:
        if sample.image.dtype != usual:
            problem = f"has pixels of type {sample.image.dtype}, but most images have {usual}"
            yield finding(
                "depth-differs", sample.file, problem, "export all images the same way, without rescaling intensities"
            )
        if dataset.pixel_size is None:
            continue
        common = " x ".join(f"{size:.4g}" for size in dataset.pixel_size)
        if sample.pixel_size is None:
            problem = f"has no pixel size, but other images have {common} micrometre"
            fix = "set it in Fiji (Image > Properties)"
            yield finding("pixel-size-differs", sample.file, problem, fix)
        elif not np.allclose(sample.pixel_size, dataset.pixel_size, rtol=PIXEL_SIZE_DEVIATION, atol=0):
            own = " x ".join(f"{size:.4g}" for size in sample.pixel_size)
            problem = f"has pixels of {own} micrometre, but {common} is usual in this data set"
            fix = "resample it or leave it out; if its pixel size is wrong, correct it in Fiji (Image > Properties)"
            yield finding("pixel-size-differs", sample.file, problem, fix)


def _duplicates(samples: Sequence[Sample]) -> Iterator[Finding]:
    first: dict[bytes, Sample] = {}
    for sample in samples:
        pixels = hashlib.sha256(f"{sample.image.shape}".encode() + np.ascontiguousarray(sample.image).tobytes())
        other = first.setdefault(pixels.digest(), sample)
        if other is not sample:
            alike = np.array_equal(other.labels, sample.labels)
            problem = f"is the same image as {other.file}" + ("" if alike else ", but their labels differ")
            fix = "remove one: in both training and validation, it would inflate the scores"
            yield finding("duplicate", sample.file, problem, fix)


def merged_objects(labels: np.ndarray) -> np.ndarray:
    """Find objects that look like two touching ones with the same label.

    Such an object has a neck: without all pixels closer to the outline than half of the object's inner radius, it falls
    into pieces, of which at least two are at least 70 % as wide as the widest.

    Parameters
    ----------
    labels : (Y, X) integer array
        Instances.

    Returns
    -------
    (n,) array
        Their labels, ascending. Objects with an inner radius below 3 pixels are not judged.

    Examples
    --------
    >>> y, x = np.mgrid[:20, :40]
    >>> two = (np.hypot(y - 10, x - 10) < 8) | (np.hypot(y - 10, x - 25) < 8)
    >>> merged_objects(7 * two), merged_objects(7 * (np.hypot(y - 10, x - 10) < 8))
    (array([7]), array([], dtype=int64))
    """
    objects, values, _ = components(labels)
    padded = np.pad(objects, 1)
    outline = np.zeros(padded.shape, bool)  # pixels with a 4-neighbour of another object
    for axis in (0, 1):
        for step in (1, -1):
            outline |= np.roll(padded, step, axis) != padded
    distance = np.where(padded > 0, ndimage.distance_transform_edt(~outline), 0)
    radius = np.zeros(len(values) + 1)
    np.maximum.at(radius, padded.ravel(), distance.ravel())
    radius_here = radius[padded]
    lobes, count = ndimage.label((distance > NECK_SHARE * radius_here) & (radius_here >= MIN_RADIUS))
    width, owner = np.zeros(count + 1), np.zeros(count + 1, int)
    np.maximum.at(width, lobes.ravel(), distance.ravel())
    owner[lobes.ravel()] = padded.ravel()
    wide = np.bincount(owner[1:][width[1:] >= LOBE_SHARE * radius[owner[1:]]])
    return np.unique(values[np.flatnonzero(wide > 1) - 1])


def _listed(values: Iterable[int]) -> str:
    """List at most five values."""
    listed = list(map(str, values))
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")
