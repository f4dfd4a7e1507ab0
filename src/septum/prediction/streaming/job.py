"""Streamed prediction of one image: from file to OME-Zarr, in steps that any process can do, and repeat."""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from septum.core.normalize import Normalization, NormalizedSource, measure_normalization
from septum.core.region import Region, relative_to, shape_of
from septum.core.tiling import Source, Tile, tiles
from septum.core.unet import UNet
from septum.data.files import write_text
from septum.data.images import ImageFile, fit_channels, open_image
from septum.data.sinks import ZarrOutput, ZarrSink, create_zarr, quantize
from septum.errors import ImageError
from septum.machine.queues import Behind
from septum.model.model import Model, load_for_prediction
from septum.model.predict import convert_to_fastest_order, fit_to_image, in_fastest_order, predict_tile
from septum.model.tensors import read_tensors, write_tensors
from septum.prediction.streaming.decode_blocks import BlockDecoding, finish_step
from septum.prediction.streaming.plan import StreamPlan, read_plan

PLAN = "plan.json"


@dataclass(frozen=True)
class Inputs:
    """What a streamed prediction works on; each process opens it once."""

    model: Model
    image: ImageFile
    mask: Source | None = None  # (1, Y, X), non-zero where objects are wanted; the same for all frames


@dataclass(frozen=True)
class Step:
    """A step of one frame: `count` pieces in any order; the next step needs all of them."""

    name: str
    frame: int
    count: int


class Job:
    """A planned prediction; its folder has the plan and what one step leaves for the next.

    Parameters
    ----------
    folder : path
        ``OUTPUT/NAME_work``; the results are written beside it.
    inputs : Inputs, optional
        By default opened by the paths in the plan.
    """

    def __init__(self, folder: Path, inputs: Inputs | None = None) -> None:
        self.folder = folder
        self.plan: StreamPlan = read_plan(folder / PLAN)
        self.name = folder.name.removesuffix("_work")
        inputs = inputs or open_inputs(self.plan)
        self.model, self.image, self.mask = inputs.model, inputs.image, inputs.mask

    @cached_property
    def probabilities(self) -> ZarrOutput:
        return self._output("probabilities", "probabilities", self.model.net.config.n_classes, self.folder.parent)

    @cached_property
    def labels(self) -> ZarrOutput:
        kind = "classes" if self.model.card.kind == "classes" else "labels"
        return self._output(kind, "labels", 1, self.folder.parent)

    @property
    def outputs(self) -> tuple[ZarrOutput, ZarrOutput]:
        return self.labels, self.probabilities

    def steps(self) -> Iterator[Step]:
        """Yield all steps in order."""
        for frame in range(self.plan.frames):
            yield Step("statistics", frame, 1)
            yield Step("tiles", frame, self.plan.tiles)
            blocks = self.decoding(frame)
            for name, _ in blocks.steps:
                yield Step(name, frame, blocks.count)

    def missing(self, step: Step) -> list[int]:
        """Return the pieces of a step that are not done."""
        return [piece for piece in range(step.count) if not self._is_done(step, piece)]

    def run(self, step: Step, piece: int) -> None:
        """Do one piece of a step."""
        if step.name == "statistics":
            self.measure(step.frame)
        elif step.name == "tiles":
            for _ in self.predict(step.frame, [piece]):
                pass
        else:
            dict(self.decoding(step.frame).steps)[step.name](piece)

    def finish(self, step: Step) -> int:
        """Combine the results of all pieces of a step; returns the number of objects once it is known."""
        return 0 if step.name in ("statistics", "tiles") else finish_step(self.decoding(step.frame), step.name)

    def measure(self, frame: int) -> None:
        """Measure the normalisation of a frame, and the statistics of the network's layers if it needs them."""
        source = fit_channels(self.image.frames[frame], self.model.card.channels)
        if self.plan.request.statistics == "model":
            assert self.model.card.brightness is not None  # checked by `plan_stream`
            normalization = self.model.card.brightness
        else:
            normalization = measure_normalization(
                source, self.model.card.config.normalize, self.mask, name=source.frame.name
            )
        if self.model.net.config.normalization != "none":
            net = fit_to_image(self.model.net, NormalizedSource(source, normalization))
            write_tensors(self._network(frame), net.state_dict(), {})
        write_text(self._statistics(frame), json.dumps(asdict(normalization)) + "\n")

    def normalization(self, frame: int) -> Normalization:
        """Return the normalisation of a frame, once it is measured."""
        values = json.loads(self._statistics(frame).read_text(encoding="utf-8"))
        return Normalization(tuple(values["offset"]), tuple(values["scale"]))

    def source(self, frame: int) -> NormalizedSource:
        """Return a frame, normalised."""
        source = fit_channels(self.image.frames[frame], self.model.card.channels)
        return NormalizedSource(source, self.normalization(frame))

    def network(self, frame: int) -> UNet:
        """Return the network for a frame, without normalisation layers."""
        net = self.model.net
        if net.config.normalization != "none":
            tensors, _ = read_tensors(self._network(frame))
            weight = net.output.weight
            net = UNet(net.config.with_changes({"normalization": "none"})).to(weight.device, weight.dtype).eval()
            net.load_state_dict(tensors)
            return convert_to_fastest_order(net)
        return in_fastest_order(net)

    def tiles(self) -> list[Tile]:
        depth = self.model.net.config.depth
        return list(tiles(self.plan.shape, self.plan.stride, depth, self.plan.origin))

    def predict(self, frame: int, pieces: Sequence[int]) -> Iterator[int]:
        """Predict tiles while a thread writes the rows before; yields numbers of pixels as they are done."""
        net, source, sink = self.network(frame), self.source(frame), self.probabilities.frames[frame]
        planned = self.tiles()
        writer = Behind(_InChunks(sink).write)
        try:
            for piece in pieces:
                tile = planned[piece]
                for region, probabilities in self._predict_tile(net, source, tile):
                    writer.put(tile, region, quantize(probabilities, sink.dtype))
                    yield probabilities[0].size
        finally:
            writer.close()

    def _predict_tile(self, net: UNet, source: Source, tile: Tile) -> Iterator[tuple[Region, np.ndarray]]:
        if self.mask is None:
            yield from predict_tile(net, source, tile, self.plan.rows, self.plan.request.tta)
            return
        inside = self.mask.read(tile.place(net.config.depth))[0] != 0
        background = np.eye(net.config.n_classes, dtype=np.float32)[0][:, None, None]
        if not inside.any():
            yield tile.write, np.broadcast_to(background, (len(background), *inside.shape)).copy()
            return
        for region, probabilities in predict_tile(net, source, tile, self.plan.rows, self.plan.request.tta):
            yield region, np.where(inside[relative_to(region, tile.write)], probabilities, background)

    def decoding(self, frame: int) -> BlockDecoding:
        """Return the decoding of a frame into labels."""
        config = self.model.card.config
        classes = self.model.card.kind == "classes"
        return BlockDecoding(
            target=config.target,
            decoding=config.decoding,
            size=self.plan.block,
            probabilities=self.probabilities.frames[frame],
            labels=self.labels.frames[frame],
            components=None if classes else self._between("components").frames[frame],
            objects=None if classes else self._between("objects").frames[frame],
            folder=self.folder / f"frame{frame}",
            image=fit_channels(self.image.frames[frame], self.model.card.channels),
            origin=self.plan.origin,
        )

    def _is_done(self, step: Step, piece: int) -> bool:
        if step.name == "statistics":
            return self._statistics(step.frame).exists()
        if step.name == "tiles":
            return self.probabilities.frames[step.frame].is_done(self.tiles()[piece].write)
        return self.decoding(step.frame).is_done(step.name, piece)

    def _output(self, kind: str, name: str, channels: int, folder: Path) -> ZarrOutput:
        return create_zarr(
            folder / f"{self.name}_{name}.ome.zarr",
            kind=kind,  # type: ignore[arg-type]
            shape=(channels, *self.plan.shape),
            chunk=(self.plan.chunk, self.plan.chunk),
            dtype=self.plan.request.probabilities if kind == "probabilities" else None,
            grid=self.image.grid,
            pixel_size=self.image.pixel_size,
            origin=self.plan.origin,
        )

    def _between(self, name: str) -> ZarrOutput:
        if name not in self._opened:
            self._opened[name] = self._output("labels", name, 1, self.folder)
        return self._opened[name]

    @cached_property
    def _opened(self) -> dict[str, ZarrOutput]:
        return {}

    def _statistics(self, frame: int) -> Path:
        return self.folder / f"normalization{frame}.json"

    def _network(self, frame: int) -> Path:
        return self.folder / f"network{frame}.safetensors"


def has_finished_piece(folder: Path) -> bool:
    """Whether the first piece of a prediction is done; until then its plan may be replaced."""
    return any(folder.glob("normalization*.json"))


class _InChunks:
    """Collects the rows of a tile and writes them in whole chunks."""

    def __init__(self, sink: ZarrSink) -> None:
        self.sink = sink
        self.rows: list[np.ndarray] = []

    def write(self, tile: Tile, region: Region, values: np.ndarray) -> None:
        self.rows.append(values)
        stop = region[0].stop
        top = stop - sum(part.shape[1] for part in self.rows)
        whole = stop if stop == tile.write[0].stop else stop // self.sink.chunk[0] * self.sink.chunk[0]
        if whole <= top:
            return
        gathered = np.concatenate(self.rows, axis=1)
        self.sink.write((slice(top, whole), region[1]), gathered[:, : whole - top])
        self.rows = [gathered[:, whole - top :]] if whole < stop else []


def run_here(job: Job) -> Generator[tuple[Step, int, int], None, int]:
    """Do all missing pieces in this process; yields (step, done, total), where tiles are counted in pixels.

    Returns the number of objects.
    """
    objects = 0
    for step in job.steps():
        missing = job.missing(step)
        if step.name == "tiles":
            planned = job.tiles()
            total = job.plan.shape[0] * job.plan.shape[1]
            left = sum(math.prod(shape_of(planned[piece].write)) for piece in missing)
            done = total - left
            for pixels in job.predict(step.frame, missing):
                done += pixels
                yield step, done, total
        else:
            for number, piece in enumerate(missing, start=step.count - len(missing) + 1):
                job.run(step, piece)
                yield step, number, step.count
        objects += job.finish(step)
    return objects


def open_inputs(plan: StreamPlan) -> Inputs:
    """Open model, image and mask of a plan."""
    request = plan.request
    image = open_image(plan.image_path, channel=request.channel, level=request.level)
    mask = None if plan.mask_path is None else open_mask(Path(plan.mask_path), image)
    return Inputs(load_for_prediction(plan.model_path, request.device), image, mask)


def open_mask(path: Path, image: ImageFile) -> Source:
    """Open the mask of an image: of the same size, non-zero where objects are wanted."""
    frame = open_image(path).frames[0]
    if frame.shape[0] != 1 or frame.shape[1:] != image.frames[0].shape[1:]:
        wanted = " x ".join(map(str, image.frames[0].shape[1:]))
        got = " x ".join(map(str, frame.shape[1:]))
        raise ImageError(
            f"the mask {path} is {got} with {frame.shape[0]} channels, but the image is {wanted}; "
            "give a mask of that size with one channel"
        )
    return frame
