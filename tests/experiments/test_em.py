"""ISBI 2012 with a predictor whose answers are known: splits, scores and the challenge's stack, without a training."""

import shutil
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

from septum.core.metrics import isbi
from septum.data.simulate import membranes
from septum.errors import DatasetError, ImageError
from septum.experiments import em
from septum.experiments.em import CHALLENGE, EM, MEASURES, SUBMISSION, check_challenge_stack, write_challenge_stack
from septum.experiments.fold import AVERAGING, fold_folder
from septum.machine.generators import drain

SHAPE = (36, 40)
MODEL = SimpleNamespace(net=None, card=SimpleNamespace(config=None))


@pytest.fixture(scope="module")
def slices(tmp_path_factory):
    """Thirty slices whose images are their labels, and three test slices: an oracle can read the truth off them."""
    root = tmp_path_factory.mktemp("data") / "isbi2012"
    for part in ("train/images", "train/labels", "test/images"):
        (root / part).mkdir(parents=True)
    for z in range(33):
        labels = (255 * membranes(SHAPE, 2, seed=z)[1]).astype(np.uint8)
        if z < 30:
            tifffile.imwrite(root / "train" / "images" / f"{z:02d}.tif", labels)
            tifffile.imwrite(root / "train" / "labels" / f"{z:02d}.tif", labels)
        else:
            tifffile.imwrite(root / "test" / "images" / f"{z - 30:02d}.tif", labels)
    return root / "train"


@pytest.fixture
def oracle(monkeypatch):
    """Replaces the network: the truth without averaging, otherwise a noisy map; lists what was averaged."""
    averaged, rng = [], np.random.default_rng(0)

    def segment(net, config, source, tta=None):
        averaged.append(tta)
        interior = source.read((slice(0, SHAPE[0]), slice(0, SHAPE[1])))[0] / np.float32(255)
        if tta is not None:
            interior = np.clip(interior + rng.normal(0, 0.4, SHAPE).astype(np.float32), -1e-3, 1 + 1e-3)
        yield None
        return SimpleNamespace(probabilities=np.stack([1 - interior, interior]))

    monkeypatch.setattr(em, "segment", segment)
    return averaged


def test_every_slice_is_tested_once_in_a_contiguous_block_and_never_in_its_own_training(slices):
    *blocks, last = EM.folds(slices)
    tested = Counter()
    for fold in blocks:
        names = [sample.name for sample in fold.test()]
        assert [int(name) for name in names] == list(range(int(names[0]), int(names[0]) + 6))
        assert fold.name == f"{names[0]}-{names[-1]}"
        learned = {sample.name for sample in fold.train().samples}
        assert len(learned) == 24
        assert not learned & set(names)
        tested.update(names)
    assert tested == Counter({f"{z:02d}": 1 for z in range(30)})
    assert (last.name, len(last.train().samples), last.held_out(last.train()).blocks) == (CHALLENGE, 30, {})


def test_without_test_slices_there_is_no_fold_for_the_challenge(slices, tmp_path):
    shutil.copytree(slices, tmp_path / "train")
    assert CHALLENGE not in {fold.name for fold in EM.folds(tmp_path / "train")}


def test_scores_are_perfect_for_the_truth_and_those_of_isbi_for_any_map(slices, oracle, tmp_path):
    fold = EM.folds(slices)[1]
    fold_folder(tmp_path, fold).mkdir(parents=True)
    scores = drain(EM.score(fold, slices, MODEL, tmp_path))
    assert list(scores) == list(AVERAGING)
    assert oracle == [tta for tta in AVERAGING.values() for _ in range(6)]
    perfect = {name: scores["none"][key]["value"] for name, key in MEASURES.items()}
    assert perfect == {
        "warping error": 0,
        "Rand error": 0,
        "pixel error": 0,
        "V_Rand": pytest.approx(1),
        "V_Info": pytest.approx(1),
    }
    truth = [sample.labels for sample in fold.test()]
    maps = tifffile.imread(fold_folder(tmp_path, fold) / "interior_7-rotations.tif")
    best = isbi.evaluate_stack(truth, maps).best
    for key in MEASURES.values():
        assert scores["7 rotations"][key]["value"] == best[key].value
        assert scores["7 rotations"][key]["threshold"] == pytest.approx(best[key].threshold)
    assert best["v_rand"].value < 1


def test_the_stack_for_the_challenge_is_the_averaged_prediction_within_0_and_1(slices, oracle, tmp_path):
    fold = EM.folds(slices)[-1]
    found = drain(EM.score(fold, slices, MODEL, tmp_path))
    assert oracle == [AVERAGING["7 rotations"]] * 3
    stack = tifffile.imread(tmp_path / SUBMISSION)
    assert (stack.dtype, stack.shape, stack.min(), stack.max()) == (np.float32, (3, *SHAPE), 0, 1)
    assert found["file"] == "challenge/test-volume-interior.tif"
    assert found["grey_of_interior"] > found["grey_of_membrane"]


def test_a_stack_is_read_back_as_it_was_written(tmp_path):
    stack = np.random.default_rng(0).random((3, 8, 9)).astype(np.float32)
    write_challenge_stack(tmp_path / "stack.tif", stack)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "stack.tif"), stack)
    found = check_challenge_stack(tmp_path / "stack.tif", [np.full((1, 8, 9), 100)] * 3)
    assert (found["shape"], found["type"]) == ([3, 8, 9], "float32")
    assert found["range"] == [stack.min(), stack.max()]
    assert found["grey_of_interior"] == pytest.approx(100)


def test_a_stack_that_the_challenge_would_refuse_is_refused(tmp_path):
    grey = np.random.default_rng(0).random((1, 8, 8))
    images, good = [255 * grey] * 3, np.repeat(grey, 3, axis=0).astype(np.float32)
    file = tmp_path / "stack.tif"
    tifffile.imwrite(file, good, photometric="minisblack")
    found = check_challenge_stack(file, images)
    assert found["grey_of_interior"] > found["grey_of_membrane"]
    tifffile.imwrite(file, 1 - good, photometric="minisblack")
    found = check_challenge_stack(file, images)
    assert found["grey_of_interior"] < found["grey_of_membrane"]
    for bad, reason in (
        (good[:2], r"\(2, 8, 8\).*\(3, 8, 8\)"),
        (good[:, :7], r"\(3, 7, 8\)"),
        (good.astype(np.float64), "float64"),
        ((255 * good).astype(np.uint8), "uint8"),
        (255 * good, "values from"),
        (good - 1, "values from"),
        (np.where(good > 0.5, np.float32("nan"), good), "values from"),
    ):
        tifffile.imwrite(file, bad, photometric="minisblack")
        with pytest.raises(ImageError, match=reason):
            check_challenge_stack(file, images)


def test_an_inverted_stack_is_called_wrong():
    scores = {"file": "a.tif", "averaging": "none", "shape": [1, 2, 3], "type": "float32", "range": [0.0, 1.0]}
    right = em._submission_text(scores | {"grey_of_interior": 150.0, "grey_of_membrane": 90.0})
    assert right.paragraphs[1].endswith(
        "150 in predicted interior and 90 in predicted membrane: correct, since membranes are dark."
    )
    wrong = em._submission_text(scores | {"grey_of_interior": 90.0, "grey_of_membrane": 150.0})
    assert "WRONG, since membranes are dark" in wrong.paragraphs[1]


def test_another_number_of_slices_is_refused(slices, tmp_path):
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
        for file in sorted((slices / part).iterdir())[:29]:
            (tmp_path / part / file.name).symlink_to(file)
    with pytest.raises(
        DatasetError, match=r"has 29 images and 29 labels, expected the 30 slices.*septum data get isbi2012"
    ):
        EM.folds(tmp_path)
