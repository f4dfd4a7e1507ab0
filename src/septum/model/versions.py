"""The versions of the packages that decide a result, for run folders and model files."""

from __future__ import annotations

import importlib.metadata
import platform

PACKAGES = ("septum", "torch", "numpy", "scipy", "scikit-image")


def versions() -> dict[str, str]:
    """Return package -> version, including Python's own."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # run from a source tree
            found[package] = "not installed"
    return found
