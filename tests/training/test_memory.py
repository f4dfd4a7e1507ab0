import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tifffile
import torch

from septum.config import TrainConfig, UNetConfig
from septum.core.layout import TooLittleMemory, plan_layout
from septum.core.unet import UNet
from septum.data.dataset import Shape
from septum.data.images import write_labels, write_png
from septum.data.simulate import cells
from septum.errors import ConfigError
from septum.machine.memory import resident
from septum.model.model import Model, ModelCard
from septum.training.memory import check_largest, fit_memory, largest_bytes, pixels, smaller_step, tile_memory
from septum.training.run import RunFolder


def make_model(folder, unet):
    """A network of random weights."""
    card = ModelCard(
        config=TrainConfig(unet=unet, steps=1),
        class_names=("background", "foreground"),
        channels=1,
        pixel_size=None,
        data={},
        held_out="nothing",
        scores={},
        step=1,
        versions={},
    )
    Model(UNet(unet).eval(), card).save(folder / "model.safetensors")


def wanted(**changes):
    return TrainConfig(unet=UNetConfig(depth=2)).with_changes({"patch": 100, "batch": 1, **changes})


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("limit", [60, 100, 150, 250, 10_000])
def test_the_largest_step_that_fits_is_found_and_none_that_does_not_is_ever_taken(batch, limit):
    taken = []

    def peak(config):
        taken.append(50e6 + 1000 * pixels(config))
        return taken[-1]

    config = fit_memory(wanted(batch=batch), limit * 10**6, peak, counted=lambda config: 0)
    assert max(taken) <= limit * 10**6
    sizes = [patch for patch in range(1, 101) if 50e6 + 1000 * pixels(wanted(patch=patch)) <= 0.95 * limit * 1e6]
    if not sizes:
        assert pixels(config) == pixels(wanted(patch=1))
    elif sizes[-1] < 100:
        assert pixels(config) == pixels(wanted(patch=sizes[-1]))
    else:
        batches = [n for n in range(1, batch + 1) if 50e6 + 1000 * pixels(wanted(batch=n)) <= 0.95 * limit * 1e6]
        assert config == wanted(batch=batches[-1])


def test_if_not_even_the_smallest_step_fits_the_error_says_how_much_is_needed():
    with pytest.raises(
        ConfigError,
        match="the memory limit is 50 MB, but training takes about 70 MB here, even with the smallest patches",
    ):
        fit_memory(wanted(), 50 * 10**6, lambda _: 70 * 10**6, counted=lambda config: 0)


def test_steps_that_run_out_of_memory_get_smaller_until_they_cannot():
    config, sizes = wanted(batch=5), []
    for error in [MemoryError(), torch.OutOfMemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]:
        config = smaller_step(config, error)
        sizes.append((config.batch, config.patch))
    assert sizes == [(2, 100), (1, 100), (1, 72)]
    while config.patch > 4:
        before, config = config, smaller_step(config, MemoryError())
        assert pixels(config) < pixels(before)
    with pytest.raises(ConfigError, match="not even a single patch of the smallest size fits into memory"):
        smaller_step(config, MemoryError())
    with pytest.raises(RuntimeError, match="another matter"):
        smaller_step(config, RuntimeError("another matter"))


def test_a_step_that_is_expected_not_to_fit_is_refused_before_it_is_tried():
    def never(_):
        raise AssertionError("a step was tried")

    with pytest.raises(
        ConfigError,
        match="the memory limit is 50 MB, but training takes about 70 MB here, even with the smallest patches",
    ):
        fit_memory(wanted(), 50 * 10**6, never, counted=lambda _: 70 * 10**6)


def test_the_second_step_is_expected_to_take_the_first_and_the_counted_difference():
    taken = []

    def peak(config):
        taken.append(pixels(config))
        return 100 * 10**6 + 1000 * pixels(config)

    fit_memory(wanted(), 110 * 10**6, peak, counted=lambda config: 1000 * pixels(config))
    smallest = pixels(wanted(patch=1))
    rising = [pixels(wanted(patch=patch)) for patch in range(1, 101)]
    fits = [size for size in rising if size <= 2 * smallest and 100e6 + 1000 * size <= 0.95 * 110e6]
    assert taken[:2] == [smallest, max(fits)]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_memory_of_libraries_is_counted_until_the_first_training(optimizer):
    program = (
        "import torch; from septum.config import *; from septum.training.memory import libraries_bytes\n"
        "from septum.training.step import new_state; before = libraries_bytes()\n"
        "network = UNetConfig(depth=1, base_channels=2)\n"
        f"new_state(TrainConfig(unet=network, optimizer={optimizer!r}), torch.device('cpu'))\n"
        "print(before, libraries_bytes())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["100000000", "0"]


@pytest.mark.parametrize("normalization", ["none", "image"])
def test_however_little_memory_is_left_a_tile_may_take_what_the_smallest_one_does(normalization):
    unet, shapes = UNetConfig(base_channels=16, normalization=normalization), [(512, 512), (60, 3000)]
    least = tile_memory(10**6, -(10**9), unet, shapes)
    layouts = [plan_layout(shape, unet, least) for shape in shapes]
    assert max(layout.memory for layout in layouts) == least
    largest = shapes[np.argmax([layout.memory for layout in layouts])]
    with pytest.raises(TooLittleMemory):
        plan_layout(largest, unet, least - 1)
    assert tile_memory(4 * 10**9, 10**9, unet, shapes) == 5 * 10**8
    assert tile_memory(2 * 10**9, 2 * 10**9, unet, []) == 5 * 10**8
    assert tile_memory(None, 0, unet, shapes) == 2 * 10**9


def test_an_image_that_takes_too_much_by_itself_is_refused_before_it_is_read():
    shapes = [
        Shape(channels=1, height=100, width=100, itemsize=1),
        Shape(channels=3, height=20000, width=10000, itemsize=2),
    ]
    needed = 20000 * 10000 * (3 * (2 + 8) + 52)
    assert largest_bytes(shapes) == needed
    check_largest(shapes, resident() + needed + 10**8)
    with pytest.raises(ConfigError, match=r"the memory limit is 1000 MB, but preparing the largest image takes \d+ MB"):
        check_largest(shapes, 10**9)


def peak_of(folder, *words, refused=""):
    """Bytes that `septum WORDS`, on one thread, has held at most; it ends well, or says what it was `refused` for."""
    # A process inherits the peak of the one that starts it: a small one stands between it and the tests.
    between = (
        "import resource, subprocess, sys\n"
        "code = subprocess.run([sys.executable, '-m', 'septum', *sys.argv[1:]]).returncode\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", between, *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=not refused,
    )
    assert refused in done.stderr
    return int(done.stdout.split()[-1]) * (1 if sys.platform == "darwin" else 1024)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="memory is measured on Linux and macOS")
def test_a_training_never_holds_more_than_it_may(tmp_path):
    """A real process, with the image of which too little is asked when there is no limit."""
    image, labels = cells((100, 100), 5, 0, diameter=16)
    write_png(tmp_path / "data" / "images" / "a.png", np.repeat(image, 3, axis=0).transpose(1, 2, 0))
    write_labels(tmp_path / "data" / "labels" / "a.tif", labels)

    def peak(folder, *options):
        words = ["train", "data", "--output", folder, "--steps", "6", "--set", "unet.base_channels=16", "--quiet"]
        return peak_of(tmp_path, *words, "--set", "precision=float32", *options)

    free = peak("free")
    limit = round(0.9 * free)
    assert peak("limited", "--max-memory", f"{limit / 1e6:.0f}MB") <= limit
    run = RunFolder(tmp_path / "limited").config()
    assert run.train.patch < 260 == run.asked["patch"]
    assert run.changes[0].startswith("to fit into memory, a step has 1 patch of ")


@pytest.mark.skipif(sys.platform != "linux", reason="what the process itself uses is known on Linux only")
def test_a_training_that_cannot_fit_is_refused_before_it_holds_what_it_may_not(tmp_path):
    """A real process; the weights of this network, and what an optimiser keeps of them, are the larger part."""
    image, labels = cells((100, 100), 5, 0, diameter=16)
    write_labels(tmp_path / "data" / "images" / "a.tif", (255 * image[0] / image.max()).astype(np.uint8))
    write_labels(tmp_path / "data" / "labels" / "a.tif", labels)
    words = [
        "train",
        "data",
        "--output",
        "run",
        "--recipe",
        "paper",
        "--steps",
        "6",
        "--quiet",
        "--max-memory",
        "700MB",
    ]
    assert peak_of(tmp_path, *words, refused="the memory limit is 700 MB, but training takes about") <= 700e6
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="what the process itself uses is known on Linux only")
@pytest.mark.parametrize("normalization", ["none", "image"])
def test_a_streamed_prediction_never_holds_more_than_it_may_and_uses_what_it_may(tmp_path, normalization):
    """A real process; the image is low and wide, so that memory decides over its tiles."""
    unet = UNetConfig(base_channels=32, normalization=normalization)
    make_model(tmp_path, unet)
    image = np.random.default_rng(0).integers(0, 256, (60, 5000), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", image, tile=(64, 512))
    words = ["predict", "model.safetensors", "a.tif", "--output", "out", "--format", "zarr", "--quiet"]
    peak, limit = peak_of(tmp_path, *words, "--max-memory", "650MB"), 650e6
    assert 0.7 * limit < peak <= limit
    assert json.loads((tmp_path / "out" / "a_plan.json").read_text())["stride"][1] < 5000
