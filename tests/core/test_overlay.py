import os
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from septum.choices import Kind
from septum.core.overlay import AGREEMENT, CONFUSED, PALETTE, PREDICTION, TRUTH, overlay, paint, to_rgb
from septum.errors import ImageError

BLACK = np.zeros((12, 12, 3), np.uint8)


def bricks(rows: int, columns: int, size: int = 9, gap: int = 0) -> np.ndarray:
    """Label image of rectangles, every second row shifted by half a rectangle."""
    labels = np.zeros((rows * size, columns * size), np.int32)
    for number, (row, column) in enumerate(product(range(rows), range(columns)), 1):
        left = column * size + (row % 2) * size // 2
        labels[row * size : (row + 1) * size - gap, left : left + size - gap] = number
    return labels


def slow_outline(labels: np.ndarray) -> np.ndarray:
    outline = np.zeros(labels.shape, bool)
    for y, x in np.argwhere(labels > 0):
        for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            inside = 0 <= y + dy < labels.shape[0] and 0 <= x + dx < labels.shape[1]
            if inside and labels[y + dy, x + dx] != labels[y, x]:
                outline[y, x] = True
    return outline


# --- to_rgb


def test_stretch_is_linear_between_the_two_percentiles_and_ignores_outliers() -> None:
    image = np.linspace(100, 200, 1001).reshape(1, 7, 143)
    expected = 255 * np.clip((image[0] - 100.5) / 99, 0, 1)
    np.testing.assert_allclose(to_rgb(image)[..., 0], expected, atol=1)
    image[0, 6, 142] = 1e6
    np.testing.assert_allclose(to_rgb(image)[..., 0], expected, atol=1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, np.float64])
def test_stretch_does_not_change_with_gain_and_offset(dtype: type) -> None:
    image = np.random.default_rng(0).integers(0, 50, (1, 20, 30))
    np.testing.assert_array_equal(to_rgb((2 * image + 7).astype(dtype)), to_rgb(image.astype(float)))


def test_one_channel_is_grey_two_are_green_and_magenta() -> None:
    first, second = np.random.default_rng(0).integers(0, 99, (2, 8, 8))
    grey = to_rgb(first[None])
    assert (grey == grey[..., :1]).all()
    both = to_rgb(np.stack([first, second]))
    np.testing.assert_array_equal(both[..., 1], grey[..., 0])
    np.testing.assert_array_equal(both[..., [0, 2]], to_rgb(second[None])[..., [0, 2]])


def test_hues_of_an_8_bit_colour_picture_stay_and_other_channels_are_stretched_each() -> None:
    ramp = np.arange(0, 240, dtype=np.uint8).reshape(1, 12, 20)
    picture = np.concatenate([ramp, ramp // 2, ramp // 4])
    together = to_rgb(picture).reshape(-1, 3).max(0).astype(float)
    np.testing.assert_allclose(together, [255, 127, 63], atol=2)
    apart = to_rgb(picture.astype(np.uint16)).reshape(-1, 3).max(0)
    np.testing.assert_array_equal(apart, [255, 255, 255])


def test_pixels_that_are_not_finite_are_black_and_do_not_disturb_the_others() -> None:
    image = np.random.default_rng(0).normal(size=(1, 10, 10))
    holed = image.copy()
    holed[0, 4, 4:7] = np.nan, np.inf, -np.inf
    shown = to_rgb(holed)
    assert (shown[4, 4:7] == 0).all()
    rest = np.isfinite(holed[0])
    assert np.abs(shown[rest].astype(int) - to_rgb(image)[rest]).max() <= 4
    assert (to_rgb(np.full((1, 3, 3), np.nan)) == 0).all()


def test_few_bright_pixels_on_a_constant_ground_are_seen() -> None:
    image = np.full((1, 40, 40), 5.0)
    image[0, 20, 20:22] = 7, 9
    np.testing.assert_array_equal(to_rgb(image)[20, 19:22, 0], [0, 127, 255])


@pytest.mark.parametrize("shape", [(8, 8), (0, 8, 8), (1, 0, 8), (1, 1, 8, 8)])
def test_an_image_without_channel_axis_or_pixels_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match=r"\(C, Y, X\)"):
        to_rgb(np.zeros(shape))


# --- instances


def test_outline_is_the_pixels_of_an_object_beside_another_value() -> None:
    labels = np.random.default_rng(0).integers(0, 4, (30, 40))
    painted = paint(np.zeros((30, 40, 3), np.uint8), labels)
    full = (painted[:, :, None] == PALETTE).all(-1).any(-1)
    np.testing.assert_array_equal(full, slow_outline(labels))


def test_background_is_untouched_and_the_inside_shows_through() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (36, 36, 3)).astype(np.uint8)
    labels = bricks(3, 3, size=12, gap=3)
    painted = paint(rgb, labels)
    np.testing.assert_array_equal(painted[labels == 0], rgb[labels == 0])
    inside = (labels == 1) & ~slow_outline(labels)
    colour = painted[(labels == 1) & slow_outline(labels)][0]
    np.testing.assert_allclose(painted[inside], 0.8 * rgb[inside] + 0.2 * colour, atol=1)


@pytest.mark.parametrize("gap", [0, 1, 2])
def test_neighbours_have_different_colours(gap: int) -> None:
    labels = bricks(12, 12, gap=gap)
    colours = colour_of_each(labels)
    for one, other in neighbours(labels, gap):
        assert colours[one] != colours[other], (one, other)


def test_neighbours_differ_in_real_tissue() -> None:
    if "SEPTUM_DATA" not in os.environ:
        pytest.skip("SEPTUM_DATA does not name the folder of real images")
    path = sorted(Path(os.environ["SEPTUM_DATA"], "isbi2012", "train", "labels").iterdir())[0]
    labels, _ = ndimage.label(np.asarray(Image.open(path)) > 0)
    colours = colour_of_each(labels)
    clashes = [pair for pair in neighbours(labels, 4) if colours[pair[0]] == colours[pair[1]]]
    assert not clashes


def colour_of_each(labels: np.ndarray) -> dict[int, tuple[int, ...]]:
    painted = paint(np.zeros((*labels.shape, 3), np.uint8), labels)
    outline = slow_outline(labels)
    return {n: tuple(painted[(labels == n) & outline][0].tolist()) for n in np.unique(labels[labels > 0]).tolist()}


def neighbours(labels: np.ndarray, gap: int) -> set[tuple[int, int]]:
    """Pairs of objects with at most `gap` background pixels between them along a row or a column."""
    pairs = set()
    for lines in (labels, labels.T):
        for step in range(1, gap + 2):
            one, other = lines[step:], lines[:-step]
            touch = (one != other) & (one > 0) & (other > 0)
            pairs |= set(zip(one[touch].tolist(), other[touch].tolist(), strict=True))
    return pairs


def test_colours_follow_from_the_label_number_alone_where_objects_are_apart() -> None:
    labels = np.zeros((60, 60), np.uint16)
    for number, corner in zip((1, 7, 60000), (0, 25, 50), strict=True):
        labels[corner : corner + 6, corner : corner + 6] = number
    assert colour_of_each(labels) == {n: tuple(PALETTE[n % 6].tolist()) for n in (1, 7, 60000)}


def test_lines_grow_with_the_picture() -> None:
    for side, width in ((1499, 1), (1500, 2), (2499, 2), (2500, 3)):
        labels = np.zeros((3, side), np.uint8)
        labels[:, 10:40] = 1
        painted = paint(np.zeros((3, side, 3), np.uint8), labels)
        assert (painted[1] == PALETTE[1]).all(-1).sum() == 2 * width


@pytest.mark.parametrize("labels", [np.zeros((12, 12), int), np.ones((12, 12), np.uint64)])
def test_nothing_but_background_and_nothing_but_one_object(labels: np.ndarray) -> None:
    painted = paint(BLACK, labels)
    expected = (0.2 * PALETTE[1]).astype(np.uint8) * (labels[0, 0] > 0)
    np.testing.assert_array_equal(painted, np.broadcast_to(expected, painted.shape))


# --- with a truth


def test_perfect_instances_show_outlines_of_agreement_and_nothing_else() -> None:
    truth = bricks(3, 4, gap=2)
    rgb = np.random.default_rng(0).integers(0, 200, (*truth.shape, 3)).astype(np.uint8)
    renumbered = np.where(truth > 0, 100 - truth, 0)
    painted = paint(rgb, renumbered, truth=truth)
    outline = slow_outline(truth)
    assert (painted[outline] == AGREEMENT).all()
    np.testing.assert_array_equal(painted[~outline], rgb[~outline])


def test_missed_and_invented_objects_are_filled_and_a_merger_shows_the_lost_boundary() -> None:
    truth, labels = np.zeros((2, 12, 40), int)
    truth[2:8, 2:8] = 1  # missed
    labels[2:8, 12:18] = 5  # invented
    truth[2:8, 22:28], truth[2:8, 28:34], labels[2:8, 22:34] = 2, 3, 9  # merged
    painted = paint(np.zeros((12, 40, 3), np.uint8), labels, truth=truth)
    np.testing.assert_array_equal(painted[4, 4], TRUTH // 2)
    np.testing.assert_array_equal(painted[4, 14], PREDICTION // 2)
    np.testing.assert_array_equal(painted[4, 27:29], [TRUTH, TRUTH])
    np.testing.assert_array_equal(painted[4, [22, 33]], [AGREEMENT, AGREEMENT])
    np.testing.assert_array_equal(painted[4, 25], (0, 0, 0))


@pytest.mark.parametrize("kind", ["instances", "classes"])
def test_swapping_truth_and_prediction_swaps_their_fills(kind: Kind) -> None:
    one = bricks(3, 3, size=12, gap=3)
    other = np.roll(one, 4, axis=1)
    black = np.zeros((36, 36, 3), np.uint8)
    missed = (paint(black, one, truth=other, kind=kind) == TRUTH // 2).all(-1)
    invented = (paint(black, other, truth=one, kind=kind) == PREDICTION // 2).all(-1)
    np.testing.assert_array_equal(missed, invented)
    assert missed.any()


def test_classes_are_fills_and_their_errors_have_three_colours() -> None:
    labels, truth = np.array([[0, 1, 2, 0, 1, 1]]), np.array([[0, 1, 2, 1, 0, 2]])
    rgb = np.zeros((1, 6, 3), np.uint8)
    alone = paint(rgb, labels, kind="classes")
    np.testing.assert_array_equal(
        alone[0, :3], [(0, 0, 0), (0.4 * PALETTE[0]).astype(int), (0.4 * PALETTE[1]).astype(int)]
    )
    judged = paint(rgb, labels, truth=truth, kind="classes")
    black = np.zeros(3)
    np.testing.assert_array_equal(judged[0], [black, black, black, TRUTH // 2, PREDICTION // 2, CONFUSED // 2])


def test_overlay_is_paint_on_the_stretched_image() -> None:
    rng = np.random.default_rng(0)
    image, labels, truth = rng.normal(size=(2, 9, 9)), *rng.integers(0, 3, (2, 9, 9))
    np.testing.assert_array_equal(overlay(image, labels, truth=truth), paint(to_rgb(image), labels, truth=truth))


@pytest.mark.parametrize(
    ("labels", "truth"),
    [(np.zeros((12, 11), int), None), (np.zeros((12, 12)), None), (np.zeros((12, 12), int), np.zeros((11, 12), int))],
)
def test_labels_of_another_shape_or_not_integers_are_refused(labels: np.ndarray, truth: np.ndarray | None) -> None:
    with pytest.raises(ImageError, match=r"\(12, 12\) must be integers of that shape, got"):
        paint(BLACK, labels, truth=truth)
