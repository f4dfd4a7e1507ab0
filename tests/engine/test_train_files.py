import numpy as np
import pytest
import torch

from septum.data.dataset import load_dataset, shapes
from septum.data.images import write_labels, write_png
from septum.data.simulate import cells
from septum.engine import memory, train_files
from septum.engine import train as loop
from septum.engine.run import RunFolder
from septum.engine.tensors import read_tensors
from septum.engine.train_files import Request, Said
from septum.errors import DeviceError

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
    records, steps = [], train_files.train_files(Request(data=data, output=output, **changes), CPU)
    while True:
        try:
            records.append(next(steps))
        except StopIteration as end:
            return records, end.value


def no_room(monkeypatch):
    monkeypatch.setattr(memory, "free", lambda: 1000)


@pytest.mark.parametrize("instances", ["border", "rim"])
def test_a_data_set_larger_than_memory_is_streamed_to_the_same_weights(tmp_path, monkeypatch, instances):
    write_data(tmp_path / "data")
    changes = SMALL | {"instances": instances}
    records, _ = train(tmp_path / "data", tmp_path / "whole", changes=changes)
    assert not any("streamed" in record.text for record in records if isinstance(record, Said))
    no_room(monkeypatch)
    said = []
    steps = train_files.train_files(Request(tmp_path / "data", tmp_path / "streamed", steps=8, changes=changes), CPU)
    for record in steps:
        said += [record.text] if isinstance(record, Said) else []
        files = [*(tmp_path / "streamed" / "streamed0").glob("*.npy")]
    assert said[0] == (
        f"the data set would take 0 MB of memory, and 0 MB are left for it: it is streamed from files in "
        f"{tmp_path / 'streamed' / 'streamed0'}, which are removed at the end"
    )
    assert len(files) > 12
    assert not (tmp_path / "streamed" / "streamed0").exists()
    first, second = (read_tensors(RunFolder(tmp_path / name).checkpoint_file)[0] for name in ("whole", "streamed"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (tmp_path / "whole/model.safetensors").read_bytes() == (tmp_path / "streamed/model.safetensors").read_bytes()


def test_a_streamed_run_that_was_killed_goes_on_in_memory_and_leaves_nothing_behind(tmp_path, monkeypatch):
    write_data(tmp_path / "data")
    train(tmp_path / "data", tmp_path / "whole")
    with monkeypatch.context() as patch:
        no_room(patch)
        steps = train_files.train_files(Request(tmp_path / "data", tmp_path / "parts", steps=8, changes=SMALL), CPU)
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


def test_a_device_that_disappears_ends_in_one_sentence_and_the_run_can_go_on(tmp_path, monkeypatch):
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
        "the cpu device failed or disappeared (CUDA error: unspecified launch failure); all up to step 5 is saved: see "
        "that it is there, for example with nvidia-smi, then go on with: "
        f"septum train {tmp_path / 'data'} --output {tmp_path / 'broken'} --resume"
    )
    train(tmp_path / "data", tmp_path / "broken", resume=True, steps=None, changes={})
    assert (tmp_path / "whole/model.safetensors").read_bytes() == (tmp_path / "broken/model.safetensors").read_bytes()


def test_an_error_that_is_no_failed_device_is_not_taken_for_one(tmp_path, monkeypatch):
    write_data(tmp_path / "data")

    def failing(*_):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr("septum.engine.train.train_step", failing)
    with pytest.raises(RuntimeError, match="shapes differ"):
        train(tmp_path / "data", tmp_path / "run")
