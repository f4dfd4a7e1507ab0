"""Odd, sparse and wrong annotations, through the whole command line: a right result or one clear sentence."""

import json
import re
import shlex
import shutil

import numpy as np
import pytest
import tifffile

from septum.data.images import write_labels
from septum.data.simulate import cells
from septum.model.model import load
from septum.words import plural
from tests.cli.test_commands import run

TINY = ["--steps", 3, "--set", "unet.base_channels=2", "--set", "unet.depth=1", "--set", "patch=16"]


def assert_refused(outcome, *fragments):
    """Exit code 2, and on standard error one sentence at the end that says all of it, in this order."""
    assert outcome.code == 2, outcome
    assert "Traceback" not in outcome.out + outcome.err
    last = outcome.err.strip().splitlines()[-1]
    assert re.match(r"(Config|Dataset|Image)Error: .*" + ".*".join(map(re.escape, fragments)), last), last


def disc(centre, radius, shape=(48, 64)):
    y, x = np.ogrid[: shape[0], : shape[1]]
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2


def write(folder, labels, ignore=()):
    """A data set whose images show where the labels are."""
    rng = np.random.default_rng(0)
    for part in ("images", "labels", *(["ignore"] if ignore else [])):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for index, truth in enumerate(labels):
        image = (50 + 100 * (truth > 0) + rng.integers(0, 30, truth.shape)).astype(np.uint8)
        tifffile.imwrite(folder / "images" / f"{index}.tif", image)
        write_labels(folder / "labels" / f"{index}.tif", truth)
    for index, mask in enumerate(ignore):
        tifffile.imwrite(folder / "ignore" / f"{index}.tif", mask.astype(np.uint8))
    return folder


def test_the_command_that_lists_all_errors_says_what_was_said_of_the_data(tmp_path):
    folder = write(tmp_path / "my cells", [NONE_TOUCH] * 3)
    labels = (folder / "labels").rename(tmp_path / "truth")
    for name in ("0.tif", "1.tif"):
        (labels / name).write_text("no image")
    said = ["--labels", labels, "--kind", "classes", "--channel", 0]
    outcome = run("train", folder / "images", "--output", tmp_path / "run", *TINY, *said)
    assert_refused(outcome, "(and 1 more: septum check", "lists them)")
    command = re.search(r"more: septum (.*) lists them", outcome.err)[1]
    assert run(*shlex.split(command)).out.count("error: ") == 2


TWO = disc((20, 15), 9) * 1 + disc((28, 45), 9) * 2
NONE_TOUCH = TWO + disc((8, 32), 5) * 3
NO_BACKGROUND = np.kron([[1, 2], [3, 4]], np.ones((24, 32), int))
TWICE = TWO + disc((8, 32), 5) * 1  # the number 1 in two places
ODD = {
    "two cells only": [TWO],
    "no touching cells": [NONE_TOUCH, NONE_TOUCH[::-1]],
    "a frame of background": [NONE_TOUCH, 0 * TWO, NONE_TOUCH[::-1]],
    "one cell that fills an image": [NONE_TOUCH, 0 * TWO + 1, NONE_TOUCH[::-1]],
    "no background": [NO_BACKGROUND, NO_BACKGROUND],
    "one number in two places": [TWICE, NONE_TOUCH],
}


@pytest.mark.parametrize("instances", ["border", "rim"])
@pytest.mark.parametrize("case", ODD)
def test_odd_instances_are_trained_on_and_predicted(tmp_path, case, instances):
    data = write(tmp_path / "cells", ODD[case])
    outcome = run("train", data, "--output", tmp_path / "run", *TINY, "--set", f"instances={instances}")
    assert outcome.code == 0, outcome.err
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert all(0 < line["loss"] < 100 for line in log if "loss" in line)
    assert load(tmp_path / "run").card.config.instances == instances
    predicted = run("predict", tmp_path / "run", data / "images", "--output", tmp_path / "out")
    assert predicted.code == 0, predicted.err
    assert len(list((tmp_path / "out").glob("*_labels.tif"))) == len(ODD[case])
    assert run("report", tmp_path / "run").code == 0


def test_one_number_in_two_places_is_a_warning_that_check_and_train_give(tmp_path):
    data = write(tmp_path / "cells", ODD["one number in two places"])
    sentence = "0.tif has the same label on objects that do not touch: 1; give each object its own number"
    found = run("check", data)
    assert found.code == 0
    assert sentence in found.out
    assert sentence in run("train", data, "--output", tmp_path / "run", *TINY).err


def test_check_says_what_training_says_of_the_data(tmp_path):
    data = write(tmp_path / "cells", ODD["one number in two places"])
    said = run("check", data).out.splitlines()
    assert said[0] == f"{len(ODD['one number in two places'])} pairs with equal names in images/ and labels/"
    assert "axes YX" in said[1]
    assert said[2].startswith("read as instances: ")
    assert "--kind classes" in said[2]
    assert set(said[:3]) <= set(run("train", data, "--output", tmp_path / "run", *TINY).err.splitlines())


def test_one_cell_that_fills_the_only_image_is_refused(tmp_path):
    data = write(tmp_path / "cells", [0 * TWO + 1])
    outcome = run("train", data, "--output", tmp_path / "run", *TINY, "--kind", "instances")
    assert_refused(outcome, "cells has only one label: every annotated pixel is 1; annotate", "background")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("covered", [[0], [0, 1]])
def test_an_ignore_mask_that_covers_an_image_is_refused(tmp_path, covered):
    masks = [np.full(TWO.shape, index in covered) for index in range(2)]
    data = write(tmp_path / "cells", [NONE_TOUCH, NONE_TOUCH[::-1]], masks)
    outcome = run("train", data, "--output", tmp_path / "run", *TINY)
    assert_refused(outcome, "0.tif has no annotated pixels: all are ignored; annotate part of it, or leave it out")
    found = run("check", data)
    assert found.code == 2
    assert f"{plural(len(covered), 'error')}, " in found.out
    assert not (tmp_path / "run").exists()


def challenge(folder):
    """A video of three frames, all annotated."""
    for number in range(3):
        image, labels = cells((48, 64), 5, number, diameter=12)
        for place, array in (
            (f"01/t00{number}.tif", image[0]),
            (f"01_GT/SEG/man_seg00{number}.tif", labels.astype(np.uint16)),
            (f"01_GT/TRA/man_track00{number}.tif", labels.astype(np.uint16)),
        ):
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(folder / place, array)
    return folder


def test_challenge_masks_without_an_image_are_refused(tmp_path):
    data = challenge(tmp_path / "video")
    (data / "01" / "t001.tif").unlink()
    outcome = run("train", data, "--output", tmp_path / "run", *TINY)
    assert_refused(outcome, "man_seg001.tif has no image t001.tif in", "add the frame, or remove its mask")
    assert not (tmp_path / "run").exists()


def test_challenge_frames_without_a_mask_are_left_out_and_reported(tmp_path):
    data = challenge(tmp_path / "video")
    (data / "01_GT" / "SEG" / "man_seg001.tif").unlink()
    outcome = run("train", data, "--output", tmp_path / "run", *TINY)
    assert outcome.code == 0, outcome.err
    sentence = "video 01: 2 frames with gold truth (man_seg); 1 of 3 frames have none and are left out"
    assert sentence in outcome.err
    assert sentence in run("check", data).out
    assert list(load(tmp_path / "run").card.data) == ["01_t000", "01_t002"]


def test_challenge_frames_without_markers_are_taken_as_complete_with_a_warning(tmp_path):
    data = challenge(tmp_path / "video")
    (data / "01_GT" / "TRA" / "man_track001.tif").unlink()
    sentence = "man_seg001.tif has no man_track001.tif in"
    assert sentence in run("check", data).out
    outcome = run("train", data, "--output", tmp_path / "run", *TINY)
    assert outcome.code == 0, outcome.err
    assert sentence in outcome.err
    shutil.rmtree(data / "01_GT" / "TRA")  # without any markers there is nothing to compare with
    assert sentence not in run("check", data).out


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Data of instances and of classes, and models of them: border, rim, classes."""
    folder = tmp_path_factory.mktemp("models")
    write(folder / "instances", [NONE_TOUCH, NONE_TOUCH[::-1]])
    write(folder / "classes", [(NONE_TOUCH > 0) * 1, (NONE_TOUCH[::-1] > 0) * 1])
    for name, data, *words in (
        ("border", "instances", "--set", "instances=border"),
        ("rim", "instances"),
        ("of_classes", "classes"),
    ):
        outcome = run("train", folder / data, "--output", folder / name, *TINY, *words)
        assert outcome.code == 0, outcome.err
    return folder


def test_a_model_of_the_other_kind_is_no_beginning(models, tmp_path):
    outcome = run("train", models / "instances", "-o", tmp_path / "run", "--from", models / "of_classes", "--steps", 2)
    assert_refused(outcome, "the model of --from was trained on classes, but these labels are instances; choose")
    outcome = run("train", models / "classes", "-o", tmp_path / "run", "--from", models / "border", "--steps", 2)
    assert_refused(outcome, "the model of --from was trained on instances, but these labels are classes; choose")
    words = ["--from", models / "border", "--set", "instances=rim", "--steps", 2]
    outcome = run("train", models / "instances", "-o", tmp_path / "run", *words)
    assert_refused(outcome, "was trained with instances=border, got --set instances=rim; leave it out, or choose")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("instances", ["border", "rim"])
def test_a_model_to_begin_with_decides_the_representation(models, tmp_path, instances):
    words = ["--from", models / instances, "--steps", 2, "--set", "patch=16"]
    outcome = run("train", models / "instances", "--output", tmp_path / "run", *words)
    assert outcome.code == 0, outcome.err
    assert load(tmp_path / "run").card.config.instances == instances


def test_kind_can_be_forced_to_that_of_the_model(models, tmp_path):
    words = ["--from", models / "rim", "--steps", 2, "--set", "patch=16", "--kind", "instances"]
    outcome = run("train", models / "classes", "--output", tmp_path / "run", *words)
    assert outcome.code == 0, outcome.err


def scribbled(labels, rng, strokes=6):
    """Straight strokes: 1 on background, 2 on cells, 0 where nobody drew."""
    sparse = np.zeros(labels.shape, int)
    for _ in range(strokes):
        y, x = rng.integers(0, labels.shape[0], 2), rng.integers(0, labels.shape[1], 2)
        at = np.linspace(0, 1, 200)
        rows, columns = (np.rint(a + (b - a) * at).astype(int) for a, b in (y, x))
        sparse[rows, columns] = 1 + (labels[rows, columns] > 0)
    return sparse


def test_scribbles_are_trained_on_and_validated_on_alone(tmp_path):
    """Whatever label the pixels between them have: the same model, bit for bit, and the same scores."""
    rng = np.random.default_rng(1)
    sparse = [scribbled(truth, rng) for truth in (NONE_TOUCH, NONE_TOUCH[::-1], NONE_TOUCH[:, ::-1])]
    assert all(set(np.unique(truth)) == {0, 1, 2} for truth in sparse)
    write(tmp_path / "a", sparse)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for index, truth in enumerate(sparse):  # the same as complete class maps of any content, with an ignore mask
        full = np.where(truth == 0, rng.integers(1, 3, truth.shape), truth)
        write_labels(tmp_path / "b" / "labels" / f"{index}.tif", full)
        (tmp_path / "b" / "ignore").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / "b" / "ignore" / f"{index}.tif", (truth == 0).astype(np.uint8))
    scribbles = run("train", tmp_path / "a", "--output", tmp_path / "run_a", *TINY, "--unlabeled", 0)
    assert scribbles.code == 0, scribbles.err
    assert "read as classes: label 0 means unannotated" in scribbles.err
    assert re.search(r"pixels with label 0 are unannotated, as specified: \d\d\.\d % of all pixels", scribbles.err)
    masked = run("train", tmp_path / "b", "--output", tmp_path / "run_b", *TINY, "--kind", "classes")
    assert masked.code == 0, masked.err
    first, second = load(tmp_path / "run_a"), load(tmp_path / "run_b")
    assert first.card.scores == second.card.scores
    assert 0 < first.card.scores["score"] < 1
    assert first.card.class_names == ("class 1", "class 2")
    weights = zip(first.net.state_dict().values(), second.net.state_dict().values(), strict=True)
    assert all((a == b).all() for a, b in weights)
    assert run("report", tmp_path / "run_a").code == 0
    check = run("check", tmp_path / "a", "--unlabeled", 0)
    assert (check.code, check.out.splitlines()[-1]) == (0, "no problems found")


def test_a_label_of_unannotated_pixels_that_cannot_be_is_refused(tmp_path):
    data = write(tmp_path / "cells", [NONE_TOUCH, NONE_TOUCH[::-1]])
    for command in (["check", data], ["train", data, "--output", tmp_path / "run", *TINY]):
        assert_refused(
            run(*command, "--unlabeled", 255),
            "no pixel has label 255 (--unlabeled), found labels 0, 1, 2, 3; choose one",
        )
        assert_refused(
            run(*command, "--unlabeled", 0, "--kind", "instances"),
            "cells has instances, where label 0 is background, but --unlabeled 0 says that it means unannotated; mark",
        )
    assert_refused(run("check", challenge(tmp_path / "video"), "--unlabeled", 0), "video has instances, where label 0")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("count", "said"), [
    (1, "part of the single image is held out for validation (rows"),
    (2, "1 of 2 images held out for validation: 1"),
    (3, "1 of 3 images held out for validation: 2"),
    (5, "1 of 5 images held out for validation: 4"),
    (10, "2 of 10 images held out for validation: 8 to 9"),
])  # fmt: skip
def test_a_training_from_few_images_needs_no_special_flag_and_says_what_its_scores_are_of(tmp_path, count, said):
    data = write(tmp_path / "cells", [cells((40, 48), 5, seed, diameter=12)[1] for seed in range(count)])
    outcome = run("train", data, "--output", tmp_path / "run", *TINY)
    assert outcome.code == 0, outcome.err
    card = load(tmp_path / "run").card
    assert card.held_out.startswith(said)
    assert card.held_out in outcome.err
    assert ("guard strip of" in card.held_out) == ("optimistic" in card.held_out) == (count == 1)
    assert set(card.scores) == {"score", "f1", "mean_matched_iou"}
    page = run("report", tmp_path / "run")
    assert page.code == 0, page.err
    assert said in (tmp_path / "run" / "report.html").read_text()
    assert run("predict", tmp_path / "run", data / "images", "--output", tmp_path / "out").code == 0
    evaluated = run("evaluate", tmp_path / "out", data, "--json", "-q")
    assert evaluated.code == 0, evaluated.err
    intervals = list(leaves(json.loads(evaluated.out)["intervals"]))
    assert intervals
    for interval in intervals:
        enough = interval["n"] >= {"image": 5, "object": 20}[interval["unit"]]
        assert (interval["low"] is not None) == enough or interval["reason"]
        assert interval["low"] is None or enough


def leaves(tree):
    """All intervals of the nested answer."""
    if "low" in tree:
        yield tree
    else:
        for branch in tree.values():
            yield from leaves(branch)
