"""Errors that the user can fix: one sentence each, with the thing, what was expected, what was found and the fix."""

import difflib
from collections.abc import Iterable


class SeptumError(Exception):
    """Base of all errors that the user can fix; the command line prints the sentence and exits with 2."""


class ConfigError(SeptumError):
    """A setting is unknown, out of range, or contradicts another."""


class ImageError(SeptumError):
    """A file cannot be read as an image or label image, or an array has the wrong shape or values."""


class DatasetError(SeptumError):
    """A data set is incomplete, inconsistent, or cannot be found."""


class ModelError(SeptumError):
    """A model file or run folder cannot be used."""


class OutputError(SeptumError):
    """A result cannot be written to the given path."""


class DeviceError(SeptumError):
    """A device fails or disappears while it is used."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"``, or a list of the known words (ten at most) if none is similar.

    Examples
    --------
    >>> did_you_mean("dept", ["depth", "dropout"])
    "; did you mean 'depth'?"
    >>> did_you_mean("zzz", ["depth", "dropout"])
    '; known are: depth, dropout'
    """
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    more = f" and {len(known) - 10} more" if len(known) > 10 else ""
    return f"; known are: {', '.join(known[:10])}{more}" if known else ""
