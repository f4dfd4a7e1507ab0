from pathlib import Path

import numpy as np
import pytest
import torch

from septum.data.dataset import load_dataset, shapes
from septum.data.images import write_labels, write_png
from septum.data.labels import read_labels
from septum.data.simulate import cells
from septum.errors import ConfigError, DatasetError, DeviceError, OutputError
from septum.machine.generators import drain
from septum.model.tensors import read_tensors
from septum.report import run as report
from septum.training import files as train_files
from septum.training import fit as loop
from septum.training import memory
from septum.training.files import TrainOptions
from septum.training.records import Finished, Notice
from septum.training.run import RunFolder

CPU = torch.device("cpu")
SMALL = {"unet.base_channels": 2, "unet.depth": 1, "patch": 16, "batch": 2, "augment.elastic_sd": 2.0}


def write_data(folder, sizes=((44, 44), (56, 35), (30, 64))):
    """Grey values saved as RGB, one image with an ignore mask: whatever is changed after reading has to be kept."""
    for seed, size in enumerate(sizes):
        image, labels = cells(size, 4, seed, diameter=12)
        write_png(folder / "images" / f"{seed}.png", np.repeat(image, 3, axis=0).transpose(1, 2, 0))
        write_labels(folder / "labels" / f"{seed}.tif", labels)
    write_labels(folder / "ignore" / "0.tif", np.pad(np.ones((44, 9), int), ((0, 0), (0, 35))))


def train(data, output, **changes):
    changes = {"steps": 8, "changes": SMALL, **changes}
    records = []
    model = drain(train_files.train_files(TrainOptions(data=data, output=output, **changes), CPU), records.append)
    return records, model


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lerning_rate": 1.0}, "TrainConfig has no setting 'lerning_rate'; did you mean 'learning_rate'?"),
        ({"unet.dept": 3}, "UNetConfig has no setting 'dept'; did you mean 'depth'?"),
        ({"batch": 0}, "TrainConfig.batch should be greater than or equal to 1, got 0"),
    ],
)
def test_a_wrong_setting_is_refused_before_any_image_is_read(tmp_path, monkeypatch, changes, message):
    def opened(*_, **__):
        raise AssertionError("an image was opened")

    for name in ("shapes", "load_dataset"):
        monkeypatch.setattr(train_files, name, opened)
    with pytest.raises(ConfigError) as error:
        train(tmp_path / "data", tmp_path / "run", changes=changes)
    assert str(error.value) == message


def test_a_training_ends_with_a_record_of_its_model(tmp_path):
    write_data(tmp_path / "data")
    records, model = train(tmp_path / "data", tmp_path / "run", final=True)
    run, final = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run" / "final")
    assert [record for record in records if isinstance(record, Finished)] == [records[-1]]
    assert records[-1] == Finished(
        final.path, final.model_file, 8, 8, model.card.scores, "panoptic quality", model.card.held_out
    )
    records, model = train(tmp_path / "data", tmp_path / "run", resume=True, steps=None, changes={})
    best = max(
        (record for record in run.records() if "validation" in record), key=lambda one: one["validation"]["score"]
    )
    assert records[-1].folder == run.path
    assert (records[-1].scores, records[-1].steps) == (best["validation"], 8)
    assert records[-1].step == model.card.step <= 8
    assert records[-1].held_out == "1 of 3 images held out for validation: 2"


def no_room(monkeypatch):
    monkeypatch.setattr(memory, "default_limit", lambda: 1000)


@pytest.mark.parametrize("instances", ["border", "rim"])
def test_a_data_set_larger_than_memory_is_streamed_to_the_same_weights(tmp_path, monkeypatch, instances):
    write_data(tmp_path / "data")
    changes = SMALL | {"instances": instances}
    records, _ = train(tmp_path / "data", tmp_path / "whole", changes=changes)
    assert not any("streamed" in record.text for record in records if isinstance(record, Notice))
    no_room(monkeypatch)
    said = []
    steps = train_files.train_files(
        TrainOptions(tmp_path / "data", tmp_path / "streamed", steps=8, changes=changes), CPU
    )
    for record in steps:
        said += [record.text] if isinstance(record, Notice) else []
        files = [*(tmp_path / "streamed" / "streamed0").glob("*.npy")]
    assert said[0] == (
        f"the data set needs 0 MB of memory, but only 0 MB are free for it: it is streamed from files in "
        f"{tmp_path / 'streamed' / 'streamed0'}, which are removed at the end"
    )
    assert len(files) > 12
    assert not (tmp_path / "streamed" / "streamed0").exists()
    first, second = (read_tensors(RunFolder(tmp_path / name).checkpoint_file)[0] for name in ("whole", "streamed"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (tmp_path / "whole/model.safetensors").read_bytes() == (tmp_path / "streamed/model.safetensors").read_bytes()


def test_the_report_of_a_data_set_larger_than_memory_is_that_of_one_in_memory(tmp_path, monkeypatch):
    write_data(tmp_path / "data")
    train(tmp_path / "data", tmp_path / "run")
    folder, folders = tmp_path / "run" / "streamed-report", []

    def load(*arguments, **named):
        folders.append(named["folder"])
        assert not folder.exists()
        dataset = load_dataset(*arguments, **named)
        assert len([*folder.glob("*.npy")]) == (0 if named["folder"] is None else 12)
        return dataset

    monkeypatch.setattr(report, "load_dataset", load)
    whole = report.report_run(tmp_path / "run").read_bytes()
    no_room(monkeypatch)
    folder.mkdir()  # left by a report that was killed
    (folder / "0.npy").write_bytes(b"")
    assert report.report_run(tmp_path / "run").read_bytes() == whole
    assert folders == [None, folder]
    assert not folder.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's file without room")
def test_a_report_without_room_on_the_disk_is_refused_not_written_without_its_pictures(tmp_path, monkeypatch):
    write_data(tmp_path / "data")
    train(tmp_path / "data", tmp_path / "run")
    no_room(monkeypatch)
    (tmp_path / "run" / "streamed-report").symlink_to("/dev/full")
    with pytest.raises(OutputError, match="free disk space there"):
        report.report_run(tmp_path / "run")
    assert not (tmp_path / "run" / "report.html").exists()


def test_the_report_shows_nothing_as_held_out_if_the_images_are_not_those_of_the_training(tmp_path):
    write_data(tmp_path / "data")
    train(tmp_path / "data", tmp_path / "run")
    held_out = "prediction and truth of 2"
    assert held_out in report.report_run(tmp_path / "run").read_text()
    for file in (tmp_path / "data").glob("*/2.*"):
        file.unlink()
    page = report.report_run(tmp_path / "run").read_text()
    assert "prediction and truth of" not in page
    assert "No pictures: the images or labels have changed since" in page


SAID = {
    "kind": ({"kind": "classes"}, "was started with --kind classes, got --kind instances"),
    "channel": ({"channel": 1}, "was started with --channel 1, got --channel 0"),
    "unlabeled": ({"unlabeled": 1}, "was started with --unlabeled 1, got --unlabeled 2"),
    "labels": ({}, ""),
}


@pytest.mark.parametrize("name", SAID)
def test_a_resumed_run_keeps_the_options_about_its_data(tmp_path, name):
    said, refused = SAID[name]
    for number in range(3):  # each number is one piece: by themselves the labels would be instances
        labels = np.zeros((40, 50), int)
        labels[5:30, 8 + number : 40], labels[12:20, 15:25] = 1, 2
        write_png(tmp_path / "data" / f"{number}.png", np.stack([labels * 90, labels * 50, labels], 2).astype(np.uint8))
        write_labels(tmp_path / "data" / f"{number}_mask.tif", labels)
    data = tmp_path / "data"
    if name == "labels":
        data, said = (
            tmp_path / "data" / "0.png",
            {"labels": (tmp_path / "data" / "0_mask.tif").rename(tmp_path / "a.tif")},
        )
    train(data, tmp_path / "whole", **said)
    steps = train_files.train_files(TrainOptions(data, tmp_path / "run", steps=8, changes=SMALL, **said), CPU)
    while getattr(next(steps), "step", 0) < 3:
        pass
    steps.close()
    if refused:
        other = {name: {"kind": "instances", "channel": 0, "unlabeled": 2}[name]}
        with pytest.raises(ConfigError, match=refused):
            train(data, tmp_path / "run", resume=True, steps=None, changes={}, **other)
    train(data, tmp_path / "run", resume=True, steps=None, changes={})
    assert (tmp_path / "whole/model.safetensors").read_bytes() == (tmp_path / "run/model.safetensors").read_bytes()


def test_a_final_training_starts_from_the_weights_that_the_run_before_started_from(tmp_path):
    write_data(tmp_path / "data")
    train(tmp_path / "data", tmp_path / "first", steps=2, changes={**SMALL, "seed": 5})
    begin = {
        "steps": 2,
        "start": tmp_path / "first",
        "changes": {name: SMALL[name] for name in SMALL if name[:5] != "unet."},
    }
    train(tmp_path / "data", tmp_path / "whole", **begin, final=True)
    train(tmp_path / "data", tmp_path / "parts", **begin)
    train(tmp_path / "data", tmp_path / "parts", resume=True, final=True, steps=None, changes={})
    ends = [(tmp_path / name / "final" / "model.safetensors").read_bytes() for name in ("whole", "parts")]
    assert ends[0] == ends[1]
    train(tmp_path / "data", tmp_path / "scratch", steps=2)
    for name, start in (("scratch", "first"), ("whole", "scratch")):
        with pytest.raises(ConfigError, match="was trained with other settings"):
            train(tmp_path / "data", tmp_path / name, **begin | {"start": tmp_path / start}, final=True)
    train(tmp_path / "data", tmp_path / "scratch", steps=2, final=True)
    assert (tmp_path / "scratch" / "final" / "model.safetensors").read_bytes() != ends[0]


def test_a_final_training_on_other_data_is_refused(tmp_path):
    write_data(tmp_path / "data")
    train(tmp_path / "data", tmp_path / "run")
    labels = tmp_path / "data" / "labels" / "1.tif"
    write_labels(labels, read_labels(labels).frames[0] * (np.arange(35) < 30))
    with pytest.raises(DatasetError, match="the images or labels have changed since"):
        train(tmp_path / "data", tmp_path / "run", final=True)
    assert not (tmp_path / "run" / "final").exists()


def test_a_final_training_after_a_run_that_ended_early_takes_as_many_steps_as_that(tmp_path, monkeypatch, ticks):
    write_data(tmp_path / "data")
    with monkeypatch.context() as patch:
        patch.setattr("septum.training.fit.OVERTIME", 0.0)
        train(tmp_path / "data", tmp_path / "run", steps=None, budget=5.0, begin=0.0)
    records, _ = train(tmp_path / "data", tmp_path / "run", resume=True, final=True, steps=None, changes={})
    assert Notice("final training on all images, 1 step; its scores are those of the earlier run") in records
    assert RunFolder(tmp_path / "run" / "final").last_step() == 1
    page = report.report_run(tmp_path / "run").read_text()
    assert ">1 of " in page
    assert "The training ended early. It was slower than estimated: time was up at step 1 of " in page
    assert "time was up" not in report.report_run(tmp_path / "run" / "final").read_text()


def test_the_report_of_a_final_training_says_that_nothing_was_held_out_and_whose_scores_it_shows(tmp_path):
    write_data(tmp_path / "data")
    train(tmp_path / "data", tmp_path / "run", final=True)
    page = report.report_run(tmp_path / "run" / "final").read_text()
    judged_on = RunFolder(tmp_path / "run").config().held_out
    assert f"scores from before the final training: {judged_on}" in page
    assert "No pictures: nothing was held out" in page


def test_one_image_of_classes_annotated_in_its_middle_is_trained_on_and_scored(tmp_path):
    labels = np.kron(np.indices((10, 10)).sum(0) % 2, np.ones((10, 10), int))
    write_png(tmp_path / "data" / "images" / "0.png", np.stack([labels * 100 + 50] * 3, 2).astype(np.uint8))
    write_labels(tmp_path / "data" / "labels" / "0.tif", labels)
    known = np.zeros((100, 100), int)
    known[40:60, 40:60] = 1
    write_labels(tmp_path / "data" / "ignore" / "0.tif", 1 - known)
    _, model = train(tmp_path / "data", tmp_path / "run")
    assert model.card.config.kind == "classes"
    assert set(model.card.scores) == {"score", "mean_iou", "pixel_error"}


def test_a_streamed_run_that_was_stopped_continues_in_memory_and_leaves_nothing_behind(tmp_path, monkeypatch):
    write_data(tmp_path / "data")
    train(tmp_path / "data", tmp_path / "whole")
    with monkeypatch.context() as patch:
        no_room(patch)
        steps = train_files.train_files(
            TrainOptions(tmp_path / "data", tmp_path / "parts", steps=8, changes=SMALL), CPU
        )
        for record in steps:
            if getattr(record, "step", 0) == 3:
                break
        steps.close()
    assert not (tmp_path / "parts" / "streamed0").exists()
    train(tmp_path / "data", tmp_path / "parts", resume=True, steps=None, changes={})
    assert (tmp_path / "whole/model.safetensors").read_bytes() == (tmp_path / "parts/model.safetensors").read_bytes()


def test_the_memory_that_a_data_set_would_take_is_known_from_its_headers(tmp_path):
    write_data(tmp_path / "data")
    found, dataset = shapes(tmp_path / "data"), load_dataset(tmp_path / "data")
    assert [(one.height, one.width) for one in found] == [sample.labels.shape for sample in dataset.samples]
    assert {(one.channels, one.itemsize) for one in found} == {(3, 1)}


def test_a_device_that_disappears_ends_in_one_sentence_and_the_run_can_continue(tmp_path, monkeypatch):
    write_data(tmp_path / "data")
    train(tmp_path / "data", tmp_path / "whole")
    step, calls = loop.train_step, []

    def failing(state, *arguments):
        calls.append(state.step)
        if state.step == 5:
            raise torch.AcceleratorError("CUDA error: unspecified launch failure\nCompile with TORCH_USE_CUDA_DSA")
        return step(state, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", failing)
        with pytest.raises(DeviceError) as caught:
            train(tmp_path / "data", tmp_path / "broken")
    assert str(caught.value) == (
        "the cpu device failed or disappeared (CUDA error: unspecified launch failure); everything up to step 5 is "
        "saved: check the device, for example with nvidia-smi, then continue with: "
        f"septum train {tmp_path / 'data'} --output {tmp_path / 'broken'} --resume"
    )
    train(tmp_path / "data", tmp_path / "broken", resume=True, steps=None, changes={})
    assert (tmp_path / "whole/model.safetensors").read_bytes() == (tmp_path / "broken/model.safetensors").read_bytes()


def test_an_error_that_is_not_a_failed_device_is_not_taken_for_one(tmp_path, monkeypatch):
    write_data(tmp_path / "data")

    def failing(*_):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr("septum.training.fit.train_step", failing)
    with pytest.raises(RuntimeError, match="shapes differ"):
        train(tmp_path / "data", tmp_path / "run")
