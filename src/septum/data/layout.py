"""Which files of a folder are image, labels and ignore mask of one another."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from septum.data.findings import Finding, finding
from septum.data.images import SUFFIXES
from septum.errors import did_you_mean

PARTNERS = ("_mask", "_masks", "_labels")  # a_mask.tif beside a.tif
ROI_SUFFIX = ".zip"
EXPECTED = (
    "expected images/ and labels/ (and, if needed, ignore/) with equal file names, or a.tif with a_mask.tif, "
    "a_masks.tif, a_labels.tif or ImageJ ROIs a.zip beside it, or a Cell Tracking Challenge folder (01 and 01_GT/SEG)"
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
    """What was found, by which rule, and what has no partner."""

    rule: str
    pairs: tuple[Pair, ...]
    findings: tuple[Finding, ...]


def find_pairs(path: Path, labels: Path | None = None) -> Pairing:
    """Pair the files of a data set by the first layout that fits.

    1. `labels` given: two files, or two folders with equal file names; ``ignore/`` lies beside the folder of labels.
    2. One image file: its partner beside it, as in 5.
    3. A folder with ``images/`` and ``labels/``, optionally ``ignore/``: equal file names but for the suffix.
    4. A Cell Tracking Challenge video ``01`` beside ``01_GT/SEG``, or the folder of such videos: frames that have a
       ``man_seg``.
    5. A folder with ``a.tif`` and ``a_mask.tif``, ``a_masks.tif``, ``a_labels.tif`` or ImageJ ROIs ``a.zip``.

    Nothing is raised and no image opened: what does not fit is a finding.
    """
    try:
        pairing = _by_layout(path, labels)
    except OSError as error:
        return _nothing(
            Path(error.filename or path), f"cannot be read ({error.strerror})", "check path and permissions"
        )
    files = [file for pair in pairing.pairs for file in (pair.image, pair.labels, pair.ignore, pair.markers) if file]
    names = {*map(str, files), *(one.file for one in pairing.findings)}
    # Python keeps bytes that are no UTF-8 as lone surrogates, which can neither be printed nor written down
    undecoded = sorted(name for name in names if re.search("[\ud800-\udfff]", name))
    if undecoded:
        wrong = (finding("unreadable", ascii(name), "has a name that is no UTF-8", "rename it") for name in undecoded)
        return Pairing("", (), tuple(wrong))
    return pairing


def _by_layout(path: Path, labels: Path | None) -> Pairing:
    for given in (path, labels):
        if given is not None and not given.exists():
            return _nothing(given, "does not exist", "check the path")
    if labels is not None:
        return _given(path, labels)
    if path.is_file():
        return _flat(path.parent, only=path)
    if (path / "images").is_dir():
        if not (path / "labels").is_dir():
            return _nothing(path, "has images/ but no labels/", EXPECTED)
        return _folders(path / "images", path / "labels")
    videos = [path] if _truth(path).is_dir() else [video for video in _entries(path) if _truth(video).is_dir()]
    return _challenge(videos) if videos else _flat(path)


def stem(path: Path) -> str:
    """Return the name without suffix, also of ``a.ome.tif``."""
    return path.name.removesuffix(path.suffix).removesuffix(".ome")


def is_roi(path: Path) -> bool:
    """Whether a label file is an archive of ImageJ ROIs."""
    return path.suffix.lower() == ROI_SUFFIX


def _nothing(path: Path, problem: str, cure: str) -> Pairing:
    return Pairing("", (), (finding("no-data", path, problem, cure),))


def _given(path: Path, labels: Path) -> Pairing:
    if path.is_file() and labels.is_file():
        findings: list[Finding] = []
        masks = [file for file in _entries(labels.parent.parent / "ignore") if file.suffix.lower() in SUFFIXES]
        mask = _by_stem([file for file in masks if stem(file) == stem(labels)], findings).get(stem(labels))
        rule = f"{path.name} with labels {labels.name}" + (f" and {mask.parent.name}/{mask.name}" if mask else "")
        return Pairing(rule, (Pair(stem(path), path, labels, mask),), tuple(findings))
    if path.is_dir() and labels.is_dir():
        return _folders(path, labels)
    return _nothing(labels, f"does not go with {path}", "give two files or two folders")


def _folders(images: Path, labels: Path) -> Pairing:
    findings: list[Finding] = []
    found = _by_stem(_images(images, findings), findings)
    truth = _by_stem(_images(labels, findings, ROI_SUFFIX), findings)
    masks = _by_stem(_images(labels.parent / "ignore", findings), findings)
    if not found and not findings:
        return _nothing(images, "has no images", EXPECTED)
    pairs = tuple(Pair(name, found[name], truth[name], masks.get(name)) for name in found if name in truth)
    findings += _without_label(images, [found[name] for name in found if name not in truth], bool(pairs))
    for folder in (truth, masks):
        for name in folder:
            if name not in found:
                cure = (
                    f"give both the same name{did_you_mean(name, found)}" if len(found) < 20 else "give both one name"
                )
                findings.append(finding("missing-image", folder[name], f"has no image in {images.name}/", cure))
    rule = f"{_count(pairs)} of equal names in {images.name}/ and {labels.name}/"
    return Pairing(rule + (f", {len(masks)} with ignore/" if masks else ""), pairs, tuple(findings))


def _flat(folder: Path, only: Path | None = None) -> Pairing:
    findings: list[Finding] = []
    files = [file for file in _entries(folder) if file.suffix.lower() in (*SUFFIXES, ROI_SUFFIX)]
    partners: dict[str, list[Path]] = {}
    for file in files:
        base = _base(file)
        if base is not None:
            partners.setdefault(base, []).append(file)
    found = _by_stem([file for file in files if _base(file) is None], findings)
    if only is not None:
        found = {stem(only): only}
        partners = {name: files for name, files in partners.items() if name == stem(only)}
        findings.clear()
    if not found and not partners:
        return _nothing(folder, "has no images", EXPECTED)
    pairs = []
    for name in found:
        if len(partners.get(name, [])) > 1:
            listed = " and ".join(file.name for file in partners[name])
            problem, cure = f"has several label files, {listed}", "keep one of them"
            findings.append(finding("ambiguous-name", found[name], problem, cure))
        elif name in partners:
            pairs.append(Pair(name, found[name], partners[name][0]))
    findings += _without_label(only or folder, [found[name] for name in found if name not in partners], bool(pairs))
    for name in partners:
        if name not in found:
            problem, cure = f"has no image {name} beside it", "add the image, or give both the same name"
            findings += [finding("missing-image", file, problem, cure) for file in partners[name]]
    endings = sorted({pair.labels.name.removeprefix(pair.name) for pair in pairs})
    return Pairing(f"{_count(pairs)}, labels are a{' or a'.join(endings)} beside a.*", tuple(pairs), tuple(findings))


def _challenge(videos: list[Path]) -> Pairing:
    findings: list[Finding] = []
    pairs, frames = [], 0
    for video in videos:
        marks_folder = _truth(video).parent / "TRA"
        images, marks = _numbered(video, "t"), _numbered(marks_folder, "man_track")
        frames += len(images)
        for number, labels in _numbered(_truth(video), "man_seg").items():
            if number in images:
                if marks and number not in marks:
                    problem = (
                        f"has no man_track{number}.tif in {marks_folder}: all its background is taken as annotated"
                    )
                    findings.append(finding("missing-markers", labels, problem, "add the markers, or remove the mask"))
                name = f"{video.name}_{stem(images[number])}"
                pairs.append(Pair(name, images[number], labels, None, marks.get(number), video.name))
            else:
                problem, cure = f"has no image t{number}.tif in {video}", "add the frame, or remove its mask"
                findings.append(finding("missing-image", labels, problem, cure))
    if not pairs and not findings:
        return _nothing(videos[0], "has no man_seg*.tif in its _GT/SEG", EXPECTED)
    names = ", ".join(video.name for video in videos)
    rule = f"Cell Tracking Challenge, {_count(pairs)} of frame and gold truth (man_seg) in video {names}"
    if frames > len(pairs):
        rule += f"; left out, having none: {frames - len(pairs)} of {frames} frames"
    return Pairing(rule, tuple(pairs), tuple(findings))


def _without_label(place: Path, images: list[Path], some_have: bool) -> list[Finding]:
    if images and not some_have:
        cure = "give its label file as well, or name that a_mask.tif for a.tif" if place.is_file() else EXPECTED
        return [finding("no-data", place, "has no labels", cure)]
    cure = "annotate it, or give its label file the same name"
    return [finding("missing-label", file, "has no labels and is left out", cure) for file in images]


def _truth(video: Path) -> Path:
    return video.parent / f"{video.name}_GT" / "SEG"


def _numbered(folder: Path, prefix: str) -> dict[str, Path]:
    """Files such as ``man_seg002.tif`` by their number as written."""
    matches = [(re.fullmatch(rf"{prefix}(\d+)\.tiff?", file.name), file) for file in _entries(folder)]
    return {match[1]: file for match, file in matches if match}


def _base(file: Path) -> str | None:
    """Name of the image that a label file belongs to, None for an image."""
    name = stem(file)
    if is_roi(file):
        return name
    return next((name.removesuffix(end) for end in PARTNERS if name.endswith(end)), None)


def _images(folder: Path, findings: list[Finding], *also: str) -> list[Path]:
    files = []
    for file in _entries(folder):
        if file.suffix.lower() in (*SUFFIXES, *also):
            files.append(file)
        elif file.is_file():
            problem = "is left out, since its suffix is none of " + " ".join((*SUFFIXES, *also))
            findings.append(finding("ignored-file", file, problem, "save it as TIFF if it is an image"))
    return files


def _by_stem(files: Iterable[Path], findings: list[Finding]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in files:
        other = found.setdefault(stem(file), file)
        if other != file:
            problem, cure = f"has the same name as {other.name}", "rename or remove one of them"
            findings.append(finding("ambiguous-name", file, problem, cure))
    return found


def _entries(folder: Path) -> list[Path]:
    """What a folder holds, numbers in their order (2 before 10), without hidden files."""
    if not folder.is_dir():
        return []
    visible = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    return sorted(visible, key=lambda entry: [part.zfill(20) for part in re.split(r"(\d+)", entry.name)])


def _count(pairs: Iterable[Pair]) -> str:
    number = len(list(pairs))
    return f"{number} pair" + ("" if number == 1 else "s")
