"""Instances and classes are told apart on real and simulated labels."""

import numpy as np
import pytest

from septum.data.kind import components, connected_instances, decide_kind
from septum.data.simulate import cells

IMAGES = [cells((120, 120), 25, seed, touching=True)[1] for seed in range(3)]
RNG = np.random.default_rng(0)


def test_components_count_pieces_of_one_number():
    labels = np.array([[1, 1, 0, 2], [0, 0, 2, 0], [1, 0, 0, 3]])  # the 2s touch at a corner
    pieces, numbers, areas = components(labels)
    assert sorted(zip(numbers, areas, strict=True)) == [(1, 1), (1, 2), (2, 2), (3, 1)]
    assert (pieces[labels == 0] == 0).all()


def test_instances_stay_instances_whatever_their_numbers():
    assert decide_kind(IMAGES)[0] == "instances"
    numbers = RNG.permutation(60_000)[: IMAGES[0].max() + 1]
    numbers[0] = 0
    assert decide_kind([numbers[IMAGES[0]]])[0] == "instances"
    assert decide_kind([*IMAGES, np.zeros_like(IMAGES[0]), (IMAGES[0] == 1).astype(int)])[0] == "instances"


def test_specks_of_the_same_number_do_no_harm():
    speckled = IMAGES[0].copy()
    for number in range(1, speckled.max() + 1):
        speckled[tuple(RNG.integers(0, 120, 2))] = number
    assert decide_kind([speckled])[0] == "instances"


@pytest.mark.parametrize("values", [(0, 1), (0, 255), (3, 7), (0, 0)])
def test_two_values_are_classes_and_the_reason_says_how_to_tell_objects_apart(values):
    masks = [np.where(labels > 0, values[1], values[0]) for labels in IMAGES]
    kind, reason = decide_kind(masks)
    assert kind == "classes"
    assert "give each object a number of its own" in reason
    assert ("--kind instances" in reason) == (0 in values)  # without background there are no pieces


def test_few_numbers_on_many_objects_are_classes():
    typed = [np.where(labels > 0, labels % 3 + 1, 0) for labels in IMAGES]
    kind, reason = decide_kind(typed)
    assert kind == "classes"
    assert '--kind instances, in Python kind="instances"' in reason


def test_many_numbers_are_instances_even_in_pieces():
    labels = np.tile(np.arange(1, 101).reshape(10, 10), (2, 2))
    assert decide_kind([labels])[0] == "instances"


def test_connected_instances_do_not_join_at_corners():
    np.testing.assert_array_equal(connected_instances(np.eye(3)), np.diag([1, 2, 3]))
