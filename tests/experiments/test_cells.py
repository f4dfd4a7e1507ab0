"""DIC-HeLa and PhC-U373 with a predictor whose answers are known: splits, scores and files, without a training."""

from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

from septum.data.labels import read_labels
from septum.errors import DatasetError
from septum.experiments import cells
from septum.experiments.cells import DIC_HELA, PHC_U373, VIDEOS, frame_files, mask_file
from septum.experiments.fold import AVERAGING
from septum.machine.generators import drain

MODEL = SimpleNamespace(net=None, card=SimpleNamespace(config=None, channels=1))


def frame(n):
    """A (40, 60) label image with n squares of 36 pixels."""
    labels = np.zeros((40, 60), np.uint16)
    for k in range(n):
        labels[2 + 12 * (k // 4) :, 2 + 12 * (k % 4) :][:6, :6] = k + 1
    return labels


@pytest.fixture
def videos(tmp_path):
    """Two videos whose images are their labels, so that an oracle can read the truth off the image."""
    for video, objects in (("01", {"000": 4, "001": 6}), ("02", {"000": 5, "010": 8})):
        (tmp_path / video).mkdir()
        (tmp_path / f"{video}_GT" / "SEG").mkdir(parents=True)
        for number, n in objects.items():
            tifffile.imwrite(tmp_path / video / f"t{number}.tif", frame(n).astype(np.uint8))
            tifffile.imwrite(tmp_path / f"{video}_GT" / "SEG" / f"man_seg{number}.tif", frame(n))
        tifffile.imwrite(tmp_path / video / "t002.tif", frame(1).astype(np.uint8))  # without truth
    return tmp_path


@pytest.fixture
def oracle(monkeypatch):
    """Replaces the network: predicts the truth, without object 1 if versions are averaged; lists what was averaged."""
    averaged = []

    def segment(net, config, source, tta=None):
        averaged.append(tta)
        labels = source.read((slice(0, 40), slice(0, 60)))[0].astype(np.int32)
        yield None
        return SimpleNamespace(labels=np.where((labels == 1) & (tta is not None), 0, labels))

    monkeypatch.setattr(cells, "segment", segment)
    return averaged


def scored(videos, output):
    folds = PHC_U373.folds(videos)
    return folds, {fold: {"scores": drain(PHC_U373.score(fold, videos, MODEL, output))} for fold in folds}


def test_seg_and_missed_objects_are_those_of_the_frames_with_truth(videos, oracle, tmp_path):
    (first, second), results = scored(videos, tmp_path / "out")
    exact, averaged = results[first]["scores"]["none"], results[first]["scores"]["8 dihedral"]
    assert (exact["seg"], exact["objects"], exact["missed"], exact["frames"]) == (1, 10, 0, 2)
    assert averaged["seg"] == pytest.approx((3 + 5) / 10)  # one of 4 and one of 6 objects is missed
    assert averaged["missed"] == 2
    assert averaged["per_frame"] == pytest.approx({"01_t000": 3 / 4, "01_t001": 5 / 6})
    assert results[second]["scores"]["8 dihedral"]["seg"] == pytest.approx((4 + 7) / 13)
    assert oracle == [None] * 2 + [AVERAGING["8 dihedral"]] * 3 + [None] * 2 + [AVERAGING["8 dihedral"]] * 3


def test_the_masks_of_all_frames_are_those_of_the_averaged_prediction(videos, oracle, tmp_path):
    scored(videos, tmp_path / "out")
    for video, objects in (("01", {"000": 4, "001": 6, "002": 1}), ("02", {"000": 5, "002": 1, "010": 8})):
        masks = sorted((tmp_path / "out" / f"{video}_RES").iterdir())
        assert [mask.name for mask in masks] == [f"mask{number}.tif" for number in objects]
        for mask, n in zip(masks, objects.values(), strict=True):
            assert np.unique(read_labels(mask).frames[0]).tolist() == [0, *range(2, n + 1)]


def test_the_mean_needs_both_videos(videos, oracle, tmp_path, monkeypatch):
    monkeypatch.setattr(cells, "_pictures", lambda *_: ([], []))
    (first, second), results = scored(videos, tmp_path / "out")
    segs = [results[fold]["scores"]["8 dihedral"]["seg"] for fold in (first, second)]
    summary = PHC_U373.summarize(videos, tmp_path / "out", results)
    assert summary.scores["8 dihedral"] == {"01": segs[0], "02": segs[1], "mean": pytest.approx(sum(segs) / 2)}
    assert summary.tables[0].rows[-1][1:4] == [*segs, pytest.approx(sum(segs) / 2)]
    one = PHC_U373.summarize(videos, tmp_path / "out", {second: results[second]})
    assert one.scores["8 dihedral"] == {"01": None, "02": segs[1], "mean": None}
    none = PHC_U373.summarize(videos, tmp_path / "out", {})
    assert [row[0] for row in none.tables[0].rows] == ["U-Net, 2015 (the paper)", "second best, 2015"]


def test_each_experiment_has_the_published_numbers_of_its_data():
    assert [one.scores["SEG"] for one in DIC_HELA.published] == [0.7756, 0.46, 0.793]
    assert [one.scores["SEG"] for one in PHC_U373.published] == [0.9203, 0.83]
    assert "20 partly annotated frames" in " ".join(DIC_HELA.split)
    assert "35 partly annotated frames" in " ".join(PHC_U373.split)


@pytest.mark.parametrize("missing", ["01", "02_GT/SEG"])
def test_data_without_one_of_the_videos_are_refused(videos, missing):
    (videos / missing).rename(videos / "elsewhere")
    video = missing[:2]
    with pytest.raises(DatasetError, match=f"has no {video} with {video}_GT/SEG.*septum data get phc-u373"):
        PHC_U373.folds(videos)


def test_frames_are_in_order_and_nothing_else_is_a_frame(tmp_path):
    for name in ("t010.tif", "t002.tif", "t100.tiff", "t1.txt", "notes.tif", "xt003.tif"):
        (tmp_path / name).touch()
    assert [file.name for file in frame_files(tmp_path)] == ["t002.tif", "t010.tif", "t100.tiff"]
    assert {mask_file(tmp_path, f"{video}_t{number}") for video in VIDEOS for number in ("000", "123")} == {
        tmp_path / f"{video}_RES" / f"mask{number}.tif" for video in VIDEOS for number in ("000", "123")
    }


def test_the_sample_with_most_objects_is_shown_preferably_a_fully_annotated_one():
    def sample(n, partly):
        return SimpleNamespace(labels=frame(n), ignore=np.zeros((1, 1)) if partly else None)

    samples = [sample(3, False), sample(5, False), sample(8, True)]
    assert cells._with_most_objects(SimpleNamespace(samples=samples)) == 1
    assert cells._with_most_objects(SimpleNamespace(samples=samples[2:] + [sample(2, True)])) == 0
