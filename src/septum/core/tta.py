"""Versions of an image to average over at prediction: rotations as in the paper, or flips and quarter-turns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import ndimage

from septum.config import TtaConfig


@dataclass(frozen=True)
class Version:
    """A change of the image, (C, Y, X) to (C, y, x), and the way back for its prediction, (K, y, x) to (K, Y, X)."""

    there: Callable[[np.ndarray], np.ndarray]
    back: Callable[[np.ndarray], np.ndarray]


def versions(config: TtaConfig, shape: tuple[int, int]) -> Iterator[Version]:
    """Yield the versions of an image of shape (Y, X); the first leaves it as it is.

    Rotations turn by ``k * 360 / versions`` degrees about the image centre, bilinear there and back. The turned
    image is large enough to hold all of the original; what lies outside of that is mirrored.
    """
    if config.kind == "dihedral":
        for turns in range(4):
            for mirrored in (False, True):
                yield Version(
                    partial(_turn_and_mirror, turns=turns, mirrored=mirrored),
                    partial(_mirror_and_turn_back, turns=turns, mirrored=mirrored),
                )
        return
    yield Version(np.asarray, np.asarray)
    for k in range(1, config.versions):
        angle = 2 * math.pi * k / config.versions
        turned = rotated_shape(shape, angle)
        yield Version(partial(rotate, angle=angle, shape=turned), partial(rotate, angle=-angle, shape=shape))


def rotated_shape(shape: tuple[int, int], angle: float) -> tuple[int, int]:
    """Return the smallest (Y, X) that holds an image of this shape turned about its centre.

    Examples
    --------
    >>> rotated_shape((10, 20), math.pi / 2)
    (20, 10)
    """
    cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
    height, width = shape[0] - 1, shape[1] - 1  # distances between pixel centres
    turned = (height * cos + width * sin, height * sin + width * cos)
    return math.ceil(round(turned[0], 6)) + 1, math.ceil(round(turned[1], 6)) + 1


def rotate(image: np.ndarray, angle: float, shape: tuple[int, int]) -> np.ndarray:
    """Turn (C, Y, X) by an angle in radians about its centre onto a canvas of the given shape; bilinear, mirrored."""
    cos, sin = math.cos(angle), math.sin(angle)
    matrix = np.array([[cos, -sin], [sin, cos]])
    centre_in = (np.array(image.shape[1:]) - 1) / 2
    centre_out = (np.array(shape) - 1) / 2
    offset = centre_in - matrix @ centre_out
    turned = [ndimage.affine_transform(c, matrix, offset, output_shape=shape, order=1, mode="mirror") for c in image]
    return np.stack(turned)


def _turn_and_mirror(image: np.ndarray, turns: int, mirrored: bool) -> np.ndarray:
    turned = np.rot90(image, turns, axes=(1, 2))
    return turned[:, :, ::-1] if mirrored else turned


def _mirror_and_turn_back(image: np.ndarray, turns: int, mirrored: bool) -> np.ndarray:
    return np.rot90(image[:, :, ::-1] if mirrored else image, -turns, axes=(1, 2))
