"""The paper's target for instances: foreground, with a border of background cut between touching instances."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from numba import njit

from septum.config import Decoding
from septum.core.grow import grow
from septum.core.labels import Labels, Mask, as_labels
from septum.core.loss import weighted_cross_entropy

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int32, UInt8

loss = weighted_cross_entropy


def n_classes(largest_label: int) -> int:
    """Return 2, background and foreground, however many instances there are."""
    return 2


def encode(labels: npt.ArrayLike) -> UInt8[np.ndarray, "Y X"]:
    """Cut the separation border: an instance's pixel becomes 0 if one of its 8 neighbours is of another instance.

    The paper computes its border "using morphological operations" and says no more. This rule is symmetric: touching
    instances lose one pixel each, the border between them is two pixels wide, and no two of the remaining pieces are
    8-neighbours.

    Parameters
    ----------
    labels : (Y, X) integer array
        Label image: 0 is background, every other value is one instance.

    Returns
    -------
    (Y, X) uint8 array
        0 background and border, 1 foreground.

    Raises
    ------
    ImageError
        If `labels` is not a label image.

    Examples
    --------
    >>> encode(np.array([[1, 1, 1, 2, 2, 2]]))
    array([[1, 1, 0, 0, 1, 1]], dtype=uint8)
    """
    labels = as_labels(labels)
    classes: npt.NDArray[np.uint8] = ((labels > 0) & ~_touches_another(labels, labels > 0)).astype(np.uint8)
    return classes


def ambiguous(labels: npt.ArrayLike, unknown: Bool[np.ndarray, "Y X"]) -> Bool[np.ndarray, "Y X"]:
    """Return no pixel: only the outermost pixels of an instance beside unannotated ones could be border."""
    return np.zeros(unknown.shape, bool)


def seeds(probabilities: Float[np.ndarray, "2 Y X"], decoding: Decoding) -> Bool[np.ndarray, "Y X"]:
    """Return the foreground, each 8-connected component of which is one object.

    Examples
    --------
    >>> seeds(np.array([[[0.5, 0.2]], [[0.5, 0.8]]]), Decoding())
    array([[False,  True]])
    """
    mask: Mask = probabilities[1] > decoding.seed
    return mask


def extend(
    components: Int32[np.ndarray, "Y X"], probabilities: Float[np.ndarray, "2 Y X"], decoding: Decoding
) -> Int32[np.ndarray, "Y X"]:
    """Return to each component its part of the separation border.

    For instances at least five pixels wide (unions of 5x5 squares whose centres are 8-connected) nothing is lost, and
    decoding what was encoded gives the labels, up to the numbers, except where two classes cannot say it: a gap of
    exactly two pixels, also that beside the end of a border, looks like a border. Such a gap is given to the instances;
    the result then is another label image with the same map, ``encode(decode(encode(labels))) == encode(labels)``.
    Gaps of one pixel, or of three and more, are kept.

    Of thinner instances, what the cut leaves is kept. Where an instance is less than three pixels wide, it and its
    neighbour do not get the border between them back. An instance that the cut splits comes back as several; one that
    it removes (two pixels wide between neighbours, one pixel wide beside one) is lost.

    Parameters
    ----------
    components : (Y, X) int32 array
        The numbered components of `seeds`.
    probabilities : (2, Y, X) array
        Of background and foreground.
    decoding : Decoding
        If `foreground` is below `seed`, components first grow into that foreground by `reach` steps.

    Returns
    -------
    (Y, X) int32 array
        The same numbers on more pixels; each depends on what lies within ``reach(decoding)`` pixels.
    """
    if decoding.foreground < decoding.seed:
        components = grow(components, probabilities[1] > decoding.foreground, decoding.reach)
    return give_border_back(components)


def reach(decoding: Decoding) -> int:
    """Return how many pixels away `extend` looks."""
    return 5 + (decoding.reach if decoding.foreground < decoding.seed else 0)


def needed_reach(labels: npt.ArrayLike) -> int:
    """Return 5: how far objects may grow into less certain foreground, whatever the labels."""
    return 5


def give_border_back(components: Int32[np.ndarray, "Y X"]) -> Int32[np.ndarray, "Y X"]:
    """Extend components by the background pixels that `encode` may have cut off.

    Every background pixel beside exactly one component is offered to it. It is kept if `encode` would cut it off again,
    because it touches a pixel offered to another, unless it sticks out: pixels given back lie in a 3x3 square of their
    object. So encoding the result gives the foreground of `components` again, whatever they are. Each pixel depends on
    the components within 5 pixels.

    Parameters
    ----------
    components : (Y, X) int32 array
        0 is background; different components are not 8-neighbours.

    Returns
    -------
    (Y, X) int32 array
        The same numbers on more pixels.

    Examples
    --------
    >>> give_border_back(np.repeat([[7, 7, 0, 0, 5, 5, 0]], 3, axis=0).astype(np.int32))[0]
    array([7, 7, 7, 5, 5, 5, 0], dtype=int32)
    """
    labels: Labels = _offer(components)
    for keep in (_touches_another, _in_square, _touches_another):
        offered = (components == 0) & (labels > 0)
        labels[offered & ~keep(labels, offered)] = 0
    return labels


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _touches_another(labels: Labels, where: Mask) -> Mask:
    """Whether a pixel has one of another object among its 8 neighbours."""
    height, width = labels.shape
    touches = np.zeros(labels.shape, dtype=np.bool_)
    for y in range(height):
        for x in range(width):
            if not where[y, x]:
                continue
            for v in range(max(0, y - 1), min(height, y + 2)):
                for u in range(max(0, x - 1), min(width, x + 2)):
                    touches[y, x] |= labels[v, u] != 0 and labels[v, u] != labels[y, x]
    return touches


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _offer(components: Labels) -> Labels:
    """Add to each component the background pixels with no other component among their 8 neighbours."""
    height, width = components.shape
    offered = components.copy()
    for y in range(height):
        for x in range(width):
            if components[y, x] > 0:
                continue
            lowest, highest = np.int32(0), np.int32(0)
            for v in range(max(0, y - 1), min(height, y + 2)):
                for u in range(max(0, x - 1), min(width, x + 2)):
                    if components[v, u] > 0:
                        lowest = min(lowest, components[v, u]) if lowest else components[v, u]
                        highest = max(highest, components[v, u])
            if lowest == highest:
                offered[y, x] = lowest
    return offered


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _in_square(labels: Labels, where: Mask) -> Mask:
    """Whether a pixel lies in a 3x3 square that is wholly of its object."""
    height, width = labels.shape
    inside = np.zeros(labels.shape, dtype=np.bool_)
    for y in range(height):
        for x in range(width):
            if not where[y, x]:
                continue
            for v in range(max(0, y - 2), min(height - 2, y + 1)):
                for u in range(max(0, x - 2), min(width - 2, x + 1)):
                    inside[y, x] = inside[y, x] or _is_square(labels, v, u, labels[y, x])
    return inside


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _is_square(labels: Labels, top: int, left: int, label: int) -> bool:
    """Whether all pixels of a 3x3 square are of one object."""
    for y in range(top, top + 3):
        for x in range(left, left + 3):
            if labels[y, x] != label:
                return False
    return True
