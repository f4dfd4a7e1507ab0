import sys

import pytest

from septum.errors import ConfigError
from septum.training.records import Planned, StepDone, Validated
from septum.training.tensorboard import TensorBoard


def test_the_curves_are_those_of_the_records_also_after_a_stop(tmp_path):
    pytest.importorskip("tensorboard", reason="needs the extra track")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    parts = [
        [Planned(None, 5, 0), StepDone(1, 5, 0.9, 0), StepDone(2, 5, 0.8, 0), StepDone(3, 5, 0.7, 0)],
        [
            Planned(None, 5, 2),
            StepDone(3, 5, 0.75, 0),
            Validated(3, {"score": 0.5, "f1": 0.6}, True, "panoptic quality"),
        ],
    ]
    for records in parts:
        board = TensorBoard(tmp_path)
        for record in records:
            board.show(record)
        board.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    curves = {
        name: [(event.step, pytest.approx(event.value)) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }
    assert curves == {
        "loss": [(1, 0.9), (2, 0.8), (3, 0.75)],
        "validation/score": [(3, 0.5)],
        "validation/f1": [(3, 0.6)],
    }


def test_without_tensorboard_one_sentence_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(
        ConfigError,
        match=r"needs the package tensorboard; install it with pip install tensorboard, or leave the option out",
    ):
        TensorBoard(tmp_path)
