"""Annotated images: folders, files or arrays -> samples to train on, and how they were read."""

from __future__ import annotations

import hashlib
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from septum.choices import Kind
from septum.data.findings import BadFile, Finding, finding
from septum.data.images import as_channels, is_grey, open_image
from septum.data.keep import InFiles, Keep, in_memory
from septum.data.kind import MAX_LABEL_CLASSES, connected_instances, decide_kind
from septum.data.labels import as_labels, grey_edges
from septum.data.layout import Pair, Pairing, find_pairs
from septum.data.names import is_roi, stem_of
from septum.data.sample import Sample, attempt, read_pairs, size_text
from septum.data.stored import PixelSize
from septum.errors import DatasetError
from septum.words import plural

__all__ = ["Dataset", "Sample", "from_arrays", "load_dataset", "load_pairs", "survey"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Annotated images, and what was detected in them."""

    samples: tuple[Sample, ...]
    kind: Kind
    class_names: tuple[str, ...]
    channels: int
    pixel_size: PixelSize | None  # median of those that are known
    notes: tuple[str, ...]  # for the user: which files, axes and kind, and why
    hashes: dict[str, str]  # sample name -> sha256 of its image, labels and ignore mask as used
    warnings: tuple[Finding, ...]  # found while reading; `septum.data.check.check_dataset` adds those about the pixels
    keep: Keep = in_memory  # where arrays as large as an image are kept, including those that training derives

    @property
    def n_classes(self) -> int:
        """Number of classes, including background."""
        return len(self.class_names)


def load_dataset(
    path: str | Path,
    *,
    labels: str | Path | None = None,
    kind: Kind | None = None,
    channel: int | None = None,
    unlabeled: int | None = None,
    folder: Path | None = None,
) -> Dataset:
    """Read a data set into memory, or into files in a folder.

    Parameters
    ----------
    path : path
        A folder in one of the layouts of `septum.data.layout.find_pairs`, or one image file. Stacks are paired page by
        page.
    labels : path, optional
        The label file or folder, if the layout does not show it.
    kind : "instances" or "classes", optional
        What the labels mean; by default detected (`septum.data.kind.decide_kind`). For masks with one value,
        "instances" makes each 4-connected component one object.
    channel : int, optional
        Use only this channel of the images, counted from 0.
    unlabeled : int, optional
        The label of unannotated pixels, such as those between scribbles; they are ignored. With 0, labels are classes,
        because for instances 0 is the background.
    folder : path, optional
        Where to keep the arrays of a data set larger than memory. The caller removes it after use.

    Returns
    -------
    Dataset
        Class labels are numbered 0..K-1 in the order of the values found ({0, 255} becomes 0 and 1).

    Raises
    ------
    DatasetError
        The first error, and how many more there are.

    Notes
    -----
    In Cell Tracking Challenge folders, only frames with gold truth (``man_seg``) are used. Background around a tracking
    marker (``TRA/man_track``) of a cell that nobody outlined is ignored (`septum.data.markers.unannotated`). All other
    pixels count as annotated.

    Examples
    --------
    >>> load_dataset("isbi2012/train").notes                                          # doctest: +SKIP
    ('30 pairs with equal names in images/ and labels/', ...)
    """
    keep = in_memory if folder is None else InFiles(folder)
    pairing = find_pairs(Path(path), None if labels is None else Path(labels))
    dataset, findings = _read(pairing, str(path), kind, channel, unlabeled, keep)
    given = {"--labels": labels, "--kind": kind, "--channel": channel, "--unlabeled": unlabeled}
    options = [word for option, value in given.items() if value is not None for word in (option, str(value))]
    return _without_errors(dataset, findings, f": {shlex.join(['septum', 'check', str(path), *options])} lists them")


def shapes(path: str | Path, *, labels: str | Path | None = None, channel: int | None = None) -> list[Shape]:
    """Return the sizes of all images of a data set that can be opened, from their headers only."""
    pairs = find_pairs(Path(path), None if labels is None else Path(labels)).pairs
    findings: list[Finding] = []
    files = [attempt(findings, partial(open_image, channel=channel), pair.image) for pair in pairs]
    return [Shape(*frame.shape, frame.dtype.itemsize) for file in files if file for frame in file.frames]


class Shape(NamedTuple):
    """The size of an image."""

    channels: int
    height: int
    width: int
    itemsize: int  # bytes of a value


def load_pairs(
    pairs: Iterable[tuple[str | Path, str | Path, str | Path | None]],
    *,
    kind: Kind | None = None,
    channel: int | None = None,
) -> Dataset:
    """Read (image, labels, ignore mask or None) files into memory. Other parameters as in `load_dataset`."""
    files = tuple(
        Pair(stem_of(Path(image)), Path(image), Path(labels), Path(ignore) if ignore is not None else None)
        for image, labels, ignore in pairs
    )
    if len({pair.name for pair in files}) < len(files):
        files = tuple(replace(pair, name=f"{index}_{pair.name}") for index, pair in enumerate(files))
    dataset, findings = _read(
        Pairing(f"{plural(len(files), 'pair')} as specified", files, ()), "the data set", kind, channel
    )
    return _without_errors(dataset, findings)


def from_arrays(
    images: Sequence[np.ndarray] | np.ndarray,
    labels: Sequence[np.ndarray] | np.ndarray,
    ignore: Sequence[np.ndarray | None] | np.ndarray | None = None,
    *,
    pixel_size: PixelSize | None = None,
    kind: Kind | None = None,
) -> Dataset:
    """Make a data set from arrays.

    Parameters
    ----------
    images : (Y, X) or (C, Y, X) array, a list of them, or a stack
        With (Y, X) labels an array is one image; with (Z, Y, X) labels it is a stack of consecutive slices.
    labels : (Y, X) or (Z, Y, X) integer array, or a list of (Y, X) arrays
        Instances or classes, as in files.
    ignore : like `labels`, optional
        Non-zero where nothing is annotated.
    pixel_size : (y, x) in micrometre per pixel, optional
    kind : "instances" or "classes", optional
        By default detected from the labels.

    Raises
    ------
    DatasetError
        If shapes differ or values cannot be trained on.

    Examples
    --------
    >>> from_arrays(np.eye(4), np.eye(4, dtype=int), kind="classes").class_names
    ('background', 'foreground')
    """
    group = "stack" if isinstance(labels, np.ndarray) and labels.ndim == 3 else ""
    if isinstance(labels, np.ndarray) and labels.ndim == 2:
        images, labels = [np.asarray(images)], [labels]
        ignore = None if ignore is None else [np.asarray(ignore)]
    masks = [None] * len(labels) if ignore is None else ignore
    if not len(images) == len(labels) == len(masks):
        given = [plural(len(images), "image"), plural(len(labels), "label image")]
        given += [] if ignore is None else [plural(len(masks), "ignore mask")]
        raise DatasetError(f"got {', '.join(given[:-1])} and {given[-1]}; give one of each per image")
    findings: list[Finding] = []
    samples = []
    for index, (image, truth, mask) in enumerate(zip(images, labels, masks, strict=True)):
        name = f"image {index}"
        pixels = attempt(findings, as_channels, image, None, name)
        annotation = attempt(findings, _label_array, truth, f"label {name}")
        if pixels is not None and annotation is not None:
            ignored = None if mask is None else np.asarray(mask) != 0
            samples.append(Sample(name, pixels, annotation, ignored, pixel_size, group, index, file=name))
    notes = [f"{plural(len(images), 'image')} in memory"]
    dataset = _assemble(samples, "the data set", notes, kind, findings)
    return _without_errors(dataset, findings)


def _label_array(truth: np.ndarray, name: str) -> np.ndarray:
    values = np.asarray(truth)
    if values.ndim != 2:
        problem = f"has shape {values.shape}, expected (Y, X)"
        raise BadFile("label-format", name, problem, "give one label per pixel")
    return as_labels(values, name)


def survey(
    path: str | Path,
    *,
    labels: str | Path | None = None,
    kind: Kind | None = None,
    channel: int | None = None,
    unlabeled: int | None = None,
) -> tuple[Dataset | None, list[Finding]]:
    """Read a data set as far as possible, and find what is wrong with the rest. Parameters as in `load_dataset`."""
    pairing = find_pairs(Path(path), None if labels is None else Path(labels))
    return _read(pairing, str(path), kind, channel, unlabeled)


def _without_errors(dataset: Dataset | None, findings: list[Finding], hint: str = "") -> Dataset:
    errors = [finding for finding in findings if finding.level == "error"]
    if dataset is None or errors:
        more = f" (and {len(errors) - 1} more{hint})" if len(errors) > 1 else ""
        raise DatasetError(f"{errors[0]}{more}")
    return dataset


def _read(
    pairing: Pairing,
    where: str,
    kind: Kind | None,
    channel: int | None,
    unlabeled: int | None = None,
    keep: Keep = in_memory,
) -> tuple[Dataset | None, list[Finding]]:
    findings, notes = list(pairing.findings), [pairing.rule] if pairing.rule else []
    samples = read_pairs(pairing.pairs, channel, notes, findings, keep)
    evidence: tuple[Kind, str] | None = None
    if pairing.pairs and all(is_roi(pair.labels) for pair in pairing.pairs):
        evidence = "instances", "read as instances: each ImageJ ROI is one object"
    elif pairing.pairs and all(pair.video for pair in pairing.pairs):
        evidence = "instances", "read as instances: the Cell Tracking Challenge numbers cells"
    if unlabeled == 0:
        if evidence or kind == "instances":
            raise DatasetError(
                f"{where} has instances, where label 0 is background, but --unlabeled 0 says that it means "
                "unannotated; mark unannotated pixels in an ignore mask instead"
            )
        evidence = "classes", "read as classes: label 0 means unannotated, so there is no background for instances"
    if unlabeled is not None and samples:
        samples = _without_unlabeled(samples, unlabeled, notes, keep)
    return _assemble(samples, where, notes, kind, findings, evidence, keep), findings


def _assemble(
    samples: list[Sample],
    where: str,
    notes: list[str],
    kind: Kind | None,
    findings: list[Finding],
    evidence: tuple[Kind, str] | None = None,
    keep: Keep = in_memory,
) -> Dataset | None:
    """Give all samples the same channels and the same meaning of labels; whatever prevents it is a finding."""
    samples = [sample for sample in samples if _fits(sample, findings)]
    if not samples:
        if not any(finding.level == "error" for finding in findings):
            findings.append(finding("no-data", where, "has no annotated image", "add images and their labels"))
        return None
    samples = _same_channels(samples, notes, findings, keep)
    samples, kind, class_names = _same_meaning(samples, where, kind, notes, findings, evidence, keep)
    known = [sample.pixel_size for sample in samples if sample.pixel_size]
    return Dataset(
        samples=tuple(samples),
        kind=kind,
        class_names=class_names,
        channels=len(samples[0].image),
        pixel_size=(float(np.median([y for y, _ in known])), float(np.median([x for _, x in known])))
        if known
        else None,
        notes=tuple(notes),
        hashes={sample.name: _sha256(sample) for sample in samples},
        warnings=tuple(finding for finding in findings if finding.level == "warning"),
        keep=keep,
    )


def _without_unlabeled(samples: list[Sample], unlabeled: int, notes: list[str], keep: Keep) -> list[Sample]:
    """Ignore the pixels whose label means unannotated."""
    result, share = [], []
    if not any((sample.labels == unlabeled).any() for sample in samples):
        found = np.unique(np.concatenate([np.unique(sample.labels) for sample in samples]))
        few = ", ".join(map(str, found[:10])) + (", ..." if len(found) > 10 else "")
        raise DatasetError(
            f"no pixel has label {unlabeled} (--unlabeled), found labels {few}; "
            "choose one of these, or omit --unlabeled"
        )
    for sample in samples:
        without = sample.labels == unlabeled
        share.append(np.mean(without))
        known = without if sample.ignore is None else without | sample.ignore
        result.append(replace(sample, ignore=keep(known) if known.any() else None))
    percent = f"{100 * np.mean(share):.1f} %"
    notes.append(f"pixels with label {unlabeled} are unannotated, as specified: {percent} of all pixels")
    return result


def _fits(sample: Sample, findings: list[Finding]) -> bool:
    """Whether image, labels and ignore mask fit together."""
    shape = sample.image.shape[1:]
    label_file = sample.label_path or f"label {sample.name}"
    for part, what in ((sample.labels, "its labels have"), (sample.ignore, "its ignore mask has")):
        if part is not None and part.shape != shape:
            problem = f"has {size_text(shape)} pixels, but {what} {size_text(part.shape)}"
            fix = "export both at the same size"
            if sample.image.shape[:2] == part.shape:
                fix = "if its last axis is channels, move it to the front with np.moveaxis(image, -1, 0)"
            findings.append(finding("size-mismatch", sample.file, problem, fix))
            return False
    if sample.ignore is not None and sample.ignore.all():
        problem, fix = "has no annotated pixels: all are ignored", "annotate part of it, or leave it out"
        findings.append(finding("nothing-annotated", sample.file, problem, fix))
        return False
    if grey_edges(sample.labels):
        problem = "has intermediate values along its edges, as after interpolation, blurring or JPEG compression"
        fix = "export it again, resize it with nearest neighbour only, or threshold it"
        findings.append(finding("grey-edges", label_file, problem, fix))
        return False
    return True


def _same_channels(samples: list[Sample], notes: list[str], findings: list[Finding], keep: Keep) -> list[Sample]:
    """Read greyscale saved as RGB as one channel, if all images then have one channel."""
    grey = [is_grey(sample.image) for sample in samples]
    if any(grey) and all(is_one or len(sample.image) == 1 for is_one, sample in zip(grey, samples, strict=True)):
        notes.append(f"greyscale saved as RGB in {sum(grey)} of {plural(len(samples), 'image')}: read as one channel")
        return [replace(sample, image=keep(sample.image[:1])) for sample in samples]
    counts = Counter(len(sample.image) for sample in samples)
    most = counts.most_common(1)[0][0]
    for sample in samples:
        if len(sample.image) != most:
            problem = f"has {plural(len(sample.image), 'channel')}, but most images have {most}"
            fix = "convert it, or choose one channel of all images with --channel"
            findings.append(finding("channels-differ", sample.file, problem, fix))
    if any(grey) and len(counts) == 1:
        notes.append(
            f"greyscale saved as RGB in {sum(grey)} of {plural(len(samples), 'image')}: kept as RGB, "
            "because other images are in colour"
        )
    return samples


def _same_meaning(
    samples: list[Sample],
    where: str,
    kind: Kind | None,
    notes: list[str],
    findings: list[Finding],
    evidence: tuple[Kind, str] | None,
    keep: Keep,
) -> tuple[list[Sample], Kind, tuple[str, ...]]:
    """Decide what the labels mean, and number classes from 0."""
    samples = [
        sample if sample.ignore is None else replace(sample, labels=keep(np.where(sample.ignore, 0, sample.labels)))
        for sample in samples
    ]
    specified = kind is not None
    if kind is not None:
        reason = f"read as {kind}, as specified"
    elif evidence:
        kind, reason = evidence
    else:
        kind, reason = decide_kind(sample.labels for sample in samples)
    notes.append(reason)
    values = np.unique(np.concatenate([np.unique(_annotated(sample)) for sample in samples]))
    if len(values) < 2:
        problem = f"has only one label: every annotated pixel is {values[0]}"
        findings.append(finding("one-class", where, problem, "annotate at least one object and some background"))
    if kind == "instances":
        if specified and len(values) == 2 and 0 not in values:
            problem = f"has only labels {values[0]} and {values[1]}, but instances need background 0"
            findings.append(finding("label-values", where, problem, "set background to 0 and number objects from 1"))
        elif specified and len(values) <= 2:
            notes.append("each 4-connected component of the masks is one object")
            samples = [replace(sample, labels=keep(connected_instances(sample.labels > 0))) for sample in samples]
        return samples, kind, ("background", "foreground")
    if len(values) > MAX_LABEL_CLASSES:
        problem = f"has {len(values)} different labels, but classes can be at most {MAX_LABEL_CLASSES}"
        fix = 'if the labels are instances, omit --kind classes (kind="classes")'
        findings.append(finding("label-values", where, problem, fix))
        return samples, kind, ()
    names = tuple("background" if value == 0 else f"class {value}" for value in values)
    if list(values) == [0, values[-1]] and len(values) == 2:
        names = ("background", "foreground")
    if len(values) > 1 and not np.array_equal(values, np.arange(len(values))):
        notes.append("label values " + ", ".join(f"{value} -> class {index}" for index, value in enumerate(values)))
        largest = len(values) - 1  # ignored pixels may have other values
        samples = [
            replace(sample, labels=keep(np.searchsorted(values, sample.labels).astype(np.int32).clip(max=largest)))
            for sample in samples
        ]
    return samples, kind, names


def _annotated(sample: Sample) -> np.ndarray:
    return sample.labels if sample.ignore is None else sample.labels[~sample.ignore]


def _sha256(sample: Sample) -> str:
    digest = hashlib.sha256()
    for array in (sample.image, sample.labels, sample.ignore):
        if array is not None:
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
