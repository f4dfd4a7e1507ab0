"""Distances between outlines: Hausdorff at 95 % and mean surface distance, in pixels and in micrometres.

The outline of a mask is its pixels that share a face with a pixel outside it; pixels beyond the edge of
the image are outside. Ignored pixels are neither inside nor outside: they are not part of an outline, and make none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from septum.core.labels import Mask
from septum.core.metrics.checks import check_pair
from septum.errors import ImageError

if TYPE_CHECKING:
    from jaxtyping import Bool


@dataclass(frozen=True)
class SurfaceScores:
    """Distances between two outlines. All are None, with a reason, if one is empty; micrometres need a pixel size."""

    hausdorff_95_px: float | None
    mean_surface_distance_px: float | None
    hausdorff_95_um: float | None
    mean_surface_distance_um: float | None
    reason: str = ""


def surface_distance(
    truth: ArrayLike,
    prediction: ArrayLike,
    *,
    pixel_size: Sequence[float] | None = None,
    ignore: ArrayLike | None = None,
) -> SurfaceScores:
    """Measure how far the outline of one mask is from that of another.

    From every outline pixel of either mask the distance to the nearest one of the other is taken. ``hausdorff_95`` is
    the larger of the two directions' 95th percentiles (linear interpolation), ``mean_surface_distance`` the mean of
    all distances of both directions.

    Parameters
    ----------
    truth, prediction : integer or bool arrays of one shape, any number of axes
        Masks: inside is whatever is not 0.
    pixel_size : sequence of float, micrometres, optional
        Size of a pixel along each axis; need not be isotropic.
    ignore : bool array of that shape, optional
        True where pixels are left out of the score.

    Raises
    ------
    ImageError
        Shapes differ, labels are not whole numbers or negative, or pixel_size does not fit the axes.

    Examples
    --------
    >>> square = np.zeros((9, 9), bool); square[2:6, 2:6] = True
    >>> moved = np.roll(square, 1, axis=1)
    >>> scores = surface_distance(square, moved, pixel_size=(0.5, 0.25))
    >>> scores.hausdorff_95_px, scores.hausdorff_95_um
    (1.0, 0.25)
    """
    truth, prediction, mask = check_pair(truth, prediction, ignore)
    if pixel_size is not None and (len(pixel_size) != truth.ndim or not all(0 < size < np.inf for size in pixel_size)):
        raise ImageError(f"pixel_size needs one positive number for each of {truth.ndim} axes, got {tuple(pixel_size)}")
    outlines = outline(truth != 0, mask), outline(prediction != 0, mask)
    empty = [name for name, drawn in zip(("truth", "prediction"), outlines, strict=True) if not drawn.any()]
    if empty:
        return SurfaceScores(None, None, None, None, f"no outline in {' and '.join(empty)}")
    pixels = _distances(*outlines, np.ones(truth.ndim))
    micrometres = _distances(*outlines, np.asarray(pixel_size)) if pixel_size is not None else (None, None)
    return SurfaceScores(*pixels, *micrometres)


def outline(
    mask: Bool[np.ndarray, "*shape"], ignore: Bool[np.ndarray, "*shape"] | None = None
) -> Bool[np.ndarray, "*shape"]:
    """Return the pixels of a mask that share a face with a pixel outside it, or with the frame.

    Examples
    --------
    >>> outline(np.ones((3, 3), bool)).astype(int)
    array([[1, 1, 1],
           [1, 0, 1],
           [1, 1, 1]])
    """
    outside = np.pad(~mask if ignore is None else ~mask & ~ignore, 1, constant_values=True)
    near = np.zeros_like(mask)
    for axis in range(mask.ndim):
        for shift in (slice(None, -2), slice(2, None)):
            near |= outside[tuple(shift if k == axis else slice(1, -1) for k in range(mask.ndim))]
    found: Mask = mask & near if ignore is None else mask & near & ~ignore
    return found


def _distances(one: Mask, other: Mask, size: NDArray[np.float64]) -> tuple[float, float]:
    there, back = _to_nearest(one, other, size), _to_nearest(other, one, size)
    hausdorff = max(np.percentile(there, 95), np.percentile(back, 95))
    return float(hausdorff), float((there.sum() + back.sum()) / (len(there) + len(back)))


def _to_nearest(one: Mask, other: Mask, size: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of every pixel of one outline to the nearest of the other, those that are part of both first."""
    apart = one & ~other
    distances = np.zeros(int(one.sum()))
    if apart.any():
        tree = cKDTree(np.argwhere(other) * size, leafsize=40)  # half the memory of the default's nodes, as fast
        distances[-int(apart.sum()) :] = tree.query(np.argwhere(apart) * size)[0]
    return distances
