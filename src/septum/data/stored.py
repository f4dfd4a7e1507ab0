"""What every file format gives: an n-D array on disk, its axes named, of which parts can be read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Index = tuple[int | slice, ...]
PixelSize = tuple[float, float]  # micrometre per pixel (y, x)


@dataclass(frozen=True, eq=False)
class Stored:
    """An array in a file. A new format is one function from a path to this."""

    format: str
    axes: str  # a letter per axis: Y, X, C and S (samples, such as RGB) for channels, any other for frames
    axes_from: str
    shape: tuple[int, ...]
    dtype: np.dtype
    load: Callable[[Index], np.ndarray]  # what indexing the whole array would give
    pixel_size: PixelSize | None
    pixel_size_from: str  # where it was found, or why it is unknown
    palette: np.ndarray | None = None  # (values, 3 or 4): the stored values are numbers of these colours
    alpha: bool = False  # the last sample says how opaque the others are
    remarks: tuple[str, ...] = ()


def plausible(pixel_size: PixelSize, source: str) -> tuple[PixelSize | None, str]:
    """Tell a microscope's pixel size from a printing resolution such as 72 or 300 dots per inch.

    Resolution tags count if they say 0.1 nanometre to 10 micrometre per pixel: no printer is finer than 10 micrometre
    (2540 dots per inch) by default, and no light or electron microscope needs more.

    Examples
    --------
    >>> plausible((0.19, 0.19), "resolution tag")
    ((0.19, 0.19), 'resolution tag')
    >>> plausible((25400 / 72, 25400 / 72), "resolution tag")
    (None, 'its resolution tag of 72 dots per inch is for printing')
    """
    if all(1e-4 <= size <= 10 for size in pixel_size):
        return pixel_size, source
    return None, f"its {source} of {25400 / pixel_size[1]:.4g} dots per inch is for printing"
