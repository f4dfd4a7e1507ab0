"""What people see while a command works: progress bars and lines above them."""

from __future__ import annotations

import sys
from typing import Any


def cell_text(cell: object) -> str:
    """Return a cell of a table as text: a number to four digits, a dash where there is none."""
    if cell is None:
        return "-"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


class Display:
    """A rich progress bar on standard error, or nothing if quiet."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet

    def __enter__(self) -> Any:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=self.quiet,
        )
        self.progress.start()
        self.task = self.progress.add_task("", total=None, visible=False)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.progress.stop()
        if kind is KeyboardInterrupt:
            print("interrupted; what was finished is saved", file=sys.stderr)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if not self.quiet:
            self.progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def advance(self, description: str, done: float, total: float) -> None:
        """Move the bar."""
        self.progress.update(self.task, description=description, completed=done, total=total, visible=True)


class TrainingDisplay(Display):
    """Draws the records of a training."""

    def show(self, record: Any) -> None:
        name = type(record).__name__
        if name == "Notice":
            self.say(record.text)
        elif name == "Planned":
            self.score = ""
            begun = f"goes on at step {record.step} of" if record.step else "plan:"
            pace = f", {record.run.step_seconds:.2f} s each" if record.run.step_seconds else ""
            if record.run.deterministic:
                self.say(f"deterministic: a step takes {record.run.deterministic:.2f} times as long as without")
            for change in record.run.changes:
                self.say(change)
            self.say(f"{begun} {record.steps} steps{pace}; {record.run.held_out}")
        elif name == "StepDone":
            self.advance(
                f"step {record.step}/{record.steps}  loss {record.loss:.4f}{self.score}", record.step, record.steps
            )
        elif name == "Validated":
            self.score = f"  validation {record.scores['score']:.3f}"
            scores = "  ".join(f"{key} {value:.3f}" for key, value in record.scores.items() if key != "score")
            self.say(f"step {record.step}: {scores}{'  (best so far)' if record.best else ''}")
        elif name == "Finished":
            self.say(f"the model is {record.model_file}")
        elif name == "Changed":
            self.say(record.text)
        elif name == "ImagesDone":
            self.advance(record.text, record.done, record.total)
        elif name == "EndedEarly":
            self.say(record.text)


class PredictionDisplay(Display):
    """Draws the records of a prediction."""

    def __init__(self, quiet: bool, files: int, kind: str) -> None:
        super().__init__(quiet)
        self.files, self.file, self.kind = files, 0, kind

    def say_done(self, record: Any) -> None:
        from septum.words import count

        found = count(record.objects, "object") if self.kind == "instances" else "done"
        self.say(f"{record.path.name}: {'done before, skipped' if record.skipped else found}")

    def show(self, record: Any) -> None:
        name = type(record).__name__
        if name == "FileStarted":
            self.frames, self.name = record.frames, record.path.name
            for note in record.notes:
                self.say(note)
        elif name == "FrameProgress":
            part = (record.frame + record.done / record.total) / self.frames
            self.advance(self.name, self.file + part, self.files)
        elif name == "StreamStarted":
            self.name, self.fresh = record.path.name, True
            for note in record.notes:
                self.say(note)
        elif name == "StreamProgress":
            if self.fresh:  # what was done before says nothing about the pace
                self.progress.reset(self.task, total=1.0, completed=record.fraction)
                self.fresh = False
            self.advance(f"{self.name}: {record.step}", record.fraction, 1.0)
        elif name == "StreamDone":
            self.file += 1
            self.say_done(record)
            if record.certificates:
                worst = max(record.certificates, key=lambda one: one.difference)
                differing = sum(one.differing for one in record.certificates)
                print(
                    f"{record.path.name}: {len(record.certificates)} regions verified, largest difference "
                    f"{worst.difference:.6f} (stored to +-{worst.rounding:.6f}), {differing} differing labels"
                )
        elif name == "FileDone":
            self.file += 1
            self.say_done(record)
            self.advance(record.path.name, self.file, self.files)


class CountDisplay(Display):
    """Draws how much is done of a known number of bytes or images."""

    def __init__(self, quiet: bool, name: str) -> None:
        super().__init__(quiet)
        self.name = name

    def show(self, done: int, total: int) -> None:
        self.advance(self.name, done, total)
