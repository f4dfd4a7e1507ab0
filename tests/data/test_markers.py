import numpy as np

from septum.data.markers import unannotated


def disc(shape, centre, radius):
    y, x = np.ogrid[: shape[0], : shape[1]]
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2


def test_background_is_unknown_as_far_as_the_largest_outlined_cell_reaches_from_its_marker():
    shape = (80, 120)
    labels = disc(shape, (20, 20), 7) * 3 + disc(shape, (60, 20), 12) * 4
    markers = np.zeros(shape, int)
    markers[20, 20], markers[60, 20], markers[40, 90] = 1, 2, 3
    np.testing.assert_array_equal(unannotated(labels, markers), disc(shape, (40, 90), 12))


def test_outlined_cells_stay_known():
    shape = (40, 60)
    labels = disc(shape, (20, 20), 9).astype(int)
    markers = np.zeros(shape, int)
    markers[20, 20], markers[20, 32] = 1, 2
    unknown = unannotated(labels, markers)
    assert not unknown[labels > 0].any()
    np.testing.assert_array_equal(unknown, disc(shape, (20, 32), 9) & (labels == 0))


def test_a_complete_frame_has_nothing_unknown_and_one_without_cells_nothing_known():
    labels, markers = np.zeros((9, 9), int), np.zeros((9, 9), int)
    assert unannotated(labels, markers) is None  # no cells at all
    markers[4, 4] = 6
    assert unannotated(labels, markers).all()
    labels[3:6, 3:6] = 1
    assert unannotated(labels, markers) is None
