import json

import pytest
import torch

from septum.config import TrainConfig, UNetConfig
from septum.core.unet import UNet
from septum.errors import DatasetError, ModelError, OutputError
from septum.model.model import Model, ModelCard
from septum.model.tensors import write_tensors
from septum.training.records import EndedEarly
from septum.training.run import RunConfig, RunFolder

TRAIN = TrainConfig(unet=UNetConfig(depth=1, base_channels=2), patch=100, batch=4, steps=50)


def settings(**changes):
    values = {
        "train": TRAIN,
        "budget": 60.0,
        "step_seconds": 0.5,
        "validate_every": 10,
        "checkpoint_every": 20,
        "log_every": 1,
        "source": None,
        "held_out": "1 of 2 images held out for validation: b",
        "data": {"a": "12", "b": "34"},
        "device": "cpu",
        "threads": 1,
        "versions": {"septum": "0.1.0"},
    }
    return RunConfig(**values | changes)


def model():
    card = ModelCard(
        config=TRAIN,
        class_names=("background", "foreground"),
        channels=1,
        pixel_size=None,
        data={},
        held_out="nothing",
        scores={},
        step=1,
        versions={},
    )
    return Model(UNet(TRAIN.unet).eval(), card)


@pytest.fixture
def run(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.create(settings())
    return run


def reach(run, step):
    """Write a checkpoint of a step."""
    run.save_checkpoint({"net.weight": torch.arange(3.0)}, {"step": step, "best": None})


def test_what_a_run_was_started_with_is_read_again(run):
    assert run.exists()
    assert run.config() == settings()
    assert run.config().steps == 50
    assert run.records() == []
    assert run.start() is None


def test_the_model_that_a_run_started_from_is_kept(tmp_path):
    run, start = RunFolder(tmp_path / "run"), model()
    run.create(settings(), start)
    for kept, given in zip(run.start().net.parameters(), start.net.parameters(), strict=True):
        assert torch.equal(kept, given)


def test_lowered_settings_keep_what_was_asked_for_at_first(run):
    once = settings().lowered({"batch": 2, "patch": 100}, "memory ran out")
    twice = once.lowered({"batch": 1, "patch": 50}, "and again")
    assert (twice.train.batch, twice.train.patch) == (1, 50)
    assert twice.asked == {"batch": 4, "patch": 100}
    assert twice.changes == ("memory ran out", "and again")
    run.change(twice, 7)
    assert run.config() == twice
    assert run.records() == [{"step": 7, "change": "and again"}]


def test_changes_before_the_first_step_are_in_the_log(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.create(settings().lowered({"batch": 2}, "to fit into memory"))
    assert run.records() == [{"step": 0, "change": "to fit into memory"}]


def test_settings_of_format_1_are_migrated(run):
    values = json.loads(run.config_file.read_text())
    train = {name: value for name, value in values["train"].items() if name not in ("kind", "instances", "decoding")}
    values |= {"format": 1, "train": {**train, "target": "border", "smallest_object": 9}}
    run.config_file.write_text(json.dumps(values))
    assert run.config().format == 2
    assert (run.config().train.kind, run.config().train.decoding.smallest_object) == ("instances", 9)


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(ModelError) as error:
        RunFolder(tmp_path / "run").config()
    assert str(error.value) == (
        f"{tmp_path / 'run'} is not a run folder (it has no config.json); give the --output of a training, or start a "
        "new run without --resume"
    )


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 2}', '{"format": 1}'])
def test_damaged_settings_are_refused(run, text):
    run.config_file.write_text(text)
    with pytest.raises(ModelError, match=r"config.json is damaged \(.*\); start a new run in another folder"):
        run.config()


def test_other_data_are_refused(run):
    run.check_data({"b": "34", "a": "12"})
    with pytest.raises(DatasetError) as error:
        run.check_data({"a": "12", "b": "35"})
    assert str(error.value) == f"the images or labels have changed since {run.path} was started; start a new run"


def test_a_line_of_the_log_that_was_cut_short_is_left_out(run):
    for step in (1, 2):
        run.log({"step": step, "loss": 0.5})
    with run.log_file.open("a") as file:
        file.write('{"step": 3, "lo')
    assert run.records() == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.5}]


def test_the_log_is_rewound_to_a_step(run):
    for step in (1, 2, 3):
        run.log({"step": step})
    run.rewind_log(2)
    assert run.records() == [{"step": 1}, {"step": 2}]


def test_a_checkpoint_comes_back(run):
    assert run.load_checkpoint() is None
    assert run.last_step() == 0
    reach(run, 20)
    tensors, state = run.load_checkpoint()
    assert torch.equal(tensors["net.weight"], torch.arange(3.0))
    assert state == {"step": 20, "best": None}
    assert run.last_step() == 20


def test_a_file_that_is_not_a_checkpoint_is_refused(run):
    write_tensors(run.checkpoint_file, {"weight": torch.zeros(1)}, {})
    with pytest.raises(ModelError) as error:
        run.load_checkpoint()
    assert str(error.value) == (
        f"{run.checkpoint_file} is not a checkpoint of Septum; start a new run in another folder"
    )


def test_a_run_is_finished_after_its_last_step(run):
    assert not run.is_finished()
    reach(run, 49)
    assert not run.is_finished()
    reach(run, 50)
    assert run.is_finished()
    assert run.early_end(50) is None


@pytest.mark.parametrize(("schedule", "why"), [("cosine", ", before the learning rate had decayed"), ("constant", "")])
def test_a_run_that_ended_early_is_finished_at_the_checkpoint_of_its_end(tmp_path, schedule, why):
    run = RunFolder(tmp_path / "run")
    run.create(settings(train=TRAIN.with_changes({"schedule": schedule})))
    reach(run, 20)
    run.log({"step": 21, "ended_early": True, "seconds": 66.5})  # killed before its checkpoint
    assert run.early_end(20) is None
    assert not run.is_finished()
    reach(run, 21)
    assert run.early_end(21) == EndedEarly(21, 50, 66.5, schedule == "cosine")
    assert run.early_end(21).text == (
        f"slower than estimated: time was up at step 21 of 50{why}; expect a somewhat lower score"
    )
    assert run.is_finished()


def test_a_process_that_does_not_write_changes_nothing(run):
    reach(run, 3)
    run.log({"step": 3})
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    other = RunFolder(run.path, writes=False)
    other.create(settings(budget=None), model())
    other.change(settings().lowered({"batch": 2}, "less"), 3)
    other.log({"step": 4})
    other.rewind_log(0)
    other.save_model(model())
    reach(other, 4)
    assert {path.name: path.read_bytes() for path in run.path.iterdir()} == before
    assert other.records() == [{"step": 3}]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot make the folder .*run \(Not a directory\); choose another --output"):
        RunFolder(tmp_path / "file" / "run").create(settings())


def test_a_log_that_cannot_be_written_is_named(run):
    run.log_file.unlink()
    run.log_file.mkdir()
    message = r"cannot write .*log.jsonl \(Is a directory\); free some space and continue with"
    with pytest.raises(OutputError, match=message):
        run.log({"step": 1})
