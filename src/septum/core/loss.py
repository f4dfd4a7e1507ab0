"""The paper's loss: pixel-wise softmax and cross-entropy, weighted per pixel."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn.functional import cross_entropy

from septum.errors import ConfigError, ImageError


def weighted_cross_entropy(
    logits: torch.Tensor,
    classes: torch.Tensor,
    weights: torch.Tensor,
    normalization: Literal["sum", "mean", "weights"] = "weights",
) -> torch.Tensor:
    """Energy of Eq. 1 of Ronneberger et al. 2015, with the minus sign: ``-sum_x w(x) log p_class(x)(x)``.

    The paper does not say by what the sum is divided; a learning rate means nothing without it. Over the 388 x 388
    pixels of the paper's tile, "sum" gives gradients 150,544 times those of "mean".

    Parameters
    ----------
    logits : (N, K, Y, X) tensor
        Scores before the softmax.
    classes : (N, Y, X) int64 tensor
        True class of each pixel, 0..K-1; also where the weight is 0.
    weights : (N, Y, X) tensor
        Weight of each pixel, see `septum.core.weight_map`; 0 for pixels without annotation.
    normalization : {"sum", "mean", "weights"}
        Divide by nothing, by the number of pixels, or by the sum of the weights.

    Returns
    -------
    () tensor
        0, with zero gradient, if all weights are 0.

    Raises
    ------
    ConfigError
        If `normalization` is none of the three.
    ImageError
        If `weights` and `classes` differ in shape.

    Examples
    --------
    >>> logits = torch.zeros(1, 2, 1, 2)  # p = 1/2 everywhere, and log 2 = 0.693
    >>> weighted_cross_entropy(logits, torch.tensor([[[0, 1]]]), torch.tensor([[[1.0, 3.0]]]), "mean")
    tensor(1.3863)
    """
    if weights.shape != classes.shape:
        raise ImageError(
            f"weights must have the shape of the classes, {tuple(classes.shape)}, got {tuple(weights.shape)}"
        )
    total = (weights * cross_entropy(logits, classes, reduction="none")).sum()
    match normalization:
        case "sum":
            return total
        case "mean":
            return total / weights.numel()
        case "weights":
            return total / weights.sum().clamp_min(torch.finfo(weights.dtype).tiny)
    raise ConfigError(f"normalization must be 'sum', 'mean' or 'weights', got {normalization!r}")
