"""The certificate: random regions of a streamed result, recomputed in one pass over each and its surroundings."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from septum.config import TtaConfig
from septum.core.decode import decode, reach
from septum.core.layout import aligned
from septum.core.region import Region, clip, expand, origin_of, relative_to, shape_of, shift, whole
from septum.core.tiling import Source, read_mirrored
from septum.core.tta import versions
from septum.core.unet import UNet, input_size, margin
from septum.data.sinks import quantize
from septum.model.predict import softmax
from septum.prediction.records import Certificate
from septum.prediction.streaming.decode_blocks import as_probabilities
from septum.prediction.streaming.job import Job

SIDE = 128  # pixels of a region
CONTEXT = 64  # pixels around it, in addition to what decoding needs


def certify(job: Job, count: int, seed: int = 0) -> Iterator[Certificate]:
    """Recompute random regions of a result by the plain forward pass of the network."""
    rng = np.random.default_rng(seed)
    config = job.model.card.config
    around = CONTEXT + (0 if config.target == "classes" else reach(config.target, config.decoding))
    for _ in range(count):
        frame = int(rng.integers(job.plan.frames))
        starts = [int(rng.integers(max(1, size - SIDE + 1))) for size in job.plan.shape]
        region = clip(shift(whole([SIDE] * len(starts)), starts), job.plan.shape)
        wider = clip(expand(region, around), job.plan.shape)
        place = shift(wider, job.plan.origin)
        found = one_pass(job.network(frame), job.source(frame), place, job.plan.request.tta)
        if job.mask is not None:
            background = np.eye(len(found), dtype=np.float32)[0][:, None, None]
            found = np.where(job.mask.read(place)[0] != 0, found, background)
        inner = relative_to(region, wider)
        sink = job.probabilities.frames[frame]
        stored = as_probabilities(sink.read(region))
        labels = decode(
            config.target,
            as_probabilities(quantize(found, sink.dtype)),
            config.decoding.with_changes({"smallest_object": 0}),
        )
        streamed = job.labels.frames[frame].read(wider)[0]
        if config.target != "classes":
            cut = [(part.start > 0, part.stop < size) for part, size in zip(wider, job.plan.shape, strict=True)]
            differing = _differing(labels, streamed, inner, config.decoding.smallest_object, cut)
        else:
            differing = int((labels != streamed)[inner].sum())
        yield Certificate(
            frame,
            region,
            float(np.abs(found[(slice(None), *inner)] - stored).max()),
            1 / 510 if sink.dtype == np.uint8 else 2.0**-12,
            differing,
        )


def one_pass(net: UNet, source: Source, region: Region, tta: TtaConfig | None) -> np.ndarray:
    """Class probabilities of a region of an image, by one forward pass per version of the image."""
    total: np.ndarray | float = 0.0
    turned = list(versions(tta, (source.shape[1], source.shape[2])))
    of_logits = tta is not None and tta.average == "logits"
    for version in turned:
        logits = _forward(net, version.view(source), version.needs(region))
        total = total + version.back(logits if of_logits else softmax(logits), region) / len(turned)
    mean = np.asarray(total, np.float32)
    return softmax(mean) if of_logits else mean


def _forward(net: UNet, source: Source, region: Region) -> np.ndarray:
    depth = net.config.depth
    outer = aligned(region, depth)
    sizes = [input_size(size, depth) for size in shape_of(outer)]
    read = shift(whole(sizes), [start - margin(depth) for start in origin_of(outer)])
    weight = net.output.weight
    pixels = torch.from_numpy(np.ascontiguousarray(read_mirrored(source, read)))[None].to(weight.device, weight.dtype)
    with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
        logits = net(pixels)[0].cpu().numpy()
    result: np.ndarray = logits[(slice(None), *relative_to(region, outer))]
    return result


def _differing(
    here: np.ndarray, streamed: np.ndarray, inner: Region, smallest: int, cut: list[tuple[bool, bool]]
) -> int:
    """Count the pixels of a region whose streamed label differs from that of most pixels of their object `here`.

    An object that is cut by an edge of the surroundings may be larger than it looks, so it does not count as debris.
    """
    (top, bottom), (left, right) = cut
    lines = [(top, here[0]), (bottom, here[-1]), (left, here[:, 0]), (right, here[:, -1])]
    debris = np.bincount(here.ravel()) < smallest
    for is_cut, line in lines:
        if is_cut:
            debris[line] = False
    here = np.where(debris[here], 0, here)[inner]
    streamed = streamed[inner]
    wrong = int(((here == 0) != (streamed == 0)).sum())
    for label in np.unique(here[here > 0]):
        _, counts = np.unique(streamed[(here == label) & (streamed > 0)], return_counts=True)
        wrong += int(counts.sum() - counts.max(initial=0))
    return wrong
