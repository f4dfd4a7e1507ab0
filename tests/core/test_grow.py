import numpy as np
import pytest

from septum.core.grow import grow


def slowly(components, mask, steps):
    """Whole-image passes: each step looks only at the labels before it, in the stated order of neighbours."""
    offsets = [(-1, 0), (0, -1), (0, 1), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1)]
    labels = components.copy()
    for step in range(steps):
        before = np.pad(labels, 1)
        for dy, dx in reversed(offsets[: 4 if step % 2 == 0 else 8]):
            neighbour = before[1 + dy : before.shape[0] - 1 + dy, 1 + dx : before.shape[1] - 1 + dx]
            taken = (components == 0) & (before[1:-1, 1:-1] == 0) & mask & (neighbour > 0)
            labels[taken] = neighbour[taken]  # the first of the order is written last
    return labels


@pytest.mark.parametrize("seed", range(30))
def test_equals_whole_image_passes(seed):
    rng = np.random.default_rng(seed)
    shape = rng.integers(1, 30, 2)
    components = (rng.random(shape) < 0.03) * rng.integers(1, 9, shape).astype(np.int32)
    mask = rng.random(shape) < rng.choice([0.5, 0.8, 1.0])
    steps = int(rng.integers(0, 20))
    grown = grow(components.astype(np.int32), mask, steps)
    np.testing.assert_array_equal(grown, slowly(components.astype(np.int32), mask, steps))


@pytest.mark.parametrize("seed", range(5))
def test_a_pixel_depends_on_no_more_than_the_steps_around_it(seed):
    rng = np.random.default_rng(seed)
    components = ((rng.random((60, 60)) < 0.01) * rng.integers(1, 99, (60, 60))).astype(np.int32)
    mask, steps = rng.random((60, 60)) < 0.7, 7
    whole = grow(components, mask, steps)
    part = slice(20 - steps, 40 + steps)
    inner = grow(components[part, part].copy(), mask[part, part], steps)[steps:-steps, steps:-steps]
    np.testing.assert_array_equal(inner, whole[20:40, 20:40])


def test_distances_are_octagonal():
    seed = np.zeros((201, 201), np.int32)
    seed[100, 100] = 1
    grown = grow(seed, np.ones(seed.shape, bool), 60)
    y, x = np.mgrid[:201, :201] - 100
    distance = np.hypot(y, x)
    assert distance[grown > 0].max() <= 60 * np.sqrt(1.25)
    assert distance[grown == 0].min() > 60
