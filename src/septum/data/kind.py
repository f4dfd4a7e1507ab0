"""Instances or classes: what the numbers of label images mean, read from the images themselves."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy import ndimage

from septum.choices import Kind

ONE_PIECE_SHARE = 0.9  # a number is one piece if its largest component has this share of its pixels
INSTANCE_SHARE = 0.8  # share of the numbers that must be one piece for the labels to be instances
MAX_LABEL_CLASSES = 64


def components(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split a label image into connected pieces of one number (8-neighbours, so that thin objects stay whole).

    Parameters
    ----------
    labels : (Y, X) integer array
        0 is background.

    Returns
    -------
    pieces : (Y, X) integer array
        0 on background, 1..n on the pieces.
    numbers, areas : (n,) arrays
        The label of each piece, and its pixels.

    Examples
    --------
    >>> components(np.array([[5, 5, 0, 5, 7]]))[1:]
    (array([5, 5, 7]), array([2, 1, 1]))
    """
    from skimage.measure import label  # slow to import

    pieces, n = label(labels, background=0, connectivity=2, return_num=True)
    numbers = np.zeros(n + 1, labels.dtype)
    numbers[pieces] = labels
    return pieces, numbers[1:], np.bincount(pieces.ravel(), minlength=n + 1)[1:]


def decide_kind(labels: Iterable[np.ndarray]) -> tuple[Kind, str]:
    """Tell instances from classes, with the reason in one sentence.

    Two values at most in all images are classes. Otherwise labels are instances if at least 80 % of the numbers,
    counted per image, are one connected piece each (90 % of their pixels, so that specks do no harm), or if there are
    more than 64 of them; else classes.

    Parameters
    ----------
    labels : (Y, X) integer arrays
        All label images of a data set, looked at one by one.

    Returns
    -------
    kind : "instances" or "classes"
    reason : str
        Also says how to force the other.

    Examples
    --------
    >>> decide_kind([np.array([[1, 0, 2]])])[0], decide_kind([np.array([[1, 0, 1, 2, 0, 2]])])[0]
    ('instances', 'classes')
    """
    found, whole, count = set[int](), 0, 0
    for image in labels:
        found |= set(np.unique(image).tolist())
        _, numbers, areas = components(image)
        _, where = np.unique(numbers, return_inverse=True)
        largest = np.zeros(where.max(initial=-1) + 1)
        np.maximum.at(largest, where, areas)
        whole += int((largest >= ONE_PIECE_SHARE * np.bincount(where, areas, len(largest))).sum())
        count += len(largest)
    values = sorted(found)
    if len(values) <= 2:
        listed = " and ".join(map(str, values))
        pieces = 'or --kind instances (kind="instances") to take each connected piece as one object'
        return "classes", (
            f"classes, since the labels hold only {listed}: touching objects cannot be told apart (give each object a "
            f"number of its own, {pieces if 0 in values else 'and background the number 0'})"
        )
    share = f"{whole} of {count} numbers (counted per image) are one connected piece"
    if whole >= INSTANCE_SHARE * count:
        return "instances", f'instances, since {share} (force the other: --kind classes, in Python kind="classes")'
    if np.count_nonzero(values) > MAX_LABEL_CLASSES:
        return "instances", f"instances, since there are {np.count_nonzero(values)} numbers, although only {share}"
    return "classes", f'classes, since only {share} (force the other: --kind instances, in Python kind="instances")'


def connected_instances(mask: np.ndarray) -> np.ndarray:
    """Number the 4-connected pieces of a mask, as the EM challenge does: (Y, X) int32."""
    numbered: np.ndarray = ndimage.label(mask)[0]
    return numbered.astype(np.int32)
