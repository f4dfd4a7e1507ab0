"""The objects of a label image: their measurements in pixels and micrometres, and which are too small to be any."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage import measure

Row = dict[str, float | int | str]


def drop_small(labels: np.ndarray, smallest: int) -> np.ndarray:
    """Remove instances of fewer pixels and close the gaps in the numbering; the order of the others stays.

    Examples
    --------
    >>> drop_small(np.array([[1, 1, 0, 2, 0, 3, 3]]), smallest=2)
    array([[1, 1, 0, 0, 0, 2, 2]])
    """
    kept = np.bincount(labels.ravel()) >= smallest
    kept[0] = False
    numbers = np.where(kept, np.cumsum(kept), 0).astype(labels.dtype)
    result: np.ndarray = numbers[labels]
    return result


def smallest_inner_object(labels: np.ndarray) -> int | None:
    """Return the size in pixels of the smallest instance that the edge of the image does not cut; None without any.

    Examples
    --------
    >>> smallest_inner_object(np.pad(np.array([[1, 2, 2]]), 1)), smallest_inner_object(np.array([[1]]))
    (1, None)
    """
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    areas[np.unique(edge)] = 0
    return int(areas[areas > 0].min()) if areas.any() else None


def smallest_hole(labels: np.ndarray) -> int | None:
    """Return the pixels of the smallest 4-connected piece of background that does not reach the edge; None without any.

    Examples
    --------
    >>> smallest_hole(np.pad(np.array([[0]]), 1, constant_values=5)), smallest_hole(np.array([[0, 5]]))
    (1, None)
    """
    holes, _ = ndimage.label(labels == 0)
    return smallest_inner_object(holes)


def measure_objects(
    labels: np.ndarray, image: np.ndarray, pixel_size: tuple[float, float] | None, class_names: tuple[str, ...] = ()
) -> list[Row]:
    """Measure every object.

    Parameters
    ----------
    labels : (Y, X) integer array
        Instances; or classes if `class_names` are given: then every 8-connected part of a class is an object.
    image : (C, Y, X) array
        For the mean intensity per channel.
    pixel_size : (float, float) or None
        Micrometre per pixel (y, x); without it the columns in micrometres are left out.
    class_names : tuple of str
        Of the classes 0, 1, ...

    Returns
    -------
    list of dict
        One row per object, by number. Lengths end in ``_px`` or ``_um``, areas in ``_px`` or ``_um2``; positions
        are those of pixel centres, (0, 0) being the first pixel.

    Examples
    --------
    >>> rows = measure_objects(np.array([[1, 1, 0]]), np.array([[[4, 6, 0]]]), pixel_size=(0.5, 0.5))
    >>> rows[0]["area_px"], rows[0]["area_um2"], rows[0]["x_px"], rows[0]["mean_intensity_0"]
    (2, 0.5, 0.5, 5.0)
    """
    objects = measure.label(labels, connectivity=2) if class_names else labels
    rows: list[Row] = []
    for region in measure.regionprops(objects, intensity_image=np.moveaxis(image, 0, -1)):
        y, x = region.centroid
        row: Row = {"object": int(region.label)}
        if class_names:
            row["class"] = class_names[int(labels[tuple(region.coords[0])])]
        row |= {"area_px": int(region.area), "y_px": round(float(y), 3), "x_px": round(float(x), 3)}
        row |= {
            "major_axis_px": round(float(region.axis_major_length), 3),
            "minor_axis_px": round(float(region.axis_minor_length), 3),
            "eccentricity": round(float(region.eccentricity), 4),
            "perimeter_px": round(float(region.perimeter), 3),
        }
        if pixel_size is not None:
            area = float(region.area) * pixel_size[0] * pixel_size[1]
            row |= {"area_um2": area, "y_um": float(y) * pixel_size[0], "x_um": float(x) * pixel_size[1]}
            row["equivalent_diameter_um"] = 2 * float(np.sqrt(area / np.pi))
        for channel, value in enumerate(np.atleast_1d(region.intensity_mean)):
            row[f"mean_intensity_{channel}"] = float(value)
        rows.append(row)
    return rows
