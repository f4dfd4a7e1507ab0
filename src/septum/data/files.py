"""Files appear whole or not at all: written under another name, then renamed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from septum.errors import OutputError

DISK_FULL_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
READ_ONLY_ERRORS = {errno.EACCES, errno.EPERM, errno.EROFS}
_READ_ONLY_FIX = "choose another folder or get permission to write there"


@contextmanager
def output_errors(path: str | Path) -> Iterator[None]:
    """Turn a failure to write to a path into one sentence, an OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {path}: {_reason(error)}") from error


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path to write to; it is renamed to `path` when the block succeeds.

    Missing folders are created. If the block fails, nothing is left behind and an existing file stays as it was. A
    hidden file ``.part.NAME`` that a killed process left is overwritten by the next attempt.

    Parameters
    ----------
    path : path
        Where the file will appear. The temporary path has the same suffix.

    Raises
    ------
    OutputError
        If the disk is full, the folder is read-only, or writing fails for another reason.

    Examples
    --------
    >>> with atomic_path(folder / "answer.txt") as temporary:      # doctest: +SKIP
    ...     temporary.write_text("42")
    """
    path = Path(path)
    temporary = path.with_name(f".part.{path.name}")
    try:
        with output_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()


def check_writable(path: str | Path) -> None:
    """Raise OutputError if a file obviously cannot be written. Nothing is created or changed."""
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder; give a file name")
    existing = next(folder for folder in path.absolute().parents if folder.exists())
    if not existing.is_dir():
        raise OutputError(f"cannot write {path}: {existing} is a file, not a folder; choose another folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {path}: the folder is read-only; {_READ_ONLY_FIX}")


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file with its line ends unchanged, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def _reason(error: OSError) -> str:
    # NumPy reports an incomplete write without an error number
    if error.errno in DISK_FULL_ERRORS or (error.errno is None and "requested and" in str(error)):
        return "the disk is full; free some space or choose another folder"
    if error.errno in READ_ONLY_ERRORS:
        return f"the folder is read-only; {_READ_ONLY_FIX}"
    return f"{error.strerror or error}; choose another folder"
