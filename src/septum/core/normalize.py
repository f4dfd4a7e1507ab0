"""Intensity normalisation: two numbers per channel, measured once on the whole image and used for all its tiles."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

import numpy as np

from septum.core.region import Region, origin_of
from septum.core.tiling import ArraySource, Source, blocks
from septum.errors import ImageError

if TYPE_CHECKING:
    from jaxtyping import Float32, Shaped

Mode = Literal["standardize", "percentile", "dtype"]

PERCENTILES = (1.0, 99.8)
BLOCK_PIXELS = 2**20  # measured at a time, over all channels
DIGIT = 16  # bits of a value that one pass looks at


@dataclass(frozen=True)
class Normalization:
    """The affine map ``(pixel - offset) / scale`` per channel."""

    offset: tuple[float, ...]
    scale: tuple[float, ...]

    def __call__(self, pixels: Shaped[np.ndarray, "C y x"]) -> Float32[np.ndarray, "C y x"]:
        """Map (C, y, x) pixels of any type to float32."""
        offset = np.array(self.offset)[:, None, None]
        scale = np.array(self.scale)[:, None, None]
        normalized: np.ndarray = pixels - offset
        normalized /= scale
        return normalized.astype(np.float32)


def mean_normalization(several: Sequence[Normalization]) -> Normalization:
    """Return the mean of offsets and of scales, channel by channel.

    Examples
    --------
    >>> mean_normalization([Normalization((1.0,), (4.0,)), Normalization((3.0,), (8.0,))])
    Normalization(offset=(2.0,), scale=(6.0,))
    """
    offset = np.mean([one.offset for one in several], axis=0)
    scale = np.mean([one.scale for one in several], axis=0)
    return Normalization(tuple(offset.tolist()), tuple(scale.tolist()))


def measure_normalization(
    image: np.ndarray | Source, mode: Mode, mask: np.ndarray | Source | None = None, *, name: str = "the image"
) -> Normalization:
    """Measure how to normalise an image, block by block.

    For integers of 8 and 16 bit, mean and standard deviation are exact: the values are counted, so the result does not
    depend on the blocks. For other types they are sums in float64. Percentiles are exact for every type, with NumPy's
    linear interpolation: values are sorted by their bits, 16 at a time from the top. That takes one pass over the
    image for types of 8 and 16 bit, two for 32 bit and four for 64 bit.

    Parameters
    ----------
    image : (C, Y, X) array or Source
        The whole image, any real type.
    mode : str
        ``standardize``: mean 0 and standard deviation 1. ``percentile``: the 1st percentile to 0 and the 99.8th
        to 1. ``dtype``: the range of the integer type to 0..1 (the release's im2double); floats stay.
    mask : (Y, X) array or Source of shape (1, Y, X), optional
        Only pixels where it is non-zero are measured.
    name : str
        Name of the image in errors.

    Returns
    -------
    Normalization
        A channel with a single grey value is shifted, not scaled.

    Raises
    ------
    ImageError
        For NaN or infinity, or for a mask of another size or that is zero everywhere.

    Examples
    --------
    >>> measure_normalization(np.array([[[1, 3]]], np.uint8), "standardize")(np.array([[[1, 3]]]))
    array([[[-1.,  1.]]], dtype=float32)
    """
    source = ArraySource(image) if isinstance(image, np.ndarray) else image
    where = ArraySource(mask[None]) if isinstance(mask, np.ndarray) else mask
    channels = source.shape[0]
    if mode == "dtype":
        dtype = source.read((slice(0, 1), slice(0, 1))).dtype
        full = float(np.iinfo(dtype).max) if dtype.kind in "iu" else 1.0
        return Normalization((0.0,) * channels, (full,) * channels)
    if where is not None and where.shape[1:] != source.shape[1:]:
        raise ImageError(
            f"the mask of {name} is {_by(where.shape)}, but the image is {_by(source.shape)}; "
            "give a mask of the same size"
        )
    passes = _Passes(source, where, name)
    measured = passes.mean_and_deviation() if mode == "standardize" else passes.percentiles()
    low, spread = zip(*measured, strict=True)
    return Normalization(low, tuple(one if one > 0 else 1.0 for one in spread))


@dataclass(frozen=True)
class _Passes:
    """Passes over an image. Each result is an offset and a scale per channel."""

    source: Source
    mask: Source | None
    name: str

    def mean_and_deviation(self) -> list[tuple[float, float]]:
        dtype = self._dtype()
        if dtype.kind != "f" and dtype.itemsize <= 2:
            beginnings = [{0}] * self.source.shape[0]
            counted = self._count(8 * dtype.itemsize, 0, beginnings)
            self._some(int(counted[0][0].sum()))
            return [_moments(counts[0], dtype) for counts in counted]
        n, first = 0, np.zeros((self.source.shape[0], 1))
        mean, squares = np.zeros_like(first), np.zeros_like(first)
        for pixels in self._blocks():
            first = first if n else pixels[:, :1].astype(np.float64)  # taken off: a constant gives exactly 0
            rest = pixels - first
            of_block = rest.mean(axis=1, keepdims=True)
            squares += ((rest - of_block) ** 2).sum(axis=1, keepdims=True)
            # Chan, Golub and LeVeque 1983, The American Statistician 37:242: the moments of two parts make those of all
            added = pixels.shape[1]
            squares += (of_block - mean) ** 2 * (n * added / (n + added))
            mean += (of_block - mean) * (added / (n + added))
            n += added
        deviation = np.sqrt(squares / self._some(n))
        return [(float(at), float(wide)) for at, wide in zip((first + mean)[:, 0], deviation[:, 0], strict=True)]

    def percentiles(self) -> list[tuple[float, float]]:
        dtype, channels = self._dtype(), self.source.shape[0]
        digit = min(DIGIT, 8 * dtype.itemsize)
        counts = self._count(digit, 8 * dtype.itemsize - digit, [{0}] * channels)
        n = self._some(int(counts[0][0].sum()))
        places = [percent / 100 * (n - 1) for percent in PERCENTILES]
        ranks = [min(int(place) + more, n - 1) for place in places for more in (0, 1)]
        # per channel and rank: the bits that the value begins with, and its rank among the values that do so
        found = [[_at_rank(of_channel[0], rank, 0, digit) for rank in ranks] for of_channel in counts]
        for shift in range(8 * dtype.itemsize - 2 * digit, -1, -digit):
            counts = self._count(digit, shift, [{begin for begin, _ in of_channel} for of_channel in found])
            found = [
                [_at_rank(counts[channel][begin], rank, begin, digit) for begin, rank in of_channel]
                for channel, of_channel in enumerate(found)
            ]
        result = []
        for of_channel in found:
            a, b, c, d = (_value(key, dtype) for key, _ in of_channel)
            low = a + (b - a) * (places[0] % 1)
            result.append((low, c + (d - c) * (places[1] % 1) - low))
        return result

    def _count(self, digit: int, shift: int, beginnings: list[set[int]]) -> list[dict[int, np.ndarray]]:
        """Count the values of the digit at a shift, per channel, in the values that begin with the bits given."""
        counts = [{begin: np.zeros(2**digit, np.int64) for begin in begins} for begins in beginnings]
        for pixels in self._blocks():
            for values, of_channel in zip(pixels, counts, strict=True):
                keys = _keys(values)
                for begin, table in of_channel.items():
                    chosen = keys >> shift
                    if shift + digit < 8 * keys.dtype.itemsize:
                        chosen = chosen[(chosen >> digit) == begin] & (2**digit - 1)
                    table += np.bincount(chosen.astype(np.intp), minlength=2**digit)
        return counts

    def _blocks(self) -> Iterator[np.ndarray]:
        """Yield the pixels that are measured, (C, n) at a time."""
        channels, *shape = self.source.shape
        for region in blocks(shape, self.source.chunk, max(1, BLOCK_PIXELS // channels)):
            pixels = _native(self.source.read(region))
            self._check_finite(pixels, region)
            if self.mask is None:
                yield pixels.reshape(channels, -1)
            elif (inside := self.mask.read(region)[0] != 0).any():
                yield pixels[:, inside]

    def _dtype(self) -> np.dtype:
        return _native(self.source.read((slice(0, 1), slice(0, 1)))).dtype

    def _check_finite(self, pixels: np.ndarray, region: Region) -> None:
        if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
            channel, row, column = np.argwhere(~np.isfinite(pixels))[0] + [0, *origin_of(region)]
            raise ImageError(
                f"{self.name} has pixels that are NaN or infinite, the first at channel {channel}, row {row}, "
                f"column {column}; replace such pixels, for example with 0"
            )

    def _some(self, n: int) -> int:
        if not n:
            raise ImageError(
                f"the mask of {self.name} is zero everywhere; make it non-zero where to measure brightness"
            )
        return n


def _native(pixels: np.ndarray) -> np.ndarray:
    """Numbers of at most 8 bytes, in the byte order of the machine."""
    return pixels.astype(np.float64 if pixels.dtype.itemsize > 8 else pixels.dtype.newbyteorder("="), copy=False)


def _moments(counts: np.ndarray, dtype: np.dtype) -> tuple[float, float]:
    """Mean and standard deviation of counted integers, in exact arithmetic up to the last step."""
    keys = np.flatnonzero(counts)
    table = [(int(_value(int(key), dtype)), int(counts[key])) for key in keys]
    n, total = sum(count for _, count in table), sum(value * count for value, count in table)
    squares = sum(value**2 * count for value, count in table)
    return float(Fraction(total, n)), math.sqrt(Fraction(n * squares - total**2, n**2))


def _at_rank(counts: np.ndarray, rank: int, begin: int, digit: int) -> tuple[int, int]:
    """Append the digit of the value of a rank to the bits that it begins with; return its rank among the same."""
    ends = counts.cumsum()
    found = int(np.searchsorted(ends, rank, side="right"))
    return begin << digit | found, rank - int(ends[found] - counts[found])


def _keys(pixels: np.ndarray) -> np.ndarray:
    """Map values to unsigned integers of the same size and order."""
    if pixels.dtype.kind in "bu":
        return pixels
    bits = pixels.view(f"u{pixels.dtype.itemsize}")
    top = bits.dtype.type(1 << (8 * bits.dtype.itemsize - 1))
    if pixels.dtype.kind == "i":
        flipped: np.ndarray = bits ^ top
        return flipped
    keys: np.ndarray = np.where(bits & top, ~bits, bits | top)  # the bits of negative floats run backwards
    return keys


def _value(key: int, dtype: np.dtype) -> float:
    """The value that `_keys` maps to a key."""
    if dtype.kind in "bu":
        return float(key)
    top = 1 << (8 * dtype.itemsize - 1)
    bits = key ^ top if dtype.kind == "i" or key & top else key ^ (2 * top - 1)
    return float(np.array(bits, f"u{dtype.itemsize}").view(dtype)[()])


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape[1:]))


@dataclass(frozen=True)
class NormalizedSource:
    """A Source whose pixels are normalised as they are read."""

    source: Source
    normalization: Normalization

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape

    @property
    def chunk(self) -> tuple[int, ...]:
        return self.source.chunk

    def read(self, region: Region) -> Float32[np.ndarray, "C y x"]:
        return self.normalization(self.source.read(region))
