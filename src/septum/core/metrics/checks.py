"""Checks of the arrays that scores take; each error is one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from septum.core.labels import Mask
from septum.errors import ConfigError, ImageError

AnyLabels = NDArray[Any]  # of any integer type or bool, and any number of axes


def check_labels(labels: ArrayLike, name: str) -> AnyLabels:
    """Return the labels as an array; raises ImageError unless they are whole numbers, none negative."""
    labels = np.asarray(labels)
    if labels.dtype.kind not in "bui":
        raise ImageError(
            f"{name} has {labels.dtype} values, but labels are whole numbers; "
            "give the label image instead of probabilities, or cast it to an integer type"
        )
    if labels.dtype.kind == "i" and labels.size and labels.min() < 0:
        raise ImageError(
            f"{name} has the negative label {labels.min()}, but labels are 0 for background and 1 or more for "
            "objects; mark pixels without annotation with an ignore mask"
        )
    return labels


def check_probabilities(probabilities: ArrayLike, name: str) -> NDArray[np.float32]:
    """Return the map in float32, as the challenge's code stores it; raises ImageError unless floats in 0..1."""
    probabilities = np.asarray(probabilities)
    kind = probabilities.dtype.kind
    if kind != "f":
        fix = f"divide by {np.iinfo(probabilities.dtype).max}" if kind == "u" else "save probabilities"
        raise ImageError(f"{name} has {probabilities.dtype} values, expected floats in 0..1; {fix}")
    low, high = (probabilities.min(), probabilities.max()) if probabilities.size else (0.0, 0.0)
    if np.isnan(low):
        raise ImageError(
            f"{name} has NaN in {int(np.isnan(probabilities).sum())} of {probabilities.size} pixels, expected 0..1; "
            "mark pixels without a prediction with an ignore mask"
        )
    if low < 0 or high > 1:
        fix = "divide 8-bit values by 255" if low >= 0 and high <= 255 else "give probabilities instead of logits"
        raise ImageError(f"{name} runs from {low:g} to {high:g}, expected 0..1; {fix}")
    return probabilities.astype(np.float32, copy=False)


def check_same_shape(name: str, array: NDArray[Any], reference: NDArray[Any], reference_name: str = "truth") -> None:
    """Raise ImageError unless both have the same shape."""
    if array.shape != reference.shape:
        raise ImageError(
            f"{name} has shape {array.shape}, but {reference_name} has {reference.shape}; "
            "pair images of the same size, pixel for pixel"
        )


def check_ignore(ignore: ArrayLike | None, reference: NDArray[Any]) -> Mask | None:
    """Return the mask of ignored pixels, or None; raises ImageError if its shape differs."""
    if ignore is None:
        return None
    mask = np.asarray(ignore) != 0
    check_same_shape("ignore", mask, reference)
    return mask  # type: ignore[no-any-return]


def check_thresholds(thresholds: Sequence[float], low: float, high: float, why: str) -> None:
    """Raise ConfigError unless there is a threshold and all lie in low..high."""
    outside = [threshold for threshold in thresholds if not low <= threshold <= high]
    if outside or not len(thresholds):
        raise ConfigError(
            f"thresholds must lie in {low:g}..{high:g}, {why}; got {outside[0] if outside else 'none at all'}"
        )


def check_pair(
    truth: ArrayLike, prediction: ArrayLike, ignore: ArrayLike | None
) -> tuple[AnyLabels, AnyLabels, Mask | None]:
    """Return two label images of the same shape and the mask of ignored pixels, all checked."""
    truth, prediction = check_labels(truth, "truth"), check_labels(prediction, "prediction")
    check_same_shape("prediction", prediction, truth)
    return truth, prediction, check_ignore(ignore, truth)
