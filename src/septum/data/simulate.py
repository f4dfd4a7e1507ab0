"""Simulated micrographs with exact truth: touching nuclei, cell membranes, and a video of moving cells.

Everything is a function of the seed. The truth is drawn first and the image is made from it, so the labels are exact to
the pixel, unlike those of any annotated photograph.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import tifffile
from scipy import ndimage
from scipy.spatial import cKDTree

from septum.errors import ConfigError

SMALLEST_DIAMETER = 12  # px; with a smaller mean diameter, crowded cells may get narrower than five pixels
_DISC = np.hypot(*np.mgrid[-2:3, -2:3]) < 2.5  # five pixels wide


def cells(
    shape: tuple[int, int], n: int, seed: int, *, touching: bool = True, diameter: float = 20.0
) -> tuple[np.ndarray, np.ndarray]:
    """Draw fluorescent nuclei: bright blobs with blur, uneven illumination and noise.

    Parameters
    ----------
    shape : (Y, X)
        Size of the image, pixels.
    n : int
        Number of nuclei.
    seed : int
        Same seed, same image.
    touching : bool
        True: most nuclei touch in clusters. False: at least two pixels of background lie between any two.
    diameter : float, pixels
        Mean diameter, at least 12.

    Returns
    -------
    image : (1, Y, X) uint8 array
    labels : (Y, X) int32 array
        0 is background, 1..n are nuclei, numbered by their first pixel in raster order. Each is connected and nowhere
        narrower than five pixels: a disc of that width fits around every one of its pixels.

    Raises
    ------
    ConfigError
        If the nuclei are too small, or too many for the image.

    Examples
    --------
    >>> image, labels = cells((64, 96), n=7, seed=0)
    >>> image.shape, image.dtype, labels.max()
    ((1, 64, 96), dtype('uint8'), np.int32(7))
    """
    if diameter < SMALLEST_DIAMETER:
        raise ConfigError(f"diameter must be at least {SMALLEST_DIAMETER} px to keep cells 5 px wide, got {diameter}")
    rng = np.random.default_rng(seed)
    spacing = 0.75 * diameter if touching else 1.4 * diameter + 2
    centres = _scatter(shape, n, spacing, rng, margin=0.25 * diameter, clusters=touching)
    drawn = _draw(shape, centres, _outlines(n, diameter, rng))
    numbers, first = np.unique(drawn, return_index=True)
    rank = np.zeros(n + 1, np.int32)
    rank[sorted(numbers[1:], key=dict(zip(numbers, first, strict=True)).__getitem__)] = np.arange(1, n + 1)
    labels = rank[drawn]
    return _fluorescence(labels, rng.uniform(0.5, 1.0, n), rng.uniform(0, 2 * np.pi), rng), labels


def membranes(shape: tuple[int, int], n: int, seed: int, *, thickness: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """Draw an electron micrograph of tissue: adjacent cells, separated by dark membranes, with dark organelles inside.

    Parameters
    ----------
    shape : (Y, X)
        Size of the image, pixels.
    n : int
        Number of cells, at least 2. Their interiors are n components (4-connected) of class 1.
    seed : int
        Same seed, same image.
    thickness : float, pixels
        Width of the membranes, at least 3.

    Returns
    -------
    image : (1, Y, X) uint8 array
    labels : (Y, X) int32 array
        0 is membrane, 1 is the interior of a cell: the classes of the ISBI 2012 challenge.

    Raises
    ------
    ConfigError
        If the membranes are too thin to separate the cells, or there are too many cells for the image.

    Examples
    --------
    >>> image, labels = membranes((96, 128), n=12, seed=0)
    >>> image.shape, image.dtype, ndimage.label(labels)[1]
    ((1, 96, 128), dtype('uint8'), 12)
    """
    if thickness < 3 or n < 2:
        raise ConfigError(f"thickness must be at least 3 px and n at least 2 cells, got {thickness:g} px and n = {n}")
    rng = np.random.default_rng(seed)
    size = float(np.sqrt(shape[0] * shape[1] / n))  # of one cell
    if size < 6 * thickness:
        raise ConfigError(
            f"{n} cells in {shape[0]} x {shape[1]} px are {size:.0f} px wide, too small for "
            f"membranes of {thickness:g} px; draw at most {int(shape[0] * shape[1] / (6 * thickness) ** 2)} cells"
        )
    centres = _scatter(shape, n, 0.6 * size, rng, margin=0.2 * size, clusters=False)
    yx = np.moveaxis(np.indices(shape), 0, -1).astype(float)  # (Y, X, 2)
    yx += np.stack([_smooth_noise(shape, 0.3 * size, rng) * 0.06 * size for _ in range(2)], axis=-1)  # bent borders
    distance, nearest = cKDTree(centres).query(yx, k=2)  # (Y, X, 2): to the nearest and second nearest centre
    apart = np.linalg.norm(centres[nearest[..., 0]] - centres[nearest[..., 1]], axis=-1)
    to_border = (distance[..., 1] ** 2 - distance[..., 0] ** 2) / (2 * apart)  # from a pixel to the bisector
    parts, _ = ndimage.label(to_border > thickness / 2)
    owner = np.zeros(parts.max() + 1, int)
    owner[parts] = nearest[..., 0]
    by_size = np.argsort(np.bincount(parts[parts > 0], minlength=len(owner)))
    largest = dict(zip(owner[by_size], by_size, strict=True))  # of each cell: the last one wins
    labels = np.isin(parts, list(largest.values())).astype(np.int32)  # a chip cut off in a corner is membrane

    cytoplasm = 0.62 + 0.05 * _smooth_noise(shape, 2, rng) + 0.1 * (rng.random(n) - 0.5)[nearest[..., 0]]
    membrane = 0.55 * np.exp(-((to_border / (0.5 * thickness)) ** 2))
    organelles = 0.25 * ((_smooth_noise(shape, 0.12 * size, rng) > 1.6) & (to_border > 1.5 * thickness))
    grey = ndimage.gaussian_filter(cytoplasm - membrane - organelles, 0.8) + 0.06 * rng.standard_normal(shape)
    return _to_uint8(grey), labels


def ctc_video(
    folder: Path | str,
    frames: int,
    seed: int,
    shape: tuple[int, int] = (128, 128),
    *,
    n: int = 8,
    partly: Collection[int] = (),
) -> None:
    """Write a video of moving cells as video 01 of a Cell Tracking Challenge data set.

    Files: ``01/tTTT.tif`` (uint8), ``01_GT/SEG/man_segTTT.tif`` and ``01_GT/TRA/man_trackTTT.tif`` (uint16, a cell has
    the same label in every frame), ``01_GT/TRA/man_track.txt`` (label, first frame, last frame, parent 0).

    Parameters
    ----------
    folder : path
        Where ``01`` and ``01_GT`` are created.
    frames, seed : int
        Number of frames; same seed, same video.
    shape : (Y, X)
        Size of a frame, pixels.
    n : int
        Number of cells, 20 px wide; all of them are in every frame.
    partly : collection of int
        Frames where SEG annotates only every second cell. TRA always marks every cell.

    Raises
    ------
    ConfigError
        If the cells do not fit.
    """
    diameter = 20.0
    rng = np.random.default_rng(seed)
    centres = _scatter(shape, n, 0.75 * diameter, rng, margin=0.25 * diameter, clusters=True)
    outlines, brightness, light_from = _outlines(n, diameter, rng), rng.uniform(0.5, 1.0, n), rng.uniform(0, 2 * np.pi)
    images, seg, tra = (Path(folder, *parts) for parts in (("01",), ("01_GT", "SEG"), ("01_GT", "TRA")))
    for place in (images, seg, tra):
        place.mkdir(parents=True, exist_ok=True)
    for frame in range(frames):
        labels = _draw(shape, centres, outlines)
        markers = np.zeros_like(labels)
        for number, centre in enumerate(centres, start=1):
            markers[np.hypot(*(np.indices(shape) - centre[:, None, None])) < 2.5] = number
        markers[markers != labels] = 0
        annotated = labels * (labels % 2) if frame in partly else labels
        tifffile.imwrite(images / f"t{frame:03d}.tif", _fluorescence(labels, brightness, light_from, rng)[0])
        tifffile.imwrite(seg / f"man_seg{frame:03d}.tif", annotated.astype(np.uint16))
        tifffile.imwrite(tra / f"man_track{frame:03d}.tif", markers.astype(np.uint16))
        centres = _move(centres, shape, diameter, rng)
    rows = [f"{number} 0 {frames - 1} 0\n" for number in range(1, n + 1)]
    (tra / "man_track.txt").write_text("".join(rows))


def _scatter(
    shape: tuple[int, int], n: int, spacing: float, rng: np.random.Generator, *, margin: float, clusters: bool
) -> np.ndarray:
    """Return (n, 2) centres at least `spacing` from each other and `margin` from the edge of the image."""
    low, high = np.full(2, margin), np.array(shape) - 1 - margin
    centres = np.empty((0, 2))
    for _ in range(200 * n):
        if len(centres) == n:
            break
        if clusters and len(centres) and rng.random() < 0.8:  # beside an existing one
            angle = rng.uniform(0, 2 * np.pi)
            step = rng.uniform(1.0, 1.2) * spacing
            centre = centres[rng.integers(len(centres))] + step * np.array([np.sin(angle), np.cos(angle)])
        else:
            centre = rng.uniform(low, high)
        inside = (centre >= low).all() and (centre <= high).all()
        if inside and (np.hypot(*(centres - centre).T) >= spacing).all():
            centres = np.vstack([centres, centre])
    if len(centres) < n:
        raise ConfigError(
            f"{n} cells {spacing:.0f} px apart do not fit in {shape[0]} x {shape[1]} px, only {len(centres)} did; "
            "draw fewer cells or a larger image"
        )
    return centres


def _outlines(n: int, diameter: float, rng: np.random.Generator) -> np.ndarray:
    """Return (n, 5): radius, then amplitude and phase of two harmonics that deform a circle into a nucleus."""
    return np.stack(
        [
            rng.uniform(0.42, 0.55, n) * diameter,
            rng.uniform(0, 0.15, n),
            rng.uniform(0, 2 * np.pi, n),
            rng.uniform(0, 0.08, n),
            rng.uniform(0, 2 * np.pi, n),
        ],
        axis=1,
    )


def _draw(shape: tuple[int, int], centres: np.ndarray, outlines: np.ndarray) -> np.ndarray:
    """Return (Y, X) int32 labels: a pixel belongs to the cell in which it lies deepest; each cell is then opened."""
    depth = np.ones(shape)  # distance from the centre in units of the radius in that direction
    owner = np.zeros(shape, np.int32)
    windows = []
    for number, (centre, (radius, a2, p2, a3, p3)) in enumerate(zip(centres, outlines, strict=True), start=1):
        reach = int(1.3 * radius) + 1
        low = np.maximum(centre.astype(int) - reach, 0)
        window = tuple(slice(start, int(c) + reach + 1) for start, c in zip(low, centre, strict=True))
        y, x = np.indices(depth[window].shape) + (low - centre)[:, None, None]
        angle = np.arctan2(y, x)
        own = np.hypot(y, x) / (radius * (1 + a2 * np.cos(2 * angle + p2) + a3 * np.cos(3 * angle + p3)))
        deeper = own < depth[window]
        depth[window][deeper] = own[deeper]
        owner[window][deeper] = number
        windows.append(window)
    labels = np.zeros(shape, np.int32)
    for number, (centre, window) in enumerate(zip(centres, windows, strict=True), start=1):
        parts, _ = ndimage.label(ndimage.binary_opening(owner[window] == number, _DISC))
        y, x = np.round(centre).astype(int) - [side.start for side in window]
        labels[window][parts == parts[y, x]] = number
    return labels


def _move(centres: np.ndarray, shape: tuple[int, int], diameter: float, rng: np.random.Generator) -> np.ndarray:
    """Move each centre by a random step of about two pixels, unless that brings it too close to another."""
    centres = centres.copy()
    margin = 0.25 * diameter
    for i in range(len(centres)):
        moved = np.clip(centres[i] + 2 * rng.standard_normal(2), margin, np.array(shape) - 1 - margin)
        if (np.hypot(*(np.delete(centres, i, axis=0) - moved).T) >= 0.75 * diameter).all():
            centres[i] = moved
    return centres


def _fluorescence(
    labels: np.ndarray, brightness: np.ndarray, light_from: float, rng: np.random.Generator
) -> np.ndarray:
    """Return the (1, Y, X) uint8 image of nuclei: chromatin, blur, uneven illumination, background, photon noise."""
    nuclei = np.concatenate([[0.0], brightness])[labels] * (1 + 0.15 * _smooth_noise(labels.shape, 2, rng))
    y, x = (np.linspace(-1, 1, side) for side in labels.shape)
    light = 0.75 + 0.25 * (np.sin(light_from) * y[:, None] + np.cos(light_from) * x[None, :])
    grey = light * (0.1 + 0.75 * ndimage.gaussian_filter(nuclei, 1.2))
    return _to_uint8(grey + 0.06 * np.sqrt(np.maximum(grey, 0)) * rng.standard_normal(labels.shape))


def _smooth_noise(shape: tuple[int, ...], sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Return Gaussian noise of unit variance, correlated over `sigma` pixels."""
    noise: np.ndarray = ndimage.gaussian_filter(rng.standard_normal(shape), sigma, mode="wrap")
    noise /= noise.std()
    return noise


def _to_uint8(grey: np.ndarray) -> np.ndarray:
    """Return a (Y, X) image in 0..1 as (1, Y, X) uint8, clipped."""
    pixels: np.ndarray = np.round(255 * np.clip(grey, 0, 1))
    return pixels.astype(np.uint8).reshape(1, *grey.shape)
