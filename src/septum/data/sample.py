"""One annotated 2-D image, read from the files that belong to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from septum.data.findings import BadFile, Finding, finding
from septum.data.images import ImageFile, check_finite, open_image
from septum.data.keep import ArrayField, Keep
from septum.data.labels import read_labels
from septum.data.layout import Pair
from septum.data.markers import unannotated
from septum.data.names import is_roi
from septum.data.rois import read_rois
from septum.data.stored import PixelSize
from septum.words import plural

T = TypeVar("T")
Masks = Sequence[np.ndarray | None]  # one per frame, None where all is annotated


@dataclass(frozen=True, eq=False)
class Sample:
    """One annotated 2-D image."""

    name: str
    image: ArrayField[np.ndarray] = ArrayField()  # (C, Y, X), type as in the file
    labels: ArrayField[np.ndarray] = ArrayField()  # (Y, X) int32: instances 1..n, or classes 0..K-1; 0 where ignored
    ignore: ArrayField[np.ndarray | None] = ArrayField()  # (Y, X) bool, True where nothing is annotated
    pixel_size: PixelSize | None = None  # micrometre per pixel (y, x)
    group: str = ""  # the stack or video it belongs to, where consecutive frames resemble each other
    frame: int = 0  # within its file
    image_path: Path | None = None
    label_path: Path | None = None
    file: str = ""  # what findings call it


def read_pairs(
    pairs: Sequence[Pair], channel: int | None, notes: list[str], findings: list[Finding], keep: Keep
) -> list[Sample]:
    """Read all pairs of files; add to `notes` how the images were read, and to `findings` what is wrong."""
    samples: list[Sample] = []
    formats: dict[str, list[str]] = {}  # axes, size, type and pixel size as text -> names of the files
    for pair in pairs:
        image = attempt(findings, partial(open_image, channel=channel), pair.image)
        if image is not None:
            formats.setdefault(image.description.removeprefix(f"{pair.image.name}: "), []).append(pair.image.name)
        samples += _read_pair(pair, image, findings, keep)
    notes += _describe_formats(formats)
    partly = sum(sample.ignore is not None for sample in samples)
    if partly:
        notes.append(f"{partly} of {plural(len(samples), 'image')} partly annotated: unannotated pixels are ignored")
    return samples


def attempt(findings: list[Finding], read: Callable[..., T], *arguments: Any) -> T | None:
    """Call a function that reads a file; collect what is wrong, so that the other files are checked too."""
    try:
        return read(*arguments)
    except BadFile as error:
        findings.append(error.finding)
        return None


def _read_pair(pair: Pair, image: ImageFile | None, findings: list[Finding], keep: Keep) -> list[Sample]:
    """Read all frames of a pair; none if something is wrong."""
    pixels = attempt(findings, _pixels, image, keep) if image else None
    annotated = attempt(findings, _annotation, pair, image, keep)
    if image is None or pixels is None or annotated is None:
        return []
    labels, ignore = annotated
    if len(labels) != len(pixels):
        frames = plural(len(pixels), "frame")
        problem = f"has {plural(len(labels), 'frame')}, but its image {pair.image.name} has {frames}"
        fix = "save one label image per slice (separate files also work)"
        findings.append(finding("frame-mismatch", pair.labels, problem, fix))
        return []
    several = len(pixels) > 1
    return [
        Sample(
            name=f"{pair.name}_{index:03d}" if several else pair.name,
            image=pixels[index],
            labels=labels[index],
            ignore=ignore[index],
            pixel_size=image.pixel_size,
            group=pair.name if several else pair.video,
            frame=index,
            image_path=pair.image,
            label_path=pair.labels,
            file=f"{pair.image}, frame {index}" if several else str(pair.image),
        )
        for index in range(len(pixels))
    ]


def _pixels(image: ImageFile, keep: Keep) -> list[np.ndarray]:
    frames = []
    for frame in image.frames:
        pixels = frame.read()
        check_finite(pixels, str(image.path.with_name(frame.name)))
        frames.append(keep(pixels))
    return frames


def _annotation(pair: Pair, image: ImageFile | None, keep: Keep) -> tuple[Sequence[np.ndarray], Masks] | None:
    """Read labels and ignore masks; None for ROIs on an image that cannot be read."""
    labels: Sequence[np.ndarray]
    ignore: Masks
    if not is_roi(pair.labels):
        labels = read_labels(pair.labels, keep).frames
        ignore = [None] * len(labels)
    elif image is not None:
        labels, ignore = read_rois(pair.labels, image.frames[0].shape[1:], image.grid)
        labels = [*map(keep, labels)]
    else:
        return None
    if pair.ignore:
        masks = _alike(read_labels(pair.ignore, keep).frames, labels, pair.ignore, pair.labels)
        ignore = [mask != 0 if roi is None else roi | (mask != 0) for roi, mask in zip(ignore, masks, strict=True)]
    if pair.markers:
        marks = _alike(read_labels(pair.markers, keep).frames, labels, pair.markers, pair.labels)
        ignore = [*map(unannotated, labels, marks)]
    return labels, [keep(mask) if mask is not None and mask.any() else None for mask in ignore]


def _alike(frames: Sequence[np.ndarray], labels: Sequence[np.ndarray], file: Path, other: Path) -> Sequence[np.ndarray]:
    """Refuse ignore masks and markers that differ in size from the labels."""
    own, expected = ([size_text(frame.shape) for frame in stack] for stack in (frames, labels))
    if own != expected:
        problem = (
            f"has {plural(len(own), 'frame')} of {own[0]} pixels, "
            f"but {other.name} has {plural(len(expected), 'frame')} of {expected[0]}"
        )
        raise BadFile("size-mismatch", file, problem, "export both at the same size")
    return frames


def size_text(shape: Sequence[int]) -> str:
    """Return a shape as text, such as ``512 x 512``."""
    return " x ".join(map(str, shape))


def _describe_formats(formats: dict[str, list[str]]) -> list[str]:
    """Describe the three most common formats of the images."""
    ordered = sorted(formats.items(), key=lambda item: -len(item[1]))
    lines = [
        f"{len(names)} images like {names[0]}: {text}" if len(names) > 1 else f"{names[0]}: {text}"
        for text, names in ordered[:3]
    ]
    rest = sum(len(names) for _, names in ordered[3:])
    return [*lines, f"{plural(rest, 'more image')} with other sizes or types"] if rest else lines
