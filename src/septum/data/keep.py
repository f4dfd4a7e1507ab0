"""Arrays in memory, or in files that are mapped when they are looked at: so data sets may be larger than memory."""

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

Keep = Callable[[np.ndarray], np.ndarray]  # what to do with an array that is needed later

Array = TypeVar("Array", np.ndarray, np.ndarray | None)


def in_memory(array: np.ndarray) -> np.ndarray:
    """Keep an array as it is."""
    return array


class InFiles:
    """Writes each array to a file of a folder and returns it mapped, to be read only; OutputError without room."""

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
                f"cannot write {path}, which takes the place of {array.nbytes / 1e6:.0f} MB of memory "
                f"({error.strerror}); make room there, or give the run a folder where there is more"
            ) from None
        mapped: np.ndarray = np.load(path, mmap_mode="r")
        return mapped


@contextmanager
def temporary_keep(keep: Keep) -> Iterator[Keep]:
    """Give a way to keep arrays that are needed until the block ends: as the others, but files are then removed."""
    if not isinstance(keep, InFiles):
        yield keep
        return
    keep.folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=keep.folder, ignore_cleanup_errors=True) as folder:
        yield InFiles(Path(folder))


@contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """Give a folder for a data set in files: without what a killed process left there, and removed at the end."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class ArrayField(Generic[Array]):
    """A field of a dataclass for an array. One that is a mapped file is mapped anew at every access.

    So the process holds no more of it than what is in use: pages once read would otherwise count as its memory.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Array:
        if instance is None:
            raise AttributeError(self.name)  # tells dataclass that there is no default
        value = instance.__dict__[self.name]
        return cast(Array, value() if isinstance(value, partial) else value)

    def __set__(self, instance: Any, value: Array) -> None:
        instance.__dict__[self.name] = _mapping(value) if is_mapped(value) else value


def is_mapped(array: object) -> bool:
    """Whether an array is a whole file that is mapped and cannot be changed."""
    if not isinstance(array, np.memmap) or array.mode != "r" or array.filename is None:
        return False
    return isinstance(array.base, mmap.mmap)  # a part of one has the whole as its base


def _mapping(array: Any) -> Callable[[], np.ndarray]:
    order = "C" if array.flags.c_contiguous else "F"
    return partial(np.memmap, array.filename, array.dtype, "r", array.offset, array.shape, order)
