"""The curves of a training for TensorBoard, beside its own log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from septum.errors import ConfigError
from septum.training.records import Changed, Planned, StepDone, Validated


class TensorBoard:
    """Listens to the records of a training and writes its loss and scores as event files.

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
                '--tensorboard needs the package tensorboard; pip install "septum[track]", or leave it out: '
                "log.jsonl and septum report have the same curves"
            ) from None
        self.folder, self.open = folder, SummaryWriter
        self.writer: Any = None

    def show(self, record: Any) -> None:
        """Write what a record says."""
        if isinstance(record, Planned | Changed):  # what was written beyond this step will be done again
            self.close()
            self.writer = self.open(str(self.folder), purge_step=record.step + 1)
        elif isinstance(record, StepDone):
            self.writer.add_scalar("loss", record.loss, record.step)
        elif isinstance(record, Validated):
            for name, score in record.scores.items():
                self.writer.add_scalar(f"validation/{name}", score, record.step)

    def close(self) -> None:
        """Finish the file."""
        if self.writer is not None:
            self.writer.close()
