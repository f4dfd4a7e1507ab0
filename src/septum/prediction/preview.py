"""A quick look at images of any size: an overlay of a segmentation at low resolution."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np

from septum.core.overlay import overlay
from septum.core.region import clip, scale, shape_of, whole
from septum.core.tiling import ArraySource, Source, blocks
from septum.data.images import fit_channels, open_image, write_png
from septum.data.names import stem_of
from septum.machine.generators import drain
from septum.model.model import Model
from septum.model.predict import segment
from septum.prediction.records import FileDone

PREVIEW_SIDE = 1024  # pixels of the longer side


def preview_files(
    model: Model, paths: Sequence[Path], output: Path, *, channel: int | None = None
) -> Generator[FileDone, None, None]:
    """Write ``NAME_preview.png`` of the first frame of each image.

    Reads the coarsest resolution level with at least 1024 pixels along its longer side, and averages squares of pixels
    if that is still much larger. A network trained at full resolution may miss objects at this one.
    """
    for path in paths:
        levels = open_image(path, channel=channel).levels
        level = max((n for n, shape in enumerate(levels) if max(shape) >= PREVIEW_SIDE), default=0)
        frame = open_image(path, channel=channel, level=level).frames[0]
        pixels = read_downsampled(
            fit_channels(frame, model.card.channels), math.ceil(max(frame.shape[1:]) / PREVIEW_SIDE)
        )
        prediction = drain(segment(model.net, model.card.config, ArraySource(pixels)))
        picture = output / f"{stem_of(path)}_preview.png"
        write_png(picture, overlay(pixels, prediction.labels, kind=model.card.kind))
        yield FileDone(path, (picture,), int(prediction.labels.max(initial=0)), skipped=False)


def read_downsampled(source: Source, factor: int) -> np.ndarray:
    """Read an image as the means of squares of `factor` pixels, block by block; incomplete squares are dropped.

    Examples
    --------
    >>> read_downsampled(ArraySource(np.array([[[1, 3, 9], [5, 7, 9]]])), 2)
    array([[[4.]]], dtype=float32)
    """
    channels, height, width = source.shape
    if factor == 1:
        return source.read(whole((height, width)))
    rows, columns = max(1, height // factor), max(1, width // factor)
    small = np.zeros((channels, rows, columns), np.float32)
    for region in blocks((rows, columns), (1, columns), max(1, 2**22 // (factor**2 * channels))):
        pixels = source.read(clip(scale(region, factor), (height, width)))
        down_by, across_by = (min(factor, size) for size in pixels.shape[1:])
        squares = pixels.reshape(channels, -1, down_by, shape_of(region)[1], across_by)
        small[(slice(None), *region)] = squares.mean((2, 4))
    return small
