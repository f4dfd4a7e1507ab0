"""The atlas: what every crop shows, which of them come first, and what is suspicious."""

import numpy as np

from septum.core.metrics.warping import MISMATCHES
from septum.core.overlay import CONFUSED, MARK, PALETTE, PREDICTION, TRUTH
from septum.evaluation.evaluate import evaluate_arrays
from septum.report import atlas
from septum.report.atlas import make_atlas
from septum.report.sections import Picture


def test_crops_show_what_is_wrong_in_the_middle():
    prediction, truth = np.zeros((2, 300, 300), np.int32)
    truth[100:104, 50:54] = 1
    prediction[200:204, 290:294] = 1
    found = make_atlas(evaluate_arrays([prediction], [truth], kind="instances", images=[np.zeros((300, 300))]))
    missed, invented = ((crop.kind, crop.picture.rgb) for crop in found.objects)
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
    (crop,) = make_atlas(evaluate_arrays([truth * 0], [truth], kind="instances")).objects
    assert max(crop.picture.rgb.shape[:2]) <= atlas.LARGE_SIDE
    assert (crop.picture.rgb == TRUTH).all(2).any()
    thin = np.ones((2, 900), np.int32)
    (crop,) = make_atlas(evaluate_arrays([thin * 0], [thin], kind="instances")).objects
    assert crop.picture.rgb.size > 0


def test_warping_mismatches_are_marked():
    truth = np.full((30, 60), 255, np.uint8)
    truth[:, 20] = truth[:, 40] = 0
    chance = np.where(truth > 0, 0.95, 0.05).astype(np.float32)
    chance[10:14, 20] = 0.95  # a hole in the wall: a merger
    chance[:, 50] = 0.05  # a wall too many: one split
    found = make_atlas(evaluate_arrays([chance], [truth]))
    kinds = {crop.kind: crop for crop in found.mismatches}
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
    (crop,) = suspects(truth, chances, kind="classes")
    assert crop.picture.caption.split()[3:5] == ["100", "px"]


def test_long_names_are_cut_under_pictures_to_what_differs():
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


def test_the_truth_of_a_mask_has_a_colour_of_its_own():
    truth = np.zeros((20, 20), np.uint8)
    truth[5:15, 5:15] = 1
    black = np.zeros(truth.shape, np.uint8)
    _, alone, _ = make_atlas(evaluate_arrays([truth], [truth], images=[black])).whole_images
    (colour,) = np.unique(alone.rgb[truth > 0], axis=0)
    assert (colour == (0.4 * PALETTE[2]).astype(np.uint8)).all()


def test_the_largest_errors_come_first_and_the_rest_is_left_out(monkeypatch):
    truth = np.zeros((60, 60), np.int32)
    for k, side in enumerate((3, 9, 5, 7), 1):
        truth[12 * k : 12 * k + side, 5 : 5 + side] = k
    found = evaluate_arrays([truth * 0], [truth], kind="instances")
    assert [crop.rank for crop in make_atlas(found).objects] == [81, 49, 25, 9]
    monkeypatch.setattr(atlas, "MOST_CROPS", 2)
    assert [crop.rank for crop in make_atlas(found).objects] == [81, 49]


def test_pictures_are_sorted_by_kind_and_keep_their_order():
    pictures = [Picture(np.zeros((1, 1, 3), np.uint8), str(k), "") for k in range(4)]
    crops = [atlas.Crop(kind, 0, picture) for kind, picture in zip("abab", pictures, strict=True)]
    assert atlas.pictures_by_kind(crops) == {"a": [pictures[0], pictures[2]], "b": [pictures[1], pictures[3]]}
