"""Files appear whole or not at all: written beside, then renamed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from septum.errors import OutputError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}
_READ_ONLY_FIX = "choose another folder or ask for the right to write there"


@contextmanager
def output_errors(path: str | Path) -> Iterator[None]:
    """Turn what keeps the system from writing to a path into one sentence, an OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {path}: {_reason(error)}") from error


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a path beside the wanted one to write to; it takes the wanted name when the block ends well.

    Missing folders are made. If the block fails nothing is left behind, and what was at `path` stays as it was;
    what a killed process leaves (a hidden file ``.part.NAME``) is overwritten by the next attempt.

    Parameters
    ----------
    path : path
        Where the file shall appear. The path given has the same suffix.

    Raises
    ------
    OutputError
        If the disk is full, the folder is read-only, or anything else keeps the system from writing.

    Examples
    --------
    >>> with atomic_path(folder / "answer.txt") as beside:      # doctest: +SKIP
    ...     beside.write_text("42")
    """
    path = Path(path)
    beside = path.with_name(f".part.{path.name}")
    try:
        with output_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield beside
            os.replace(beside, path)
    finally:
        with suppress(OSError):
            beside.unlink()


def check_writable(path: str | Path) -> None:
    """Raise OutputError if it is plain before any work that a file cannot be written; makes and changes nothing."""
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"cannot write {path}: that is a folder; give the name of a file")
    there = next(folder for folder in path.absolute().parents if folder.exists())
    if not there.is_dir():
        raise OutputError(f"cannot write {path}: {there} is a file, not a folder; choose another place")
    if not os.access(there, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {path}: the folder is read-only; {_READ_ONLY_FIX}")


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file with the line ends given, whole or not at all."""
    with atomic_path(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="")


def _reason(error: OSError) -> str:
    # NumPy reports a short write without an error number
    if error.errno in FULL or (error.errno is None and "requested and" in str(error)):
        return "the disk is full; free some space or choose another folder"
    if error.errno in READ_ONLY:
        return f"the folder is read-only; {_READ_ONLY_FIX}"
    return f"{error.strerror or error}; choose another place"
