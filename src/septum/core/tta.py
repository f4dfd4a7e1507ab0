"""Versions of an image to average over at prediction: rotations as in the paper, or flips and quarter turns."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import ndimage

from septum.config import TtaConfig
from septum.core.region import Region, clip, origin_of, shape_of, whole
from septum.core.tiling import ArraySource, Source, read_mirrored


class Version(Protocol):
    """A transform of an image, region by region, and the inverse for what is predicted in it."""

    @property
    def shape(self) -> tuple[int, int]:
        """(Y, X) of the transformed image."""
        ...

    def view(self, source: Source) -> Source:
        """Return the transformed image."""
        ...

    def needs(self, region: Region) -> Region:
        """Return the region of the transformed image that a region of the original depends on."""
        ...

    def back(self, values: np.ndarray, region: Region) -> np.ndarray:
        """Turn (K, y, x) values of `needs(region)` into those of `region`."""
        ...


def versions(config: TtaConfig | None, shape: tuple[int, int]) -> Iterator[Version]:
    """Yield the versions of an image of shape (Y, X). The first is the image itself, without `config` the only one.

    Rotations turn by ``k * 360 / versions`` degrees about the image centre, bilinear there and back. The rotated
    image is large enough to hold all of the original; around it, the original is mirrored.
    """
    if config is not None and config.kind == "dihedral":
        for turns, mirrored in itertools.product(range(4), (False, True)):
            yield Turned(shape, turns, mirrored)
        return
    yield Turned(shape, 0, False)
    for k in range(1, config.versions if config else 1):
        yield Rotated(shape, 2 * math.pi * k / config.versions)  # type: ignore[union-attr]


@dataclass(frozen=True)
class Turned:
    """An image turned by quarters, then perhaps mirrored from left to right."""

    original: tuple[int, int]
    turns: int
    mirrored: bool

    @property
    def shape(self) -> tuple[int, int]:
        return self.original if self.turns % 2 == 0 else (self.original[1], self.original[0])

    def view(self, source: Source) -> Source:
        return _View(self, source)

    def needs(self, region: Region) -> Region:
        rows, columns = region
        height, width = self.original
        for _ in range(self.turns):
            rows, columns = _flip(columns, width), rows
            height, width = width, height
        return (rows, _flip(columns, width)) if self.mirrored else (rows, columns)

    def back(self, values: np.ndarray, region: Region) -> np.ndarray:
        return np.rot90(values[:, :, ::-1] if self.mirrored else values, -self.turns, axes=(1, 2))

    def read(self, source: Source, region: Region) -> np.ndarray:
        rows, columns = region
        height, width = self.shape
        columns = _flip(columns, width) if self.mirrored else columns
        for _ in range(self.turns):
            rows, columns = columns, _flip(rows, height)
            height, width = width, height
        turned = np.rot90(source.read((rows, columns)), self.turns, axes=(1, 2))
        return turned[:, :, ::-1] if self.mirrored else turned


def _flip(part: slice, size: int) -> slice:
    return slice(size - part.stop, size - part.start)


@dataclass(frozen=True)
class Rotated:
    """An image turned by an angle in radians about its centre, bilinear, mirrored at its borders."""

    original: tuple[int, int]
    angle: float

    @property
    def shape(self) -> tuple[int, int]:
        return rotated_shape(self.original, self.angle)

    def view(self, source: Source) -> Source:
        return _View(self, source)

    def needs(self, region: Region) -> Region:
        return clip(_around(region, -self.angle, self.original, self.shape), self.shape)

    def back(self, values: np.ndarray, region: Region) -> np.ndarray:
        return _sample(values, origin_of(self.needs(region)), region, -self.angle, self.original, self.shape)

    def read(self, source: Source, region: Region) -> np.ndarray:
        around = _around(region, self.angle, self.shape, self.original)
        return _sample(read_mirrored(source, around), origin_of(around), region, self.angle, self.shape, self.original)


def rotated_shape(shape: tuple[int, int], angle: float) -> tuple[int, int]:
    """Return the smallest (Y, X) that contains an image of this shape turned about its centre.

    Examples
    --------
    >>> rotated_shape((10, 20), math.pi / 2)
    (20, 10)
    """
    cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
    height, width = shape[0] - 1, shape[1] - 1  # distances between pixel centres
    turned = (height * cos + width * sin, height * sin + width * cos)
    return math.ceil(round(turned[0], 6)) + 1, math.ceil(round(turned[1], 6)) + 1


def _turn(angle: float, shape: tuple[int, int], original: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return matrix and offset that take a pixel of the turned image to a place in the original."""
    cos, sin = math.cos(angle), math.sin(angle)
    matrix = np.array([[cos, -sin], [sin, cos]])
    return matrix, (np.array(original) - 1) / 2 - matrix @ ((np.array(shape) - 1) / 2)


def _around(region: Region, angle: float, shape: tuple[int, int], original: tuple[int, int]) -> Region:
    """The pixels of the original that those of a region of the turned image lie between."""
    matrix, offset = _turn(angle, shape, original)
    corners = np.array(list(itertools.product(*((part.start, part.stop - 1) for part in region))))
    places = corners @ matrix.T + offset
    low, high = np.floor(places.min(0) - 1e-6).astype(int), np.ceil(places.max(0) + 1e-6).astype(int)
    return tuple(slice(int(a), int(b) + 1) for a, b in zip(low, high, strict=True))


def _sample(
    values: np.ndarray,
    first: tuple[int, ...],
    region: Region,
    angle: float,
    shape: tuple[int, int],
    original: tuple[int, int],
) -> np.ndarray:
    """Sample a region of the turned image from values of the original that begin at the pixel `first`."""
    matrix, offset = _turn(angle, shape, original)
    offset = offset + matrix @ np.array(origin_of(region)) - np.array(first)
    size = shape_of(region)
    return np.stack(
        [ndimage.affine_transform(one, matrix, offset, output_shape=size, order=1, mode="mirror") for one in values]
    )


@dataclass(frozen=True)
class _View:
    """A transformed image as a Source."""

    version: Turned | Rotated
    source: Source

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape[0], *self.version.shape

    @property
    def chunk(self) -> tuple[int, ...]:
        return self.source.chunk

    def read(self, region: Region) -> np.ndarray:
        return self.version.read(self.source, region)


def transformed(version: Version, image: np.ndarray) -> np.ndarray:
    """Return the transform of a whole (C, Y, X) array.

    Examples
    --------
    >>> transformed(Turned((1, 2), 1, False), np.array([[[1, 2]]]))
    array([[[2],
            [1]]])
    """
    return version.view(ArraySource(image)).read(whole(version.shape))
