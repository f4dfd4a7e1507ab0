"""One fold of an experiment: what it learns from, what it is judged on, and the one place where it is trained."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from septum.choices import Recipe
from septum.config import TtaConfig
from septum.data.dataset import Dataset, Sample
from septum.data.files import write_text
from septum.experiments.figures import Figure
from septum.model.model import Model, load
from septum.report.sections import Section, Table
from septum.training.fit import fit
from septum.training.holdout import HoldOut
from septum.training.recipe import recipe
from septum.training.records import ImagesDone, Record
from septum.training.request import TrainingRequest
from septum.training.run import RunFolder

ROTATIONS = TtaConfig(kind="rotations", versions=7)  # the paper's "7 rotated versions"
DIHEDRAL = TtaConfig(kind="dihedral", versions=8)
AVERAGING = {"none": None, "7 rotations": ROTATIONS, "8 dihedral": DIHEDRAL}


@dataclass(frozen=True)
class Fold:
    """One training and what it is judged on. Its name is that of what it is tested on."""

    name: str
    description: str
    train: Callable[[], Dataset]
    test: Callable[[], Sequence[Sample]]  # annotated; none for a challenge's own test images
    held_out: Callable[[Dataset], HoldOut]  # of the training images, to choose weights by


@dataclass(frozen=True)
class Reference:
    """A published result: its name, and its scores by the names of the table's columns."""

    name: str
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Summary:
    """What all finished folds together say."""

    scores: dict[str, Any]  # for results.json
    tables: list[Table]  # the first compares with what was published
    sections: list[Section]
    figures: list[Figure]


class Experiment(Protocol):
    """One of the paper's three."""

    @property
    def title(self) -> str: ...

    @property
    def data(self) -> str:
        """Its name in the catalog."""
        ...

    @property
    def split(self) -> Sequence[str]:
        """How the data are split and what that cannot say, in plain words."""
        ...

    def folds(self, folder: Path) -> Sequence[Fold]:
        """All folds of the data in a folder, in their order."""
        ...

    def judge(
        self, fold: Fold, folder: Path, model: Model, output: Path
    ) -> Generator[ImagesDone, None, dict[str, Any]]:
        """Predict what a fold is tested on, write the results below `output`, return the scores."""
        ...

    def summarize(self, folder: Path, output: Path, done: Mapping[Fold, dict[str, Any]]) -> Summary:
        """Put the finished folds together."""
        ...


def fold_folder(output: Path, fold: Fold) -> Path:
    """Return where a fold is kept."""
    return output / "folds" / fold.name


def train_fold(
    dataset: Dataset,
    folder: Path,
    *,
    recipe_name: Recipe,
    changes: Mapping[str, Any],
    held_out: HoldOut,
    budget: float | None,
    device: torch.device,
) -> Generator[Record, None, Model]:
    """Train a fold, go on with one that was interrupted, or take the finished one as it is; yields records.

    Parameters
    ----------
    dataset : Dataset
        What to learn from; `held_out` says which of it chooses the weights.
    folder : Path
        Of the run.
    recipe_name : {"fast", "paper"}
    changes : mapping
        Settings that differ from the recipe, by dotted names; ``steps`` replaces the budget.
    budget : float or None
        Seconds.
    """
    run = RunFolder(folder)
    if run.is_finished():
        return load(run.model_file, device)
    config = recipe(recipe_name, dataset, device, changes)
    return (
        yield from fit(
            TrainingRequest(
                dataset,
                config,
                folder,
                held_out=held_out,
                budget=None if config.steps else budget,
                device=device,
                resume=run.exists(),
            )
        )
    )


def describe_training(folder: Path, model: Model) -> dict[str, Any]:
    """Say how a fold was trained: everything that its numbers have to be read with."""
    run = RunFolder(folder)
    config, records = run.config(), run.records()
    seconds = [record["seconds"] for record in records if "seconds" in record]
    return {
        "trained_on": list(config.data),
        "held_out": config.held_out,
        "steps": records[-1]["step"],
        "planned_steps": config.train.steps,
        "weights_of_step": model.card.step,
        "ended_early": any("ended_early" in record for record in records),
        "seconds": seconds[-1],
        "validation": model.card.scores,
        "config": config.train.model_dump(mode="json"),
        "data": config.data,
        "device": config.device,
        "threads": config.threads,
        "versions": config.versions,
    }


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write values as JSON, whole or not at all."""
    write_text(path, json.dumps(values, indent=1) + "\n")
