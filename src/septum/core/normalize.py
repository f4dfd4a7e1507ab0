"""Intensity normalisation: two numbers per channel, measured once on the whole image and frozen for all its tiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from septum.core.tiling import Region, Source

Mode = Literal["standardize", "percentile", "dtype"]


@dataclass(frozen=True)
class Normalization:
    """The affine map ``(pixel - offset) / scale`` per channel."""

    offset: tuple[float, ...]
    scale: tuple[float, ...]

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Map (C, y, x) pixels of any type to float32."""
        offset = np.array(self.offset)[:, None, None]
        scale = np.array(self.scale)[:, None, None]
        normalized: np.ndarray = (pixels - offset) / scale
        return normalized.astype(np.float32)


def measure(image: np.ndarray, mode: Mode) -> Normalization:
    """Measure how an image is normalised.

    Parameters
    ----------
    image : (C, Y, X) array
        The whole image, any real type.
    mode : str
        ``standardize``: mean 0 and standard deviation 1. ``percentile``: the 1st percentile to 0 and the 99.8th
        to 1. ``dtype``: the range of the integer type to 0..1 (the release's im2double); floats stay.

    Returns
    -------
    Normalization
        A channel of one grey value only is shifted, not scaled.

    Examples
    --------
    >>> measure(np.array([[[1, 3]]], np.uint8), "standardize")(np.array([[[1, 3]]]))
    array([[[-1.,  1.]]], dtype=float32)
    """
    channels = image.shape[0]
    if mode == "dtype":
        full = float(np.iinfo(image.dtype).max) if image.dtype.kind in "iu" else 1.0
        return Normalization((0.0,) * channels, (full,) * channels)
    pixels = image.reshape(channels, -1)
    if mode == "standardize":
        low = pixels.mean(axis=1, dtype=np.float64)
        spread = pixels.std(axis=1, dtype=np.float64)
    else:
        low, high = np.percentile(pixels, [1, 99.8], axis=1)
        spread = high - low
    return Normalization(tuple(map(float, low)), tuple(float(s) if s > 0 else 1.0 for s in spread))


@dataclass(frozen=True)
class NormalizedSource:
    """A Source whose pixels are normalised as they are read."""

    source: Source
    normalization: Normalization

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape

    @property
    def pixel_size(self) -> tuple[float, float] | None:
        return self.source.pixel_size

    @property
    def chunk(self) -> tuple[int, ...]:
        return self.source.chunk

    def read(self, region: Region) -> np.ndarray:
        return self.normalization(self.source.read(region))
