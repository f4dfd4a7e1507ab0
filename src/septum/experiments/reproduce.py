"""The three experiments of the paper: train and score every fold, and compare with the published numbers."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from septum.choices import Recipe
from septum.config import Settings, TrainConfig, UNetConfig
from septum.data.images import write_png
from septum.errors import ConfigError, DatasetError, did_you_mean
from septum.experiments.cells import DIC_HELA, PHC_U373
from septum.experiments.em import EM
from septum.experiments.figures import compose
from septum.experiments.fold import (
    Experiment,
    Fold,
    Summary,
    describe_training,
    fold_folder,
    train_fold,
    write_json,
)
from septum.report.page import write_page
from septum.report.sections import Pictures, Section, Table, Text
from septum.training.records import ImagesDone, Notice, Record
from septum.words import duration, plural

EXPERIMENTS: Mapping[str, Experiment] = {"em": EM, "dic-hela": DIC_HELA, "phc-u373": PHC_U373}
DEFAULT_BUDGET = 20 * 60.0  # seconds per fold
SETTINGS, RESULT, RESULTS, REPORT = "reproduction.json", "result.json", "results.json", "report.html"


class ReproductionSettings(Settings):
    """The settings of a reproduction, saved with its results so that results of different settings never mix."""

    experiment: str
    recipe: Recipe = "fast"
    budget: float | None = DEFAULT_BUDGET  # seconds per fold
    changes: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class ReproductionOptions:
    """The options of the user; None is the saved setting, or else the default."""

    recipe: Recipe | None = None
    budget: float | None = None
    changes: dict[str, Any] | None = None
    folds: Sequence[str] | None = None  # None: all

    def __post_init__(self) -> None:
        """Refuse unknown settings and values before any image is found, downloaded or read."""
        TrainConfig(unet=UNetConfig()).with_changes(self.changes or {})


@dataclass(frozen=True)
class Reproduction:
    """The results, their tables, and the report."""

    results: dict[str, Any]
    tables: list[Table]
    report: Path


def reproduce(
    name: str, folder: Path, output: Path, options: ReproductionOptions, device: torch.device
) -> Generator[Record | ImagesDone, None, Reproduction]:
    """Repeat an experiment of the paper; yields records, returns the results.

    A finished fold is not trained again, an interrupted one continues. The report is written after every fold.

    Parameters
    ----------
    name : str
        A key of `EXPERIMENTS`.
    folder : Path
        The data folder that `septum.data.catalog.find` returns.
    output : Path
        For ``report.html``, ``results.json``, the figures, ``folds/``, and the files for the challenge.

    Raises
    ------
    ConfigError
        `output` contains something else or a reproduction with other settings, or a fold does not exist.
    DatasetError
        The data are not those of the experiment, or have changed since a fold was trained.
    """
    experiment = EXPERIMENTS[name]
    folds = experiment.folds(folder)
    chosen = _choose(folds, options.folds)
    settings = _settings(name, output, options)
    results = {fold: _result(output, fold) for fold in folds}
    todo = [fold for fold in chosen if results[fold] is None]
    yield Notice(f"{experiment.title}: {plural(len(chosen), 'fold')}, {len(chosen) - len(todo)} already done")
    if todo and "steps" not in settings.changes and settings.budget:
        yield Notice(
            f"training takes {duration(settings.budget)} per fold, {duration(len(todo) * settings.budget)} in all"
        )
    summary = None
    for fold in todo:
        yield Notice(f"fold {fold.name}: {fold.description}")
        place, dataset = fold_folder(output, fold), fold.train()
        model = yield from train_fold(
            dataset,
            place,
            recipe_name=settings.recipe,
            changes=settings.changes,
            held_out=fold.held_out(dataset),
            budget=settings.budget,
            device=device,
        )
        scores = yield from experiment.score(fold, folder, model, output)
        result = {"description": fold.description, **describe_training(place, model), "scores": scores}
        write_json(place / RESULT, result)
        results[fold] = result
        summary = _write(experiment, settings, folder, output, results)
    if summary is None:
        summary = _write(experiment, settings, folder, output, results)
    return Reproduction(json.loads((output / RESULTS).read_text(encoding="utf-8")), summary.tables, output / REPORT)


def _choose(folds: Sequence[Fold], names: Sequence[str] | None) -> list[Fold]:
    by_name = {fold.name: fold for fold in folds}
    for name in names or ():
        if name not in by_name:
            raise ConfigError(f"there is no fold {name!r}{did_you_mean(name, by_name)}")
    return [by_name[name] for name in names] if names else list(folds)


def _settings(name: str, output: Path, options: ReproductionOptions) -> ReproductionSettings:
    """Return the settings of the reproduction in `output`, or save those of a new one; ConfigError if they differ."""
    file = output / SETTINGS
    given = {"recipe": options.recipe, "budget": options.budget, "changes": options.changes}
    wanted: dict[str, Any] = {"experiment": name} | {key: value for key, value in given.items() if value is not None}
    if not any(output.glob("folds/*/config.json")):  # nothing is trained yet, so nothing can mix
        if output.is_dir() and any(path != file for path in output.iterdir()):
            raise ConfigError(f"{output} contains other files, which could be overwritten; choose another --output")
        settings = ReproductionSettings(**wanted)
        write_json(file, settings.model_dump())
        return settings
    saved = ReproductionSettings(**json.loads(file.read_text(encoding="utf-8")))
    for key, value in wanted.items():
        if getattr(saved, key) != value:
            raise ConfigError(
                f"{output} was started with {key} {getattr(saved, key)!r}, got {value!r}; "
                "leave it out to continue, or choose another --output"
            )
    return saved


def _result(output: Path, fold: Fold) -> dict[str, Any] | None:
    """Return the result of a finished fold, None of an unfinished one; DatasetError if its data have changed."""
    file = fold_folder(output, fold) / RESULT
    if not file.exists():
        return None
    result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if result["data"] != fold.train().hashes:
        raise DatasetError(
            f"the images or labels have changed since {file.parent} was trained; choose another --output"
        )
    return result


def _write(
    experiment: Experiment,
    settings: ReproductionSettings,
    folder: Path,
    output: Path,
    results: Mapping[Fold, dict[str, Any] | None],
) -> Summary:
    """Write results.json, the figures and the report of all finished folds."""
    done = {fold: result for fold, result in results.items() if result is not None}
    summary = experiment.summarize(folder, output, done)
    write_json(
        output / RESULTS,
        {
            **settings.model_dump(),
            "split": list(experiment.split),
            "scores": summary.scores,
            "folds": {fold.name: result for fold, result in done.items()},
        },
    )
    figures: list[Section] = []
    for figure in summary.figures:
        write_png(output / f"{figure.name}.png", compose(figure))
        columns = 2 if figure.columns == 4 else figure.columns  # larger on a page than in print
        figures.append(Pictures(figure.title, figure.panels, columns=columns, note=figure.note))
    first, *tables = summary.tables
    missing = [fold.name for fold, result in results.items() if result is None]
    incomplete = [Text("Not finished", [f"Folds not trained yet: {', '.join(missing)}."])] if missing else []
    write_page(
        output / REPORT,
        title=experiment.title,
        subtitle=f"recipe {settings.recipe}, compared with Ronneberger, Fischer and Brox 2015",
        sections=[
            first,
            Text("How the data are split", experiment.split),
            *incomplete,
            *tables,
            *([training_table(done)] if done else []),
            *figures,
            *summary.sections,
        ],
    )
    return summary


def training_table(done: Mapping[Fold, dict[str, Any]]) -> Table:
    """Return a table of how every fold was trained."""
    return Table(
        "Training",
        ["fold", "training", "steps", "minutes", "device", "held out for validation"],
        [
            [
                fold.name,
                fold.description,
                result["steps"],
                result["seconds"] / 60,
                f"{result['device']}, {result['threads']} threads",
                result["held_out"]
                + (f"; time was up before step {result['planned_steps']}" if result["ended_early"] else ""),
            ]
            for fold, result in done.items()
        ],
    )
