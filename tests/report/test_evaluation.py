import re

import numpy as np
import pytest

from septum.config import TrainConfig, UNetConfig
from septum.errors import ImageError, ModelError
from septum.evaluation.evaluate import evaluate_arrays
from septum.evaluation.record import SCORE_NAMES
from septum.report import atlas
from septum.report.evaluation import _MEANINGS, report_evaluation
from septum.training.run import RunConfig, RunFolder


def sections(path):
    """Title -> HTML of every section."""
    html = path.read_text(encoding="utf-8")
    parts = re.findall(r"<section.*?</section>", html, re.S)
    return {re.sub("<[^>]+>", "", re.search(r"<h2.*?</h2>", part, re.S)[0]): part for part in parts if "<h2" in part}


def captions(part):
    return re.findall(r"<figcaption>(.*?)</figcaption>", part.replace("\N{NO-BREAK SPACE}", " "))


def spoilt(n=6, cell=14, seed=0):
    """(prediction, truth, image): a grid of squares of different sizes, with each type of error in turn."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((n * cell, n * cell), np.int32)
    prediction = truth.copy()
    for k in range(n * n):
        y, x = (v * cell + 2 for v in divmod(k, n))
        side = int(rng.integers(5, 10))
        square = np.s_[y : y + side, x : x + side]
        truth[square] = 0 if k % 6 == 1 else k + 1
        prediction[square] = 0 if k % 6 == 0 else k + 1
        if k % 6 == 2:
            prediction[y : y + side // 2, x : x + side] = 1000 + k
        if k % 6 == 4:
            prediction[square] = k  # the number of its neighbour
    return prediction, truth, rng.integers(0, 255, truth.shape).astype(np.uint8)


def test_every_error_is_a_crop_worst_first(tmp_path):
    predictions, truths, images = zip(*(spoilt(seed=k) for k in range(3)), strict=True)
    found = evaluate_arrays(predictions, truths, images=images)
    counts = found.as_json()["errors"]
    assert counts == {"missed": 18, "invented": 18, "split": 18, "merged": 18}
    parts = sections(report_evaluation(tmp_path / "r.html", found))
    for kind, number in counts.items():
        part = parts[f"{kind.capitalize()}: {number}"]
        pixels = [int(re.search(r"(\d+) px", caption)[1]) for caption in captions(part)]
        assert len(pixels) == part.count("<img") == number
        assert pixels == sorted(pixels, reverse=True)
    assert parts["Images, truth and predictions"].count("<img") == 9
    for title in ("What was compared", "Objects found, by IoU threshold", "Scores over all images", "Scores per image"):
        assert title in parts


def test_a_page_without_errors_says_so(tmp_path):
    _, truth, image = spoilt()
    parts = sections(report_evaluation(tmp_path / "r.html", evaluate_arrays([truth], [truth], images=[image])))
    assert "No object is missed" in parts["Errors"]
    assert not [title for title in parts if title.startswith(("Suspicious", "Warping"))]


def test_many_errors_make_small_crops_and_the_smallest_are_left_to_the_csv(tmp_path, monkeypatch):
    prediction, truth, image = spoilt(n=10)
    found = evaluate_arrays([prediction], [truth], images=[image])
    total = len(found.images[0].objects.errors)
    monkeypatch.setattr(atlas, "SMALL_CROPS_ABOVE", total - 1)
    monkeypatch.setattr(atlas, "MOST_CROPS", total - 5)
    parts = sections(report_evaluation(tmp_path / "r.html", found))
    shown = {title: part for title, part in parts.items() if re.match(r"(Missed|Invented|Split|Merged): ", title)}
    assert sum(part.count("<img") for part in shown.values()) == total - 5
    left = [int(n) for part in shown.values() for n in re.findall(r"(\d+) smaller ones are only in the CSV", part)]
    assert sum(left) == 5
    assert max(map(int, re.findall(r'width="(\d+)"', "".join(shown.values())))) == atlas.SMALL_SIDE


def test_an_image_of_another_size_is_refused_and_nothing_written(tmp_path):
    prediction, truth, image = spoilt()
    found = evaluate_arrays([prediction], [truth], images=[image[:-1]])
    with pytest.raises(ImageError, match="the image of image 0 has shape"):
        report_evaluation(tmp_path / "r.html", found)
    assert list(tmp_path.iterdir()) == []


def test_the_training_curve_and_the_difference_are_on_the_page(tmp_path):
    prediction, truth, _ = spoilt()
    found = evaluate_arrays([prediction] * 5, [truth] * 5)
    run = RunFolder(tmp_path / "run")
    with pytest.raises(ModelError):
        report_evaluation(tmp_path / "r.html", found, run=run.path)
    assert not (tmp_path / "r.html").exists()
    settings = RunConfig(
        train=TrainConfig(unet=UNetConfig()), budget=None, step_seconds=None, validate_every=1, checkpoint_every=1,
        log_every=1, source=None, held_out="nothing", data={}, device="cpu", threads=1, versions={},
    )  # fmt: skip
    run.create(settings)
    run.log({"step": 1, "loss": 0.7})
    other = evaluate_arrays([truth] * 5, [truth] * 5)
    parts = sections(report_evaluation(tmp_path / "r.html", found, other=other, run=run.path))
    assert "Training loss" in parts
    assert f"{found.scores['f1'].value - 1:.4f}" in parts["Difference to the other predictions"]


def test_many_classes_have_a_table_of_their_own(tmp_path):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 7, (8, 8)).repeat(6, 0).repeat(6, 1)
    found = evaluate_arrays([np.where(rng.random(truth.shape) < 0.1, 0, truth)] * 5, [truth] * 5, kind="classes")
    parts = sections(report_evaluation(tmp_path / "r.html", found))
    rows = re.findall(r"<tr>.*?</tr>", parts["Scores over all images"])
    assert len(rows) == 2  # the header, and the pixel error
    rows = re.findall(r"<tr>.*?</tr>", parts["Scores over all images, by class"])
    assert len(rows) == 1 + 7
    for k, row in enumerate(rows[1:]):
        cells = [re.sub("<[^>]+>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)]
        assert cells[0] == str(k)
        for cell, name in zip(cells[1:3], ("iou", "dice"), strict=True):
            score = found.scores[f"{name}.{k}"]
            assert cell == f"{score.value:.4f} ({score.low:.4f} to {score.high:.4f})"


def test_one_reason_for_no_interval_is_said_once(tmp_path):
    truth = np.zeros((20, 20), np.uint8)
    truth[4:12, 4:12] = 1
    part = sections(report_evaluation(tmp_path / "r.html", evaluate_arrays([truth], [truth])))["Scores over all images"]
    assert part.count("1 image, an interval needs 5") == 1
    assert "95 % interval" not in part


def test_scores_are_drawn_between_0_and_1(tmp_path):
    _, truth, _ = spoilt()
    html = report_evaluation(tmp_path / "r.html", evaluate_arrays([truth], [truth])).read_text(encoding="utf-8")
    ticks = re.findall(r'class="y-tick"[^>]*>([^<]*)<', html)
    assert [float(tick) for tick in ticks] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])


def test_suspicious_labels_and_warping_mismatches_have_sections_of_their_own(tmp_path):
    truth = np.full((30, 60), 255, np.uint8)
    truth[:, 20] = truth[:, 40] = 0
    chance = np.where(truth > 0, 0.95, 0.05).astype(np.float32)
    chance[:, 50] = 0.05  # a wall too many: one split
    chance[10:20, 5:12] = 0.02  # sure of what the truth denies
    parts = sections(report_evaluation(tmp_path / "r.html", evaluate_arrays([chance], [truth])))
    assert "Warping, split: 1" in parts
    part = parts["Suspicious labels: 1"]
    assert captions(part) == ["image 0 · 70 px · probability 0.98"]
    assert "only in the truth" in part


def test_every_score_has_a_meaning():
    assert _MEANINGS.keys() == SCORE_NAMES.keys()


def test_without_images_the_page_says_how_to_give_them(tmp_path):
    prediction, truth, image = spoilt()
    parts = sections(report_evaluation(tmp_path / "r.html", evaluate_arrays([prediction], [truth])))
    part = parts["Images, truth and predictions"]
    assert "on black: no images were found. Give them with --images." in part
    assert part.count("<img") == 1
    parts = sections(report_evaluation(tmp_path / "r.html", evaluate_arrays([prediction], [truth], images=[image])))
    assert "Each image, its truth, and its prediction against the truth." in parts["Images, truth and predictions"]


def test_intervals_are_explained_by_what_was_resampled(tmp_path):
    prediction, truth, _ = spoilt()

    def note(n):
        found = evaluate_arrays([prediction] * n, [truth] * n)
        return sections(report_evaluation(tmp_path / "r.html", found))["Scores over all images"]

    assert "differ by chance, from resampling 6 images." in note(6)
    assert "Resampling the objects of a few images" not in note(6)
    assert "shows the uncertainty for these images, not for others." in note(1)
