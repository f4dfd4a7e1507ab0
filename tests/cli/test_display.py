"""What is shown for each record: the lines above the bar, its description, and how far it is."""

import contextlib
import io
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest

from septum.cli.display import CountDisplay, PredictionDisplay, TrainingDisplay
from septum.prediction.records import (
    Certificate,
    FileDone,
    FileRecord,
    FileStarted,
    FrameProgress,
    StreamDone,
    StreamProgress,
    StreamRecord,
    StreamStarted,
)
from septum.training.records import (
    Changed,
    EndedEarly,
    Finished,
    ImagesDone,
    Notice,
    Planned,
    Record,
    StepDone,
    Validated,
)

RUN = SimpleNamespace(step_seconds=0.25, deterministic=None, changes=(), held_out="1 of 3 images held out")
SCORES = {"score": 0.52, "f1": 0.642, "mean_matched_iou": 0.7}
STEP = StepDone(3, 8, loss=0.5, eta=1.0)


def show(display, *records):
    """Show records; returns the lines and the bar: its description and the finished share of it."""
    err, out = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(out), display:
        for record in records:
            display.show(record)
        (bar,) = display.progress.tasks
        display.progress.update(display.task, visible=False)
    lines = [line.rstrip() for line in err.getvalue().splitlines() if line.strip()]
    return lines + out.getvalue().splitlines(), (bar.description, bar.completed / bar.total if bar.total else None)


def names(cases):
    return [type(records[-1]).__name__ for records, *_ in cases]


TRAINING = [
    ([Notice("3 images")], ["3 images"], ("", None)),
    ([Planned(RUN, steps=8, step=0)], ["plan: 8 steps, 0.25 s each; 1 of 3 images held out"], ("", None)),
    ([STEP], [], ("step 3/8  loss 0.5000", 3 / 8)),
    (
        [STEP, Validated(3, SCORES, best=True, score_name="panoptic quality")],
        ["step 3: panoptic quality 0.520, F1 0.642, mean IoU of matched objects 0.700 (best so far)"],
        ("step 3/8  loss 0.5000  panoptic quality 0.520", 3 / 8),
    ),
    ([Changed(3, "memory ran out")], ["memory ran out"], ("", None)),
    (
        [EndedEarly(3, 8, seconds=9.0)],
        [
            "slower than estimated: time was up at step 3 of 8, before the learning rate had decayed; "
            "expect a somewhat lower score"
        ],
        ("", None),
    ),
    (
        [
            Finished(
                folder=Path("run"),
                model_file=Path("run/model.safetensors"),
                step=3,
                steps=8,
                scores=SCORES,
                score_name="panoptic quality",
                held_out="1 of 3 images held out",
            )
        ],
        [
            "best step: 3, panoptic quality 0.520, F1 0.642, mean IoU of matched objects 0.700; 1 of 3 images held out",
            f"model: {Path('run/model.safetensors')}",
            "next: septum predict run IMAGES --output masks",
            "      septum report run",
        ],
        ("", None),
    ),
    ([ImagesDone("fold 01: predicting", 1, 4)], [], ("fold 01: predicting", 1 / 4)),
]


@pytest.mark.parametrize(("records", "lines", "bar"), TRAINING, ids=names(TRAINING))
def test_records_of_a_training(records, lines, bar):
    assert show(TrainingDisplay(quiet=False), *records) == (lines, bar)


def test_a_resumed_plan_says_where_it_continues_and_what_was_changed_before():
    run = SimpleNamespace(**vars(RUN) | {"step_seconds": None, "deterministic": 1.5, "changes": ("half the batch",)})
    lines, _ = show(TrainingDisplay(quiet=False), Planned(run, steps=8, step=3))
    assert lines == [
        "deterministic: a step takes 1.50 times as long",
        "half the batch",
        "continuing after step 3 of 8; 1 of 3 images held out",
    ]


def test_the_bar_forgets_the_score_of_the_training_before():
    validated = Validated(3, {"score": 0.5, "mean_iou": 0.5, "pixel_error": 0.1}, best=False, score_name="mean IoU")
    lines, bar = show(TrainingDisplay(quiet=False), STEP, validated, Planned(RUN, steps=8, step=0), STEP)
    assert lines[0] == "step 3: mean IoU 0.500, pixel error 0.100"
    assert bar == ("step 3/8  loss 0.5000", 3 / 8)


def test_a_narrow_window_shortens_the_bar_and_not_the_times(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    err = io.StringIO()
    with contextlib.redirect_stderr(err), TrainingDisplay(quiet=False) as display:
        display.show(StepDone(300, 300, loss=0.2227, eta=0.0))
        display.show(Validated(300, SCORES, best=True, score_name="panoptic quality"))
    bar = err.getvalue().splitlines()[-1]
    assert bar.startswith("step 300/300  loss 0.2227  panoptic quality 0.520 ")
    assert bar.rstrip().endswith("100 % 0:00:00 ETA 0:00:00")


def test_a_long_name_is_cut_and_not_the_times(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    err = io.StringIO()
    with contextlib.redirect_stderr(err), CountDisplay(quiet=False, name="a" * 70) as display:
        display.show(2, 2)
    bar = err.getvalue().splitlines()[-1]
    assert bar.startswith("a" * 50)
    assert bar.rstrip().endswith("100 % 0:00:00 ETA 0:00:00")


FILE, STREAM = FileStarted(Path("a.tif"), 2, ("2 frames",)), StreamStarted(Path("b.tif"), ("4 tiles", "12 s"))
VERIFIED = tuple(Certificate(0, (slice(0, 4),), difference, 0.002, 1) for difference in (0.001, 0.003))
PREDICTION = [
    ([FILE], ["2 frames"], ("", None)),
    ([FILE, FrameProgress(frame=1, done=3, total=4)], ["2 frames"], ("a.tif", (1 + 3 / 4) / 2 / 5)),
    ([FileDone(Path("a.tif"), (), 7, skipped=False)], ["a.tif: 7 objects"], ("a.tif", 1 / 5)),
    ([STREAM], ["4 tiles", "12 s"], ("", None)),
    ([STREAM, StreamProgress("tiles", 0, 1, 4, fraction=0.2)], ["4 tiles", "12 s"], ("b.tif: tiles", 0.2)),
    (
        [STREAM, StreamDone(Path("b.tif"), (), 1, VERIFIED)],
        [
            "4 tiles",
            "12 s",
            "b.tif: 1 object",
            "b.tif: 2 regions verified, largest difference 0.003000 (rounded to +-0.002000 when stored), "
            "2 differing labels",
        ],
        ("", None),
    ),
]


@pytest.mark.parametrize(("records", "lines", "bar"), PREDICTION, ids=names(PREDICTION))
def test_records_of_a_prediction(records, lines, bar):
    assert show(PredictionDisplay(quiet=False, files=5, kind="instances"), *records) == (lines, bar)


def test_files_that_are_already_done_count_in_the_bar():
    done, more = FileDone(Path("a.tif"), (), 7, skipped=True), FileDone(Path("b.tif"), (), 0, skipped=False)
    display = PredictionDisplay(quiet=False, files=4, kind="classes")
    assert show(display, done, more) == (["a.tif: already done, skipped", "b.tif: done"], ("b.tif", 1 / 2))


def test_the_pace_of_a_continued_stream_is_counted_from_where_it_continues():
    display = PredictionDisplay(quiet=False, files=1, kind="instances")
    with contextlib.redirect_stderr(io.StringIO()), display:
        for record in (STREAM, *(StreamProgress("tiles", 0, 1, 4, fraction) for fraction in (0.8, 0.9))):
            display.show(record)
        (bar,) = display.progress.tasks
    assert sum(sample.completed for sample in bar._progress) == pytest.approx(0.1)  # what rich's ETA is computed from


def test_every_record_has_a_test():
    shown = {type(records[-1]) for records, *_ in TRAINING + PREDICTION}
    assert shown == {*get_args(Record), ImagesDone, *get_args(FileRecord), *get_args(StreamRecord)}


def test_a_count_moves_the_bar():
    display = CountDisplay(quiet=False, name="scoring")
    with contextlib.redirect_stderr(io.StringIO()), display:
        display.show(2, 8)
        (bar,) = display.progress.tasks
    assert (bar.description, bar.completed, bar.total) == ("scoring", 2, 8)


def test_quiet_shows_nothing_but_what_was_verified():
    lines, _ = show(TrainingDisplay(quiet=True), Notice("3 images"), STEP)
    assert lines == []
    lines, _ = show(PredictionDisplay(quiet=True, files=1, kind="instances"), StreamDone(Path("b"), (), 1, VERIFIED))
    assert [line.split(",")[0] for line in lines] == ["b: 2 regions verified"]
