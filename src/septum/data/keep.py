"""Arrays in memory, or in files that are mapped when used, so that data sets may be larger than memory."""

from __future__ import annotations

import itertools
import mmap
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Generic, TypeVar, cast

import numpy as np

from septum.errors import OutputError

Keep = Callable[[np.ndarray], np.ndarray]  # where to keep an array for later

Array = TypeVar("Array", np.ndarray, np.ndarray | None)


def in_memory(array: np.ndarray) -> np.ndarray:
    """Keep an array as it is."""
    return array


class InFiles:
    """Writes each array to a file in a folder and returns it mapped and read-only; OutputError if it does not fit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = itertools.count()

    def __call__(self, array: np.ndarray) -> np.ndarray:
        path = self.folder / f"{next(self._numbers)}.npy"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            np.save(path, array)
        except OSError as error:
            raise OutputError(
                f"cannot write {path}, {array.nbytes / 1e6:.0f} MB of data that do not fit in memory "
                f"({error.strerror}); free disk space there, or choose another --output"
            ) from None
        mapped: np.ndarray = np.load(path, mmap_mode="r")
        return mapped


@contextmanager
def temporary_keep(keep: Keep) -> Iterator[Keep]:
    """Yield a way to keep arrays until the block ends: like `keep`, but files are then removed."""
    if not isinstance(keep, InFiles):
        yield keep
        return
    keep.folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=keep.folder, ignore_cleanup_errors=True) as folder:
        yield InFiles(Path(folder))


@contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """Yield a path for temporary files: what a killed process left there is removed, and all of it at the end."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class ArrayField(Generic[Array]):
    """A dataclass field for an array. A mapped file is mapped again at every access.

    So only what is in use counts as memory of the process: pages stay counted as long as they are mapped.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Array:
        if instance is None:
            raise AttributeError(self.name)  # no default, as far as dataclass is concerned
        value = instance.__dict__[self.name]
        return cast(Array, value() if isinstance(value, partial) else value)

    def __set__(self, instance: Any, value: Array) -> None:
        instance.__dict__[self.name] = _mapping(value) if is_mapped(value) else value


def is_mapped(array: object) -> bool:
    """Whether an array is a whole file, mapped read-only."""
    if not isinstance(array, np.memmap) or array.mode != "r" or array.filename is None:
        return False
    return isinstance(array.base, mmap.mmap)  # the base of a part is the whole array


def _mapping(array: Any) -> Callable[[], np.ndarray]:
    order = "C" if array.flags.c_contiguous else "F"
    return partial(np.memmap, array.filename, array.dtype, "r", array.offset, array.shape, order)
