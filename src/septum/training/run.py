"""The run folder: config.json, log.jsonl, the checkpoint and the model, each complete or absent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from septum.config import DataSource, Settings, TrainConfig, train_config_from_1
from septum.data.files import write_text
from septum.errors import ConfigError, DatasetError, ModelError, OutputError
from septum.machine.memory import DEFAULT_MEMORY
from septum.model.model import Model, load
from septum.model.tensors import read_tensors, write_tensors
from septum.training.records import EndedEarly

FORMAT = 2  # of config.json


class RunConfig(Settings):
    """Everything that decides the result of a run; written before the first step."""

    format: int = FORMAT
    train: TrainConfig
    budget: float | None  # seconds
    step_seconds: float | None  # as probed
    finish_seconds: float = 0.0  # as probed: from the last step to the end
    max_memory: int | None = None  # bytes
    tile_memory: int = DEFAULT_MEMORY  # bytes that a tile may take when held-out images are predicted
    deterministic: float | None = None  # None: not asked for; else how many times as long a step takes
    asked: dict[str, float] = Field(default_factory=dict)  # original values of settings that were lowered
    changes: tuple[str, ...] = ()  # why settings were lowered, and when
    validate_every: int  # steps
    checkpoint_every: int  # steps
    log_every: int  # steps
    source: DataSource | None  # None: from arrays
    held_out: str  # reported, and in the model card
    data: dict[str, str]  # image -> sha256 of image and labels
    device: str
    threads: int
    versions: dict[str, str]

    @property
    def steps(self) -> int:
        """Planned number of steps."""
        assert self.train.steps is not None
        return self.train.steps

    def lowered(self, values: Mapping[str, float], why: str) -> RunConfig:
        """Return a copy with lower settings of the training, which remembers the original ones."""
        asked = {name: getattr(self.train, name) for name in values} | self.asked
        train = self.train.with_changes(values).model_dump()
        return self.with_changes({"train": train, "asked": asked, "changes": [*self.changes, why]})


@dataclass(frozen=True)
class RunFolder:
    """Reads and writes the files of one run."""

    path: Path
    writes: bool = True  # only the first of several processes

    @property
    def model_file(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def checkpoint_file(self) -> Path:
        return self.path / "checkpoint.safetensors"

    @property
    def start_file(self) -> Path:
        return self.path / "start.safetensors"

    @property
    def log_file(self) -> Path:
        return self.path / "log.jsonl"

    @property
    def config_file(self) -> Path:
        return self.path / "config.json"

    def exists(self) -> bool:
        """Whether a run was started here."""
        return self.config_file.exists()

    def is_finished(self) -> bool:
        """Whether the training has ended, as planned or early."""
        step = self.last_step() if self.exists() else 0
        return step > 0 and (step == self.config().train.steps or self.early_end(step) is not None)

    def last_step(self) -> int:
        """Step of the last checkpoint, 0 if there is none."""
        saved = self.load_checkpoint()
        return saved[1]["step"] if saved else 0

    def early_end(self, step: int) -> EndedEarly | None:
        """Return how time ended the training at its last checkpoint, which is of this step; None if it did not."""
        ends = [record for record in self.records() if "ended_early" in record and record["step"] <= step]
        if not ends:
            return None
        config = self.config()
        return EndedEarly(ends[0]["step"], config.steps, ends[0]["seconds"], config.train.schedule == "cosine")

    def check_data(self, hashes: Mapping[str, str]) -> None:
        """Raise DatasetError if the images or labels are not those that the run was started with."""
        if self.config().data != hashes:
            raise DatasetError(f"the images or labels have changed since {self.path} was started; start a new run")

    def create(self, config: RunConfig, start: Model | None = None) -> None:
        """Start a run: the settings, and the model that it starts from, are on disk before the first step."""
        if not self.writes:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"cannot make the folder {self.path} ({error.strerror}); choose another --output"
            ) from None
        if start is not None:  # so that continuing, or starting again, does not need its file
            start.save(self.start_file)
        write_text(self.config_file, config.model_dump_json(indent=1) + "\n")
        write_text(self.log_file, "")
        for change in config.changes:
            self.log({"step": 0, "change": change})

    def start(self) -> Model | None:
        """Return the model that the run started from, if any."""
        return load(self.start_file, "cpu") if self.start_file.exists() else None

    def change(self, config: RunConfig, step: int) -> None:
        """Write down lowered settings, and in the log why; after the checkpoint to continue from."""
        if self.writes:
            write_text(self.config_file, config.model_dump_json(indent=1) + "\n")
        self.log({"step": step, "change": config.changes[-1]})

    def config(self) -> RunConfig:
        """Read the settings of the run."""
        try:
            values = json.loads(self.config_file.read_text(encoding="utf-8"))
            if values.get("format") == 1:
                values |= {"train": train_config_from_1(values["train"]), "format": 2}
            return RunConfig(**values)
        except (FileNotFoundError, NotADirectoryError):
            raise ModelError(
                f"{self.path} is not a run folder (it has no config.json); give the --output of a training, "
                "or start a new run without --resume"
            ) from None
        except (OSError, ValueError, TypeError, AttributeError, KeyError, ConfigError) as error:
            raise ModelError(f"{self.config_file} is damaged ({error}); start a new run in another folder") from None

    def log(self, record: dict[str, Any]) -> None:
        """Append one record."""
        if not self.writes:
            return
        try:
            with self.log_file.open("a") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise OutputError(
                f"cannot write {self.log_file} ({error.strerror}); free some space and continue with --resume"
            ) from None

    def records(self) -> list[dict[str, Any]]:
        """Read the log; a last line cut short by a kill is left out."""
        records = []
        for line in self.log_file.read_text(errors="replace").splitlines() if self.log_file.exists() else []:
            try:
                records.append(json.loads(line))
            except ValueError:
                break
        return records

    def rewind_log(self, step: int) -> None:
        """Drop what was logged after a step, since these steps will be repeated."""
        if not self.writes:
            return
        kept = [record for record in self.records() if record["step"] <= step]
        write_text(self.log_file, "".join(json.dumps(record) + "\n" for record in kept))

    def save_model(self, model: Model) -> None:
        """Write the model, in place of the previous one."""
        if self.writes:
            model.save(self.model_file)

    def save_checkpoint(self, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        """Write the state of the training, in place of the previous one."""
        if self.writes:
            write_tensors(self.checkpoint_file, tensors, {"state": json.dumps(state)})

    def load_checkpoint(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """Read the state of the training; None if the run was stopped before its first checkpoint."""
        if not self.checkpoint_file.exists():
            return None
        tensors, metadata = read_tensors(self.checkpoint_file)
        if "state" not in metadata:
            raise ModelError(f"{self.checkpoint_file} is not a checkpoint of Septum; start a new run in another folder")
        return tensors, json.loads(metadata["state"])
