"""File names: what a file is, which image it belongs to, and the order of files. All commands follow these rules.

Neither the suffix nor ``.ome`` before it is part of a name. Upper and lower case are the same in suffixes and endings
(``a.TIF``, ``a_Mask.tif``), and so are the two ways in which Unicode writes an accented letter (macOS writes it as two
characters).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from pathlib import Path

from septum.data.omezarr import is_zarr

IMAGE_SUFFIXES = (".tif", ".tiff", ".btf", ".png", ".jpg", ".jpeg")
ROI_SUFFIX = ".zip"  # an archive of ImageJ ROIs
LABEL_ENDINGS = ("_mask", "_masks", "_labels")  # a_mask.tif belongs to a.tif
MAP_ENDING = "_probabilities"  # written by septum predict beside a_labels.tif
_ENDED = re.compile(rf"(.+?)({'|'.join(LABEL_ENDINGS)}|{MAP_ENDING})", re.IGNORECASE | re.DOTALL)
_OVERLAY = re.compile(r"_overlay(_\d+)?$", re.IGNORECASE)


def is_image(path: Path) -> bool:
    """Whether a path looks like an image or label image: by its suffix, or as a Zarr."""
    return path.suffix.lower() in IMAGE_SUFFIXES or is_zarr(path)


def is_roi(path: Path) -> bool:
    """Whether a label file is an archive of ImageJ ROIs."""
    return path.suffix.lower() == ROI_SUFFIX


def is_folder(path: Path) -> bool:
    """Whether a path is a folder of files; a Zarr is one image although it is a folder."""
    return path.is_dir() and not is_zarr(path)


def is_label(path: Path) -> bool:
    """Whether the name says that a file contains labels.

    Examples
    --------
    >>> [name for name in ("a.tif", "a_Mask.TIF", "a.zip", "a_probabilities.tif") if is_label(Path(name))]
    ['a_Mask.TIF', 'a.zip']
    """
    ended = _ENDED.fullmatch(key_of(path))
    return is_roi(path) or (ended is not None and ended[2].lower() in LABEL_ENDINGS)


def is_map(path: Path) -> bool:
    """Whether the name says that a file contains probabilities."""
    return key_of(path).lower().endswith(MAP_ENDING)


def is_overlay(path: Path) -> bool:
    """Whether the name is that of a picture that ``septum predict`` draws."""
    return _OVERLAY.search(key_of(path)) is not None


def stem_of(path: Path) -> str:
    """Return the name of an image as it is written, without what says its format: results are named after it.

    Examples
    --------
    >>> stem_of(Path("a/slide.ome.zarr")), stem_of(Path("b.OME.TIF")), stem_of(Path("c.1.tif"))
    ('slide', 'b', 'c.1')
    """
    return re.sub(r"\.ome$", "", path.stem, flags=re.IGNORECASE)


def key_of(path: Path) -> str:
    """Return the stem in the form in which names are compared: accented letters as one character (NFC)."""
    return unicodedata.normalize("NFC", stem_of(path))


def image_of(path: Path, known: Collection[str] = ()) -> str:
    """Return the key of the image that a file belongs to: its own if that is known, else without its ending.

    Examples
    --------
    >>> image_of(Path("a_labels.tif")), image_of(Path("a.zip")), image_of(Path("a_mask.tif"), known={"a_mask"})
    ('a', 'a', 'a_mask')
    """
    key = key_of(path)
    ended = None if key in known else _ENDED.fullmatch(key)
    return ended[1] if ended else key


def frame_number(name: str, *kinds: str) -> str | None:
    """Return the number in the name of a frame of the Cell Tracking Challenge, as it is written; None for other names.

    Examples
    --------
    >>> frame_number("t002", "t"), frame_number("man_seg002", "man_seg", "mask"), frame_number("notes", "t")
    ('002', '002', None)
    """
    match = re.fullmatch(rf"(?:{'|'.join(kinds)})(\d+)", name, re.IGNORECASE)
    return match[1] if match else None


def visible_entries(folder: Path) -> list[Path]:
    """List a folder in natural order, without hidden files; empty if there is no such folder."""
    return sorted(filter(is_visible, folder.iterdir() if folder.is_dir() else ()), key=natural_order)


def is_visible(path: Path) -> bool:
    """Whether a file is not hidden. Files that a killed process left half-written are hidden."""
    return not path.name.startswith(".")


def natural_order(path: Path) -> tuple[list[list[str]], list[str], str]:
    """Return a sort key: folder by folder, then by stem, and numbers count as numbers.

    Examples
    --------
    >>> [str(path) for path in sorted(map(Path, ["b1.png", "a10.tif", "a2.ome.tif"]), key=natural_order)]
    ['a2.ome.tif', 'a10.tif', 'b1.png']
    """
    return [*map(_numbers_padded, path.parent.parts)], _numbers_padded(key_of(path)), path.name


def _numbers_padded(text: str) -> list[str]:
    # Text is padded too, so short words precede long ones. This must stay as it is: the order of the samples decides
    # the weights of a training.
    return [part.zfill(20) for part in re.split(r"(\d+)", unicodedata.normalize("NFC", text))]
