"""The paper's three experiments: train every fold, judge it, put all beside the paper's numbers."""

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

EXPERIMENTS: Mapping[str, Experiment] = {"em": EM, "dic-hela": DIC_HELA, "phc-u373": PHC_U373}
DEFAULT_BUDGET = 20 * 60.0  # seconds per fold
SETTINGS, RESULT, RESULTS, REPORT = "reproduction.json", "result.json", "results.json", "report.html"


class ReproductionSettings(Settings):
    """What a reproduction was begun with; kept beside its results, so that none are mixed."""

    experiment: str
    recipe: Recipe = "fast"
    budget: float | None = DEFAULT_BUDGET  # seconds per fold
    changes: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class Options:
    """What the user chose; None: what an earlier run of the same experiment used, or else the default."""

    recipe: Recipe | None = None
    budget: float | None = None
    changes: dict[str, Any] | None = None
    folds: Sequence[str] | None = None  # None: all

    def __post_init__(self) -> None:
        """Refuse unknown settings and values before any image is found, downloaded or read."""
        TrainConfig(unet=UNetConfig()).with_changes(self.changes or {})


@dataclass(frozen=True)
class Reproduction:
    """What came of it."""

    results: dict[str, Any]
    tables: list[Table]
    report: Path


def reproduce(
    name: str, folder: Path, output: Path, options: Options, device: torch.device
) -> Generator[Record | ImagesDone, None, Reproduction]:
    """Repeat an experiment of the paper; yields records, returns the results.

    A fold that is finished is taken as it is, an interrupted one goes on. The report is written after every fold.

    Parameters
    ----------
    name : str
        A key of `EXPERIMENTS`.
    folder : Path
        The data, as `septum.data.catalog.find` returns it.
    output : Path
        ``report.html``, ``results.json``, the figures, ``folds/``, and what the challenge takes.

    Raises
    ------
    ConfigError
        If `output` holds something else, or a reproduction with other settings; for a fold that does not exist.
    DatasetError
        If the data are not those of the experiment, or not those that a fold was trained on.
    """
    experiment = EXPERIMENTS[name]
    folds = experiment.folds(folder)
    chosen = _choose(folds, options.folds)
    settings = _settings(name, output, options)
    results = {fold: _result(output, fold) for fold in folds}
    todo = [fold for fold in chosen if results[fold] is None]
    yield Notice(f"{experiment.title}: {len(chosen)} folds, {len(chosen) - len(todo)} of them done")
    if todo and "steps" not in settings.changes and settings.budget:
        yield Notice(f"training takes {_duration(settings.budget)} per fold, {_duration(len(todo) * settings.budget)}")
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
        scores = yield from experiment.judge(fold, folder, model, output)
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


def _settings(name: str, output: Path, options: Options) -> ReproductionSettings:
    """Return the settings of a reproduction that is there, if they are those that are asked for, or begin one."""
    file = output / SETTINGS
    given = {"recipe": options.recipe, "budget": options.budget, "changes": options.changes}
    wanted: dict[str, Any] = {"experiment": name} | {key: value for key, value in given.items() if value is not None}
    if not any(output.glob("folds/*/config.json")):  # nothing is trained yet, so nothing can be mixed
        if output.is_dir() and any(path != file for path in output.iterdir()):
            raise ConfigError(f"{output} holds other files, which could be overwritten; choose another --output")
        settings = ReproductionSettings(**wanted)
        write_json(file, settings.model_dump())
        return settings
    begun = ReproductionSettings(**json.loads(file.read_text(encoding="utf-8")))
    for key, value in wanted.items():
        if getattr(begun, key) != value:
            raise ConfigError(
                f"{output} was begun with {key} {getattr(begun, key)!r}, now it is {value!r}; "
                "leave it out to go on, or choose another --output"
            )
    return begun


def _result(output: Path, fold: Fold) -> dict[str, Any] | None:
    """Return what a finished fold has given; refuse it if the data are others by now."""
    file = fold_folder(output, fold) / RESULT
    if not file.exists():
        return None
    result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if result["data"] != fold.train().hashes:
        raise DatasetError(
            f"the images or labels are not those that {file.parent} was trained on; choose another --output"
        )
    return result


def _write(
    experiment: Experiment,
    settings: ReproductionSettings,
    folder: Path,
    output: Path,
    results: Mapping[Fold, dict[str, Any] | None],
) -> Summary:
    """Write results.json, the figures and the report of all folds that are finished."""
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
    incomplete = (
        [Text("Not finished", [f"Folds that are still to be trained: {', '.join(missing)}."])] if missing else []
    )
    write_page(
        output / REPORT,
        title=experiment.title,
        subtitle=f"recipe {settings.recipe}, beside the numbers of Ronneberger, Fischer and Brox 2015",
        sections=[
            first,
            Text("The split, and what it cannot say", experiment.split),
            *incomplete,
            *tables,
            *([training_table(done)] if done else []),
            *figures,
            *summary.sections,
        ],
    )
    return summary


def training_table(done: Mapping[Fold, dict[str, Any]]) -> Table:
    """Return how every fold was trained."""
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
                + (f"; the clock ended it before step {result['planned_steps']}" if result["ended_early"] else ""),
            ]
            for fold, result in done.items()
        ],
    )


def _duration(seconds: float) -> str:
    """Say a time.

    Examples
    --------
    >>> _duration(1200), _duration(7200), _duration(45)
    ('20 min', '2 h', '45 s')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.3g} h"
