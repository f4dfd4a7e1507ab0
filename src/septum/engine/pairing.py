"""Predictions x truth -> cases: which files are prediction, truth, ignore mask and image of one another."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path

import numpy as np

from septum.core.metrics.checks import check_labels
from septum.data.findings import BadFile
from septum.data.images import SUFFIXES, Frame, ImageFile, as_channels, from_stored, is_grey, open_stored
from septum.data.labels import as_labels
from septum.data.layout import PARTNERS, ROI_SUFFIX, is_roi, stem
from septum.data.rois import read_rois
from septum.data.stored import PixelSize
from septum.errors import DatasetError, did_you_mean

Reader = Callable[[], np.ndarray]

MAP = "_probabilities"  # a_probabilities.tif beside a_labels.tif, as septum predict writes them
_PICTURE = re.compile(r"_overlay(_\d+)?$")
_FRAME = re.compile(r"(?:mask|man_seg|man_track|t)(\d+)(?:_labels)?")  # of the Cell Tracking Challenge


@dataclass(frozen=True, eq=False)
class Case:
    """One image to score; its arrays are read when they are asked for, so that few are in memory."""

    name: str
    truth_name: str  # what errors call it: a file, or "truth 3"
    prediction_name: str
    truth: Reader  # (Y, X) int32
    prediction: Reader | None  # (C, Y, X) as stored: labels, or one map per channel
    probabilities: Reader | None = None  # (K, Y, X), beside labels or alone
    ignore: Reader | None = None  # (Y, X), non-zero: takes part in nothing
    markers: Reader | None = None  # (Y, X), a mark on every cell (Cell Tracking Challenge, TRA)
    image: Reader | None = None  # (C, Y, X)
    pixel_size: PixelSize | None = None
    frame: str = ""  # its number in a challenge video
    video: str = ""


@dataclass(frozen=True, eq=False)
class Cases:
    """All that is to be scored, and by which rule it was found."""

    images: tuple[Case, ...]
    rule: str
    detections: tuple[Case, ...] = ()  # frames of a challenge with markers: their truth is the markers
    challenge: bool = False


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
    truth unless they are given.

    Raises
    ------
    DatasetError
        A truth without prediction, a prediction without truth, or stacks of different lengths.
    """
    for path in (predictions, truth, *filter(None, (ignore, images))):
        if not path.exists():
            raise DatasetError(f"{path} does not exist; check the path")
    videos = _videos(truth)
    if videos:
        return _challenge(predictions, videos, ignore)
    if (truth / "labels").is_dir():
        truth = truth / "labels"
    folder = truth if truth.is_dir() else truth.parent
    wanted, found = _list(truth), _list(predictions)
    masks = _one_each(ignore if ignore else folder.parent / "ignore")
    pictures = {**wanted.images, **_one_each(images if images else folder.parent / "images")}
    if predictions.is_file() and truth.is_file():
        found = _renamed(found, next(iter(wanted.labels)))
    names = wanted.names
    if predictions.is_file():
        names = [name for name in names if name in found.names]
        if not names:
            raise DatasetError(f"{predictions} has no truth of that name in {truth}; give the file of its truth")
    if not names:
        raise DatasetError(f"{truth} holds no label image; Septum reads {' '.join((*SUFFIXES, ROI_SUFFIX))}")
    cases: list[Case] = []
    for name in names:
        if name not in found.names:
            raise DatasetError(
                f"{_truth_file(wanted, name)} has no prediction in {predictions}{did_you_mean(name, found.names)}"
            )
        cases += _frames(
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


def cases_from_arrays(
    predictions: Sequence[np.ndarray],
    truth: Sequence[np.ndarray],
    *,
    probabilities: Sequence[np.ndarray | None] | None = None,
    ignore: Sequence[np.ndarray | None] | None = None,
    images: Sequence[np.ndarray | None] | None = None,
    pixel_size: PixelSize | None = None,
) -> Cases:
    """Pair arrays by their order; DatasetError if their numbers differ."""
    n = len(truth)
    given = {"predictions": predictions, "probabilities": probabilities, "ignore masks": ignore, "images": images}
    for what, arrays in given.items():
        if arrays is not None and len(arrays) != n:
            raise DatasetError(f"got {len(arrays)} {what} for {n} truths; give one of each per image")
    cases = []
    for k in range(n):
        beside = [None if arrays is None else arrays[k] for arrays in (probabilities, ignore, images)]
        cases.append(
            Case(
                name=f"image {k}",
                truth_name=f"truth {k}",
                prediction_name=f"prediction {k}",
                truth=partial(_array_labels, truth[k], f"truth {k}"),
                prediction=partial(_channels, predictions[k]),
                probabilities=None if beside[0] is None else partial(_channels, beside[0]),
                ignore=None if beside[1] is None else partial(np.asarray, beside[1]),
                image=None if beside[2] is None else partial(as_channels, beside[2]),
                pixel_size=pixel_size,
            )
        )
    return Cases(tuple(cases), f"{n} image{'s' * (n != 1)} in memory")


def _array_labels(array: np.ndarray, name: str) -> np.ndarray:
    return as_labels(check_labels(array, name), name)


def _channels(array: np.ndarray) -> np.ndarray:
    array = np.asarray(array)
    return array[None] if array.ndim == 2 else array


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
    marked = [file for file in others if _base(file) != stem(file) or is_roi(file)]
    plain = [file for file in others if file not in marked]
    # where some files are called a_labels.tif, the others are images
    return _Files(_one_each_of(marked or plain), maps, _one_each_of(plain) if marked else {})


def _one_each(path: Path) -> dict[str, Path]:
    """Files by the name of the image, of a folder that need not be there, or a file."""
    return _one_each_of(file for file in _entries(path) if file.suffix.lower() in SUFFIXES)


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
    return next((stem(file).removesuffix(end) for end in (*PARTNERS, MAP) if stem(file).endswith(end)), stem(file))


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


def _frames(
    name: str,
    truth: Path,
    labels: Path | None,
    probabilities: Path | None,
    ignore: Path | None,
    image: Path | None,
    markers: Path | None = None,
) -> list[Case]:
    """The cases of one file: one, or one per page of a stack."""
    prediction = _open_labels(labels) if labels else None
    beside = {
        what: _open(path) if path else None
        for what, path in (("map", probabilities), ("ignore", ignore), ("image", image), ("markers", markers))
    }
    leading = prediction or beside["map"]
    assert leading is not None  # the caller found one of the two
    shape = leading.frames[0].shape[1:]
    truths, roi_masks, pixel_size = _truth_readers(truth, shape, len(leading.frames))
    for other in filter(None, (prediction, *beside.values())):
        if len(other.frames) != len(truths):
            raise DatasetError(
                f"{other.path} has {len(other.frames)} frames, but the truth {truth} has {len(truths)}; "
                "pair stacks frame by frame"
            )
    return [
        Case(
            name=f"{name}_{k:03d}" if len(truths) > 1 else name,
            truth_name=_frame_name(truth, k, len(truths)),
            prediction_name=_frame_name(leading.path, k, len(truths)),
            truth=truths[k],
            prediction=_reader(prediction, k),
            probabilities=_reader(beside["map"], k),
            ignore=roi_masks[k] or _label_reader(beside["ignore"], k),
            markers=_label_reader(beside["markers"], k),
            image=_reader(beside["image"], k),
            pixel_size=pixel_size or leading.pixel_size,
        )
        for k in range(len(truths))
    ]


def _truth_readers(
    truth: Path, shape: tuple[int, ...], frames: int
) -> tuple[list[Reader], list[Reader | None], PixelSize | None]:
    """Readers of every frame of the truth, of the ignored areas of ROIs, and the pixel size."""
    if is_roi(truth):
        drawn = cache(partial(read_rois, truth, shape, frames))
        masks = drawn()[1]
        truths: list[Reader] = [partial(lambda k: drawn()[0][k], k) for k in range(frames)]
        return truths, [None if mask is None else partial(np.asarray, mask) for mask in masks], None
    file = _open_labels(truth)
    return [partial(_numbers, frame, truth) for frame in file.frames], [None] * len(file.frames), file.pixel_size


def _frame_name(path: Path, k: int, frames: int) -> str:
    return f"{path}, frame {k}" if frames > 1 else str(path)


def _open(path: Path) -> ImageFile:
    """Open a file whose pixels may be numbers: of a colour table, the numbers of the colours."""
    return from_stored(path, replace(open_stored(path), palette=None))


def _open_labels(path: Path) -> ImageFile:
    file = _open(path)
    if file.format == "JPEG":
        cure = "export the labels as TIFF or PNG; a mask that exists as JPEG only must be thresholded first"
        raise BadFile("label-format", path, "is a JPEG, whose compression changes label numbers", cure)
    return file


def _reader(file: ImageFile | None, k: int) -> Reader | None:
    return None if file is None else file.frames[k].read


def _label_reader(file: ImageFile | None, k: int) -> Reader | None:
    return None if file is None else partial(_numbers, file.frames[k], file.path)


def _numbers(frame: Frame, path: Path) -> np.ndarray:
    """(Y, X) label numbers of a frame."""
    return numbers(frame.read(), path)


def numbers(pixels: np.ndarray, name: str | Path) -> np.ndarray:
    """(C, Y, X) pixels -> (Y, X) label numbers; ImageError for colours, fractions and negative numbers."""
    if len(pixels) > 1 and not is_grey(pixels):
        cure = "save one number per pixel as a grey-value TIFF (axes YX, or ZYX for a stack)"
        raise BadFile("label-format", name, f"has {len(pixels)} channels, expected one (no colours)", cure)
    return as_labels(pixels[0], name)


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


def _challenge(predictions: Path, videos: dict[str, Path], ignore: Path | None) -> Cases:
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
        masks = _numbered(results)
        maps = {_FRAME.fullmatch(name): path for name, path in _list(results).maps.items()}
        seg, tra = _numbered(truth / "SEG"), _numbered(truth / "TRA")
        if not seg:
            raise DatasetError(f"{truth / 'SEG'} holds no man_segTTT.tif; check the path")
        for number, file in {**tra, **seg}.items():
            if number not in masks:
                raise DatasetError(f"{file} has no prediction mask{number}.tif in {results}; predict that frame")
        extra = [file for number, file in masks.items() if number not in {**tra, **seg}]
        if tra:
            _refuse_extra(extra, truth)
        unscored += len(extra)
        ignored = _numbered(ignore) if ignore else {}
        pictures = _numbered(truth.parent / video)
        by_number = {match[1]: path for match, path in maps.items() if match}
        for number, file in seg.items():
            name = f"{video}_{number}" if len(videos) > 1 else number
            case = _frame(
                name,
                file,
                masks[number],
                by_number.get(number),
                ignored.get(number),
                pictures.get(number),
                tra.get(number),
            )
            images.append(replace(case, frame=number, video=video))
        for number, file in tra.items():
            case = _frame(number, file, masks[number], None, ignored.get(number), None)
            detections.append(replace(case, frame=number, video=video))
    rule = f"Cell Tracking Challenge, video {' and '.join(videos)}: {len(images)} frames with gold truth"
    rule += f", {len(detections)} with markers" if detections else ", no markers (TRA), so no DET"
    rule += f"; {unscored} masks without truth are not scored" if unscored else ""
    return Cases(tuple(images), rule, tuple(detections), challenge=True)


def _frame(name: str, truth: Path, *files: Path | None) -> Case:
    cases = _frames(name, truth, *files)
    if len(cases) > 1:
        raise DatasetError(f"{truth} has {len(cases)} pages, but a frame of a video is one 2-D image; split it")
    return cases[0]


def _numbered(folder: Path) -> dict[str, Path]:
    """Files of a challenge folder by the number of their frame."""
    found: dict[str, Path] = {}
    for file in _entries(folder):
        match = _FRAME.fullmatch(stem(file))
        if match and file.suffix.lower() in SUFFIXES:
            other = found.setdefault(match[1], file)
            if other != file:
                raise DatasetError(f"{other} and {file} belong to the same frame; keep one of them")
    return found
