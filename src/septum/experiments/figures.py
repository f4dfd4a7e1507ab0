"""The figures of the paper from the images and networks of a run: as panels for a page, and as one picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from skimage.segmentation import find_boundaries

from septum.core.overlay import Rgb, colour, to_rgb
from septum.core.region import expand, relative_to, shape_of, whole
from septum.core.tiling import ArraySource, read_mirrored, tiles
from septum.core.unet import margin
from septum.report.sections import Picture

SIDE = 1024  # pixels per side of a panel; smaller images are enlarged by a whole factor
LARGEST_FACTOR = 8
INPUT, OUTPUT, TRUTH = (50, 120, 255), (255, 214, 0), (255, 230, 0)
INK, PAPER = (20, 20, 20), (255, 255, 255)
GAP, TEXT, BAR, LINE = 24, 30, 44, 3  # pixels: between panels, letters, colour bar and its letters, width of frames
# From dark to light, for any colour vision: violet, blue, green, yellow (anchors of viridis).
HEAT = np.array([(68, 1, 84), (65, 68, 135), (42, 120, 142), (34, 168, 132), (122, 209, 81), (253, 231, 37)])


@dataclass(frozen=True)
class Figure:
    """Panels in rows of `columns`; `name` is the file name."""

    name: str
    title: str
    note: str
    panels: Sequence[Picture]
    columns: int


def compose(figure: Figure) -> Rgb:
    """Arrange the panels on white, each with its letter and caption below, as in print."""
    rows = [figure.panels[i : i + figure.columns] for i in range(0, len(figure.panels), figure.columns)]
    widths = [max(row[i].rgb.shape[1] for row in rows if i < len(row)) for i in range(len(rows[0]))]
    text = max(TEXT, sum(widths) // 70)
    font = ImageFont.load_default(text)
    heights = [max(panel.rgb.shape[0] for panel in row) + 2 * text for row in rows]
    sheet = Image.new("RGB", (sum(widths) + GAP * (len(widths) + 1), sum(heights) + GAP * (len(rows) + 1)), PAPER)
    draw = ImageDraw.Draw(sheet)
    letter, y = ord("a"), GAP
    for row, height in zip(rows, heights, strict=True):
        x = GAP
        for panel, width in zip(row, widths, strict=False):
            sheet.paste(Image.fromarray(panel.rgb), (x, y))
            below = y + panel.rgb.shape[0] + text // 3
            draw.text((x, below), f"{chr(letter)}  {_fitted(panel.caption, font, width - 2 * text)}", INK, font)
            letter, x = letter + 1, x + width + GAP
        y += height + GAP
    return np.asarray(sheet)


def overlap_tile(image: np.ndarray, result: Rgb, depth: int, what: str) -> Figure:
    """Return Fig. 2: a tile, the larger input area it needs, and the mirrored pixels where that leaves the image.

    The tile is the first one if about four tiles cover the image; all areas are those of the predictor.

    Parameters
    ----------
    image : (C, Y, X) array
    result : (Y, X, 3) uint8 array
        A picture of the prediction.
    depth : int
        The depth of the network.
    what : str
        What the image is, for the note.
    """
    lost, shape = margin(depth), image.shape[1:]
    step = 2**depth
    tile = next(tiles(shape, [math.ceil(math.ceil(size / 2) / step) * step for size in shape], depth))
    around = expand(whole(shape), lost)
    inside = relative_to(whole(shape), around)
    grey = to_rgb(image)
    canvas = read_mirrored(ArraySource(grey.transpose(2, 0, 1)), around).transpose(1, 2, 0)
    faint = (0.45 * canvas + 0.55 * 255).astype(np.uint8)
    faint[inside] = grey
    right = np.full_like(canvas, 255)
    right[inside] = result
    factor = _factor(faint.shape)
    left, right = _enlarged(faint, factor), _enlarged(right, factor, smooth=False)
    at = [(part.start, part.stop) for region in (tile.read, tile.write) for part in relative_to(region, around)]
    (read_y, read_x, write_y, write_x) = [(start * factor, stop * factor) for start, stop in at]
    left = _frame(left, (lost * factor, (lost + shape[0]) * factor), (lost * factor, (lost + shape[1]) * factor), PAPER)
    left = _frame(_frame(left, read_y, read_x, INPUT), write_y, write_x, OUTPUT)
    right = _frame(right, write_y, write_x, OUTPUT)
    size = " x ".join(map(str, shape_of(tile.read)))
    kept = " x ".join(map(str, shape_of(tile.write)))
    return Figure(
        "figure2",
        "Fig. 2: the overlap-tile strategy",
        f"{what}. To predict the yellow tile ({kept} pixels), the network needs the blue area ({size}). Outside the "
        f"image, mirrored pixels are used (shown faint, up to {lost} on every side). A prediction in tiles is the "
        "same as one of the whole image.",
        [
            Picture(left, "input area (blue) of a tile (yellow)", "input with the areas of a tile"),
            Picture(right, "result, and the tile in it", "predicted image with the tile"),
        ],
        columns=2,
    )


def targets(image: np.ndarray, labels: np.ndarray, foreground: np.ndarray, weights: np.ndarray, what: str) -> Figure:
    """Return Fig. 3: an image, its instances, the target of the network (white = foreground), and the loss weights.

    Parameters
    ----------
    image : (C, Y, X) array
    labels : (Y, X) integer array
        Instances.
    foreground : (Y, X) bool array
        The foreground mask with separation border.
    weights : (Y, X) float array
    what : str
        What the image is, for the note.
    """
    factor = _factor(labels.shape)
    grey = _enlarged(to_rgb(image), factor)
    cells = _tinted(grey, _enlarged_labels(labels, factor), 0.6)
    mask = np.repeat(np.where(foreground, 255, 0).astype(np.uint8)[..., None], 3, axis=2)
    return Figure(
        "figure3",
        "Fig. 3: the training target",
        f"{what}, a training image. The weights are those of the training: class balance and Eq. 2; "
        "unannotated pixels have weight 0.",
        [
            Picture(grey, "image", "training image"),
            Picture(cells, "true instances", "training image with its instances in colours"),
            Picture(_enlarged(mask, factor, smooth=False), "foreground (white)", "mask of the foreground"),
            Picture(_heat_map(weights, factor), "weight of the loss per pixel", "map of the loss weights"),
        ],
        columns=4,
    )


def segmented(rgb: Rgb, labels: np.ndarray, truth: np.ndarray, share: float = 0.45) -> Rgb:
    """Return a panel of Fig. 4: predicted instances in colours, outlines of the true ones in yellow, enlarged.

    Parameters
    ----------
    rgb : (Y, X, 3) uint8 array
        The image as a picture.
    labels, truth : (Y, X) integer arrays
        Instances.
    share : float
        Opacity of the colours, 0..1.
    """
    factor = _factor(labels.shape)
    painted = _tinted(_enlarged(rgb, factor), _enlarged_labels(labels, factor), share)
    outline = find_boundaries(_enlarged_labels(truth, factor), mode="thick")  # two pixels wide
    painted[ndimage.binary_dilation(outline) if factor > 1 else outline] = TRUTH
    return painted


def enlarged(rgb: Rgb) -> Rgb:
    """Return a picture at the size of the other panels."""
    return _enlarged(rgb, _factor(rgb.shape))


def _factor(shape: Sequence[int]) -> int:
    return int(np.clip(SIDE // max(shape[:2]), 1, LARGEST_FACTOR))


def _enlarged(rgb: Rgb, factor: int, smooth: bool = True) -> Rgb:
    size = (rgb.shape[1] * factor, rgb.shape[0] * factor)
    how = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    return np.array(Image.fromarray(rgb).resize(size, how))


def _enlarged_labels(labels: np.ndarray, factor: int) -> np.ndarray:
    return np.repeat(np.repeat(labels, factor, axis=0), factor, axis=1)


def _tinted(rgb: Rgb, labels: np.ndarray, share: float) -> Rgb:
    mixed = (1 - share) * rgb + share * colour(labels).astype(np.float32)
    return np.where(labels[..., None] > 0, mixed, rgb).astype(np.uint8)


def _frame(rgb: Rgb, y: tuple[int, int], x: tuple[int, int], ink: tuple[int, int, int]) -> Rgb:
    """Draw a rectangle, LINE pixels wide, just inside y and x."""
    image = Image.fromarray(rgb)
    ImageDraw.Draw(image).rectangle((x[0], y[0], x[1] - 1, y[1] - 1), outline=ink, width=LINE)
    return np.array(image)


def _heat_map(values: np.ndarray, factor: int) -> Rgb:
    """Draw a (Y, X) map in HEAT, with a colour bar from 0 to a round number."""
    top = _round_up(float(values.max()))
    body = _enlarged(_heat(values / top), factor, smooth=False)
    height, x = body.shape[0], body.shape[1] + GAP
    font = ImageFont.load_default(BAR)
    image = Image.new("RGB", (x + 4 * BAR, height), PAPER)
    image.paste(Image.fromarray(body), (0, 0))
    image.paste(Image.fromarray(np.repeat(_heat(np.linspace(1, 0, height))[:, None], BAR, axis=1)), (x, 0))
    draw = ImageDraw.Draw(image)
    for k in range(6):
        y = round((1 - k / 5) * (height - 1))
        draw.line((x + BAR, y, x + BAR + 10, y), INK, width=LINE)
        draw.text((x + BAR + 18, y), f"{top * k / 5:g}", INK, font, anchor={0: "ls", 5: "lt"}.get(k, "lm"))
    return np.asarray(image)


def _heat(share: np.ndarray) -> Rgb:
    """Values in 0..1, any shape -> colours."""
    position = np.clip(share, 0, 1) * (len(HEAT) - 1)
    return np.stack([np.interp(position, np.arange(len(HEAT)), c) for c in HEAT.T], axis=-1).round().astype(np.uint8)


def _round_up(value: float) -> float:
    """Round up to 1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8 or 10 times a power of ten, whose fifths are easy to read.

    Examples
    --------
    >>> _round_up(10.7), _round_up(0.9), _round_up(0.0)
    (12.0, 1.0, 1.0)
    """
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(m * power for m in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if m * power >= value)


def _fitted(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """Shorten a caption that is wider than its panel."""
    while text and font.getlength(text) > width:
        text = text[:-2].rstrip(" .…") + "…" if len(text) > 2 else ""
    return text
