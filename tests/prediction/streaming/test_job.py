import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import zarr

from septum.config import TrainConfig, TtaConfig, UNetConfig
from septum.core.decode import decode
from septum.core.normalize import Normalization, measure_normalization
from septum.core.objects import measure_objects
from septum.core.overlay import overlay
from septum.core.region import whole
from septum.core.tiling import ArraySource
from septum.core.unet import UNet
from septum.data.files import write_text
from septum.data.images import open_image
from septum.data.simulate import cells
from septum.data.sinks import open_zarr_output
from septum.errors import ConfigError, ImageError, OutputError
from septum.machine.generators import drain
from septum.model.model import Model, ModelCard, fingerprint
from septum.model.predict import fit_to_image, predict_probabilities
from septum.prediction.records import StreamDone, StreamProgress, StreamStarted
from septum.prediction.streaming import decode_blocks, object_table
from septum.prediction.streaming.decide import StreamOptions, plan_stream
from septum.prediction.streaming.decode_blocks import as_probabilities
from septum.prediction.streaming.files import stream_file
from septum.prediction.streaming.job import PLAN, Job
from septum.prediction.streaming.plan import read_plan

SHAPE = (150, 190)
PLAIN = StreamOptions()
DIHEDRAL = TtaConfig(kind="dihedral", versions=8)


def image_of(seed=0, channels=1) -> np.ndarray:
    return np.concatenate([cells(SHAPE, 40, seed + n, diameter=16)[0] for n in range(channels)])


def make_model(folder, *, channels=1, normalization="none", kind="instances", classes=2, decoding=None) -> Path:
    """A network of random weights that takes about half of an image for foreground."""
    unet = UNetConfig(
        base_channels=2, depth=2, in_channels=channels, n_classes=classes, dropout=0.0, normalization=normalization
    )
    config = TrainConfig(unet=unet, steps=1, kind=kind, decoding=decoding or {"smallest_object": 4, "largest_hole": 3})
    net = UNet(unet, 3).eval()
    pixels = image_of(channels=channels)
    source = ArraySource(measure_normalization(pixels, "standardize")(pixels))
    probabilities = drain(predict_probabilities(fit_to_image(net, source), source))
    with torch.no_grad():
        net.output.bias[1] -= float(np.median(np.log(probabilities[1] / probabilities[0])))
    card = ModelCard(
        config=config,
        class_names=tuple("abcd"[:classes]),
        channels=channels,
        pixel_size=None,
        data={},
        held_out="nothing",
        scores={},
        step=1,
        versions={},
    )
    path = folder / "model.safetensors"
    Model(net, card).save(path)
    return path


def load(path):
    from septum.model.model import load

    return load(path)


def planned(model_path, image, options=PLAIN, max_memory=10**12):
    opened = open_image(image, channel=options.channel, level=options.level)
    return plan_stream(load(model_path), opened, options, max_memory=max_memory, speed=1e9)


def plan_small_tiles(model_path, image, output, options=PLAIN, **other):
    """Write the plan of many small tiles, with which a run then continues."""
    plan = planned(model_path, image, options).plan
    small = {"stride": (32, 64), "rows": 24, "chunk": 16, "block": 48, "threads": 1, **other}
    write_text(output / "a_work" / PLAN, plan.model_copy(update=small).model_dump_json())


def stream(model_path, image, output, options=PLAIN, small=True):
    if small:
        plan_small_tiles(model_path, image, output, options)
    return list(stream_file(planned(model_path, image, options), output))


def tree(folder) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    found = {}
    for path in files:
        with suppress(FileNotFoundError):  # another process renames it
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def results(output):
    """Probabilities and labels of the first frame, as stored."""
    found = [open_zarr_output(output / f"a_{name}.ome.zarr").frames[0] for name in ("probabilities", "labels")]
    return [sink.read(tuple(slice(0, size) for size in sink.shape[1:])) for sink in found]


def whole_image(model_path, pixels, tta=None, mask=None):
    """What memory without end gives: probabilities in float32."""
    model = load(model_path)
    source = ArraySource(measure_normalization(pixels, model.card.config.normalize, mask)(pixels))
    return drain(predict_probabilities(fit_to_image(model.net, source), source, tta=tta, max_memory=10**12))


def check(model_path, output, expected, dtype=np.uint8):
    stored, labels = results(output)
    assert stored.dtype == dtype
    assert np.abs(as_probabilities(stored) - expected).max() <= (0.501 / 255 if dtype == np.uint8 else 1e-3)
    config = load(model_path).card.config
    np.testing.assert_array_equal(labels[0], decode(config.target, as_probabilities(stored), config.decoding))
    return labels[0]


@pytest.mark.parametrize("normalization", ["none", "image"])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_streamed_result_equals_the_whole_image(tmp_path, normalization, channels):
    model_path = make_model(tmp_path, channels=channels, normalization=normalization)
    image = tmp_path / "a.tif"
    pixels = image_of(channels=channels)
    tifffile.imwrite(image, pixels, tile=(32, 32), metadata={"axes": "CYX"}, ome=True)
    records = stream(model_path, image, tmp_path / "out")
    labels = check(model_path, tmp_path / "out", whole_image(model_path, pixels))
    assert records[-1].objects == labels.max() >= 1
    names = ["a_labels.ome.zarr", "a_objects.csv", "a_overlay.png", "a_plan.json", "a_probabilities.ome.zarr"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names


def table_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_of_objects_is_the_same_as_in_memory(model_path, tmp_path, monkeypatch):
    monkeypatch.setattr(object_table.summed, "__defaults__", (7,))  # objects at a time
    frames = np.concatenate([image_of(seed) for seed in range(2)]).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", frames, imagej=True, resolution=(2, 4), metadata={"axes": "ZYX", "unit": "um"})
    stream(model_path, tmp_path / "a.tif", tmp_path / "out", StreamOptions(region=(20, 141, 3, 187)))
    found = table_of(tmp_path / "out" / "a_objects.csv")
    expected = []
    sinks = open_zarr_output(tmp_path / "out" / "a_labels.ome.zarr").frames
    for number, (sink, pixels) in enumerate(zip(sinks, frames, strict=True)):
        labels = sink.read((slice(0, 121), slice(0, 184)))[0]
        rows = measure_objects(labels.astype(int), pixels[None, 20:141, 3:187], (0.25, 0.5))
        expected += [{"image": "a.tif", "frame": number} | row for row in rows]
    assert len(found) == len(expected) > 30
    left_out = {"major_axis_px", "minor_axis_px", "eccentricity", "perimeter_px"}
    assert list(found[0]) == [name for name in expected[0] if name not in left_out]
    for row, wanted in zip(found, expected, strict=True):
        assert row["image"] == "a.tif"
        for name in list(row)[1:]:
            assert float(row[name]) == pytest.approx(wanted[name], rel=1e-9, abs=2e-3 if name.endswith("_px") else 0)


@pytest.mark.parametrize("kind", ["instances", "classes"])
def test_the_overlay_shows_a_level_of_the_pyramid(tmp_path, monkeypatch, kind):
    model_path = make_model(tmp_path, kind=kind)
    image = np.pad(image_of(), [(0, 0), (0, 500), (0, 411)], mode="reflect")[0]
    tifffile.imwrite(tmp_path / "a.tif", image, tile=(32, 32))
    monkeypatch.setattr(decode_blocks, "THUMBNAIL_SIDE", 400)
    plan_small_tiles(model_path, tmp_path / "a.tif", tmp_path / "out", block=64, stride=(256, 256), chunk=64, rows=48)
    stream(model_path, tmp_path / "a.tif", tmp_path / "out", small=False)
    small = np.add.reduceat(np.add.reduceat(image, np.arange(0, 650, 2), 0, dtype=int), np.arange(0, 601, 2), 1)
    small[:, :-1], small[:, -1] = np.rint(small[:, :-1] / 4), np.rint(small[:, -1] / 2)
    level = open_zarr_output(tmp_path / "out" / "a_labels.ome.zarr").levels[1][0]
    labels = level.read((slice(0, 325), slice(0, 301)))[0].astype(int)
    picture = open_image(tmp_path / "out" / "a_overlay.png").frames[0].read()
    expected = overlay(small[None].astype(np.uint8), labels, kind=kind)
    np.testing.assert_array_equal(picture, expected.transpose(2, 0, 1))
    assert (tmp_path / "out" / "a_objects.csv").exists() == (kind == "instances")


def test_brightness_is_taken_from_the_image_the_mask_or_the_model(model_path, image, tmp_path):
    def stored(name, options):
        stream(model_path, image, tmp_path / name, options)
        return json.loads((tmp_path / name / "a_plan.json").read_text())["normalization"]

    def as_json(normalization):
        return [{"offset": list(normalization.offset), "scale": list(normalization.scale)}]

    pixels = image_of()
    mask = np.zeros(SHAPE, np.uint8)
    mask[40:60] = 1
    tifffile.imwrite(tmp_path / "mask.tif", mask)
    assert stored("image", PLAIN) == as_json(measure_normalization(pixels, "standardize"))
    inside = measure_normalization(pixels[:, 40:60], "standardize")
    assert stored("mask", StreamOptions(mask=tmp_path / "mask.tif")) == as_json(inside)
    with pytest.raises(ConfigError, match=r"does not record the brightness of its training images; train it again"):
        stored("model", StreamOptions(statistics="model"))
    model = load(model_path)
    brightness = Normalization((100.0,), (30.0,))
    Model(model.net, model.card.model_copy(update={"brightness": brightness})).save(model_path)
    assert stored("model", StreamOptions(statistics="model")) == as_json(brightness)
    check(model_path, tmp_path / "model", drain(predict_probabilities(model.net, ArraySource(brightness(pixels)))))


def test_a_region_lies_where_it_was_cut(model_path, tmp_path):
    metadata = {"axes": "YX", "PhysicalSizeY": 0.25, "PhysicalSizeX": 0.5}
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as tif:
        tif.write(image_of()[0], subifds=1, metadata=metadata)
        tif.write(image_of()[0, ::2, ::2], subfiletype=1, metadata=None)
    for form in ("zarr", "tiff"):
        options = StreamOptions(region=(10, 70, 20, 90), level=1, format=form)
        stream(model_path, tmp_path / "a.ome.tif", tmp_path / form, options, small=False)
    for name in ("labels", "probabilities"):
        ome = zarr.open_group(tmp_path / "zarr" / f"a_{name}.ome.zarr", mode="r").attrs["ome"]
        steps = ome["multiscales"][0]["datasets"][0]["coordinateTransformations"]
        assert [step["type"] for step in steps] == ["scale", "translation"]
        assert steps[0]["scale"][-2:] == [0.5, 1.0]
        assert steps[1]["translation"][-2:] == [5.0, 20.0]
        with tifffile.TiffFile(tmp_path / "tiff" / f"a_{name}.tif") as tif:
            xml = tif.ome_metadata
        assert 'PhysicalSizeX="1.0"' in xml
        assert 'PositionX="20.0"' in xml
        assert 'PositionY="5.0"' in xml


@pytest.mark.parametrize("tta", [TtaConfig(), DIHEDRAL])
def test_versions_of_the_image_are_averaged(model_path, image, tmp_path, tta):
    stream(model_path, image, tmp_path / "out", StreamOptions(tta=tta, probabilities="float16"))
    check(model_path, tmp_path / "out", whole_image(model_path, image_of(), tta), np.float16)


def test_classes_are_streamed(image, tmp_path):
    model_path = make_model(tmp_path, kind="classes", classes=3)
    stream(model_path, image, tmp_path / "out")
    check(model_path, tmp_path / "out", whole_image(model_path, image_of()))


def test_a_region_is_a_crop_of_the_whole(model_path, image, tmp_path):
    stream(model_path, image, tmp_path / "out", StreamOptions(region=(37, 120, 5, 150)))
    check(model_path, tmp_path / "out", whole_image(model_path, image_of())[:, 37:120, 5:150])


def test_outside_of_the_mask_is_background_and_statistics_are_those_inside(model_path, image, tmp_path):
    mask = np.zeros(SHAPE, np.uint8)
    mask[70:, 40:130] = 1
    tifffile.imwrite(tmp_path / "mask.tif", mask)
    stream(model_path, image, tmp_path / "out", StreamOptions(mask=tmp_path / "mask.tif"))
    expected = whole_image(model_path, image_of(), mask=mask)
    expected[0][mask == 0], expected[1][mask == 0] = 1, 0
    check(model_path, tmp_path / "out", expected)


def test_frames_keep_their_order_and_tiff_has_the_values_of_zarr(model_path, tmp_path):
    frames = np.concatenate([image_of(seed) for seed in range(2)])
    tifffile.imwrite(tmp_path / "a.tif", frames, imagej=True, metadata={"axes": "ZYX"})
    part = (20, 90, 3, 83)
    stream(model_path, tmp_path / "a.tif", tmp_path / "zarr", StreamOptions(region=part))
    stream(model_path, tmp_path / "a.tif", tmp_path / "out", StreamOptions(region=part, format="tiff"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a_labels.tif", "a_objects.csv", "a_overlay_0000.png", "a_overlay_0001.png", "a_plan.json",
        "a_probabilities.tif",
    ]  # fmt: skip
    stored = open_image(tmp_path / "out" / "a_labels.tif").frames
    for number, sink in enumerate(open_zarr_output(tmp_path / "zarr" / "a_labels.ome.zarr").frames):
        np.testing.assert_array_equal(stored[number].read(), sink.read(whole((70, 80))))
    first = tree(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    stream(model_path, tmp_path / "a.tif", tmp_path / "out", StreamOptions(region=part, format="tiff"))
    assert tree(tmp_path / "out") == first


@pytest.mark.posix
@pytest.mark.parametrize("kills", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_kills_at_random_moments_leave_no_trace(model_path, image, tmp_path, kills):
    stream(model_path, image, tmp_path / "never")
    plan_small_tiles(model_path, image, tmp_path / "killed")
    command = [sys.executable, "-c", KILLED, str(model_path), str(image), str(tmp_path / "killed")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    rng = random.Random(0)
    for _ in range(kills):
        before = len(tree(tmp_path / "killed"))
        run = subprocess.run([*command, str(rng.randint(8, 25)), str(rng.uniform(0, 0.005))], env=env, check=False)
        assert run.returncode == -signal.SIGKILL
        assert len(tree(tmp_path / "killed")) > before
    stream(model_path, image, tmp_path / "killed", small=False)
    assert tree(tmp_path / "killed") == tree(tmp_path / "never")


# a prediction that is killed so many seconds after its n-th write or renaming
KILLED = """
import os, signal, sys, threading
from pathlib import Path
from septum.data.images import open_image
from septum.data.sinks import ZarrSink
from septum.model.model import load
from septum.prediction.streaming.decide import StreamOptions, plan_stream
from septum.prediction.streaming.files import stream_file
model, image, output = map(Path, sys.argv[1:4])
left, seconds = int(sys.argv[4]), float(sys.argv[5])
def counted(action):
    def call(*values):
        global left
        left -= 1
        if left == 0:
            threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return action(*values)
    return call
ZarrSink.write, os.replace = counted(ZarrSink.write), counted(os.replace)
planned = plan_stream(load(model), open_image(image), StreamOptions(), max_memory=10**12, speed=1e9)
for _ in stream_file(planned, output):
    pass
"""


def test_finished_pieces_are_not_repeated(model_path, image, tmp_path, monkeypatch):
    from septum.prediction.streaming import job as module

    calls = []
    original = module.predict_tile
    monkeypatch.setattr(module, "predict_tile", lambda *values: calls.append(values[2]) or original(*values))
    plan_small_tiles(model_path, image, tmp_path / "out")
    run = stream_file(planned(model_path, image), tmp_path / "out")
    while len(calls) < 5:
        next(run)
    run.close()
    begun = len(calls)
    stream(model_path, image, tmp_path / "out", small=False)
    tiles = 5 * 3
    assert tiles <= len(calls) <= tiles + 1
    assert begun < tiles
    calls.clear()
    assert stream(model_path, image, tmp_path / "out", small=False)[-1].skipped
    assert not calls


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_a_run_that_is_short_of_memory_continues_with_a_smaller_plan(model_path, image, tmp_path, monkeypatch, error):
    from septum.prediction.streaming import job as module

    original, strides = module.predict_tile, []

    def short(net, source, tile, rows, tta):
        strides.append((tile.write[1].stop - tile.write[1].start, rows))
        if len(strides) == 2 or (len(strides) > 2 and strides[-1] >= strides[0]):
            raise error
        yield from original(net, source, tile, rows, tta)

    monkeypatch.setattr(module, "predict_tile", short)
    records = stream(model_path, image, tmp_path / "out")
    notes = [note for record in records if isinstance(record, StreamStarted) for note in record.notes]
    assert notes[-1].startswith("memory ran out, so the tiles are smaller now: 150 x 190 pixels in ")
    assert strides[-1] < strides[0]
    check(model_path, tmp_path / "out", whole_image(model_path, image_of()))
    plan = read_plan(tmp_path / "out" / "a_plan.json")
    assert (plan.stride[1], plan.rows) < (64, 24)


def test_the_error_says_that_no_plan_is_small_enough(model_path, image, tmp_path, monkeypatch):
    from septum.prediction.streaming import job as module

    def short(*values):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(module, "predict_tile", short)
    with pytest.raises(ConfigError, match="not even the smallest tile of this network fits into the memory of cpu"):
        stream(model_path, image, tmp_path / "out")
    assert (tmp_path / "out" / "a_work" / PLAN).exists()


@pytest.mark.parametrize("when", ["begun", "done"])
@pytest.mark.parametrize("what", ["model", "image", "tta, probabilities"])
def test_another_model_image_or_setting_is_refused(model_path, image, tmp_path, what, when):
    output = tmp_path / "out"
    if when == "begun":
        plan_small_tiles(model_path, image, output)
        Job(output / "a_work").measure(0)
    else:
        stream(model_path, image, output)
    before = tree(output)
    options = StreamOptions()
    if what == "model":
        model_path = make_model(tmp_path, decoding={"smallest_object": 9})
    elif what == "image":
        tifffile.imwrite(image, image_of(seed=1)[0])
    else:
        options = StreamOptions(tta=DIHEDRAL, probabilities="float16")
    with pytest.raises(
        OutputError,
        match=f"belongs to a result with another {what}; choose another --output or remove a_work, a_plan.json",
    ):
        stream(model_path, image, output, options, small=False)
    assert tree(output) == before


def stop(model_path, image, output, options):
    """Begin a run of small tiles and stop it amid them."""
    plan_small_tiles(model_path, image, output, options)
    steps = stream_file(planned(model_path, image, options), output)
    for record in steps:
        if isinstance(record, StreamProgress) and record.step == "tiles" and 2 * record.done > record.total:
            break
    steps.close()


def test_results_of_one_format_do_not_make_a_half_written_one_of_another_look_done(model_path, image, tmp_path):
    output, part = tmp_path / "out", (20, 90, 3, 83)
    plain, tiff = StreamOptions(region=part), StreamOptions(region=part, format="tiff")
    stream(model_path, image, output, tiff)
    stop(model_path, image, output, plain)
    assert not stream(model_path, image, output, plain, small=False)[-1].skipped
    stream(model_path, image, tmp_path / "whole", plain)
    expected = tree(tmp_path / "whole")
    assert {name: data for name, data in tree(output).items() if not name.endswith(".tif")} == expected
    stores = sorted(output.glob("*.ome.zarr"))
    assert len(stores) == 2
    for stopped in (False, True):
        for file in output.glob("*.tif"):
            file.unlink()
        if stopped:
            steps = stream_file(planned(model_path, image, tiff), output)
            next(steps)
            steps.close()
        else:
            plan_small_tiles(model_path, image, output, plain)  # as left by a kill after the Zarrs were whole
        stream(model_path, image, output, tiff, small=False)  # the Zarrs were results before, and stay
        assert sorted(output.glob("*.ome.zarr")) == stores
        assert len([*output.glob("*.tif")]) == 2


@pytest.mark.parametrize("form", ["zarr", "tiff"])
def test_unfinished_results_without_their_plan_are_not_continued_with_another_model(model_path, image, tmp_path, form):
    output, options = tmp_path / "out", StreamOptions(format=form)
    stop(model_path, image, output, options)
    shutil.rmtree(output / "a_work")
    (tmp_path / "other").mkdir()
    other = make_model(tmp_path / "other", decoding={"smallest_object": 9})
    with pytest.raises(OutputError, match=r"a_labels\.ome\.zarr exists without a_plan\.json, which records how"):
        stream(other, image, output, options, small=False)


def test_an_existing_result_is_reported_as_not_verified(model_path, image, tmp_path):
    stream(model_path, image, tmp_path / "out")
    started, done = stream(model_path, image, tmp_path / "out", StreamOptions(verify=2), small=False)
    assert started.notes == ("not verified, because the results were already there; choose another --output to verify",)
    assert done.skipped


def test_a_full_disk_is_one_sentence_and_the_run_continues_later(model_path, image, tmp_path, monkeypatch):
    from septum.data.sinks import ZarrSink

    stream(model_path, image, tmp_path / "never")
    original, writes = ZarrSink.write, []

    def full(sink, region, array):
        writes.append(region)
        if len(writes) > 20:
            raise OutputError("cannot write out: the disk is full; free some space or choose another folder")
        original(sink, region, array)

    monkeypatch.setattr(ZarrSink, "write", full)
    with pytest.raises(OutputError, match="the disk is full"):
        stream(model_path, image, tmp_path / "out")
    monkeypatch.setattr(ZarrSink, "write", original)
    stream(model_path, image, tmp_path / "out", small=False)
    assert tree(tmp_path / "out") == tree(tmp_path / "never")


def test_a_broken_strip_keeps_the_plan(model_path, tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, image_of()[0], rowsperstrip=10, compression="zlib")
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages[0].dataoffsets[8]
    good = path.read_bytes()
    path.write_bytes(good[:offset] + b"\xff" * 40 + good[offset + 40 :])
    with pytest.raises(ImageError, match=r"a\.tif"):
        stream(model_path, path, tmp_path / "out", small=False)
    assert (tmp_path / "out" / "a_work" / PLAN).exists()


def test_progress_rises_to_the_end_through_all_steps(model_path, image, tmp_path):
    records = [one for one in stream(model_path, image, tmp_path / "out") if isinstance(one, StreamProgress)]
    parts = [one.fraction for one in records]
    assert parts == sorted(parts)
    assert 0 < parts[0] < 0.1 < parts[-1] == pytest.approx(1)
    names = ["statistics", "tiles", "components", "objects", "labels", "pyramid", "table"]
    assert list(dict.fromkeys(one.step for one in records)) == names


def test_the_written_plan_is_the_plan_that_was_used(model_path, image, tmp_path):
    stream(model_path, image, tmp_path / "out")
    plan = json.loads((tmp_path / "out" / "a_plan.json").read_text())
    assert (plan["stride"], plan["rows"], plan["chunk"], plan["shape"]) == ([32, 64], 24, 16, list(SHAPE))
    assert plan["request"]["model"] == fingerprint(model_path)
    assert isinstance(stream(model_path, image, tmp_path / "out", small=False)[-1], StreamDone)
