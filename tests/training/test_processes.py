"""Real processes, joined by gloo: two of them train as one does with the whole batch."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from septum.data.dataset import load_dataset
from septum.data.images import write_labels, write_png
from septum.data.simulate import cells
from septum.errors import ConfigError
from septum.model.tensors import read_tensors
from septum.training.fit import fit
from septum.training.holdout import hold_out
from septum.training.processes import Processes
from septum.training.recipe import recipe
from septum.training.records import StepDone
from septum.training.request import TrainingRequest
from septum.training.run import RunFolder

SETTINGS = {
    "unet.base_channels": 2,
    "unet.depth": 1,
    "unet.dropout": 0.3,
    "patch": 16,
    "batch": 3,  # one process draws two of them, the other one
    "dice": 1.0,
    "precision": "float32",
    "optimizer": "sgd",  # Adam makes full steps of gradients that are zero but for rounding
    "learning_rate": 0.05,
    "steps": 5,
}
TOGETHER = """
import sys
import torch
from septum.training.processes import joined
from tests_of_processes import train

with joined(torch.device("cpu")) as processes:
    assert processes.count == 2
    train(sys.argv[1], "whole", processes)
    train(sys.argv[1], "parts", processes, stop=2)
"""


def train(folder, name, processes=None, stop=None, resume=False):
    dataset = load_dataset(f"{folder}/data")
    config = recipe("fast", dataset, torch.device("cpu"), SETTINGS)
    more = {} if processes is None else {"processes": processes}
    steps = fit(TrainingRequest(dataset, config, f"{folder}/{name}", held_out=hold_out(dataset), resume=resume, **more))
    losses = []
    for record in steps:
        if isinstance(record, StepDone):
            losses.append(record.loss)
            if record.step == stop:
                steps.close()
    return losses


def torchrun(folder, *words):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([str(word) for word in command], env=environment, cwd=folder, check=True, timeout=120)


def assert_same_to_rounding(folder, *names):
    first, *others = (read_tensors(RunFolder(folder / name).checkpoint_file)[0] for name in names)
    for other in others:
        assert first.keys() == other.keys()
        for name, value in first.items():
            torch.testing.assert_close(value, other[name], rtol=1e-4, atol=1e-6, msg=lambda text, n=name: f"{n} {text}")


@pytest.fixture
def folder(tmp_path):
    for seed in range(2):
        image, labels = cells((40, 40), 6, seed, diameter=12)
        write_png(tmp_path / "data" / "images" / f"{seed}.png", np.repeat(image, 3, axis=0).transpose(1, 2, 0))
        write_labels(tmp_path / "data" / "labels" / f"{seed}.tif", labels)
    return tmp_path


def assert_logged_once(folder, name, losses):
    """One of the two processes has written the log."""
    records = [record for record in RunFolder(folder / name).records() if "loss" in record]
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5]
    np.testing.assert_allclose([record["loss"] for record in records], losses, rtol=1e-4)


def test_two_processes_train_as_one_does_and_one_can_continue_their_run(folder):
    (folder / "tests_of_processes.py").write_text(Path(__file__).read_text())
    (folder / "together.py").write_text(TOGETHER)
    torchrun(folder, "together.py", folder)
    losses = train(folder, "alone")
    train(folder, "parts", resume=True)
    assert_same_to_rounding(folder, "alone", "whole", "parts")
    assert_logged_once(folder, "whole", losses)


@pytest.mark.slow
def test_two_processes_can_continue_the_run_of_one(folder):
    losses = train(folder, "alone")
    train(folder, "continued", stop=2)
    torchrun(folder, "-m", "septum", "train", "data", "--output", "continued", "--resume")
    assert_same_to_rounding(folder, "alone", "continued")
    assert_logged_once(folder, "continued", losses)


def test_more_processes_than_samples_of_a_step_are_refused(folder):
    dataset = load_dataset(folder / "data")
    config = recipe("fast", dataset, torch.device("cpu"), {**SETTINGS, "batch": 1})
    message = "a batch of 1 is too small for 2 processes; give each process a patch per step with --set batch=2"
    with pytest.raises(ConfigError, match=message):
        next(
            fit(TrainingRequest(dataset, config, folder / "run", held_out=hold_out(dataset), processes=TwoAlike(0, 2)))
        )
    assert not (folder / "run").exists()


class TwoAlike(Processes):
    """The first of two, without the other."""

    def from_first(self, value):
        return value
