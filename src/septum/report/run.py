"""The report of a training run: curves, scores and overlays of what was held out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from septum.config import DataSource
from septum.core.overlay import AGREEMENT, CONFUSED, PREDICTION, TRUTH, overlay
from septum.core.tiling import ArraySource
from septum.data.dataset import load_dataset, shapes
from septum.data.keep import emptied
from septum.errors import DatasetError, OutputError, SeptumError
from septum.machine.generators import drain
from septum.model.model import Model, load
from septum.model.predict import segment
from septum.report.page import Headline, Number, Picture, Pictures, Section, Table, Text, training_sections, write_page
from septum.training.holdout import hold_out, nothing_held_out
from septum.training.memory import data_bytes, largest_bytes, room_for_data
from septum.training.run import RunFolder

LEGEND = {"only in the truth": TRUTH, "only predicted": PREDICTION, "both": AGREEMENT, "different classes": CONFUSED}


def report_run(folder: str | Path) -> Path:
    """Write report.html into a run folder and return its path; ModelError if there is no run."""
    run = RunFolder(Path(folder))
    settings, model = run.config(), load(run.model_file)
    sections: list[Section] = [score_headline(model.card.scores)] if model.card.scores else []
    if early := run.early_end(run.last_step()):
        sections.append(Text("Ended early", [early.text]))
    sections += [Text("What the scores were measured on", [model.card.held_out]), *training_sections(run.records())]
    try:
        if settings.held_out == nothing_held_out().description:
            raise DatasetError("nothing was held out")
        if settings.source is None:
            raise DatasetError("the run was given arrays, not files")
        sections.append(_overlays(run, settings.source, settings.max_memory, model))
    except OutputError:
        raise
    except SeptumError as error:
        sections.append(Text("Overlays", [f"There are none: {error}"]))
    sections.append(
        Table(
            "Settings", ["setting", "value"], [[name, str(value)] for name, value in flat(settings.train.model_dump())]
        )
    )
    path = run.path / "report.html"
    write_page(path, title=f"Training run {run.path.name}", subtitle=f"{run.last_step()} steps", sections=sections)
    return path


def _overlays(run: RunFolder, source: DataSource, max_memory: int | None, model: Model) -> Section:
    """Pictures of what was held out; a data set too large for memory is read into files meanwhile."""
    images = shapes(source.data, labels=source.labels, channel=source.channel)
    room = room_for_data(max_memory, torch.device("cpu"), largest_bytes(images))
    pictures = []
    with emptied(run.path / "streamed-report") as folder:
        dataset = load_dataset(
            source.data,
            labels=source.labels,
            kind=source.kind,
            channel=source.channel,
            unlabeled=source.unlabeled,
            folder=folder if data_bytes(images) > room else None,
        )
        run.check_data(dataset.hashes)
        for index, block in hold_out(dataset).blocks.items():
            sample = dataset.samples[index]
            prediction = drain(segment(model.net, model.card.config, ArraySource(sample.image)))
            rgb = overlay(
                sample.image[:, *block], prediction.labels[block], truth=sample.labels[block], kind=dataset.kind
            )
            pictures.append(Picture(rgb, sample.name, f"prediction and truth of {sample.name}"))
    return Pictures("Held-out images: prediction against truth", pictures, legend=LEGEND)


def score_headline(scores: Mapping[str, float]) -> Headline:
    """Return the key numbers of a page."""
    names = {
        "f1": "F1 at IoU 0.5",
        "mean_matched_iou": "mean IoU of matched objects",
        "mean_iou": "mean IoU of the classes",
        "pixel_error": "pixel error",
    }
    return Headline([Number(round(scores[key], 4), label) for key, label in names.items() if key in scores])


def flat(settings: Mapping[str, object], prefix: str = "") -> list[tuple[str, object]]:
    """Return nested settings as dotted names and values."""
    rows: list[tuple[str, object]] = []
    for name, value in settings.items():
        rows += flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(prefix + name, value)]
    return rows
