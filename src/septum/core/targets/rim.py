"""A target for instances: a core deep inside each instance and a rim around it. Cores do not touch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage import measure

from septum.config import Decoding
from septum.core.grow import grow
from septum.core.labels import Labels, Mask, as_labels
from septum.core.loss import weighted_cross_entropy
from septum.core.region import clip, expand

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int32, UInt8

DETOUR = 1.25  # paths inside an object may be longer than straight lines
CORE = 0.4  # a pixel of the core has at least this share of the instance's largest depth

loss = weighted_cross_entropy


def n_classes(largest_label: int) -> int:
    """Return 3: background, rim and core."""
    return 3


def encode(labels: npt.ArrayLike) -> UInt8[np.ndarray, "Y X"]:
    """Split every instance into a rim and a core.

    The depth of a pixel is its Euclidean distance to the nearest pixel of anything else inside the image; the core is
    where it is at least `CORE` of the instance's largest. So every instance has a core, however small, and the cores of
    touching instances are kept apart by two rims: a single wrong pixel merges nothing. If a number occurs in several
    pieces, each piece is an instance.

    Parameters
    ----------
    labels : (Y, X) integer array
        Label image: 0 is background, every other value is one instance.

    Returns
    -------
    (Y, X) uint8 array
        0 background, 1 rim, 2 core.

    Raises
    ------
    ImageError
        If `labels` is not a label image.

    Examples
    --------
    >>> encode(np.repeat([[1, 1, 1, 1, 1, 0]], 5, axis=0))[2]
    array([2, 2, 2, 2, 1, 0], dtype=uint8)
    """
    labels = as_labels(labels)
    return _encode(labels, np.zeros(labels.shape, bool))


def ambiguous(labels: npt.ArrayLike, unknown: Bool[np.ndarray, "Y X"]) -> Bool[np.ndarray, "Y X"]:
    """Return the pixels of instances that would change class if the instance continued into unannotated pixels.

    There an instance may be cut, for example by the edge of an annotated square; that edge is not its outline.

    Examples
    --------
    >>> labels, unknown = np.repeat([[0, 1, 1, 1, 1, 1, 1, 1, 0]], 9, axis=0), np.zeros((9, 9), bool)
    >>> unknown[:, 8] = True  # if the instance continues there, column 7 is core, and column 2 no longer deep enough
    >>> ambiguous(labels, unknown)[4].astype(int)
    array([0, 0, 1, 0, 0, 0, 0, 1, 0])
    """
    labels = np.where(unknown, 0, as_labels(labels)).astype(np.int32)
    differs: Mask = _encode(labels, np.zeros(labels.shape, bool)) != _encode(labels, unknown)
    return differs


def _encode(labels: Labels, unknown: Mask) -> npt.NDArray[np.uint8]:
    """Rims and cores; neither unannotated pixels nor the edge of the image count as an outline."""
    classes: npt.NDArray[np.uint8] = (labels > 0).astype(np.uint8)
    pieces = measure.label(labels, connectivity=2)
    for piece, box in enumerate(ndimage.find_objects(pieces), start=1):
        wider = clip(expand(box, 1), labels.shape)
        inside = pieces[wider] == piece
        without_outline = inside | unknown[wider]
        if without_outline.all():
            classes[wider][inside] = 2
            continue
        depth = ndimage.distance_transform_edt(np.pad(without_outline, 1, mode="edge"))[1:-1, 1:-1]
        deepest = depth[inside].max()
        classes[wider][inside & (depth >= max(CORE * deepest, min(2.0, deepest)))] = 2
    return classes


def seeds(probabilities: Float[np.ndarray, "3 Y X"], decoding: Decoding) -> Bool[np.ndarray, "Y X"]:
    """Return the cores, each 8-connected component of which is one object.

    Examples
    --------
    >>> seeds(np.array([[[0.5, 0.0]], [[0.5, 0.2]], [[0.0, 0.8]]]), Decoding())
    array([[False,  True]])
    """
    mask: Mask = probabilities[2] > decoding.seed
    return mask


def extend(
    components: Int32[np.ndarray, "Y X"], probabilities: Float[np.ndarray, "3 Y X"], decoding: Decoding
) -> Int32[np.ndarray, "Y X"]:
    """Grow each core into rim and core, all at the same pace, by at most ``decoding.reach`` pixels.

    Parameters
    ----------
    components : (Y, X) int32 array
        The numbered cores.
    probabilities : (3, Y, X) array
        Of background, rim and core.
    decoding : Decoding
        ``foreground`` is the threshold of 1 - P(background).

    Returns
    -------
    (Y, X) int32 array
        The same numbers on more pixels; each depends on what lies within ``reach(decoding)`` pixels.
    """
    return grow(components, 1 - probabilities[0] > decoding.foreground, decoding.reach)


def reach(decoding: Decoding) -> int:
    """Return how many pixels away `extend` looks."""
    return decoding.reach


def needed_reach(labels: npt.ArrayLike) -> int:
    """Return how far from its core a pixel of an instance may lie, in pixels: the `reach` that these labels need.

    Examples
    --------
    >>> needed_reach(np.pad(np.ones((9, 9), int), 1))
    2
    """
    labels = as_labels(labels)
    core = encode(labels) == 2
    numbered = np.searchsorted(np.unique(labels[labels > 0]), labels, "right")  # 0, and 1..n without gaps
    farthest = 0.0
    for number, box in enumerate(ndimage.find_objects(numbered), start=1):
        inside = numbered[box] == number
        farthest = max(farthest, ndimage.distance_transform_edt(~(inside & core[box]))[inside].max())
    return math.ceil(farthest * DETOUR)
