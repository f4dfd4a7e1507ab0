"""The paper's experiments on simulated data in the challenges' layouts: splits, resuming, what the challenges take."""

import contextlib
import io
import json
import re
import shutil
import signal
import sys

import numpy as np
import pytest
import tifffile
import torch
from ctc_metrics.metrics import seg
from ctc_metrics.utils.representations import match
from PIL import Image

from septum import cli
from septum.cli import display
from septum.config import TtaConfig
from septum.core.metrics import isbi
from septum.data import catalog
from septum.data.simulate import ctc_video, membranes
from septum.errors import ConfigError, DatasetError
from septum.experiments.em import EM, SUBMISSION
from septum.experiments.reproduce import EXPERIMENTS, ReproductionOptions, reproduce
from septum.machine.generators import drain
from septum.model.model import load
from septum.training.records import StepDone

TINY = {"unet.base_channels": 2, "unet.depth": 2, "patch": 16, "steps": 4}
LEARNS = TINY | {"unet.base_channels": 4, "patch": 32, "steps": 50, "learning_rate": 0.01}
EM_FOLDS = ["00-05", "24-29", "test"]
SLICE, TEST_SLICES = (36, 40), 4
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def em_data(tmp_path_factory):
    """Thirty slices with truth and four without, in the folders of ISBI 2012 as septum data get leaves them."""
    root = tmp_path_factory.mktemp("data") / "isbi2012"
    for part in ("train/images", "train/labels", "test/images"):
        (root / part).mkdir(parents=True)
    for z in range(30):
        image, labels = membranes(SLICE, 2, seed=z)
        tifffile.imwrite(root / "train" / "images" / f"{z:02d}.tif", image[0])
        tifffile.imwrite(root / "train" / "labels" / f"{z:02d}.tif", (255 * labels).astype(np.uint8))
    for z in range(TEST_SLICES):
        tifffile.imwrite(root / "test" / "images" / f"{z:02d}.tif", membranes(SLICE, 2, seed=100 + z)[0][0])
    return root / "train"


@pytest.fixture(scope="module")
def cell_data(tmp_path_factory):
    """Two videos like PhC-C2DH-U373: frame 3 has no gold truth, frame 1 is annotated in part, frame 0 is missing."""
    root = tmp_path_factory.mktemp("data") / "PhC-C2DH-U373"
    for seed, video in ((1, "02"), (2, "01")):  # the simulation writes 01
        ctc_video(root, 5, seed, (64, 72), n=4, partly=[1])
        (root / "01_GT" / "SEG" / "man_seg003.tif").unlink()
        for file in ("01/t000.tif", "01_GT/SEG/man_seg000.tif"):
            (root / file).unlink()
        if video == "02":
            (root / "01").rename(root / "02")
            (root / "01_GT").rename(root / "02_GT")
    return root


def run(*words):
    """Exit code, standard output and standard error of a command."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["septum", *map(str, words)])
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
    return code, out.getvalue(), err.getvalue()


def finish(steps):
    """All records of a reproduction, and what it returned."""
    records = []
    return records, drain(steps, records.append)


def begin(name, folder, output, **options):
    return reproduce(name, folder, output, ReproductionOptions(changes=TINY, **options), CPU)


@pytest.fixture(scope="module")
def smaller_figures():
    """Panels of the figures at 5 instead of 8 pixels per pixel: lossless pictures take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("septum.experiments.figures.LARGEST_FACTOR", 5)
        yield


@pytest.fixture(scope="module")
def em_done(em_data, smaller_figures, tmp_path_factory):
    output = tmp_path_factory.mktemp("em")
    options = ReproductionOptions(changes=LEARNS, folds=EM_FOLDS)
    return output, finish(reproduce("em", em_data, output, options, CPU))[1]


@pytest.fixture(scope="module")
def cells_done(cell_data, smaller_figures, tmp_path_factory):
    output = tmp_path_factory.mktemp("cells")
    few = {"steps": 100, "instances": "border", "unet.normalization": "none"}  # which so few steps suffice for
    options = ReproductionOptions(changes=LEARNS | few)
    return output, finish(reproduce("phc-u373", cell_data, output, options, CPU))[1]


def test_each_video_is_tested_by_what_learned_from_the_other(cell_data):
    for fold, other in zip(EXPERIMENTS["phc-u373"].folds(cell_data), ("02", "01"), strict=True):
        assert {sample.group for sample in fold.test()} == {fold.name}
        assert {sample.group for sample in fold.train().samples} == {other}


@pytest.mark.slow  # the quick ones are in test_em.py
def test_em_scores_are_those_of_all_unseen_slices_together(em_data, em_done):
    output, done = em_done
    truth, maps = [], []
    for fold in EM.folds(em_data):
        if fold.name not in EM_FOLDS[:2]:
            continue
        model = load(output / "folds" / fold.name)
        for sample in fold.test():
            truth.append(sample.labels)
            prediction = model.predict(sample.image, tta=TtaConfig(kind="rotations", versions=7))
            maps.append(np.clip(prediction.probabilities[1], 0, 1))
    best = isbi.evaluate_stack(truth, maps).best
    ours = done.results["scores"]["7 rotations"]
    for key, value in best.items():
        assert ours[key]["value"] == value.value
        assert ours[key]["threshold"] == pytest.approx(value.threshold)
    assert set(done.results["scores"]) == {"none", "7 rotations", "8 dihedral"}
    assert done.tables[0].rows[-2][1:6] == [
        best[key].value for key in ("warping_error", "rand_error", "pixel_error", "v_rand", "v_info")
    ]


@pytest.mark.slow  # the quick ones are in test_em.py
def test_the_stack_for_the_challenge_is_what_the_network_says_with_white_interior(em_data, em_done):
    output, done = em_done
    stack = tifffile.imread(output / SUBMISSION)
    assert (stack.dtype, stack.shape) == (np.float32, (TEST_SLICES, *SLICE))
    model = load(output / "folds" / "test")
    image = tifffile.imread(em_data.parent / "test" / "images" / "03.tif")
    expected = model.predict(image, tta=TtaConfig(kind="rotations", versions=7)).probabilities[1]
    np.testing.assert_array_equal(stack[3], np.clip(expected, 0, 1))
    truth = np.stack([membranes(SLICE, 2, seed=100 + z)[1] for z in range(TEST_SLICES)])
    assert stack[truth == 1].mean() > stack[truth == 0].mean() + 0.1
    said = done.results["folds"]["test"]["scores"]
    assert said["grey_of_interior"] > said["grey_of_membrane"]
    assert "1 is cell interior (white)" in done.report.read_text()


def test_masks_have_the_names_and_type_of_the_challenge_also_for_frames_without_truth(cell_data, cells_done):
    output, _ = cells_done
    for video in ("01", "02"):
        frames = sorted(path.stem[1:] for path in (cell_data / video).iterdir())
        assert frames == ["001", "002", "003", "004"]
        masks = sorted((output / f"{video}_RES").iterdir())
        assert [path.name for path in masks] == [f"mask{number}.tif" for number in frames]
        for path in masks:
            with tifffile.TiffFile(path) as file:
                assert len(file.pages) == 1
                assert (file.pages[0].dtype, file.pages[0].shape) == (np.uint16, (64, 72))


def test_seg_is_what_another_implementation_finds_in_the_files(cell_data, cells_done):
    output, done = cells_done
    segs = []
    for video in ("01", "02"):
        matches = [
            match(
                str(cell_data / f"{video}_GT" / "SEG" / f"man_seg{number}.tif"),
                str(output / f"{video}_RES" / f"mask{number}.tif"),
            )
            for number in ("001", "002", "004")
        ]
        theirs = seg([m[0] for m in matches], [m[4] for m in matches])
        segs.append(theirs["SEG"] if isinstance(theirs, dict) else theirs)
        ours = done.results["folds"][video]["scores"]["8 dihedral"]
        assert ours["seg"] == pytest.approx(segs[-1], abs=1e-12)
        assert (ours["frames"], ours["predicted_frames"], ours["objects"]) == (3, 4, 2 + 4 + 4)
    assert max(segs) > 0.2  # it found something
    assert done.results["scores"]["8 dihedral"]["mean"] == pytest.approx(np.mean(segs))
    assert done.tables[0].rows[-1][1:4] == pytest.approx([*segs, np.mean(segs)])


@pytest.mark.parametrize("which", [pytest.param("em_done", marks=pytest.mark.slow), "cells_done"])
def test_the_report_begins_with_the_papers_numbers_and_shows_its_figures(which, request):
    output, done = request.getfixturevalue(which)
    page = (output / "report.html").read_text()
    first = page[page.index("<table") : page.index("</table>")]
    published = {"em_done": ["0.000353", "0.0382", "DIVE-SCI"], "cells_done": ["0.9203", "second best"]}[which]
    for text in [*published, "here, no averaging"]:
        assert text in first
    assert "secret" in page[page.index("</table>") :]
    for number in (2, 3, 4):
        assert f"Fig. {number}" in page
        with Image.open(output / f"figure{number}.png") as picture:
            assert min(picture.size) > 250
    assert json.loads((output / "results.json").read_text()) == done.results


def test_an_interrupted_fold_goes_on_and_ends_in_the_same_weights(cell_data, tmp_path, monkeypatch):
    monkeypatch.setattr("septum.experiments.cells.Cells.summarize", no_summary)  # the pictures are not the question
    _, whole = finish(begin("phc-u373", cell_data, tmp_path / "whole"))
    steps = begin("phc-u373", cell_data, tmp_path / "stopped")
    while not isinstance(record := next(steps), StepDone) or record.step < 2:
        pass
    steps.close()
    records, stopped = finish(begin("phc-u373", cell_data, tmp_path / "stopped"))
    assert [record.step for record in records if isinstance(record, StepDone)] == [3, 4, 1, 2, 3, 4]
    for fold in ("01", "02"):
        one, other = (tmp_path / name / "folds" / fold / "model.safetensors" for name in ("whole", "stopped"))
        assert one.read_bytes() == other.read_bytes()
        assert seg_of(whole, fold) == seg_of(stopped, fold)


def test_a_finished_fold_is_not_trained_again_and_others_can_be_added(cell_data, tmp_path, monkeypatch):
    monkeypatch.setattr("septum.experiments.cells.Cells.summarize", no_summary)

    def again():  # without options: with the settings of the start
        return reproduce("phc-u373", cell_data, tmp_path / "out", ReproductionOptions(), CPU)

    records, first = finish(begin("phc-u373", cell_data, tmp_path / "out", folds=["02"]))
    assert sum(isinstance(record, StepDone) for record in records) == 4
    assert list(first.results["folds"]) == ["02"]
    before = (tmp_path / "out" / "folds" / "02" / "model.safetensors").stat().st_mtime_ns
    records, both = finish(again())
    assert sum(isinstance(record, StepDone) for record in records) == 4
    assert list(both.results["folds"]) == ["01", "02"]
    assert seg_of(both, "02") == seg_of(first, "02")
    assert (tmp_path / "out" / "folds" / "02" / "model.safetensors").stat().st_mtime_ns == before
    records, _ = finish(again())
    assert not any(isinstance(record, StepDone) for record in records)


def seg_of(done, fold):
    return done.results["folds"][fold]["scores"]["none"]["seg"]


def no_summary(*_):
    from septum.experiments.fold import Summary
    from septum.report.sections import Table

    return Summary({}, [Table("", [], [])], [], [])


def test_results_of_other_settings_or_another_experiment_are_not_mixed(cell_data, em_data, tmp_path):
    output = tmp_path / "out"
    wrong = reproduce("phc-u373", cell_data, output, ReproductionOptions(recipe="papr"), CPU)
    with pytest.raises(ConfigError, match="recipe should be 'fast' or 'paper', got 'papr'"):
        finish(wrong)
    steps = begin("phc-u373", cell_data, output, budget=60.0)  # a typo before anything is trained does no harm
    while not isinstance(next(steps), StepDone):
        pass
    steps.close()
    with pytest.raises(ConfigError, match="started with recipe 'fast', got 'paper'"):
        next(begin("phc-u373", cell_data, output, recipe="paper"))
    with pytest.raises(ConfigError, match=r"started with budget 60.0, got 90.0"):
        next(begin("phc-u373", cell_data, output, budget=90.0))
    with pytest.raises(ConfigError, match="started with experiment 'phc-u373', got 'em'"):
        next(begin("em", em_data, output))
    with pytest.raises(ConfigError, match="started with changes"):
        next(reproduce("phc-u373", cell_data, output, ReproductionOptions(changes={"patch": 32}), CPU))


def test_a_typo_in_a_setting_is_refused_before_data_are_looked_for(tmp_path, monkeypatch, capsys):
    def find(*_args, **_options):
        raise AssertionError("looked for data")

    monkeypatch.setattr(catalog, "find", find)
    words = ["septum", "reproduce", "em", "--output", str(tmp_path / "out"), "--set", "patsch=16"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    message = "ConfigError: TrainConfig has no setting 'patsch'; did you mean 'patch'?\n"
    assert capsys.readouterr().err == message
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_files_is_left_alone(cell_data, tmp_path):
    (tmp_path / "01_RES").mkdir()
    with pytest.raises(ConfigError, match="contains other files"):
        next(begin("phc-u373", cell_data, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["01_RES"]


def test_changed_data_are_refused(cell_data, tmp_path, monkeypatch):
    monkeypatch.setattr("septum.experiments.cells.Cells.summarize", no_summary)
    data = tmp_path / "data"
    shutil.copytree(cell_data, data)
    finish(begin("phc-u373", data, tmp_path / "out", folds=["01"]))
    tifffile.imwrite(data / "02" / "t001.tif", np.zeros((64, 72), np.uint8))
    with pytest.raises(DatasetError, match="have changed since"):
        next(begin("phc-u373", data, tmp_path / "out"))


def test_a_fold_that_does_not_exist_is_named(em_data, tmp_path):
    with pytest.raises(ConfigError, match="no fold '24-28'; did you mean '24-29'"):
        next(begin("em", em_data, tmp_path / "out", folds=["24-28"]))
    assert not (tmp_path / "out").exists()


def test_data_of_another_layout_are_refused(em_data, cell_data, tmp_path):
    with pytest.raises(DatasetError, match="has 0 images and 0 labels, expected the 30 slices"):
        next(begin("em", cell_data, tmp_path / "out"))
    with pytest.raises(DatasetError, match="has no 01 with 01_GT/SEG"):
        next(begin("dic-hela", em_data, tmp_path / "out"))


@pytest.mark.parametrize(("name", "archive"), [("phc-u373", "PhC-C2DH-U373"), ("em", "ISBI-2012-challenge")])
def test_without_data_and_network_it_says_what_to_get_and_where_to_put_it(name, archive, tmp_path, monkeypatch):
    def no_network(*_args, **_options):
        raise OSError("Network is unreachable")

    monkeypatch.setattr("pooch.HTTPDownloader.__call__", no_network)
    monkeypatch.setattr(catalog, "cache", lambda: tmp_path / "cache")
    monkeypatch.setenv("SEPTUM_DATA", str(tmp_path))
    place = str(tmp_path / "cache" / f"{archive}.zip")
    code, _, err = run("reproduce", name, "--output", tmp_path / "out")
    assert (code, "Traceback" in err) == (2, False)
    assert re.search(f"DatasetError: .*could not be downloaded from https://.*{re.escape(place)}.*SEPTUM_DATA", err)
    assert not (tmp_path / "out").exists()


def test_the_command_prints_the_results_as_json_or_as_tables(cell_data, tmp_path, monkeypatch):
    monkeypatch.setenv("SEPTUM_DATA", str(cell_data.parent))
    settings = [word for name, value in TINY.items() for word in ("--set", f"{name}={value}")]
    words = ["reproduce", "phc-u373", "--output", tmp_path / "out", "--device", "cpu"]
    code, out, err = run(*words, "--folds", "01", "--json", *settings)
    assert (code, err) == (0, "")
    assert json.loads(out)["folds"]["01"]["steps"] == 4
    code, out, _ = run(*words, "--folds", "01", "--quiet")
    assert code == 0
    assert "U-Net, 2015 (the paper)" in out
    assert "0.9203" in out
    assert f"report: {tmp_path / 'out' / 'report.html'}\n" in out


@pytest.mark.parametrize("options", [[], ["--folds", "02", "--device", "cpu"]])
def test_a_stopped_reproduction_says_how_to_go_on_with_the_same_folds(cell_data, tmp_path, monkeypatch, options):
    monkeypatch.setenv("SEPTUM_DATA", str(cell_data.parent))
    show = display.TrainingDisplay.show

    def interrupt(self, record):
        show(self, record)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(display.TrainingDisplay, "show", interrupt)
    settings = [word for name, value in TINY.items() for word in ("--set", f"{name}={value}")]
    words = ["reproduce", "phc-u373", "--output", str(tmp_path / "out"), *options]
    code, _, err = run(*words, *settings)
    assert code == 130
    assert f"continue with: septum {' '.join(words)}\n" in err
