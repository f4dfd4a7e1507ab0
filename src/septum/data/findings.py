"""Findings: what is wrong with a file of a data set, and how to fix it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from septum.errors import ImageError

Level = Literal["error", "warning"]

LEVELS: dict[str, Level] = {
    "no-data": "error",
    "missing-file": "error",
    "unreadable": "error",
    "missing-image": "error",
    "ambiguous-name": "error",
    "frame-mismatch": "error",
    "size-mismatch": "error",
    "not-finite": "error",
    "channels-differ": "error",
    "label-format": "error",
    "label-values": "error",
    "grey-edges": "error",
    "nothing-annotated": "error",
    "one-class": "error",
    "missing-label": "warning",
    "missing-markers": "warning",
    "ignored-file": "warning",
    "empty-labels": "warning",
    "constant-image": "warning",
    "saturated": "warning",
    "depth-differs": "warning",
    "pixel-size-differs": "warning",
    "merged": "warning",
    "shared-number": "warning",
    "duplicate": "warning",
}


@dataclass(frozen=True)
class Finding:
    """One problem. Training refuses errors and prints warnings; check.py explains the codes."""

    level: Level
    code: str
    file: str
    problem: str  # follows the name of the file: "has 3 channels"
    fix: str

    def __str__(self) -> str:
        return f"{self.file} {self.problem}; {self.fix}"


def finding(code: str, file: str | Path, problem: str, fix: str) -> Finding:
    """Make a finding with the level of its code.

    Examples
    --------
    >>> print(finding("label-format", "a.jpg", "is a JPEG", "save labels as TIFF"))
    a.jpg is a JPEG; save labels as TIFF
    """
    return Finding(LEVELS[code], code, str(file), problem, fix)


class BadFile(ImageError):
    """An ImageError that carries its finding, so that a check can continue with other files."""

    def __init__(self, code: str, file: str | Path, problem: str, fix: str) -> None:
        self.finding = finding(code, file, problem, fix)
        super().__init__(str(self.finding))

    def __reduce__(self) -> tuple[type[BadFile], tuple[str, str, str, str]]:
        """Pickle the arguments, so that the error can cross process boundaries."""
        return BadFile, (self.finding.code, self.finding.file, self.finding.problem, self.finding.fix)
