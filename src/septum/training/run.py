"""The run folder: config.json, log.jsonl, the checkpoint and the model, each whole or not there."""

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

FORMAT = 2  # of config.json


class RunConfig(Settings):
    """Everything that decides the result of a run; written before the first step."""

    format: int = FORMAT
    train: TrainConfig
    budget: float | None  # seconds that were asked for
    step_seconds: float | None  # as probed
    finish_seconds: float = 0.0  # as probed: from the last step to the chosen model
    max_memory: int | None = None  # bytes
    tile_memory: int = DEFAULT_MEMORY  # bytes that a tile may take where what is held out is predicted
    deterministic: float | None = None  # with deterministic algorithms, and how many times as long a step takes
    asked: dict[str, float] = Field(default_factory=dict)  # settings that had to be lowered -> what was asked for
    changes: tuple[str, ...] = ()  # why and when
    validate_every: int  # steps
    checkpoint_every: int  # steps
    log_every: int  # steps
    source: DataSource | None  # None: from arrays
    held_out: str  # said aloud, and in the model card
    data: dict[str, str]  # image -> sha256 of image and labels
    device: str
    threads: int
    versions: dict[str, str]

    @property
    def steps(self) -> int:
        """How long to train."""
        assert self.train.steps is not None
        return self.train.steps

    def lowered(self, values: Mapping[str, float], why: str) -> RunConfig:
        """Return a copy with lower settings of the training, which keeps what was asked for."""
        asked = {name: getattr(self.train, name) for name in values} | self.asked
        train = self.train.with_changes(values).model_dump()
        return self.with_changes({"train": train, "asked": asked, "changes": [*self.changes, why]})


@dataclass(frozen=True)
class RunFolder:
    """Reads and writes the files of one run."""

    path: Path
    writes: bool = True  # of several processes only the first one writes

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
        """Whether a run was begun here."""
        return self.config_file.exists()

    def is_finished(self) -> bool:
        """Whether the training came to its end, as planned or early."""
        step = self.last_step() if self.exists() else 0
        return step > 0 and (step == self.config().train.steps or self.ended_early(step))

    def last_step(self) -> int:
        """Step of the last checkpoint, 0 if there is none."""
        saved = self.load_checkpoint()
        return saved[1]["step"] if saved else 0

    def ended_early(self, step: int) -> bool:
        """Whether the training, whose last checkpoint is of this step, was ended by its clock there."""
        return any("ended_early" in record and record["step"] <= step for record in self.records())

    def check_data(self, hashes: Mapping[str, str]) -> None:
        """Raise DatasetError if these are not the images and labels that the run was begun with."""
        if self.config().data != hashes:
            raise DatasetError(f"the images or labels are not those that {self.path} was begun with; begin a new run")

    def create(self, config: RunConfig, start: Model | None = None) -> None:
        """Begin a run: the settings, and the model that it begins with, are on disk before the first step."""
        if not self.writes:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"cannot make the folder {self.path} ({error.strerror}); choose another --output"
            ) from None
        if start is not None:  # going on, or beginning again, shall not need where it came from
            start.save(self.start_file)
        write_text(self.config_file, config.model_dump_json(indent=1) + "\n")
        write_text(self.log_file, "")
        for change in config.changes:
            self.log({"step": 0, "change": change})

    def start(self) -> Model | None:
        """Return the model that the run started from, if any."""
        return load(self.start_file) if self.start_file.exists() else None

    def change(self, config: RunConfig, step: int) -> None:
        """Write down settings that had to be lowered, and in the log why; after the checkpoint to go on from."""
        if self.writes:
            write_text(self.config_file, config.model_dump_json(indent=1) + "\n")
        self.log({"step": step, "change": config.changes[-1]})

    def config(self) -> RunConfig:
        """Read what the run was begun with."""
        try:
            values = json.loads(self.config_file.read_text(encoding="utf-8"))
            if values.get("format") == 1:
                values |= {"train": train_config_from_1(values["train"]), "format": 2}
            return RunConfig(**values)
        except (FileNotFoundError, NotADirectoryError):
            raise ModelError(
                f"{self.path} holds no run (no config.json); give the --output of a training, "
                "or begin one without --resume"
            ) from None
        except (OSError, ValueError, TypeError, AttributeError, KeyError, ConfigError) as error:
            raise ModelError(f"{self.config_file} is damaged ({error}); begin the run anew in another folder") from None

    def log(self, record: dict[str, Any]) -> None:
        """Append one record."""
        if not self.writes:
            return
        try:
            with self.log_file.open("a") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise OutputError(
                f"cannot write {self.log_file} ({error.strerror}); make room and go on with --resume"
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
        """Drop what was logged after a step, which will be done again."""
        if not self.writes:
            return
        kept = [record for record in self.records() if record["step"] <= step]
        write_text(self.log_file, "".join(json.dumps(record) + "\n" for record in kept))

    def save_model(self, model: Model) -> None:
        """Write the model, replacing the last one."""
        if self.writes:
            model.save(self.model_file)

    def save_checkpoint(self, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        """Write the state of the training, replacing the last one."""
        if self.writes:
            write_tensors(self.checkpoint_file, tensors, {"state": json.dumps(state)})

    def load_checkpoint(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """Read the state of the training; None if the run was stopped before its first checkpoint."""
        if not self.checkpoint_file.exists():
            return None
        tensors, metadata = read_tensors(self.checkpoint_file)
        if "state" not in metadata:
            raise ModelError(f"{self.checkpoint_file} is no checkpoint of Septum; begin the run anew in another folder")
        return tensors, json.loads(metadata["state"])
