"""TensorBoard curves of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from septum.errors import ConfigError
from septum.training.records import Changed, Planned, Record, StepDone, Validated


class TensorBoard:
    """Writes the loss and scores in the records of a training as event files.

    Raises
    ------
    ConfigError
        If TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ConfigError(
                "--tensorboard needs the package tensorboard; install it with pip install tensorboard, or leave the "
                "option out: log.jsonl and septum report have the same curves"
            ) from None
        self.folder, self.open = folder, SummaryWriter
        self.writer: Any = None

    def show(self, record: Record) -> None:
        """Write a record."""
        match record:
            case Planned(step=step) | Changed(step=step):  # later steps, if written, will be repeated
                self.close()
                self.writer = self.open(str(self.folder), purge_step=step + 1)
            case StepDone():
                self.writer.add_scalar("loss", record.loss, record.step)
            case Validated():
                for name, score in record.scores.items():
                    self.writer.add_scalar(f"validation/{name}", score, record.step)

    def close(self) -> None:
        """Finish the file."""
        if self.writer is not None:
            self.writer.close()
