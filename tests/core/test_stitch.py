import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from septum.core.labels import renumber_by_first_pixel
from septum.core.stitch import edges, first_numbers, join, number_objects


@given(
    shape=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    size=st.integers(1, 12),
    share=st.floats(0.1, 0.7),
    seed=st.integers(0, 99),
)
def test_components_found_in_blocks_are_those_of_the_whole(shape, size, share, seed):
    mask = np.random.default_rng(seed).random(shape) < share
    stitched = np.zeros(shape, np.int64)
    grid, places = [], []
    for top in range(0, shape[0], size):
        grid.append([])
        for left in range(0, shape[1], size):
            place = slice(top, top + size), slice(left, left + size)
            part = ndimage.label(mask[place], np.ones((3, 3)))[0]
            grid[-1].append(edges(part))
            places.append((place, part))
    firsts = first_numbers([block.count for row in grid for block in row])
    roots = join(grid)
    for (place, part), first in zip(places, firsts, strict=False):
        stitched[place] = np.where(part > 0, roots[part + first], 0)
    stitched = stitched.astype(np.int32)
    renumber_by_first_pixel(stitched)
    whole = ndimage.label(mask, np.ones((3, 3)))[0].astype(np.int32)
    renumber_by_first_pixel(whole)
    np.testing.assert_array_equal(stitched, whole)


def test_objects_are_numbered_by_their_first_pixel_and_debris_gets_none():
    numbers = number_objects(np.array([9, 4, 0, 2, 30]), np.array([0, 50, 1, 2, 7]), smallest=3)
    np.testing.assert_array_equal(numbers, [0, 2, 0, 0, 1])
