"""What is written chunk by chunk is read back, is valid, and is the same bytes in any order and after any kill."""

import os
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest
import tifffile
from ome_zarr_models import open_ome_zarr

from septum.core.tiling import blocks
from septum.data.images import open_image
from septum.data.sinks import ZarrOutput, create_zarr, halve, open_zarr_output, quantize, write_tiff
from septum.errors import OutputError

SHAPE, CHUNK = (1301, 201), (256, 128)
GRIDS = {"one": (), "stack": (("Z", 2),), "both": (("Z", 2), ("T", 3)), "pages": (("I", 2),)}
CASES = [
    ("labels", "uint32", "one"), ("labels", "uint32", "both"), ("classes", "uint8", "pages"),
    ("probabilities", "uint8", "both"), ("probabilities", "float16", "one"), ("probabilities", "float16", "stack"),
]  # fmt: skip


def values_of(kind, dtype, frames, shape=SHAPE):
    rng = np.random.default_rng(frames)
    high = {"uint32": 2**32, "uint8": 256, "float16": 2}[dtype]
    return rng.integers(0, high, (frames, 3 if kind == "probabilities" else 1, *shape)).astype(dtype)


def regions(shape=SHAPE, chunk=CHUNK):
    return list(blocks(shape, chunk, chunk[0] * chunk[1]))


def fill(output: ZarrOutput, values, order=slice(None)):
    for sink, frame in zip(output.frames, values, strict=True):
        for region in regions(sink.shape[1:], sink.chunk)[order]:
            sink.write(region, frame[(slice(None), *region)])


def tree(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def make(path, kind="labels", dtype="uint32", grid=(), shape=SHAPE, chunk=CHUNK):
    values = values_of(kind, dtype, int(np.prod([n for _, n in grid], dtype=int)), shape)
    output = create_zarr(
        path, kind=kind, shape=values.shape[1:], chunk=chunk, dtype=dtype, grid=grid, pixel_size=(0.25, 0.5)
    )
    return output, values


def slow_halves(values):
    """Two-by-two means by adding shifted images, each pixel by how many of the four are there."""
    wide = np.pad(values.astype(np.float64), [(0, 0), (0, 1), (0, 1)], constant_values=np.nan)[
        :, : values.shape[1] + values.shape[1] % 2, : values.shape[2] + values.shape[2] % 2
    ]
    mean = np.nanmean([wide[:, y::2, x::2] for y in (0, 1) for x in (0, 1)], axis=0)
    return (np.floor(mean + 0.5) if values.dtype.kind == "u" else mean.astype(np.float32)).astype(values.dtype)


@pytest.mark.parametrize(("kind", "dtype", "grid"), CASES)
def test_every_frame_of_zarr_and_tiff_is_read_at_every_level(kind, dtype, grid, tmp_path):
    output, values = make(tmp_path / "a.ome.zarr", kind, dtype, GRIDS[grid])
    fill(output, values)
    output.finish()
    open_ome_zarr(tmp_path / "a.ome.zarr", version="0.5")
    write_tiff(tmp_path / "a.ome.tif", output)
    order = [0, 3, 1, 4, 2, 5] if grid == "both" else range(len(values))  # OME has time before depth
    for level in range(3):
        images = [open_image(tmp_path / name, level=level) for name in ("a.ome.zarr", "a.ome.tif")]
        for image in images:
            assert image.pixel_size == (0.25 * 2**level, 0.5 * 2**level)
            assert image.levels == ((1301, 201), (651, 101), (326, 51))
            for frame, expected in zip(image.frames, values[list(order)], strict=True):
                np.testing.assert_array_equal(frame.read(), expected)
        for sink, expected in zip(output.levels[level], values, strict=True):
            np.testing.assert_array_equal(sink.read((slice(0, 300), slice(9, 50))), expected[:, :300, 9:50])
        halves = slow_halves if kind == "probabilities" else lambda frame: frame[:, ::2, ::2]
        values = np.stack([halves(frame) for frame in values])


def test_the_same_bytes_in_any_order_and_after_a_break(tmp_path):
    grid = GRIDS["stack"]
    for name, orders in (("a", [slice(None)]), ("b", [slice(None, None, -1)]), ("c", [slice(0, 3), slice(3, None)])):
        for order in orders:
            output, values = make(tmp_path / name / "x.zarr", "probabilities", "uint8", grid)
            fill(output, values, order)
        if name == "c":
            (tmp_path / name / "x.zarr/0/c/0/0/0/0.abc.partial").touch()  # what a killed writer leaves
            coarse = slow_halves(values[0])[:, :256]  # a part of the pyramid is there already
            output.levels[1][0].write((slice(0, 256), slice(0, 101)), coarse)
        output.finish()
        write_tiff(tmp_path / name / "x.tif", output)
    assert tree(tmp_path / "a") == tree(tmp_path / "b") == tree(tmp_path / "c")
    output.frames[0].write(regions()[0], 0 * values[0][:, :256, :128])
    write_tiff(tmp_path / "c/x.tif", output)
    before, after = (tifffile.tiffcomment(tmp_path / name / "x.tif") for name in ("a", "c"))
    assert before != after  # other pixels, another UUID


WRITER = """
import numpy as np, sys
sys.path.insert(0, sys.argv[2])
from test_sinks import make, fill
output, values = make(sys.argv[1])
while True:
    fill(output, values)
"""


@pytest.mark.slow
def test_a_killed_writer_leaves_whole_chunks_only(tmp_path):
    output, values = make(tmp_path / "whole.zarr")
    fill(output, values)
    output.finish()
    folder = tmp_path / "killed.zarr"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, folder, os.path.dirname(__file__)])
    while not (folder / "0/c/1/1").exists():
        assert writer.poll() is None
        time.sleep(0.003)
    writer.kill()
    writer.wait()
    output = open_zarr_output(folder)
    sink = output.frames[0]
    done = [region for region in regions() if sink.is_done(region)]
    assert done
    for region in regions():
        if region in done:
            np.testing.assert_array_equal(sink.read(region), values[0][(slice(None), *region)])
        else:
            sink.write(region, values[0][(slice(None), *region)])
    output.finish()
    assert tree(folder) == tree(tmp_path / "whole.zarr")


def test_a_chunk_that_exists_is_done_even_if_it_is_all_background(tmp_path):
    output, _ = make(tmp_path / "a.zarr", grid=GRIDS["both"])
    sink, other = output.frames[1], output.frames[2]
    first, second = regions()[:2]
    assert not sink.is_done(first)
    sink.write(first, np.zeros((1, 256, 128), np.uint32))
    assert sink.is_done(first)
    assert not sink.is_done(second)
    assert not sink.is_done((slice(0, 256), slice(0, 201)))
    assert not other.is_done(first)
    assert open_zarr_output(tmp_path / "a.zarr").frames[1].is_done(first)


@pytest.mark.parametrize(
    "region", [(slice(0, 256), slice(0, 127)), (slice(1, 256), slice(0, 128)), (slice(1280, 1300), slice(128, 201))]
)
def test_parts_of_chunks_cannot_be_written(region, tmp_path):
    output, values = make(tmp_path / "a.zarr")
    with pytest.raises(ValueError, match=r"does not consist of whole chunks of \(256, 128\) pixels"):
        output.frames[0].write(region, values[0][(slice(None), *region)])


def test_small_images_have_one_level_and_no_larger_chunks(tmp_path):
    for shape in ((1, 1), (1, 700), (300, 512)):
        output, values = make(tmp_path / f"{shape}.zarr", shape=shape, chunk=(1024, 1024))
        fill(output, values)
        output.finish()
        write_tiff(tmp_path / f"{shape}.tif", output)
        assert len(output.levels) == (2 if 700 in shape else 1)
        for suffix in ("zarr", "tif"):
            np.testing.assert_array_equal(open_image(tmp_path / f"{shape}.{suffix}").frames[0].read(), values[0])


def test_labels_in_an_image_are_listed_and_valid(tmp_path):
    image, values = make(tmp_path / "a.zarr", "probabilities", "float16")
    fill(image, values)
    for name in ("nuclei", "cells"):
        output, values = make(tmp_path / "a.zarr/labels" / name)
        fill(output, values)
        output.finish()
    image.finish()
    model = open_ome_zarr(tmp_path / "a.zarr", version="0.5")
    assert model.labels.attributes.ome.labels == ["cells", "nuclei"]
    np.testing.assert_array_equal(open_image(tmp_path / "a.zarr/labels/cells").frames[0].read(), values[0])


def test_a_folder_called_labels_outside_of_images_stays_a_folder(tmp_path):
    make(tmp_path / "labels" / "a.ome.zarr")
    assert [entry.name for entry in (tmp_path / "labels").iterdir()] == ["a.ome.zarr"]


def test_an_output_of_another_layout_is_not_touched(tmp_path):
    output, values = make(tmp_path / "a.zarr")
    fill(output, values)
    before = tree(tmp_path)
    for options in ({"kind": "classes", "dtype": "uint8"}, {"grid": GRIDS["stack"]}, {"shape": (1301, 3000)}):
        with pytest.raises(OutputError, match=r"a.zarr exists with other contents; choose another name"):
            make(tmp_path / "a.zarr", **options)
    for options in ({"chunk": (128, 128)}, {"shape": (1300, 201)}):
        with pytest.raises(OutputError, match=r"a.zarr exists with uint32 \(1301, 201\) in chunks of \(256, 128\);"):
            make(tmp_path / "a.zarr", **options)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/notes.txt").touch()
    with pytest.raises(OutputError, match=r"folder exists with other contents"):
        make(tmp_path / "folder")
    with pytest.raises(
        OutputError, match=r"folder is not a result of Septum that can be continued; choose another name"
    ):
        open_zarr_output(tmp_path / "folder")
    with pytest.raises(OutputError, match=r"cannot write .*notes.txt: Not a directory"):
        make(tmp_path / "folder/notes.txt")
    (tmp_path / "folder/notes.txt").unlink()
    assert tree(tmp_path) == before


def test_a_full_disk_gives_one_sentence_and_keeps_what_is_done(tmp_path, file_size_limit):
    output, values = make(tmp_path / "a.zarr")
    sink, (first, second, *_) = output.frames[0], regions()
    sink.write(first, values[0][(slice(None), *first)])
    with file_size_limit(50_000):
        for write in (
            lambda: sink.write(second, values[0][(slice(None), *second)]),
            lambda: write_tiff(tmp_path / "a.tif", output),
        ):
            with pytest.raises(OutputError, match=r"cannot write .*a.(zarr|tif): the disk is full; free some space"):
                write()
    with file_size_limit(100), pytest.raises(OutputError, match=r"cannot write .*b.zarr: the disk is full"):
        make(tmp_path / "b.zarr")
    make(tmp_path / "b.zarr")
    assert sink.is_done(first)
    assert not sink.is_done(second)
    assert not (tmp_path / "a.tif").exists()
    assert not list(tmp_path.rglob("*.partial"))


def test_a_tiff_that_may_exceed_four_gigabytes_is_a_bigtiff(tmp_path, monkeypatch):
    output, values = make(tmp_path / "a.zarr")
    fill(output, values)
    for limit, big in ((10**9, False), (1301 * 201 * 4, True)):
        monkeypatch.setattr("septum.data.sinks.CLASSIC_TIFF_BYTES", limit)
        write_tiff(tmp_path / "a.tif", output)
        with tifffile.TiffFile(tmp_path / "a.tif") as tif:
            assert tif.is_bigtiff == big


def test_probabilities_are_rounded_to_the_nearest_step():
    values = np.linspace(0, 1, 10001, dtype=np.float32)
    assert np.abs(quantize(values, np.uint8) / 255 - values).max() < 0.5 / 255 + 1e-6
    np.testing.assert_array_equal(quantize(np.arange(256) / 255, np.uint8), np.arange(256))
    np.testing.assert_array_equal(quantize(quantize(values, np.uint8), np.uint8), quantize(values, np.uint8))


def test_halving_keeps_the_extremes():
    for value in (0, 255):
        np.testing.assert_array_equal(halve(np.full((2, 5, 4), value, np.uint8)), value)


def test_pyramid_and_tiff_are_made_in_little_memory(tmp_path):
    shape = (1, 8192, 8192)
    output = create_zarr(tmp_path / "a.zarr", kind="labels", shape=shape, chunk=(1024, 1024))
    output.frames[0].write((slice(1024, 2048), slice(0, 1024)), np.ones((1, 1024, 1024), np.uint32))
    output.levels[1][0].read((slice(0, 1), slice(0, 1)))  # what is loaded once
    seen = []
    tracemalloc.start()
    output.finish(lambda *progress: seen.append(progress))
    assert tracemalloc.get_traced_memory()[1] < 60 * 2**20  # the whole is 256 MiB
    tracemalloc.reset_peak()
    write_tiff(tmp_path / "a.tif", output)
    assert tracemalloc.get_traced_memory()[1] < 60 * 2**20
    tracemalloc.stop()
    assert seen == [(done, 16 + 4 + 1 + 1) for done in range(1, 23)]
