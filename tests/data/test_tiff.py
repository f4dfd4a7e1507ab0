"""TIFFs of every layout are read by regions: the same pixels as the whole array, at every resolution level."""

import tracemalloc

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from septum.data.images import open_image
from septum.errors import ImageError

RNG = np.random.default_rng(0)
LAYOUTS = {
    "lzw tiles": {"tile": (32, 48), "compression": "lzw", "predictor": True},
    "deflate tiles": {"tile": (32, 48), "compression": "zlib"},
    "zstd tiles, big-endian": {"tile": (16, 32), "compression": "zstd", "byteorder": ">"},
    "zstd strips, BigTIFF": {"compression": "zstd", "rowsperstrip": 5, "bigtiff": True},
    "deflate strips, big-endian": {"compression": "zlib", "rowsperstrip": 7, "byteorder": ">"},
    "plain strips": {"rowsperstrip": 3},
    "plain strips, big-endian": {"rowsperstrip": 3, "byteorder": ">"},
    "plain tiles": {"tile": (16, 16)},
    "one row of tiles": {"tile": (16, 96)},
}
EDGES = st.tuples(st.integers(0, 200), st.integers(0, 200))


@pytest.fixture(scope="module", params=LAYOUTS)
def pages(request, tmp_path_factory):
    array = RNG.integers(0, 60000, (2, 70, 96)).astype(np.uint16)
    path = tmp_path_factory.mktemp("tiff") / "a.tif"
    options = LAYOUTS[request.param].copy()
    writer = {name: options.pop(name) for name in ("bigtiff", "byteorder") if name in options}
    with tifffile.TiffWriter(path, **writer) as tif:
        for page in array:  # one by one: what describes a page lies between their pixels
            tif.write(page, metadata=None, contiguous=False, **options)
    return open_image(path).frames, array


@given(rows=EDGES, columns=EDGES)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_region_is_that_of_the_whole_array(pages, rows, columns):
    frames, array = pages
    region = tuple(
        slice(min(edges) % size, min(edges) % size + 1 + max(edges) % (size - min(edges) % size))
        for edges, size in zip((rows, columns), array.shape[1:], strict=True)
    )
    for frame, pixels in zip(frames, array, strict=True):
        np.testing.assert_array_equal(frame.read(region), pixels[None, region[0], region[1]])


@pytest.mark.parametrize("shape", [(1, 700), (700, 1), (1, 1)])
@pytest.mark.parametrize("options", [{}, {"tile": (16, 16), "compression": "zlib"}, {"byteorder": ">"}])
def test_lines_of_one_pixel(shape, options, tmp_path):
    array = RNG.integers(0, 60000, shape).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", array, **options)
    frame = open_image(tmp_path / "a.tif").frames[0]
    np.testing.assert_array_equal(frame.read(), array[None])
    region = (slice(shape[0] // 2, shape[0]), slice(shape[1] // 2, shape[1]))
    np.testing.assert_array_equal(frame.read(region), array[None, region[0], region[1]])


def test_jpeg_tiles_are_decoded_one_by_one(tmp_path):
    picture = np.add.outer(np.arange(70), np.arange(90))[..., None] + np.array([0, 20, 40])
    options = {"tile": (32, 48), "compression": "jpeg", "photometric": "rgb"}
    tifffile.imwrite(tmp_path / "a.tif", picture.astype(np.uint8), **options)
    frame, decoded = open_image(tmp_path / "a.tif").frames[0], tifffile.imread(tmp_path / "a.tif")
    np.testing.assert_array_equal(frame.read(), np.moveaxis(decoded, -1, 0))
    np.testing.assert_array_equal(
        frame.read((slice(30, 40), slice(47, 90))), np.moveaxis(decoded, -1, 0)[:, 30:40, 47:]
    )
    assert np.abs(decoded - picture.astype(float)).max() < 20


@pytest.mark.parametrize("axes", ["YX", "CYX", "TCYX", "YXS"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_every_level_of_a_pyramid_is_read_with_its_pixel_size(axes, compression, tmp_path):
    """Full resolution with the coarser levels as SubIFDs, as OME-TIFF has them."""
    shape = {"T": 2, "C": 3, "Y": 101, "X": 160, "S": 3}
    array = RNG.integers(0, 255, [shape[axis] for axis in axes], np.uint8)
    rows = axes.index("Y")
    steps = [(*(slice(None),) * rows, slice(None, None, step), slice(None, None, step)) for step in (1, 2, 4)]
    options = {"tile": (32, 32), "compression": compression, "photometric": "rgb" if "S" in axes else "minisblack"}
    size = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25}
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as tif:
        tif.write(array, subifds=2, metadata={"axes": axes, **size}, **options)
        for step in steps[1:]:
            tif.write(array[step], subfiletype=1, **options)
    for level, step in enumerate(steps):
        image = open_image(tmp_path / "a.ome.tif", level=level)
        expected = array[step]
        expected = np.moveaxis(expected, -1, 0) if "S" in axes else expected
        expected = expected.reshape(-1, shape["C"] if axes != "YX" else 1, *expected.shape[-2:])
        assert image.pixel_size == (0.25 * 2**level, 0.5 * 2**level)
        assert image.levels == ((101, 160), (51, 80), (26, 40))
        assert image.grid == ((("T", 2),) if "T" in axes else ())
        assert f"resolution level {level} of 0..2" in image.description
        for frame, pixels in zip(image.frames, expected, strict=True):
            np.testing.assert_array_equal(frame.read(), pixels)
            np.testing.assert_array_equal(frame.read((slice(9, 26), slice(31, 40))), pixels[:, 9:26, 31:40])
    with pytest.raises(
        ImageError,
        match=r"a.ome.tif has 3 resolution levels, counted from 0, but level 3 was requested; choose one of 0..2",
    ):
        open_image(tmp_path / "a.ome.tif", level=3)


def test_a_file_without_levels_says_so(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 5), np.uint8))
    with pytest.raises(
        ImageError, match=r"a.tif has 1 resolution level, counted from 0, but level 1 was requested; omit the level"
    ):
        open_image(tmp_path / "a.tif", level=1)


def test_a_broken_strip_in_the_middle_is_named_and_the_others_are_read(tmp_path):
    array = RNG.integers(0, 255, (60, 40), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", array, compression="zlib", rowsperstrip=10)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        offset, count = tif.pages[0].dataoffsets[3], tif.pages[0].databytecounts[3]
    content = bytearray((tmp_path / "a.tif").read_bytes())
    content[offset : offset + count] = bytes(count)
    (tmp_path / "a.tif").write_bytes(content)
    frame = open_image(tmp_path / "a.tif").frames[0]
    np.testing.assert_array_equal(frame.read((slice(0, 30), slice(0, 40))), array[None, :30])
    np.testing.assert_array_equal(frame.read((slice(40, 60), slice(0, 40))), array[None, 40:])
    with pytest.raises(
        ImageError, match=r"a.tif is damaged or truncated \(strip or tile 3 of page 0 cannot be decoded: .*\); copy"
    ):
        frame.read()


@pytest.mark.parametrize("layout", [{"rowsperstrip": 64, "compression": "zstd"}, {"tile": (512, 512)}, {}])
def test_a_region_of_a_large_file_takes_little_memory(layout, tmp_path):
    size, stripe = 16384, np.arange(16384, dtype=np.uint8)
    options = {"shape": (size, size), "dtype": np.uint8, "metadata": None, **layout}
    page, tile = np.broadcast_to(stripe, (size, size)), np.broadcast_to(stripe[:512], (512, 512))
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(iter([tile] * 1024 if "tile" in layout else [page]) if layout else None, **options)
    tracemalloc.start()
    frame = open_image(tmp_path / "a.tif").frames[0]
    pixels = frame.read((slice(8000, 8512), slice(8000, 8512)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert pixels.shape == (1, 512, 512)
    assert peak < 20 * 2**20  # the whole is 256 MiB
