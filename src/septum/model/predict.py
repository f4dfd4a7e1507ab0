"""The overlap-tile strategy: tiles from a source to a sink, averaged over rotations, decoded to labels."""

from __future__ import annotations

import copy
import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from skimage.transform import resize
from torch import nn

from septum.config import TrainConfig, TtaConfig
from septum.core.bands import logits_in_bands
from septum.core.decode import decode
from septum.core.layout import plan_layout
from septum.core.normalize import NormalizedSource, measure_normalization
from septum.core.region import Region, origin_of, shape_of, whole
from septum.core.tiling import ArraySink, ArraySource, Source, Tile, measured_tiles, read_mirrored, tiles
from septum.core.tta import versions
from septum.core.unet import UNet, freeze
from septum.machine.device import fastest_order
from septum.machine.memory import DEFAULT_MEMORY
from septum.machine.queues import ahead

ONE_PASS_PIXELS = 64  # tiles up to this size pass through the network at once, not in bands


@dataclass(frozen=True)
class PixelsDone:
    """How many pixels of the result are done."""

    done: int
    total: int


@dataclass(frozen=True)
class Prediction:
    """The result for one image: (Y, X) labels, and (K, Y, X) probabilities of the classes."""

    labels: np.ndarray
    probabilities: np.ndarray


def predict_logits(net: UNet, source: Source, tile: Tile, rows: int) -> Iterator[tuple[Region, np.ndarray]]:
    """Run the network over a tile of a source, `rows` at a time; yields regions to write and their (K, y, x) logits."""
    weight = net.output.weight
    top, bottom = tile.read[0].start, tile.read[0].stop
    # all logits of a tiny image may nearly cancel, so that the order of summation shows: sum as one pass does
    one_pass = math.prod(shape_of(tile.write)) <= ONE_PASS_PIXELS
    if one_pass:
        rows = bottom - top

    def read() -> Iterator[torch.Tensor]:
        for start in range(top, bottom, rows):
            pixels = read_mirrored(source, (slice(start, min(start + rows, bottom)), tile.read[1]))
            yield torch.from_numpy(np.ascontiguousarray(pixels))[None].to(weight.dtype)

    bands = (pixels.to(weight.device) for pixels in ahead(read()))
    flow = map(net, bands) if one_pass else logits_in_bands(net, bands, max(1, rows // 2**net.config.depth))
    place, row = tile.crop[0], 0  # which of the network's output rows to keep, and where it is
    while row < place.stop:
        with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
            logits = next(flow)  # (1, K, rows, x)
        kept = slice(max(place.start - row, 0), min(place.stop - row, logits.shape[2]))
        if kept.start < kept.stop:
            first = tile.write[0].start + row + kept.start - place.start
            region = slice(first, first + kept.stop - kept.start), tile.write[1]
            yield region, logits[0, :, kept, tile.crop[1]].cpu().numpy()
        row += logits.shape[2]


def predict_tile(
    net: UNet, source: Source, tile: Tile, rows: int, tta: TtaConfig | None = None
) -> Iterator[tuple[Region, np.ndarray]]:
    """Probabilities of a tile, averaged over versions of the image; yields regions to write, (K, y, x) float32."""
    if tta is None:
        for region, logits in predict_logits(net, source, tile, rows):
            yield region, softmax(logits)
        return
    place = tile.place(net.config.depth)
    turned = list(versions(tta, (source.shape[1], source.shape[2])))
    mean = np.zeros((net.config.n_classes, *shape_of(place)), np.float64)
    for version in turned:
        needed = version.needs(place)
        logits = predict_region(net, version.view(source), needed, rows)
        mean += version.back(softmax(logits) if tta.average == "probabilities" else logits, place) / len(turned)
    averaged = mean.astype(np.float32)
    yield tile.write, averaged if tta.average == "probabilities" else softmax(averaged)


def predict_region(net: UNet, source: Source, region: Region, rows: int) -> np.ndarray:
    """(K, y, x) logits of a region of an image, as one tile."""
    shape = shape_of(region)
    step = 2**net.config.depth
    stride = [math.ceil(size / step) * step for size in shape]
    (tile,) = tiles(shape, stride, net.config.depth, origin=origin_of(region))
    sink = ArraySink((net.config.n_classes, *shape), to_numpy(net))
    for part, logits in predict_logits(net, source, tile, rows):
        sink.write(part, logits)
    return sink.array


def to_numpy(net: UNet) -> type:
    """Return the NumPy type of the network's weights."""
    return np.float64 if net.output.weight.dtype == torch.float64 else np.float32


def convert_to_fastest_order(net: UNet) -> UNet:
    """Convert the weights of a network of our own, in place, to the order of memory that predictions are fastest in."""
    order = fastest_order(net.output.weight.device)
    return cast(UNet, net.to(memory_format=order))  # type: ignore[call-overload]


def in_fastest_order(net: UNet) -> UNet:
    """Return the same network in that order, and leave `net` as it is: weights that already are in it are shared."""
    shared = {id(weight): nn.Parameter(weight.detach(), requires_grad=False) for weight in net.parameters()}
    return convert_to_fastest_order(copy.deepcopy(net, shared))


def segment(
    net: UNet,
    config: TrainConfig,
    source: Source,
    *,
    tta: TtaConfig | None = None,
    max_memory: int = DEFAULT_MEMORY,
    zoom: tuple[float, float] | None = None,
) -> Generator[PixelsDone, None, Prediction]:
    """Segment one image; yields progress, returns the Prediction.

    Parameters
    ----------
    net : UNet
        In evaluation mode, on the device that does the work.
    config : TrainConfig
        Of the model: how the image is normalised and how probabilities become labels.
    source : Source
        The image with raw values, (C, Y, X).
    tta : TtaConfig, optional
        Average over rotated or mirrored versions.
    max_memory : int
        Bytes that the prediction may take in addition to image and result.
    zoom : (float, float), optional
        Resample the image by these factors (y, x) for the network, and the probabilities back.
    """
    pixels = source.read(whole(source.shape[1:]))
    normalization = measure_normalization(pixels, config.normalize)
    image: Source = NormalizedSource(source, normalization)
    if zoom is not None:
        shape = [max(1, round(size * factor)) for size, factor in zip(pixels.shape[1:], zoom, strict=True)]
        image = ArraySource(resample(normalization(pixels), shape))
    net = fit_to_image(net, image)
    probabilities = yield from predict_probabilities(net, image, tta=tta, max_memory=max_memory)
    if zoom is not None:
        probabilities = resample(probabilities, pixels.shape[1:])
    return Prediction(decode(config.target, probabilities, config.decoding), probabilities)


def fit_to_image(net: UNet, source: Source) -> UNet:
    """Return the network for one normalised image: its layers' statistics are measured on fixed tiles and frozen."""
    if net.config.normalization == "none":
        return net
    regions = measured_tiles(source.shape[1:], net.config.depth)
    tiles = torch.from_numpy(np.stack([read_mirrored(source, region) for region in regions]))
    weight = net.output.weight
    return convert_to_fastest_order(freeze(net, tiles.to(weight.device, weight.dtype)))


def predict_probabilities(
    net: UNet, source: Source, *, tta: TtaConfig | None = None, max_memory: int = DEFAULT_MEMORY
) -> Generator[PixelsDone, None, np.ndarray]:
    """Class probabilities (K, Y, X), float32, of a normalised source; yields progress."""
    shape = source.shape[1:]
    layout = plan_layout(shape, net.config, max_memory, tta=tta)
    net = in_fastest_order(net)
    sink = ArraySink((net.config.n_classes, *shape))
    done = 0
    for tile in tiles(shape, layout.stride, net.config.depth):
        for region, probabilities in predict_tile(net, source, tile, layout.rows, tta):
            sink.write(region, probabilities)
            done += math.prod(probabilities.shape[1:])
            yield PixelsDone(done, math.prod(shape))
    return sink.array


def softmax(logits: np.ndarray) -> np.ndarray:
    """Pixel-wise softmax of (K, Y, X)."""
    result: np.ndarray = torch.softmax(torch.from_numpy(logits), dim=0).numpy()
    return result


def resample(image: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Resample (C, Y, X) to (C, *shape): bilinear, smoothed first if it gets smaller."""
    result: np.ndarray = resize(image, (len(image), *shape), order=1, mode="reflect", anti_aliasing=True)
    return result.astype(np.float32)
