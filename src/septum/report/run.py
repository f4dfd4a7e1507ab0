"""The page of a training: how it went, its curves, and its predictions on what was held out."""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from septum.choices import Kind
from septum.config import DataSource
from septum.core.overlay import AGREEMENT, CONFUSED, PREDICTION, TRUTH, overlay
from septum.core.tiling import ArraySource
from septum.data.dataset import load_dataset, shapes
from septum.data.keep import scratch_folder
from septum.errors import DatasetError, OutputError, SeptumError
from septum.machine.generators import drain
from septum.model.model import Model, load
from septum.model.predict import segment
from septum.report.page import write_page
from septum.report.sections import Command, Headline, Number, Picture, Pictures, Section, Table, Text
from septum.report.settings import settings_table
from septum.report.training_curves import training_sections
from septum.training.holdout import hold_out, nothing_held_out
from septum.training.memory import data_bytes, largest_bytes, room_for_data
from septum.training.run import RunConfig, RunFolder
from septum.training.score import SCORE_NAMES, ValidationImage, validation_scores
from septum.words import duration, plural

LEGEND = {"only in the truth": TRUTH, "only predicted": PREDICTION, "both": AGREEMENT, "different classes": CONFUSED}
SCORE_LABELS = {
    "score": "panoptic quality",
    "f1": "F1 at IoU 0.5",
    "mean_matched_iou": "mean IoU of matched objects",
    "mean_iou": "mean IoU of the classes",
    "pixel_error": "pixel error",
}
_SCORE_NOTES = {
    "score": "F1 times mean IoU, 1 is perfect",
    "f1": "how well objects are found, 1 is perfect",
    "mean_matched_iou": "how well their outlines agree, 1 is perfect",
    "mean_iou": "overlap with the truth, 1 is perfect",
    "pixel_error": "share of wrong pixels, 0 is perfect",
}
_MOST_NAMES = 12  # of images in a cell


@dataclass(frozen=True)
class _HeldOut:
    """Pictures and scores of the held-out images, and the names of the others."""

    pictures: Sequence[Picture]
    rows: Sequence[Sequence[object]]
    trained_on: Sequence[str]


def report_run(folder: str | Path) -> Path:
    """Write report.html into a run folder and return its path; ModelError if there is no run."""
    run = RunFolder(Path(folder))
    settings, model = run.config(), load(run.model_file, "cpu")
    records = run.records()
    held_out: _HeldOut | None = None
    try:
        if settings.held_out == nothing_held_out().description:
            raise DatasetError("nothing was held out")
        if settings.source is None:
            raise DatasetError("the training was given arrays, not files")
        held_out = _predict_held_out(run, settings.source, settings.max_memory, model)
        pictures: list[Section] = _held_out_sections(held_out, model)
    except OutputError:
        raise
    except SeptumError as error:
        pictures = [Text("Held-out images", [f"No pictures: {error}."])]
    sections: list[Section] = [score_headline(model.card.scores)] if model.card.scores else []
    sections += [
        *warning_sections(run, settings),
        *pictures,
        _next_steps(run, settings),
        _summary(run, settings, records, model, held_out),
        *training_sections(records, SCORE_NAMES[model.card.kind]),
        settings_table(settings.train),
    ]
    path = run.path / "report.html"
    write_page(path, title=f"Training report: {run.path.name}", subtitle=_subtitle(run, records), sections=sections)
    return path


def _subtitle(run: RunFolder, records: Sequence[Mapping[str, Any]]) -> str:
    return f"{plural(run.last_step(), 'step')} in {duration(_seconds(records))}, finished on {_date(run)}"


def _date(run: RunFolder) -> str:
    """Return when the log was last written, such as "29 November 2026, 07:45"."""
    finished = datetime.datetime.fromtimestamp(run.log_file.stat().st_mtime)
    return f"{finished.day} {finished:%B %Y, %H:%M}"


def _seconds(records: Sequence[Mapping[str, Any]]) -> float:
    return float(max((record["seconds"] for record in records if "seconds" in record), default=0))


def warning_sections(run: RunFolder, settings: RunConfig) -> list[Section]:
    """Say if the training ended early, and which settings were lowered."""
    early = run.early_end(run.last_step())
    warnings = [f"The training ended early. It was {early.text}."] if early else []
    if settings.asked:
        now = settings.train.model_dump()
        lowered = ", ".join(f"{name} {now[name]:g} instead of {asked:g}" for name, asked in settings.asked.items())
        warnings.append(f"Settings were lowered: {lowered}.")
        warnings += [f"Reason: {reason}." for reason in settings.changes]
    return [Text("Warnings", warnings)] if warnings else []


def _summary(
    run: RunFolder,
    settings: RunConfig,
    records: Sequence[Mapping[str, Any]],
    model: Model,
    held_out: _HeldOut | None,
) -> Table:
    """Return a table of what was trained on which data, when and for how long."""
    names = list(settings.data) if held_out is None else held_out.trained_on
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    score = model.card.scores.get("score")
    judged = score is not None and settings.held_out != nothing_held_out().description
    best = str(model.card.step) + (f" ({SCORE_NAMES[model.card.kind]} {score:.4f})" if judged else "")
    is_classes = model.card.kind == "classes"
    budget = f" of {duration(settings.budget)} allowed" if settings.budget else ""
    rows = [
        ["data", "given as arrays" if settings.source is None else settings.source.data],
        ["images" if held_out is None else "training images", f"{len(names)}: {', '.join(names[:_MOST_NAMES])}{more}"],
        ["scores measured on", model.card.held_out],
        ["labels", f"classes: {', '.join(model.card.class_names)}" if is_classes else "instances"],
        ["steps", f"{run.last_step()} of {settings.steps} planned"],
        ["best step", f"{best}; the model has the weights of this step"],
        ["duration", duration(_seconds(records)) + budget],
        ["finished", _date(run)],
        ["device", f"{settings.device}, {plural(settings.threads, 'thread')}"],
        ["versions", ", ".join(f"{name} {settings.versions[name]}" for name in ("septum", "torch"))],
    ]
    return Table("About this training", ["", ""], rows)


def _next_steps(run: RunFolder, settings: RunConfig) -> Text:
    """Return the commands for the next step."""
    folder = shlex.quote(str(run.path))
    paragraphs: list[str | Command] = [
        "Segment new images with this model:",
        Command(f"septum predict {folder} IMAGES --output predictions"),
    ]
    if settings.source is not None and settings.held_out != nothing_held_out().description:
        data = shlex.quote(settings.source.data)
        paragraphs += [
            "Happy with the scores? Train once more on all images, including the held-out ones:",
            Command(f"septum train {data} --output {folder} --resume --final"),
        ]
    return Text("Next step", paragraphs)


def _held_out_sections(held_out: _HeldOut, model: Model) -> list[Section]:
    scores = [name for name in SCORE_LABELS if name in model.card.scores]
    objects = ["true objects", "predicted objects"] if model.card.kind == "instances" else []
    return [
        Pictures(
            "Held-out images",
            held_out.pictures,
            columns=4,
            note="The network never trained on these. Each image, its truth, its prediction, and where the two differ.",
            legend=legend_of(model.card.kind),
        ),
        Table(
            "Scores per held-out image",
            ["image", *objects, *(SCORE_LABELS[name] for name in scores)],
            held_out.rows,
            "Higher is better, except for errors.",
        ),
    ]


def _predict_held_out(run: RunFolder, source: DataSource, max_memory: int | None, model: Model) -> _HeldOut:
    """Predict what was held out; a data set too large for memory is read into files meanwhile."""
    images = shapes(source.data, labels=source.labels, channel=source.channel)
    room = room_for_data(max_memory, torch.device("cpu"), largest_bytes(images))
    pictures: list[Picture] = []
    rows: list[list[object]] = []
    trained_on: list[str] = []
    with scratch_folder(run.path / "streamed-report") as folder:
        dataset = load_dataset(
            source.data,
            labels=source.labels,
            kind=source.kind,
            channel=source.channel,
            unlabeled=source.unlabeled,
            folder=folder if data_bytes(images) > room else None,
        )
        run.check_data(dataset.hashes)
        division = hold_out(dataset)
        trained_on += [sample.name for k, sample in enumerate(dataset.samples) if division.trains_on(k)]
        for index, block in division.blocks.items():
            sample = dataset.samples[index]
            predicted = drain(segment(model.net, model.card.config, ArraySource(sample.image))).labels[block]
            truth = np.asarray(sample.labels[block])
            ignore = None if sample.ignore is None else np.asarray(sample.ignore[block])
            pictures += side_by_side(sample.image[:, *block], predicted, truth, sample.name, dataset.kind)
            scores = validation_scores([ValidationImage(predicted, truth, ignore)], dataset.kind, dataset.n_classes)
            objects = [len(np.setdiff1d(labels, [0])) for labels in (truth, predicted)]
            counts = objects if dataset.kind == "instances" else []
            rows.append(
                [sample.name, *counts, *(scores.get(name) for name in SCORE_LABELS if name in model.card.scores)]
            )
    return _HeldOut(pictures, rows, trained_on)


def side_by_side(image: np.ndarray, predicted: np.ndarray, truth: np.ndarray, name: str, kind: Kind) -> list[Picture]:
    """Return four pictures: a (C, Y, X) image, its (Y, X) truth, its prediction, and where the two differ."""
    return [
        Picture(overlay(image, np.zeros_like(truth), kind=kind), name, f"image {name}"),
        Picture(overlay(image, truth, kind=kind), "truth", f"truth of {name}"),
        Picture(overlay(image, predicted, kind=kind), "prediction", f"prediction for {name}"),
        Picture(overlay(image, predicted, truth=truth, kind=kind), "differences", f"prediction and truth of {name}"),
    ]


def legend_of(kind: Kind) -> dict[str, ArrayLike]:
    """Return what the colours mean where a prediction is drawn against its truth."""
    return {name: colour for name, colour in LEGEND.items() if kind == "classes" or name != "different classes"}


def score_headline(scores: Mapping[str, float]) -> Headline:
    """Return the key numbers of a page."""
    names = [name for name in SCORE_LABELS if name in scores and not (name == "score" and "mean_iou" in scores)]
    return Headline([Number(round(scores[name], 4), SCORE_LABELS[name], _SCORE_NOTES[name]) for name in names])
