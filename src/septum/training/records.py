"""The records of a training, which it yields on its way; importable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from septum.training.run import RunConfig


@dataclass(frozen=True)
class Notice:
    """A sentence for the user."""

    text: str


@dataclass(frozen=True)
class Planned:
    """The settings are written down; training is about to start, or to continue after `step`."""

    run: RunConfig
    steps: int
    step: int


@dataclass(frozen=True)
class StepDone:
    """One step of training."""

    step: int
    steps: int
    loss: float
    eta: float  # seconds


@dataclass(frozen=True)
class Validated:
    """The scores on the held-out images."""

    step: int
    scores: dict[str, float]  # scores["score"] decides which weights are kept
    best: bool  # so far
    score_name: str  # what scores["score"] is: "panoptic quality" of instances, "mean IoU" of classes


@dataclass(frozen=True)
class Changed:
    """Something went wrong; training continues after `step` with lowered settings."""

    step: int
    text: str


@dataclass(frozen=True)
class EndedEarly:
    """Time was up before the planned number of steps."""

    step: int
    steps: int
    seconds: float
    decays: bool = True  # whether the learning rate was to decay until the last step

    @property
    def text(self) -> str:
        """Return it as one sentence."""
        decay = ", before the learning rate had decayed" if self.decays else ""
        return (
            f"slower than estimated: time was up at step {self.step} of {self.steps}{decay}; "
            "expect a somewhat lower score"
        )


@dataclass(frozen=True)
class Finished:
    """The training is over and its model is written."""

    folder: Path  # the run folder, which septum predict and septum report take
    model_file: Path
    step: int  # whose weights the model has
    steps: int  # that were done
    scores: dict[str, float]  # of these weights; empty if nothing was held out
    score_name: str  # what scores["score"] is
    held_out: str  # what the scores were measured on, as a sentence


@dataclass(frozen=True)
class ImagesDone:
    """How many images are done of other work than training, such as the predictions of an experiment."""

    text: str
    done: int
    total: int


Record = Notice | Planned | StepDone | Validated | Changed | EndedEarly | Finished
