"""What a training is asked to do: one object for everything that takes part in it."""

from __future__ import annotations

import time
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path

import torch

from septum.config import DataSource, TrainConfig
from septum.data.dataset import Dataset
from septum.model.model import Model
from septum.training.holdout import HoldOut
from septum.training.processes import SINGLE_PROCESS, Processes

CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class TrainingRequest:
    """What to train, on what, where, and within which limits.

    Parameters
    ----------
    dataset : Dataset
        Annotated images.
    config : TrainConfig
        Everything that decides the weights; `steps` may be None if there is a budget.
    folder : path
        Run folder: config.json, log.jsonl, checkpoint.safetensors, model.safetensors.
    held_out : HoldOut
        What the network is scored on and not trained on.
    budget : float, optional
        Seconds. A short probe turns it into a number of steps, written down before the first step.
    max_memory : int, optional
        Bytes that the process may hold (on a GPU: of its memory). Patches and batches are made smaller until they fit.
    device : torch.device
    resume : bool
        Continue the run in `folder`, with its settings.
    start : Model, optional
        Start from the weights of this model.
    source : DataSource, optional
        Where the data set was read from; kept in config.json for the report.
    begin : float
        When the budget began, by `time.perf_counter`; by default, when the request is made.
    processes : Processes
        Those that share the work, all with the same request. The first one writes; all of them read the folder.
    """

    dataset: Dataset
    config: TrainConfig
    folder: str | Path
    _: KW_ONLY
    held_out: HoldOut
    budget: float | None = None
    max_memory: int | None = None
    device: torch.device = CPU
    resume: bool = False
    start: Model | None = None
    source: DataSource | None = None
    begin: float = field(default_factory=time.perf_counter)
    processes: Processes = SINGLE_PROCESS
