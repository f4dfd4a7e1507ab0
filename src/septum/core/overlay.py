"""Images and labels as pictures: contrast stretch, outlines and fills, agreement with the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import expand_labels

from septum.choices import Kind
from septum.errors import ImageError

if TYPE_CHECKING:
    from jaxtyping import Integer, Shaped, UInt8

Rgb = NDArray[np.uint8]  # (Y, X, 3)

# Told apart with any colour vision (Okabe and Ito 2008), without black and dark blue, which drown in dark images;
# ordered so that colours that follow each other differ most.
PALETTE = np.array(
    [(86, 180, 233), (230, 159, 0), (0, 158, 115), (240, 228, 66), (204, 121, 167), (213, 94, 0)], np.uint8
)
TRUTH = np.array((255, 176, 0), np.uint8)  # only in the truth: missed
PREDICTION = np.array((80, 190, 255), np.uint8)  # only in the prediction: invented
AGREEMENT = np.array((255, 255, 255), np.uint8)  # outlines that coincide
CONFUSED = np.array((255, 64, 160), np.uint8)  # in both, with different classes
MARK = np.array((120, 255, 90), np.uint8)  # where to look

_FILL = 0.2  # share of the colour inside an instance
_CLASS_FILL = 0.4
_ERROR_FILL = 0.5
_NEAR = 8  # pixels; instances up to twice as far apart get different colours where the palette allows


def to_rgb(image: Shaped[np.ndarray, ...]) -> UInt8[np.ndarray, "_ _ 3"]:
    """Stretch an image for the screen: its 0.5th percentile is black, its 99.5th white.

    One channel is drawn grey, two green and magenta, three (the first three of more) red, green and blue. Each channel
    is stretched by itself, except in 8-bit colour images: there all together, so that hues stay. Pixels that
    are not finite are drawn black.

    Parameters
    ----------
    image : (C, Y, X) array

    Returns
    -------
    (Y, X, 3) uint8 array

    Raises
    ------
    ImageError
        If `image` does not have three axes, or has no pixels.

    Examples
    --------
    >>> to_rgb(np.array([[[0, 50, 100]]]))[0, :, 0]
    array([  0, 127, 255], dtype=uint8)
    """
    if image.ndim != 3 or image.size == 0:
        raise ImageError(f"a picture needs an image of shape (C, Y, X) with pixels, got shape {image.shape}")
    shown = image[:3]
    if len(shown) == 3 and image.dtype == np.uint8:
        grey = _stretched(shown)
    else:
        grey = np.stack([_stretched(channel) for channel in shown])
    rgb = grey[{1: [0, 0, 0], 2: [1, 0, 1], 3: [0, 1, 2]}[len(grey)]]  # (C, Y, X) -> (3, Y, X)
    return np.ascontiguousarray((255 * rgb).astype(np.uint8).transpose(1, 2, 0))


def downsample(image: Shaped[np.ndarray, "C _ _"], factor: int) -> Shaped[np.ndarray, "C _ _"]:
    """Return the means of squares of `factor` x `factor` pixels; those at the bottom and right edge may be smaller.

    Parameters
    ----------
    image : (C, Y, X) array
    factor : int

    Returns
    -------
    (C, ceil(Y / factor), ceil(X / factor)) array
        Of the type of the image; integers are rounded.

    Examples
    --------
    >>> downsample(np.array([[[1, 3, 9], [5, 7, 9]]]), 2)
    array([[[4, 9]]])
    """
    if factor == 1:
        return image
    starts = [np.arange(0, size, factor) for size in image.shape[1:]]
    sums = np.add.reduceat(np.add.reduceat(image, starts[0], axis=1, dtype=np.float64), starts[1], axis=2)
    counts = [np.diff([*start, size]) for start, size in zip(starts, image.shape[1:], strict=True)]
    means = sums / np.multiply.outer(*counts)
    return (np.rint(means) if image.dtype.kind in "iu" else means).astype(image.dtype)


def _stretched(values: NDArray) -> NDArray[np.float32]:
    """Values -> 0..1 between two percentiles, or between the extremes where the percentiles coincide."""
    values = values.astype(np.float32)
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros_like(values)
    low, high = np.percentile(values[finite], (0.5, 99.5))
    if low == high:
        low, high = values[finite].min(), values[finite].max()
    shown = (np.where(finite, values, low) - low) / max(high - low, np.finfo(np.float32).tiny)
    return np.asarray(np.clip(shown, 0, 1), np.float32)


def overlay(
    image: NDArray,
    labels: NDArray,
    *,
    truth: NDArray | None = None,
    kind: Kind = "instances",
) -> Rgb:
    """Draw labels on an image: `paint` on `to_rgb`.

    Parameters
    ----------
    image : (C, Y, X) array
    labels, truth, kind
        As in `paint`.

    Returns
    -------
    (Y, X, 3) uint8 array

    Examples
    --------
    >>> image, labels = np.zeros((1, 5, 5)), np.zeros((5, 5), int)
    >>> labels[1:4, 1:4] = 1
    >>> overlay(image, labels)[2, :3].tolist()  # background, outline, inside
    [[0, 0, 0], [230, 159, 0], [46, 31, 0]]
    """
    return paint(to_rgb(image), labels, truth=truth, kind=kind)


def paint(
    rgb: UInt8[np.ndarray, "Y X 3"], labels: NDArray, *, truth: NDArray | None = None, kind: Kind = "instances"
) -> UInt8[np.ndarray, "Y X 3"]:
    """Draw labels on a picture, such as a crop of what `to_rgb` returned.

    Without a truth, an instance has an outline and a faint fill in a colour that follows from the label numbers and
    differs from its neighbours'; a class is a translucent fill. With a truth, the colours show errors: pixels
    that are foreground in the truth only are filled with `TRUTH`, in the prediction only with `PREDICTION`, of two
    different classes with `CONFUSED`; outlines of instances have the same colours, and `AGREEMENT` where both run.

    Outlines lie inside their instance and are one pixel wide, two from 1,500 pixels of the longer side on, and one
    more for every further 1,000, so that they survive a reduction to the size of a screen. An instance that is cut
    by the edge of the picture has no outline there.

    Parameters
    ----------
    rgb : (Y, X, 3) uint8 array
    labels : (Y, X) integer array
        0 is background; every other value one instance, or one class.
    truth : (Y, X) integer array, optional
        What `labels` should have been; its numbers need not correspond if they are instances.
    kind : {"instances", "classes"}

    Returns
    -------
    (Y, X, 3) uint8 array

    Raises
    ------
    ImageError
        If the shapes differ or the labels are not integers.
    """
    for name, given in (("labels", labels), ("truth", truth)):
        if given is not None and (given.shape != rgb.shape[:2] or given.dtype.kind not in "iu"):
            raise ImageError(
                f"{name} to draw on a picture of {rgb.shape[:2]} must be integers of that shape, "
                f"got {given.dtype} of {given.shape}"
            )
    painted = rgb.astype(np.float32)
    if truth is None:
        colours = PALETTE[_colour_index(labels, kind)]
        _fill(painted, labels > 0, colours, _FILL if kind == "instances" else _CLASS_FILL)
        if kind == "instances":
            _fill(painted, _outline(labels), colours, 1)
    else:
        _fill(painted, (truth > 0) & (labels == 0), TRUTH, _ERROR_FILL)
        _fill(painted, (truth == 0) & (labels > 0), PREDICTION, _ERROR_FILL)
        if kind == "instances":
            of_truth, of_labels = _outline(truth), _outline(labels)
            _fill(painted, of_truth, TRUTH, 1)
            _fill(painted, of_labels, PREDICTION, 1)
            _fill(painted, of_truth & of_labels, AGREEMENT, 1)
        else:
            _fill(painted, (truth > 0) & (labels > 0) & (truth != labels), CONFUSED, _ERROR_FILL)
    return painted.astype(np.uint8)


def colour(labels: Integer[np.ndarray, "Y X"]) -> UInt8[np.ndarray, "Y X 3"]:
    """Fill each instance with one colour that differs from its neighbours', on black.

    Parameters
    ----------
    labels : (Y, X) integer array
        0 is background; every other value is one instance.

    Returns
    -------
    (Y, X, 3) uint8 array

    Examples
    --------
    >>> colour(np.array([[0, 1, 1]]))[0].tolist()
    [[0, 0, 0], [230, 159, 0], [230, 159, 0]]
    """
    return np.where(labels[..., None] > 0, PALETTE[_colour_index(labels, "instances")], np.uint8(0))


def _fill(painted: NDArray[np.float32], where: NDArray[np.bool_], colours: Rgb, share: float) -> None:
    """Mix one colour (3,), or one per pixel (Y, X, 3), into a picture, in place."""
    mixed = colours[where] if colours.ndim == 3 else colours
    painted[where] = (1 - share) * painted[where] + share * mixed


def _outline(labels: NDArray) -> NDArray[np.bool_]:
    width = max(1, (max(labels.shape) + 500) // 1000)
    outline = np.zeros(labels.shape, bool)
    for lines, marks in ((labels, outline), (labels.T, outline.T)):
        for step in range(1, width + 1):
            differs = lines[step:] != lines[:-step]
            marks[step:] |= differs
            marks[:-step] |= differs
    return outline & (labels > 0)


def _colour_index(labels: NDArray, kind: str) -> NDArray[np.intp]:
    """Return per pixel a row of PALETTE; an instance keeps its number modulo the palette unless a neighbour has it."""
    if kind == "classes":
        return (labels.astype(np.intp) - 1) % len(PALETTE)
    near = expand_labels(labels, _NEAR)
    neighbours: dict[int, set[int]] = {int(number): set() for number in np.unique(labels[labels > 0])}
    for one, other in ((near[1:], near[:-1]), (near[:, 1:], near[:, :-1])):
        touch = (one != other) & (one > 0) & (other > 0)
        for pair in set(zip(one[touch].tolist(), other[touch].tolist(), strict=True)):
            neighbours[max(pair)].add(min(pair))
    index: dict[int, int] = {0: 0}
    for number, smaller in neighbours.items():
        taken = {index[neighbour] for neighbour in smaller}
        choices = [(number + shift) % len(PALETTE) for shift in range(len(PALETTE))]
        index[number] = next((choice for choice in choices if choice not in taken), choices[0])
    position = np.searchsorted(np.array(list(index)), np.maximum(labels, 0))
    return np.asarray(np.array(list(index.values()), np.intp)[position])
