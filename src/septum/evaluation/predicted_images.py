"""The images that predictions were made from, as `septum predict` writes them down beside its results."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

JOURNAL, PLAN = "predictions.json", "_plan.json"  # of images in memory, of one streamed image


def predicted_images(folder: Path) -> dict[str, Path]:
    """Return the images that still exist by their stems, from the files that `septum predict` leaves in `folder`.

    A folder that something else wrote has none, and a journal of an older Septum does not name its images.
    """
    named = {
        plan.name.removesuffix(PLAN): _read(plan).get("image_path") for plan in sorted(folder.glob(f"*{PLAN}"))
    } | {stem: entry.get("image") for stem, entry in _read(folder / JOURNAL).items() if isinstance(entry, dict)}
    images = {unicodedata.normalize("NFC", stem): Path(path) for stem, path in named.items() if isinstance(path, str)}
    return {stem: path for stem, path in images.items() if path.exists()}


def _read(file: Path) -> dict[str, Any]:
    """Return a JSON object; an empty one if the file is missing or is something else."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
