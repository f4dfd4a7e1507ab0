"""ROIs cover the pixels that ImageJ would: those whose centre is inside."""

import numpy as np
import pytest
import roifile

from septum.data.findings import BadFile
from septum.data.rois import read_rois


def archive(path, *rois):
    roifile.roiwrite(path, list(rois), mode="w")
    return path


def polygon(corners, name, **more):
    roi = roifile.ImagejRoi.frompoints(np.asarray(corners, float), name=name)
    roi.roitype = roifile.ROI_TYPE.POLYGON
    for key, value in more.items():
        setattr(roi, key, value)
    return roi


def rectangle(top, left, bottom, right, kind=roifile.ROI_TYPE.RECT, **more):
    roi = roifile.ImagejRoi(roitype=kind, top=top, left=left, bottom=bottom, right=right, name=f"r{top}")
    for key, value in more.items():
        setattr(roi, key, value)
    return roi


def test_a_polygon_on_pixel_corners_covers_exactly_its_pixels(tmp_path):
    corners = [(2, 1), (6, 1), (6, 3), (4, 3), (4, 5), (2, 5)]  # (x, y), an L
    (labels,), ignore = read_rois(archive(tmp_path / "a.zip", polygon(corners, "L")), (7, 8), ())
    expected = np.zeros((7, 8), int)
    expected[1:3, 2:6] = expected[3:5, 2:4] = 1
    np.testing.assert_array_equal(labels, expected)
    assert ignore == [None]


def test_a_slanted_polygon_covers_the_centres_inside_it(tmp_path):
    corners = np.array([(1.3, 0.2), (11.6, 3.1), (5.2, 9.7)])
    (labels,), _ = read_rois(archive(tmp_path / "a.zip", polygon(corners, "triangle")), (12, 13), ())
    y, x = np.mgrid[:12, :13] + 0.5
    sides = [
        (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0)
        for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True)
    ]
    np.testing.assert_array_equal(labels > 0, np.all(np.array(sides) > 0, axis=0))


def test_rectangles_ovals_order_and_ignore(tmp_path):
    path = archive(
        tmp_path / "a.zip",
        rectangle(0, 0, 4, 4),
        rectangle(2, 2, 12, 22, roifile.ROI_TYPE.OVAL),
        polygon([(0, 10), (3, 10), (3, 12), (0, 12)], "ignore"),
        polygon([(20, 0), (24, 0), (24, 2), (20, 2)], "Ignore-1"),
    )
    (labels,), (ignore,) = read_rois(path, (14, 24), ())
    y, x = np.mgrid[:14, :24] + 0.5
    oval = ((y - 7) / 5) ** 2 + ((x - 12) / 10) ** 2 <= 1
    expected = np.zeros((14, 24), int)
    expected[:4, :4] = 1
    expected[oval] = 2
    np.testing.assert_array_equal(labels, expected)
    unknown = np.zeros((14, 24), bool)
    unknown[10:12, :3] = unknown[:2, 20:24] = True
    np.testing.assert_array_equal(ignore, unknown)


def test_a_composite_has_a_hole(tmp_path):
    ring = rectangle(1, 1, 9, 9)
    outer, inner = [(1, 1), (9, 1), (9, 9), (1, 9)], [(3, 3), (6, 3), (6, 6), (3, 6)]
    path = []
    for corners in (outer, inner):
        path += [0, *map(float, corners[0])]
        for corner in corners[1:]:
            path += [1, *map(float, corner)]
        path += [4]
    ring.multi_coordinates = np.array(path, np.float32)
    ring.shape_roi_size = len(path)
    (labels,), _ = read_rois(archive(tmp_path / "a.zip", ring), (10, 10), ())
    expected = np.zeros((10, 10), int)
    expected[1:9, 1:9] = 1
    expected[3:6, 3:6] = 0
    np.testing.assert_array_equal(labels, expected)


def test_rois_of_a_stack_go_to_their_slice(tmp_path):
    path = archive(tmp_path / "a.zip", rectangle(0, 0, 2, 2, position=3), rectangle(1, 1, 3, 3, z_position=1))
    labels, ignore = read_rois(path, (4, 4), [("Z", 3)])
    assert [np.unique(frame).tolist() for frame in labels] == [[0, 2], [0], [0, 1]]
    assert ignore == [None] * 3
    with pytest.raises(
        BadFile, match=r"has the ROI 'r0' at slice 3, expected slice 1..2; in Fiji, tick 'Associate ROIs"
    ):
        read_rois(path, (4, 4), [("Z", 2)])


@pytest.mark.parametrize("axes", ["TZ", "ZT"])
def test_rois_of_slices_at_time_points_need_both(axes, tmp_path):
    grid = [(axis, {"T": 2, "Z": 3}[axis]) for axis in axes]
    rois = [rectangle(k, 0, k + 1, 2, t_position=k // 3 + 1, z_position=k % 3 + 1) for k in range(6)]
    labels, _ = read_rois(archive(tmp_path / "a.zip", *rois), (8, 4), [*grid, ("A", 1)])
    stack = np.reshape(labels, ([length for _, length in grid] + [8, 4]))
    for k, roi in enumerate(rois):
        place = {"T": roi.t_position - 1, "Z": roi.z_position - 1}
        assert np.unique(stack[tuple(place[axis] for axis in axes)]).tolist() == [0, k + 1]
    unknown = archive(tmp_path / "b.zip", rectangle(0, 0, 2, 2, z_position=3))
    with pytest.raises(
        BadFile, match=r"has the ROI 'r0' at time point 0, slice 3, expected .*; in Fiji, tick"
    ) as caught:
        read_rois(unknown, (8, 4), grid)
    assert caught.value.finding.code == "frame-mismatch"


def test_a_roi_at_a_later_time_point_is_on_no_frame_of_a_stack_of_slices(tmp_path):
    path = archive(tmp_path / "a.zip", rectangle(0, 0, 2, 2, t_position=2, z_position=3))
    with pytest.raises(BadFile, match=r"at time point 2, slice 3, expected slice 1..6; in Fiji"):
        read_rois(path, (4, 4), [("Z", 6)])


def test_rois_without_an_area_are_refused(tmp_path):
    line = archive(tmp_path / "line.zip", rectangle(0, 0, 2, 2, roifile.ROI_TYPE.LINE))
    with pytest.raises(BadFile, match="has the ROI 'r0' of type line, expected an area; outline the object, or delete"):
        read_rois(line, (4, 4), ())
    with pytest.raises(
        BadFile, match="has the ROI 'r8' outside its image of 4 x 4 pixels; check that the ROIs were drawn on"
    ):
        read_rois(archive(tmp_path / "far.zip", rectangle(8, 8, 9, 9)), (4, 4), ())
    for name, content in (("text.zip", b"no archive"), ("cut.zip", line.read_bytes()[:40])):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadFile, match="is not a zip archive of ImageJ ROIs; save it again from the ROI Manager"):
            read_rois(tmp_path / name, (4, 4), ())
