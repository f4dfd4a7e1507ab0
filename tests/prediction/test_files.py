import csv
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from skimage.measure import regionprops
from skimage.transform import resize

import septum
from septum.config import TrainConfig, TtaConfig, UNetConfig
from septum.core.decode import decode
from septum.core.normalize import measure_normalization
from septum.core.overlay import overlay
from septum.core.tiling import ArraySource
from septum.core.unet import UNet
from septum.data.images import open_image, write_png
from septum.data.labels import read_labels
from septum.data.simulate import cells
from septum.errors import ConfigError, ImageError, OutputError
from septum.evaluation.predicted_images import predicted_images
from septum.machine.generators import drain
from septum.model.model import Model, ModelCard, ModelFile, fingerprint
from septum.model.predict import predict_probabilities
from septum.prediction import files as module
from septum.prediction.files import list_inputs, predict_files
from septum.prediction.records import FileDone, FileStarted, FrameProgress, StreamDone, StreamStarted
from septum.prediction.streaming.decide import StreamOptions

SHAPE = (36, 44)
PIXEL_SIZE = (0.5, 0.25)  # micrometre
TTA = TtaConfig(kind="dihedral", versions=8)


def picture(seed=0) -> np.ndarray:
    return cells(SHAPE, 4, seed, diameter=12)[0]


def small_model(seed=3, pixel_size=None, channels=1) -> Model:
    """A network of random weights that takes about half of an image for foreground."""
    config = TrainConfig(unet=UNetConfig(base_channels=2, depth=1, in_channels=channels, dropout=0.0), steps=1)
    net = UNet(config.unet, seed).eval()
    pixels = np.concatenate([picture()] * channels)
    probabilities = drain(predict_probabilities(net, ArraySource(measure_normalization(pixels, "standardize")(pixels))))
    logit = np.log(probabilities[1] / probabilities[0])
    with torch.no_grad():
        net.output.bias[1] -= float(np.median(logit))
    card = ModelCard(
        config=config,
        class_names=("background", "foreground"),
        channels=channels,
        pixel_size=pixel_size,
        data={},
        held_out="nothing",
        scores={},
        step=1,
        versions={},
    )
    return Model(net, card)


MODEL = small_model()


def write_tiff(path, pixels, pixel_size=None) -> Path:
    """Write (Y, X), (Z, Y, X) or (Z, C, Y, X) as ImageJ does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    axes = {2: "YX", 3: "ZYX", 4: "ZCYX"}[pixels.ndim]
    more = {}
    if pixel_size:
        more = {"resolution": (1 / pixel_size[1], 1 / pixel_size[0]), "metadata": {"axes": axes, "unit": "um"}}
    tifffile.imwrite(path, pixels, imagej=True, **({"metadata": {"axes": axes}} | more))
    return path


def saved(model, sha256="m", path=Path("model.safetensors")) -> Model:
    return replace(model, file=ModelFile(path, sha256))


def predict(paths, output, model=MODEL, sha256="m", **settings):
    paths = [paths] if isinstance(paths, Path) else paths
    return list(predict_files(saved(model, sha256), paths, output, **settings))


def files(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())} if folder.exists() else {}


def table(folder) -> list[dict[str, str]]:
    with (folder / "objects.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def image(tmp_path) -> Path:
    return write_tiff(tmp_path / "in" / "a.tif", picture()[0], PIXEL_SIZE)


def test_files_folders_and_globs_are_listed_in_order_each_once(tmp_path):
    folder = tmp_path / "some" / "where"
    folder.mkdir(parents=True)
    names = ["b.png", "a.tif", "d.TIF", "notes.txt", ".part.c.tif"]
    for name in names:
        (folder / name).touch()
    images = [folder / name for name in ("a.tif", "b.png", "d.TIF")]
    assert list_inputs([folder]) == images
    assert list_inputs([folder / "*.tif"]) == images[:1]
    assert list_inputs([str(folder / "[ab].*")]) == images[:2]
    assert list_inputs([folder / "b.png", folder, folder / "?.tif"]) == [images[1], images[0], images[2]]
    assert list_inputs([tmp_path / "**" / "b.png"]) == images[1:2]


def test_numbers_in_names_count_as_numbers(tmp_path):
    images = [tmp_path / name for name in ("a2.tif", "a10.tif", "s2/a3.tif", "s10/a1.tif")]
    for path in images[::-1]:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert list_inputs([tmp_path]) == images[:2]
    assert list_inputs([tmp_path / "s*" / "*.tif"]) == images[2:]


def test_a_zarr_folder_is_one_image(tmp_path):
    for name in ("a.ome.zarr/zarr.json", "b/.zgroup", "c/a.txt"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    (tmp_path / "a.ome.zarr/a.tif").touch()
    assert list_inputs([tmp_path]) == [tmp_path / "a.ome.zarr", tmp_path / "b"]
    assert list_inputs([tmp_path / "b", tmp_path / "*.zarr"]) == [tmp_path / "b", tmp_path / "a.ome.zarr"]


def test_a_relative_glob_and_a_file_named_like_a_glob(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a[1].tif").touch()
    Path("a1.tif").touch()
    assert list_inputs(["*1.tif"]) == [Path("a1.tif")]
    assert list_inputs(["a[1].tif"]) == [Path("a[1].tif")]


def test_inputs_without_images_are_refused(tmp_path):
    with pytest.raises(ImageError, match=r"the folder .* contains no image; Septum reads .*\.png.*\.tif"):
        list_inputs([tmp_path])
    with pytest.raises(ImageError, match=r"no file matches .*\*\.tif"):
        list_inputs([tmp_path / "*.tif"])


@pytest.mark.parametrize(("one", "other"), [("a.tif", "a.PNG"), ("é.tif", "e\u0301.tif"), ("a.OME.tif", "a.ome.zarr")])
def test_two_images_that_would_write_the_same_results_are_refused(one, other, tmp_path):
    paths = [tmp_path / "x" / one, tmp_path / "y" / other]
    with pytest.raises(
        ImageError,
        match=f"x/{one} and .*y/{other} would write results with the same names; use a separate --output for each",
    ):
        list_inputs(paths)


def test_the_files_contain_what_the_model_predicts(image, tmp_path):
    out = tmp_path / "deep" / "out"
    records = predict(image, out)
    expected = MODEL.predict(picture())
    assert expected.labels.max() > 3
    names = ["a_labels.tif", "a_probabilities.tif", "a_overlay.png"]
    assert sorted(files(out)) == sorted([*names, "objects.csv", "predictions.json"])
    assert predicted_images(out) == {"a": image}
    labels, probabilities = read_labels(out / names[0]), open_image(out / names[1])
    np.testing.assert_array_equal(labels.frames[0], expected.labels)
    np.testing.assert_array_equal(probabilities.frames[0].read(), expected.probabilities)
    np.testing.assert_array_equal(
        open_image(out / names[2]).frames[0].read(), np.moveaxis(overlay(picture(), expected.labels), -1, 0)
    )
    assert labels.pixel_size == pytest.approx(PIXEL_SIZE)
    assert probabilities.pixel_size == pytest.approx(PIXEL_SIZE)
    assert records[0] == FileStarted(image, 1, (open_image(image).description,))
    assert records[-2] == FrameProgress(0, SHAPE[0] * SHAPE[1], SHAPE[0] * SHAPE[1])
    assert records[-1] == FileDone(image, tuple(out / name for name in names), expected.labels.max(), skipped=False)


def test_a_stack_gives_stacks_frame_by_frame(tmp_path):
    frames = [picture(seed)[0] for seed in range(3)]
    out = tmp_path / "out"
    records = predict(write_tiff(tmp_path / "s.tif", np.stack(frames)), out)
    expected = [MODEL.predict(frame) for frame in frames]
    labels = tifffile.imread(out / "s_labels.tif")
    np.testing.assert_array_equal(labels, [one.labels for one in expected])
    probabilities = open_image(out / "s_probabilities.tif")
    assert probabilities.axes == "ZCYX"
    for frame, one in zip(probabilities.frames, expected, strict=True):
        np.testing.assert_array_equal(frame.read(), one.probabilities)
    assert [name for name in files(out) if "overlay" in name] == [f"s_overlay_{n:04d}.png" for n in range(3)]
    assert sorted({record.frame for record in records if isinstance(record, FrameProgress)}) == [0, 1, 2]
    counts = [int(one.labels.max()) for one in expected]
    assert records[-1].objects == sum(counts)
    assert [int(row["frame"]) for row in table(out)] == np.repeat(range(3), counts).tolist()
    assert [int(row["object"]) for row in table(out)] == [n for count in counts for n in range(1, count + 1)]


def test_the_table_has_every_object_as_measured_by_hand(tmp_path):
    model = small_model(channels=2)
    pixels = np.concatenate([picture(0), picture(1)])
    path = write_tiff(tmp_path / "c.tif", pixels[None], PIXEL_SIZE)
    predict(path, tmp_path / "out", model)
    labels = model.predict(pixels).labels
    rows = table(tmp_path / "out")
    assert len(rows) == labels.max() > 3
    for row, region in zip(rows, regionprops(labels), strict=True):
        y, x = np.nonzero(labels == region.label)
        assert (row["image"], row["frame"], row["object"]) == ("c.tif", "0", str(region.label))
        expected = {
            "area_px": len(y),
            "y_px": y.mean(),
            "x_px": x.mean(),
            "y_um": y.mean() * PIXEL_SIZE[0],
            "x_um": x.mean() * PIXEL_SIZE[1],
            "area_um2": len(y) * PIXEL_SIZE[0] * PIXEL_SIZE[1],
            "equivalent_diameter_um": 2 * np.sqrt(len(y) * PIXEL_SIZE[0] * PIXEL_SIZE[1] / np.pi),
            "mean_intensity_0": pixels[0][y, x].mean(),
            "mean_intensity_1": pixels[1][y, x].mean(),
            "major_axis_px": region.axis_major_length,
            "minor_axis_px": region.axis_minor_length,
            "eccentricity": region.eccentricity,
            "perimeter_px": region.perimeter,
        }
        for name, value in expected.items():
            assert float(row.pop(name)) == pytest.approx(value, abs=1e-3), name
        assert set(row) == {"image", "frame", "object"}


def test_without_objects_the_table_has_a_header_only(tmp_path):
    model = small_model()
    with torch.no_grad():
        model.net.output.bias[0] += 1000
    records = predict(write_tiff(tmp_path / "a.tif", picture()[0]), tmp_path / "out", model)
    assert records[-1].objects == 0
    assert not read_labels(tmp_path / "out" / "a_labels.tif").frames[0].any()
    assert (tmp_path / "out" / "objects.csv").read_text() == "image,frame,object\n"


@pytest.mark.parametrize("value", [0, 255])
def test_a_frame_of_one_grey_value_is_predicted(tmp_path, value):
    predict(write_tiff(tmp_path / "flat.tif", np.full(SHAPE, value, np.uint8)), tmp_path / "out")
    flat = read_labels(tmp_path / "out" / "flat_labels.tif").frames[0]
    np.testing.assert_array_equal(flat, MODEL.predict(np.full(SHAPE, value, np.uint8)).labels)


@pytest.mark.parametrize("shape", [(10, 10), (1, 300), (1, 1)])
def test_small_and_thin_images_are_predicted(tmp_path, shape):
    pixels = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    write_png(tmp_path / "a.png", np.stack([pixels] * 3, axis=-1))  # grey saved as RGB is grey
    predict(tmp_path / "a.png", tmp_path / "out")
    labels = read_labels(tmp_path / "out" / "a_labels.tif").frames[0]
    np.testing.assert_array_equal(labels, MODEL.predict(pixels).labels)
    assert len(table(tmp_path / "out")) == labels.max()


def test_a_second_run_skips_finished_images_and_lists_them_again(tmp_path, monkeypatch):
    paths = [write_tiff(tmp_path / f"{name}.tif", picture(seed)[0]) for seed, name in enumerate("ab")]
    predict(paths, tmp_path / "out")
    before = files(tmp_path / "out")
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir() if path.name != "objects.csv"}
    with monkeypatch.context() as patched:
        patched.setattr(module, "segment", None)  # nothing is computed
        again = predict(paths, tmp_path / "out")
    assert [(type(record), record.skipped) for record in again] == [(FileDone, True)] * 2
    assert files(tmp_path / "out") == before
    assert all((tmp_path / "out" / name).stat().st_mtime_ns == time for name, time in times.items())
    more = [*paths, write_tiff(tmp_path / "c.tif", picture(2)[0])]
    assert [record.skipped for record in predict(more, tmp_path / "out") if isinstance(record, FileDone)] == [
        True,
        True,
        False,
    ]
    predict(more, tmp_path / "fresh")
    assert files(tmp_path / "out") == files(tmp_path / "fresh")


def test_a_stop_or_a_broken_image_removes_nothing_from_the_table(tmp_path):
    paths = [write_tiff(tmp_path / f"{name}.tif", picture(seed)[0]) for seed, name in enumerate("abc")]
    predict(paths[:2], tmp_path / "out")
    colour = write_tiff(tmp_path / "d.tif", np.stack([picture(0), picture(1)], axis=1))
    with pytest.raises(ImageError, match="has 2 channels"):
        predict([paths[2], colour], tmp_path / "out")
    predict(paths[:3], tmp_path / "fresh")
    assert files(tmp_path / "out") == files(tmp_path / "fresh")
    steps = predict_files(saved(MODEL, "other"), paths[:3], tmp_path / "out")
    while not isinstance(next(steps), FileDone):
        pass
    next(steps)
    steps.close()  # b is on its way, c still that of the other model
    assert list(dict.fromkeys(row["image"] for row in table(tmp_path / "out"))) == ["c.tif", "a.tif"]


def test_an_ome_tiff_gives_files_of_its_name(tmp_path):
    tifffile.imwrite(tmp_path / "a.ome.tif", picture()[0])
    predict(tmp_path / "a.ome.tif", tmp_path / "out")
    names = ["a_labels.tif", "a_overlay.png", "a_probabilities.tif", "objects.csv", "predictions.json"]
    assert sorted(files(tmp_path / "out")) == names
    assert predict(tmp_path / "a.ome.tif", tmp_path / "out")[-1].skipped
    assert table(tmp_path / "out")[0]["image"] == "a.ome.tif"


def test_an_image_continues_as_it_was_started_in_memory_or_streamed(image, tmp_path, monkeypatch):
    out = tmp_path / "out"
    predict(image, out)
    before = files(out)
    with monkeypatch.context() as short:
        short.setattr(module, "needs_streaming", lambda *_: True)  # as if memory were short now
        assert predict(image, out)[-1].skipped
        assert files(out) == before
        assert isinstance(predict(image, tmp_path / "large")[-1], StreamDone)
        steps = predict_files(saved(MODEL), [image], tmp_path / "begun")
        assert isinstance(next(steps), StreamStarted)
        steps.close()
    for folder, skipped in (("large", True), ("begun", False)):
        done = predict(image, tmp_path / folder)[-1]
        assert isinstance(done, StreamDone)
        assert done.skipped == skipped
        assert not (tmp_path / folder / "a_labels.tif").exists()


def test_one_image_after_the_other_gives_the_table_of_both(tmp_path):
    first, second = write_tiff(tmp_path / "a.tif", picture(0)[0]), write_tiff(tmp_path / "b.tif", picture(1)[0])
    predict([first, second], tmp_path / "together")
    predict(first, tmp_path / "apart")
    predict(second, tmp_path / "apart")
    assert table(tmp_path / "apart") == table(tmp_path / "together")


@pytest.mark.parametrize(
    "change", ["model", "tta", "rescale", "channel", "pixels", "a missing output", "a damaged journal"]
)
def test_whatever_decides_the_result_is_predicted_again_when_it_changes(image, tmp_path, change):
    out, settings, model = tmp_path / "out", {}, small_model(pixel_size=PIXEL_SIZE)
    predict(image, out, model)
    if change == "model":
        model, settings["sha256"] = small_model(seed=5, pixel_size=PIXEL_SIZE), "another"
    elif change == "tta":
        settings["tta"] = TTA
    elif change == "rescale":
        settings["rescale"] = True
    elif change == "channel":
        settings["channel"] = 0
    elif change == "pixels":
        write_tiff(image, picture(5)[0], PIXEL_SIZE)
    elif change == "a missing output":
        (out / "a_overlay.png").unlink()
    else:
        (out / "predictions.json").write_text('{"a": {"outputs": []}, "b": 3, ')
    done = predict(image, out, model, **settings)[-1]
    predict(image, tmp_path / "fresh", model, **settings)
    assert not done.skipped
    assert files(out) == files(tmp_path / "fresh")


@pytest.mark.parametrize("content", ['{"a": 3}', "[1]", '{"a": {"outputs": ["x"]}}', "\0\1"])
def test_a_foreign_journal_is_ignored(image, tmp_path, content):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "predictions.json").write_text(content)
    predict(image, tmp_path / "out")
    predict(image, tmp_path / "fresh")
    assert files(tmp_path / "out") == files(tmp_path / "fresh")


def test_results_of_another_image_of_the_same_name_are_not_kept(image, tmp_path):
    out, other = tmp_path / "out", tmp_path / "in" / "a.png"
    write_png(other, np.stack([picture(7)[0]] * 3, axis=-1))
    for path in (image, other, image):
        assert not predict(path, out)[-1].skipped
    predict(image, tmp_path / "fresh")
    assert files(out) == files(tmp_path / "fresh")


def test_overlays_of_frames_that_no_longer_exist_are_removed(tmp_path):
    path = write_tiff(tmp_path / "s.tif", np.stack([picture(0)[0], picture(1)[0]]))
    predict(path, tmp_path / "out")
    write_tiff(path, picture(0)[0])
    predict(path, tmp_path / "out")
    assert [name for name in files(tmp_path / "out") if "overlay" in name] == ["s_overlay.png"]


class Killed(BaseException):
    """What no code catches, as nothing catches a kill."""


@contextmanager
def killed_at(monkeypatch, number):
    """Be killed instead of giving the number-th file its name."""
    rename, left = os.replace, iter(range(number - 1))

    def replace(source, target):
        if next(left, None) is None:
            raise Killed
        rename(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", replace)
        with pytest.raises(Killed):
            yield


def test_a_killed_run_leaves_complete_files_and_the_next_run_adds_the_others(tmp_path, monkeypatch):
    paths = [write_tiff(tmp_path / f"{name}.tif", picture(seed)[0]) for seed, name in enumerate("ab")]
    predict(paths, tmp_path / "fresh")
    whole = files(tmp_path / "fresh")
    renames = 2 * (1 + 3 + 1) + 1  # per image the journal, three results, the journal again; then the table
    for number in range(1, renames + 1):
        out = tmp_path / f"killed_{number}"
        with killed_at(monkeypatch, number):
            predict(paths, out)
        left = files(out)
        journal = left.pop("predictions.json", b"{}")
        assert all(left[name] == whole[name] for name in left)
        assert json.loads(journal).keys() <= json.loads(whole["predictions.json"]).keys()
        assert "objects.csv" not in left
        predict(paths, out)
        assert files(out) == whole
    predict(paths, tmp_path / "never_killed")
    assert files(tmp_path / "never_killed") == whole


@pytest.mark.parametrize("number", range(1, 8))
def test_a_kill_during_a_run_with_other_settings_does_not_mix_results(image, tmp_path, monkeypatch, number):
    predict(image, tmp_path / "out")
    plain = files(tmp_path / "out")
    with killed_at(monkeypatch, number):
        predict(image, tmp_path / "out", tta=TTA)
    predict(image, tmp_path / "out")
    assert files(tmp_path / "out") == plain


@pytest.mark.posix
def test_a_killed_process_leaves_only_complete_files(tmp_path):
    paths = [write_tiff(tmp_path / f"{name}.tif", picture(seed)[0]) for seed, name in enumerate("ab")]
    MODEL.save(tmp_path / "model.safetensors")
    predict(paths, tmp_path / "fresh", sha256=fingerprint(tmp_path / "model.safetensors"))
    code = """
import os, signal, sys
from septum.cli import main
rename, count = os.replace, 0
def replace(source, target):
    global count
    count += 1
    if count == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target)
os.replace = replace
sys.argv = ["septum", "predict", "model.safetensors", "a.tif", "b.tif", "--output", "out", "--quiet"]
main()
"""
    environment = os.environ | {"PYTHONPATH": str(Path(septum.__file__).parents[1])}
    killed = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, timeout=250, check=False)
    assert killed.returncode == -signal.SIGKILL
    left, whole = files(tmp_path / "out"), files(tmp_path / "fresh")
    assert [name for name in left if name.startswith(".")] == [".part.b_labels.tif"]  # ready, not yet renamed
    results = [name for name in left if not name.startswith(".") and name != "predictions.json"]
    assert results == ["a_labels.tif", "a_overlay.png", "a_probabilities.tif"]
    assert all(left[name] == whole[name] for name in results)
    predict(paths, tmp_path / "out", sha256=fingerprint(tmp_path / "model.safetensors"))
    assert files(tmp_path / "out") == whole


def test_a_stopped_run_leaves_no_results_of_the_image(image, tmp_path):
    steps = predict_files(saved(MODEL), [image], tmp_path / "out")
    assert [type(next(steps)) for _ in range(3)] == [FileStarted, FrameProgress, FrameProgress]
    steps.close()
    assert list(files(tmp_path / "out")) == ["predictions.json"]


def test_a_different_pixel_size_is_reported(image, tmp_path):
    def notes(pixel_size, **settings):
        model = small_model(pixel_size=pixel_size)
        return predict(image, tmp_path / "out", model, str(pixel_size), **settings)[0].notes[1:]

    assert notes((0.5, 0.25)) == notes((0.59, 0.21)) == notes(None) == ()
    expected = (
        "a.tif: 0.5 micrometre per pixel, the model was trained at 0.62; results may be poor; use --rescale to resample"
    )
    assert notes((0.62, 0.25)) == (expected,)
    assert len(notes((0.5, 0.2))) == 1  # one axis is enough
    (note,) = notes((1.0, 0.5), rescale=True)
    assert note.endswith("resampled by 0.5 for the network, results on the original grid")


def test_a_different_pixel_size_of_a_streamed_image_is_reported(image, tmp_path):
    model = small_model(pixel_size=(0.62, 0.25))
    started = predict(image, tmp_path / "out", model, stream=StreamOptions())[0]
    assert isinstance(started, StreamStarted)
    assert started.notes[1] == (
        "a.tif: 0.5 micrometre per pixel, the model was trained at 0.62; results may be poor; another --level may fit "
        "better"
    )


def test_rescaled_results_lie_on_the_original_grid(image, tmp_path):
    model = small_model(pixel_size=(1.0, 0.5))  # half the resolution of the image
    predict(image, tmp_path / "out", model, rescale=True)
    pixels = picture()
    half = resize(
        measure_normalization(pixels, "standardize")(pixels),
        (1, SHAPE[0] // 2, SHAPE[1] // 2),
        order=1,
        anti_aliasing=True,
    )
    probabilities = drain(predict_probabilities(model.net, ArraySource(half.astype(np.float32))))
    back = resize(probabilities, (2, *SHAPE), order=1, anti_aliasing=True).astype(np.float32)
    labels = read_labels(tmp_path / "out" / "a_labels.tif")
    np.testing.assert_array_equal(labels.frames[0], decode("border", back))
    assert labels.pixel_size == pytest.approx(PIXEL_SIZE)
    assert len(table(tmp_path / "out")) == labels.frames[0].max() > 0


def test_rescaling_without_pixel_sizes_is_refused(image, tmp_path):
    bare = write_tiff(tmp_path / "bare.tif", picture()[0])
    with pytest.raises(ImageError, match=r"--rescale needs pixel sizes, but bare\.tif has none; leave --rescale out"):
        predict(bare, tmp_path / "out", small_model(pixel_size=PIXEL_SIZE), rescale=True)
    with pytest.raises(ImageError, match=r"--rescale needs pixel sizes, but the model has none"):
        predict(image, tmp_path / "out", rescale=True)
    assert not (tmp_path / "out").exists()


def test_a_broken_file_is_reported_before_anything_is_computed(image, tmp_path):
    broken = tmp_path / "b.tif"
    broken.write_text("no image")
    with pytest.raises(ImageError, match=r"b\.tif is not a TIFF"):
        predict([image, broken], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_too_little_memory_is_reported_before_anything_is_written(image, tmp_path):
    with pytest.raises(
        ConfigError, match=r"too little for a single tile of this network; use at least --max-memory \d+MB"
    ):
        predict(image, tmp_path / "out", max_memory=1000)
    assert not (tmp_path / "out").exists()


def test_colours_for_a_grey_model_need_a_channel(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 255, (*SHAPE, 3)).astype(np.uint8)
    write_png(tmp_path / "rgb.png", rgb)
    message = r"rgb\.png has 3 channels, but the model was trained on 1; choose one with --channel 0\.\.2"
    with pytest.raises(ImageError, match=message):
        predict(tmp_path / "rgb.png", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    predict(tmp_path / "rgb.png", tmp_path / "out", channel=2)
    labels = read_labels(tmp_path / "out" / "rgb_labels.tif").frames[0]
    np.testing.assert_array_equal(labels, MODEL.predict(rgb[..., 2]).labels)


def test_a_folder_that_cannot_be_written_to_is_refused_before_the_work(image, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "segment", None)
    with pytest.raises(OutputError, match="cannot write"):
        predict(image, image / "out")


def test_a_prediction_leaves_weights_threads_and_environment_as_they_were(image, tmp_path, monkeypatch):
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
    calls: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", calls.append)
    weights = [(weight.data_ptr(), weight.stride()) for weight in MODEL.net.parameters()]
    environment = dict(os.environ)
    for settings in ({}, {"stream": StreamOptions(verify=1)}):
        predict(image, tmp_path / f"out{len(settings)}", **settings)
    assert calls == []
    assert dict(os.environ) == environment
    assert [(weight.data_ptr(), weight.stride()) for weight in MODEL.net.parameters()] == weights
