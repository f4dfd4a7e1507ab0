import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

import septum
from septum.core.metrics import confidence, ctc, isbi, matching, overlap
from septum.errors import ConfigError, DatasetError, ImageError, SeptumError
from septum.evaluation.evaluate import evaluate_arrays, evaluate_files
from septum.evaluation.tables import objects_csv

DATA = os.environ.get("SEPTUM_DATA")
GOLDEN = Path(DATA).parent / "golden" if DATA else Path("nowhere")
needs_golden = pytest.mark.skipif(not GOLDEN.exists(), reason="needs golden/ beside the folder SEPTUM_DATA names")


def blobs(seed, size=48, n=9):
    """(truth, prediction): cells, and the same moved, with some lost and some invented."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    truth, prediction = np.zeros((2, size, size), np.uint16)
    for label in range(1, n + 1):
        (cy, cx), radius = rng.uniform(4, size - 4, 2), rng.uniform(3, 6)
        truth[(np.hypot(y - cy, x - cx) < radius) & (truth == 0)] = label
        dy, dx = rng.normal(0, 1, 2)
        if label % 4:
            prediction[(np.hypot(y - cy - dy, x - cx - dx) < radius) & (prediction == 0)] = 2 * label
    prediction[1:4, 1:4] = 200
    return truth, prediction


def many(n, first=0):
    truths, predictions = zip(*(blobs(first + k) for k in range(n)), strict=True)
    return list(predictions), list(truths)


def membranes(seed, size=40):
    """(mask, map): cells between membranes in 0 and 255, and a noisy probability of interior."""
    rng = np.random.default_rng(seed)
    points = np.ones((size, size), bool)
    points[tuple(rng.integers(0, size, (2, 14)))] = False
    y, x = ndimage.distance_transform_edt(points, return_distances=False, return_indices=True)
    cells = y * size + x
    mask = (ndimage.maximum_filter(cells, 3) == ndimage.minimum_filter(cells, 3)).astype(np.uint8) * 255
    noise = ndimage.gaussian_filter(rng.normal(size=mask.shape), 1)
    chance = np.clip(ndimage.gaussian_filter(mask / 255, 0.7) + 0.5 * noise, 0, 1)
    return mask, chance.astype(np.float32)


def write(folder, **images):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in images.items():
        tifffile.imwrite(folder / f"{name}.tif", array, photometric="minisblack")
    return folder


def test_scores_over_all_images_are_those_of_the_pooled_measures():
    predictions, truths = many(4)
    scores = evaluate_arrays(predictions, truths).scores
    pooled = matching.pool([matching.match(t, p).scores for t, p in zip(truths, predictions, strict=True)])
    at = pooled.per_threshold[0]
    for name in ("f1", "precision", "recall", "mean_matched_iou", "panoptic_quality", "average_precision"):
        assert scores[name].value == pytest.approx(getattr(at, name), abs=1e-12)
    assert scores["aggregated_jaccard"].value == pytest.approx(pooled.aggregated_jaccard, abs=1e-12)
    assert scores["mean_average_precision"].value == pooled.mean_average_precision
    pixels = overlap.pool([overlap.class_overlap(t > 0, p > 0) for t, p in zip(truths, predictions, strict=True)])
    assert scores["pixel_error"].value == pixels.pixel_error
    for each in pixels.classes:
        assert scores[f"iou.{each.label}"].value == each.iou
        assert scores[f"dice.{each.label}"].value == each.dice


def test_the_verb_of_the_package_takes_all_that_evaluate_arrays_takes():
    assert septum.evaluate is evaluate_arrays


def test_scores_of_one_image_do_not_depend_on_the_others():
    predictions, truths = many(3)
    together = evaluate_arrays(predictions, truths, kind="instances")
    alone = evaluate_arrays(predictions[1:2], truths[1:2], kind="instances")
    assert together.image_scores(1) == alone.image_scores(0)
    assert {name: score.value for name, score in alone.scores.items()} == alone.image_scores(0)


def test_files_stacks_and_arrays_give_the_same(tmp_path):
    predictions, truths = many(3)
    write(tmp_path / "truth", **{f"a{k}": t for k, t in enumerate(truths)})
    write(tmp_path / "masks", **{f"a{k}_labels": p for k, p in enumerate(predictions)})
    write(tmp_path, truth_stack=np.stack(truths), mask_stack=np.stack(predictions))
    from_arrays = evaluate_arrays(predictions, truths)
    for found in (
        evaluate_files(tmp_path / "masks", tmp_path / "truth"),
        evaluate_files(tmp_path / "mask_stack.tif", tmp_path / "truth_stack.tif"),
    ):
        assert found.scores == from_arrays.scores
        assert [i.objects for i in found.images] == [i.objects for i in from_arrays.images]
    one = evaluate_files(tmp_path / "masks" / "a1_labels.tif", tmp_path / "truth")
    assert [image.name for image in one.images] == ["a1"]
    assert one.image_scores(0) == from_arrays.image_scores(1)


@needs_golden
@pytest.mark.parametrize("name", ["synthetic_11", "synthetic_12", "synthetic_13"])
def test_a_map_against_a_mask_gives_the_challenges_own_values(name):
    folder = GOLDEN / "isbi_metrics" / name
    files = folder / "probability.tif", folder / "label.tif"
    # three slices that the file calls red, green and blue are refused as labels
    found = evaluate_arrays(*map(tifffile.imread, files)) if name == "synthetic_13" else evaluate_files(*files)
    assert list(found.measures) == ["overlap", "isbi"]
    expected = json.loads((folder / "expected.json").read_text())["per_threshold"]
    ours = found.as_json()["isbi"]["per_threshold"]

    def compare(theirs, mine):
        for key, value in theirs.items():
            if isinstance(value, dict):
                compare(value, mine[key])
            else:
                assert mine[key] == pytest.approx(value, abs=1e-9), key

    assert len(ours) == len(expected)
    for theirs, mine in zip(expected, ours, strict=True):
        compare(theirs, mine)


@needs_golden
def test_challenge_folders_give_the_official_log(tmp_path):
    expected = json.loads((GOLDEN / "ctc_seg" / "seg.json").read_text())
    for folder in ("01_GT/SEG", "01_RES"):
        (tmp_path / folder).mkdir(parents=True)
    for frame in expected["jaccard_per_reference_label"]:
        shutil.copy(GOLDEN / "ctc_seg" / f"reference_{frame}.tif", tmp_path / f"01_GT/SEG/man_seg{frame}.tif")
        shutil.copy(GOLDEN / "ctc_seg" / f"result_{frame}.tif", tmp_path / f"01_RES/mask{frame}.tif")
    answer = evaluate_files(tmp_path / "01_RES", tmp_path / "01_GT").as_json()
    found = answer["ctc"]
    assert set(found) == {"jaccard_per_reference_label", "seg_over_these_frames", "n_reference"}
    assert found["n_reference"] == expected["n_reference"]
    assert answer["overall"]["seg"] == pytest.approx(expected["seg_over_these_frames"], abs=1e-6)
    assert found["seg_over_these_frames"] == pytest.approx(expected["seg_over_these_frames"], abs=1e-6)
    for frame, labels in expected["jaccard_per_reference_label"].items():
        mine = found["jaccard_per_reference_label"][frame]
        assert {label: float(f"{jaccard:.6g}") for label, jaccard in mine.items()} == labels


def test_the_slices_of_a_stack_give_what_isbi_gives():
    masks, maps = zip(*(membranes(k) for k in range(3)), strict=True)
    found = evaluate_arrays(maps, masks)
    expected = isbi.evaluate_stack([mask > 0 for mask in masks], maps)
    assert found.isbi == expected
    for name, best in {"v_rand": "v_rand", "v_info": "v_info", "rand_error": "rand_error"}.items():
        assert found.scores[name].value == pytest.approx(expected.best[best].value, abs=1e-12)
    assert found.scores["pixel_f_error"].value == pytest.approx(expected.best["pixel_error"].value, abs=1e-12)
    assert found.scores["warping_error"].value == pytest.approx(expected.best["warping_error"].value, abs=1e-12)


def test_labels_and_probabilities_of_predict_are_taken_together(tmp_path):
    mask, chance = membranes(0)
    write(tmp_path / "truth", a=mask)
    write(tmp_path / "run", a_labels=(chance > 0.5).astype(np.uint16))
    both = np.stack([1 - chance, chance])
    tifffile.imwrite(tmp_path / "run" / "a_probabilities.tif", both, imagej=True, metadata={"axes": "CYX"})
    tifffile.imwrite(tmp_path / "run" / "a_overlay.png.tif", mask)  # any other name needs a truth
    (tmp_path / "run" / "a_overlay.png.tif").rename(tmp_path / "run" / "a_overlay.tif")
    found = evaluate_files(tmp_path / "run", tmp_path / "truth")
    assert found.isbi == isbi.evaluate_stack([mask], [chance])
    assert found.overlap == overlap.class_overlap(mask > 0, chance > 0.5)


def test_eight_bit_maps_are_told_from_masks_and_labels():
    mask, chance = membranes(0)
    eight_bit = (255 * chance).round().astype(np.uint8)
    found = evaluate_arrays([eight_bit], [mask])
    assert found.isbi == isbi.evaluate_stack([mask], [eight_bit.astype(np.float32) / np.float32(255)])
    assert "isbi" not in evaluate_arrays([(chance > 0.5).astype(np.uint8) * 255], [mask]).measures
    numbered = ndimage.label(chance > 0.5)[0].astype(np.uint8)
    found = evaluate_arrays([numbered], [mask])
    assert found.overlap == overlap.class_overlap(mask > 0, numbered > 0)
    assert any("every pixel that is not 0 counts as foreground" in note for note in found.notes)


def test_a_map_whose_inverse_is_far_better_is_warned_of_and_can_be_inverted():
    mask, chance = membranes(0)
    upright, wrong = evaluate_arrays([chance], [mask]), evaluate_arrays([1 - chance], [mask])
    assert upright.warnings == ()
    (warning,) = wrong.warnings
    assert f"{upright.scores['dice.1'].value:.4f}" in warning
    assert f"{wrong.scores['dice.1'].value:.4f}" in warning
    assert "--invert" in warning
    inverted = evaluate_arrays([1 - chance], [mask], invert=True)
    assert inverted.warnings == ()
    assert inverted.scores["v_rand"].value == pytest.approx(upright.scores["v_rand"].value, abs=1e-3)
    inverse_mask = evaluate_arrays([(chance < 0.5).astype(np.uint8)], [mask])
    assert len(inverse_mask.warnings) == 1
    inverted = evaluate_arrays([(chance < 0.5).astype(np.uint8)], [mask], invert=True)
    assert inverted.overlap == overlap.class_overlap(mask > 0, chance >= 0.5)
    with pytest.raises(ConfigError, match="--invert is for maps and masks"):
        evaluate_arrays(*many(1), invert=True)


def test_a_slice_without_interior_is_left_out_of_isbi_only():
    mask, chance = membranes(0)
    found = evaluate_arrays([chance, chance], [mask, mask * 0])
    assert found.isbi.per_threshold == isbi.evaluate_stack([mask], [chance]).per_threshold
    assert found.overlap == overlap.class_overlap(np.stack([mask > 0, mask < 0]), np.stack([chance, chance]) > 0.5)
    assert "not scored by isbi, since the truth has no cell interior: image 1" in found.notes


def test_a_warping_error_of_an_empty_map_is_warned_of():
    mask, chance = membranes(0)
    found = evaluate_arrays([np.minimum(chance, 0.55)], [mask])
    assert found.isbi.best["warping_error"].value == 0
    assert any("is meaningless" in warning for warning in found.warnings)


def test_classes_are_named_as_in_the_truth():
    rng = np.random.default_rng(0)
    index = ndimage.zoom(rng.integers(0, 3, (6, 6)), 4, order=0)
    noisy = np.where(rng.random(index.shape) < 0.1, 0, index)
    truth, prediction = (np.array([0, 7, 40])[each] for each in (index, noisy))
    found = evaluate_arrays([prediction], [truth], kind="classes")
    by_index = evaluate_arrays([noisy], [truth], kind="classes")
    expected = overlap.class_overlap(index, noisy, classes=range(3))
    assert found.classes == by_index.classes == (0, 7, 40)
    assert found.overlap == by_index.overlap == expected
    assert found.as_json()["overall"]["iou"] == {
        str(value): each.iou for value, each in zip((0, 7, 40), expected.classes, strict=True)
    }
    assert any("number the classes in order" in note for note in by_index.notes)
    unknown = evaluate_arrays([np.where(prediction == 7, 9, prediction)], [truth], kind="classes")
    assert unknown.classes == (0, 7, 9, 40)
    assert unknown.scores["iou.7"].value == unknown.scores["iou.9"].value == 0


def test_maps_of_three_classes_are_judged_by_their_largest():
    rng = np.random.default_rng(0)
    truth = ndimage.zoom(rng.integers(0, 3, (6, 6)), 4, order=0)
    chances = rng.dirichlet((1, 1, 1), truth.shape).transpose(2, 0, 1).astype(np.float32)
    found = evaluate_arrays([chances], [truth], kind="classes")
    assert found.overlap == overlap.class_overlap(truth, chances.argmax(0), classes=range(3))
    with pytest.raises(ImageError, match="2 probability maps, but the truth has 3 classes"):
        evaluate_arrays([chances[:2]], [truth], kind="classes")


def test_masks_told_to_be_instances_are_taken_piece_by_piece():
    truth, prediction = blobs(0)
    whole = evaluate_arrays([(prediction > 0) * 255], [(truth > 0) * 255], kind="instances")
    numbered = [ndimage.label(each > 0)[0] for each in (truth, prediction)]
    assert whole.matching == matching.match(*numbered).scores
    of_masks = evaluate_arrays([(prediction > 0) * 255], [truth])
    assert of_masks.matching == matching.match(truth, numbered[1]).scores
    assert "every 4-connected component counts as one object" in of_masks.warnings[0]


def test_measures_fit_the_data_or_are_chosen():
    predictions, truths = many(1)
    mask = membranes(0)[0]
    assert list(evaluate_arrays(predictions, truths).measures) == ["matching", "overlap"]
    assert list(evaluate_arrays([mask], [mask]).measures) == ["overlap"]
    chosen = evaluate_arrays(predictions, truths, metrics=["ctc"])
    expected = ctc.pool([ctc.match_frame(truths[0], predictions[0], frame="image 0")])
    assert chosen.ctc == expected
    assert {name: score.value for name, score in chosen.scores.items()} == {
        "seg": pytest.approx(expected.seg_over_these_frames, abs=1e-12),
        "det": pytest.approx(expected.det, abs=1e-12),
    }
    of_mask = evaluate_arrays([mask], [mask], metrics=["isbi"])
    assert of_mask.isbi == isbi.evaluate_stack([mask], [(mask > 0).astype(np.float32)])
    with pytest.raises(ConfigError, match="did you mean 'matching'"):
        evaluate_arrays(predictions, truths, metrics=["match"])
    with pytest.raises(ConfigError, match="measure 'matching' needs instances, but the truth contains classes"):
        evaluate_arrays([mask], [mask], metrics=["matching"])
    with pytest.raises(ConfigError, match="measure 'isbi' needs a mask of two classes"):
        evaluate_arrays(predictions, truths, metrics=["isbi"])


def test_ignored_pixels_take_part_in_nothing():
    rng = np.random.default_rng(0)
    ignore = np.zeros((48, 48), bool)
    ignore[:, 20:34] = True
    (prediction,), (truth,) = many(1)
    truth, prediction = np.where(ignore, 0, truth), np.where(ignore, 0, prediction)
    other = np.where(ignore, rng.integers(0, 300, ignore.shape), prediction)  # also numbers of objects that are there
    plain = evaluate_arrays([prediction], [truth], kind="instances", ignore=[ignore])
    assert evaluate_arrays([other], [truth], kind="instances", ignore=[ignore]).scores == plain.scores
    for number in (300, int(truth.max())):
        found = evaluate_arrays([prediction], [np.where(ignore, number, truth)], ignore=[ignore])
        assert found.scores == plain.scores
        assert found.images[0].objects == plain.images[0].objects
    cut = [np.delete(each, np.flatnonzero(ignore[0]), axis=1) for each in (prediction, truth)]
    assert plain.overlap == overlap.class_overlap(cut[1] > 0, cut[0] > 0)

    mask, chance = membranes(0, 48)
    noise = rng.random(mask.shape).astype(np.float32)
    one = evaluate_arrays([chance], [mask], ignore=[ignore])
    two = evaluate_arrays([np.where(ignore, noise, chance)], [np.where(ignore, 0, mask)], ignore=[ignore])
    assert one.scores == two.scores
    assert one.images[0].objects == two.images[0].objects


def test_ignored_pixels_decide_nothing_and_may_hold_anything():
    mask, chance = membranes(0, 48)
    ignore = np.zeros(mask.shape, bool)
    ignore[:9, :9] = True
    plain = evaluate_arrays([chance], [mask], ignore=[ignore])
    for anything in (np.nan, -7, 1e9):
        assert evaluate_arrays([np.where(ignore, anything, chance)], [mask], ignore=[ignore]).scores == plain.scores
    assert plain.images[0].ignored_pixels == 81
    assert "81 pixels ignored: not scored" in plain.notes
    index = np.arange(48 * 48).reshape(48, 48) % 5 % 3
    truth = np.array([0, 7, 40])[index]
    expected = evaluate_arrays([index], [truth], kind="classes", ignore=[ignore])
    found = evaluate_arrays([np.where(ignore, 5, index)], [truth], kind="classes", ignore=[ignore])
    assert found.classes == (0, 7, 40)
    assert found.scores == expected.scores
    with pytest.raises(ImageError, match="in any image outside the ignored pixels"):
        evaluate_arrays([chance], [mask], ignore=[ignore | True])


def test_ignored_pixels_add_no_class():
    truth = np.ones((20, 20), int)
    truth[5:12, 5:12] = 2
    ignore = np.zeros(truth.shape, bool)
    ignore[:, :2] = True
    for prediction in (truth, truth - 1):  # numbered as in the truth, and in order
        found = evaluate_arrays([prediction], [truth], kind="classes", ignore=[ignore])
        assert found.classes == (1, 2)
        assert found.scores["pixel_error"].value == 0
        assert found.scores["iou.1"].value == found.scores["iou.2"].value == 1


def test_a_mask_among_maps_is_a_map_of_zero_and_one():
    mask, chance = membranes(0)
    expected = evaluate_arrays([chance, mask / 255], [mask, mask])
    for high in (1, 2, 255):
        for dtype in (np.uint8, np.uint16, np.int32):
            found = evaluate_arrays([chance, (mask > 0).astype(dtype) * dtype(high)], [mask, mask])
            assert found.scores == expected.scores
    grey = np.full_like(mask, 128)
    found = evaluate_arrays([chance, grey], [mask, mask])
    assert found.images[1].isbi[9].n_foreground == 0
    assert found.images[1].isbi[5].n_foreground == mask.size


def test_labels_with_soft_edges_are_warned_of():
    truth = discs([(12, 12), (12, 36), (36, 12), (36, 36)], 8, 48)
    soft = (255 * ndimage.gaussian_filter(1.0 * (truth > 0), 1)).astype(np.uint8)
    for kind in ("instances", "classes"):
        (warning,) = evaluate_arrays([soft], [truth], kind=kind).warnings
        assert "predictions such as prediction 0 have soft edges" in warning
        assert evaluate_arrays([truth], [truth], kind=kind).warnings == ()


def test_an_empty_prediction_is_said_to_be_empty_and_not_inverted():
    mask, chance = membranes(0)
    for prediction in (mask * 0, chance * 0.4):
        (warning,) = [w for w in evaluate_arrays([prediction], [mask]).warnings if "says nothing" not in w]
        assert warning.startswith("the predictions are empty")
    (warning,) = evaluate_arrays([truth * 0 for truth in many(2)[1]], many(2)[1]).warnings
    assert warning.startswith("the predictions are empty")


def test_ignore_masks_beside_the_truth_are_found(tmp_path):
    predictions, truths = many(2)
    ignore = np.zeros((48, 48), np.uint8)
    ignore[:24] = 7
    write(tmp_path / "masks", a0=predictions[0], a1=predictions[1])
    write(tmp_path / "cells" / "labels", a0=truths[0], a1=truths[1])
    write(tmp_path / "cells" / "ignore", a1=ignore)
    expected = evaluate_arrays(predictions, truths, ignore=[None, ignore > 0]).scores
    for truth in ("cells", "cells/labels"):
        assert evaluate_files(tmp_path / "masks", tmp_path / truth).scores == expected
    (tmp_path / "cells" / "ignore").rename(tmp_path / "elsewhere")
    found = evaluate_files(tmp_path / "masks", tmp_path / "cells", ignore=tmp_path / "elsewhere")
    assert found.scores == expected


def test_one_ignore_mask_is_for_one_image(tmp_path):
    predictions, truths = many(2)
    ignore = np.zeros((48, 48), np.uint8)
    ignore[:24] = 1
    write(tmp_path, truth=truths[0], mask=predictions[0], skip=ignore)
    write(tmp_path / "masks", a=predictions[0], b=predictions[1])
    write(tmp_path / "truth", a=truths[0], b=truths[1])
    write(tmp_path / "others", c=ignore)
    found = evaluate_files(tmp_path / "mask.tif", tmp_path / "truth.tif", ignore=tmp_path / "skip.tif")
    assert found.scores == evaluate_arrays(predictions[:1], truths[:1], ignore=[ignore > 0]).scores
    with pytest.raises(
        DatasetError, match=r"skip.tif is a single file for 2 images; give a folder with one file per image"
    ):
        evaluate_files(tmp_path / "masks", tmp_path / "truth", ignore=tmp_path / "skip.tif")
    with pytest.raises(DatasetError, match="no file for any of the images"):
        evaluate_files(tmp_path / "masks", tmp_path / "truth", ignore=tmp_path / "others")


def test_the_truth_may_be_where_one_is(tmp_path, monkeypatch):
    predictions, truths = many(2)
    ignore = np.zeros((48, 48), np.uint8)
    ignore[:24] = 1
    write(tmp_path / "masks", a=predictions[0], b=predictions[1])
    write(tmp_path / "cells" / "labels", a=truths[0], b=truths[1])
    write(tmp_path / "cells" / "ignore", a=ignore, b=ignore)
    expected = evaluate_files(tmp_path / "masks", tmp_path / "cells" / "labels")
    monkeypatch.chdir(tmp_path / "cells" / "labels")
    assert expected.images[0].ignored_pixels == 24 * 48
    assert evaluate_files("../../masks", ".").scores == expected.scores
    one = evaluate_files("../../masks", "a.tif")
    assert one.image_scores(0) == expected.image_scores(0)
    challenge(tmp_path, {"000": blobs(0)})
    for place, truth in (("01_GT/SEG", "."), ("01_GT", "."), ("01_GT/SEG", "..")):
        monkeypatch.chdir(tmp_path / place)
        assert "ctc" in evaluate_files(tmp_path / "01_RES", truth).measures


def test_a_truth_of_probabilities_is_refused(tmp_path):
    mask, chance = membranes(0)
    write(tmp_path, a_probabilities=chance, b=mask)
    with pytest.raises(DatasetError, match=r"a_probabilities\.tif has probabilities, expected a label image as truth"):
        evaluate_files(tmp_path / "b.tif", tmp_path / "a_probabilities.tif")


def test_a_folder_without_truth_is_refused_whatever_is_ignored(tmp_path):
    predictions, _ = many(1)
    write(tmp_path / "masks", a=predictions[0])
    (tmp_path / "truth").mkdir()
    with pytest.raises(DatasetError, match="truth has no label image"):
        evaluate_files(tmp_path / "masks", tmp_path / "truth", ignore=tmp_path / "masks")


def discs(centres, radius, size):
    y, x = np.mgrid[:size, :size]
    labels = np.zeros((size, size), np.int32)
    for label, (cy, cx) in enumerate(centres, 1):
        labels[np.hypot(y - cy, x - cx) < radius] = label
    return labels


def test_planted_errors_are_found_with_their_type():
    rng = np.random.default_rng(3)
    size, pitch = 260, 20
    centres = [(y, x) + rng.uniform(-1, 1, 2) for y in range(12, size, pitch) for x in range(12, size, pitch)]
    full = discs(centres, 8, size)
    order = rng.permutation(len(centres)) + 1
    missed, invented, split = order[:8], order[8:16], order[16:24]
    merged = [(label, label + 1) for label in order[24:] if label % 13 not in (0, 12)]
    taken = {*missed, *invented, *split}
    pairs = []
    for pair in merged:
        if len(pairs) < 8 and not taken & set(pair):
            pairs.append(pair)
            taken |= set(pair)
    truth = full.copy()
    truth[np.isin(full, invented)] = 0
    prediction = full.copy()
    prediction[np.isin(full, missed)] = 0
    for label in split:
        (ys, xs), (cy, cx) = np.nonzero(full == label), centres[label - 1]
        angle = rng.uniform(0, np.pi)
        side = (ys - cy) * np.cos(angle) + (xs - cx) * np.sin(angle) > rng.uniform(-2, 2)
        prediction[ys[side], xs[side]] = 1000 + label
    for one, other in pairs:
        prediction[prediction == other] = one
    # outlines are never exact
    prediction = np.where(ndimage.minimum_filter(prediction, 3) == ndimage.maximum_filter(prediction, 3), prediction, 0)
    errors = evaluate_arrays([prediction], [truth]).images[0].objects.errors
    found = {(e.kind, tuple(sorted(e.truth or e.prediction))) for e in errors}
    planted = [
        (kind, (label,))
        for kind, labels in zip(("missed", "invented", "split"), order[:24].reshape(3, 8), strict=True)
        for label in labels
    ]
    n = len(found & {*planted, *(("merged", pair) for pair in pairs)})
    assert len(errors) == 32

    # objects of two classes, some touching one of the other class; eight are given the wrong one
    classes = 1 + (full % 2) * (full > 0)
    classes[full == 0] = 0
    classes = np.where(np.isin(full, [pair[0] for pair in pairs]), ndimage.maximum_filter(classes, 5), classes)
    wrong = [label for label in order if label not in {p for pair in pairs for p in pair}][:8]
    given = classes.copy()
    for label in wrong:
        given[full == label] = 3 - given[full == label]
    errors = evaluate_arrays([given], [classes], kind="classes").images[0].objects.errors
    places = {full[(e.box[0] + e.box[1]) // 2, (e.box[2] + e.box[3]) // 2] for e in errors if e.kind == "mislabelled"}
    n += len(places & set(wrong))
    assert len(errors) == 8
    assert n >= 38


def test_errors_are_worst_first_and_boxed():
    truth, prediction = np.zeros((2, 12, 20), int)
    truth[1:3, 1:3], truth[5:11, 4:9] = 3, 9
    prediction[2:8, 12:17] = 4
    first, second, third = evaluate_arrays([prediction], [truth], kind="instances").images[0].objects.errors
    assert (first.kind, first.pixels, first.box) == ("missed", 30, (5, 11, 4, 9))
    assert (second.kind, second.pixels, second.box) == ("invented", 30, (2, 8, 12, 17))
    assert (third.kind, third.truth, third.box) == ("missed", (3,), (1, 3, 1, 3))


def test_a_mislabelled_object_is_nothing_else():
    truth = np.zeros((10, 30), int)
    truth[2:8, 2:8], truth[2:8, 8:14], truth[2:8, 20:26] = 1, 2, 1
    prediction = np.where(truth == 1, 2, truth)  # the first now touches its neighbour of class 2
    objects = evaluate_arrays([prediction], [truth], kind="classes").images[0].objects
    assert [(e.kind, e.detail) for e in objects.errors] == [("mislabelled", "class 1 as class 2")] * 2
    assert sorted(row.kind for row in objects.rows[:3]) == ["merged", "mislabelled", "mislabelled"]


def test_errors_of_classes_are_worst_first_too():
    truth = np.zeros((12, 40), int)
    truth[2:4, 2:4], truth[2:8, 10:16], truth[2:6, 30:34] = 1, 1, 2
    prediction = np.where(truth == 2, 1, 0)
    errors = evaluate_arrays([prediction], [truth], kind="classes").images[0].objects.errors
    assert [(error.kind, error.pixels) for error in errors] == [("missed", 36), ("mislabelled", 16), ("missed", 4)]


def test_intervals_are_over_images_or_objects_or_none():
    predictions, truths = many(6)
    found = evaluate_arrays(predictions, truths)
    counts = [image.objects.scores.per_threshold[0] for image in found.images]
    units = [(2 * at.tp, 2 * at.tp + at.fp + at.fn) for at in counts]
    assert found.scores["f1"] == confidence.bootstrap(units, unit="image")
    few = evaluate_arrays(predictions[:3], truths[:3]).scores
    assert few["f1"].unit == "object"
    assert few["f1"].low < few["f1"].value < few["f1"].high
    assert few["f1"].value == pytest.approx(
        matching.pool([i.objects.scores for i in found.images[:3]]).per_threshold[0].f1
    )
    assert few["pixel_error"].low is None
    assert few["pixel_error"].reason == "3 images, an interval needs 5"
    one = evaluate_arrays(predictions[:1], truths[:1]).scores["f1"]
    assert one.low is None
    assert one.reason.endswith("needs 5 images or 20 objects")


@pytest.mark.parametrize(
    "name", ["f1", "precision", "recall", "mean_matched_iou", "panoptic_quality", "average_precision"]
)
def test_objects_add_up_to_the_score_of_images(name):
    found = evaluate_arrays(*many(3))
    units = np.array(list(found._object_ratios(name)), float)
    assert units[:, 0].sum() / units[:, 1].sum() == pytest.approx(found.scores[name].value, abs=1e-12)


def test_a_comparison_of_a_prediction_with_itself_is_zero():
    predictions, truths = many(6)
    found = evaluate_arrays(predictions, truths)
    same = found.compare(found)
    assert same.pop("mean_average_precision").value == 0
    assert {(i.value, i.low, i.high) for i in same.values()} == {(0.0, 0.0, 0.0)}
    better = evaluate_arrays(truths, truths)
    difference = better.compare(found)["f1"]
    assert difference.value == pytest.approx(1 - found.scores["f1"].value)
    assert difference.low > 0
    with pytest.raises(DatasetError, match="the same images"):
        found.compare(evaluate_arrays(predictions[:5], truths[:5]))


@pytest.mark.parametrize("n", [1, 4, 9])  # images without a true object, of ten
def test_a_difference_is_that_of_the_two_scores_where_images_are_empty(n):
    predictions, truths = many(10)
    truths = [truth * (k >= n) for k, truth in enumerate(truths)]
    better, worse = evaluate_arrays(truths, truths), evaluate_arrays(predictions, truths)
    for one, other in ((better, worse), (worse, better)):
        differences = one.compare(other)
        assert list(differences) == list(one.scores)
        for name, difference in differences.items():
            assert difference.value == pytest.approx(one.scores[name].value - other.scores[name].value, abs=1e-12)
    assert differences["f1"].high < 0
    assert differences["f1"].n == 10


def test_distances_are_compared_where_both_have_one():
    truths = [discs([(12, 12), (30, 30)], 5 + k, 48) > 0 for k in range(6)]
    shifted = [np.roll(truth, 1) for truth in truths]
    one = evaluate_arrays([truths[0] * 0, *truths[1:]], truths, kind="classes")
    other = evaluate_arrays([*shifted[:5], truths[5] * 0], truths, kind="classes")
    apart = [other.image_scores(k)["hausdorff_95_px.1"] for k in range(1, 5)]
    difference = one.compare(other)["hausdorff_95_px.1"]
    assert (difference.value, difference.n) == (-np.mean(apart), 4)
    assert one.compare(other)["iou.1"].n == 6


def test_an_image_with_nothing_in_truth_and_prediction_has_no_scores_of_objects():
    predictions, truths = many(2)
    found = evaluate_arrays([predictions[0], truths[0] * 0], [truths[0], truths[0] * 0])
    names = ("f1", "average_precision", "mean_average_precision")
    assert [found.image_scores(1)[name] for name in names] == [None] * 3
    invented = evaluate_arrays(predictions, [truths[0], truths[0] * 0])
    assert [invented.image_scores(1)[name] for name in names] == [0] * 3


def test_what_is_invented_in_frames_without_true_objects_counts_for_detection():
    predictions, truths = many(6)
    truths = [truth * (k != 2) for k, truth in enumerate(truths)]
    found = evaluate_arrays(predictions, truths, kind="instances", metrics=["ctc"])
    assert found.scores["det"].value == pytest.approx(found.ctc.det, abs=1e-12)
    assert found.scores["det"].n == 6


def challenge(folder, frames, with_markers=True):
    for name in ("01_GT/SEG", "01_RES", *(["01_GT/TRA"] if with_markers else [])):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number, (truth, prediction) in frames.items():
        tifffile.imwrite(folder / f"01_GT/SEG/man_seg{number}.tif", truth)
        tifffile.imwrite(folder / f"01_RES/mask{number}.tif", prediction)
        if with_markers:
            tifffile.imwrite(folder / f"01_GT/TRA/man_track{number}.tif", truth)
    return folder


def test_detection_is_of_the_markers_and_frames_without_gold_truth_count_for_it(tmp_path):
    frames = {f"{k:03}": blobs(k) for k in range(3)}
    challenge(tmp_path, frames)
    (tmp_path / "01_GT/SEG/man_seg001.tif").unlink()
    markers = {number: np.where(truth % 2, truth, 0) for number, (truth, _) in frames.items()}
    for number, marks in markers.items():
        tifffile.imwrite(tmp_path / f"01_GT/TRA/man_track{number}.tif", marks)
    seg = ctc.pool([ctc.match_frame(*frames[number], frame=number) for number in ("000", "002")])
    det = ctc.pool([ctc.match_frame(markers[number], frames[number][1], frame=number) for number in frames])
    for truth in ("", "01_GT", "01_GT/SEG"):
        found = evaluate_files(tmp_path / "01_RES" if truth else tmp_path, tmp_path / truth)
        answer = found.as_json()
        assert list(found.measures) == ["matching", "overlap", "ctc"]
        assert answer["ctc"]["seg_over_these_frames"] == answer["overall"]["seg"] == seg.seg_over_these_frames
        assert answer["ctc"]["det"] == det.det
        assert answer["overall"]["det"] == pytest.approx(det.det, abs=1e-12)
        assert answer["ctc"]["n_missed"] == det.n_missed
        assert [image.name for image in found.images] == ["000", "002"]


def test_predictions_for_challenge_frames_may_be_named_as_predict_names_them(tmp_path):
    challenge(tmp_path, {"004": blobs(4)})
    (tmp_path / "01_RES/mask004.tif").rename(tmp_path / "01_RES/t004_labels.tif")
    write(tmp_path / "01", t004=blobs(4)[0])
    found = evaluate_files(tmp_path / "01_RES", tmp_path / "01")
    assert found.ctc.n_reference == len(np.unique(blobs(4)[0])) - 1
    assert found.images[0].image is not None


def test_several_videos_are_scored_together_and_one_by_one(tmp_path):
    challenge(tmp_path, {"000": blobs(0), "001": blobs(1)})
    second = challenge(tmp_path / "second", {"000": blobs(2)})
    for name in ("GT", "RES"):
        (second / f"01_{name}").rename(tmp_path / f"02_{name}")
    answer = evaluate_files(tmp_path, tmp_path).as_json()["ctc"]
    frames = [ctc.match_frame(*blobs(k), frame=f"{k}") for k in range(3)]
    assert answer["seg_over_these_frames"] == ctc.pool(frames).seg_over_these_frames
    assert answer["det"] == ctc.pool(frames).det
    assert answer["sequences"]["01"]["seg_over_these_frames"] == ctc.pool(frames[:2]).seg_over_these_frames
    assert answer["sequences"]["02"]["det"] == ctc.pool(frames[2:]).det
    assert list(answer["jaccard_per_reference_label"]) == ["01_000", "01_001", "02_000"]
    shutil.rmtree(tmp_path / "02_GT/TRA")
    without = evaluate_files(tmp_path, tmp_path).as_json()["ctc"]
    seg = ("jaccard_per_reference_label", "seg_over_these_frames", "n_reference")
    assert without["det"] == ctc.pool(frames[:2]).det
    assert without["sequences"]["01"] == answer["sequences"]["01"]
    assert without["sequences"]["02"] == {name: answer["sequences"]["02"][name] for name in seg}


def test_a_video_without_a_true_object_has_no_scores_of_its_own(tmp_path):
    challenge(tmp_path, {"000": blobs(0)})
    second = challenge(tmp_path / "second", {"000": (np.zeros_like(blobs(1)[0]), blobs(1)[1])})
    for name in ("GT", "RES"):
        (second / f"01_{name}").rename(tmp_path / f"02_{name}")
    answer = evaluate_files(tmp_path, tmp_path).as_json()["ctc"]
    frames = [ctc.match_frame(*blobs(0), frame="0"), ctc.match_frame(0 * blobs(1)[0], blobs(1)[1], frame="1")]
    assert list(answer["sequences"]) == ["01"]
    assert answer["det"] == ctc.pool(frames).det < answer["sequences"]["01"]["det"]


def test_ignore_masks_and_images_of_challenge_frames_are_used_or_refused(tmp_path):
    challenge(tmp_path, {"000": blobs(0), "001": blobs(1)})
    ignore = np.zeros((48, 48), np.uint8)
    ignore[:24] = 1
    write(tmp_path / "skip", t001=ignore)
    write(tmp_path / "others", frame001=ignore)
    paths = tmp_path / "01_RES", tmp_path / "01_GT"
    found = evaluate_files(*paths, ignore=tmp_path / "skip", images=tmp_path / "skip")
    assert [image.ignored_pixels for image in found.images] == [0, 24 * 48]
    assert [image.image is not None for image in found.images] == [False, True]
    for given in ("others", "others/frame001.tif"):
        for option in ("ignore", "images"):
            with pytest.raises(DatasetError, match=r"has no file for any of the images, such as t000\.tif"):
                evaluate_files(*paths, **{option: tmp_path / given})
    for name in ("GT", "RES"):
        shutil.copytree(tmp_path / f"01_{name}", tmp_path / f"02_{name}")
    with pytest.raises(DatasetError, match=r"such as 01/t000\.tif"):
        evaluate_files(tmp_path, tmp_path, ignore=tmp_path / "skip")
    write(tmp_path / "skip" / "02", t000=ignore)
    found = evaluate_files(tmp_path, tmp_path, ignore=tmp_path / "skip")
    assert [image.ignored_pixels for image in found.images] == [0, 0, 24 * 48, 0]


def test_unannotated_cells_of_a_challenge_frame_are_not_invented(tmp_path):
    truth, prediction = np.zeros((2, 20, 40), np.uint16)
    truth[4:12, 4:12] = 1
    prediction[4:12, 4:13] = 1
    prediction[4:12, 24:32] = 2
    challenge(tmp_path, {"000": (truth, prediction)})
    complete = evaluate_files(tmp_path / "01_RES", tmp_path / "01_GT")
    assert complete.images[0].objects.count("invented") == 1
    marks = np.where(prediction == 2, 5, truth)
    tifffile.imwrite(tmp_path / "01_GT/TRA/man_track000.tif", marks)
    partly = evaluate_files(tmp_path / "01_RES", tmp_path / "01_GT")
    assert partly.images[0].objects.errors == ()
    assert any("only partly annotated" in note for note in partly.notes)
    assert partly.ctc.seg_over_these_frames == complete.ctc.seg_over_these_frames == 64 / 72


def test_what_reaches_from_an_unannotated_cell_into_an_outlined_one_is_not_invented(tmp_path):
    truth, marks = np.zeros((2, 20, 40), np.uint16)
    truth[4:12, 4:12] = 1
    marks[8, 8], marks[8, 14] = 1, 5  # around the second, background is unknown as far as the cell reaches
    sliver, large = np.zeros((2, 20, 40), np.uint16)
    sliver[4:12, 4:11], sliver[6:11, 11:18] = 1, 2
    large[4:12, 8:18] = 1  # more than half of it where nothing is known, but it matches the outlined cell

    def score(prediction):
        challenge(tmp_path, {"000": (truth, prediction)})
        tifffile.imwrite(tmp_path / "01_GT/TRA/man_track000.tif", marks)
        return evaluate_files(tmp_path / "01_RES", tmp_path / "01_GT")

    found = score(sliver)
    assert found.images[0].objects.errors == ()
    assert found.images[0].objects.scores.n_prediction == 1
    assert found.ctc.seg_over_these_frames == 56 / 64  # the challenge takes all as it is
    assert score(large).scores["f1"].value == 1
    marks[8, 14] = 0
    assert score(sliver).images[0].objects.count("invented") == 1
    assert score(large).scores["f1"].value == 0


def test_imagej_rois_are_a_truth(tmp_path):
    import roifile

    prediction = np.zeros((20, 20), np.uint16)
    prediction[2:8, 3:9] = 1
    write(tmp_path / "masks", a=prediction)
    (tmp_path / "truth").mkdir()
    square = roifile.ImagejRoi.frompoints([[3, 2], [9, 2], [9, 8], [3, 8]])
    roifile.roiwrite(tmp_path / "truth" / "a.zip", [square])
    assert evaluate_files(tmp_path / "masks", tmp_path / "truth", kind="instances").scores["f1"].value == 1
    square.t_position, square.z_position = 2, 1  # of the image, whose frames the prediction has as a plain stack
    roifile.roiwrite(tmp_path / "truth" / "a.zip", [square], mode="w")
    write(tmp_path / "masks", a=np.stack([prediction * (frame == 3) for frame in range(6)]))
    (tmp_path / "images").mkdir()
    hyperstack = {"imagej": True, "metadata": {"axes": "TZYX"}}
    tifffile.imwrite(tmp_path / "images" / "a.tif", np.zeros((2, 3, 20, 20), np.uint8), **hyperstack)
    assert evaluate_files(tmp_path / "masks", tmp_path / "truth", kind="instances").scores["f1"].value == 1


def a_set(folder, **changes):
    predictions, truths = many(2)
    write(folder / "masks", a=predictions[0], b=predictions[1])
    write(folder / "truth", a=truths[0], b=truths[1])
    for path, array in changes.items():
        place, name = path.split("_", 1)
        if array is None:
            (folder / place / f"{name}.tif").unlink()
        else:
            tifffile.imwrite(
                folder / place / f"{name}.tif", array, photometric="rgb" if array.shape[-1] == 3 else "minisblack"
            )
    return folder / "masks", folder / "truth"


BAD = {
    "shapes differ": ({"masks_a": np.zeros((48, 47), np.uint8)}, "a.tif has shape (48, 47)"),
    "fractions": (
        {"masks_a": np.full((48, 48), 1.5, np.float32)},
        "contains fractions, but the truth contains instances",
    ),
    "float truth": ({"truth_a": np.full((48, 48), 1.5, np.float32)}, "not whole numbers, such as 1.5"),
    "negative": ({"masks_a": np.full((48, 48), -1, np.int16)}, "negative labels, such as -1"),
    "negative truth": ({"truth_b": np.full((48, 48), -3, np.int16)}, "negative labels, such as -3"),
    "colours": ({"masks_a": np.arange(48 * 48 * 3, dtype=np.uint8).reshape(48, 48, 3)}, "has 3 channels"),
    "missing": ({"masks_b": None}, "b.tif has no prediction in"),
    "extra": ({"truth_b": None}, "b.tif has no truth in"),
    "another length": ({"masks_a": np.zeros((3, 48, 48), np.uint8)}, "has 3 frames, but the truth"),
    "empty": (
        {"truth_a": np.zeros((48, 48), np.uint8), "truth_b": np.zeros((48, 48), np.uint8)},
        "no object and no foreground in any image",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_one_sentence(tmp_path, case):
    changes, sentence = BAD[case]
    masks, truth = a_set(tmp_path, **changes)
    with pytest.raises(SeptumError) as caught:
        evaluate_files(masks, truth)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("low", "high"), [(-0.1, 1.0), (0.0, 1.5), (-4.2, 3.9), (0.0, np.nan)])
def test_probabilities_outside_0_to_1_are_refused(low, high):
    mask, chance = membranes(0)
    with pytest.raises(ImageError, match=r"expected 0\.\.1"):
        evaluate_arrays([np.where(chance < 0.5, low, high).astype(np.float32)], [mask])


def test_folders_without_images_and_long_lists_of_names(tmp_path):
    predictions, truths = many(1)
    write(tmp_path / "truth", a=truths[0])
    (tmp_path / "nothing").mkdir()
    for pair in (("nothing", "truth"), ("truth", "nothing")):
        with pytest.raises(DatasetError, match=r"nothing has no label image; Septum reads .*\.jpeg \.zip and OME-Zarr"):
            evaluate_files(*(tmp_path / name for name in pair))
    write(tmp_path / "masks", **{f"{k:02d}xyz": predictions[0] for k in range(13)})
    with pytest.raises(DatasetError, match=r"such as a.tif or a_labels.tif; known are: 00xyz, .*, 09xyz and 3 more$"):
        evaluate_files(tmp_path / "masks", tmp_path / "truth")


def test_accents_that_a_mac_takes_apart_are_the_same_name(tmp_path):
    predictions, truths = many(1)
    for folder, accent, array in (("truth", "\u00e9", truths[0]), ("masks", "e\u0301", predictions[0])):
        write(tmp_path / folder, a=array)
        (tmp_path / folder / "a.tif").rename(tmp_path / folder / f"h{accent}la.tif")
    found = evaluate_files(tmp_path / "masks", tmp_path / "truth")
    assert found.scores == evaluate_arrays(predictions, truths).scores


def test_arrays_are_as_strict_as_files():
    (prediction,), (truth,) = many(1)
    for wrong in (truth.astype(float), -truth.astype(int)):
        with pytest.raises(ImageError, match="truth 0 has"):
            evaluate_arrays([prediction], [wrong], kind="instances")
    with pytest.raises(ImageError, match="prediction 0 has negative labels"):
        evaluate_arrays([-prediction.astype(int)], [truth], kind="instances")
    with pytest.raises(DatasetError, match="got 2 predictions for 1 truths"):
        evaluate_arrays([prediction] * 2, [truth], kind="instances")
    with pytest.raises(ImageError, match="every pixel of truth 0 is ignored"):
        evaluate_arrays([prediction] * 2, [truth] * 2, kind="instances", ignore=[truth >= 0, None])


def test_a_challenge_without_a_frame_or_with_one_too_many_is_refused(tmp_path):
    challenge(tmp_path, {"000": blobs(0), "001": blobs(1)})
    mask = tmp_path / "01_RES/mask001.tif"
    kept = mask.rename(tmp_path / "mask001.tif")
    with pytest.raises(DatasetError, match=r"man_seg001.tif has no prediction mask001.tif"):
        evaluate_files(tmp_path / "01_RES", tmp_path / "01_GT")
    kept.rename(mask)
    shutil.copy(mask, tmp_path / "01_RES/mask002.tif")
    with pytest.raises(DatasetError, match=r"mask002.tif has no truth"):
        evaluate_files(tmp_path / "01_RES", tmp_path / "01_GT")


def test_json_is_plain_and_complete():
    predictions, truths = many(2)
    answer = json.loads(json.dumps(evaluate_arrays(predictions, truths).as_json(), allow_nan=False))
    assert answer["matching"]["per_threshold"] == [
        json.loads(json.dumps(asdict(row))) for row in evaluate_arrays(predictions, truths).matching.per_threshold
    ]
    for place in (answer["overall"], *answer["images"]):
        assert {"f1", "mean_matched_iou", "pixel_error"} <= set(place)
        assert set(place["iou"]) == set(place["dice"]) == {"0", "1"}
    assert answer["errors"] == {
        kind: sum(image["errors"][kind] for image in answer["images"]) for kind in answer["errors"]
    }


def test_the_csv_has_a_line_per_object():
    predictions, truths = many(2)
    found = evaluate_arrays(predictions, truths)
    lines = objects_csv(found).splitlines()
    assert len(lines) - 1 == sum(i.objects.n_truth + i.objects.scores.per_threshold[0].fp for i in found.images)
    header = lines[0].split(",")
    row = dict(zip(header, lines[1].split(","), strict=True))
    box = np.s_[int(row["top_px"]) :, int(row["left_px"]) :]
    assert (truths[0][box] == int(row["truth"])).sum() == int(row["truth_px"])


def test_progress_is_told_image_by_image():
    calls = []
    evaluate_arrays(*many(3), progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("what", ["predictions", "probabilities", "images"])
def test_arrays_with_channels_last_are_refused(what):
    labels = [np.ones((8, 9), int)]
    arrays = {"predictions": labels, "truth": labels, what: [np.zeros((8, 9, 3))]}
    message = rf"number 0 of the {what} has shape \(8, 9, 3\), .* np\.moveaxis\(image, -1, 0\)"
    with pytest.raises(ImageError, match=message):
        evaluate_arrays(**arrays)
