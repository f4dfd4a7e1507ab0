"""From probabilities to labels: seeds, components, growth, holes, debris, numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from scipy import ndimage

from septum.config import Decoding
from septum.core.labels import Labels, renumber_by_first_pixel
from septum.core.objects import drop_small
from septum.core.targets import INSTANCE_TARGETS
from septum.errors import ImageError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int32, Real


def decode(
    target: str, probabilities: Real[np.ndarray, "... Y X"], decoding: Decoding | None = None
) -> Int32[np.ndarray, "Y X"]:
    """Turn the probabilities of a whole image into labels.

    Classes: the most probable class of every pixel, the lowest of equal ones. Instances, in this order:

    1. find the 8-connected components of the target's seeds,
    2. extend each by what the target's encoding cut off, and fill holes of at most ``decoding.largest_hole`` pixels
       (`finish`, which depends on a neighbourhood of `reach` pixels),
    3. remove objects of fewer than ``decoding.smallest_object`` pixels as debris,
    4. number the objects 1..n by their first pixels in raster order.

    Step 2 depends on a neighbourhood only. Steps 1, 3 and 4 need only which components touch, their areas and their
    first pixels. So a result made block by block equals this one.

    Parameters
    ----------
    target : str
        A key of `septum.core.targets.TARGETS`.
    probabilities : (K, Y, X) array
        Probabilities of the target's classes. Classes also take them as stored, in 0..255.
    decoding : Decoding, optional
        Thresholds and sizes.

    Returns
    -------
    (Y, X) int32 array

    Raises
    ------
    ImageError
        If the number of classes is not that of the target.

    Examples
    --------
    >>> from septum.core.targets import border
    >>> classes = border.encode(np.repeat([[1, 1, 1, 2, 2, 2]], 3, axis=0))
    >>> decode("border", np.stack([1.0 - classes, classes]))[0]
    array([1, 1, 1, 2, 2, 2], dtype=int32)
    """
    decoding = decoding or Decoding()
    if target == "classes":
        classes: Labels = np.argmax(probabilities, axis=0).astype(np.int32)
        return classes
    expected = INSTANCE_TARGETS[target].n_classes(0)
    if probabilities.ndim != 3 or len(probabilities) != expected:
        raise ImageError(
            f"target {target!r} needs probabilities of shape ({expected}, Y, X), got {probabilities.shape}; "
            "give those of a network that was trained for this target"
        )
    components = connected_components(INSTANCE_TARGETS[target].seeds(probabilities, decoding))
    labels = finish(target, components, probabilities, decoding)
    if decoding.smallest_object:
        labels = drop_small(labels, decoding.smallest_object)
    renumber_by_first_pixel(labels)
    return labels


def connected_components(mask: Bool[np.ndarray, "Y X"]) -> Int32[np.ndarray, "Y X"]:
    """Number the 8-connected components of a (Y, X) mask."""
    components = np.empty(mask.shape, dtype=np.int32)
    ndimage.label(mask, structure=np.ones((3, 3)), output=components)
    return components


def finish(
    target: str, components: Int32[np.ndarray, "Y X"], probabilities: Float[np.ndarray, "K Y X"], decoding: Decoding
) -> Int32[np.ndarray, "Y X"]:
    """Extend numbered components by what the encoding cut off, and fill small holes; depends on `reach` pixels only."""
    labels = INSTANCE_TARGETS[target].extend(components, probabilities, decoding)
    return fill_holes(labels, decoding.largest_hole) if decoding.largest_hole else labels


def reach(target: str, decoding: Decoding) -> int:
    """Return how many pixels away `finish` looks."""
    hole = decoding.largest_hole + 1 if decoding.largest_hole else 0
    return INSTANCE_TARGETS[target].reach(decoding) + hole


def fill_holes(labels: Int32[np.ndarray, "Y X"], largest: int) -> Int32[np.ndarray, "Y X"]:
    """Fill holes: 4-connected background inside one object, of at most `largest` pixels, not at the edge of the image.

    Examples
    --------
    >>> ring = np.array([[3, 3, 3], [3, 0, 3], [3, 3, 3]], np.int32)
    >>> int(fill_holes(ring, largest=1)[1, 1]), int(fill_holes(ring, largest=0)[1, 1])
    (3, 0)
    """
    holes = np.empty(labels.shape, dtype=np.int32)
    count = ndimage.label(labels == 0, output=holes)
    filled: Labels = _filled(holes, labels, _owners(holes, labels, count, largest))
    return filled


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _owners(holes: Labels, labels: Labels, count: int, largest: int) -> Labels:
    """The object around each hole; 0 if there are several, or if the hole reaches the edge or is too large."""
    height, width = holes.shape
    owner = np.zeros(count + 1, dtype=np.int32)
    size = np.zeros(count + 1, dtype=np.int64)
    shared = np.zeros(count + 1, dtype=np.bool_)
    for y in range(height):
        for x in range(width):
            hole = holes[y, x]
            if hole == 0:
                continue
            size[hole] += 1
            if y == 0 or x == 0 or y == height - 1 or x == width - 1:
                shared[hole] = True
                continue
            for v, u in ((y - 1, x), (y, x - 1), (y, x + 1), (y + 1, x)):
                label = labels[v, u]
                if label > 0:
                    shared[hole] |= owner[hole] > 0 and owner[hole] != label
                    owner[hole] = label
    owner[shared | (size > largest)] = 0
    return owner


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _filled(holes: Labels, labels: Labels, owner: Labels) -> Labels:
    """The labels with the number of its owner in every hole."""
    filled = labels.copy()
    for y in range(holes.shape[0]):
        for x in range(holes.shape[1]):
            if holes[y, x] > 0:
                filled[y, x] = owner[holes[y, x]]
    return filled
