import json
import sys

import numpy as np
import pytest
import tifffile

from septum import cli
from septum.evaluation.evaluate import evaluate_files


def septum(*arguments):
    """Run the command line; returns its exit code."""
    argv, sys.argv = sys.argv, ["septum", *map(str, arguments)]
    try:
        cli.main()
    except SystemExit as end:
        return end.code or 0
    finally:
        sys.argv = argv
    return 0


@pytest.fixture
def data(tmp_path):
    """Three predictions and truths: squares, one of them lost."""
    rng = np.random.default_rng(0)
    for folder in ("masks", "better", "truth/labels", "truth/images"):
        (tmp_path / folder).mkdir(parents=True)
    for name in "abc":
        truth = np.zeros((40, 40), np.uint16)
        for label, (y, x) in enumerate(((2, 2), (2, 20), (20, 2), (22, 22)), 1):
            truth[y : y + 12, x : x + rng.integers(8, 13)] = label
        prediction = np.where(truth == ord(name) % 4 + 1, 0, truth)
        tifffile.imwrite(tmp_path / f"truth/labels/{name}.tif", truth)
        tifffile.imwrite(tmp_path / f"truth/images/{name}.tif", (truth > 0).astype(np.uint8) * 100)
        tifffile.imwrite(tmp_path / f"masks/{name}_labels.tif", prediction)
        tifffile.imwrite(tmp_path / f"better/{name}_labels.tif", truth)
    return tmp_path


def test_json_is_what_the_api_says(data, capsys):
    assert septum("evaluate", data / "masks", data / "truth", "--json", "-q") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer == json.loads(json.dumps(evaluate_files(data / "masks", data / "truth").as_json()))
    assert answer["overall"]["f1"] == pytest.approx(18 / 21)
    assert [image["errors"]["missed"] for image in answer["images"]] == [1, 1, 1]


def test_the_table_says_what_was_measured_and_why(data, capsys):
    assert septum("evaluate", data / "masks", data / "truth", "-q") == 0
    out = capsys.readouterr().out
    assert "3 predictions matched by name" in out
    assert "read as instances: each of the 12 labels is one connected object" in out
    assert "matching: matched, missed, invented, split and merged objects; the truth contains instances" in out
    (row,) = (line.split() for line in out.splitlines() if line.startswith("b "))
    assert row[1:6] == ["4", "1", "0", "0", "0"]
    (f1,) = (line for line in out.splitlines() if line.startswith("F1"))
    assert f1.split()[1] == "0.8571"


def test_measures_are_chosen_and_unknown_ones_refused(data, capsys):
    assert septum("evaluate", data / "masks", data / "truth", "--metrics", "ctc,overlap", "--json", "-q") == 0
    assert list(json.loads(capsys.readouterr().out)["measures"]) == ["overlap", "ctc"]
    assert septum("evaluate", data / "masks", data / "truth", "--metrics", "overlapp", "-q") == 2
    assert "did you mean 'overlap'" in capsys.readouterr().err


def test_files_are_written_where_they_are_asked_for(data, capsys):
    report, csv = data / "out" / "report.html", data / "out" / "objects.csv"
    assert septum("evaluate", data / "masks", data / "truth", "--report", report, "--csv", csv, "-q") == 0
    out = capsys.readouterr().out
    assert out.endswith(f"objects: {csv}\nreport: {report}\n")
    assert septum("evaluate", data / "masks", data / "truth") == 0
    assert capsys.readouterr().out.endswith("\nnext: add --report errors.html to see every error\n")
    html = report.read_text(encoding="utf-8")
    assert "Missed: 3" in html
    assert html.count('alt="image"') == 3
    assert len(csv.read_text().splitlines()) == 13


def test_two_predictions_are_compared(data, capsys):
    arguments = ("evaluate", data / "masks", data / "truth", "--against", data / "better", "-q")
    assert septum(*arguments) == 0
    out = capsys.readouterr().out
    scores, differences = (part.splitlines() for part in out.split("difference to the other predictions"))
    (line,) = [line for line in differences if line.startswith("F1")]
    assert line.split()[1] == "-0.1429"
    for name in ("mAP", "IoU", "Dice"):  # that of the foreground
        assert sum(line.startswith(f"{name} ") for line in differences) == 1
        assert sum(line.startswith(f"{name} ") for line in scores) == 1
    assert septum(*arguments, "--json") == 0
    assert json.loads(capsys.readouterr().out)["difference"]["f1"]["value"] == pytest.approx(18 / 21 - 1)


def test_an_inverted_map_is_warned_of(tmp_path, capsys):
    mask = np.zeros((30, 30), np.uint8)
    mask[5:25, 5:14] = mask[5:25, 16:25] = 255
    tifffile.imwrite(tmp_path / "truth.tif", mask)
    tifffile.imwrite(tmp_path / "map.tif", np.where(mask, 0.05, 0.95).astype(np.float32))
    report = tmp_path / "report.html"
    assert septum("evaluate", tmp_path / "map.tif", tmp_path / "truth.tif", "--report", report, "-q") == 0
    (warning,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: the inverse")]
    assert "Dice 1.0000 instead of 0.0000" in warning
    assert "Dice 1.0000 instead of 0.0000" in report.read_text(encoding="utf-8")
    assert septum("evaluate", tmp_path / "map.tif", tmp_path / "truth.tif", "--json", "-q") == 0
    assert len(json.loads(capsys.readouterr().out)["warnings"]) == 1
    assert septum("evaluate", tmp_path / "map.tif", tmp_path / "truth.tif", "--invert", "--json", "-q") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["warnings"] == []
    assert answer["overall"]["dice"]["1"] == 1


def test_the_other_predictions_are_warned_of_too(tmp_path, capsys):
    mask = np.zeros((30, 30), np.uint8)
    mask[5:25, 5:14] = mask[5:25, 16:25] = 255
    for name, array in {"truth": mask, "good": mask, "wrong": 255 - mask}.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", array)
    report = tmp_path / "r.html"
    arguments = ("evaluate", tmp_path / "good.tif", tmp_path / "truth.tif", "--against", tmp_path / "wrong.tif", "-q")
    said = "of the other predictions: the inverse of the predictions would score far better"
    assert septum(*arguments, "--report", report) == 0
    assert f"warning: {said}" in capsys.readouterr().out
    assert said[1:] in report.read_text(encoding="utf-8")
    assert septum(*arguments, "--json") == 0
    assert said in json.loads(capsys.readouterr().out)["warnings"][0]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--csv", "here/o.tif"), "ends like the name of an image; give it another suffix"),
        (("--csv", "here/x", "--report", "here/x"), "--csv and --report name the same file; choose two"),
        (("--report", "truth"), "it is a folder"),
    ],
)
def test_results_that_cannot_be_written_are_refused_before_the_work(data, capsys, monkeypatch, options, sentence):
    monkeypatch.chdir(data)
    assert septum("evaluate", "masks", "truth", *options) == 2
    said = capsys.readouterr()
    assert sentence in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert not (data / "here").exists()


def test_spaces_between_measures_do_no_harm(data, capsys):
    assert septum("evaluate", data / "masks", data / "truth", "--metrics", "ctc, matching", "--json", "-q") == 0
    assert list(json.loads(capsys.readouterr().out)["measures"]) == ["matching", "ctc"]


def test_a_stack_or_a_video_without_a_frame_is_refused(tmp_path, capsys):
    stack = np.zeros((5, 30, 30), np.uint16)
    stack[:, 4:12, 4:12], stack[:, 15:25, 15:25] = 1, 2
    for name, pages in {"truth.tif": stack, "short.tif": stack[:4], "long.tif": np.concatenate([stack, stack])}.items():
        tifffile.imwrite(tmp_path / name, pages, photometric="minisblack")
    for folder in ("01_GT/SEG", "01_RES"):
        (tmp_path / folder).mkdir(parents=True)
    for k in range(2):
        tifffile.imwrite(tmp_path / f"01_GT/SEG/man_seg{k:03d}.tif", stack[0])
    tifffile.imwrite(tmp_path / "01_RES/mask000.tif", stack[0])
    for prediction, truth, sentence in (
        ("short.tif", "truth.tif", "has 4 frames, but the truth"),
        ("long.tif", "truth.tif", "has 10 frames, but the truth"),
        ("01_RES", "01_GT", "has no prediction mask001.tif"),
    ):
        csv = tmp_path / "out" / "o.csv"
        assert septum("evaluate", tmp_path / prediction, tmp_path / truth, "--csv", csv, "-q") == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert sentence in said.err
        assert len(said.err.strip().splitlines()) == 1
        assert not csv.parent.exists()


WRONG = {
    "shapes differ": ("masks/a_labels.tif", np.zeros((40, 41), np.uint8)),
    "float labels": ("masks/b_labels.tif", np.full((40, 40), 0.5, np.float32)),
    "negative labels": ("masks/c_labels.tif", np.full((40, 40), -2, np.int32)),
    "an extra prediction": ("masks/d_labels.tif", np.ones((40, 40), np.uint8)),
    "a missing prediction": ("truth/labels/d.tif", np.ones((40, 40), np.uint8)),
    "a text file": ("masks/a_labels.tif", "not an image"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_is_one_sentence_exit_code_2_and_nothing_written(data, capsys, case):
    name, content = WRONG[case]
    if isinstance(content, str):
        (data / name).write_text(content)
    else:
        tifffile.imwrite(data / name, content)
    out = data / "out"
    assert (
        septum("evaluate", data / "masks", data / "truth", "--report", out / "r.html", "--csv", out / "o.csv", "-q")
        == 2
    )
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.strip().splitlines()) == 1
    assert not out.exists()


@pytest.mark.parametrize("truth", [np.zeros((40, 40), np.uint8), None])
def test_an_empty_or_missing_truth_is_refused(data, capsys, truth):
    for name in "abc":
        if truth is None:
            (data / f"truth/labels/{name}.tif").unlink()
        else:
            tifffile.imwrite(data / f"truth/labels/{name}.tif", truth)
    assert septum("evaluate", data / "masks", data / "truth", "--csv", data / "o.csv", "-q") == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (data / "o.csv").exists()


def test_probabilities_outside_0_to_1_are_refused(tmp_path, capsys):
    tifffile.imwrite(tmp_path / "truth.tif", np.eye(20, dtype=np.uint8))
    tifffile.imwrite(tmp_path / "map.tif", np.linspace(-3, 3, 400, dtype=np.float32).reshape(20, 20))
    assert septum("evaluate", tmp_path / "map.tif", tmp_path / "truth.tif", "--csv", tmp_path / "o.csv", "-q") == 2
    assert "runs from -3 to 3, expected 0..1" in capsys.readouterr().err
    assert not (tmp_path / "o.csv").exists()


def test_a_run_without_a_page_is_refused(data, capsys):
    assert septum("evaluate", data / "masks", data / "truth", "--run", data, "-q") == 2
    assert "add --report" in capsys.readouterr().err


def test_a_page_that_cannot_be_written_leaves_nothing(data, capsys):
    (data / "file").write_text("")
    assert septum("evaluate", data / "masks", data / "truth", "--report", data / "file" / "r.html", "-q") == 2
    assert "cannot write" in capsys.readouterr().err
