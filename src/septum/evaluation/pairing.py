"""Predictions x truth -> cases: which prediction, truth, ignore mask and image belong together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from septum.data.names import (
    IMAGE_SUFFIXES,
    ROI_SUFFIX,
    frame_number,
    image_of,
    is_folder,
    is_image,
    is_label,
    is_map,
    is_overlay,
    is_roi,
    key_of,
    visible_entries,
)
from septum.errors import DatasetError, did_you_mean
from septum.evaluation.cases import Case, Cases, cases_of_files
from septum.evaluation.predicted_images import predicted_images
from septum.words import plural


@dataclass(frozen=True)
class _Files:
    """The files of a folder: label images, probability maps and plain images, by the image they belong to."""

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
    2. Two files, or a file and a folder with a file of the same name.
    3. Two folders: a prediction ``a.tif``, ``a_labels.tif`` (or ``_mask``, ``_masks``) or ``a_probabilities.tif`` for
       each truth ``a.tif``, ``a_labels.tif``, ..., or ImageJ ROIs ``a.zip``. In a folder with ``labels/``, that is the
       truth.

    Stacks are paired page by page. Unless ignore masks and images are given, they come from ``ignore/`` and ``images/``
    beside the truth; without ``images/``, from what ``septum predict`` recorded beside its results. In a challenge
    folder, images are those of the video unless given. There, ignore masks and images are ``tTTT.tif`` or
    ``maskTTT.tif``, in a folder per video if there are several.

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
    if is_folder(truth) and (truth / "labels").is_dir():
        truth = truth / "labels"
    folder = truth if is_folder(truth) else truth.parent
    wanted, found = _list(truth), _list(predictions)
    for path, names in ((truth, wanted.names), (predictions, found.names)):
        if not names:
            suffixes = " ".join((*IMAGE_SUFFIXES, ROI_SUFFIX))
            raise DatasetError(f"{path} has no label image; Septum reads {suffixes} and OME-Zarr")
    masks = _beside(wanted.names, ignore, folder.parent / "ignore")
    recorded = {} if images else predicted_images(predictions if is_folder(predictions) else predictions.parent)
    if not is_folder(predictions) and not is_folder(truth):
        recorded = {new: recorded[old] for old, new in zip(found.names, wanted.names, strict=True) if old in recorded}
        found = _renamed(found, wanted.names[0])
    pictures = {**recorded, **wanted.images, **_beside(wanted.names, images, folder.parent / "images")}
    names = wanted.names
    if not is_folder(predictions):
        names = [name for name in names if name in found.names]
        if not names:
            raise DatasetError(f"{predictions} has no truth of the same name in {truth}; give the truth file itself")
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
    if is_folder(predictions) and is_folder(truth):
        _refuse_extra(
            [(found.labels.get(name) or found.maps[name]) for name in found.names if name not in names], truth
        )
    rule = (
        f"{predictions.name} against {truth.name}" if len(names) == 1 else f"{len(names)} predictions matched by name"
    )
    pages = f", {len(cases)} images" if len(cases) > len(names) else ""
    extra = [
        f"with {what}" if len(names) == 1 else f"{'all' if len(files) == len(names) else len(files)} with {what}"
        for files, what in ((masks, "an ignore mask"), (found.maps, "probabilities"))
        if files
    ]
    return Cases(tuple(cases), ", ".join([rule + pages, *extra]))


def _list(path: Path) -> _Files:
    """Sort the files of a folder (or a single file) by kind and by the image they belong to."""
    folder = path if is_folder(path) else path.parent
    files = [file for file in visible_entries(folder) if (is_image(file) or is_roi(file)) and not is_overlay(file)]
    maps = _one_each(filter(is_map, files))
    if not is_folder(path):
        name = image_of(path)
        return _Files({}, {name: path}) if is_map(path) else _Files({name: path}, _of_name(name, maps))
    plain = [file for file in files if not is_map(file) and not is_label(file)]
    labels = [file for file in files if is_label(file)]
    # if some files are named like a_labels.tif, the others are images
    return _Files(_one_each(labels or plain), maps, _one_each(plain) if labels else {})


def _of_name(name: str, files: dict[str, Path]) -> dict[str, Path]:
    return {name: files[name]} if name in files else {}


def _beside(names: Sequence[str], given: Path | None, default: Path) -> dict[str, Path]:
    """Ignore masks or images by the name of the truth: those given, or those of a folder that need not exist."""
    if given is not None and not is_folder(given):
        if len(names) > 1:
            raise DatasetError(
                f"{given} is a single file for {len(names)} images; give a folder with one file per image"
            )
        return dict.fromkeys(names, given)
    found = _one_each(filter(is_image, visible_entries(default if given is None else given)), names)
    if given is not None and not set(names) & set(found):
        raise _fits_none(given, names[0])
    return {name: file for name, file in found.items() if name in names}


def _fits_none(given: Path, name: str) -> DatasetError:
    return DatasetError(
        f"{given} has no file for any of the images, such as {name}.tif; use the same names as the truth"
    )


def _one_each(files: Iterable[Path], names: Sequence[str] = ()) -> dict[str, Path]:
    """Files by the image that they belong to."""
    found: dict[str, Path] = {}
    for file in files:
        other = found.setdefault(image_of(file, names), file)
        if other != file:
            raise DatasetError(f"{other} and {file} belong to the same image; keep one of them")
    return found


def _renamed(files: _Files, name: str) -> _Files:
    """Two files that the user names belong together, whatever their names."""
    return _Files(*(dict(zip([name], part.values(), strict=False)) for part in (files.labels, files.maps)))


def _truth_file(wanted: _Files, name: str) -> Path:
    if name not in wanted.labels:
        raise DatasetError(f"{wanted.maps[name]} has probabilities, expected a label image as truth; give its labels")
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
        folders = [entry for entry in visible_entries(truth) if entry.name.endswith("_GT")]
    return {folder.name.removesuffix("_GT"): folder for folder in folders if (folder / "SEG").is_dir()}


def _challenge(predictions: Path, videos: dict[str, Path], ignore: Path | None, pictures: Path | None) -> Cases:
    """SEG is scored on frames with gold truth, detection on frames with markers."""
    images: list[Case] = []
    detections: list[Case] = []
    unscored = 0
    for video, truth in videos.items():
        results = predictions / f"{video}_RES"
        if not results.is_dir() and len(videos) == 1:
            results = predictions
        if not results.is_dir():
            raise DatasetError(f"{predictions} has no folder {video}_RES with the masks of video {video}; add it")
        masks = _numbered(results, lambda file: not is_map(file), image_of)
        seg, tra = _numbered(truth / "SEG"), _numbered(truth / "TRA")
        if not seg:
            raise DatasetError(
                f"{truth / 'SEG'} has no man_segTTT.tif; check the path (slices of 3-D videos, man_seg_TTT_ZZZ.tif, "
                "are not scored)"
            )
        for number, file in {**tra, **seg}.items():
            if number not in masks:
                raise DatasetError(f"{file} has no prediction mask{number}.tif in {results}; predict that frame")
        extra = [file for number, file in masks.items() if number not in {**tra, **seg}]
        if tra:
            _refuse_extra(extra, truth)
        unscored += len(extra)
        own = video if len(videos) > 1 else ""  # several videos have a folder each
        maps, ignored = _numbered(results, is_map, image_of), _numbered(ignore / own) if ignore else {}
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
    rule = f"Cell Tracking Challenge, video {' and '.join(videos)}: {plural(len(images), 'frame')} with gold truth"
    rule += f", {len(detections)} with markers" if detections else ", no markers (TRA), so no DET"
    rule += f"; {plural(unscored, 'frame')} without truth not scored" if unscored else ""
    return Cases(tuple(images), rule, tuple(detections), challenge=True)


def _frame(name: str, truth: Path, *files: Path | None, number: str, video: str) -> Case:
    cases = cases_of_files(name, truth, *files)
    if len(cases) > 1:
        raise DatasetError(
            f"{truth} has {len(cases)} pages, but a frame of a video must be a single 2-D image; split it"
        )
    return replace(cases[0], frame=number, video=video)


def _numbered(
    folder: Path, wanted: Callable[[Path], bool] = is_image, name_of: Callable[[Path], str] = key_of
) -> dict[str, Path]:
    """Files of a challenge folder, such as ``mask002.tif``, by the number of their frame."""
    found: dict[str, Path] = {}
    for file in visible_entries(folder):
        number = frame_number(name_of(file), "mask", "man_seg", "man_track", "t")
        if number and is_image(file) and wanted(file):
            other = found.setdefault(number, file)
            if other != file:
                raise DatasetError(f"{other} and {file} belong to the same frame; keep one of them")
    return found
