"""The page of a training: what it shows, its warnings, and the commands it names."""

import json
import os
import re
import shlex
import shutil
import time

import numpy as np
import pytest
import torch

from septum.core.overlay import overlay
from septum.data.dataset import load_dataset
from septum.data.images import write_labels, write_png
from septum.data.simulate import cells
from septum.errors import ModelError
from septum.machine.generators import drain
from septum.model.model import load
from septum.report.run import report_run
from septum.training.files import TrainOptions, train_files
from septum.training.holdout import hold_out
from septum.training.run import RunFolder
from tests.report.test_page import Page

STEPS = 80
SMALL = {
    "unet.base_channels": 4,
    "unet.depth": 2,
    "unet.normalization": "none",
    "instances": "border",
    "patch": 32,
    "learning_rate": 0.01,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on ten images, two of which are held out, in a folder whose name has a space."""
    root = tmp_path_factory.mktemp("my data")
    for number in range(10):
        image, labels = cells((40, 48), 4, number, diameter=12)
        write_png(root / "cells" / "images" / f"{number}.png", np.repeat(image, 3, axis=0).transpose(1, 2, 0))
        write_labels(root / "cells" / "labels" / f"{number}.tif", labels)
    drain(train_files(TrainOptions(root / "cells", root / "run", steps=STEPS, changes=SMALL), torch.device("cpu")))
    return root


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the run, which a test may change."""
    shutil.copytree(trained / "run", tmp_path / "run")
    return RunFolder(tmp_path / "run")


def page_of(run):
    return Page(report_run(run.path).read_text(encoding="utf-8"))


def about(page):
    """Rows of the table about the training."""
    start = page.text.index("data", page.text.index("About this training", page.text.index("About this training") + 1))
    end = page.text.index("versions", start) + 2
    return dict(zip(page.text[start:end:2], page.text[start + 1 : end : 2], strict=True))


def test_image_truth_prediction_and_differences_stand_side_by_side(run, trained):
    page, model, dataset = page_of(run), load(run.path), load_dataset(trained / "cells")
    pictures = page.pictures()
    held_out = hold_out(dataset).blocks
    assert len(pictures) == 4 * len(held_out) == 8
    for k, index in enumerate(held_out):
        sample = dataset.samples[index]
        image, predicted = sample.image, model.predict(sample.image).labels
        expected = [
            overlay(image, np.zeros_like(predicted)),
            overlay(image, sample.labels),
            overlay(image, predicted),
            overlay(image, predicted, truth=sample.labels),
        ]
        for shown, drawn in zip(pictures[4 * k : 4 * k + 4], expected, strict=True):
            np.testing.assert_array_equal(shown, drawn)
    alts = [image["alt"] for image in page.attributes("img")][:4]
    assert alts == ["image 8", "truth of 8", "prediction for 8", "prediction and truth of 8"]


def test_scores_of_every_held_out_image_add_up_to_those_of_the_model(run, trained):
    page, scores = page_of(run), load(run.path).card.scores
    (table,) = re.findall(r"<h2[^>]*>Scores per held-out image</h2>.*?</table>", page.html, re.S)
    rows = [
        [re.sub("<[^>]+>", "", cell) for cell in re.findall(r"<t[hd][^>]*>.*?</t[hd]>", row)]
        for row in re.findall(r"<tr>.*?</tr>", table)
    ]
    assert rows[0][:5] == ["image", "true objects", "predicted objects", "panoptic quality", "F1 at IoU 0.5"]
    truth, predicted, f1 = ([float(row[column]) for row in rows[1:]] for column in (1, 2, 4))
    samples = load_dataset(trained / "cells").samples[8:]
    assert truth == [len(np.unique(sample.labels)) - 1 for sample in samples]
    assert predicted == [len(np.unique(load(run.path).predict(sample.image).labels)) - 1 for sample in samples]
    assert truth != predicted
    matched = [share * (t + p) / 2 for share, t, p in zip(f1, truth, predicted, strict=True)]
    assert scores["f1"] > 0.2  # it learned something, so that this test can fail
    assert 2 * sum(matched) / (sum(truth) + sum(predicted)) == pytest.approx(scores["f1"], abs=2e-4)


def test_the_page_says_what_was_trained_on_what_when_and_how_long(run, trained):
    seconds = max(record["seconds"] for record in run.records() if "seconds" in record)
    when = time.mktime((2026, 3, 7, 9, 5, 0, 0, 0, -1))
    os.utime(run.log_file, (when, when))
    card, page = load(run.path).card, page_of(run)
    shown = about(page)
    assert shown["data"] == str(trained / "cells")
    assert shown["training images"] == "8: 0, 1, 2, 3, 4, 5, 6, 7"
    assert shown["scores measured on"] == card.held_out == "2 of 10 images held out for validation: 8 to 9"
    assert shown["steps"] == "80 of 80 planned"
    assert shown["best step"] == (
        f"{card.step} (panoptic quality {card.scores['score']:.4f}); the model has the weights of this step"
    )
    assert shown["finished"] == "7 March 2026, 09:05"
    assert shown["duration"] == f"{int(seconds) + 1} s"
    assert f"80 steps in {int(seconds) + 1} s, finished on 7 March 2026, 09:05" in page.text
    assert "Training report: run" in page.text


def test_a_run_whose_images_are_gone_keeps_the_rest_of_its_page(run):
    config = json.loads(run.config_file.read_text())
    config["source"]["data"] = "nowhere"
    run.config_file.write_text(json.dumps(config))
    page = page_of(run)
    assert not page.attributes("img")
    assert any(text.startswith("No pictures: nowhere") for text in page.text)
    assert about(page)["images"] == "10: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert "Validation score" in page.text


def test_an_early_end_and_lowered_settings_are_warnings(run):
    assert "Warnings" not in page_of(run).text
    settings = run.config()
    run.change(settings.lowered({"patch": 16, "learning_rate": 0.001}, "memory ran out at step 3"), 2)
    run.log({"step": 80, "ended_early": True, "seconds": 9.5})
    text = page_of(run).text
    start = text.index("Warnings", text.index("Warnings") + 1)
    early, lowered, reason = text[start + 1 : start + 4]
    assert early.startswith("The training ended early. It was slower than estimated: time was up at step 80 of 80")
    assert lowered == "Settings were lowered: patch 16 instead of 32, learning_rate 0.001 instead of 0.01."
    assert reason == "Reason: memory ran out at step 3."


def test_the_next_commands_can_be_typed_as_they_are(run, trained):
    page = page_of(run)
    commands = [shlex.split(text) for text in page.text if text.startswith(("septum predict", "septum train"))]
    assert commands == [
        ["septum", "predict", str(run.path), "IMAGES", "--output", "predictions"],
        ["septum", "train", str(trained / "cells"), "--output", str(run.path), "--resume", "--final"],
    ]


def test_settings_are_folded_away_with_their_meaning(run):
    html = page_of(run).html
    (folded,) = re.findall(r"<details>.*?</details>", html, re.S)
    assert "unet.base_channels" in folded
    assert "Channels of the first level; every level below has twice as many." in folded
    assert "unet.base_channels" not in html.replace(folded, "")


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ModelError, match="no config"):
        report_run(tmp_path)
    assert not list(tmp_path.iterdir())
