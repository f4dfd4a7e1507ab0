"""The tables and the CSV of an evaluation against its numbers."""

import csv
import io

import numpy as np
import pytest

from septum.core.metrics.confidence import Interval
from septum.evaluation.evaluate import evaluate_arrays
from septum.evaluation.tables import (
    class_rows,
    difference_table,
    format_interval,
    format_score,
    objects_csv,
    score_columns,
    score_label,
    score_tables,
    split_by_class,
)


def instances(n=6, seed=0):
    """Evaluation of n images with a grid of squares, some of them missed."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((30, 30), int)
    for k in range(9):
        truth[10 * (k // 3) : 10 * (k // 3) + 6, 10 * (k % 3) : 10 * (k % 3) + 6] = k + 1
    predictions = [np.where(np.isin(truth, rng.choice(9, 2 + seed, replace=False) + 1), 0, truth) for _ in range(n)]
    return evaluate_arrays(predictions, [truth] * n)


def classes(n_classes):
    truth = np.arange(n_classes).repeat(20).reshape(n_classes, 20)
    return evaluate_arrays([np.roll(truth, 3, axis=1) % n_classes] * 5, [truth] * 5, kind="classes")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "0.5000"), (0, "0.0000"), (0.01, "0.0100"), (0.0099, "0.009900"), (-0.002, "-0.002000"), (None, "-")],
)
def test_small_scores_have_six_decimals(value, text):
    assert format_score(value) == text


def test_an_interval_is_text_only_if_there_is_one():
    assert format_interval(Interval(0.5, 0.25, 0.75, 5, "image")) == "0.2500 to 0.7500"
    assert format_interval(Interval(0.5, None, None, 2, "image", "too few")) == ""


def test_the_table_of_images_ends_with_all_of_them():
    evaluation = instances(3)
    table = score_tables(evaluation)[0]
    assert table.title == "per image"
    assert [row[0] for row in table.rows] == ["image 0", "image 1", "image 2", "all"]
    columns = score_columns(evaluation)
    assert table.header == ["image", "objects", *evaluation.error_kinds, *(score_label(evaluation, c) for c in columns)]
    objects = [[int(cell) for cell in row[1:6]] for row in table.rows]
    assert [sum(column) for column in zip(*objects[:-1], strict=True)] == objects[-1]
    f1 = table.header.index("F1")
    assert [row[f1] for row in table.rows[:-1]] == [format_score(evaluation.image_scores(k)["f1"]) for k in range(3)]
    assert table.rows[-1][f1] == format_score(evaluation.scores["f1"].value)


def test_a_single_image_has_no_table_of_its_own():
    assert [table.title for table in score_tables(instances(1))] == ["all images"]


def test_scores_come_with_their_interval_or_with_the_reason_why_there_is_none():
    evaluation = instances()
    table = score_tables(evaluation)[-1]
    rows = {row[0]: row[1:] for row in table.rows}
    f1 = evaluation.scores["f1"]
    assert rows["F1"] == [format_score(f1.value), f"{format_interval(f1)} over 6 images"]
    assert rows["mAP"][1] == "not available for a mean over thresholds"
    assert [row[0] for row in table.rows].count("IoU") == 1  # of the foreground; that of the background is left out


def test_the_difference_to_the_same_predictions_is_0():
    table = difference_table(instances(), instances())
    assert {row[1] for row in table.rows} == {"0.0000"}
    other = difference_table(instances(), instances(seed=1))
    assert {row[1] for row in other.rows} != {"0.0000"}


@pytest.mark.parametrize(("n_classes", "own_table"), [(4, False), (5, True)])
def test_many_classes_have_a_table_of_their_own(n_classes, own_table):
    evaluation = classes(n_classes)
    by_class, others = split_by_class(evaluation, ["pixel_error", "iou.0", "iou.1", "dice.0"])
    assert by_class == (["iou", "dice"] if own_table else [])
    assert others == (["pixel_error"] if own_table else ["pixel_error", "iou.0", "iou.1", "dice.0"])
    titles = [table.title for table in score_tables(evaluation)]
    assert titles == ["per image", "per class", "all images"] if own_table else ["per image", "all images"]
    row = class_rows(evaluation, evaluation.scores, ["iou"])[1]
    iou = evaluation.scores["iou.1"]
    assert row == ["1", f"{format_score(iou.value)} ({format_interval(iou)})"]


def test_scores_are_named_by_their_class_where_there_are_several():
    assert score_label(instances(1), "iou.1") == "IoU"
    assert score_label(classes(3), "iou.2") == "IoU 2"
    assert score_label(classes(3), "pixel_error") == "pixel error"
    mask = np.kron([[0, 1], [1, 0]], np.ones((6, 6), int))
    chance = np.clip(mask * 0.6 + 0.1, 0, 1).astype(np.float32)
    of_mask = evaluate_arrays([chance], [mask])
    best = of_mask.isbi.best["v_rand"].threshold
    assert score_label(of_mask, "v_rand") == f"V_Rand at {best:.1f}"
    thresholds = next(table for table in score_tables(of_mask) if table.title == "per threshold")
    assert [row[0] for row in thresholds.rows] == [f"{k / 10:.1f}" for k in range(10)]


def test_the_csv_has_a_row_per_object_and_the_classes_only_of_classes():
    evaluation = instances(2)
    rows = list(csv.DictReader(io.StringIO(objects_csv(evaluation))))
    assert len(rows) == sum(len(image.objects.rows) for image in evaluation.images)
    assert "truth_class" not in rows[0]
    for row, expected in zip(rows, (row for image in evaluation.images for row in image.objects.rows), strict=True):
        y0, y1, x0, x1 = expected.box
        assert [int(row[f"{side}_px"]) for side in ("top", "left", "height", "width")] == [y0, x0, y1 - y0, x1 - x0]
        assert (row["kind"], row["matched"]) == (expected.kind, str(int(expected.matched)))
    row = next(csv.DictReader(io.StringIO(objects_csv(classes(3)))))
    assert row["truth_class"] in ("1", "2")
