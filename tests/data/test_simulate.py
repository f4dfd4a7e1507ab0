"""Simulated micrographs: exact truth, stated geometry, a function of the seed."""

import numpy as np
import pytest
import tifffile
from scipy import ndimage
from scipy.spatial.distance import pdist

from septum.data.simulate import _draw, cells, ctc_video, membranes
from septum.errors import ConfigError

FIVE_WIDE = np.ones((5, 5), bool)
FIVE_WIDE[[0, 0, -1, -1], [0, -1, 0, -1]] = False  # a disc of diameter 5
ALL_8 = np.ones((3, 3), bool)


def gaps(labels):
    """Background pixels between the nearest pixels of every two instances, along rows, columns and diagonals."""
    numbers = range(1, labels.max() + 1)
    distances = [ndimage.distance_transform_cdt(labels != number, metric="chessboard") for number in numbers]
    return [distances[a - 1][labels == b].min() - 1 for a in numbers for b in numbers if a < b]


@pytest.mark.parametrize("make", [cells, membranes])
def test_the_image_depends_on_the_seed_only(make):
    (image, labels), (image_again, labels_again) = make((96, 128), 9, seed=5), make((96, 128), 9, seed=5)
    np.testing.assert_array_equal(image, image_again)
    np.testing.assert_array_equal(labels, labels_again)
    assert (labels != make((96, 128), 9, seed=6)[1]).any()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("diameter", "n", "touching"), [(12, 60, True), (20, 25, True), (20, 6, False)])
def test_there_are_exactly_n_cells_each_whole_and_five_pixels_wide_everywhere(seed, diameter, n, touching):
    _, labels = cells((120, 160), n, seed, diameter=diameter, touching=touching)
    np.testing.assert_array_equal(np.unique(labels), np.arange(n + 1))
    for number in range(1, n + 1):
        cell = labels == number
        np.testing.assert_array_equal(ndimage.binary_opening(cell, FIVE_WIDE), cell)
        assert ndimage.label(cell)[1] == 1


def test_a_cell_that_two_others_cut_keeps_the_part_around_its_centre():
    centres = np.array([[30.0, 20.0], [25.0, 32.0], [35.0, 32.0]])
    outlines = np.array([[20, 0.5, 0, 0, 0], [9, 0, 0, 0, 0], [9, 0, 0, 0, 0]])  # 30 px to the right; two discs on it
    labels = _draw((60, 90), centres, outlines)
    parts, count = ndimage.label(labels == 1)
    assert count == 1
    assert parts[30, 20] == 1


def test_cells_are_numbered_by_their_first_pixel_in_raster_order():
    _, labels = cells((120, 160), 25, seed=1)
    numbers, first = np.unique(labels, return_index=True)
    np.testing.assert_array_equal(numbers[1:], np.arange(1, 26))
    assert (np.diff(first[1:]) > 0).all()


@pytest.mark.parametrize("seed", range(6))
def test_touching_cells_touch_and_others_keep_two_pixels_between_them(seed):
    assert gaps(cells((120, 160), 25, seed)[1]).count(0) >= 8
    assert min(gaps(cells((120, 160), 6, seed, touching=False)[1])) >= 2


def test_cells_are_brighter_than_the_background_and_light_is_uneven():
    image, labels = cells((200, 200), 30, seed=1)
    grey = image[0].astype(float)
    background = np.where(labels == 0, grey, np.nan)
    assert ndimage.median(grey, labels, np.arange(1, 31)).min() > 2 * np.nanmedian(background)
    corners = [background[y, x] for y in (slice(60), slice(-60, None)) for x in (slice(60), slice(-60, None))]
    assert max(map(np.nanmedian, corners)) > 1.5 * min(map(np.nanmedian, corners))


def test_no_cells_is_an_image_of_background():
    image, labels = cells((40, 50), 0, seed=0)
    assert image.shape == (1, 40, 50)
    assert not labels.any()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("shape", "n"), [((64, 64), 2), ((200, 160), 30), ((48, 400), 30)])
def test_membranes_separate_exactly_n_cells_whatever_the_connectivity(shape, n, seed):
    _, labels = membranes(shape, n, seed)
    assert set(np.unique(labels)) == {0, 1}
    assert ndimage.label(labels)[1] == ndimage.label(labels, ALL_8)[1] == n


def test_membranes_are_dark_and_as_thick_as_specified():
    image, labels = membranes((256, 256), 20, seed=3, thickness=6)
    half = ndimage.distance_transform_edt(labels == 0)[1:-1, 1:-1]
    ridge = (half == ndimage.maximum_filter(half, 5)) & (half > 0)
    assert np.median(half[ridge]) == pytest.approx(3, abs=0.5)
    middle = image[0, 1:-1, 1:-1][half > 2]
    assert np.median(middle) < 0.5 * np.median(image[0][labels == 1])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: cells((64, 64), 100, 0), "100 cells 15 px apart do not fit in 64 x 64 px"),
        (lambda: cells((64, 64), 3, 0, diameter=8), "diameter must be at least 12 px"),
        (lambda: membranes((64, 64), 50, 0), "are 9 px wide, too small for membranes of 4 px; draw at most 7 cells"),
        (
            lambda: membranes((64, 64), 4, 0, thickness=2),
            "thickness must be at least 3 px and n at least 2 cells, got 2 px",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(make, words):
    with pytest.raises(ConfigError, match=words):
        make()


def test_the_largest_number_of_cells_in_the_error_fits():
    membranes((64, 64), 7, 0)


def video(folder, frames=5, **settings):
    """Write a video and read it back as (T, Y, X) images, SEG and TRA."""
    ctc_video(folder, frames, seed=3, **settings)
    patterns = ("01/t{:03d}.tif", "01_GT/SEG/man_seg{:03d}.tif", "01_GT/TRA/man_track{:03d}.tif")
    return [np.stack([tifffile.imread(folder / p.format(t)) for t in range(frames)]) for p in patterns]


def test_a_video_has_the_layout_of_the_challenge(tmp_path):
    images, seg, tra = video(tmp_path, n=8)
    assert (images.dtype, seg.dtype, tra.dtype) == (np.uint8, np.uint16, np.uint16)
    assert (tmp_path / "01_GT/TRA/man_track.txt").read_text() == "".join(f"{n} 0 4 0\n" for n in range(1, 9))
    for t in range(5):
        np.testing.assert_array_equal(np.unique(seg[t]), np.arange(9))
        np.testing.assert_array_equal(np.unique(tra[t]), np.arange(9))
        np.testing.assert_array_equal(tra[t][tra[t] > 0], seg[t][tra[t] > 0])  # every marker lies on its own cell


def test_every_cell_moves_a_little_from_frame_to_frame(tmp_path):
    _, _, tra = video(tmp_path, frames=8)
    centres = np.array([ndimage.center_of_mass(frame > 0, frame, np.arange(1, 9)) for frame in tra])
    steps = np.linalg.norm(np.diff(centres, axis=0), axis=-1)
    assert steps.max() < 10
    assert (steps.max(axis=0) > 1).all()


def test_crowded_cells_never_overlap(tmp_path):
    _, seg, tra = video(tmp_path, frames=40, shape=(72, 72), n=12)
    for objects, markers in zip(seg, tra, strict=True):
        np.testing.assert_array_equal(np.unique(objects), np.arange(13))
        centres = np.array(ndimage.center_of_mass(markers > 0, markers, np.arange(1, 13)))
        assert pdist(centres).min() > 0.75 * 20 - 2  # markers are drawn to the pixel


def test_a_partly_annotated_frame_has_markers_on_cells_without_annotation(tmp_path):
    _, whole, _ = video(tmp_path / "whole")
    _, seg, tra = video(tmp_path / "partly", partly=[2])
    np.testing.assert_array_equal(np.delete(seg, 2, axis=0), np.delete(whole, 2, axis=0))
    np.testing.assert_array_equal(seg[2], np.where(whole[2] % 2, whole[2], 0))
    np.testing.assert_array_equal(np.unique(tra[2]), np.arange(9))
