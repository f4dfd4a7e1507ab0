import contextlib
import io
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import safetensors.torch
import tifffile
import torch

import septum
import septum.cli.commands
from septum import cli
from septum.cli import arguments, display
from septum.core.normalize import mean_normalization, measure_normalization
from septum.data.images import write_labels, write_png
from septum.data.labels import read_labels
from septum.data.simulate import cells
from septum.model.model import load
from septum.model.tensors import read_tensors
from septum.prediction import files as predict_files
from septum.words import parse_duration

SMALL = {"unet.base_channels": 2, "unet.depth": 1, "patch": 16}
TINY = ["--steps", "3", *(word for name, value in SMALL.items() for word in ("--set", f"{name}={value}"))]
ERRORS = ("ConfigError", "ImageError", "DatasetError", "ModelError", "OutputError", "DeviceError")


class Outcome(NamedTuple):
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


def run(*words) -> Outcome:
    """Run the command line in this process, as `septum WORDS...` would."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["septum", *map(str, words)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.argv = before
    return Outcome(code, out.getvalue(), err.getvalue())


def spawn(*words) -> Outcome:
    """Run the command line in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(Path(septum.__file__).parents[1])}
    command = [sys.executable, "-m", "septum", *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250, check=False)
    return Outcome(done.returncode, done.stdout, done.stderr)


def assert_refused(outcome, *fragments):
    """Exit code 2, and on standard error one sentence at the end that says all of it, in this order."""
    assert outcome.code == 2
    assert "Traceback" not in outcome.out + outcome.err
    *before, last = outcome.err.strip().splitlines()
    assert re.match(rf"({'|'.join(ERRORS)}): \S", last), outcome.err
    assert not any(line.startswith(ERRORS) for line in before)
    assert re.search(".*".join(map(re.escape, fragments)), last), last


def files(folder) -> dict[str, bytes | None]:
    """All that is in a folder, also hidden files."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(Path(folder).rglob("*"))
    }


def picture(seed) -> tuple[np.ndarray, np.ndarray]:
    image, labels = cells((40, 48), 5, seed, diameter=12)
    return image[0], labels


def write_dataset(folder, count=3) -> Path:
    for seed in range(count):
        image, labels = picture(seed)
        (folder / "images").mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(folder / "images" / f"{seed}.tif", image)
        write_labels(folder / "labels" / f"{seed}.tif", labels)
    return folder


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("cli") / "cells")


@pytest.fixture(scope="session")
def trained(data) -> Path:
    """A run folder; not to be changed."""
    outcome = run("train", data, "--output", data.parent / "run", *TINY)
    assert outcome.code == 0, outcome.err
    return data.parent / "run"


@pytest.fixture
def image(tmp_path) -> Path:
    tifffile.imwrite(tmp_path / "cells.tif", picture(9)[0])
    return tmp_path / "cells.tif"


def noise(*shape, dtype=np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, shape).astype(dtype)


def cut_short(path, **settings):
    tifffile.imwrite(path, noise(64, 64), **settings)
    path.write_bytes(path.read_bytes()[:-1000])


def with_value(path, value):
    pixels = noise(40, 48, dtype=np.float32)
    pixels[2, 3] = value
    tifffile.imwrite(path, pixels)


def no_pixels(path):
    with pytest.warns(UserWarning, match="zero-size"):
        tifffile.imwrite(path, np.zeros((0, 5), np.uint8))


# How a file becomes bad, its name, and what the sentence must say: the thing, what is wrong, the way out.
BAD_IMAGES = {
    "a text file": (
        "a.tif",
        lambda path: path.write_text("not an image"),
        ["a.tif", "is not a TIFF", "save the image"],
    ),
    "a cut TIFF": ("a.tif", cut_short, ["a.tif", "is damaged or truncated", "copy the file again"]),
    "a cut compressed TIFF": (
        "a.tif",
        lambda path: cut_short(path, compression="zlib"),
        ["a.tif", "is damaged or truncated", "copy the file again"],
    ),
    "a zero-byte PNG": ("a.png", Path.touch, ["a.png", "is empty (0 bytes)", "copy or export the file again"]),
    "no pixels": ("a.tif", no_pixels, ["a.tif", "has no pixels", "export the image again"]),
    "NaN": (
        "a.tif",
        lambda path: with_value(path, np.nan),
        ["a.tif", "1 NaN or infinite pixel", "row 2, column 3", "replace"],
    ),
    "infinity": ("a.tif", lambda path: with_value(path, -np.inf), ["a.tif", "1 NaN or infinite pixel", "replace"]),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_predicting_a_bad_image_is_refused_and_nothing_is_written(trained, tmp_path, case):
    name, spoil, fragments = BAD_IMAGES[case]
    spoil(tmp_path / name)
    before = files(tmp_path)
    assert_refused(run("predict", trained, tmp_path / name, "--output", tmp_path / "out"), *fragments)
    assert files(tmp_path) == before


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_training_on_a_bad_image_is_refused_and_check_finds_it_too(tmp_path, case):
    name, spoil, fragments = BAD_IMAGES[case]
    write_dataset(tmp_path / "cells", 2)
    spoil(tmp_path / "cells" / "images" / name)
    write_labels(tmp_path / "cells" / "labels" / "a.tif", picture(0)[1])
    before = files(tmp_path)
    assert_refused(run("train", tmp_path / "cells", "--output", tmp_path / "run", *TINY), *fragments)
    found = run("check", tmp_path / "cells")
    assert found.code == 2
    assert re.search(".*".join(map(re.escape, fragments)), found.out)
    assert "1 error, " in found.out
    assert files(tmp_path) == before


def other_size(folder):
    write_labels(folder / "labels" / "1.tif", picture(1)[1][:, :40])


def one_class(folder):
    for path in (folder / "labels").iterdir():
        write_labels(path, np.ones((40, 48), int))


def more_channels(folder):
    write_png(folder / "images" / "a.png", noise(40, 48, 3))
    write_labels(folder / "labels" / "a.tif", picture(0)[1])


def no_labels(folder):
    shutil.rmtree(folder / "labels")
    (folder / "labels").mkdir()


def only_background(folder):
    for path in (folder / "labels").iterdir():
        write_labels(path, np.zeros((40, 48), int))


BAD_DATA = {
    "labels of another size": (other_size, ["1.tif", "has 40 x 48 pixels, but its labels have 40 x 40", "same size"]),
    "one class only": (one_class, ["cells", "has only one label: every annotated pixel is 1", "annotate"]),
    "background only": (only_background, ["cells", "has only one label: every annotated pixel is 0", "annotate"]),
    "another number of channels": (more_channels, ["a.png", "has 3 channels, but most images have 1", "choose one"]),
    "no labels": (no_labels, ["has no labels", "expected images/ and labels/"]),
    "an empty folder": (shutil.rmtree, ["cells", "does not exist", "check the path"]),
    "nothing in it": (lambda folder: [shutil.rmtree(folder), folder.mkdir()], ["cells", "has no images", "expected"]),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_training_on_a_bad_data_set_is_refused_and_nothing_is_written(tmp_path, case):
    spoil, fragments = BAD_DATA[case]
    spoil(write_dataset(tmp_path / "cells", 2))
    before = files(tmp_path)
    assert_refused(run("train", tmp_path / "cells", "--output", tmp_path / "run", *TINY), *fragments)
    found = run("check", tmp_path / "cells")
    assert found.code == 2
    assert re.search(".*".join(map(re.escape, fragments)), found.out), found.out
    assert files(tmp_path) == before


BAD_TRAINING = {
    "--set unet.dept=3": ["UNetConfig has no setting 'dept'; did you mean 'depth'?"],
    "--set learning_rat=1": ["TrainConfig has no setting 'learning_rat'; did you mean 'learning_rate'?"],
    "--set unet=5": ["unet", "5"],
    "--set batch": ["--set takes NAME=VALUE, such as --set unet.base_channels=32, got 'batch'"],
    "--set learning_rate=-1": ["learning_rate should be greater than 0, got -1"],
    "--set learning_rate=NaN": ["learning_rate should be a finite number, got nan"],
    "--set learning_rate=fast": ["learning_rate should be a valid number", "got 'fast'"],
    "--set optimizer=lion": ["optimizer should be 'sgd' or 'adam', got 'lion'"],
    "--set unet.in_channels=3": ["unet.in_channels = 3, but these images and labels need 1; leave it out"],
    "--set unet.n_classes=4": ["unet.n_classes = 4, but these images and labels need 3; leave it out"],
    "--set kind=classes": ["kind is 'classes' in the settings, but these labels are instances;", "--kind classes"],
    "--set instances=rimm": ["instances should be 'border' or 'rim', got 'rimm'"],
    "--budget 0min": ["a budget must be more than zero, such as 20min, got '0min'"],
    "--budget 20": ["a budget must be a time such as 20min, 1h30min or 90s, got '20'"],
    "--budget -5min": ["a budget must be a time such as 20min, 1h30min or 90s, got '-5min'"],
    "--steps 0": ["--steps must be at least 1, got 0"],
    "--steps 3 --budget 1min": ["a budget and a number of steps both set the length of the training; give one of them"],
    "--channel 4": ["0.tif has 1 channel, counted from 0, but channel 4 was requested; omit the channel"],
    "--resume": [
        "run is not a run folder (it has no config.json); give the --output of a training, or start a new run without"
    ],
    "--resume --steps 5": ["--resume continues with the settings in config.json; leave the other options out"],
    "--from nowhere": ["there is no model at nowhere; give a run folder, a model file, or the name"],
    "--labels nowhere.tif": ["nowhere.tif does not exist; check the path"],
}


@pytest.mark.parametrize("words", BAD_TRAINING)
def test_bad_settings_of_a_training_are_refused_and_nothing_is_written(data, tmp_path, words):
    outcome = run("train", data, "--output", tmp_path / "run", *words.split())
    assert_refused(outcome, *BAD_TRAINING[words])
    assert files(tmp_path) == {}


def test_one_small_image_is_trained_on(tmp_path):
    image, labels = cells((64, 64), 8, 0, diameter=12)
    tifffile.imwrite(tmp_path / "a.tif", image[0])
    write_labels(tmp_path / "a_labels.tif", labels)
    outcome = run("train", tmp_path, "--output", tmp_path / "run", *TINY)
    assert outcome.code == 0, outcome.err
    assert "part of the single image is held out for validation (rows" in outcome.err


def test_a_budget_shorter_than_the_probe_is_refused_with_one_that_is_not(data, tmp_path):
    settings = TINY[2:]
    outcome = run("train", data, "--output", tmp_path / "run", "--budget", "0.01s", *settings)
    assert_refused(outcome, "a budget of 0.01 s is too short", "give at least", "s, or --steps")
    assert files(tmp_path) == {}


def test_a_device_that_is_not_there_is_refused(data, trained, tmp_path, image, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    message = "device cuda is not available on this machine; available: cpu"
    assert_refused(run("train", data, "--output", tmp_path / "run", "--device", "cuda"), message)
    assert_refused(run("predict", trained, image, "--output", tmp_path / "out", "--device", "cuda"), message)
    assert list(files(tmp_path)) == ["cells.tif"]


def test_training_into_a_folder_that_holds_a_run_is_refused(data, trained):
    before = files(trained)
    outcome = run("train", data, "--output", trained, *TINY)
    assert_refused(outcome, "run already contains a run; continue it with --resume or choose another --output")
    assert files(trained) == before


def test_a_model_to_begin_with_that_does_not_fit_is_refused(data, trained, tmp_path):
    colours = write_dataset(tmp_path / "colours", 2)
    for path in (colours / "images").iterdir():
        tifffile.imwrite(path, noise(40, 48, 3), photometric="rgb")
    outcome = run("train", colours, "--output", tmp_path / "run", "--from", trained, "--steps", 3)
    assert_refused(outcome, "unet.in_channels = 1, but these images and labels need 3", "choose another model")
    outcome = run("train", data, "--output", tmp_path / "run", "--from", trained, "--set", "unet.depth=2")
    assert_refused(outcome, "--from keeps the network of its model; leave out --set unet.depth, or --from")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 1}', '{"frmat": 1}'])
def test_a_run_with_damaged_settings_is_refused(data, tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    outcome = run("train", data, "--output", tmp_path, "--resume")
    assert_refused(outcome, "config.json is damaged", "start a new run in another folder")
    assert files(tmp_path) == {"config.json": content.encode()}


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        (b"", ["is not a safetensors file or is cut short"]),
        (safetensors.torch.save({"a": torch.zeros(1)}), ["is not a checkpoint of Septum; start a new run in"]),
    ],
    ids=["empty", "of another program"],
)
def test_a_damaged_checkpoint_is_refused(data, trained, tmp_path, content, fragments):
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / "checkpoint.safetensors").write_bytes(content)
    before = files(tmp_path)
    outcome = run("train", data, "--output", tmp_path / "run", "--resume")
    assert_refused(outcome, "checkpoint.safetensors", *fragments)
    assert files(tmp_path) == before


def test_a_log_cut_anywhere_is_completed_when_a_run_goes_on(data, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    log = (trained / "log.jsonl").read_bytes()
    (tmp_path / "run" / "log.jsonl").write_bytes(log + b'{"step": \xff\xfe')
    assert run("train", data, "--output", tmp_path / "run", "--resume").code == 0
    assert (tmp_path / "run" / "log.jsonl").read_bytes() == log


def test_changed_data_are_refused_when_a_run_goes_on(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    before = files(tmp_path / "run")
    outcome = run("train", write_dataset(tmp_path / "other", 2), "--output", tmp_path / "run", "--resume")
    assert_refused(outcome, "the images or labels have changed since", "was started; start a new run")
    assert files(tmp_path / "run") == before


BAD_PREDICTION = {
    "--tta 5": ["tta must be 7 (the paper's rotations) or 8 (flips and quarter turns), got 5"],
    "--channel 4": ["cells.tif has 1 channel, counted from 0, but channel 4 was requested; omit the channel"],
    "--max-memory 5": ["an amount of memory must be a number with a unit, such as 2GB or 500MB, got '5'"],
    "--max-memory 1kB": ["0 MB of memory are too little for a single tile", "use at least --max-memory "],
    "--rescale": ["--rescale needs pixel sizes, but the model has none; leave --rescale out"],
}


@pytest.mark.parametrize("words", BAD_PREDICTION)
def test_bad_settings_of_a_prediction_are_refused_and_nothing_is_written(trained, image, words):
    outcome = run("predict", trained, image, "--output", image.parent / "out", *words.split())
    assert_refused(outcome, *BAD_PREDICTION[words])
    assert list(files(image.parent)) == ["cells.tif"]


def test_inputs_that_are_no_images_are_refused(trained, tmp_path):
    write_png(tmp_path / "rgb.png", noise(40, 48, 3))
    (tmp_path / "empty").mkdir()
    before = files(tmp_path)
    for given, *fragments in (
        ("rgb.png", "rgb.png has 3 channels, but the model was trained on 1; choose one with --channel 0..2"),
        ("empty", "the folder", "contains no image; Septum reads", ".tif"),
        ("*.jpg", "no file matches", "*.jpg"),
        ("rgb.pgn", "rgb.pgn does not exist (did you mean 'rgb.png'?); check the name"),
    ):
        outcome = run("predict", trained, tmp_path / given, "--output", tmp_path / "out")
        assert_refused(outcome, *fragments)
    outcome = run("predict", trained, tmp_path / "rgb.png", tmp_path / "x" / "rgb.tif", "--output", tmp_path / "out")
    assert_refused(
        outcome, "rgb.png and", "rgb.tif would write results with the same names; use a separate --output for each"
    )
    assert files(tmp_path) == before


def cut_model(path, model):
    path.write_bytes(model.read_bytes()[:-10])


BAD_MODELS = {
    "cut short": (
        cut_model,
        ["bad.safetensors is not a safetensors file or is cut short", "download it again or train again"],
    ),
    "a pickle": (
        lambda path, model: path.write_bytes(pickle.dumps({"weights": [1]})),
        [
            "bad.safetensors is a pickled PyTorch file, which can run any code when opened",
            "Septum reads only .safetensors models",
        ],
    ),
    "nowhere": (lambda path, model: None, ["there is no model at", "give a run folder, a model file, or the name"]),
    "an empty folder": (lambda path, model: path.mkdir(), ["has no model.safetensors; give the folder that"]),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_bad_models_are_refused_by_all_that_load_them(data, trained, image, case):
    make, fragments = BAD_MODELS[case]
    bad = image.parent / "bad.safetensors"
    make(bad, trained / "model.safetensors")
    before = files(image.parent)
    for words in (
        ("info", bad),
        ("predict", bad, image, "--output", image.parent / "out"),
        ("train", data, "--output", image.parent / "run", "--from", bad, "--steps", 3),
    ):
        assert_refused(run(*words), *fragments)
    assert files(image.parent) == before


def test_an_unknown_public_data_set_is_refused():
    assert_refused(run("data", "get", "isbi2013"), "the catalog has no data set 'isbi2013'; did you mean 'isbi2012'?")


def test_outputs_below_a_file_are_refused(data, trained, image):
    before = files(image.parent)
    assert_refused(run("predict", trained, image, "--output", image / "out"), "cannot write", "cells.tif/out")
    outcome = run("train", data, "--output", image / "run", *TINY)
    assert_refused(outcome, "cannot make the folder", "cells.tif/run", "choose another --output")
    assert_refused(run("train", data, "--output", image, "--resume"), "cells.tif is not a run folder")
    assert files(image.parent) == before


@contextmanager
def small_disk(folder, options) -> Iterator[None]:
    """A file system in memory, mounted on a folder; skips where one may not."""
    folder.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("there is no mount command to make a small disk with")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no right to mount a small disk: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_read_only_disk_is_refused(data, trained, image):
    disk = image.parent / "disk"
    with small_disk(disk, "ro"):
        way_out = "choose another folder or get permission to write there"
        assert_refused(run("predict", trained, image, "--output", disk), "cannot write", "read-only", way_out)
        assert_refused(run("train", data, "--output", disk, *TINY), "cannot write", "config.json", "read-only", way_out)
        assert files(disk) == {}


SIZES = [4, 8, 12, 16, 20, 24, 32]  # kilobytes: from no room for the first file to room for all but the last


def grow(disk):
    subprocess.run(["mount", "-o", "remount,size=1m", disk], check=True)


@pytest.mark.parametrize("size", SIZES)
def test_a_prediction_on_a_full_disk_is_refused_and_goes_on_when_there_is_room(trained, image, size):
    disk, paths = image.parent / "disk", [image, image.parent / "more.tif"]
    tifffile.imwrite(paths[1], picture(8)[0])
    assert run("predict", trained, *paths, "--output", image.parent / "whole").code == 0
    whole = files(image.parent / "whole")
    with small_disk(disk, f"size={size}k"):
        assert_refused(run("predict", trained, *paths, "--output", disk), "the disk is full; free some space")
        left = files(disk)
        left.pop("predictions.json", None)
        assert all(left[name] == whole[name] for name in left)
        grow(disk)
        assert run("predict", trained, *paths, "--output", disk).code == 0
        assert files(disk) == whole


@pytest.mark.parametrize("size", [size for size in SIZES if size < 20])
def test_a_training_on_a_full_disk_is_refused_and_goes_on_when_there_is_room(data, trained, tmp_path, size):
    disk = tmp_path / "disk"
    with small_disk(disk, f"size={size}k"):
        outcome = run("train", data, "--output", disk, *TINY)
        assert_refused(outcome, "cannot write", str(disk))
        assert re.search(r"the disk is full; free some space|No space left on device\); free some space", outcome.err)
        left = files(disk)
        assert left.keys() <= {"config.json", "log.jsonl", "model.safetensors", "checkpoint.safetensors"}
        for name in left.keys() & {"model.safetensors", "checkpoint.safetensors"}:
            read_tensors(disk / name)
        if "config.json" in left:
            json.loads(left["config.json"])
        grow(disk)
        again = ["--resume"] if "config.json" in left else TINY
        assert run("train", data, "--output", disk, *again).code == 0
        assert files(disk)["model.safetensors"] == files(trained)["model.safetensors"]
        same = [json.loads(line) | {"seconds": 0} for line in (disk / "log.jsonl").read_text().splitlines()]
        other = [json.loads(line) | {"seconds": 0} for line in (trained / "log.jsonl").read_text().splitlines()]
        assert same == other


@pytest.mark.parametrize("shape", [(10, 10), (1, 5000)])
def test_small_and_thin_images_are_predicted_like_any_other(trained, tmp_path, shape):
    tifffile.imwrite(tmp_path / "a.tif", noise(*shape))
    assert run("predict", trained, tmp_path / "a.tif", "--output", tmp_path / "out").code == 0
    labels = read_labels(tmp_path / "out" / "a_labels.tif").frames[0]
    np.testing.assert_array_equal(labels, septum.load(trained).predict(noise(*shape)).labels)


def test_a_word_that_an_option_does_not_take_is_refused_with_those_it_takes(data, tmp_path):
    outcome = run("train", data, "--output", tmp_path / "run", "--recipe", "papr")
    assert outcome.code == 2
    assert "Invalid value for '--recipe': 'papr' is not one of 'fast', 'paper'." in outcome.err


def test_images_smaller_than_a_patch_are_trained_on_with_a_warning(data, tmp_path):
    outcome = run("train", data, "--output", tmp_path / "run", *TINY, "--set", "patch=44")
    assert outcome.code == 0
    assert "3 of 3 images are smaller than a training patch of 44 x 44 pixels" in outcome.err
    assert "smaller than a training patch" not in run("train", data, "--output", tmp_path / "b", *TINY).err


def test_a_frame_of_background_is_trained_on_with_a_warning(tmp_path):
    write_dataset(tmp_path / "cells")
    write_labels(tmp_path / "cells" / "labels" / "1.tif", np.zeros((40, 48), int))
    outcome = run("train", tmp_path / "cells", "--output", tmp_path / "run", *TINY)
    assert outcome.code == 0
    assert "1.tif has only background" in outcome.err
    assert run("check", tmp_path / "cells").code == 0


def test_the_same_prediction_by_command_and_by_call(trained, image):
    for words, tta in (((), None), (("--tta", 7), septum.TtaConfig())):
        out = image.parent / f"out{len(words)}"
        outcome = run("predict", trained, image, "--output", out, *words)
        assert outcome == (0, f"1 image -> {out}\n", outcome.err)
        expected = septum.load(trained).predict(picture(9)[0], tta=tta)
        write_labels(image.parent / "expected.tif", expected.labels)
        assert (out / "cells_labels.tif").read_bytes() == (image.parent / "expected.tif").read_bytes()
        np.testing.assert_array_equal(tifffile.imread(out / "cells_probabilities.tif"), expected.probabilities)


def test_the_same_training_by_command_and_by_call(trained, tmp_path):
    images, labels = zip(*map(picture, range(3)), strict=True)
    model = septum.train(images, labels, steps=3, settings=SMALL, output=tmp_path / "run")
    by_command = septum.load(trained)
    assert model.card.config == by_command.card.config
    for name, weights in by_command.net.state_dict().items():
        assert torch.equal(model.net.state_dict()[name], weights), name
    for file in ("model.safetensors", "checkpoint.safetensors"):
        one, other = (read_tensors(folder / file)[0] for folder in (trained, tmp_path / "run"))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_final_training_is_on_everything_and_carries_the_scores_of_the_run(data, trained, tmp_path):
    assert run("train", data, "--output", tmp_path / "run", *TINY, "--final").code == 0
    before, final = septum.load(trained).card, septum.load(tmp_path / "run").card
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
    assert final.held_out == f"scores from before the final training: {before.held_out}"
    assert (final.config, final.scores, final.data) == (before.config, before.scores, before.data)
    one, other = (read_tensors(folder / "model.safetensors")[0] for folder in (trained, tmp_path / "run" / "final"))
    assert not torch.equal(one["output.weight"], other["output.weight"])
    for words in (TINY, ["--resume"]):  # later, and without doing the run again
        shutil.copytree(trained, tmp_path / "later")
        assert run("train", data, "--output", tmp_path / "later", *words, "--final").code == 0
        assert (
            files(tmp_path / "later" / "final")["model.safetensors"] == files(tmp_path)["run/final/model.safetensors"]
        )
        shutil.rmtree(tmp_path / "later")


def test_a_final_training_after_half_a_run_or_with_other_settings_is_refused(data, trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path / "run")
    before = files(tmp_path / "run")
    outcome = run("train", data, "--output", tmp_path / "run", *TINY, "--seed", 7, "--final")
    assert_refused(outcome, "run was trained with other settings; use these with --resume --final, or choose another")
    assert files(tmp_path / "run") == before
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["train"]["steps"] = 4  # one more than were done
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    outcome = run("train", data, "--output", tmp_path / "run", *TINY[2:], "--steps", 4, "--final")
    assert_refused(outcome, "run already contains a run; continue it with --resume or choose another --output")


def test_another_seed_is_another_network(data, trained, tmp_path):
    assert run("train", data, "--output", tmp_path / "run", *TINY, "--seed", 1, "--quiet") == (0, "", "")
    one, other = (read_tensors(folder / "model.safetensors")[0] for folder in (trained, tmp_path / "run"))
    assert not torch.equal(one["output.weight"], other["output.weight"])


def test_a_number_of_steps_among_the_settings_has_no_budget(data, tmp_path):
    words = [*TINY[2:], "--set", "steps=2"]  # without --steps
    assert run("train", data, "--output", tmp_path / "run", *words).code == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["train"]["steps"], config["budget"]) == (2, None)


def test_quiet_says_nothing_and_otherwise_what_was_understood_is_said(data, trained, image):
    out = image.parent / "out"
    assert run("predict", trained, image, "--output", out, "--quiet") == (0, f"1 image -> {out}\n", "")
    said = run("predict", trained, image, "--output", out)
    assert "cells.tif: already done, skipped" in said.err
    assert f"next: look at the overlays in {out}, or score it: septum evaluate {out} TRUTH\n" in said.err
    said = run("train", data, "--output", image.parent / "run", *TINY)
    for part in ("3 pairs with equal", "axes YX", "read as instances", "3 steps", "1 of 3 images held out", "F1 "):
        assert part in said.err
    step = septum.load(image.parent / "run").card.step
    assert re.search(rf"best step: {step}, panoptic quality 0\.\d{{3}}, F1 .*; 1 of 3 images held out", said.err)
    assert f"model: {image.parent / 'run' / 'model.safetensors'}\n" in said.err
    for command in (
        f"septum predict {image.parent / 'run'} IMAGES --output masks",
        f"septum report {image.parent / 'run'}",
    ):
        assert f" {command}\n" in said.err


def test_info_shows_the_card(trained, data):
    card = septum.load(trained).card
    said = run("info", trained).out
    assert "U-Net of depth 1, 2 base channels, 469 weights" in said
    assert "1 channel, pixel size unknown" in said
    assert "instances (by rim): background, foreground" in said
    assert card.held_out in said
    assert ", ".join(f"{name} {value:.4f}" for name, value in card.scores.items()) in said
    assert json.loads(run("info", trained, "--json").out) == json.loads(card.model_dump_json())
    with safetensors.safe_open(trained / "model.safetensors", framework="numpy") as file:
        assert json.loads(file.metadata()["septum"]) == json.loads(card.model_dump_json())


def test_the_card_holds_the_brightness_of_the_training_images(trained, data):
    each = [measure_normalization(picture(seed)[0][None], "standardize") for seed in range(3)]
    card = load(trained).card
    assert card.config.normalize == "standardize"
    held_out = int(card.held_out.rpartition(": ")[2].removesuffix(".tif"))  # 1 of 3 images
    assert card.brightness == mean_normalization(each[:held_out] + each[held_out + 1 :])


def test_check_as_json(tmp_path):
    other_size(write_dataset(tmp_path, 2))
    outcome = run("check", tmp_path, "--json")
    (found,) = json.loads(outcome.out)
    assert (outcome.code, found["level"], found["code"]) == (2, "error", "size-mismatch")
    assert found["file"] == str(tmp_path / "images" / "1.tif")


@pytest.mark.parametrize("final", [[], ["--final"]])
def test_ctrl_c_saves_and_says_how_to_go_on(data, trained, tmp_path, monkeypatch, final):
    show = display.TrainingDisplay.show

    def interrupt(self, record):
        show(self, record)
        if type(record).__name__ == "StepDone" and record.step == 1:
            signal.raise_signal(signal.SIGINT)

    folder, handler = tmp_path / "run", signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patched:
        patched.setattr(display.TrainingDisplay, "show", interrupt)
        outcome = run("train", data, "--output", folder, *TINY, *final)
    assert outcome.code == 130
    again = ["train", str(data), "--output", str(folder), "--resume", *final]
    assert "continue with: septum " + " ".join(again) + "\n" in outcome.err
    assert "Traceback" not in outcome.err
    assert run(*again).code == 0
    assert (folder / "final" / "model.safetensors").exists() == bool(final)
    for name in ("model.safetensors", "checkpoint.safetensors"):
        one, other = (read_tensors(path / name)[0] for path in (trained, folder))
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert signal.getsignal(signal.SIGINT) is handler


def test_ctrl_c_in_a_prediction_ends_with_130_and_no_traceback(trained, image, monkeypatch):
    def interrupt(*_arguments, **_settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(predict_files, "segment", interrupt)
    outcome = run("predict", trained, image, "--output", image.parent / "out")
    assert outcome.code == 130
    assert "interrupted; finished results are saved" in outcome.err
    assert "Traceback" not in outcome.err


def test_a_path_below_a_folder_without_permission_is_named(trained, image, monkeypatch):
    def closed(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as denied:  # whoever runs tests as root is let in everywhere
        denied.setattr(Path, "stat", closed)
        outcome = run("predict", trained, image, "--output", image.parent / "out")
    assert outcome.code == 2
    assert re.fullmatch(r"PermissionError: \S+: Permission denied; check path and permissions\n", outcome.err)


def test_a_defect_of_ours_is_not_hidden(trained, image, monkeypatch):
    def broken(*_arguments, **_settings):
        raise ZeroDivisionError

    monkeypatch.setattr(predict_files, "segment", broken)
    with pytest.raises(ZeroDivisionError):
        run("predict", trained, image, "--output", image.parent / "out")


@pytest.mark.parametrize(
    "words", ["predict run image.tif", "train cells", "train cells --output run --stepps 3", "predictt", "data got x"]
)
def test_wrong_usage_ends_with_2(words):
    outcome = run(*words.split())
    assert outcome.code == 2
    assert outcome.out == ""
    assert "Usage: septum" in outcome.err
    assert "Error: " in outcome.err.splitlines()[-1]


def commands() -> list[list[str]]:
    names = [[command.name or command.callback.__name__] for command in cli.app.registered_commands]
    return names + [["data", command.name] for command in cli.commands.data_app.registered_commands]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_has_help_with_an_example(command):
    outcome = run(*command, "--help")
    assert outcome.code == 0
    assert run(*command, "-h") == outcome
    assert re.search(rf"Examples?:\s+septum .*{command[-1]}", outcome.out, re.DOTALL)


@pytest.mark.parametrize("command", [[], ["data"], *commands()], ids=" ".join)
def test_every_command_says_the_version(command):
    assert run(*command, "--version") == (0, f"septum {septum.__version__}\n", "")


def test_help_fits_the_terminal_and_lists_commands_in_whole_sentences(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for command in ([], ["data"], *commands()):
        text = run(*command, "-h").out
        assert max(map(len, text.splitlines())) <= 80
        assert "..." not in text.partition("Commands:")[2]


def test_help_and_import_do_not_load_what_is_slow():
    code = """
import sys
import septum, septum.cli
sys.argv = ["septum", "--help"]
try:
    septum.cli.main()
except SystemExit as end:
    assert not end.code
print(sorted({"torch", "numpy", "scipy", "skimage", "pydantic", "rich", "matplotlib"} & set(sys.modules)))
"""
    environment = os.environ | {"PYTHONPATH": str(Path(septum.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "train" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_all_public_names_are_there():
    for name in septum.__all__:
        assert getattr(septum, name) is not None
    assert septum.__all__ == dir(septum)
    with pytest.raises(AttributeError, match="trian"):
        septum.trian  # noqa: B018


def test_as_a_process_of_its_own(trained, image):
    done = spawn("predict", trained, image, "--output", image.parent / "out", "--quiet")
    assert (done.code, done.err) == (0, "")
    assert files(image.parent / "out").keys() == {
        "cells_labels.tif",
        "cells_overlay.png",
        "cells_probabilities.tif",
        "objects.csv",
        "predictions.json",
    }
    missing = spawn("info", image.parent / "nowhere")
    assert (missing.code, missing.out) == (2, "")
    assert missing.err == (
        f"ModelError: there is no model at {image.parent / 'nowhere'}; give a run folder, a "
        "model file, or the name of a model that ships with Septum; known are: em-membrane, nuclei\n"
    )


@pytest.mark.parametrize(
    ("text", "seconds"), [("20min", 1200), ("1h30min", 5400), ("90s", 90), ("1.5m", 90), ("2 h", 7200), ("1h1s", 3601)]
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(("text", "expected"), [("2GB", 2 * 10**9), ("500 MB", 5 * 10**8), ("1.5kB", 1500)])
def test_amounts_of_memory(text, expected):
    assert arguments.parse_bytes(text) == expected


def test_settings_are_json_or_words():
    pairs = ["a=3", "b=0.5", "c=adam", "d=true", "e=null", "f=x=y", "g="]
    assert arguments.parse_settings(pairs) == {"a": 3, "b": 0.5, "c": "adam", "d": True, "e": None, "f": "x=y", "g": ""}
