"""Which files of a folder belong together: image, labels, ignore mask, markers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from septum.data.findings import Finding, finding
from septum.data.names import (
    IMAGE_SUFFIXES,
    ROI_SUFFIX,
    frame_number,
    image_of,
    is_folder,
    is_image,
    is_label,
    is_roi,
    key_of,
    stem_of,
    visible_entries,
)
from septum.errors import did_you_mean
from septum.words import plural

EXPECTED = (
    "expected images/ and labels/ (optionally ignore/) with equal file names, or a.tif beside a_mask.tif, a_masks.tif, "
    "a_labels.tif or ImageJ ROIs a.zip, or a Cell Tracking Challenge folder (01 and 01_GT/SEG)"
)


@dataclass(frozen=True)
class Pair:
    """The files of one image, or of one stack page by page."""

    name: str
    image: Path
    labels: Path
    ignore: Path | None = None
    markers: Path | None = None  # a mark on every cell, also where `labels` has none (Cell Tracking Challenge, TRA)
    video: str = ""  # of the Cell Tracking Challenge


@dataclass(frozen=True)
class Pairing:
    """The pairs, the rule that found them, and what is wrong."""

    rule: str
    pairs: tuple[Pair, ...]
    findings: tuple[Finding, ...]


def find_pairs(path: Path, labels: Path | None = None) -> Pairing:
    """Pair the files of a data set by the first layout that fits.

    1. `labels` given: two files, or two folders with equal file names; ``ignore/`` lies beside the folder of labels.
    2. One image file: its label file beside it, as in 5.
    3. A folder with ``images/`` and ``labels/``, optionally ``ignore/``: equal names (`septum.data.names`).
    4. A Cell Tracking Challenge video ``01`` beside ``01_GT/SEG``, or the folder of such videos: frames that have a
       ``man_seg``.
    5. A folder with ``a.tif`` and ``a_mask.tif``, ``a_masks.tif``, ``a_labels.tif`` or ImageJ ROIs ``a.zip``.

    Nothing is raised and no image is opened: what does not fit is a finding.
    """
    try:
        pairing = _by_layout(path, labels)
    except OSError as error:
        return _nothing(
            Path(error.filename or path), f"cannot be read ({error.strerror})", "check the path and its permissions"
        )
    files = [file for pair in pairing.pairs for file in (pair.image, pair.labels, pair.ignore, pair.markers) if file]
    names = {*map(str, files), *(one.file for one in pairing.findings)}
    # Python keeps bytes that are not UTF-8 as lone surrogates, which can neither be printed nor written
    undecoded = sorted(name for name in names if re.search("[\ud800-\udfff]", name))
    if undecoded:
        problem, fix = "has a name that is not valid UTF-8", "rename it"
        return Pairing("", (), tuple(finding("unreadable", ascii(name), problem, fix) for name in undecoded))
    return pairing


def _by_layout(path: Path, labels: Path | None) -> Pairing:
    for given in (path, labels):
        if given is not None and not given.exists():
            return _nothing(given, "does not exist", "check the path")
    if labels is not None:
        return _given(path, labels)
    if not is_folder(path):
        return _flat(path.parent, only=path)
    if (path / "images").is_dir():
        if not (path / "labels").is_dir():
            return _nothing(path, "has images/ but no labels/", EXPECTED)
        return _folders(path / "images", path / "labels")
    videos = [path] if _truth(path).is_dir() else [video for video in visible_entries(path) if _truth(video).is_dir()]
    return _challenge(videos) if videos else _flat(path)


def _nothing(path: Path, problem: str, fix: str) -> Pairing:
    return Pairing("", (), (finding("no-data", path, problem, fix),))


def _given(path: Path, labels: Path) -> Pairing:
    if is_folder(path) and is_folder(labels):
        return _folders(path, labels)
    if is_folder(path) or is_folder(labels):
        return _nothing(labels, f"cannot be paired with {path}", "give two files or two folders")
    findings: list[Finding] = []
    key = key_of(labels)
    masks = [file for file in visible_entries(labels.parent.parent / "ignore") if is_image(file)]
    mask = _one_each(((key, file) for file in masks if image_of(file, {key}) == key), findings).get(key)
    rule = f"{path.name} with labels {labels.name}" + (f" and {mask.parent.name}/{mask.name}" if mask else "")
    return Pairing(rule, (Pair(stem_of(path), path, labels, mask),), tuple(findings))


def _folders(images: Path, labels: Path) -> Pairing:
    findings: list[Finding] = []
    found = _one_each(((key_of(file), file) for file in _images(images, findings)), findings)
    truth, masks = (
        _one_each(((image_of(file, found), file) for file in _images(folder, findings, *also)), findings)
        for folder, *also in ((labels, ROI_SUFFIX), (labels.parent / "ignore",))
    )
    if not found and not findings:
        return _nothing(images, "has no images", EXPECTED)
    pairs = tuple(
        Pair(stem_of(image), image, truth[key], masks.get(key)) for key, image in found.items() if key in truth
    )
    findings += _without_label(images, [image for key, image in found.items() if key not in truth], bool(pairs))
    for file in (folder[key] for folder in (truth, masks) for key in folder if key not in found):
        fix = "give both the same name" + (did_you_mean(key_of(file), found) if len(found) < 20 else "")
        findings.append(finding("missing-image", file, f"has no image in {images.name}/", fix))
    rule = f"{plural(len(pairs), 'pair')} with equal names in {images.name}/ and {labels.name}/"
    return Pairing(rule + (f", {len(masks)} with ignore/" if masks else ""), pairs, tuple(findings))


def _flat(folder: Path, only: Path | None = None) -> Pairing:
    findings: list[Finding] = []
    files = [file for file in visible_entries(folder) if is_image(file) or is_roi(file)]
    images = [only] if only else [file for file in files if not is_label(file)]
    found = _one_each(((key_of(file), file) for file in images), findings)
    partners: dict[str, list[Path]] = {}
    for file in filter(is_label, files):
        if file != only and (not only or image_of(file, found) in found):
            partners.setdefault(image_of(file, found), []).append(file)
    if not found and not partners:
        return _nothing(folder, "has no images", EXPECTED)
    pairs = []
    for key, image in found.items():
        if len(partners.get(key, [])) > 1:
            problem = f"has several label files: {' and '.join(file.name for file in partners[key])}"
            findings.append(finding("ambiguous-name", image, problem, "keep one of them"))
        elif key in partners:
            pairs.append(Pair(stem_of(image), image, partners[key][0]))
    findings += _without_label(only or folder, [found[key] for key in found if key not in partners], bool(pairs))
    for key in partners:
        if key not in found:
            problem, fix = f"has no image {key} beside it", "add the image, or give both the same name"
            findings += [finding("missing-image", file, problem, fix) for file in partners[key]]
    files = [pair.labels for pair in pairs]
    endings = sorted({key_of(file)[len(image_of(file)) :] + file.suffix for file in files})
    rule = f"{plural(len(pairs), 'pair')}: labels are a{' or a'.join(endings)} beside images a.*"
    return Pairing(rule, tuple(pairs), tuple(findings))


def _challenge(videos: list[Path]) -> Pairing:
    findings: list[Finding] = []
    pairs, frames = [], 0
    for video in videos:
        marks_folder = _truth(video).parent / "TRA"
        images = _numbered(video, "t", findings)
        marks = _numbered(marks_folder, "man_track", findings)
        frames += len(images)
        for number, labels in _numbered(_truth(video), "man_seg", findings).items():
            if number in images:
                if marks and number not in marks:
                    problem = f"has no man_track{number}.tif in {marks_folder}: all its background counts as annotated"
                    findings.append(finding("missing-markers", labels, problem, "add the markers, or remove the mask"))
                name = f"{video.name}_{stem_of(images[number])}"
                pairs.append(Pair(name, images[number], labels, None, marks.get(number), video.name))
            else:
                problem, fix = f"has no image t{number}.tif in {video}", "add the frame, or remove its mask"
                findings.append(finding("missing-image", labels, problem, fix))
    if not pairs and not findings:
        return _nothing(videos[0], "has no man_seg*.tif in its _GT/SEG", EXPECTED)
    rule = (
        f"Cell Tracking Challenge, video {', '.join(video.name for video in videos)}: "
        f"{plural(len(pairs), 'frame')} with gold truth (man_seg)"
    )
    if frames > len(pairs):
        rule += f"; {frames - len(pairs)} of {frames} frames have none and are left out"
    return Pairing(rule, tuple(pairs), tuple(findings))


def _without_label(place: Path, images: list[Path], some_have: bool) -> list[Finding]:
    if images and not some_have:
        fix = EXPECTED if is_folder(place) else "give its label file with --labels, or name it a_mask.tif beside a.tif"
        return [finding("no-data", place, "has no labels", fix)]
    fix = "annotate it, or give its label file the same name"
    return [finding("missing-label", file, "has no labels and is left out", fix) for file in images]


def _truth(video: Path) -> Path:
    return video.parent / f"{video.name}_GT" / "SEG"


def _numbered(folder: Path, kind: str, findings: list[Finding]) -> dict[str, Path]:
    """Files such as ``man_seg002.tif`` by their number as written."""
    files = [file for file in visible_entries(folder) if is_image(file)]
    numbers = [(frame_number(key_of(file), kind), file) for file in files]
    return _one_each(((number, file) for number, file in numbers if number), findings)


def _images(folder: Path, findings: list[Finding], *also: str) -> list[Path]:
    files = []
    for file in visible_entries(folder):
        if is_image(file) or file.suffix.lower() in also:
            files.append(file)
        elif file.is_file():
            problem = "is skipped: its suffix is not one of " + " ".join((*IMAGE_SUFFIXES, *also))
            findings.append(finding("ignored-file", file, problem, "if it is an image, save it as TIFF"))
    return files


def _one_each(named: Iterable[tuple[str, Path]], findings: list[Finding]) -> dict[str, Path]:
    """Files by the name of their image; a second one of the same name is a finding."""
    found: dict[str, Path] = {}
    for name, file in named:
        other = found.setdefault(name, file)
        if other != file:
            problem, fix = f"belongs to the same image as {other.name}", "rename or remove one of them"
            findings.append(finding("ambiguous-name", file, problem, fix))
    return found
