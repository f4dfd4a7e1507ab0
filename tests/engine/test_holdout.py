import numpy as np
import pytest

from septum.data.dataset import from_arrays
from septum.data.simulate import cells
from septum.engine.holdout import hold_out


def dataset(count, size=(60, 80)):
    pairs = [cells(size, 8, seed, diameter=12) for seed in range(count)]
    return from_arrays([image for image, _ in pairs], [labels for _, labels in pairs], kind="instances")


@pytest.mark.parametrize(("count", "expected"), [(2, [1]), (5, [4]), (10, [8, 9]), (24, [20, 21, 22, 23])])
def test_the_last_fifth_of_several_images_is_held_out_whole_and_contiguous(count, expected):
    kept = hold_out(dataset(count, (40, 40)))
    assert sorted(kept.blocks) == expected
    assert [kept.trains_on(index) for index in range(count)] == [index not in expected for index in range(count)]


def test_a_quarter_of_the_only_image_is_held_out_with_a_guard_of_one_object_diameter():
    data = dataset(1)
    kept = hold_out(data)
    judged, guarded = np.zeros((60, 80), bool), np.zeros((60, 80), bool)
    judged[kept.blocks[0]] = True
    guarded[kept.guards[0]] = True
    assert judged.mean() == pytest.approx(0.25)
    assert (guarded & ~judged).any()
    assert not (judged & ~guarded).any()
    areas = np.bincount(data.samples[0].labels.ravel())[1:]
    diameter = round(2 * np.sqrt(np.median(areas) / np.pi))
    # distance from the block to the nearest pixel that is trained on
    rows, columns = np.nonzero(judged)
    free = np.argwhere(~guarded)
    apart = np.minimum.reduce(
        [
            np.maximum(
                np.maximum(free[:, 0] - rows.max(), rows.min() - free[:, 0]),
                np.maximum(free[:, 1] - columns.max(), columns.min() - free[:, 1]),
            )
        ]
    )
    assert apart.min() == diameter + 1
    assert f"guard of {diameter} pixels" in kept.description
    assert "optimistic" in kept.description


def test_a_window_without_any_object_is_not_chosen():
    image, labels = cells((40, 40), 6, 0, diameter=12)
    data = from_arrays([image] * 3, [labels, labels, np.zeros_like(labels)], kind="instances")
    assert sorted(hold_out(data).blocks) == [1]


def test_frames_that_are_annotated_whole_are_judged_rather_than_partly_annotated_ones():
    image, labels = cells((40, 40), 6, 0, diameter=12)
    partly = np.zeros((40, 40), bool)
    partly[:30] = True
    data = from_arrays([image] * 4, [labels] * 4, [None, None, partly, partly], kind="instances")
    assert sorted(hold_out(data).blocks) == [1]
