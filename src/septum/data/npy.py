"""NumPy .npy files, mapped into memory: only the pixels that are used are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from septum.data.findings import BadFile
from septum.data.stored import Stored, check_level

AXES_BY_NDIM = {2: "YX", 3: "CYX", 4: "ZCYX"}


def open_npy(path: Path, level: int) -> Stored:
    """Open a .npy file: (Y, X), (C, Y, X), or (Z, C, Y, X) for several frames."""
    check_level(path, level, 1)
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:
        problem = f"is damaged, truncated or not an array of numbers ({error})"
        raise BadFile("unreadable", path, problem, "save it again with np.save") from None
    if array.ndim not in AXES_BY_NDIM:
        problem = f"has shape {array.shape}, expected (Y, X), (C, Y, X) or (Z, C, Y, X)"
        raise BadFile("unreadable", path, problem, "reshape it and save it again")
    return Stored(
        format="NumPy",
        axes=AXES_BY_NDIM[array.ndim],
        axes_from="the number of dimensions",
        shape=array.shape,
        dtype=array.dtype,
        load=lambda index: np.lib.format.open_memmap(path, mode="r")[index],
        pixel_size=None,
        pixel_size_from="NumPy files do not store it",
        chunk=(1, array.shape[-1]),
        levels=(array.shape[-2:],),
    )
