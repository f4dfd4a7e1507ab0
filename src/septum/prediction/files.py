"""From image files to result files: labels, probabilities, overlays, objects.csv; skips images already done."""

from __future__ import annotations

import csv
import io
import json
from collections import deque
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import nullcontext
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from septum.choices import Kind
from septum.config import TtaConfig
from septum.core.layout import TooLittleMemory, plan_layout
from septum.core.objects import Row, measure_objects
from septum.core.overlay import overlay
from septum.core.tiling import ArraySource
from septum.data.files import write_text
from septum.data.images import (
    Frame,
    ImageFile,
    as_channels,
    is_grey,
    open_image,
    write_labels,
    write_png,
    write_probabilities,
)
from septum.data.labels import read_labels
from septum.data.names import (
    IMAGE_SUFFIXES,
    is_folder,
    is_image,
    is_visible,
    key_of,
    natural_order,
    stem_of,
    visible_entries,
)
from septum.errors import ConfigError, ImageError
from septum.machine.generators import mapped
from septum.machine.memory import DEFAULT_MEMORY, limited_allocator_cache, resident
from septum.model.model import Model
from septum.model.predict import PixelsDone, Prediction, segment
from septum.prediction.records import FileDone, FileRecord, FileStarted, FrameProgress, StreamRecord
from septum.prediction.streaming.decide import (
    PlannedStream,
    StreamOptions,
    is_streamed_before,
    needs_streaming,
    network_speed,
    plan_stream,
    too_little,
)
from septum.prediction.streaming.files import stream_file
from septum.prediction.streaming.plan import fingerprint_image

PIXEL_SIZE_RATIO = 1.2  # of image and model, above which a warning is given
JOURNAL = "predictions.json"  # of every image: model, settings and result files
TABLE = "objects.csv"
ObjectRows = dict[str, list[Row]]  # by the stem of the image


def list_inputs(inputs: Sequence[str | Path]) -> list[Path]:
    """Expand files, folders and globs to image files, each once; those of a folder or glob in natural order.

    Raises
    ------
    ImageError
        If an input matches no image, or two images would write the same results.
    """
    found: list[Path] = []
    for given in map(Path, inputs):
        if is_folder(given):
            files = [path for path in visible_entries(given) if is_image(path)]
            if not files:
                suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
                raise ImageError(f"the folder {given} contains no image; Septum reads {suffixes} and OME-Zarr")
        elif any(mark in str(given) for mark in "*?[") and not given.exists():
            matches = Path(given.anchor or ".").glob(str(given.relative_to(given.anchor)))
            files = sorted(filter(is_visible, matches), key=natural_order)
            if not files:
                raise ImageError(f"no file matches {given}")
        else:
            files = [given]
        found += [path for path in files if path not in found]
    first: dict[str, Path] = {}
    for path in found:
        other = first.setdefault(key_of(path), path)
        if other != path:
            raise ImageError(
                f"{other} and {path} would write results with the same names; use a separate --output for each"
            )
    return found


def predict_files(
    model: Model,
    paths: Sequence[Path],
    output: Path,
    *,
    tta: TtaConfig | None = None,
    rescale: bool = False,
    channel: int | None = None,
    max_memory: int = DEFAULT_MEMORY,
    stream: StreamOptions | None = None,
) -> Generator[FileRecord | StreamRecord, None, None]:
    """Segment image files one by one into a folder; skips images already done with the same model and settings.

    How each image is predicted is decided before the first one: in memory, or streamed if that would take more than
    half of the memory. With `stream`, all are streamed with these options. `max_memory` is the total over all
    processes. An image that was started or finished either way before stays with it.

    Raises
    ------
    ModelError
        If the model is not loaded from a file.
    ConfigError, ImageError, OutputError
        If the memory is too small, or an image, a setting or an earlier result does not fit.
    """
    options = stream or StreamOptions(tta=tta, channel=channel)
    fingerprint = cache(fingerprint_image)
    settings = {"tta": tta.model_dump() if tta else None, "rescale": rescale, "channel": channel}
    folder = _Folder(output, {"model": model.saved().sha256, "settings": settings}, fingerprint)

    def is_streamed(image: ImageFile) -> bool:
        if stream is not None or is_streamed_before(image.path, output):
            return True
        return needs_streaming(image, model.net.config.n_classes, max_memory) and not folder.is_done(image.path)

    images = [open_image(path, channel=channel, level=options.level) for path in paths]
    streamed = [is_streamed(image) for image in images]
    if rescale and any(streamed):
        raise ConfigError(
            f"--rescale is for images in memory, but {paths[streamed.index(True)]} is streamed; "
            "leave --rescale out and choose the nearest --level"
        )
    with limited_allocator_cache() if any(streamed) else nullcontext():
        speed = network_speed(model.net) if any(streamed) else 0.0

        def decide(image: ImageFile, is_large: bool) -> ImageFile | PlannedStream:
            if is_large:
                return plan_stream(model, image, options, max_memory=max_memory, speed=speed, fingerprint=fingerprint)
            _check_memory(image, model, tta, max_memory)
            return image

        tasks = deque(map(decide, images, streamed))  # errors come before the first image is predicted
        del images
        try:
            while tasks:
                task = tasks.popleft()  # and what its file keeps in memory ends with it
                if isinstance(task, ImageFile):
                    yield from _predict_in_memory(model, task, folder, tta, rescale, max_memory)
                else:
                    _, notes = compare_pixel_sizes(
                        task.inputs.image, model.card.pixel_size, rescale, fix="another --level may fit better"
                    )
                    yield from stream_file(task, output, notes)
        finally:  # also if an image cannot be read, or the user stops it
            folder.write_table()


def _check_memory(image: ImageFile, model: Model, tta: TtaConfig | None, max_memory: int) -> None:
    try:
        plan_layout(image.frames[0].shape[1:], model.net.config, max_memory - resident(), tta=tta)
    except TooLittleMemory as error:
        raise too_little(max_memory, error.missing) from None


def _predict_in_memory(
    model: Model, image: ImageFile, folder: _Folder, tta: TtaConfig | None, rescale: bool, max_memory: int
) -> Generator[FileRecord, None, None]:
    path, stem, pixel_size = image.path, stem_of(image.path), image.pixel_size
    if folder.is_done(path):
        outputs = folder.outputs(stem)
        folder.list_again(stem, _rows_again(image, folder.path, model))
        yield FileDone(path, outputs, folder.journal[stem]["objects"], skipped=True)
        return
    zoom, notes = compare_pixel_sizes(image, model.card.pixel_size, rescale)
    frames = [_read(frame, model.card.channels) for frame in image.frames]
    folder.forget(stem)
    yield FileStarted(path, len(frames), (image.description, *notes))
    predictions: list[Prediction] = []
    for number, pixels in enumerate(frames):
        steps = segment(
            model.net,
            model.card.config,
            ArraySource(pixels),
            tta=tta,
            max_memory=max(max_memory - resident(), DEFAULT_MEMORY // 4),
            zoom=zoom,
        )
        predictions.append((yield from mapped(steps, partial(_progress, number))))
    outputs = _write(folder.path, stem, frames, predictions, pixel_size, model.card.kind)
    rows = _rows(path, frames, [prediction.labels for prediction in predictions], pixel_size, model)
    folder.add(path, outputs, rows)
    yield FileDone(path, outputs, len(rows), skipped=False)


def _progress(frame: int, pixels: PixelsDone) -> FrameProgress:
    return FrameProgress(frame, pixels.done, pixels.total)


class _Folder:
    """The results in memory of an output folder: the journal of its images, and the table of their objects.

    Parameters
    ----------
    path : Path
        The folder.
    key : dict
        Model and settings of this run, which decide the results together with the image.
    fingerprint : callable
        From the path of an image to its hash.
    """

    def __init__(self, path: Path, key: dict[str, Any], fingerprint: Callable[[Path], str]) -> None:
        self.path, self.key, self.fingerprint = path, key, fingerprint
        self.journal = _read_journal(path / JOURNAL)
        self.rows = _read_rows(path / TABLE, self.journal)

    def is_done(self, image: Path) -> bool:
        """Whether all results of an image are there, with this model and these settings."""
        entry = self.journal.get(stem_of(image))
        return (
            entry is not None
            and all(file.exists() for file in self.outputs(stem_of(image)))
            and entry["key"] == self._key_of(image)
        )

    def outputs(self, stem: str) -> tuple[Path, ...]:
        return tuple(self.path / name for name in self.journal[stem]["outputs"])

    def forget(self, stem: str) -> None:
        """Remove the older results of an image, so that what is there is always from one run."""
        older = self.journal.pop(stem, {"outputs": []})
        self._write_journal()  # if this fails, nothing is lost
        if self.rows.pop(stem, None) is not None:
            write_text(self.path / TABLE, _csv(self.rows))
        for name in older["outputs"]:
            (self.path / name).unlink(missing_ok=True)

    def list_again(self, stem: str, rows: list[Row]) -> None:
        """Put the rows of an image at the end of the table."""
        self.rows.pop(stem, None)
        self.rows[stem] = rows

    def add(self, image: Path, outputs: Sequence[Path], rows: list[Row]) -> None:
        """Record the results of an image."""
        self.rows[stem_of(image)] = rows
        self.journal[stem_of(image)] = {
            "key": self._key_of(image),
            "outputs": [file.name for file in outputs],
            "objects": len(rows),
            "image": str(image.absolute()),
        }
        self._write_journal()

    def write_table(self) -> None:
        if self.rows:
            write_text(self.path / TABLE, _csv(self.rows))

    def _key_of(self, image: Path) -> dict[str, Any]:
        return self.key | {"input": self.fingerprint(image)}

    def _write_journal(self) -> None:
        write_text(self.path / JOURNAL, json.dumps(self.journal, indent=1) + "\n")


def compare_pixel_sizes(
    image: ImageFile, wanted: tuple[float, float] | None, rescale: bool, fix: str = "use --rescale to resample"
) -> tuple[tuple[float, float] | None, list[str]]:
    """Return the zoom to the model's pixel size (None: do not resample) and warnings, with a fix."""
    if wanted is None or image.pixel_size is None:
        if rescale:
            missing = "the model" if wanted is None else image.path.name
            raise ImageError(f"--rescale needs pixel sizes, but {missing} has none; leave --rescale out")
        return None, []
    zoom = (image.pixel_size[0] / wanted[0], image.pixel_size[1] / wanted[1])
    if all(1 / PIXEL_SIZE_RATIO <= factor <= PIXEL_SIZE_RATIO for factor in zoom):
        return None, []
    sizes = f"{image.pixel_size[0]:.4g} micrometre per pixel, the model was trained at {wanted[0]:.4g}"
    if rescale:
        return zoom, [
            f"{image.path.name}: {sizes}; resampled by {zoom[0]:.3g} for the network, results on the original grid"
        ]
    return None, [f"{image.path.name}: {sizes}; results may be poor; {fix}"]


def _read(frame: Frame, channels: int) -> np.ndarray:
    pixels = frame.read()
    if channels == 1 < len(pixels) and not is_grey(pixels):
        raise ImageError(
            f"{frame.name} has {len(pixels)} channels, but the model was trained on 1; "
            f"choose one with --channel 0..{len(pixels) - 1}"
        )
    return as_channels(pixels, channels, frame.name)


def _write(
    output: Path,
    stem: str,
    frames: list[np.ndarray],
    predictions: list[Prediction],
    pixel_size: tuple[float, float] | None,
    kind: Kind,
) -> tuple[Path, ...]:
    """Write all results of one image; a single frame without a leading axis."""
    single = len(frames) == 1
    labels = np.stack([prediction.labels for prediction in predictions])
    probabilities = np.stack([prediction.probabilities for prediction in predictions])
    label_file = output / f"{stem}_labels.tif"
    probability_file = output / f"{stem}_probabilities.tif"
    write_labels(label_file, labels[0] if single else labels, pixel_size)
    write_probabilities(probability_file, probabilities[0] if single else probabilities, pixel_size)
    outputs = [label_file, probability_file]
    for number, (pixels, prediction) in enumerate(zip(frames, predictions, strict=True)):
        picture = output / (f"{stem}_overlay.png" if single else f"{stem}_overlay_{number:04d}.png")
        write_png(picture, overlay(pixels, prediction.labels, kind=kind))
        outputs.append(picture)
    return tuple(outputs)


def _rows(
    path: Path,
    frames: list[np.ndarray],
    labels: Sequence[np.ndarray],
    pixel_size: tuple[float, float] | None,
    model: Model,
) -> list[Row]:
    names = model.card.class_names if model.card.kind == "classes" else ()
    rows: list[Row] = []
    for number, (pixels, one) in enumerate(zip(frames, labels, strict=True)):
        head: Row = {"image": path.name, "frame": number}
        rows += [head | row for row in measure_objects(one, pixels, pixel_size, names)]
    return rows


def _rows_again(image: ImageFile, output: Path, model: Model) -> list[Row]:
    """Measure the objects of an image whose results are from an earlier run."""
    labels = read_labels(output / f"{stem_of(image.path)}_labels.tif").frames
    frames = [_read(frame, model.card.channels) for frame in image.frames]
    return _rows(image.path, frames, labels, image.pixel_size, model)


def _read_rows(path: Path, stems: Collection[str]) -> ObjectRows:
    """Return the rows of earlier runs for the images of these stems."""
    table: ObjectRows = {}
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                stem = stem_of(Path(row.get("image") or ""))
                if stem in stems:
                    table.setdefault(stem, []).append(dict(row))
    return table


def _csv(table: ObjectRows) -> str:
    rows = [row for of_image in table.values() for row in of_image]
    columns = list(dict.fromkeys(["image", "frame", "object", *(name for row in rows for name in row)]))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _read_journal(path: Path) -> dict[str, Any]:
    """Return the entries by the stem of their image; none if the file is missing or damaged."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {stem: entry for stem, entry in entries.items() if {"key", "outputs", "objects"} <= entry.keys()}
    except (OSError, ValueError, AttributeError):
        return {}
