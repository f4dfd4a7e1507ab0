"""One fold of an experiment: its training and test data, and the only place where the experiments train."""

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
    """One training and its test images, after which it is named."""

    name: str
    description: str
    train: Callable[[], Dataset]
    test: Callable[[], Sequence[Sample]]  # annotated; empty for the test images of a challenge
    held_out: Callable[[Dataset], HoldOut]  # which training images choose the best weights


@dataclass(frozen=True)
class Reference:
    """A published result: its name, and its scores by column of the table."""

    name: str
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Summary:
    """Scores, tables and figures of all finished folds."""

    scores: dict[str, Any]  # for results.json
    tables: list[Table]  # the first compares with published results
    sections: list[Section]
    figures: list[Figure]


class Experiment(Protocol):
    """One of the three experiments of the paper."""

    @property
    def title(self) -> str: ...

    @property
    def data(self) -> str:
        """Its name in the catalog."""
        ...

    @property
    def split(self) -> Sequence[str]:
        """How the data are split, and what the scores therefore cannot show."""
        ...

    def folds(self, folder: Path) -> Sequence[Fold]:
        """Return all folds of the data in a folder, in order."""
        ...

    def score(
        self, fold: Fold, folder: Path, model: Model, output: Path
    ) -> Generator[ImagesDone, None, dict[str, Any]]:
        """Predict the test images of a fold, write the results to `output`, and return the scores."""
        ...

    def summarize(self, folder: Path, output: Path, done: Mapping[Fold, dict[str, Any]]) -> Summary:
        """Combine the finished folds."""
        ...


def fold_folder(output: Path, fold: Fold) -> Path:
    """Return the run folder of a fold."""
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
    """Train a fold, continue an interrupted one, or load a finished one; yields records.

    Parameters
    ----------
    dataset : Dataset
        The training images; `held_out` says which of them choose the best weights.
    folder : Path
        The run folder.
    recipe_name : {"fast", "paper"}
    changes : mapping
        Settings that differ from the recipe, by dotted name; ``steps`` replaces the budget.
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
    """Return how a fold was trained: everything needed to interpret its scores."""
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
    """Write values as JSON; the file appears complete or not at all."""
    write_text(path, json.dumps(values, indent=1) + "\n")
