"""The paper's loss: softmax cross-entropy, weighted per pixel; and the soft Dice loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from septum.errors import ConfigError, ImageError

if TYPE_CHECKING:
    from jaxtyping import Float, Int64

Sum = Callable[[Tensor], Tensor]


def sum_of_one_process(part: Tensor) -> Tensor:
    """Return the sum over all processes if there is only one."""
    return part


def weighted_cross_entropy(
    logits: Float[Tensor, "N K Y X"],
    classes: Int64[Tensor, "N Y X"],
    weights: Float[Tensor, "N ..."],
    normalization: Literal["sum", "mean", "weights"] = "weights",
    total: Sum = sum_of_one_process,
) -> Float[Tensor, ""]:
    """Energy of Eq. 1 of Ronneberger et al. 2015, with the minus sign: ``-sum_x w(x) log p_class(x)(x)``.

    The paper does not say what the sum is divided by, and the learning rate depends on it: over the 388 x 388 pixels
    of the paper's tile, "sum" gives gradients 150,544 times those of "mean".

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
    total : callable
        Sums a tensor over the processes that share a batch. So the loss is that of the whole batch; its gradient is
        the share of this process, and these shares add up.

    Returns
    -------
    () tensor
        0, with zero gradient, if all weights are 0.

    Raises
    ------
    ConfigError
        If `normalization` is not one of the three.
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
    energy = total((weights * cross_entropy(logits, classes, reduction="none")).sum())
    match normalization:
        case "sum":
            return energy
        case "mean":
            return energy / total(torch.ones_like(weights).sum())
        case "weights":
            return energy / total(weights.sum()).clamp_min(torch.finfo(weights.dtype).tiny)
    raise ConfigError(f"normalization must be 'sum', 'mean' or 'weights', got {normalization!r}")


def dice_loss(
    logits: Float[Tensor, "N K Y X"],
    classes: Int64[Tensor, "N Y X"],
    weights: Float[Tensor, "N Y X"],
    total: Sum = sum_of_one_process,
) -> Float[Tensor, ""]:
    """One minus the soft Dice coefficient, averaged over the classes, of the pixels with a weight above 0.

    Sums run over the whole batch (Milletari et al. 2016, without their squares). A small class counts as much as a
    large one, unlike in cross-entropy.

    Parameters
    ----------
    logits : (N, K, Y, X) tensor
        Scores before the softmax.
    classes : (N, Y, X) int64 tensor
        True class of each pixel, 0..K-1.
    weights : (N, Y, X) tensor
        0 for pixels that do not count; all others count the same.
    total : callable
        As for `weighted_cross_entropy`.

    Returns
    -------
    () tensor
        In 0..1; a class that neither occurs nor is predicted counts as perfect.

    Examples
    --------
    >>> logits = torch.tensor([[[[9.0, 9.0]], [[-9.0, -9.0]]]])  # both pixels are predicted as class 0
    >>> dice_loss(logits, torch.tensor([[[0, 1]]]), torch.ones(1, 1, 2)).round(decimals=2)  # (1 / 3 + 1) / 2
    tensor(0.6700)
    """
    counted = (weights > 0)[:, None]
    predicted = torch.softmax(logits, dim=1) * counted
    true = torch.nn.functional.one_hot(classes, logits.shape[1]).movedim(-1, 1) * counted
    axes = (0, 2, 3)
    both = total((predicted * true).sum(axes))
    return 1 - ((2 * both + 1e-5) / (total((predicted + true).sum(axes)) + 1e-5)).mean()
