import time

import pytest
import torch

from septum.data.dataset import from_arrays
from septum.data.simulate import cells
from septum.errors import ConfigError
from septum.training import probe
from septum.training.holdout import hold_out
from septum.training.memory import pixels
from septum.training.patches import prepare
from septum.training.probe import MemoryNeeds, Trial, begin_run, slowdown
from septum.training.processes import Processes
from septum.training.recipe import recipe
from septum.training.request import TrainingRequest

CPU = torch.device("cpu")
SMALL = {"unet.base_channels": 2, "unet.depth": 1, "patch": 40, "batch": 2, "steps": 5}


@pytest.fixture
def begin(tmp_path):
    """Start a training, with other settings."""
    pairs = [cells((40, 40), 6, seed, diameter=12) for seed in range(2)]
    dataset = from_arrays([image for image, _ in pairs], [labels for _, labels in pairs], kind="instances")

    def start(changes=None, **options):
        config, held_out = recipe("fast", dataset, CPU, {**SMALL, **(changes or {})}), hold_out(dataset)
        request = TrainingRequest(dataset, config, tmp_path / "run", held_out=held_out, **options)
        return begin_run(request, prepare(dataset, config, held_out, CPU))

    return start


def test_settings_without_limits_are_written_down_as_they_are(begin):
    settings = begin()
    assert (settings.train.batch, settings.train.patch, settings.steps) == (2, 40, 5)
    assert (settings.asked, settings.changes, settings.step_seconds, settings.deterministic) == ({}, (), None, None)
    assert settings.held_out == "1 of 2 images held out for validation: image 1"


def test_under_a_memory_limit_the_step_that_fits_is_written_down_with_the_reason(begin, monkeypatch):
    monkeypatch.setattr(MemoryNeeds, "counted", lambda needs, config: 0)
    monkeypatch.setattr(Trial, "peak", lambda trial, config: 10**6 * pixels(config))
    settings = begin(max_memory=10**9)
    assert (settings.train.batch, settings.train.patch) == (1, 14)  # 30 x 30 pixels go in
    assert settings.asked == {"batch": 2, "patch": 40}
    assert settings.changes == (
        "to fit into memory, a step has 1 patch of 14 x 14 pixels instead of 2 patches of 40 x 40 pixels",
    )


def test_a_step_that_runs_out_of_memory_in_the_probe_is_tried_smaller(begin, monkeypatch):
    take, tried = probe.train_step, []

    def short_of_memory(state, images, config, *more):
        tried.append((config.batch, config.patch))
        if config.batch * config.patch > 30:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return take(state, images, config, *more)

    monkeypatch.setattr(probe, "train_step", short_of_memory)
    settings = begin({"steps": None}, budget=60.0, begin=time.perf_counter())
    assert list(dict.fromkeys(tried)) == [(2, 40), (1, 40), (1, 30)]
    assert (settings.train.batch, settings.train.patch) == (1, 30)
    assert settings.asked == {"batch": 2, "patch": 40}


def test_a_memory_limit_for_several_processes_is_refused(begin):
    message = (
        "--max-memory limits a single process; with several, leave it out and use smaller patches with --set patch=N"
    )
    with pytest.raises(ConfigError, match=message):
        begin(max_memory=10**9, processes=Processes(0, 2))


def test_on_a_cpu_determinism_has_no_price(begin, monkeypatch):
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert begin().deterministic == 1.0


def test_the_largest_held_out_image_stands_for_all_of_them(begin, monkeypatch):
    """The time of one is multiplied by the pixels of all, in predictions with their surroundings."""
    shapes = [(40, 40), (44, 44), (40, 40), (44, 44), (36, 36)] * 3
    pairs = [cells(shape, 6, seed, diameter=12) for seed, shape in enumerate(shapes)]
    dataset = from_arrays([image for image, _ in pairs], [labels for _, labels in pairs], kind="instances")
    held_out = hold_out(dataset)
    sizes = [dataset.samples[index].labels.shape for index in held_out.blocks]
    assert len(sizes) == 3
    config = recipe("fast", dataset, CPU, SMALL)
    request = TrainingRequest(dataset, config, "run", held_out=held_out)
    trial = Trial(request, [], probe.largest(held_out, dataset), 10**9)
    for context in (0, 4):
        areas = [(height + 2 * context) * (width + 2 * context) for height, width in sizes]
        assert probe._times(trial, context) == pytest.approx(sum(areas) / max(areas))
    assert slowdown(trial, config) is None
