"""What every Source and every Sink promises, whatever it reads from or writes to."""

import ast
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from septum.core.normalize import Normalization, NormalizedSource
from septum.core.region import whole
from septum.core.tiling import ArraySink, ArraySource, blocks
from septum.core.tta import Rotated, Turned, transformed
from septum.data.images import fit_channels, open_image
from septum.data.sinks import create_zarr

SOURCE = Path(__file__).parents[1] / "src" / "septum"
SHAPE = (2, 45, 70)
PIXELS = np.random.default_rng(0).integers(0, 200, SHAPE).astype(np.uint8)


def of_array(tmp_path):
    return ArraySource(PIXELS), PIXELS


def normalized(tmp_path):
    normalization = Normalization((3.0, -1.0), (2.0, 0.5))
    return NormalizedSource(ArraySource(PIXELS), normalization), normalization(PIXELS)


def turned(tmp_path):
    version = Turned(SHAPE[1:], 3, True)
    return version.view(ArraySource(PIXELS)), np.rot90(PIXELS, 3, axes=(1, 2))[:, :, ::-1]


def rotated(tmp_path):
    version = Rotated(SHAPE[1:], 0.3)
    pixels = PIXELS.astype(np.float32)
    return version.view(ArraySource(pixels)), transformed(version, pixels)


def of_tiff(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, metadata={"axes": "CYX"}, tile=(16, 16), ome=True)
    return open_image(tmp_path / "a.tif").frames[0], PIXELS


def of_npy(tmp_path):
    np.save(tmp_path / "a.npy", PIXELS)
    return open_image(tmp_path / "a.npy", channel=1).frames[0], PIXELS[1:]


def grey_of_colours(tmp_path):
    """Grey that was saved as RGB."""
    tifffile.imwrite(tmp_path / "a.tif", np.stack([PIXELS[0]] * 3, -1), photometric="rgb")
    return fit_channels(open_image(tmp_path / "a.tif").frames[0], 1), PIXELS[:1]


def zarr_sink(tmp_path, chunk=(16, 32)):
    path = tmp_path / "a.ome.zarr"
    return create_zarr(path, kind="probabilities", shape=SHAPE, chunk=chunk, dtype="uint8").frames[0]


def written_zarr(tmp_path):
    sink = zarr_sink(tmp_path)
    sink.write(whole(SHAPE[1:]), PIXELS)
    return sink, PIXELS


SOURCES = [of_array, normalized, turned, rotated, of_tiff, of_npy, grey_of_colours, written_zarr]


def array_sink(tmp_path):
    sink = ArraySink(SHAPE, np.uint8)
    return sink, (1, 1), lambda: sink.array


def sink_in_zarr(tmp_path):
    sink = zarr_sink(tmp_path)
    return sink, sink.chunk, lambda: sink.read(whole(SHAPE[1:]))


SINKS = [array_sink, sink_in_zarr]


def classes_with(method):
    """The names of the classes in src whose method of this name takes a region, without protocols."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and "Protocol" not in map(ast.unparse, node.bases):
                functions = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == method]
                if functions and functions[0].args.args[1].arg == "region":
                    found.add(node.name)
    return found


def test_every_source_and_sink_is_in_the_lists_above(tmp_path_factory):
    def names(makers):
        return {type(make(tmp_path_factory.mktemp("of"))[0]).__name__ for make in makers}

    assert names(SOURCES) == classes_with("read")
    assert names(SINKS) == classes_with("write")


@pytest.mark.parametrize("make", SOURCES)
def test_a_source_gives_the_pixels_of_any_region_inside_it(make, tmp_path):
    source, expected = make(tmp_path)
    assert source.shape == expected.shape
    assert len(source.chunk) == 2
    assert all(isinstance(size, int) and size > 0 for size in (*source.shape, *source.chunk))
    everything = source.read(whole(source.shape[1:]))
    np.testing.assert_array_equal(everything, expected)

    @settings(max_examples=20, deadline=None)
    @given(st.data())
    def check(data):
        ends = [sorted(data.draw(st.sets(st.integers(0, size), min_size=2, max_size=2))) for size in source.shape[1:]]
        region = tuple(slice(*pair) for pair in ends)
        part = source.read(region)
        assert part.dtype == everything.dtype
        np.testing.assert_allclose(part, expected[(slice(None), *region)], rtol=1e-5)

    check()


@pytest.mark.parametrize("make", SOURCES)
def test_blocks_of_a_source_cover_it(make, tmp_path):
    source, expected = make(tmp_path)
    result = np.full_like(expected, 255)
    for region in blocks(source.shape[1:], source.chunk, 500):
        result[(slice(None), *region)] = source.read(region)
    np.testing.assert_allclose(result, expected, rtol=1e-5)


@pytest.mark.parametrize("make", SINKS)
@pytest.mark.parametrize("seed", range(3))
def test_a_sink_keeps_what_is_written_in_any_order_and_the_last_of_what_is_written_twice(make, seed, tmp_path):
    sink, chunk, result = make(tmp_path)
    np.testing.assert_array_equal(result(), 0)
    regions = list(blocks(SHAPE[1:], chunk, 600))
    rng = np.random.default_rng(seed)
    expected = np.zeros(SHAPE, np.uint8)
    for number in [*rng.permutation(len(regions)), 0]:
        here = (slice(None), *regions[number])
        expected[here] = rng.integers(0, 256, expected[here].shape)
        sink.write(regions[number], expected[here])
        np.testing.assert_array_equal(result(), expected)
