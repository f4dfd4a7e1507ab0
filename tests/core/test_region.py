import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from septum.core.region import (
    cell_region,
    cells_of,
    clip,
    expand,
    intersect,
    origin_of,
    relative_to,
    scale,
    shape_of,
    shift,
    whole,
)

SLICES = st.builds(lambda start, size: slice(start, start + size), st.integers(-6, 6), st.integers(1, 6))
REGIONS = st.integers(1, 3).flatmap(lambda axes: st.tuples(st.tuples(*[SLICES] * axes), st.tuples(*[SLICES] * axes)))


def pixels(region):
    """The set of a region's pixels: what every function is held against."""
    return set(itertools.product(*(range(part.start, part.stop) for part in region)))


def moved(points, by):
    return {tuple(at + step for at, step in zip(point, by, strict=True)) for point in points}


@given(REGIONS)
def test_size_and_first_pixel_are_those_of_the_pixels(regions):
    region, _ = regions
    assert origin_of(region) == min(pixels(region))
    assert np.prod(shape_of(region)) == len(pixels(region))
    assert shift(whole(shape_of(region)), origin_of(region)) == region


@given(REGIONS)
def test_relative_coordinates_index_the_array_of_the_outer_region(regions):
    region, outer = regions
    assert pixels(relative_to(region, outer)) == moved(pixels(region), [-at for at in origin_of(outer)])
    assert shift(relative_to(region, outer), origin_of(outer)) == region
    assert relative_to(region, region) == whole(shape_of(region))

    image = np.random.default_rng(0).random([20] * len(region))
    inner = shift(region, [6] * len(region))
    around = clip(expand(inner, 3), image.shape)
    np.testing.assert_array_equal(image[around][relative_to(inner, around)], image[inner])


@given(REGIONS, st.integers(0, 4))
def test_expanding_adds_the_pixels_within_a_distance(regions, by):
    region, _ = regions
    assert shape_of(expand(region, by)) == tuple(size + 2 * by for size in shape_of(region))
    assert expand(expand(region, by), -by) == region
    assert pixels(region) <= pixels(expand(region, by))


@given(REGIONS)
def test_an_intersection_has_the_pixels_of_both(regions):
    one, other = regions
    assert pixels(intersect(one, other)) == pixels(one) & pixels(other)
    assert intersect(one, other) == intersect(other, one)
    assert intersect(one, one) == one


@given(REGIONS)
def test_clipping_keeps_the_pixels_inside_the_image(regions):
    region, other = regions
    shape = shape_of(other)
    assert pixels(clip(region, shape)) == pixels(region) & pixels(whole(shape))


@given(REGIONS, st.integers(1, 3))
def test_a_scaled_region_covers_the_same_part_of_a_finer_image(regions, factor):
    region, _ = regions
    coarse = {tuple(at // factor for at in point) for point in pixels(scale(region, factor))}
    assert coarse == pixels(region)
    assert shape_of(scale(region, factor)) == tuple(factor * size for size in shape_of(region))


@given(REGIONS)
def test_the_cells_that_a_region_touches_are_those_that_share_a_pixel_with_it(regions):
    region, other = regions
    cell, shape = shape_of(other), tuple(at + 7 for at in origin_of(other))
    region = clip(region, shape)
    if not pixels(region):
        return
    grid = itertools.product(*(range(-(-size // step)) for size, step in zip(shape, cell, strict=True)))
    expected = [index for index in grid if pixels(cell_region(index, cell, shape)) & pixels(region)]
    assert list(cells_of(region, cell)) == expected


@given(REGIONS)
def test_the_cells_of_an_image_cover_every_pixel_once(regions):
    shape, cell = shape_of(regions[0]), shape_of(regions[1])
    count = np.zeros(shape, int)
    for index in cells_of(whole(shape), cell):
        count[cell_region(index, cell, shape)] += 1
    np.testing.assert_array_equal(count, 1)
