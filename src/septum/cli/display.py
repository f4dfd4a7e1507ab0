"""What people see while a command works: progress bars and the lines above them."""

from __future__ import annotations

import sys
from typing import Self

from septum.prediction.records import (
    FileDone,
    FileRecord,
    FileStarted,
    FrameProgress,
    StreamDone,
    StreamProgress,
    StreamRecord,
    StreamStarted,
)
from septum.training.progress import describe
from septum.training.records import Finished, ImagesDone, Planned, Record, StepDone, Validated
from septum.words import plural


class Display:
    """A rich progress bar on standard error, or nothing if quiet."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet

    def __enter__(self) -> Self:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.table import Column

        console = Console(stderr=True)
        others = 28  # characters of the columns after the first one
        self.progress = Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True, max_width=console.width - others)),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(table_column=Column(no_wrap=True)),  # a narrow window shortens the bar, not the times
            TextColumn("ETA"),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            console=console,
            disable=self.quiet,
        )
        self.progress.start()
        self.task = self.progress.add_task("", total=None, visible=False)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.progress.stop()
        if kind is KeyboardInterrupt:
            print("interrupted; finished results are saved", file=sys.stderr)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if not self.quiet:
            self.progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def advance(self, description: str, done: float, total: float) -> None:
        """Move the bar."""
        self.progress.update(self.task, description=description, completed=done, total=total, visible=True)


class TrainingDisplay(Display):
    """Draws the records of a training."""

    score = ""  # of the last validation, as the bar shows it

    def show(self, record: Record | ImagesDone) -> None:
        for line in describe(record):
            self.say(line)
        match record:
            case Planned():
                self.score = ""
            case StepDone(step, steps, loss):
                self.step = f"step {step}/{steps}  loss {loss:.4f}"
                self.advance(f"{self.step}{self.score}", step, steps)
            case Validated(scores=scores, score_name=name):
                self.score = f"  {name} {scores['score']:.3f}"
                self.progress.update(self.task, description=f"{self.step}{self.score}")
            case ImagesDone(text, done, total):
                self.advance(text, done, total)
            case Finished(folder):
                self.say(f"next: septum predict {folder} IMAGES --output masks\n      septum report {folder}")


class PredictionDisplay(Display):
    """Draws the records of a prediction."""

    def __init__(self, quiet: bool, files: int, kind: str) -> None:
        super().__init__(quiet)
        self.files, self.file, self.kind = files, 0, kind

    def show(self, record: FileRecord | StreamRecord) -> None:
        match record:
            case FileStarted(path, frames, notes):
                self.name, self.frames = path.name, frames
                self.say_all(notes)
            case FrameProgress(frame, done, total):
                self.advance(self.name, self.file + (frame + done / total) / self.frames, self.files)
            case FileDone(path):
                self.say_done(record)
                self.advance(path.name, self.file, self.files)
            case StreamStarted(path, notes):
                self.name, self.fresh = path.name, True
                self.say_all(notes)
            case StreamProgress(step=step, fraction=fraction):
                if self.fresh:  # what was done before says nothing about the pace
                    self.progress.reset(self.task, total=1.0, completed=fraction)  # type: ignore[arg-type]
                    self.fresh = False
                self.advance(f"{self.name}: {step}", fraction, 1.0)
            case StreamDone(path, certificates=certificates):
                self.say_done(record)
                if certificates:
                    worst = max(certificates, key=lambda one: one.difference)
                    differing = sum(one.differing for one in certificates)
                    print(
                        f"{path.name}: {plural(len(certificates), 'region')} verified, largest difference "
                        f"{worst.difference:.6f} (rounded to +-{worst.rounding:.6f} when stored), "
                        f"{differing} differing labels"
                    )

    def say_all(self, notes: tuple[str, ...]) -> None:
        for note in notes:
            self.say(note)

    def say_done(self, record: FileDone | StreamDone) -> None:
        """Count a file as done and say what was found."""
        self.file += 1
        found = plural(record.objects, "object") if self.kind == "instances" else "done"
        self.say(f"{record.path.name}: {'already done, skipped' if record.skipped else found}")


class CountDisplay(Display):
    """Draws how much is done of a known number of bytes or images."""

    def __init__(self, quiet: bool, name: str) -> None:
        super().__init__(quiet)
        self.name = name

    def show(self, done: int, total: int) -> None:
        self.advance(self.name, done, total)


def cell_text(cell: object) -> str:
    """Return a cell of a table as text: a number to four digits, a dash where there is none."""
    if cell is None:
        return "-"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
