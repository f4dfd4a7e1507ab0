import numpy as np
import pytest

from septum.core.region import shape_of
from septum.data.dataset import from_arrays
from septum.data.simulate import cells
from septum.training.holdout import HoldOut, hold_out, pixels_of


def dataset(count, size=(60, 80)):
    pairs = [cells(size, 8, seed, diameter=12) for seed in range(count)]
    return from_arrays([image for image, _ in pairs], [labels for _, labels in pairs], kind="instances")


@pytest.mark.parametrize(("count", "expected"), [(2, [1]), (5, [4]), (10, [8, 9]), (24, [20, 21, 22, 23])])
def test_the_last_fifth_of_several_images_is_held_out_whole_and_consecutive(count, expected):
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
    assert f"guard strip of {diameter} pixels" in kept.description
    assert "optimistic" in kept.description


def test_a_window_without_any_object_is_not_chosen():
    image, labels = cells((40, 40), 6, 0, diameter=12)
    data = from_arrays([image] * 3, [labels, labels, np.zeros_like(labels)], kind="instances")
    assert sorted(hold_out(data).blocks) == [1]


def test_fully_annotated_frames_are_held_out_rather_than_partly_annotated_ones():
    image, labels = cells((40, 40), 6, 0, diameter=12)
    partly = np.zeros((40, 40), bool)
    partly[:30] = True
    data = from_arrays([image] * 4, [labels] * 4, [None, None, partly, partly], kind="instances")
    assert sorted(hold_out(data).blocks) == [1]


def test_the_only_image_with_background_is_left_for_the_training():
    """Chosen by annotated pixels alone it would be the third, and all that is learned from were foreground."""
    image, labels = cells((40, 40), 6, 0, diameter=12)
    data = from_arrays([image] * 3, [labels] * 3, [labels == 0, labels == 0, None], kind="instances")
    assert sorted(hold_out(data).blocks) == [1]


def test_the_only_image_with_a_class_is_left_for_the_training():
    image, labels = cells((40, 40), 6, 0, diameter=12)
    two, three = np.minimum(labels, 1), np.minimum(labels, 2)
    data = from_arrays([image] * 4, [two, two, two, three], kind="classes")
    assert sorted(hold_out(data).blocks) == [2]


@pytest.mark.parametrize("empty", [0, 1])
def test_if_every_image_is_needed_for_training_a_block_of_one_is_held_out(empty):
    """One image with objects and one without: held out whole, either leaves nothing to learn or nothing to judge."""
    image, labels = cells((60, 80), 8, 0, diameter=12)
    truth = [labels, labels]
    truth[empty] = np.zeros_like(labels)
    data = from_arrays([image] * 2, truth, kind="instances")
    kept = hold_out(data)
    assert list(kept.blocks) == list(kept.guards) == [1 - empty]
    assert kept.trains_on(0)
    assert kept.trains_on(1)
    assert kept.description == (
        f"each image is the only one with some class or with objects, so part of image {1 - empty} is held out for "
        "validation (rows 0-59, columns 0-19, plus an unused guard strip of 12 pixels); validating on part of a "
        "training image gives optimistic scores"
    )


def test_a_block_without_objects_is_not_chosen_however_near_its_share_of_foreground():
    labels = np.zeros((80, 80), int)
    labels[:18, 30:50], labels[42:54, 30:50] = 1, 2  # shares: image 0.09, top 0.23, every other end 0
    assert hold_out(from_arrays(labels * 9.0, labels, kind="instances")).blocks == {0: (slice(0, 20), slice(0, 80))}


def test_a_block_does_not_take_the_only_objects_from_the_training():
    labels = np.zeros((80, 80), int)
    labels[:30, 30:50] = 1  # cut by the top end, and the rest of it lies in the guard
    kept = hold_out(from_arrays(labels * 9.0, np.where(labels > 0, 1, 0), kind="instances"))
    rest = np.ones(labels.shape, bool)
    rest[kept.guards[0]] = False
    assert labels[rest].any()


def test_a_block_is_chosen_by_what_is_annotated_in_it():
    """Annotated are two strokes across the image from left to right: at the top and at the bottom nothing is known."""
    labels = np.zeros((80, 80), int)
    labels[30:50, 2:78:4] = 1
    ignore = np.ones(labels.shape, bool)
    ignore[35:37] = ignore[44:46] = False
    kept = hold_out(from_arrays(labels * 9.0, labels, ignore, kind="classes"))
    block = kept.blocks[0]
    assert np.bincount(labels[block][~ignore[block]]).tolist() == [61, 19]  # a quarter of what is annotated: one line


@pytest.mark.parametrize("part", [np.s_[40:60, 40:60], np.s_[40:60], np.s_[:9, 70:], np.s_[51:52, 30:90], np.s_[:]])
def test_of_an_image_annotated_in_one_place_a_quarter_of_that_is_scored(part):
    labels = np.zeros((100, 100), int)
    labels[::2] = 1
    labels[:, ::2] = 1
    ignore = np.ones(labels.shape, bool)
    ignore[part] = False
    kept = hold_out(from_arrays(labels * 9.0, labels, ignore, kind="classes"))
    judged, learned = ~ignore[kept.blocks[0]], ~ignore
    learned[kept.guards[0]] = False
    assert 0.15 * (~ignore).sum() < judged.sum() <= 0.25 * (~ignore).sum()
    assert set(labels[kept.blocks[0]][judged]) == set(labels[learned]) == {0, 1}
    assert learned.sum() >= 0.4 * (~ignore).sum()


def test_the_guard_of_a_block_is_as_wide_as_a_component_of_a_class_not_as_all_of_it():
    labels = np.zeros((200, 200), int)
    for n, (y, x) in enumerate(np.ndindex(8, 8)):
        labels[25 * y + 5 : 25 * y + 15, 25 * x + 5 : 25 * x + 15] = 1 + n % 2
    kept = hold_out(from_arrays(labels * 9.0, labels, kind="classes"))
    assert "guard strip of 11 pixels" in kept.description  # 2 * sqrt(100 / pi)
    block, guarded = kept.blocks[0], kept.guards[0]
    assert sum(np.subtract(shape_of(guarded), shape_of(block))) == 11


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_annotated_the_training_part_has_every_class_if_some_choice_leaves_it(seed):
    """Against all choices there are: every window of images, every end of the image that is cut."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 7))
    labels = [np.kron(rng.integers(0, 3, (3, 3)), np.ones((10, 10), int)) for _ in range(count)]
    for truth in labels:
        truth[:] = np.where(rng.random() < 0.5, np.minimum(truth, 1), truth)
    labels[0][0, :3] = 0, 1, 2
    ignore = [np.kron(rng.random((3, 3)) < 0.4, np.ones((10, 10), bool)) for _ in range(count)]
    ignore[0][0, :3] = False
    ignore = [mask if not mask.all() else None for mask in ignore]
    data = from_arrays([rng.random((30, 30)) for _ in range(count)], labels, ignore, kind="classes")
    kept = hold_out(data)

    def classes(indices):
        known = [s.labels if s.ignore is None else s.labels[~s.ignore] for s in (data.samples[i] for i in indices)]
        return set(np.concatenate([k.ravel() for k in known]).tolist()) if known else set()

    size = max(1, count // 5)
    windows = [range(start, start + size) for start in range(count - size + 1)]
    fair = [w for w in windows if classes(set(range(count)) - set(w)) == {0, 1, 2} and classes(w) - {0}]
    assert (len(kept.guards) == 0) == bool(fair)
    if fair:
        assert range(min(kept.blocks), max(kept.blocks) + 1) in fair


def test_pixels_of_held_out_images_are_counted_with_or_without_their_surroundings():
    sizes = [(20, 30), (40, 40), (10, 70)]
    dataset = from_arrays(
        [np.zeros(size) for size in sizes], [np.eye(*size, dtype=int) for size in sizes], kind="classes"
    )
    held_out = HoldOut(dict.fromkeys((0, 2), (slice(0, 5), slice(0, 5))), {}, "two of three")
    assert pixels_of(held_out, dataset) == 20 * 30 + 10 * 70
    assert pixels_of(held_out, dataset, context=92) == 204 * 214 + 194 * 254
