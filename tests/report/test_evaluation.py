import re

import numpy as np
import pytest

from septum.config import TrainConfig, UNetConfig
from septum.core.metrics.warping import MISMATCHES
from septum.core.overlay import CONFUSED, MARK, PALETTE, PREDICTION, TRUTH
from septum.errors import ImageError, ModelError
from septum.evaluation.evaluate import evaluate_arrays
from septum.report import atlas
from septum.report.atlas import make_atlas
from septum.report.evaluation import report_evaluation
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


def test_crops_show_what_is_wrong_in_the_middle():
    prediction, truth = np.zeros((2, 300, 300), np.int32)
    truth[100:104, 50:54] = 1
    prediction[200:204, 290:294] = 1
    found = make_atlas(evaluate_arrays([prediction], [truth], kind="instances", images=[np.zeros((300, 300))]))
    missed, invented = ((entry.kind, entry.picture.rgb) for entry in found.objects)
    assert missed[0] == "missed"
    assert missed[1].shape == (40, 40, 3)
    marks = (missed[1] == MARK).all(2)
    assert missed[1].any(2).sum() == 16 + marks.sum()
    assert [*zip(*np.nonzero(marks), strict=True)] == [
        (y, x) for y in range(40) for x in range(40) if {y, x} <= {16, 17, 22, 23} and {y, x} & {16, 23}
    ]
    assert (missed[1][18:22, 18:22][[0, 0, 3, 3], [0, 3, 0, 3]] == TRUTH).all()
    assert invented[0] == "invented"  # near the edge the crop moves inside
    assert invented[1].shape == (40, 40, 3)
    assert (invented[1][18, 30] == PREDICTION).all()


def test_large_objects_are_reduced_and_small_images_are_not():
    truth = np.zeros((400, 500), np.int32)
    truth[20:380, 20:480] = 1
    (entry,) = make_atlas(evaluate_arrays([truth * 0], [truth], kind="instances")).objects
    assert max(entry.picture.rgb.shape[:2]) <= atlas.LARGE_SIDE
    assert (entry.picture.rgb == TRUTH).all(2).any()
    thin = np.ones((2, 900), np.int32)
    (entry,) = make_atlas(evaluate_arrays([thin * 0], [thin], kind="instances")).objects
    assert entry.picture.rgb.size > 0


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


def test_warping_mismatches_are_marked():
    truth = np.full((30, 60), 255, np.uint8)
    truth[:, 20] = truth[:, 40] = 0
    chance = np.where(truth > 0, 0.95, 0.05).astype(np.float32)
    chance[10:14, 20] = 0.95  # a hole in the wall: a merger
    chance[:, 50] = 0.05  # a wall too many: one split
    found = make_atlas(evaluate_arrays([chance], [truth]))
    kinds = {entry.kind: entry for entry in found.mismatches}
    assert set(kinds) == {"split", "merger"}
    marked = (kinds["merger"].picture.rgb == CONFUSED).all(2)
    assert marked.sum() == kinds["merger"].rank == 4
    assert all(kind in [name.replace("_", " ") for name in MISMATCHES] for kind in kinds)


def suspects(truth, chance, **options):
    return make_atlas(evaluate_arrays([chance], [truth], **options)).suspicious


def test_confident_predictions_that_contradict_the_truth_are_suspicious():
    truth = np.zeros((40, 60), np.uint8)
    truth[5:15, 5:15] = truth[5:15, 25:35] = 1
    chance = np.where(truth > 0, 0.97, 0.02).astype(np.float32)
    assert suspects(truth, chance) == ()
    chance[5:15, 15] = 0.97  # an outline that is one pixel off
    chance[25:30, 5:12] = 0.97  # a cell that the truth forgot
    chance[25:32, 25:32] = 0.7  # the network is not sure
    chance[5:15, 25:35] = 0.03  # a cell that is none
    first, second = suspects(truth, chance)
    assert first.picture.caption.split() == ["image", "0", "·", "100", "px", "·", "probability", "0.97"]
    assert second.picture.caption.split() == ["image", "0", "·", "35", "px", "·", "probability", "0.97"]
    ignore = np.zeros(truth.shape, bool)
    ignore[20:] = True
    assert len(suspects(truth, chance, ignore=[ignore])) == 1
    truth[5:15, 5:15], truth[5:15, 25:35] = 8, 9
    of_labels = evaluate_arrays([truth], [truth], kind="instances", probabilities=[np.stack([1 - chance, chance])])
    assert len(make_atlas(of_labels).suspicious) == 2


def test_suspicious_classes_are_those_of_the_largest_probability():
    truth = np.zeros((20, 40), np.uint8)
    truth[5:15, 5:15], truth[5:15, 25:35] = 1, 2
    chances = np.stack([truth == k for k in range(3)]).astype(np.float32) * 0.9 + 0.03
    chances[:, 5:15, 5:15] = chances[[0, 2, 1], 5:15, 5:15]
    (entry,) = suspects(truth, chances, kind="classes")
    assert entry.picture.caption.split()[3:5] == ["100", "px"]


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


def test_long_names_are_cut_under_pictures_to_what_differs(tmp_path):
    long = [f"2024-03-17_experiment_of_a_very_long_name_position_{k}_channel_2_projected" for k in range(3)]
    short = atlas.short_names([*long, "a"])
    assert max(map(len, short)) <= 28
    assert [name for k, name in enumerate(short[:3]) if f"position_{k}" in name] == short[:3]
    assert short[3] == "a"
    alike = ["x" * 40 + "y" * 40 + "z", "x" * 40 + "y" * 40 + "zz", "x" * 30]
    assert len(set(atlas.short_names(alike))) == 3


def test_nothing_is_drawn_where_pixels_are_ignored():
    truth, prediction = np.zeros((2, 60, 60), np.int32)
    truth[10:30, 10:30] = 1
    prediction[10:30, 14:34] = 1
    ignore = np.zeros(truth.shape, bool)
    ignore[:, 28:] = True
    image = np.full(truth.shape, 50, np.uint8)
    found = evaluate_arrays([prediction], [truth], kind="instances", images=[image], ignore=[ignore])
    _, _, against = make_atlas(found).whole_images
    assert len(np.unique(against.rgb[ignore], axis=0)) == 1
    assert len(np.unique(against.rgb[~ignore], axis=0)) > 1


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


def test_the_truth_of_a_mask_has_a_colour_of_its_own():
    truth = np.zeros((20, 20), np.uint8)
    truth[5:15, 5:15] = 1
    black = np.zeros(truth.shape, np.uint8)
    _, alone, _ = make_atlas(evaluate_arrays([truth], [truth], images=[black])).whole_images
    (colour,) = np.unique(alone.rgb[truth > 0], axis=0)
    assert (colour == (0.4 * PALETTE[2]).astype(np.uint8)).all()
