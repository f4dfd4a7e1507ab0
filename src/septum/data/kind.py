"""Instances or classes: what the values of label images mean, detected from the images themselves."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy import ndimage

from septum.choices import Kind

ONE_PIECE_SHARE = 0.9  # a label is one connected object if its largest component has this share of its pixels
INSTANCE_SHARE = 0.8  # share of the labels that must be one connected object for an image of instances
MAX_LABEL_CLASSES = 64


def components(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split a label image into connected components of equal label (8-neighbours, so that thin objects stay whole).

    Parameters
    ----------
    labels : (Y, X) integer array
        0 is background.

    Returns
    -------
    pieces : (Y, X) integer array
        0 on background, 1..n on the components.
    values, areas : (n,) arrays
        The label and the number of pixels of each component.

    Examples
    --------
    >>> components(np.array([[5, 5, 0, 5, 7]]))[1:]
    (array([5, 5, 7]), array([2, 1, 1]))
    """
    from skimage.measure import label  # slow to import

    pieces, n = label(labels, background=0, connectivity=2, return_num=True)
    values = np.zeros(n + 1, labels.dtype)
    values[pieces] = labels
    return pieces, values[1:], np.bincount(pieces.ravel(), minlength=n + 1)[1:]


def decide_kind(labels: Iterable[np.ndarray]) -> tuple[Kind, str]:
    """Tell instances from classes, and say why.

    Labels with at most two values in all images are classes. Otherwise they are instances if at least 80 % of the
    labels, counted per image, are one connected object each (90 % of their pixels, so that specks do not matter), or if
    there are more than 64 different labels. Everything else is classes.

    Parameters
    ----------
    labels : (Y, X) integer arrays
        All label images of a data set, looked at one by one.

    Returns
    -------
    kind : "instances" or "classes"
    reason : str
        One sentence, which also says how to override the decision.

    Examples
    --------
    >>> decide_kind([np.array([[1, 0, 2]])])
    ('instances', 'read as instances: each of the 2 labels is one connected object (override with --kind classes)')
    >>> decide_kind([np.array([[1, 0, 1, 2, 0, 2]])])[0]
    'classes'
    """
    found, whole, total = set[int](), 0, 0
    for image in labels:
        found |= set(np.unique(image).tolist())
        _, values, areas = components(image)
        _, where = np.unique(values, return_inverse=True)
        largest = np.zeros(where.max(initial=-1) + 1)
        np.maximum.at(largest, where, areas)
        whole += int((largest >= ONE_PIECE_SHARE * np.bincount(where, areas, len(largest))).sum())
        total += len(largest)
    if len(found) <= 2:
        objects = "use --kind instances to make each connected component one object" if 0 in found else "background 0"
        return "classes", (
            f"read as classes: the labels contain only {' and '.join(map(str, sorted(found)))}, so touching objects "
            f"cannot be told apart (for instances, give each object its own number{', or ' if 0 in found else ' and '}"
            f"{objects})"
        )
    some = f"{whole} of {total} labels, counted per image, are one connected object each"
    if whole >= INSTANCE_SHARE * total:
        reason = f"each of the {total} labels is one connected object" if whole == total else some
        return "instances", f"read as instances: {reason} (override with --kind classes)"
    different = len(found - {0})
    if different > MAX_LABEL_CLASSES:
        return "instances", f"read as instances: there are {different} different labels, although only {some}"
    return "classes", f"read as classes: only {some} (override with --kind instances)"


def connected_instances(mask: np.ndarray) -> np.ndarray:
    """Number the 4-connected components of a mask, as the EM challenge does: (Y, X) int32."""
    numbered: np.ndarray = ndimage.label(mask)[0]
    return numbered.astype(np.int32)
