"""Augmentation: one sampling grid per patch (shift, rotation, mirror, zoom, elastic field), and grey-value curves.

Random numbers come from NumPy, so they are the same on every device; torch warps a whole batch on its device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline
from torch import Tensor

from septum.config import AugmentConfig

if TYPE_CHECKING:
    from jaxtyping import Float, Float32, Float64, Int32, Shaped


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where a patch comes from: ``source = centre + matrix @ (offset from the tile's centre + elastic)``.

    Attributes
    ----------
    matrix : (2, 2) array
        Rotation, mirror and zoom: maps (y, x) offsets in the patch to offsets in the source.
    nodes : (2, n, n) array, pixels
        Elastic displacement (y, x) at n x n nodes over the input tile; for n = 3: corners, edge midpoints, centre.
    """

    matrix: Float64[np.ndarray, "2 2"]
    nodes: Float64[np.ndarray, "2 n n"]


@dataclass(frozen=True, eq=False)
class Grey:
    """Grey-value curve per channel, each an array of length C: see :func:`apply_grey`."""

    contrast: Float64[np.ndarray, " C"]
    brightness: Float64[np.ndarray, " C"]
    bend: Float64[np.ndarray, " C"]


def draw_geometry(config: AugmentConfig, rng: np.random.Generator) -> Geometry:
    """Draw rotation, mirror, zoom and elastic displacements for one patch.

    Examples
    --------
    >>> geometry = draw_geometry(AugmentConfig(), np.random.default_rng(0))
    >>> geometry.matrix.shape, geometry.nodes.shape
    ((2, 2), (2, 3, 3))
    """
    angle = np.deg2rad(rng.uniform(-config.rotation, config.rotation))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    signs = np.where(config.mirror & (rng.random(2) < 0.5), -1.0, 1.0)
    zoom = (1 + config.scale) ** rng.uniform(-1, 1)
    nodes = config.elastic_sd * rng.standard_normal((2, config.elastic_nodes, config.elastic_nodes))
    return Geometry(rotation * signs / zoom, nodes)  # rotation @ diag(signs) / zoom


def draw_grey(config: AugmentConfig, rng: np.random.Generator, channels: int = 1) -> Grey:
    """Draw one grey-value curve per channel.

    Examples
    --------
    >>> draw_grey(AugmentConfig(), np.random.default_rng(0), channels=3).contrast.shape
    (3,)
    """
    contrast = 1 + config.contrast * rng.uniform(-1, 1, channels)
    brightness = config.brightness * rng.uniform(-1, 1, channels)
    gamma = (1 + config.gamma) ** rng.uniform(-1, 1, channels)
    return Grey(contrast, brightness, (gamma - 1) / (gamma + 1))


@lru_cache(maxsize=64)
def _axis(size: int, n: int) -> tuple[Float[np.ndarray, "{size} {n}"], Float[np.ndarray, " {size}"]]:
    """The natural cubic spline through each of n nodes, (size, n), and the offsets from the centre, (size,)."""
    spline = CubicSpline(np.arange(n), np.eye(n), bc_type="natural")
    return spline(np.linspace(0, n - 1, size)), np.arange(size) - (size - 1) / 2


def sampling_grid(
    geometries: Sequence[Geometry], centres: ArrayLike, shape: tuple[int, int], device: torch.device | str = "cpu"
) -> Float32[Tensor, "{len(geometries)} {shape[0]} {shape[1]} 2"]:
    """Return where each pixel of each patch is read from: shift, rotation, mirror, zoom and elastic field in one map.

    The elastic displacements (Ronneberger et al. 2015, section 3.1) are interpolated by a bicubic natural spline that
    passes through the nodes, added in patch coordinates and then rotated with the patch (the order of caffe_unet).

    Parameters
    ----------
    geometries : sequence of N Geometry
        One per patch, all with the same number of nodes.
    centres : (N, 2) array, pixels
        Source coordinates (y, x) of the patch centres. Whole patches of an even size have centres at half pixels.
    shape : (int, int), pixels
        Size (Y, X) of the network's input tile.
    device : torch device

    Returns
    -------
    (N, Y, X, 2) float32 tensor, pixels
        Source coordinates (y, x). A slice ``[:, m:-m, m:-m]`` is the grid of the network's output window.

    Examples
    --------
    >>> still = Geometry(np.eye(2), np.zeros((2, 3, 3)))
    >>> sampling_grid([still], [(5.0, 7.5)], (3, 2))[0, :, :, 0].tolist()
    [[4.0, 4.0], [5.0, 5.0], [6.0, 6.0]]
    """
    n = geometries[0].nodes.shape[-1]
    (basis_y, y), (basis_x, x) = _axis(shape[0], n), _axis(shape[1], n)
    matrices = np.stack([geometry.matrix for geometry in geometries])
    nodes = np.stack([np.tensordot(geometry.matrix, geometry.nodes, 1) for geometry in geometries])

    def put(array: NDArray[np.floating]) -> Tensor:
        return torch.from_numpy(array.astype(np.float32)).to(device)

    rows = put(np.asarray(centres)[:, :, None] + matrices[:, :, :1] * y)  # (N, 2, Y)
    columns = put(matrices[:, :, 1:] * x)  # (N, 2, X)
    # TF32 or autocast may round this product; the large terms stay out of it.
    elastic = put(basis_y @ nodes) @ put(basis_x.T)  # (N, 2, Y, n) @ (n, X) -> (N, 2, Y, X)
    return (rows[..., None] + columns[..., None, :]).add_(elastic).movedim(1, -1)


def _mirrored(sources: Sequence[Tensor], grid: Float32[Tensor, "N Y X 2"]) -> Float32[Tensor, "N 2 Y X"]:
    """(N, 2, Y, X) coordinates, folded into the sources about the centres of their edge pixels."""
    sizes = torch.tensor([source.shape[-2:] for source in sources], dtype=grid.dtype, device=grid.device)
    last = sizes[:, :, None, None] - 1
    period = (2 * last).clamp(min=1)  # for a source of one pixel per side, any period works
    planes = grid.movedim(-1, 1)  # (N, Y, X, 2) -> (N, 2, Y, X)
    # The distance to the nearest multiple of the period, in one buffer: fresh memory costs as much as the arithmetic.
    return (planes / period).round_().mul_(period).sub_(planes).abs_().clamp_(max=last)


def region_of_grid(
    shape: Sequence[int], grid: Float32[Tensor, "Y X 2"]
) -> tuple[tuple[slice, slice], Float32[Tensor, "Y X 2"]]:
    """Return the part of an image that a grid reads, and the grid in the coordinates of that part.

    So a patch can be cut from an image that is not in memory, with the same values bit for bit.

    Parameters
    ----------
    shape : (int, int), pixels
        Size (Y', X') of the image.
    grid : (Y, X, 2) float32 tensor, pixels
        Of one patch, from :func:`sampling_grid`.

    Returns
    -------
    region : (slice, slice)
        Inside the image.
    grid : (Y, X, 2) float32 tensor, pixels

    Examples
    --------
    >>> region_of_grid((100, 100), torch.tensor([[[-3.0, 8.5], [4.25, 9.0]]]))
    ((slice(2, 6, None), slice(8, 10, None)), tensor([[[1.0000, 0.5000],
             [2.2500, 1.0000]]]))
    """
    folded = _mirrored([grid.new_empty(tuple(shape))], grid[None])[0].movedim(0, -1)
    # Even numbers, so that halves are rounded as in the whole; taking them off is exact, since they are not negative.
    start = folded.amin((0, 1)).div_(2).floor_().mul_(2)
    (top, left), (bottom, right) = start.int().tolist(), folded.amax((0, 1)).ceil().int().tolist()
    return (slice(top, bottom + 1), slice(left, right + 1)), folded - start


def _pick(
    sources: Sequence[Shaped[Tensor, "C _ _"]], y: Int32[Tensor, "N Y X"], x: Int32[Tensor, "N Y X"]
) -> Shaped[Tensor, "N C Y X"]:
    """(N, C, Y, X) pixels of the sources (C, Y', X') at whole coordinates, int32 (N, Y, X)."""
    picked = torch.empty(len(sources), len(sources[0]), *y.shape[1:], dtype=sources[0].dtype, device=y.device)
    for source, row, column, out in zip(sources, y, x, picked, strict=True):
        index = torch.add(column, row, alpha=source.shape[-1]).flatten()
        torch.index_select(source.flatten(1), 1, index, out=out.flatten(1))
    return picked


def warp_image(sources: Sequence[Float[Tensor, "C _ _"]], grid: Float32[Tensor, "N Y X 2"]) -> Float[Tensor, "N C Y X"]:
    """Read images at the coordinates of a grid, bilinearly.

    Outside, a source is mirrored without repeating the edge pixel, as often as needed.

    Parameters
    ----------
    sources : sequence of N (C, Y', X') float32 tensors
        On the grid's device; sizes may differ, up to 2**31 pixels each.
    grid : (N, Y, X, 2) float32 tensor, pixels
        From :func:`sampling_grid`.

    Returns
    -------
    (N, C, Y, X) tensor
        Of the sources' type.

    Examples
    --------
    >>> warp_image([torch.tensor([[[0.0, 10.0]]])], torch.tensor([[[[0.0, 0.25], [0.0, 3.0]]]]))
    tensor([[[[ 2.5000, 10.0000]]]])
    """
    folded = _mirrored(sources, grid)
    (y0, x0), (y1, x1) = folded.int().unbind(1), folded.ceil().int().unbind(1)
    y, x = folded.frac_()[:, :, None].unbind(1)  # (N, 1, Y, X) each: the share of the higher neighbour
    above = _pick(sources, y0, x0).lerp_(_pick(sources, y0, x1), x)
    below = _pick(sources, y1, x0).lerp_(_pick(sources, y1, x1), x)
    return above.lerp_(below, y)


def warp_labels(sources: Sequence[Shaped[Tensor, "_ _"]], grid: Float32[Tensor, "N Y X 2"]) -> Shaped[Tensor, "N Y X"]:
    """Read label images at the coordinates of a grid: the nearest pixel's label; halfway, that of the even coordinate.

    Mirrored outside like :func:`warp_image`. The cost does not depend on the number of labels.

    Parameters
    ----------
    sources : sequence of N (Y', X') integer tensors
        On the grid's device; sizes may differ, up to 2**31 pixels each.
    grid : (N, Y, X, 2) float32 tensor, pixels
        From :func:`sampling_grid`.

    Returns
    -------
    (N, Y, X) tensor
        Of the sources' type.

    Examples
    --------
    >>> warp_labels([torch.tensor([[0, 7]])], torch.tensor([[[[0.0, 0.25], [0.0, 3.0]]]]))
    tensor([[[0, 7]]])
    """
    y, x = _mirrored(sources, grid).round_().int().unbind(1)
    return _pick([source[None] for source in sources], y, x)[:, 0]


def warp_weights(sources: Sequence[Float[Tensor, "_ _"]], grid: Float32[Tensor, "N Y X 2"]) -> Float[Tensor, "N Y X"]:
    """Read weight maps at the coordinates of a grid: linearly, but 0 wherever the nearest pixel's weight is 0.

    Mirrored outside like :func:`warp_image`. The exception keeps ignored pixels ignored: their labels mean nothing, so
    they must not get weight from annotated neighbours.

    Parameters
    ----------
    sources : sequence of N (Y', X') float32 tensors
        On the grid's device; sizes may differ, up to 2**31 pixels each.
    grid : (N, Y, X, 2) float32 tensor, pixels
        From :func:`sampling_grid`.

    Returns
    -------
    (N, Y, X) tensor
        Of the sources' type.

    Examples
    --------
    >>> warp_weights([torch.tensor([[0.0, 10.0]])], torch.tensor([[[[0.0, 0.25], [0.0, 0.75]]]]))
    tensor([[[0.0000, 7.5000]]])
    """
    linear = warp_image([source[None] for source in sources], grid)[:, 0]
    return linear.where(warp_labels(sources, grid) > 0, 0)


def apply_grey(images: Float[Tensor, "N C Y X"], greys: Sequence[Grey]) -> Float[Tensor, "N C Y X"]:
    """Change the grey values of standardised images by a monotone curve per image and channel.

    With x = contrast * image + brightness the result is ``x + bend * (sqrt(1 + x**2) - 1)``. It takes the place of
    x**gamma, which is undefined below zero: slope 1 at the image's mean, ``1 + bend`` towards bright and ``1 - bend``
    towards dark greys, rising everywhere for abs(bend) < 1, and independent of what else is in the patch.

    Parameters
    ----------
    images : (N, C, Y, X) float tensor
        In units of the standard deviation of the whole image, about zero mean; any values are legal.
    greys : sequence of N Grey
        Each with C values per setting.

    Returns
    -------
    (N, C, Y, X) tensor

    Examples
    --------
    >>> grey = Grey(contrast=np.array([2.0]), brightness=np.array([1.0]), bend=np.array([0.5]))
    >>> apply_grey(torch.tensor([[[[-0.5, 0.0, 9.5]]]]), [grey])
    tensor([[[[ 0.0000,  1.2071, 29.5125]]]])
    """
    curves = np.array([(grey.contrast, grey.brightness, grey.bend) for grey in greys], dtype=np.float32)  # (N, 3, C)
    contrast, brightness, bend = torch.from_numpy(curves).to(images.device)[..., None, None].unbind(1)
    x = images * contrast + brightness
    return x + bend * (torch.sqrt(1 + x * x) - 1)
