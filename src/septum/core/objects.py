"""The objects of a label image: their measurements in pixels and micrometres, and their smallest sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from skimage import measure

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64, Integer, Shaped

Row = dict[str, float | int | str]


def drop_small(labels: Integer[np.ndarray, "*shape"], smallest: int) -> Integer[np.ndarray, "*shape"]:
    """Remove instances of fewer than `smallest` pixels and renumber the others without gaps, in their order.

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
    numbers, areas = np.unique(labels, return_counts=True)  # no table as long as the largest number
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    inner = areas[(numbers > 0) & ~np.isin(numbers, edge)]
    return int(inner.min()) if len(inner) else None


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
    labels: Integer[np.ndarray, "Y X"],
    image: Shaped[np.ndarray, "C Y X"],
    pixel_size: tuple[float, float] | None,
    class_names: tuple[str, ...] = (),
) -> list[Row]:
    """Measure every object.

    Parameters
    ----------
    labels : (Y, X) integer array
        Instances; or classes, if `class_names` are given: then every 8-connected component of a class is an object.
    image : (C, Y, X) array
        For the mean intensity per channel.
    pixel_size : (float, float) or None
        Micrometres per pixel (y, x). None: no columns in micrometres.
    class_names : tuple of str
        Names of the classes 0, 1, ...

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
            row |= _in_micrometres(float(region.area), float(y), float(x), pixel_size)
        for channel, value in enumerate(np.atleast_1d(region.intensity_mean)):
            row[f"mean_intensity_{channel}"] = float(value)
        rows.append(row)
    return rows


@dataclass(frozen=True)
class Sums:
    """Sums over a part of an image, which add up to the measurements of its objects: one row per object, by number."""

    ids: Int64[np.ndarray, " n"]  # rising
    areas: Int64[np.ndarray, " n"]  # pixels
    places: Int64[np.ndarray, "n 2"]  # sums of rows and of columns
    values: Float64[np.ndarray, "n C"]  # sums of grey values


def sums_of_objects(
    labels: Integer[np.ndarray, "y x"], image: Shaped[np.ndarray, "C y x"], corner: Sequence[int]
) -> Sums:
    """Sum over the objects in a part of an image; `corner` is the first pixel of the part in the image.

    Examples
    --------
    >>> sums = sums_of_objects(np.array([[7, 7, 0]]), np.array([[[4, 6, 0]]]), corner=(0, 10))
    >>> sums.ids, sums.areas, sums.places, sums.values
    (array([7]), array([2]), array([[ 0, 21]]), array([[10.]]))
    """
    rows, columns = np.nonzero(labels)
    ids, which = np.unique(labels[rows, columns], return_inverse=True)

    def total(weights: np.ndarray) -> np.ndarray:
        return np.bincount(which, weights, len(ids)).astype(np.float64)  # integers where there are no objects

    areas = np.bincount(which, minlength=len(ids))
    # whole numbers below 2**53, so that the sums in float64 are exact
    places = [total(at).astype(np.int64) + start * areas for at, start in zip((rows, columns), corner, strict=True)]
    values = [total(channel[rows, columns]) for channel in image.astype(np.float64)]
    return Sums(ids.astype(np.int64), areas.astype(np.int64), np.stack(places, 1), np.stack(values, 1))


def rows_of_sums(sums: Sums, pixel_size: tuple[float, float] | None) -> Iterator[Row]:
    """Yield the columns of `measure_objects` that follow from sums: area, position and intensity.

    Examples
    --------
    >>> next(rows_of_sums(sums_of_objects(np.array([[1, 1]]), np.array([[[4, 6]]]), (0, 0)), pixel_size=None))
    {'object': 1, 'area_px': 2, 'y_px': 0.0, 'x_px': 0.5, 'mean_intensity_0': 5.0}
    """
    centres = sums.places / sums.areas[:, None]
    means = sums.values / sums.areas[:, None]
    for number, pixels, (y, x), intensities in zip(
        sums.ids.tolist(), sums.areas.tolist(), centres.tolist(), means.tolist(), strict=True
    ):
        row: Row = {"object": number, "area_px": pixels, "y_px": round(y, 3), "x_px": round(x, 3)}
        if pixel_size is not None:
            row |= _in_micrometres(pixels, y, x, pixel_size)
        row |= {f"mean_intensity_{channel}": value for channel, value in enumerate(intensities)}
        yield row


def _in_micrometres(pixels: float, y: float, x: float, pixel_size: tuple[float, float]) -> Row:
    area = pixels * pixel_size[0] * pixel_size[1]
    return {
        "area_um2": area,
        "y_um": y * pixel_size[0],
        "x_um": x * pixel_size[1],
        "equivalent_diameter_um": 2 * float(np.sqrt(area / np.pi)),
    }
