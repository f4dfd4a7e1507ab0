"""OME-Zarr of both versions is read by regions: levels, channels, slices, time points; missing chunks are legal."""

import json
import shutil
import tracemalloc

import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ome_zarr_models import open_ome_zarr
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

from septum.data.images import fit_channels, open_image
from septum.errors import ImageError

RNG = np.random.default_rng(0)
TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
SIZES = {"t": 2, "c": 3, "z": 2, "y": 70, "x": 50}


def write_ome_zarr(path, array, axes="yx", version="0.5", levels=3, scale=0.25, unit="micrometer", **options):
    """The plainest writer: every level is every second pixel of the one before."""
    described = [{"name": axis, "type": TYPES[axis]} | ({"unit": unit} if axis in "yx" else {}) for axis in axes]
    image = {"axes": described, "datasets": []}
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    for level in range(levels):
        steps = [{"type": "scale", "scale": [scale * 2**level if axis in "yx" else 1.0 for axis in axes]}]
        image["datasets"].append({"path": str(level), "coordinateTransformations": steps})
        chunks = tuple(24 if axis in "yx" else 1 for axis in axes)
        names = {"dimension_names": list(axes)} if version == "0.5" else {}
        group.create_array(str(level), data=array, chunks=chunks, **names, **options)
        array = array[..., ::2, ::2]
    group.attrs.update({"multiscales": [image | {"version": "0.4"}]} if version == "0.4" else
                       {"ome": {"version": "0.5", "multiscales": [image]}})  # fmt: skip


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(
    ("axes", "dtype"), [("yx", ">u2"), ("cyx", np.float32), ("zyx", np.int16), ("tczyx", np.uint8), ("tyx", np.uint32)]
)
def test_every_level_frame_and_channel_is_read(version, axes, dtype, tmp_path):
    array = RNG.integers(0, 255, [SIZES[axis] for axis in axes]).astype(dtype)
    write_ome_zarr(tmp_path / "a.zarr", array, axes, version)
    open_ome_zarr(tmp_path / "a.zarr", version=version)  # what is tested with is valid
    for level, step in enumerate((1, 2, 4)):
        image = open_image(tmp_path / "a.zarr", level=level)
        coarse = array[..., ::step, ::step]
        expected = coarse if "c" in axes else np.expand_dims(coarse, -3)
        expected = np.moveaxis(expected, 1, 2) if axes == "tczyx" else expected
        expected = expected.reshape(-1, *expected.shape[-3:])
        assert image.axes == axes.upper()
        assert image.grid == tuple((axis.upper(), SIZES[axis]) for axis in axes if axis in "tz")
        assert image.levels == ((70, 50), (35, 25), (18, 13))
        assert image.pixel_size == (0.25 * step, 0.25 * step)
        for frame, pixels in zip(image.frames, expected, strict=True):
            assert frame.chunk == (24, 24)
            assert frame.read().dtype.isnative
            np.testing.assert_array_equal(frame.read(), pixels)
    if "c" in axes:
        frame = open_image(tmp_path / "a.zarr", level=2, channel=1).frames[0]
        np.testing.assert_array_equal(frame.read(), expected[0][1:2])
    with pytest.raises(
        ImageError,
        match=r"a.zarr has 3 resolution levels, counted from 0, but level 3 was requested; choose one of 0..2",
    ):
        open_image(tmp_path / "a.zarr", level=3)


@pytest.fixture(scope="module", params=["0.4", "0.5", "sharded"])
def channels(request, tmp_path_factory):
    array = RNG.integers(0, 60000, (3, 70, 50)).astype(np.uint16)
    path = tmp_path_factory.mktemp("zarr") / "a.ome.zarr"
    options = {"shards": (1, 48, 72)} if request.param == "sharded" else {}
    write_ome_zarr(path, array, "cyx", "0.4" if request.param == "0.4" else "0.5", **options)
    return open_image(path).frames[0], array


@given(y=st.integers(0, 69), x=st.integers(0, 49), height=st.integers(1, 70), width=st.integers(1, 50))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_region_is_that_of_the_whole_array(channels, y, x, height, width):
    frame, array = channels
    region = slice(y, min(y + height, 70)), slice(x, min(x + width, 50))
    np.testing.assert_array_equal(frame.read(region), array[:, region[0], region[1]])


@pytest.mark.parametrize(
    ("unit", "expected"), [("nanometer", 2.5e-4), ("micrometer", 0.25), (None, None), ("foot", None)]
)
def test_pixel_size_needs_a_unit_and_the_scale_of_all_levels_counts(unit, expected, tmp_path):
    write_ome_zarr(tmp_path / "a.zarr", np.zeros((4, 5), np.uint8), unit=unit, levels=1)
    assert open_image(tmp_path / "a.zarr").pixel_size == (expected and pytest.approx((expected, expected)))
    ome = zarr.open_group(tmp_path / "a.zarr").attrs["ome"]
    ome["multiscales"][0]["coordinateTransformations"] = [{"type": "scale", "scale": [2.0, 3.0]}]
    zarr.open_group(tmp_path / "a.zarr").attrs["ome"] = ome
    assert open_image(tmp_path / "a.zarr").pixel_size == (expected and pytest.approx((2 * expected, 3 * expected)))


def test_missing_chunks_are_the_fill_value(tmp_path):
    array = RNG.integers(1, 255, (70, 50), np.uint8)
    write_ome_zarr(tmp_path / "a.zarr", array, fill_value=7)
    (tmp_path / "a.zarr/0/c/1/2").unlink()
    array[24:48, 48:] = 7
    np.testing.assert_array_equal(open_image(tmp_path / "a.zarr").frames[0].read(), array[None])


CODECS = {
    "0.4": [numcodecs.Blosc("lz4", clevel=5), numcodecs.Zstd(), numcodecs.GZip(), numcodecs.LZ4()],
    "0.5": [BloscCodec(typesize=1), ZstdCodec(), GzipCodec()],
}


@pytest.mark.parametrize(("version", "codec"), [(version, codec) for version in CODECS for codec in CODECS[version]])
@pytest.mark.parametrize("harm", [lambda data: data[: len(data) // 2], lambda data: data[:9], lambda data: b"\1" * 300])
def test_a_broken_chunk_is_named_and_the_others_are_read(version, codec, harm, tmp_path):
    array = RNG.integers(0, 255, (70, 50), np.uint8)
    write_ome_zarr(tmp_path / "a.zarr", array, "yx", version, compressors=codec)
    chunk = "0/c/1/1" if version == "0.5" else "0/1.1"
    broken = tmp_path / "a.zarr" / chunk
    broken.write_bytes(harm(broken.read_bytes()))
    frame = open_image(tmp_path / "a.zarr").frames[0]
    np.testing.assert_array_equal(frame.read((slice(48, 70), slice(0, 50))), array[None, 48:])
    with pytest.raises(ImageError, match=rf"a.zarr is damaged or incomplete \(chunk {chunk} ") as caught:
        frame.read()
    assert "\n" not in str(caught.value)


def test_arrays_with_named_axes_are_images_and_other_arrays_get_advice(tmp_path):
    array = RNG.integers(0, 255, (2, 6, 7), np.uint8)
    for name, options in (
        ("three", {"dimension_names": ["z", "y", "x"]}),
        ("two", {"zarr_format": 2, "attributes": {"_ARRAY_DIMENSIONS": ["z", "y", "x"]}}),
    ):
        zarr.create_array(tmp_path / name, data=array, **options)
        image = open_image(tmp_path / name)
        assert (image.axes, image.pixel_size) == ("ZYX", None)
        np.testing.assert_array_equal(image.frames[1].read(), array[1:])
    zarr.create_array(tmp_path / "plane", data=array[0])
    np.testing.assert_array_equal(open_image(tmp_path / "plane").frames[0].read(), array[:1])
    zarr.create_array(tmp_path / "nameless", data=array)
    with pytest.raises(
        ImageError, match=r"nameless is a Zarr array of shape \(2, 6, 7\) whose axes are not named; name its axes: dim"
    ):
        open_image(tmp_path / "nameless")
    zarr.create_array(tmp_path / "odd", data=array, dimension_names=["depth", "row", "column"])
    with pytest.raises(
        ImageError, match=r"whose axes are \('depth', 'row', 'column'\), expected t, c, z, y, x; name its axes"
    ):
        open_image(tmp_path / "odd")


def test_a_group_of_images_says_which_to_name(tmp_path):
    write_ome_zarr(tmp_path / "image.zarr", RNG.integers(0, 255, (6, 7), np.uint8))
    for name, attributes, inside in (
        ("labels", {"ome": {"version": "0.5", "labels": ["cells"]}}, "cells"),
        ("plate", {"ome": {"version": "0.5", "plate": {}}}, "A/1/0"),
        ("plain", {}, "0"),
    ):
        zarr.open_group(tmp_path / name, mode="w", attributes=attributes)
        shutil.copytree(tmp_path / "image.zarr", tmp_path / name / inside)
        with pytest.raises(ImageError, match=f"{name} is a .*; name an image inside, such as .*{name}/{inside}$"):
            open_image(tmp_path / name)
    zarr.open_group(tmp_path / "empty", mode="w")
    with pytest.raises(ImageError, match=r"empty is a Zarr group without OME metadata .*; write it as OME-Zarr"):
        open_image(tmp_path / "empty")


def test_a_converted_series_opens_its_first_image(tmp_path):
    array = RNG.integers(0, 255, (6, 7), np.uint8)
    zarr.open_group(tmp_path / "a.zarr", mode="w", attributes={"ome": {"version": "0.5", "bioformats2raw.layout": 3}})
    for name in ("0", "1"):
        write_ome_zarr(tmp_path / "a.zarr" / name, array)
    image = open_image(tmp_path / "a.zarr")
    np.testing.assert_array_equal(image.frames[0].read(), array[None])
    assert "first of 2 images" in image.description


def test_missing_and_damaged_metadata_give_one_sentence(tmp_path):
    (tmp_path / "bare.zarr/0").mkdir(parents=True)
    with pytest.raises(
        ImageError,
        match=r"bare.zarr is a folder but not a Zarr \(it has neither zarr.json nor .zgroup\); give an image",
    ):
        open_image(tmp_path / "bare.zarr")
    write_ome_zarr(tmp_path / "a.zarr", np.zeros((6, 7), np.uint8))
    metadata = tmp_path / "a.zarr/zarr.json"
    content = metadata.read_text()
    for damaged, sentence in (
        (content[:100], "its Zarr metadata cannot be read"),
        (content.replace('"axes"', '"axis"'), "its OME metadata are incomplete: 'axes'"),
        (content.replace('"path": "2"', '"path": "3"'), "its OME metadata are incomplete: '3'"),
        (content.replace('"scale": [', '"scale": ["a", '), "its coordinate transformations cannot be read"),
    ):
        assert damaged != content
        metadata.write_text(damaged)
        with pytest.raises(ImageError, match=r"a.zarr is damaged or incomplete \(" + sentence) as caught:
            open_image(tmp_path / "a.zarr")
        assert "\n" not in str(caught.value)
    metadata.write_text(json.dumps(json.loads(content) | {"zarr_format": 3}))
    (tmp_path / "a.zarr/1/zarr.json").unlink()
    with pytest.raises(ImageError, match="its OME metadata are incomplete"):
        open_image(tmp_path / "a.zarr")


def test_axes_that_do_not_fit_the_arrays_are_refused(tmp_path):
    write_ome_zarr(tmp_path / "a.zarr", np.zeros((1, 6, 7), np.uint8), "zyx")
    shutil.rmtree(tmp_path / "a.zarr/1")
    write_ome_zarr(tmp_path / "a.zarr/1", np.zeros((6, 7), np.uint8))
    shutil.move(tmp_path / "a.zarr/1/0/zarr.json", tmp_path / "a.zarr/1/zarr.json")
    with pytest.raises(ImageError, match=r"a.zarr has axes ZYX, but an array of shape \(6, 7\); write it again"):
        open_image(tmp_path / "a.zarr")


def test_a_region_of_a_sparse_slide_takes_little_memory(tmp_path):
    size = 65536
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    array = group.create_array("0", shape=(size, size), chunks=(1024, 1024), dtype="u1", dimension_names=["y", "x"])
    array[30 * 1024 : 31 * 1024, 30 * 1024 : 31 * 1024] = 5
    open_image(tmp_path / "a.zarr/0").frames[0].read((slice(0, 1), slice(0, 1)))  # what is loaded once
    tracemalloc.start()
    pixels = open_image(tmp_path / "a.zarr/0").frames[0].read((slice(30700, 31300), slice(30700, 31300)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.count_nonzero(pixels) == 580**2
    assert peak < 20 * 2**20  # the whole is 4 GiB


def test_fitted_channels_are_those_of_the_model_or_refused_where_they_are_read(tmp_path):
    array = np.repeat(RNG.random((1, 40, 50)).astype(np.float32), 3, 0)
    array[1, 30, 20], array[:, 35, 10] = -1, np.nan
    np.save(tmp_path / "a.npy", array)
    frame = open_image(tmp_path / "a.npy").frames[0]
    region = (slice(5, 20), slice(3, 50))
    fitted = fit_channels(frame, 1)
    assert (fitted.shape, fitted.chunk) == ((1, 40, 50), (1, 50))
    np.testing.assert_array_equal(fitted.read(region), array[:1, 5:20, 3:])
    np.testing.assert_array_equal(fit_channels(frame, 3).read(region), array[:, 5:20, 3:])
    with pytest.raises(ImageError, match=r"a.npy has 3 channels, but the model was trained on 1; choose .* 0..2"):
        fitted.read((slice(28, 33), slice(10, 40)))
    with pytest.raises(
        ImageError, match=r"a.npy has 3 NaN or infinite pixels, the first at channel 0, row 35, column 10;"
    ):
        fitted.read((slice(33, 40), slice(8, 40)))
    with pytest.raises(
        ImageError, match=r"has 3 channels, but the model was trained on 2; give images with 2 channels"
    ):
        fit_channels(frame, 2)
