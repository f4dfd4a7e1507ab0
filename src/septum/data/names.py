"""Names of files."""

from __future__ import annotations

from pathlib import Path


def stem_of(path: Path) -> str:
    """Return the name of an image without what says its format.

    Examples
    --------
    >>> stem_of(Path("a/slide.ome.zarr")), stem_of(Path("b.ome.tif")), stem_of(Path("c.1.tif"))
    ('slide', 'b', 'c.1')
    """
    return path.stem.removesuffix(".ome")
