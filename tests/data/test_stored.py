"""The contract of image formats: every opener gives a `Stored` whose parts are those of the whole array.

A new format joins by one entry in `FORMATS`.
"""

from typing import NamedTuple

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from septum.data.findings import BadFile
from septum.data.images import open_stored

RNG = np.random.default_rng(0)
UM = {"imagej": True, "resolution": (4, 4), "metadata": {"axes": "ZYX", "unit": "um"}}
OME = {"ome": True, "metadata": {"axes": "TCYX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}}
CENTIMETRE = {"resolution": (40000, 40000), "resolutionunit": "CENTIMETER"}
SIZE = (0.25, 0.25)


class Case(NamedTuple):
    write: object  # (path, array)
    array: np.ndarray
    axes: str
    format: str
    pixel_size: tuple | None = None
    chunk: tuple | None = None  # by default rows
    name: str = "a.tif"


def pixels(*shape, dtype=np.uint8):
    return RNG.integers(0, 200, shape).astype(dtype)


def tiff(**options):
    return lambda path, array: tifffile.imwrite(path, array, **{"photometric": "minisblack"} | options)


def single_pages(path, array):
    """Write page by page, uncompressed: what describes a page lies between their pixels."""
    with tifffile.TiffWriter(path) as tif:
        for page in array:
            tif.write(page, metadata=None, contiguous=False, photometric="minisblack")


def picture(path, array):
    """Write as a PNG or JPEG."""
    Image.fromarray(array).save(path, quality=90)


def zarr_array(path, array):
    zarr.create_array(path, data=array, chunks=(1, 16, 32), dimension_names=["z", "y", "x"])


def ome_zarr(version, **options):
    def write(path, array):
        axes = [{"name": "c", "type": "channel"}, *({"name": n, "type": "space", "unit": "micrometer"} for n in "yx")]
        scale = [{"type": "scale", "scale": [1.0, *SIZE]}]
        image = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}], "version": version}
        metadata = (
            {"multiscales": [image]} if version == "0.4" else {"ome": {"version": version, "multiscales": [image]}}
        )
        group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3, attributes=metadata)
        group.create_array("0", data=array, chunks=(1, 24, 24), **options)

    return write


FORMATS = {
    "TIFF": Case(tiff(), pixels(50, 70), "YX", "TIFF"),
    "TIFF, plain pages": Case(single_pages, pixels(3, 50, 70), "IYX", "TIFF"),
    "TIFF, strips": Case(tiff(compression="zlib", rowsperstrip=7), pixels(50, 70), "YX", "TIFF", chunk=(7, 70)),
    "TIFF, tiles": Case(
        tiff(tile=(16, 32), compression="zlib", **CENTIMETRE), pixels(50, 70), "YX", "TIFF", SIZE, (16, 32)
    ),
    "TIFF, RGB": Case(tiff(photometric="rgb", compression="lzw"), pixels(50, 70, 3), "YXS", "TIFF", chunk=(50, 70)),
    "TIFF, planes of RGB": Case(
        tiff(photometric="rgb", planarconfig="separate", metadata=None), pixels(3, 50, 70), "SYX", "TIFF"
    ),
    "TIFF, tiles of volumes": Case(
        tiff(volumetric=True, tile=(2, 16, 16), compression="zlib"), pixels(4, 50, 70), "ZYX", "TIFF"
    ),
    "TIFF, big-endian": Case(tiff(byteorder=">"), pixels(50, 70, dtype=np.uint16), "YX", "TIFF"),
    "TIFF, one bit": Case(tiff(), pixels(50, 70) > 99, "YX", "TIFF", chunk=(50, 70)),
    "BigTIFF, pages": Case(
        tiff(bigtiff=True, compression="zstd", metadata={"axes": "ZYX"}),
        pixels(3, 50, 70),
        "ZYX",
        "TIFF",
        None,
        (50, 70),
    ),
    "ImageJ": Case(tiff(**UM), pixels(3, 50, 70, dtype=np.float32), "ZYX", "TIFF", SIZE),
    "ImageJ, compressed": Case(tiff(compression="zlib", **UM), pixels(3, 50, 70), "ZYX", "TIFF", SIZE, (50, 70)),
    "OME-TIFF": Case(tiff(**OME), pixels(2, 3, 50, 70), "TCYX", "TIFF", SIZE),
    "OME-TIFF, tiles": Case(
        tiff(tile=(32, 32), compression="zlib", **OME), pixels(2, 3, 50, 70), "TCYX", "TIFF", SIZE, (32, 32)
    ),
    "OME-Zarr 0.4": Case(ome_zarr("0.4"), pixels(3, 50, 70), "CYX", "OME-Zarr", SIZE, (24, 24), "a.ome.zarr"),
    "OME-Zarr 0.5": Case(
        ome_zarr("0.5"), pixels(3, 50, 70, dtype=np.uint16), "CYX", "OME-Zarr", SIZE, (24, 24), "a.ome.zarr"
    ),
    "OME-Zarr 0.5, shards": Case(
        ome_zarr("0.5", shards=(1, 48, 48)), pixels(3, 50, 70), "CYX", "OME-Zarr", SIZE, (24, 24), "a.ome.zarr"
    ),
    "Zarr array": Case(zarr_array, pixels(3, 50, 70), "ZYX", "OME-Zarr", None, (16, 32), "a.zarr"),
    "npy": Case(np.save, pixels(2, 3, 50, 70, dtype=np.float32), "ZCYX", "NumPy", name="a.npy"),
    "npy, big-endian": Case(np.save, pixels(50, 70, dtype=">u2"), "YX", "NumPy", name="a.npy"),
    "npy, Fortran order": Case(np.save, np.asfortranarray(pixels(3, 50, 70)), "CYX", "NumPy", name="a.npy"),
    "PNG": Case(picture, pixels(50, 70), "YX", "PNG", name="a.png"),
    "PNG, RGB": Case(picture, pixels(50, 70, 3), "YXS", "PNG", name="a.png"),
    "PNG, 16-bit RGB": Case(
        lambda path, array: path.write_bytes(imagecodecs.png_encode(array)),
        pixels(50, 70, 3, dtype=np.uint16),
        "YXS",
        "PNG",
        name="a.png",
    ),
    "JPEG": Case(picture, pixels(50, 70), "YX", "JPEG", name="a.jpg"),
    "JPEG, RGB": Case(picture, pixels(50, 70, 3), "YXS", "JPEG", name="a.jpg"),
}


@pytest.fixture(params=FORMATS)
def case(request):
    return FORMATS[request.param]


@pytest.fixture
def path(case, tmp_path):
    case.write(tmp_path / case.name, case.array)
    return tmp_path / case.name


@pytest.fixture
def expected(case, path):
    return np.asarray(Image.open(path)) if case.format == "JPEG" else case.array  # JPEG loses some of what was written


def test_the_header_says_what_was_written(case, path):
    stored = open_stored(path)
    assert (stored.format, stored.axes, stored.shape) == (case.format, case.axes, case.array.shape)
    assert stored.dtype.newbyteorder("=") == case.array.dtype.newbyteorder("=")
    assert stored.pixel_size == (case.pixel_size and pytest.approx(case.pixel_size))
    assert stored.axes_from
    assert stored.pixel_size_from
    assert stored.chunk == (case.chunk or (1, 70))
    assert (stored.levels, stored.level) == (((50, 70),), 0)
    assert (stored.palette, stored.alpha) == (None, False)


def test_a_part_is_that_of_the_whole(case, path, expected):
    load = open_stored(path).load
    whole = load((slice(None),) * expected.ndim)
    np.testing.assert_array_equal(whole, expected)
    assert whole.dtype.newbyteorder("=") == expected.dtype.newbyteorder("=")
    rng = np.random.default_rng(1)
    for _ in range(10):
        index = []
        for axis, size in zip(case.axes, expected.shape, strict=True):
            start, stop = sorted(rng.choice(size + 1, 2, replace=False).tolist())
            # frames are asked for one by one or together, everything else as a range
            index.append(start if axis not in "CSYX" and rng.random() < 0.5 else slice(start, stop))
        np.testing.assert_array_equal(load(tuple(index)), expected[tuple(index)], str(index))


def test_what_was_loaded_is_not_the_file(case, path, expected):
    """Whoever changes pixels changes neither the file nor what the next one reads."""
    load = open_stored(path).load
    everything = (slice(None),) * expected.ndim
    first = load(everything)
    if first.flags.writeable:
        first[...] = 0
    np.testing.assert_array_equal(load(everything), expected)


def test_a_missing_level_is_refused(path):
    with pytest.raises(
        BadFile, match="has 1 resolution level, counted from 0, but level 1 was requested; omit the level"
    ):
        open_stored(path, level=1)
