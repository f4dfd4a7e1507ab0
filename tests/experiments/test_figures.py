"""The paper's figures: areas where the predictor has them, colours where the numbers say."""

import numpy as np
import pytest

from septum.core.overlay import PALETTE
from septum.core.unet import input_size, margin
from septum.experiments.figures import (
    HEAT,
    INPUT,
    OUTPUT,
    PAPER,
    TRUTH,
    _heat,
    compose,
    overlap_tile,
    segmented,
    targets,
)


def box(rgb, colour):
    """Rows and columns from the first to after the last pixel of a colour."""
    y, x = np.nonzero((rgb == colour).all(axis=-1))
    return y.min(), y.max() + 1, x.min(), x.max() + 1


@pytest.mark.parametrize(("shape", "factor"), [((100, 160), 4), ((160, 100), 4), ((600, 900), 1)])
def test_the_tile_and_its_input_have_the_sizes_of_the_predictor(shape, factor):
    depth = 3
    lost = margin(depth)
    image = np.random.default_rng(0).integers(0, 200, (1, *shape)).astype(np.uint8)
    left, right = (panel.rgb for panel in overlap_tile(image, np.zeros((*shape, 3), np.uint8), depth, "").panels)
    assert left.shape == right.shape == ((shape[0] + 2 * lost) * factor, (shape[1] + 2 * lost) * factor, 3)
    y0, y1, x0, x1 = box(left, INPUT)
    assert (y0, x0) == (0, 0)  # the first tile reads from as far outside as the network loses
    top, bottom, first, last = box(right, OUTPUT)
    assert (top, first) == (lost * factor, lost * factor)
    height, width = (bottom - top) // factor, (last - first) // factor
    assert height % 2**depth == width % 2**depth == 0
    assert (y1 // factor, x1 // factor) == (input_size(height, depth), input_size(width, depth))
    inside = (slice(lost * factor, (lost + shape[0]) * factor), slice(lost * factor, (lost + shape[1]) * factor))
    outside = np.ones(right.shape[:2], bool)
    outside[inside] = False
    assert (right[outside] == PAPER).all()  # no result is drawn where there is no image


def test_what_surrounds_the_image_is_its_mirror_and_faint():
    image = np.tile(np.arange(80, dtype=np.uint8), (80, 1))[None]  # darker to the left
    left = overlap_tile(image, np.zeros((80, 80, 3), np.uint8), 1, "").panels[0].rgb.astype(int)
    lost, factor = margin(1), left.shape[0] // (80 + 2 * margin(1))
    row = left[-(lost // 2) * factor, :, 0][factor // 2 :: factor]  # below the image, frames aside
    middle = row[lost : lost + 80]
    assert np.corrcoef(middle, np.arange(80))[0, 1] > 0.999
    np.testing.assert_allclose(row[:lost], middle[1 : lost + 1][::-1], atol=6)  # without repeating the edge pixel
    assert middle.min() >= 140  # never darker than paper mixed in


def test_weights_are_drawn_on_a_scale_from_zero_with_its_bar():
    weights = np.zeros((64, 64), np.float32)
    weights[:32] = 10.4
    image, labels = np.zeros((1, 64, 64)), np.ones((64, 64), int)
    drawn = targets(image, labels, labels > 0, weights, "").panels[3].rgb
    assert (drawn[400, 100] == HEAT[0]).all()
    np.testing.assert_array_equal(drawn[100, 100], _heat(np.float64(10.4 / 12)))  # a bar up to 12
    bar = drawn[:, 64 * 8 + 30]
    assert (bar[0] == HEAT[-1]).all()
    assert (bar[-1] == HEAT[0]).all()
    lightness = bar[::16].astype(int) @ [299, 587, 114]
    assert (np.diff(lightness) < 0).all()


def test_no_weight_at_all_is_drawn_too():
    labels = np.zeros((8, 8), int)
    assert (targets(np.zeros((1, 8, 8)), labels, labels > 0, np.zeros((8, 8)), "").panels[3].rgb[0, 0] == HEAT[0]).all()


def test_predicted_instances_have_colours_and_true_ones_yellow_outlines():
    labels, truth = np.zeros((2, 40, 40), int)
    labels[5:20, 5:20], truth[10:30, 10:30] = 1, 7
    drawn = segmented(np.full((40, 40, 3), 100, np.uint8), labels, truth, share=1.0)
    small = drawn[4::8, 4::8]  # the middle of every pixel
    assert (small[7, 7] == PALETTE[1]).all()
    assert (small[35, 35] == 100).all()
    assert (small[25, 25] == 100).all()  # inside the truth nothing is filled
    yellow = (drawn == TRUTH).all(axis=-1)
    y0, y1, x0, x1 = box(drawn, TRUTH)
    assert (y0, y1, x0, x1) == (10 * 8 - 2, 30 * 8 + 2, 10 * 8 - 2, 30 * 8 + 2)
    assert not yellow[12 * 8 : 28 * 8, 12 * 8 : 28 * 8].any()


def test_composed_panels_are_kept_to_the_pixel_with_room_for_their_captions():
    labels = np.zeros((32, 32), int)
    figure = targets(np.arange(1024).reshape(1, 32, 32), labels, labels > 0, np.ones((32, 32)), "")
    sheet = compose(figure)
    x = 24
    for panel in figure.panels:
        height, width = panel.rgb.shape[:2]
        np.testing.assert_array_equal(sheet[24 : 24 + height, x : x + width], panel.rgb)
        assert (sheet[24 + height :, x : x + width] < 100).any()  # ink
        x += width + 24
    assert sheet.shape[1] == x
