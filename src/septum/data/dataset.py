"""Annotated images: folders, files or arrays -> samples to train on, and what was understood of them."""

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
from septum.data.findings import Finding, finding
from septum.data.images import as_channels, is_grey, open_image
from septum.data.keep import InFiles, Keep, in_memory
from septum.data.kind import MAX_LABEL_CLASSES, connected_instances, decide_kind
from septum.data.labels import as_labels, grey_edges
from septum.data.layout import Pair, Pairing, find_pairs
from septum.data.names import is_roi, stem_of
from septum.data.sample import Sample, attempt, read_pairs
from septum.data.stored import PixelSize
from septum.errors import DatasetError

__all__ = ["Dataset", "Sample", "from_arrays", "load_dataset", "load_pairs", "survey"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Annotated images, with all that was read from them rather than told."""

    samples: tuple[Sample, ...]
    kind: Kind
    class_names: tuple[str, ...]
    channels: int
    pixel_size: PixelSize | None  # the median of the known ones
    notes: tuple[str, ...]  # to be said aloud: which files, which axes, which kind, and why
    hashes: dict[str, str]  # sample name -> sha256 of its image, labels and ignore mask as they are used
    warnings: tuple[Finding, ...]  # found while reading; `septum.data.check.check_dataset` adds those of the pixels
    keep: Keep = in_memory  # where arrays as large as an image go, also those that a training makes of them

    @property
    def n_classes(self) -> int:
        """Number of classes, background included."""
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
    """Read a data set into memory, or into the files of a folder.

    Parameters
    ----------
    path : path
        A folder in one of the layouts of `septum.data.layout.find_pairs`, or one image file. Stacks are paired page by
        page.
    labels : path, optional
        The label file or folder, where the layout does not tell.
    kind : "instances" or "classes", optional
        What label numbers mean. By default this is read from the labels (`septum.data.kind.decide_kind`). Masks of one
        value forced to instances: each 4-connected piece is one object.
    channel : int, optional
        Use this channel of the images only, counted from 0.
    unlabeled : int, optional
        The label of pixels that nobody has annotated, such as those between scribbles: they are ignored. With 0 labels
        are classes, since of instances 0 is the background.
    folder : path, optional
        Of the arrays, for a data set larger than memory. Whoever names it also removes it, after use.

    Returns
    -------
    Dataset
        Class labels are numbered 0..K-1 in the order of the values found ({0, 255} becomes 0 and 1).

    Raises
    ------
    DatasetError
        The first thing that is wrong, and how many more there are.

    Notes
    -----
    Cell Tracking Challenge folders, the reading rule: only frames with gold truth (``man_seg``) are used. Around a
    tracking marker (``TRA/man_track``) that lies on no segmented object, background is ignored as far as some segmented
    cell of the frame reaches from its own marker (`septum.data.markers.unannotated`); any other frame is fully
    annotated.

    Examples
    --------
    >>> load_dataset("isbi2012/train").notes                                          # doctest: +SKIP
    ('30 pairs with equal names in images/ and labels/', ...)
    """
    keep = in_memory if folder is None else InFiles(folder)
    pairing = find_pairs(Path(path), None if labels is None else Path(labels))
    dataset, findings = _read(pairing, str(path), kind, channel, unlabeled, keep)
    said = {"--labels": labels, "--kind": kind, "--channel": channel, "--unlabeled": unlabeled}
    options = [word for option, value in said.items() if value is not None for word in (option, str(value))]
    return _without_errors(dataset, findings, f": {shlex.join(['septum', 'check', str(path), *options])} lists them")


def shapes(path: str | Path, *, labels: str | Path | None = None, channel: int | None = None) -> list[Shape]:
    """Return what the headers of the images of a data set say, without reading pixels; of those that can be opened."""
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
    """Read (image, labels, ignore mask or None) files into memory; as `load_dataset`, without looking for them."""
    files = tuple(
        Pair(stem_of(Path(image)), Path(image), Path(labels), Path(ignore) if ignore is not None else None)
        for image, labels, ignore in pairs
    )
    if len({pair.name for pair in files}) < len(files):
        files = tuple(replace(pair, name=f"{index}_{pair.name}") for index, pair in enumerate(files))
    dataset, findings = _read(Pairing(f"{len(files)} pairs as given", files, ()), "the pairs", kind, channel)
    return _without_errors(dataset, findings)


def from_arrays(
    images: Sequence[np.ndarray] | np.ndarray,
    labels: Sequence[np.ndarray] | np.ndarray,
    ignore: Sequence[np.ndarray | None] | np.ndarray | None = None,
    *,
    pixel_size: PixelSize | None = None,
    kind: Kind | None = None,
) -> Dataset:
    """Make a data set of arrays.

    Parameters
    ----------
    images : (Y, X) or (C, Y, X) array, a list of them, or a stack
        Together with labels (Y, X) an array is one image; with labels (Z, Y, X) it is a stack of slices that follow one
        another.
    labels : (Y, X) or (Z, Y, X) integer array, or a list of (Y, X) arrays
        Instances or classes, as in files.
    ignore : like `labels`, optional
        Non-zero where nothing is annotated.
    pixel_size : (y, x) in micrometre per pixel, optional
    kind : "instances" or "classes", optional
        By default read from the labels.

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
        raise DatasetError(
            f"got {len(images)} images, {len(labels)} label images and {len(masks)} ignore masks; "
            "give one of each per image"
        )
    findings: list[Finding] = []
    samples = []
    for index, (image, truth, mask) in enumerate(zip(images, labels, masks, strict=True)):
        name = f"image {index}"
        pixels = attempt(findings, as_channels, image, None, name)
        numbers = attempt(findings, as_labels, np.asarray(truth), f"labels of {name}")
        if pixels is not None and numbers is not None:
            ignored = None if mask is None else np.asarray(mask) != 0
            samples.append(Sample(name, pixels, numbers, ignored, pixel_size, group, index, file=name))
    dataset = _assemble(samples, "the arrays", [f"{len(images)} images in memory"], kind, findings)
    return _without_errors(dataset, findings)


def survey(
    path: str | Path,
    *,
    labels: str | Path | None = None,
    kind: Kind | None = None,
    channel: int | None = None,
    unlabeled: int | None = None,
) -> tuple[Dataset | None, list[Finding]]:
    """Read what can be read of a data set, and find all that is wrong with the rest. Parameters of `load_dataset`."""
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
        evidence = "instances", "instances, since each ImageJ ROI is one object"
    elif pairing.pairs and all(pair.video for pair in pairing.pairs):
        evidence = "instances", "instances, since the Cell Tracking Challenge numbers cells"
    if unlabeled == 0:
        if evidence or kind == "instances":
            raise DatasetError(
                f"{where} holds instances, whose label 0 is background, got 0 as the label of unannotated pixels; "
                "name the unannotated pixels by an ignore mask"
            )
        evidence = "classes", "classes, since label 0 means not annotated, which leaves instances no background"
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
    """Make the samples alike in channels and meaning of labels; whatever forbids it is a finding."""
    samples = [sample for sample in samples if _fits(sample, findings)]
    if not samples:
        if not any(finding.level == "error" for finding in findings):
            findings.append(finding("no-data", where, "holds no annotated image", "add image and label files"))
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
    """Ignore the pixels whose label says that nobody has annotated them."""
    result, share = [], []
    if not any((sample.labels == unlabeled).any() for sample in samples):
        found = np.unique(np.concatenate([np.unique(sample.labels) for sample in samples]))
        few = ", ".join(map(str, found[:10])) + (", ..." if len(found) > 10 else "")
        raise DatasetError(
            f"no pixel has the label {unlabeled}, which was said to mean not annotated; labels are {few}: "
            "give one of these, or leave it out"
        )
    for sample in samples:
        without = sample.labels == unlabeled
        share.append(np.mean(without))
        known = without if sample.ignore is None else without | sample.ignore
        result.append(replace(sample, ignore=keep(known) if known.any() else None))
    notes.append(f"pixels of label {unlabeled} are not annotated, as told: {100 * np.mean(share):.1f} % of all")
    return result


def _fits(sample: Sample, findings: list[Finding]) -> bool:
    """Whether image, labels and ignore mask go together."""
    shape = sample.image.shape[1:]
    label_file = sample.label_path or f"labels of {sample.name}"
    for part, what in ((sample.labels, "labels"), (sample.ignore, "an ignore mask")):
        if part is not None and part.shape != shape:
            problem = f"has {what} of {_size(part.shape)} for an image of {_size(shape)}"
            fix = "export both at the same size"
            if sample.image.shape[:2] == part.shape:
                fix = "move the channels of the image first with np.moveaxis(image, -1, 0)"
            findings.append(finding("size-mismatch", sample.file, problem, fix))
            return False
    if sample.ignore is not None and sample.ignore.all():
        problem, fix = "has no annotated pixel: all are ignored", "annotate a part of it, or leave it out"
        findings.append(finding("nothing-annotated", sample.file, problem, fix))
        return False
    if grey_edges(sample.labels):
        problem = "has numbers in between along its edges: it was resized with interpolation, blurred, or once a JPEG"
        fix = "export it anew, resize by nearest neighbour only, or threshold it"
        findings.append(finding("grey-edges", label_file, problem, fix))
        return False
    return True


def _same_channels(samples: list[Sample], notes: list[str], findings: list[Finding], keep: Keep) -> list[Sample]:
    """Read grey values saved as RGB as one channel, if that makes all images alike."""
    grey = [is_grey(sample.image) for sample in samples]
    if any(grey) and all(is_one or len(sample.image) == 1 for is_one, sample in zip(grey, samples, strict=True)):
        notes.append(f"{sum(grey)} of {len(samples)} images are grey values saved as RGB: read as one channel")
        return [replace(sample, image=keep(sample.image[:1])) for sample in samples]
    counts = Counter(len(sample.image) for sample in samples)
    most = counts.most_common(1)[0][0]
    for sample in samples:
        if len(sample.image) != most:
            problem = f"has {len(sample.image)} channels, most images have {most}"
            findings.append(
                finding("channels-differ", sample.file, problem, "convert it, or choose one channel of all")
            )
    if any(grey) and len(counts) == 1:
        notes.append(f"{sum(grey)} of {len(samples)} images are grey values saved as RGB: kept as RGB like the others")
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
    """Decide what label numbers mean, and number classes from 0."""
    samples = [
        sample if sample.ignore is None else replace(sample, labels=keep(np.where(sample.ignore, 0, sample.labels)))
        for sample in samples
    ]
    told = kind is not None
    if kind is not None:
        reason = f"{kind}, as told"
    elif evidence:
        kind, reason = evidence
    else:
        kind, reason = decide_kind(sample.labels for sample in samples)
    notes.append(reason)
    values = np.unique(np.concatenate([np.unique(_annotated(sample)) for sample in samples]))
    if len(values) < 2:
        problem = f"has labels of one class only: every annotated pixel is {values[0]}"
        findings.append(finding("one-class", where, problem, "annotate at least one object and some background"))
    if kind == "instances":
        if told and len(values) == 2 and 0 not in values:
            problem = f"has only the labels {values[0]} and {values[1]}, expected 0 as the background of instances"
            findings.append(
                finding("label-values", where, problem, "renumber them, background 0 and objects from 1 on")
            )
        elif told and len(values) <= 2:
            notes.append("each 4-connected piece of the masks is one object")
            samples = [replace(sample, labels=keep(connected_instances(sample.labels > 0))) for sample in samples]
        return samples, kind, ("background", "foreground")
    if len(values) > MAX_LABEL_CLASSES:
        problem = f"has {len(values)} label numbers, too many for classes (at most {MAX_LABEL_CLASSES})"
        findings.append(
            finding("label-values", where, problem, 'these are instances: leave out --kind classes (kind="classes")')
        )
        return samples, kind, ()
    names = tuple("background" if value == 0 else f"class {value}" for value in values)
    if list(values) == [0, values[-1]] and len(values) == 2:
        names = ("background", "foreground")
    if len(values) > 1 and not np.array_equal(values, np.arange(len(values))):
        notes.append("label values " + ", ".join(f"{value} -> class {index}" for index, value in enumerate(values)))
        largest = len(values) - 1  # what is ignored may hold more
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


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
