"""What every file format provides: an n-D array on disk with named axes, of which parts can be read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from septum.data.findings import BadFile
from septum.words import plural

Index = tuple[int | slice, ...]
PixelSize = tuple[float, float]  # micrometre per pixel (y, x)
MICROMETRE = {
    "m": 1e6, "cm": 1e4, "mm": 1e3, "µm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0,
    "micrometre": 1.0, "nm": 1e-3, "pm": 1e-6, "å": 1e-4, "angstrom": 1e-4, "inch": 25400.0, "in": 25400.0,
    "meter": 1e6, "centimeter": 1e4, "millimeter": 1e3, "nanometer": 1e-3, "picometer": 1e-6,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Stored:
    """An array in a file. A new format is one function from a path and a resolution level to a `Stored`.

    `tests/data/test_stored.py` is the contract that every format passes.
    """

    format: str
    axes: str  # a letter per axis: Y, X, C and S (samples, such as RGB) for channels, any other for frames
    axes_from: str
    shape: tuple[int, ...]
    dtype: np.dtype
    load: Callable[[Index], np.ndarray]  # the same as indexing the whole array
    pixel_size: PixelSize | None
    pixel_size_from: str  # its source, or why it is unknown
    chunk: tuple[int, int]  # (Y, X) pixels that are stored or decoded together
    levels: tuple[tuple[int, int], ...]  # (Y, X) of every resolution level, the finest first
    level: int = 0  # which of them this is
    palette: np.ndarray | None = None  # (values, 3 or 4): the stored values are indices of these colours
    alpha: bool = False  # the last sample is the opacity of the others
    remarks: tuple[str, ...] = ()


def plausible(pixel_size: PixelSize, source: str) -> tuple[PixelSize | None, str]:
    """Tell the pixel size of a microscope from a printing resolution such as 72 or 300 dots per inch.

    Resolution tags count from 0.1 nanometre to 10 micrometre per pixel. By default no printer is finer than 10
    micrometre (2540 dots per inch), and no light or electron microscope is coarser.

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


def check_level(path: Path, level: int, levels: int) -> None:
    """Raise ImageError if a file has no such resolution level."""
    if not 0 <= level < levels:
        problem = f"has {plural(levels, 'resolution level')}, counted from 0, but level {level} was requested"
        fix = f"choose one of 0..{levels - 1}" if levels > 1 else "omit the level"
        raise BadFile("unreadable", path, problem, fix)


def coarser(full: tuple[int, int], level: tuple[int, int]) -> tuple[float, float]:
    """Return how many full-resolution pixels (y, x) a pixel of a level spans.

    Sizes are rounded up or down when an image is reduced, so a whole factor is preferred where it explains both sizes.

    Examples
    --------
    >>> coarser((1001, 1000), (500, 333))
    (2.0, 3.0)
    >>> coarser((1000, 1000), (300, 400))
    (3.3333333333333335, 2.5)
    """

    def one(large: int, small: int) -> float:
        factor = max(1, round(large / small))
        return float(factor) if small in (large // factor, -(-large // factor)) else large / small

    return one(full[0], level[0]), one(full[1], level[1])
