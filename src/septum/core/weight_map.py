"""Loss weight per pixel: class balance plus the separation weight of Eq. 2 of Ronneberger et al. 2015."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy import ndimage

from septum.config import WeightMapConfig
from septum.core.labels import Labels, Mask, as_labels
from septum.core.targets import border
from septum.errors import ConfigError, DatasetError, ImageError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, Float64, Integer

NEGLIGIBLE = 1e-6  # separation weights below this are returned as zero
ROWS_AT_A_TIME = 256  # bounds the memory


def class_weights(counts: npt.ArrayLike) -> Float64[np.ndarray, " K"]:
    """Weight of each class from its number of pixels: inverse frequency, 1 for the rarest class that occurs.

    The w_c of Eq. 2. The paper counts "in the training data set", so the counts are sums over all training images,
    without ignored pixels. The paper does not give its formula; this one is ours.

    Parameters
    ----------
    counts : (K,) array
        Pixels of each class in the whole training set.

    Returns
    -------
    (K,) float64 array
        In 0..1; 0 for a class that never occurs.

    Raises
    ------
    DatasetError
        If no class has any pixel.

    Examples
    --------
    >>> class_weights([300, 100, 0])
    array([0.33333333, 1.        , 0.        ])
    """
    pixels = np.asarray(counts, dtype=np.float64)
    if not (pixels > 0).any():
        raise DatasetError(
            "the training set has no annotated pixel of any class; check that its label images are not empty"
        )
    rarest = pixels[pixels > 0].min()
    weights: npt.NDArray[np.float64] = np.divide(rarest, pixels, out=np.zeros_like(pixels), where=pixels > 0)
    return weights


def separation_weight(
    labels: npt.ArrayLike, *, w0: float = 10.0, sigma: float = 5.0, where: Mask | None = None
) -> Float32[np.ndarray, "Y X"]:
    """Extra loss weight for background pixels squeezed between instances.

    Second term of Eq. 2 of Ronneberger et al. 2015: ``w0 * exp(-(d1 + d2)**2 / (2 * sigma**2))``, with d1, d2 the exact
    Euclidean distances to the nearest and second-nearest instance, 0 inside an instance. A value depends only on
    labels nearer than 28.4 pixels (35.8 for ``falk_2019()``): beyond, it is below 1e-6 and returned as 0.

    Parameters
    ----------
    labels : (Y, X) integer array
        Label image: 0 is background, every other value is one instance.
    w0 : float
        Weight at zero distance, dimensionless. The paper uses 10.
    sigma : float, pixels
        How fast the weight falls off. The paper uses about 5.
    where : (Y, X) bool array, optional
        Pixels that get a weight. Default: the background, ``labels == 0``. Training adds the border that was cut out
        of touching instances; `labels` are the instances before the cut, so d1 = 0 there.

    Returns
    -------
    (Y, X) float32 array
        Zero outside `where` (by default on instances), and everywhere if there are fewer than two instances.

    Raises
    ------
    ConfigError
        If `w0` is negative or `sigma` is not positive.
    ImageError
        If `labels` is not a label image, or `where` has another shape.

    Examples
    --------
    >>> separation_weight(np.array([[1, 0, 2]])).round(3)  # 10 * exp(-(1 + 1)**2 / 50)
    array([[0.   , 9.231, 0.   ]], dtype=float32)
    """
    labels = as_labels(labels)
    if w0 < 0 or sigma <= 0:
        raise ConfigError(f"w0 must not be negative and sigma must be positive, got w0={w0}, sigma={sigma}")
    wanted = labels == 0 if where is None else where
    if wanted.shape != labels.shape:
        raise ImageError(f"where must have the shape of the labels, {labels.shape}, got {wanted.shape}")
    weights = np.zeros(labels.shape, dtype=np.float32)
    if w0 <= NEGLIGIBLE:
        return weights
    reach = math.ceil(sigma * math.sqrt(2 * math.log(w0 / NEGLIGIBLE)))  # the largest d1 + d2 that counts
    for top in range(0, len(labels), ROWS_AT_A_TIME):
        start = max(0, top - reach)
        rows, done = labels[start : top + ROWS_AT_A_TIME + reach], slice(top, top + ROWS_AT_A_TIME)
        near, distance = _nearest_two_in_column(
            rows, top - start, min(top + ROWS_AT_A_TIME, len(labels)) - start, reach
        )
        _separation_weight(near, distance, wanted[done], w0, sigma, reach, weights[done])
    return weights


def weight_map(
    labels: npt.ArrayLike | None,
    classes: Integer[np.ndarray, "Y X"] | None = None,
    config: WeightMapConfig | None = None,
    balance: npt.ArrayLike | None = None,
    ignore: Bool[np.ndarray, "Y X"] | None = None,
) -> Float32[np.ndarray, "Y X"]:
    """Loss weight of every pixel of one training image: Eq. 2 of Ronneberger et al. 2015, or the Fiji plugin's.

    The separation term is added everywhere except in the last of the encoded classes. For foreground with a border that
    is the background and the border cut out of touching instances; for cores it is all that is not core.
    With ``balance="freiburg"`` (Falk et al. 2019) the first term is 1 in the instances and falls off around them to
    v = background_weight: ``v + (1 - v) * exp(-d1**2 / (2 * background_sigma**2))``.

    Parameters
    ----------
    labels : (Y, X) integer array or None
        Instances, before the separation border is cut; None for semantic classes, which have no separation term.
    classes : (Y, X) integer array, optional
        The encoded classes 0..K-1 that the network learns. Default: background 0 and foreground 1 with the paper's
        border, `septum.core.targets.border.encode`.
    config : WeightMapConfig, optional
        Default: the paper's. ``septum.config.falk_2019()`` is the plugin's.
    balance : (K,) array, optional
        Weight of each class, see `class_weights`; used if ``config.balance == "frequency"``. The paper counts the
        pixels of the whole training set. Default: those of this image.
    ignore : (Y, X) bool array, optional
        Pixels that are not annotated: their weight is 0.

    Returns
    -------
    (Y, X) float32 array

    Raises
    ------
    ImageError
        If `labels` is not a label image, or neither `labels` nor `classes` is given.
    DatasetError
        If every pixel is ignored and the classes have to be counted.

    Examples
    --------
    >>> weight_map(np.array([[1, 0, 2]])).round(3)  # foreground is twice as frequent as background
    array([[ 0.5  , 10.231,  0.5  ]], dtype=float32)
    """
    config = config or WeightMapConfig()
    if classes is None:
        if labels is None:
            raise ImageError("a weight map needs labels (of instances) or classes, got neither; give one of them")
        classes = border.encode(labels)
    if balance is None:
        counted = classes if ignore is None else classes[~ignore]
        balance = class_weights(np.bincount(counted.ravel(), minlength=2))
    balance = np.asarray(balance, np.float32)
    if config.balance == "frequency":
        weights: npt.NDArray[np.float32] = balance[classes]
    elif config.balance == "freiburg":
        weights = _freiburg_balance(classes if labels is None else as_labels(labels), config)
    else:
        weights = np.ones(classes.shape, dtype=np.float32)
    if labels is not None:
        weights += separation_weight(labels, w0=config.w0, sigma=config.sigma, where=classes < len(balance) - 1)
    if ignore is not None:
        weights[ignore] = 0
    return weights


def _freiburg_balance(labels: Integer[np.ndarray, "Y X"], config: WeightMapConfig) -> Float32[np.ndarray, "Y X"]:
    """1 in the instances, where d1 = 0, falling off around them to the background weight."""
    d1 = ndimage.distance_transform_edt(labels == 0) if labels.any() else np.full(labels.shape, np.inf)
    near = np.exp(-(d1**2) / (2 * config.background_sigma**2))
    weights: npt.NDArray[np.float64] = config.background_weight + (1 - config.background_weight) * near
    return weights.astype(np.float32)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _insert(
    first: int, d_first: int, second: int, d_second: int, label: int, distance: int
) -> tuple[int, int, int, int]:
    """Offer one more label to the two nearest distinct ones."""
    if distance < d_first:
        if label != first:
            second, d_second = first, d_first
        return label, distance, second, d_second
    if label != first and distance < d_second:
        return first, d_first, label, distance
    return first, d_first, second, d_second


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _nearest_two_in_column(labels: Labels, top: int, bottom: int, reach: int) -> tuple[Labels, npt.NDArray[np.int32]]:
    """The two nearest distinct labels in each pixel's own column and their distances, for rows top..bottom-1.

    Any other label of that column is no nearer than both, so it is never needed in the two-dimensional search.
    """
    height, width = labels.shape
    near = np.empty((bottom - top, width, 2), dtype=np.int32)
    distance = np.empty((bottom - top, width, 2), dtype=np.int32)
    for down in (True, False):
        state = np.zeros((width, 2), dtype=np.int32)
        d_state = np.full((width, 2), reach + 1, dtype=np.int32)  # nothing seen yet: too far to count
        for step in range(bottom if down else height - top):
            y = step if down else height - 1 - step
            for x in range(width):
                first, d_first, second, d_second = state[x, 0], d_state[x, 0] + 1, state[x, 1], d_state[x, 1] + 1
                if labels[y, x] > 0:
                    first, d_first, second, d_second = _insert(first, d_first, second, d_second, labels[y, x], 0)
                state[x, 0], d_state[x, 0], state[x, 1], d_state[x, 1] = first, d_first, second, d_second
                if not top <= y < bottom:
                    continue
                if not down:  # merge what the way down has found
                    for k in range(2):
                        label, d = near[y - top, x, k], distance[y - top, x, k]
                        first, d_first, second, d_second = _insert(first, d_first, second, d_second, label, d)
                near[y - top, x, 0], distance[y - top, x, 0] = first, d_first
                near[y - top, x, 1], distance[y - top, x, 1] = second, d_second
    return near, distance


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _separation_weight(
    near: Labels,
    distance: npt.NDArray[np.int32],
    wanted: Mask,
    w0: float,
    sigma: float,
    reach: int,
    weights: npt.NDArray[np.float32],
) -> None:
    """Search along each row for the two nearest distinct labels, outwards until no column can hold a nearer one."""
    height, width = wanted.shape
    too_far = reach * reach + 1
    for y in range(height):
        for x in range(width):
            if not wanted[y, x]:
                continue
            first, second, d_first, d_second = np.int32(0), np.int32(0), too_far, too_far  # squared distances
            dx = 0
            while dx * dx < d_second:
                for column in (x - dx, x + dx):
                    if 0 <= column < width:
                        for k in range(2):
                            label, d = near[y, column, k], dx * dx + np.int64(distance[y, column, k]) ** 2
                            first, d_first, second, d_second = _insert(first, d_first, second, d_second, label, d)
                dx += 1
            if d_second < too_far:
                sum_of_distances = math.sqrt(d_first) + math.sqrt(d_second)
                weights[y, x] = w0 * math.exp(-(sum_of_distances**2) / (2 * sigma**2))
