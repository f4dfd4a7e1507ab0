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
    group: str = ""  # stack or video; its frames follow one another, and neighbours are alike
    frame: int = 0  # within its file
    image_path: Path | None = None
    label_path: Path | None = None
    file: str = ""  # what findings call it


def read_pairs(
    pairs: Sequence[Pair], channel: int | None, notes: list[str], findings: list[Finding], keep: Keep
) -> list[Sample]:
    """Read all pairs of files; say what the images look like, and keep what is wrong for the end."""
    samples: list[Sample] = []
    looks: dict[str, list[str]] = {}  # what files say about axes and pixel size -> their names
    for pair in pairs:
        image = attempt(findings, partial(open_image, channel=channel), pair.image)
        if image is not None:
            looks.setdefault(image.description.removeprefix(f"{pair.image.name}: "), []).append(pair.image.name)
        samples += _read_pair(pair, image, findings, keep)
    notes += _say_looks(looks)
    partly = sum(sample.ignore is not None for sample in samples)
    if partly:
        notes.append(f"{partly} of {len(samples)} images are only partly annotated: the rest of them is ignored")
    return samples


def attempt(findings: list[Finding], read: Callable[..., T], *arguments: Any) -> T | None:
    """Call a function that reads; keep what is wrong, so that the other files are looked at too."""
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
        problem = f"has {_frames(labels)}, but its image {pair.image.name} has {_frames(pixels)}"
        fix = "give one label image per slice (one file per image also works)"
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
    """Read label images and where they do not count; None for ROIs on an image that cannot be read."""
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
    """Refuse ignore masks and markers of another size than the labels."""
    own, expected = ([frame.shape for frame in stack] for stack in (frames, labels))
    if own != expected:
        problem = f"has {_frames(frames)} of {own[0]}, but {other.name} has {_frames(labels)} of {expected[0]}"
        raise BadFile("size-mismatch", file, problem, "export both at the same size")
    return frames


def _frames(stack: Sequence[np.ndarray]) -> str:
    return f"{len(stack)} frame" + ("" if len(stack) == 1 else "s")


def _say_looks(looks: dict[str, list[str]]) -> list[str]:
    """Say what the most common kinds of files look like."""
    ordered = sorted(looks.items(), key=lambda item: -len(item[1]))
    said = [
        f"{len(names)} images as {names[0]}: {look}" if len(names) > 1 else f"{names[0]}: {look}"
        for look, names in ordered[:3]
    ]
    rest = sum(len(names) for _, names in ordered[3:])
    return [*said, f"{rest} images of other sizes or types"] if rest else said
