"""From image files to result files: labels, probabilities, overlays, objects.csv; skips what is done."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

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
from septum.machine.memory import DEFAULT_MEMORY, resident
from septum.model.model import Model
from septum.model.predict import PixelsDone, Prediction, segment
from septum.prediction.records import FileDone, FileRecord, FileStarted, FrameProgress, StreamRecord
from septum.prediction.streaming.files import (
    StreamOptions,
    is_begun,
    make_plan,
    needs_streaming,
    stream_file,
    too_little,
)
from septum.prediction.streaming.plan import identity

PIXEL_SIZE_TOLERANCE = 1.2  # ratio beyond which the image's scale is said to differ from the model's
JOURNAL = "predictions.json"  # of every image: with what it was segmented, and into which files
TABLE = "objects.csv"
Table = dict[str, list[Row]]  # the objects of each image, by its stem


def list_inputs(inputs: Sequence[str | Path]) -> list[Path]:
    """Expand files, folders and globs to image files, each once; those of a folder or glob in natural order.

    Raises
    ------
    ImageError
        If a name leads to no image, or two images would write the same results.
    """
    found: list[Path] = []
    for given in map(Path, inputs):
        if is_folder(given):
            files = [path for path in visible_entries(given) if is_image(path)]
            if not files:
                suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
                raise ImageError(f"the folder {given} holds no image; Septum reads {suffixes} and OME-Zarr")
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
            raise ImageError(f"{other} and {path} would write the same results; predict them into two folders")
    return found


def predict_files(
    model: Model,
    model_hash: str,
    paths: Sequence[Path],
    output: Path,
    *,
    tta: TtaConfig | None = None,
    rescale: bool = False,
    channel: int | None = None,
    max_memory: int = DEFAULT_MEMORY,
    stream: StreamOptions | None = None,
    model_path: Path | None = None,
) -> Generator[FileRecord | StreamRecord, None, None]:
    """Segment image files one by one into a folder; skips what is done with the same model and settings.

    Images that would take more than half of the memory, and all if `stream` says how, are streamed (`stream_file`):
    `max_memory` then bounds all processes. One that was begun, or done, in memory or streamed is gone on with so.
    """
    options = stream or StreamOptions(tta=tta, channel=channel)
    settings = {"tta": tta.model_dump() if tta else None, "rescale": rescale, "channel": channel}
    journal = _read_journal(output / JOURNAL)

    @cache
    def key_of(path: Path) -> dict[str, Any]:
        return {"model": model_hash, "settings": settings, "input": identity(path)}

    def is_done(path: Path) -> bool:
        entry = journal.get(stem_of(path))
        return (
            entry is not None
            and all((output / name).exists() for name in entry["outputs"])
            and entry["key"] == key_of(path)
        )

    streamed: dict[Path, list[str]] = {}  # and what must be said of each
    for path in paths:  # what cannot be done is said before the first hour, not after it
        image = open_image(path, channel=channel, level=options.level)
        large = needs_streaming(image, model.net.config.n_classes, max_memory)
        if model_path is not None and (stream or is_begun(path, output) or (large and not is_done(path))):
            if rescale:
                raise ConfigError(f"--rescale is for images in memory, {path} is streamed; choose another --level")
            make_plan(model, model_path, model_hash, path, options, max_memory)
            _, streamed[path] = compare_pixel_sizes(
                image, model.card.pixel_size, rescale=False, cure="another --level may be nearer"
            )
        else:
            try:
                plan_layout(image.frames[0].shape[1:], model.net.config, max_memory - resident(), tta=tta)
            except TooLittleMemory as error:
                raise too_little(max_memory, error.missing) from None
    table = _read_table(output / TABLE, journal)
    try:
        for path in paths:
            if path in streamed and model_path is not None:
                notes = streamed[path]
                with _threads_kept():
                    yield from stream_file(model, model_path, model_hash, path, output, options, max_memory, notes)
                continue
            stem, image = stem_of(path), open_image(path, channel=channel)
            if is_done(path):
                table.pop(stem, None)  # to the end
                table[stem] = _rows_again(image, output, model)
                outputs = tuple(output / name for name in journal[stem]["outputs"])
                yield FileDone(path, outputs, journal[stem]["objects"], skipped=True)
                continue
            zoom, notes = compare_pixel_sizes(image, model.card.pixel_size, rescale)
            frames = [_read(frame, model.card.channels) for frame in image.frames]
            _forget(output, journal, table, stem)
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
                predictions.append((yield from _numbered(steps, number)))
            outputs = _write(output, stem, frames, predictions, image.pixel_size, model.card.kind)
            table[stem] = _rows(path, frames, [p.labels for p in predictions], image.pixel_size, model)
            names = [file.name for file in outputs]
            entry = {"key": key_of(path), "outputs": names, "objects": len(table[stem]), "image": str(path.absolute())}
            journal[stem] = entry
            write_text(output / JOURNAL, json.dumps(journal, indent=1) + "\n")
            yield FileDone(path, outputs, len(table[stem]), skipped=False)
    finally:  # also if an image cannot be read, or the user stops it
        if table:
            write_text(output / TABLE, _csv(table))


@contextmanager
def _threads_kept() -> Iterator[None]:
    """Let the plan of one image decide about no other."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def compare_pixel_sizes(
    image: ImageFile, wanted: tuple[float, float] | None, rescale: bool, cure: str = "--rescale resamples"
) -> tuple[tuple[float, float] | None, list[str]]:
    """Return the zoom to the model's pixel size (None: leave it) and what must be said, with what helps."""
    if wanted is None or image.pixel_size is None:
        if rescale:
            missing = "the model" if wanted is None else image.path.name
            raise ImageError(f"--rescale needs pixel sizes, but {missing} has none; leave --rescale out")
        return None, []
    zoom = (image.pixel_size[0] / wanted[0], image.pixel_size[1] / wanted[1])
    if all(1 / PIXEL_SIZE_TOLERANCE <= factor <= PIXEL_SIZE_TOLERANCE for factor in zoom):
        return None, []
    sizes = f"{image.pixel_size[0]:.4g} micrometre per pixel, the model was trained at {wanted[0]:.4g}"
    if rescale:
        return zoom, [
            f"{image.path.name}: {sizes}; resampled by {zoom[0]:.3g} for the network, results on the original grid"
        ]
    return None, [f"{image.path.name}: {sizes}; results may be poor, {cure}"]


def _read(frame: Frame, channels: int) -> np.ndarray:
    pixels = frame.read()
    if channels == 1 < len(pixels) and not is_grey(pixels):
        raise ImageError(
            f"{frame.name} has {len(pixels)} channels, but the model was trained on 1; "
            f"choose one with --channel 0..{len(pixels) - 1}"
        )
    return as_channels(pixels, channels, frame.name)


def _forget(output: Path, journal: dict[str, Any], table: Table, stem: str) -> None:
    """Remove the older results of an image, also from the table: what is there is always of one run."""
    older = journal.pop(stem, {"outputs": []})
    write_text(output / JOURNAL, json.dumps(journal, indent=1) + "\n")  # if this fails, nothing is lost
    if table.pop(stem, None) is not None:
        write_text(output / TABLE, _csv(table))
    for name in older["outputs"]:
        (output / name).unlink(missing_ok=True)


def _numbered(steps: Generator[PixelsDone, None, Prediction], frame: int) -> Generator[FrameProgress, None, Prediction]:
    while True:
        try:
            pixels = next(steps)
        except StopIteration as end:
            result: Prediction = end.value
            return result
        yield FrameProgress(frame, pixels.done, pixels.total)


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
    """Measure the objects of an image that was done in an earlier run."""
    labels = read_labels(output / f"{stem_of(image.path)}_labels.tif").frames
    frames = [_read(frame, model.card.channels) for frame in image.frames]
    return _rows(image.path, frames, labels, image.pixel_size, model)


def _read_table(path: Path, stems: Collection[str]) -> Table:
    """Return what earlier runs measured in the images of these stems."""
    table: Table = {}
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                stem = stem_of(Path(row.get("image") or ""))
                if stem in stems:
                    table.setdefault(stem, []).append(dict(row))
    return table


def _csv(table: Table) -> str:
    rows = [row for of_image in table.values() for row in of_image]
    columns = list(dict.fromkeys(["image", "frame", "object", *(name for row in rows for name in row)]))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _read_journal(path: Path) -> dict[str, Any]:
    """Return the entries by the stem of their image; none from a file that is missing or not ours."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {stem: entry for stem, entry in entries.items() if {"key", "outputs", "objects"} <= entry.keys()}
    except (OSError, ValueError, AttributeError):
        return {}
