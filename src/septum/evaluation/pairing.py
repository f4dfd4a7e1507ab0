"""Predictions x truth -> cases: which files are prediction, truth, ignore mask and image of one another."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from septum.data.images import SUFFIXES
from septum.data.layout import PARTNERS, ROI_SUFFIX, is_roi, stem
from septum.errors import DatasetError, did_you_mean
from septum.evaluation.cases import Case, Cases, cases_of_files
from septum.evaluation.predicted_images import predicted_images

MAP = "_probabilities"  # a_probabilities.tif beside a_labels.tif, as septum predict writes them
_PICTURE = re.compile(r"_overlay(_\d+)?$")


@dataclass(frozen=True)
class _Files:
    """What a folder holds: label images, probability maps and plain images by the name of the image."""

    labels: dict[str, Path] = field(default_factory=dict)
    maps: dict[str, Path] = field(default_factory=dict)
    images: dict[str, Path] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys([*self.labels, *self.maps]))


def cases_from_files(
    predictions: Path, truth: Path, *, ignore: Path | None = None, images: Path | None = None
) -> Cases:
    """Pair the files of predictions and truth by the first layout that fits; pixels are not read yet.

    1. Truth of the Cell Tracking Challenge (``01_GT``, ``01_GT/SEG``, the video ``01``, or a folder of videos) with
       ``01_RES/maskTTT.tif``, or ``tTTT_labels.tif`` as ``septum predict`` writes them for its frames.
    2. Two files, or a file and the folder that holds its partner.
    3. Two folders: a prediction ``a.tif``, ``a_labels.tif`` (or ``_mask``, ``_masks``) or ``a_probabilities.tif`` for
       each truth ``a.tif``, ``a_labels.tif``, ..., or ImageJ ROIs ``a.zip``. A folder with ``labels/`` stands for that.

    Stacks are paired page by page. Ignore masks and images are looked for in ``ignore/`` and ``images/`` beside the
    truth unless they are given; if there are none, images are those that ``septum predict`` recorded beside its
    results. In a challenge folder images are those of the video unless they are given, and both are
    ``tTTT.tif`` or ``maskTTT.tif``, with a folder per video if there are several.

    Raises
    ------
    DatasetError
        A truth without prediction, a prediction without truth, stacks of different lengths, or ignore masks or images
        that belong to none.
    """
    for path in (predictions, truth, *filter(None, (ignore, images))):
        if not path.exists():
            raise DatasetError(f"{path} does not exist; check the path")
    # "." has neither a name nor a parent
    predictions, truth = (Path(os.path.abspath(path)) for path in (predictions, truth))
    videos = _videos(truth)
    if videos:
        return _challenge(predictions, videos, ignore, images)
    if (truth / "labels").is_dir():
        truth = truth / "labels"
    folder = truth if truth.is_dir() else truth.parent
    wanted, found = _list(truth), _list(predictions)
    for path, held in ((truth, wanted.names), (predictions, found.names)):
        if not held:
            raise DatasetError(f"{path} holds no label image; Septum reads {' '.join((*SUFFIXES, ROI_SUFFIX))}")
    masks = _beside(wanted.names, ignore, folder.parent / "ignore")
    recorded = {} if images else predicted_images(predictions if predictions.is_dir() else predictions.parent)
    if predictions.is_file() and truth.is_file():
        recorded = {new: recorded[old] for old, new in zip(found.names, wanted.names, strict=True) if old in recorded}
        found = _renamed(found, wanted.names[0])
    pictures = {**recorded, **wanted.images, **_beside(wanted.names, images, folder.parent / "images")}
    names = wanted.names
    if predictions.is_file():
        names = [name for name in names if name in found.names]
        if not names:
            raise DatasetError(f"{predictions} has no truth of that name in {truth}; give the file of its truth")
    cases: list[Case] = []
    for name in names:
        if name not in found.names:
            raise DatasetError(
                f"{_truth_file(wanted, name)} has no prediction in {predictions}, such as {name}.tif or "
                f"{name}_labels.tif{did_you_mean(name, found.names)}"
            )
        cases += cases_of_files(
            name,
            _truth_file(wanted, name),
            found.labels.get(name),
            found.maps.get(name),
            masks.get(name),
            pictures.get(name),
        )
    if predictions.is_dir() and truth.is_dir():
        _refuse_extra(
            [(found.labels.get(name) or found.maps[name]) for name in found.names if name not in names], truth
        )
    files = f"{predictions.name} against {truth.name}" if len(names) == 1 else f"{len(names)} files of equal names"
    pages = f", {len(cases)} images" if len(cases) > len(names) else ""
    extra = [
        f"{len(given)} with {what}" for given, what in ((masks, "ignore masks"), (found.maps, "probabilities")) if given
    ]
    return Cases(tuple(cases), ", ".join([files + pages, *extra]))


def _list(path: Path) -> _Files:
    """Sort the files of a folder, or of the folder of one file, by what they are and whose they are."""
    folder = path if path.is_dir() else path.parent
    files = [file for file in _entries(folder) if file.suffix.lower() in (*SUFFIXES, ROI_SUFFIX)]
    files = [file for file in files if not _PICTURE.search(stem(file))]
    maps = _one_each_of(file for file in files if stem(file).endswith(MAP))
    others = [file for file in files if not stem(file).endswith(MAP)]
    if path.is_file():
        name = _base(path)
        own_map = {name: maps[name]} if name in maps else {}
        return _Files({}, {name: path}) if stem(path).endswith(MAP) else _Files({name: path}, own_map)
    marked = [file for file in others if stem(file).endswith(PARTNERS) or is_roi(file)]
    plain = [file for file in others if file not in marked]
    # where some files are called a_labels.tif, the others are images
    return _Files(_one_each_of(marked or plain), maps, _one_each_of(plain) if marked else {})


def _beside(names: Sequence[str], given: Path | None, default: Path) -> dict[str, Path]:
    """Ignore masks or images by the name of the truth: those given, or those of a folder that need not be there."""
    if given is not None and given.is_file():
        if len(names) > 1:
            raise DatasetError(f"{given} is one file for {len(names)} images; give a folder with files of their names")
        return dict.fromkeys(names, given)
    place = default if given is None else given
    found = _one_each_of(file for file in _entries(place) if file.suffix.lower() in SUFFIXES)
    if given is not None and not set(names) & set(found):
        raise _fits_none(given, names[0])
    return {name: file for name, file in found.items() if name in names}


def _fits_none(given: Path, name: str) -> DatasetError:
    return DatasetError(f"{given} has no file for any of the images, such as {name}.tif; use equal names")


def _one_each_of(files: Iterable[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in files:
        other = found.setdefault(_base(file), file)
        if other != file:
            raise DatasetError(f"{other} and {file} belong to the same image; keep one of them")
    return found


def _entries(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(file for file in path.iterdir() if not file.name.startswith(".")) if path.is_dir() else []


def _base(file: Path) -> str:
    """Name of the image that a file belongs to."""
    name = unicodedata.normalize("NFC", stem(file))  # macOS takes accented letters apart
    return next((name.removesuffix(end) for end in (*PARTNERS, MAP) if name.endswith(end)), name)


def _renamed(files: _Files, name: str) -> _Files:
    """Two files that were named belong together, whatever they are called."""
    return _Files(*(dict(zip([name], part.values(), strict=False)) for part in (files.labels, files.maps)))


def _truth_file(wanted: _Files, name: str) -> Path:
    if name not in wanted.labels:
        raise DatasetError(f"{wanted.maps[name]} holds probabilities, but the truth is a label image; give its labels")
    return wanted.labels[name]


def _refuse_extra(files: Sequence[Path], truth: Path) -> None:
    if files:
        more = f" (and {len(files) - 1} more)" if len(files) > 1 else ""
        raise DatasetError(f"{files[0]}{more} has no truth in {truth}; add its truth, or move it elsewhere")


def _videos(truth: Path) -> dict[str, Path]:
    """Videos of the Cell Tracking Challenge by name, with their ``_GT`` folders."""
    if truth.name == "SEG" and truth.parent.name.endswith("_GT"):
        folders = [truth.parent]
    elif truth.name.endswith("_GT"):
        folders = [truth]
    elif (truth.parent / f"{truth.name}_GT").is_dir():
        folders = [truth.parent / f"{truth.name}_GT"]
    else:
        folders = [entry for entry in _entries(truth) if entry.name.endswith("_GT")] if truth.is_dir() else []
    return {folder.name.removesuffix("_GT"): folder for folder in folders if (folder / "SEG").is_dir()}


def _challenge(predictions: Path, videos: dict[str, Path], ignore: Path | None, pictures: Path | None) -> Cases:
    """SEG from the frames with gold truth; detections from those with markers."""
    images: list[Case] = []
    detections: list[Case] = []
    unscored = 0
    for video, truth in videos.items():
        results = predictions / f"{video}_RES"
        if not results.is_dir() and len(videos) == 1:
            results = predictions
        if not results.is_dir():
            raise DatasetError(f"{predictions} has no folder {video}_RES with the masks of video {video}; add it")
        masks, seg, tra = _numbered(results), _numbered(truth / "SEG"), _numbered(truth / "TRA")
        if not seg:
            raise DatasetError(
                f"{truth / 'SEG'} holds no man_segTTT.tif; check the path (slices of 3-D videos, man_seg_TTT_ZZZ.tif, "
                "are not scored)"
            )
        for number, file in {**tra, **seg}.items():
            if number not in masks:
                raise DatasetError(f"{file} has no prediction mask{number}.tif in {results}; predict that frame")
        extra = [file for number, file in masks.items() if number not in {**tra, **seg}]
        if tra:
            _refuse_extra(extra, truth)
        unscored += len(extra)
        own = video if len(videos) > 1 else ""  # of several videos each has its folder in those that are given
        maps, ignored = _numbered(results, MAP), _numbered(ignore / own) if ignore else {}
        shown = _numbered(pictures / own if pictures else truth.parent / video)
        for number, file in seg.items():
            name = f"{video}_{number}" if len(videos) > 1 else number
            beside = [part.get(number) for part in (maps, ignored, shown, tra)]
            images.append(_frame(name, file, masks[number], *beside, number=number, video=video))
        for number, file in tra.items():
            beside = [None, ignored.get(number)]
            detections.append(_frame(number, file, masks[number], *beside, number=number, video=video))
    first = images[0]
    example = f"t{first.frame}" if len(videos) == 1 else f"{first.video}/t{first.frame}"
    for given, used in (
        (ignore, any(case.ignore for case in (*images, *detections))),
        (pictures, any(case.image for case in images)),
    ):
        if given is not None and not used:
            raise _fits_none(given, example)
    rule = f"Cell Tracking Challenge, video {' and '.join(videos)}: {_frames(len(images))} with gold truth"
    rule += f", {len(detections)} with markers" if detections else ", no markers (TRA), so no DET"
    rule += f"; {_frames(unscored)} without truth not scored" if unscored else ""
    return Cases(tuple(images), rule, tuple(detections), challenge=True)


def _frames(number: int) -> str:
    return f"{number} frame{'s' * (number != 1)}"


def _frame(name: str, truth: Path, *files: Path | None, number: str, video: str) -> Case:
    cases = cases_of_files(name, truth, *files)
    if len(cases) > 1:
        raise DatasetError(f"{truth} has {len(cases)} pages, but a frame of a video is one 2-D image; split it")
    return replace(cases[0], frame=number, video=video)


def _numbered(folder: Path, ending: str = "(?:_labels)?") -> dict[str, Path]:
    """Files of a challenge folder, such as ``mask002.tif``, by the number of their frame."""
    found: dict[str, Path] = {}
    for file in _entries(folder):
        match = re.fullmatch(r"(?:mask|man_seg|man_track|t)(\d+)" + ending, stem(file))
        if match and file.suffix.lower() in SUFFIXES:
            other = found.setdefault(match[1], file)
            if other != file:
                raise DatasetError(f"{other} and {file} belong to the same frame; keep one of them")
    return found
