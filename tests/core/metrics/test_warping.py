import numpy as np
import pytest
from scipy import ndimage

from septum.core.metrics.warping import MISMATCHES, simple_points, warp

RING = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))


def test_simple_points_are_the_116_that_keep_both_topologies():
    """Flipping the centre leaves the numbers of 4-components of interior and of 8-components of membrane."""

    def topology(window):
        return ndimage.label(window)[1], ndimage.label(np.pad(window, 1) == 0, np.ones((3, 3)))[1]

    table = simple_points()
    assert table.sum() == 116
    for code in np.flatnonzero(table):
        window = np.zeros((3, 3), int)
        for k, (y, x) in enumerate(RING):
            window[1 + y, 1 + x] = code >> k & 1
        without, window[1, 1] = topology(window), 1
        assert topology(window) == without


def slow_warp(labels, probabilities, threshold, radius):
    """The definition, line by line."""
    source, target = np.pad(labels, 1).astype(int), np.pad(probabilities > threshold, 1).astype(int)
    sureness = np.pad(np.abs(probabilities.astype(float) - threshold).astype(np.float32), 1)
    height, width = source.shape
    table, before = simple_points(), None
    while True:
        mismatches = [(y, x) for x in range(width) for y in range(height) if source[y, x] != target[y, x]]
        if not mismatches or len(mismatches) == before:
            break
        before = len(mismatches)
        for y, x in sorted(mismatches, key=lambda p: -sureness[p]):
            if table[sum(source[y + dy, x + dx] << k for k, (dy, dx) in enumerate(RING))]:
                source[y, x] = target[y, x]
    components, codes = ndimage.label(source)[0], np.zeros_like(source)
    for y, x in mismatches:
        ids = {components[y + dy, x + dx] for dy, dx in RING}
        if ids == {0}:
            name = "object_deletion" if source[y, x] else "object_addition"
        elif len(ids) == 1:
            name = "hole_addition" if source[y, x] else "hole_deletion"
        elif len(ids) == 2 and source[y, x]:
            window = np.pad(source, radius)[y : y + 2 * radius + 1, x : x + 2 * radius + 1].copy()
            window[radius, radius] = 0
            again = ndimage.label(window)[0]
            parts = {again[radius + dy, radius + dx] for dy, dx in RING}
            name = "split" if len(parts) > 2 else "hole_deletion"
        elif len(ids) == 2:
            name = "hole_addition"
        else:
            name = "split" if source[y, x] else "merger"
        codes[y, x] = 1 + MISMATCHES.index(name)
    return codes[1:-1, 1:-1]


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_equals_the_definition_line_by_line(sigma):
    rng, seen = np.random.default_rng(0), np.zeros(7, bool)
    for _ in range(6):
        fields = ndimage.gaussian_filter(rng.normal(size=(2, 21, 26)), (0, sigma, sigma))
        labels = fields[0] > np.median(fields[0])
        probabilities = (np.argsort(np.argsort((fields[0] + fields[1]).ravel())) / 21 / 26).reshape(21, 26).round(1)
        probabilities = probabilities.astype(np.float32)  # rounded, so that many are equally sure
        for threshold, radius in ((0.0, 20), (0.30000000000000004, 3), (0.5, 1), (0.7, 100)):
            expected = slow_warp(labels, probabilities, threshold, radius)
            found = warp(labels, probabilities > threshold, probabilities, threshold, radius)
            np.testing.assert_array_equal(found, expected)
            seen[np.unique(found)] = True
    assert seen[[0, 1, 2, 3]].all()


def codes(labels, proposal, radius=20):
    labels, proposal = np.array(labels, bool), np.array(proposal, bool)
    found = warp(labels, proposal, proposal.astype(np.float32), 0.5, radius)
    return {MISMATCHES[code - 1]: int((found == code).sum()) for code in np.unique(found) if code}


def test_each_kind_by_a_planted_example():
    block = np.zeros((7, 9), bool)
    block[1:6, 1:8] = True
    nothing, bar, hole, walled = np.zeros_like(block), block.copy(), block.copy(), block.copy()
    hole[3, 4] = False
    walled[:, 4] = False
    bar[1:3], bar[4:6] = False, False
    assert codes(block, block) == {}
    assert codes(block, walled) == {"split": 1}  # the wall shrinks to one pixel that keeps both halves together
    assert codes(walled, block) == {"merger": 5}  # closing any pixel of the wall would join the halves
    assert codes(nothing, bar) == {"object_addition": 7}  # the first pixel of an object changes the topology
    assert codes(bar, nothing) == {"object_deletion": 1}
    assert codes(block, hole) == {"hole_addition": 1}
    assert codes(hole, block) == {"hole_deletion": 1}


def test_growing_or_shrinking_without_change_of_topology_is_free():
    square = np.zeros((40, 40), bool)
    square[8:32, 8:32] = True
    assert codes(square, ndimage.binary_erosion(square, iterations=5)) == {}
    assert codes(square, ndimage.binary_dilation(square, iterations=7)) == {}
    assert codes(square, np.roll(square, (5, -6), (0, 1))) == {}


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("radius", [2, 5, 8])
def test_the_window_ends_exactly_at_the_radius(turns, radius):
    """A loop that goes ``radius`` pixels out closes inside the window, one that goes a pixel farther does not."""
    for far, expected in ((radius, "hole_deletion"), (radius + 1, "split")):
        loop = np.zeros((23, 23), bool)
        loop[11, 9:14] = True
        loop[11 : 12 + far, [10, 12]] = True
        loop[11 + far, 10:13] = True
        loop = np.rot90(loop, turns)
        cut = loop.copy()
        cut[11, 11] = False
        assert codes(loop, cut, radius) == {expected: 1}


def test_the_radius_decides_whether_parts_that_meet_far_away_count_as_split():
    ring = np.zeros((61, 61), bool)
    ring[2:59, 2:59] = True
    ring[5:56, 5:56] = False
    cut = ring.copy()
    cut[:, 30] &= np.arange(61) > 30
    assert codes(ring, cut, radius=20) == {"split": 1}
    assert codes(ring, cut, radius=61) == {"hole_deletion": 1}
