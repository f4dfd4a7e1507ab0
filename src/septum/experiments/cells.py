"""Cell Tracking Challenge, DIC-HeLa and PhC-U373: cells in light microscopy, with the score SEG."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from septum.core.metrics import ctc
from septum.core.overlay import overlay, to_rgb
from septum.core.tiling import ArraySource
from septum.data.dataset import Dataset, Sample, load_dataset
from septum.data.images import as_channels, open_image, write_labels
from septum.data.labels import read_labels
from septum.data.names import frame_number, is_image, key_of, visible_entries
from septum.errors import DatasetError
from septum.experiments import figures
from septum.experiments.fold import AVERAGING, Fold, Reference, Summary, fold_folder
from septum.machine.generators import drain
from septum.model.model import Model
from septum.model.predict import segment
from septum.report.run import LEGEND
from septum.report.sections import Picture, Pictures, Section, Table
from septum.training.holdout import hold_out, nothing_held_out
from septum.training.patches import prepare
from septum.training.records import ImagesDone
from septum.training.run import RunFolder

VIDEOS = ("01", "02")
MASKS = "8 dihedral"  # averaging of the written masks; the authors' release averages over 4 mirrored versions


@dataclass(frozen=True)
class Cells:
    """A data set of the Cell Tracking Challenge with two annotated videos."""

    title: str
    data: str
    published: Sequence[Reference]
    paper_trained_on: str  # a sentence

    @property
    def split(self) -> Sequence[str]:
        """How the data are split, and what the scores therefore cannot show."""
        return (
            "The truth of the test videos of the challenge is secret. Here one network is trained on video 01 and "
            "tested on all of video 02, and a second one vice versa. No frame of a tested video is used in its "
            "training, since neighbouring frames look alike. SEG of a video is the mean over all its true objects; "
            "the last column is the mean of both videos, as in the challenge.",
            f"The published scores were measured on other videos: compare with care. {self.paper_trained_on} Our "
            "networks train on one video each, a fifth of which is held out for validation.",
            "SEG scores only the annotated objects of the gold truth (SEG/man_seg): in partly annotated frames the "
            "rest does not count, and invented objects cost nothing. Frames without gold truth are predicted too, so "
            "that the challenge's own tool can score the folders 01_RES and 02_RES.",
        )

    def folds(self, folder: Path) -> Sequence[Fold]:
        """Return two folds: each video is tested with the network that was trained on the other."""
        for video in VIDEOS:
            if not (folder / video).is_dir() or not (folder / f"{video}_GT" / "SEG").is_dir():
                raise DatasetError(
                    f"{folder} has no {video} with {video}_GT/SEG, expected the training data of the Cell Tracking "
                    f"Challenge with both videos; get them with 'septum data get {self.data}'"
                )
        return [
            Fold(
                test,
                f"trained on video {train}, tested on video {test}",
                partial(load_dataset, folder / train),
                partial(_samples, folder / test),
                hold_out,
            )
            for test, train in (VIDEOS, VIDEOS[::-1])
        ]

    def score(
        self, fold: Fold, folder: Path, model: Model, output: Path
    ) -> Generator[ImagesDone, None, dict[str, Any]]:
        """Predict every frame of a video into ``01_RES``, and score those with gold truth."""
        samples = {sample.name: sample for sample in fold.test()}
        frames = frame_files(folder / fold.name)
        scores: dict[str, Any] = {}
        for averaging in ("none", MASKS):
            matched, begin = [], time.perf_counter()
            files = [file for file in frames if averaging == MASKS or _name(file) in samples]
            for number, file in enumerate(files):
                yield ImagesDone(f"fold {fold.name}: predicting, averaging {averaging}", number, len(files))
                image = open_image(file)
                pixels = as_channels(image.frames[0].read(), model.card.channels, file.name)
                source = ArraySource(pixels)
                labels = drain(segment(model.net, model.card.config, source, tta=AVERAGING[averaging])).labels
                if averaging == MASKS:
                    write_labels(mask_file(output, _name(file)), labels)
                if sample := samples.get(_name(file)):
                    matched.append(ctc.match_frame(sample.labels, labels, frame=sample.name))
            yield ImagesDone(f"fold {fold.name}: predicting, averaging {averaging}", len(files), len(files))
            pooled = ctc.pool(matched)
            scores[averaging] = {
                "seg": pooled.seg_over_these_frames,
                "objects": pooled.n_reference,
                "missed": pooled.n_missed,
                "per_frame": {
                    frame: float(np.mean(list(objects.values())))
                    for frame, objects in pooled.jaccard_per_reference_label.items()
                    if objects
                },
                "frames": len(matched),
                "predicted_frames": len(files),
                "seconds_per_image": (time.perf_counter() - begin) / len(files),
            }
        return scores

    def summarize(self, folder: Path, output: Path, done: Mapping[Fold, dict[str, Any]]) -> Summary:
        """Combine both videos."""
        columns = [f"SEG, tested on {video}" for video in VIDEOS]
        rows: list[list[object]] = [[one.name, None, None, one.scores["SEG"], "test videos"] for one in self.published]
        by_video = {fold.name: result["scores"] for fold, result in done.items()}
        scores: dict[str, Any] = {}
        for averaging in ("none", MASKS) if done else ():
            segs = [by_video[video][averaging]["seg"] if video in by_video else None for video in VIDEOS]
            known = [seg for seg in segs if seg is not None]
            mean = sum(known) / 2 if len(known) == 2 else None
            scores[averaging] = {**dict(zip(VIDEOS, segs, strict=True)), "mean": mean}
            name = "here, no averaging" if averaging == "none" else f"here, averaged over {averaging}"
            rows.append([name, *segs, mean, "training videos, each unseen"])
        tables = [
            Table(
                "Compared with the paper",
                ["", *columns, "SEG, mean", "measured on"],
                rows,
                note="SEG, called IOU in the paper: higher is better. The test truth of the challenge is secret, so "
                "ours are trained on one training video and tested on the other: compare with care (see below).",
            )
        ]
        if done:
            tables.append(_table_of_folds(done))
        sections, drawn = _pictures(output, done)
        return Summary(scores, tables, sections, drawn)


DIC_HELA = Cells(
    "DIC-HeLa (Cell Tracking Challenge)",
    "dic-hela",
    (
        Reference("U-Net, 2015 (the paper)", {"SEG": 0.7756}),
        Reference("second best, 2015", {"SEG": 0.46}),
        Reference("BGU-IL, 2018 (arXiv:1805.11247)", {"SEG": 0.793}),
    ),
    "The paper's network had 20 partly annotated frames.",
)
PHC_U373 = Cells(
    "PhC-U373 (Cell Tracking Challenge)",
    "phc-u373",
    (Reference("U-Net, 2015 (the paper)", {"SEG": 0.9203}), Reference("second best, 2015", {"SEG": 0.83})),
    "The paper's network had 35 partly annotated frames.",
)


def frame_files(video: Path) -> list[Path]:
    """Return the frames ``tTTT.tif`` of a video, in order."""
    return [file for file in visible_entries(video) if is_image(file) and frame_number(key_of(file), "t")]


def mask_file(output: Path, frame: str) -> Path:
    """Return the file for the mask of a frame.

    Examples
    --------
    >>> mask_file(Path("out"), "01_t007").as_posix()
    'out/01_RES/mask007.tif'
    """
    video, _, stem = frame.partition("_")
    return output / f"{video}_RES" / f"mask{stem.removeprefix('t')}.tif"


def _name(file: Path) -> str:
    """Return the name of a frame in the data set: ``01_t007``."""
    return f"{file.parent.name}_{file.stem}"


def _samples(video: Path) -> Sequence[Sample]:
    return load_dataset(video).samples


def _table_of_folds(done: Mapping[Fold, dict[str, Any]]) -> Table:
    names = ["seg", "objects", "missed", "frames", "predicted_frames", "seconds_per_image"]
    rows = [
        [fold.name, averaging, *(one[name] for name in names)]
        for fold, result in done.items()
        for averaging, one in result["scores"].items()
    ]
    header = ["SEG", "true objects", "missed", "frames with truth", "frames predicted", "seconds per frame"]
    return Table(
        "Every fold",
        ["tested on", "averaging", *header],
        rows,
        note=f"The masks in 01_RES and 02_RES are those averaged over {MASKS}. "
        "Missed: true objects that no predicted object covers by more than half.",
    )


def _with_most_objects(dataset: Dataset) -> int:
    """Return the index of the sample with the most objects, preferably of those that are fully annotated."""

    def rank(index: int) -> tuple[bool, int]:
        sample = dataset.samples[index]
        return sample.ignore is None, len(np.unique(sample.labels))

    return max(range(len(dataset.samples)), key=rank)


def _pictures(output: Path, done: Mapping[Fold, dict[str, Any]]) -> tuple[list[Section], list[figures.Figure]]:
    """Draw the figures of the paper, and every tested frame."""
    if not done:
        return [], []
    predicted = {
        fold: [(sample, read_labels(mask_file(output, sample.name)).frames[0]) for sample in fold.test()]
        for fold in done
    }
    first = next(iter(done))
    config = RunFolder(fold_folder(output, first)).config().train
    dataset = first.train()
    index = _with_most_objects(dataset)
    shown = dataset.samples[index]
    learned = prepare(dataset, config, nothing_held_out(), torch.device("cpu"))[index]
    sample, labels = predicted[first][len(predicted[first]) // 2]
    white = np.repeat(np.where(labels > 0, 255, 0).astype(np.uint8)[..., None], 3, axis=2)
    panels = []
    for pairs in predicted.values():
        one, mask = pairs[len(pairs) // 2]
        rgb = to_rgb(one.image)
        panels += [
            Picture(figures.enlarged(rgb), f"{one.name}: image", f"frame {one.name}"),
            Picture(
                figures.segmented(rgb, mask, one.labels),
                f"{one.name}: prediction; truth in yellow",
                f"predicted cells of frame {one.name} with true outlines",
            ),
        ]
    drawn = [
        figures.overlap_tile(sample.image, white, config.unet.depth, f"Frame {sample.name}, not used in training"),
        figures.targets(
            shown.image,
            shown.labels,
            np.asarray(learned.classes) > 0,
            np.asarray(learned.weights),
            f"Frame {shown.name}",
        ),
        figures.Figure(
            "figure4",
            "Fig. 4: the result",
            "The middle annotated frame of every tested video, not used in training. Predicted cells in colours; "
            "the truth, where there is one, as yellow outlines.",
            panels,
            columns=2,
        ),
    ]
    every = [
        Picture(
            overlay(one.image, mask, truth=one.labels),
            f"{one.name}: SEG {done[fold]['scores'][MASKS]['per_frame'].get(one.name, float('nan')):.3f}",
            f"prediction and truth of frame {one.name}",
        )
        for fold, pairs in predicted.items()
        for one, mask in pairs
    ]
    note = "In partly annotated frames, objects without truth are shown as only predicted."
    legend = {name: colour for name, colour in LEGEND.items() if name != "different classes"}
    return [Pictures("Every tested frame with truth", every, note=note, legend=legend)], drawn
