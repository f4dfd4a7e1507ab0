"""Streamed prediction as a user has it: real files, real processes, and what goes wrong."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

import septum
from septum.data.images import open_image
from septum.data.simulate import cells
from tests.cli.test_commands import assert_refused, grow, run, small_disk, spawn
from tests.prediction.streaming.test_job import make_model, tree

# dask's own: sockets that its processes leave to the garbage collector
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
SHAPE = (96, 130)


def picture(seed=0):
    return cells(SHAPE, 12, seed, diameter=16)[0][0]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model"))


def predict(model, path, output, *words):
    outcome = run("predict", model, path, "--output", output, "--format", "zarr", *words)
    assert outcome.code == 0, outcome.err
    return outcome


def labels_of(output, name="a"):
    """(frames..., Y, X) labels of a result, read by zarr alone."""
    return zarr.open_group(output / f"{name}_labels.ome.zarr", mode="r")["0"][:]


def write_pyramid(path, image):
    with tifffile.TiffWriter(path, ome=True) as tif:
        metadata = {"axes": "YX", "PhysicalSizeY": 0.5, "PhysicalSizeX": 0.5}
        tif.write(image, subifds=1, tile=(32, 32), compression="zlib", metadata=metadata)
        tif.write(image[::2, ::2], subfiletype=1, tile=(32, 32), metadata=None)


def write_ome_zarr(path, image, version, axes="yx"):
    """Two levels, the second of every second pixel; `image` has the axes named, y and x last."""
    scale = [[1.0] * (image.ndim - 2) + [step, step] for step in (0.5, 1.0)]
    datasets = [
        {"path": str(n), "coordinateTransformations": [{"type": "scale", "scale": one}]} for n, one in enumerate(scale)
    ]
    kinds = {"t": "time", "c": "channel"}
    described = [{"name": axis, "type": kinds.get(axis, "space")} for axis in axes]
    multiscales = {"version": version, "axes": described, "datasets": datasets}
    attributes = (
        {"multiscales": [multiscales]}
        if version == "0.4"
        else {"ome": {"version": version, "multiscales": [multiscales]}}
    )
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3, attributes=attributes)
    for n, level in enumerate((image, image[..., ::2, ::2])):
        group.create_array(str(n), data=level, chunks=(1,) * (image.ndim - 2) + (32, 32))


# A way to store images (frames, Y, X), and the name of the file.
FORMATS = {
    "pyramidal OME-TIFF": ("a.ome.tif", lambda path, frames: write_pyramid(path, frames[0])),
    "striped TIFF": (
        "a.tif",
        lambda path, frames: tifffile.imwrite(path, frames[0], rowsperstrip=7, compression="zlib"),
    ),
    "BigTIFF": ("a.btf", lambda path, frames: tifffile.imwrite(path, frames[0], bigtiff=True)),
    "ImageJ stack": (
        "a.tif",
        lambda path, frames: tifffile.imwrite(path, frames, imagej=True, metadata={"axes": "ZYX"}),
    ),
    "OME-TIFF of T and Z": (
        "a.ome.tif",
        lambda path, frames: tifffile.imwrite(path, np.stack([frames, frames[::-1]]), metadata={"axes": "TZYX"}),
    ),
    "OME-Zarr 0.4": ("a.ome.zarr", lambda path, frames: write_ome_zarr(path, frames, "0.4", "zyx")),
    "OME-Zarr 0.5": ("a.ome.zarr", lambda path, frames: write_ome_zarr(path, frames[None], "0.5", "tzyx")),
    "NumPy": ("a.npy", lambda path, frames: np.save(path, frames[0])),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMATS)
def test_the_labels_do_not_depend_on_the_format(model, tmp_path, form):
    name, write = FORMATS[form]
    frames = np.stack([picture(seed) for seed in range(2)])
    np.save(tmp_path / "0.npy", frames[0])
    np.save(tmp_path / "1.npy", frames[1])
    expected = []
    for seed in range(2):
        predict(model, tmp_path / f"{seed}.npy", tmp_path / "one")
        expected.append(labels_of(tmp_path / "one", str(seed)))
    write(tmp_path / name, frames)
    predict(model, tmp_path / name, tmp_path / "out")
    found = labels_of(tmp_path / "out")
    whole = {2: expected[0], 3: np.stack(expected), 4: np.stack([np.stack(expected)])}[found.ndim]
    if form == "OME-TIFF of T and Z":
        whole = np.stack([expected, expected[::-1]])
    np.testing.assert_array_equal(found, whole)


@pytest.mark.parametrize("version", ["tiff", "0.4", "0.5"])
def test_level_channel_and_region(model, tmp_path, version):
    image = np.stack([picture(0), picture(1)])
    if version == "tiff":
        write_pyramid(tmp_path / "a.ome.tif", image[1])
        path, words = tmp_path / "a.ome.tif", ()
    else:
        write_ome_zarr(tmp_path / "a.ome.zarr", image, version, "cyx")
        path, words = tmp_path / "a.ome.zarr", ("--channel", 1)
    predict(model, path, tmp_path / "out", *words, "--level", 1)
    predict(model, path, tmp_path / "part", *words, "--level", 1, "--region", "5:40,10:61")
    np.save(tmp_path / "b.npy", image[1, ::2, ::2])
    predict(model, tmp_path / "b.npy", tmp_path / "expected")
    np.testing.assert_array_equal(labels_of(tmp_path / "out"), labels_of(tmp_path / "expected", "b"))
    found = [
        zarr.open_group(tmp_path / name / f"{stem}_probabilities.ome.zarr", mode="r")["0"][:]
        for name, stem in (("part", "a"), ("expected", "b"))
    ]
    np.testing.assert_array_equal(found[0], found[1][:, 5:40, 10:61])
    for bad, sentence in (
        ("--level 2", "has 2 resolution levels, counted from 0, but level 2 was requested; choose one of 0..1"),
        ("--channel 9", "counted from 0, but channel 9 was requested"),
    ):
        outcome = run("predict", model, path, "--output", tmp_path / "bad", *words, *bad.split())
        assert_refused(outcome, sentence)
    assert not (tmp_path / "bad").exists()


def test_mask_preview_tiff_and_float16(model, tmp_path):
    image = picture()
    np.save(tmp_path / "a.npy", image)
    mask = np.zeros(SHAPE, np.uint8)
    mask[20:70, 30:100] = 255
    tifffile.imwrite(tmp_path / "mask.tif", mask)
    predict(model, tmp_path / "a.npy", tmp_path / "out", "--mask", tmp_path / "mask.tif", "--probabilities", "float16")
    labels = labels_of(tmp_path / "out")
    assert labels[mask == 0].max() == 0 < labels.max()
    stored = zarr.open_group(tmp_path / "out" / "a_probabilities.ome.zarr", mode="r")["0"]
    assert stored.dtype == np.float16
    words = "--mask", tmp_path / "mask.tif", "--format", "tiff", "--probabilities", "float16"
    assert run("predict", model, tmp_path / "a.npy", "--output", tmp_path / "tiff", *words).code == 0
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "tiff" / "a_labels.tif"), labels)
    assert tifffile.imread(tmp_path / "tiff" / "a_probabilities.tif").dtype == np.float32
    assert run("predict", model, tmp_path / "a.npy", "--output", tmp_path / "look", "--preview").code == 0
    assert list(tree(tmp_path / "look")) == ["a_preview.png"]
    assert open_image(tmp_path / "look" / "a_preview.png").frames[0].shape == (3, *SHAPE)
    for words in (("--region", "0:50,0:50"), ("--mask", tmp_path / "mask.tif"), ("--tta", 8), ("--workers", 2)):
        outcome = run("predict", model, tmp_path / "a.npy", "--output", tmp_path / "no", "--preview", *words)
        assert_refused(outcome, f"--preview shows the whole first frame at low resolution, so {words[0]} has no effect")
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(("kind", "said"), [("classes", "a.npy: done"), ("instances", r"a.npy: \d+ objects?")])
def test_objects_are_counted_where_there_are_any(tmp_path, kind, said):
    network = make_model(tmp_path, kind=kind, classes=3 if kind == "classes" else 2)
    np.save(tmp_path / "a.npy", picture())
    for words in ((), ("--format", "zarr")):
        outcome = run("predict", network, tmp_path / "a.npy", "--output", tmp_path / f"out{len(words)}", *words)
        assert outcome.out == f"1 image -> {tmp_path / f'out{len(words)}'}\n"
        assert re.search(rf"^{said}\s*$", outcome.err, re.MULTILINE), outcome.err


def test_an_ome_zarr_that_fits_into_memory_is_an_image_like_others(model, tmp_path):
    write_ome_zarr(tmp_path / "a.ome.zarr", picture(), "0.5", "yx")
    np.save(tmp_path / "b.npy", picture())
    for name in ("a.ome.zarr", "b.npy"):
        assert run("predict", model, tmp_path / name, "--output", tmp_path / "out").code == 0
    first, second = (tifffile.imread(tmp_path / "out" / f"{name}_labels.tif") for name in "ab")
    np.testing.assert_array_equal(first, second)
    again = run("predict", model, tmp_path / "a.ome.zarr", "--output", tmp_path / "out")
    assert "already done, skipped" in again.err


def test_the_plan_is_printed_before_and_the_certificate_after(model, tmp_path):
    np.save(tmp_path / "a.npy", picture())
    outcome = predict(model, tmp_path / "a.npy", tmp_path / "out", "--verify", 3)
    assert re.search(
        r"96 x 130 pixels in 1 tile of \d+ x \d+; 0\.0 % more computation than in one pass; \d+ MB of memory in "
        r"addition to the program; about \d+ s, of which the network takes \d+ s",
        outcome.err,
    )
    assert re.search(r"a\.npy: 3 regions verified, largest difference 0\.00\d+ .*, 0 differing labels", outcome.out)
    again = predict(model, tmp_path / "a.npy", tmp_path / "out")
    assert "already done, skipped" in again.err


def test_a_budget_that_is_too_small_names_one_that_works(model, tmp_path):
    np.save(tmp_path / "a.npy", picture())
    words = ("predict", model, tmp_path / "a.npy", "--output", tmp_path / "out", "--format", "zarr", "--max-memory")
    outcome = run(*words, "100MB")
    assert_refused(
        outcome, "100 MB of memory are too little for a single tile of this network; use at least --max-memory"
    )
    named = re.search(r"--max-memory (\d+MB)", outcome.err)[1]
    assert not (tmp_path / "out").exists()
    assert run(*words, named).code == 0


def broken_strip(folder, form):
    """An image whose data are broken in the middle, and how to repair it."""
    if form == "tiff":
        path = folder / "a.tif"
        tifffile.imwrite(path, picture(), rowsperstrip=8, compression="zlib")
        with tifffile.TiffFile(path) as tif:
            offset = tif.pages[0].dataoffsets[6]
        broken = path
    else:
        path = folder / "a.ome.zarr"
        write_ome_zarr(path, picture(), "0.5")
        broken, offset = path / "0" / "c" / "1" / "2", 0
    good = broken.read_bytes()
    broken.write_bytes(good[:offset] + b"\xff" * 60 + good[offset + 60 :])
    return path, lambda: broken.write_bytes(good)


@pytest.mark.parametrize("form", ["tiff", "zarr"])
def test_broken_data_in_the_middle(model, tmp_path, form):
    path, repair = broken_strip(tmp_path, form)
    outcome = run("predict", model, path, "--output", tmp_path / "out", "--format", "zarr")
    assert_refused(outcome, path.name, "is damaged or", "cannot be decoded", "copy")
    assert (tmp_path / "out" / "a_work" / "plan.json").exists()
    repair()  # the brightness could not be measured, so that nothing depends on the image as it was
    predict(model, path, tmp_path / "out")
    predict(model, path, tmp_path / "whole")
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_inputs_that_do_not_fit(model, tmp_path):
    group = zarr.open_group(tmp_path / "plain.zarr", mode="w")
    group.create_array("0", data=picture())
    tifffile.imwrite(tmp_path / "two.ome.tif", np.stack([picture()] * 2), metadata={"axes": "CYX"})
    (tmp_path / "empty.zarr").mkdir()
    for name, *fragments in (
        ("plain.zarr", "plain.zarr is a Zarr group without OME metadata", "name an image inside, such as"),
        ("two.ome.tif", "two.ome.tif has 2 channels, but the model was trained on 1; choose one with --channel 0..1"),
        ("empty.zarr", "the folder", "contains no image"),
    ):
        outcome = run("predict", model, tmp_path / name, "--output", tmp_path / "out", "--format", "zarr")
        assert_refused(outcome, *fragments)
    assert not (tmp_path / "out").exists()


def test_results_of_another_model_or_setting_are_refused(model, tmp_path):
    np.save(tmp_path / "a.npy", picture())
    predict(model, tmp_path / "a.npy", tmp_path / "out")
    before = tree(tmp_path / "out")
    (tmp_path / "other").mkdir()
    other = make_model(tmp_path / "other", decoding={"smallest_object": 9})
    words = "--output", tmp_path / "out", "--format", "zarr"
    assert_refused(run("predict", other, tmp_path / "a.npy", *words), "belongs to a result with another model")
    assert_refused(
        run("predict", model, tmp_path / "a.npy", *words, "--tta", 8), "belongs to a result with another tta"
    )
    np.save(tmp_path / "a.npy", picture(1))
    assert_refused(run("predict", model, tmp_path / "a.npy", *words), "belongs to a result with another image")
    assert tree(tmp_path / "out") == before


@pytest.mark.parametrize("size", [24, 60, 90, 120])  # kilobytes
def test_a_disk_that_fills_up(model, tmp_path, size):
    image = np.random.default_rng(0).integers(0, 255, (200, 300)).astype(np.uint8)
    np.save(tmp_path / "a.npy", image)
    predict(model, tmp_path / "a.npy", tmp_path / "whole")
    with small_disk(tmp_path / "disk", f"size={size}k"):
        words = "predict", model, tmp_path / "a.npy", "--output", tmp_path / "disk", "--format", "zarr"
        assert_refused(run(*words), "cannot write", "the disk is full; free some space or choose another folder")
        assert tree(tmp_path / "disk")
        grow(tmp_path / "disk")
        assert run(*words).code == 0
        assert tree(tmp_path / "disk") == tree(tmp_path / "whole")


@contextmanager
def dask_processes(workers):
    """A real scheduler and real workers on this machine: (address, processes of the workers)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    environment = os.environ | {"PYTHONPATH": str(Path(septum.__file__).parents[1])}
    dask = (
        [sys.executable, "-m", "distributed.cli.dask_scheduler"],
        [sys.executable, "-m", "distributed.cli.dask_worker"],
    )
    commands = [[*dask[0], "--host", "127.0.0.1", "--port", address.rpartition(":")[2], "--no-dashboard"]]
    commands += [[*dask[1], address, "--nworkers", "1", "--nthreads", "1", "--no-nanny", "--no-dashboard"]] * workers
    quiet = {"env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    running = [subprocess.Popen(command, **quiet) for command in commands]
    try:
        import distributed

        with distributed.Client(address, timeout=60) as client:
            if workers:
                client.wait_for_workers(workers, timeout=60)
        yield address, running[1:]
    finally:
        for process in running:
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.posix
def test_a_cluster_survives_the_kill_of_a_worker(model, tmp_path):
    pytest.importorskip("distributed")
    image = np.concatenate([np.concatenate([picture(y + 3 * x) for x in range(9)], axis=1) for y in range(12)])
    np.save(tmp_path / "a.npy", image)
    words = "--region", "3:1150,5:1160", "--max-memory", "2GB"
    with dask_processes(2) as (address, workers):
        environment = os.environ | {"PYTHONPATH": str(Path(septum.__file__).parents[1])}
        command = [
            sys.executable,
            "-m",
            "septum",
            "predict",
            model,
            tmp_path / "a.npy",
            "--output",
            tmp_path / "out",
        ]
        asked = subprocess.Popen(
            [*map(str, command), *words, "--cluster", address, "--quiet"],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        while asked.poll() is None and not list((tmp_path / "out").glob("a_work/frame0/components/*.npz")):
            time.sleep(0.01)
        workers[0].kill()
        _, said = asked.communicate(timeout=120)
        assert asked.returncode == 0, said
    assert workers[0].returncode == -signal.SIGKILL
    plan = tmp_path / "alone" / "a_work" / "plan.json"
    plan.parent.mkdir(parents=True)
    shutil.copy(tmp_path / "out" / "a_plan.json", plan)
    predict(model, tmp_path / "a.npy", tmp_path / "alone", *words)
    assert tree(tmp_path / "out") == tree(tmp_path / "alone")


def test_a_scheduler_that_does_not_answer_or_has_no_workers(model, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr("septum.prediction.streaming.cluster.CONNECT_SECONDS", 2)
    patience, connect = [], distributed.Client
    monkeypatch.setattr(
        distributed, "Client", lambda at, timeout: patience.append(timeout) or connect(at, timeout=timeout)
    )
    np.save(tmp_path / "a.npy", picture())
    words = "predict", model, tmp_path / "a.npy", "--output", tmp_path / "out", "--cluster"
    for address in ("tcp://127.0.0.1:9", "nonsense"):
        assert_refused(run(*words, address), f"no dask scheduler answers at {address}; start one with: dask scheduler")
    assert patience == [2, 2]
    assert_refused(
        run(*words, "tcp://127.0.0.1:9", "--workers", 2), "--cluster uses its own workers; give only one of them"
    )
    with dask_processes(0) as (address, _):
        assert_refused(
            run(*words, address), f"the dask scheduler at {address} has no workers; start some with: dask worker"
        )


@pytest.mark.slow
def test_an_error_in_a_worker_is_one_sentence(model, tmp_path):
    pytest.importorskip("distributed")
    path, _ = broken_strip(tmp_path, "zarr")
    outcome = spawn("predict", model, path, "--output", tmp_path / "out", "--workers", 2)
    assert_refused(outcome, path.name, "is damaged or", "cannot be decoded", "copy")


def test_results_without_their_plan_are_refused(model, tmp_path):
    np.save(tmp_path / "a.npy", picture())
    predict(model, tmp_path / "a.npy", tmp_path / "out")
    whole = tree(tmp_path / "out")
    (tmp_path / "out" / "a_objects.csv").unlink()
    (tmp_path / "other").mkdir()
    other = make_model(tmp_path / "other", decoding={"smallest_object": 9})
    words = tmp_path / "a.npy", "--output", tmp_path / "out", "--format", "zarr"
    assert_refused(run("predict", other, *words), "belongs to a result with another model")
    assert run("predict", model, *words).code == 0
    assert tree(tmp_path / "out") == whole
    (tmp_path / "out" / "a_plan.json").unlink()
    assert_refused(run("predict", other, *words), "exists without a_plan.json, which records how it was made")
    images = [tmp_path / "b.tif", tmp_path / "b.ome.tif"]
    for one in images:
        tifffile.imwrite(one, picture())
    assert_refused(
        run("predict", model, *images, "--output", tmp_path / "out"), "would write results with the same names"
    )
