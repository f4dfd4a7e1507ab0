"""The overlap-tile strategy: from a source to a sink, averaged over rotations, decoded to labels."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from skimage.transform import resize

from septum.config import TrainConfig, TtaConfig
from septum.core.decode import decode
from septum.core.normalize import NormalizedSource, measure
from septum.core.tiling import (
    ArraySink,
    ArraySource,
    Sink,
    Source,
    Tile,
    measured_tiles,
    plan_stride,
    read_mirrored,
    tiles,
)
from septum.core.tta import versions
from septum.core.unet import UNet, freeze

DEFAULT_MEMORY = 2 * 10**9  # bytes for the activations of one tile


@dataclass(frozen=True)
class TilePlan:
    """The tiles of one image, and how many passes over them there will be."""

    tiles: Sequence[Tile]


@dataclass(frozen=True)
class TileDone:
    """One tile of one version is written."""

    done: int
    total: int


@dataclass(frozen=True)
class Prediction:
    """What the network sees in one image: (Y, X) labels, and (K, Y, X) probabilities of the classes."""

    labels: np.ndarray
    probabilities: np.ndarray


def plan_tiles(net: UNet, shape: Sequence[int], max_memory: int = DEFAULT_MEMORY) -> TilePlan:
    """Choose the tiles of an image of shape (Y, X) for a memory budget in bytes."""
    stride = plan_stride(shape, net.config, max_memory)
    return TilePlan(list(tiles(shape, stride, net.config.depth)))


def predict_logits(net: UNet, source: Source, sink: Sink, plan: TilePlan) -> Generator[Tile, None, None]:
    """Run the network over a (C, Y, X) source into a (K, Y, X) sink, tile by tile; yields each finished tile."""
    weight = net.output.weight
    for tile in plan.tiles:
        if sink.is_done(tile.write):
            continue
        pixels = torch.from_numpy(np.ascontiguousarray(read_mirrored(source, tile.read)))
        with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
            logits = net(pixels[None].to(weight.device, weight.dtype))  # (1, C, y + 2 m, x + 2 m) -> (1, K, y, x)
        sink.write(tile.write, logits[0].cpu().numpy()[(slice(None), *tile.crop)])
        yield tile


def segment(
    net: UNet,
    config: TrainConfig,
    source: Source,
    *,
    tta: TtaConfig | None = None,
    max_memory: int = DEFAULT_MEMORY,
    zoom: tuple[float, float] | None = None,
) -> Generator[TileDone, None, Prediction]:
    """Segment one image; yields progress, returns the Prediction.

    Parameters
    ----------
    net : UNet
        In evaluation mode, on the device that shall do the work.
    config : TrainConfig
        Of the model: says how the image is normalised and how probabilities become labels.
    source : Source
        The image as it is, (C, Y, X).
    tta : TtaConfig, optional
        Average over rotated or mirrored versions.
    max_memory : int
        Bytes that the activations of one tile may take.
    zoom : (float, float), optional
        Resample the image by these factors (y, x) for the network, and its probabilities back.
    """
    pixels = source.read(whole(source))
    normalization = measure(pixels, config.normalize)
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
    """Return the network for one normalised image: its layers' statistics measured once, on fixed tiles, and frozen."""
    if net.config.normalization == "none":
        return net
    regions = measured_tiles(source.shape[1:], net.config.depth)
    tiles = torch.from_numpy(np.stack([read_mirrored(source, region) for region in regions]))
    weight = net.output.weight
    return freeze(net, tiles.to(weight.device, weight.dtype))


def predict_probabilities(
    net: UNet, source: Source, *, tta: TtaConfig | None = None, max_memory: int = DEFAULT_MEMORY
) -> Generator[TileDone, None, np.ndarray]:
    """Class probabilities (K, Y, X), float32, of a normalised source; yields progress."""
    if tta is None:
        plan = plan_tiles(net, source.shape[1:], max_memory)
        logits = yield from _drain(net, source, plan, done=0, total=len(plan.tiles))
        return softmax(logits)
    pixels = source.read(whole(source))
    turned = list(versions(tta, pixels.shape[1:]))
    shapes = [version.there(pixels[:1]).shape[1:] for version in turned]
    plans = [plan_tiles(net, shape, max_memory) for shape in shapes]
    total, done = sum(len(plan.tiles) for plan in plans), 0
    mean = np.zeros((net.config.n_classes, *pixels.shape[1:]), np.float64)
    for version, plan in zip(turned, plans, strict=True):
        logits = yield from _drain(net, ArraySource(version.there(pixels)), plan, done, total)
        done += len(plan.tiles)
        mean += version.back(softmax(logits) if tta.average == "probabilities" else logits) / len(turned)
    averaged = mean.astype(np.float32)
    return averaged if tta.average == "probabilities" else softmax(averaged)


def _drain(net: UNet, source: Source, plan: TilePlan, done: int, total: int) -> Generator[TileDone, None, np.ndarray]:
    sink = ArraySink((net.config.n_classes, *source.shape[1:]))
    for number, _ in enumerate(predict_logits(net, source, sink, plan), start=1):
        yield TileDone(done + number, total)
    return sink.array


def softmax(logits: np.ndarray) -> np.ndarray:
    """Pixel-wise softmax of (K, Y, X)."""
    result: np.ndarray = torch.softmax(torch.from_numpy(logits), dim=0).numpy()
    return result


def resample(image: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Resample (C, Y, X) to (C, *shape): bilinear, smoothed first where it shrinks."""
    result: np.ndarray = resize(image, (len(image), *shape), order=1, mode="reflect", anti_aliasing=True)
    return result.astype(np.float32)


def whole(source: Source) -> tuple[slice, ...]:
    """Return the region that is all of a source."""
    return tuple(slice(0, size) for size in source.shape[1:])


def drain(steps: Generator[object, None, Prediction]) -> Prediction:
    """Run a generator to its end and return its result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Prediction = end.value
            return result
