"""Instances and classes are told apart on real and simulated labels."""

import re

import numpy as np
import pytest

from septum.data.kind import components, connected_instances, decide_kind
from septum.data.simulate import cells

IMAGES = [cells((120, 120), 25, seed, touching=True)[1] for seed in range(3)]
RNG = np.random.default_rng(0)


def test_components_are_the_connected_parts_of_each_label():
    labels = np.array([[1, 1, 0, 2], [0, 0, 2, 0], [1, 0, 0, 3]])  # the 2s touch at a corner
    pieces, numbers, areas = components(labels)
    assert sorted(zip(numbers, areas, strict=True)) == [(1, 1), (1, 2), (2, 2), (3, 1)]
    assert (pieces[labels == 0] == 0).all()


def test_instances_stay_instances_whatever_their_labels():
    kind, reason = decide_kind(IMAGES)
    assert kind == "instances"
    assert reason == "read as instances: each of the 75 labels is one connected object (override with --kind classes)"
    numbers = RNG.permutation(60_000)[: IMAGES[0].max() + 1]
    numbers[0] = 0
    assert decide_kind([numbers[IMAGES[0]]])[0] == "instances"
    assert decide_kind([*IMAGES, np.zeros_like(IMAGES[0]), (IMAGES[0] == 1).astype(int)])[0] == "instances"


def test_specks_with_the_same_label_do_not_matter():
    speckled = IMAGES[0].copy()
    for number in range(1, speckled.max() + 1):
        speckled[tuple(RNG.integers(0, 120, 2))] = number
    assert decide_kind([speckled])[0] == "instances"
    parted = IMAGES[0].copy()
    parted[:, :60][parted[:, :60] == 1] = 2
    kind, reason = decide_kind([parted, np.where(IMAGES[1] > 20, 20, IMAGES[1])])
    assert kind == "instances"
    assert re.search(r"instances: \d\d of \d\d labels, counted per image, are one connected object each \(over", reason)


@pytest.mark.parametrize("values", [(0, 1), (0, 255), (3, 7), (0, 0)])
def test_two_values_are_classes_and_the_reason_says_how_to_tell_objects_apart(values):
    masks = [np.where(labels > 0, values[1], values[0]) for labels in IMAGES]
    kind, reason = decide_kind(masks)
    assert kind == "classes"
    listed = " and ".join(map(str, sorted(set(values))))
    known = f"read as classes: the labels contain only {listed}, so touching objects cannot be told apart "
    both = "or use --kind instances to make each connected component one object)"
    last = f", {both}" if 0 in values else " and background 0)"  # without background there are no components
    assert reason == f"{known}(for instances, give each object its own number{last}"


def test_few_labels_on_many_objects_are_classes():
    typed = [np.where(labels > 0, labels % 3 + 1, 0) for labels in IMAGES]
    kind, reason = decide_kind(typed)
    assert kind == "classes"
    assert re.fullmatch(
        r"read as classes: only \d of 9 labels, counted per image, are one connected object each "
        r"\(override with --kind instances\)",
        reason,
    )


def test_many_labels_are_instances_even_in_pieces():
    labels = np.tile(np.arange(1, 101).reshape(10, 10), (2, 2))
    assert decide_kind([labels]) == (
        "instances",
        "read as instances: there are 100 different labels, although only 0 of 100 labels, counted per image, are one "
        "connected object each",
    )


def test_connected_instances_do_not_join_at_corners():
    np.testing.assert_array_equal(connected_instances(np.eye(3)), np.diag([1, 2, 3]))
