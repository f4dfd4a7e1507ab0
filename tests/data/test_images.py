"""Every format returns the pixels, axes and pixel size that were written; every damaged file gives one sentence."""

import io
import logging
import warnings

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from septum.data.images import as_channels, open_image, write_labels, write_png, write_probabilities
from septum.data.tiff import open_tiff
from septum.errors import ImageError

RNG = np.random.default_rng(0)
SHAPES = {
    "YX": (70, 90), "ZYX": (3, 70, 90), "TZCYX": (2, 3, 2, 70, 90), "CYX": (3, 70, 90), "YXS": (70, 90, 3),
    "ZYXS": (2, 70, 90, 3), "CYXS": (2, 70, 90, 3),
}  # fmt: skip
VARIANTS = {
    "imagej": {"imagej": True},
    "imagej compressed": {"imagej": True, "compression": "zlib"},
    "ome": {"ome": True},
    "ome tiles": {"ome": True, "tile": (32, 48), "compression": "lzw"},
    "strips": {"compression": "zlib", "rowsperstrip": 7, "predictor": True},
    "BigTIFF": {"bigtiff": True},
    "big-endian BigTIFF": {"bigtiff": True, "byteorder": ">"},
    "big-endian tiles": {"tile": (16, 16), "byteorder": ">"},
}


def frames_of(array, axes):
    """The slow way: (frames, C, Y, X) by moving samples to the channels and flattening what leads."""
    if axes == "CYXS":
        return np.concatenate([np.moveaxis(colours, -1, 0) for colours in array])[None]
    if axes.endswith("S"):
        array, axes = np.moveaxis(array, -1, -3), axes[:-3] + "CYX"
    if "C" not in axes:
        array = array[..., None, :, :]
    return array.reshape(-1, *array.shape[-3:])


@pytest.mark.parametrize("axes", SHAPES)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_tiff_returns_its_pixels_whole_and_by_region(axes, variant, dtype, tmp_path):
    if "imagej" in variant and axes.endswith("S") and dtype != np.uint8:
        pytest.skip("ImageJ has 8-bit colours only")
    array = RNG.integers(0, 255, SHAPES[axes]).astype(dtype)
    colours = "rgb" if axes.endswith("S") else "minisblack"
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, array, metadata={"axes": axes}, photometric=colours, **VARIANTS[variant])
    image = open_image(path)
    expected = frames_of(array, axes)
    assert (image.axes, len(image.frames), image.dtype) == (axes, len(expected), dtype)
    for frame, pixels in zip(image.frames, expected, strict=True):
        assert frame.shape == pixels.shape
        np.testing.assert_array_equal(frame.read(), pixels)
        assert frame.read().dtype.isnative
        for y, x, height, width in ((0, 0, 1, 1), (5, 13, 40, 60), (69, 0, 1, 90), (31, 47, 2, 2)):
            region = slice(y, y + height), slice(x, x + width)
            np.testing.assert_array_equal(frame.read(region), pixels[:, region[0], region[1]])


def test_planar_samples_are_channels(tmp_path):
    array = RNG.integers(0, 255, (3, 40, 90), np.uint8)
    options = {"photometric": "rgb", "planarconfig": "separate", "tile": (16, 16), "metadata": None}
    tifffile.imwrite(tmp_path / "a.tif", array, **options)
    np.testing.assert_array_equal(open_image(tmp_path / "a.tif").frames[0].read(), array)


def test_tiles_that_were_never_written_are_zero(tmp_path):
    tile = np.full((16, 16), 9, np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(iter([tile, None]), shape=(16, 32), dtype=np.uint8, tile=(16, 16), compression="zlib")
    np.testing.assert_array_equal(open_image(tmp_path / "a.tif").frames[0].read(), np.hstack([tile, 0 * tile])[None])


def test_pages_without_metadata_are_frames_and_the_description_says_so(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((3, 4, 5), np.uint8), metadata=None, photometric="minisblack")
    image = open_image(tmp_path / "a.tif")
    assert [frame.shape for frame in image.frames] == [(1, 4, 5)] * 3
    assert "3 pages of 4 x 5, 1 channel" in image.description
    assert "pages read as frames, because the file does not mark them as channels" in image.description


def test_a_region_is_read_without_the_rest_of_the_file(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.full((64, 64), 7, np.uint8), tile=(16, 16), compression="zlib")
    with tifffile.TiffFile(path) as tif:
        offsets, counts = tif.pages[0].dataoffsets, tif.pages[0].databytecounts
    data = bytearray(path.read_bytes())
    data[offsets[5] : offsets[5] + counts[5]] = bytes(counts[5])  # the tile of rows 16-31, columns 16-31
    path.write_bytes(data)
    frame = open_image(path).frames[0]
    assert (frame.read((slice(32, 64), slice(0, 64))) == 7).all()
    with pytest.raises(ImageError, match=r"damaged or truncated \(strip or tile 5 of page 0 cannot be decoded"):
        frame.read((slice(0, 64), slice(0, 64)))


def test_channel_chooses_one(tmp_path):
    array = RNG.integers(0, 255, (3, 4, 5), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", array, imagej=True, metadata={"axes": "CYX"})
    np.testing.assert_array_equal(open_image(tmp_path / "a.tif", channel=2).frames[0].read(), array[2:])
    with pytest.raises(
        ImageError, match=r"a.tif has 3 channels, counted from 0, but channel 3 was requested; choose one of 0..2"
    ):
        open_image(tmp_path / "a.tif", channel=3)


@pytest.mark.parametrize(
    ("options", "expected", "source"),
    [
        ({"imagej": True, "resolution": (5, 4), "metadata": {"unit": "um"}}, (0.25, 0.2), "ImageJ metadata"),
        ({"imagej": True, "resolution": (5, 4), "metadata": {"unit": "\\u00B5m"}}, (0.25, 0.2), "ImageJ metadata"),
        ({"imagej": True, "resolution": (0.25, 0.25), "metadata": {"unit": "nm"}}, (0.004, 0.004), "ImageJ metadata"),
        ({"imagej": True, "resolution": (5, 4), "metadata": {"unit": "pixel"}}, None, "no unit of length"),
        ({"resolution": (52632, 52632), "resolutionunit": "CENTIMETER"}, (0.19, 0.19), "resolution tag per centimetre"),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None, "72 dots per inch is for printing"),
        ({"resolution": (254000, 254000), "resolutionunit": "INCH"}, (0.1, 0.1), "resolution tag per inch"),
        ({}, None, "no unit of length"),
        (
            {"ome": True, "metadata": {"PhysicalSizeX": 200, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.25}},
            (0.25, 0.2),
            "OME metadata",
        ),
        ({"ome": True, "metadata": {"PhysicalSizeX": 2, "PhysicalSizeXUnit": "pixel"}}, None, "OME metadata have none"),
        (
            {"ome": True, "resolution": (50000, 40000), "resolutionunit": "CENTIMETER"},
            (0.25, 0.2),
            "resolution tag per centimetre",
        ),
        (
            {"ome": True, "resolution": (72, 72), "resolutionunit": "INCH"},
            None,
            "the OME metadata have none, and its resolution tag per inch of 72 dots per inch is for printing",
        ),
    ],
)
def test_pixel_size_of_tiff_is_in_micrometre_with_its_source(options, expected, source, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 5), np.uint8), **options)
    image = open_image(tmp_path / "a.tif")
    assert image.pixel_size == (expected and pytest.approx(expected, rel=1e-4))
    assert source in image.description


def test_pixel_size_of_png_counts_only_in_a_microscopes_range(tmp_path):
    for dpi, expected in ((25400 / 0.5, (0.5, 0.5)), (96, None)):
        Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "a.png", dpi=(dpi, dpi))
        assert open_image(tmp_path / "a.png").pixel_size == (expected and pytest.approx(expected, rel=1e-4))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("samples", [1, 2, 3, 4])
def test_png_returns_its_pixels_and_drops_an_opaque_alpha(dtype, samples, tmp_path):
    array = RNG.integers(0, np.iinfo(dtype).max, (6, 7, samples), dtype)
    if samples in (2, 4):
        array[..., -1] = np.iinfo(dtype).max
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(array[..., 0] if samples == 1 else array))
    image = open_image(tmp_path / "a.png")
    colours = {1: 1, 2: 1, 3: 3, 4: 3}[samples]
    np.testing.assert_array_equal(image.frames[0].read(), np.moveaxis(array[..., :colours], -1, 0))
    assert image.dtype == dtype
    assert ("alpha channel dropped" in image.description) == (samples in (2, 4))


def test_a_transparent_pixel_is_refused_where_it_is_read(tmp_path):
    array = np.full((6, 7, 4), 255, np.uint8)
    array[2, 3, 3] = 254
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(array))
    frame = open_image(tmp_path / "a.png").frames[0]
    assert frame.read((slice(3, 6), slice(0, 7))).shape == (3, 3, 7)
    with pytest.raises(ImageError, match=r"partly transparent.*; save it without an alpha channel"):
        frame.read()


def test_palettes_become_colours_except_imagejs_lookup_tables(tmp_path):
    indices = RNG.integers(0, 4, (6, 7), np.uint8)
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [9, 8, 7]], np.uint8)
    picture = Image.new("P", indices.shape[::-1])
    picture.putdata(indices.ravel().tolist())
    picture.putpalette(colours.ravel().tolist())
    picture.save(tmp_path / "a.png")
    table = np.zeros((3, 256), np.uint16)
    table[:, :4] = colours.T.astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "a.tif", indices, photometric="palette", colormap=table)
    for name in ("a.png", "a.tif"):
        np.testing.assert_array_equal(
            open_image(tmp_path / name).frames[0].read(), np.moveaxis(colours[indices], -1, 0)
        )
    tifffile.imwrite(tmp_path / "b.tif", indices, imagej=True, colormap=table)
    np.testing.assert_array_equal(open_image(tmp_path / "b.tif").frames[0].read(), indices[None])


def test_jpeg_and_one_bit_and_wrong_suffixes_are_read(tmp_path):
    rgb = RNG.integers(0, 255, (8, 9, 3), np.uint8)
    Image.fromarray(rgb).save(tmp_path / "a.jpg")
    np.testing.assert_array_equal(
        open_image(tmp_path / "a.jpg").frames[0].read(), np.moveaxis(np.asarray(Image.open(tmp_path / "a.jpg")), -1, 0)
    )
    tifffile.imwrite(tmp_path / "bits.tif", rgb[..., 0] > 99)
    np.testing.assert_array_equal(
        open_image(tmp_path / "bits.tif").frames[0].read(), (rgb[..., :1] > 99).T.swapaxes(1, 2)
    )
    (tmp_path / "png.tif").write_bytes(imagecodecs.png_encode(rgb))
    assert "from PNG" in open_image(tmp_path / "png.tif").description


def test_labels_and_probabilities_are_read_as_written_with_pixel_size(tmp_path):
    for dtype, high in ((np.uint16, 65535), (np.uint32, 65536)):
        for shape in ((20, 30), (4, 20, 30)):
            labels = RNG.integers(0, high, shape)
            labels.flat[0] = high
            write_labels(tmp_path / "a.tif", labels, (0.25, 0.2))
            image = open_image(tmp_path / "a.tif")
            np.testing.assert_array_equal(np.stack([frame.read()[0] for frame in image.frames]).reshape(shape), labels)
            assert (image.dtype, image.axes) == (dtype, "ZYX"[-len(shape) :])
            assert image.pixel_size == pytest.approx((0.25, 0.2), rel=1e-6)
    probabilities = RNG.random((3, 20, 30), np.float32)
    write_probabilities(tmp_path / "p.tif", probabilities, (0.25, 0.2))
    image = open_image(tmp_path / "p.tif")
    np.testing.assert_array_equal(image.frames[0].read(), probabilities)
    assert (image.axes, image.pixel_size) == ("CYX", pytest.approx((0.25, 0.2), rel=1e-6))
    write_labels(tmp_path / "a.tif", np.zeros((2, 2), int))
    assert open_image(tmp_path / "a.tif").pixel_size is None


def test_png_is_read_as_written_and_files_are_the_same_bytes_every_time(tmp_path):
    rgb = RNG.integers(0, 255, (8, 9, 3), np.uint8)
    for name in ("a", "b"):
        write_png(tmp_path / f"{name}.png", rgb)
        write_labels(tmp_path / f"{name}.tif", rgb[..., 0].astype(int), (1, 1))
    np.testing.assert_array_equal(open_image(tmp_path / "a.png").frames[0].read(), np.moveaxis(rgb, -1, 0))
    for suffix in ("png", "tif"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


@pytest.mark.parametrize("write", [
    lambda path: write_labels(path, np.array([[-1]])),
    lambda path: write_labels(path, np.array([[0.5]])),
    lambda path: write_probabilities(path, np.zeros((2, 2))),
    lambda path: write_png(path, np.zeros((2, 2), np.uint8)),
])  # fmt: skip
def test_writers_refuse_other_arrays(write, tmp_path):
    with pytest.raises(ImageError, match="must be"):
        write(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


BAD = {
    "text.tif": (
        b"this is not a TIFF",
        "is not a TIFF, OME-Zarr, PNG, JPEG or NumPy file: it starts with b'this is not a TI'; save the image as TIFF",
    ),
    "empty.png": (b"", r"is empty \(0 bytes\); copy or export the file again"),
    "table.czi": (b"ZISRAWFILE", "is not a TIFF"),
    "header.tif": (b"II*\0\x08\0\0\0", r"is damaged or truncated \(it contains no image\)"),
    "signature.png": (b"\x89PNG\r\n\x1a\n", "is damaged or truncated"),
    "start.jpg": (b"\xff\xd8\xff\xe0", "is damaged or truncated"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_not_an_image_gives_one_sentence(name, tmp_path):
    content, sentence = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError, match=f"{name} {sentence}") as caught:
        open_image(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_missing_file_names_its_neighbour(tmp_path):
    (tmp_path / "cells_01.tif").touch()
    with pytest.raises(
        ImageError, match=r"cells_1.tif does not exist \(did you mean 'cells_01.tif'\?\); check the name"
    ):
        open_image(tmp_path / "cells_1.tif")
    with pytest.raises(
        ImageError, match=r"is a folder but not a Zarr \(it has neither zarr.json nor .zgroup\); give an image file"
    ):
        open_image(tmp_path)


@pytest.mark.parametrize("variant", ["plain", *VARIANTS])
@pytest.mark.parametrize("pages", [1, 6])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_tiff_is_refused_when_opened_and_tifffile_stays_silent(
    variant, pages, share, tmp_path, caplog, capfd
):
    array = RNG.integers(0, 255, (pages, 64, 64), np.uint8)
    options = {"metadata": None} if variant == "plain" else {"metadata": {"axes": "ZYX"}, **VARIANTS[variant]}
    file = io.BytesIO()
    tifffile.imwrite(file, array, photometric="minisblack", **options)
    content = file.getvalue()
    (tmp_path / "a.tif").write_bytes(content[: int(share * len(content))])
    with caplog.at_level(logging.WARNING), pytest.raises(ImageError, match=r"a.tif is damaged or truncated") as caught:
        open_image(tmp_path / "a.tif")
    assert "\n" not in str(caught.value)
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["plain.tif", "imagej.tif", "ome.tif", "tiles.tif", "a.png"])
def test_damage_anywhere_is_refused_or_does_no_harm(name, tmp_path):
    """Cut short, a file is refused or gives its true pixels; with a wrong byte, it raises nothing but ImageError."""
    array = RNG.integers(0, 255, (3, 24, 24), np.uint8)
    options = {
        "plain.tif": {"metadata": None},
        "imagej.tif": {"imagej": True, "metadata": {"axes": "ZYX"}},
        "ome.tif": {"ome": True, "metadata": {"axes": "ZYX"}},
        "tiles.tif": {"tile": (16, 16), "compression": "zlib"},
    }
    path = tmp_path / name
    if name == "a.png":
        path.write_bytes(imagecodecs.png_encode(array[0]))
    else:
        tifffile.imwrite(path, array, photometric="minisblack", **options[name])
    content = path.read_bytes()
    whole = [frame.read() for frame in open_image(path).frames]
    for position in np.linspace(0, len(content) - 1, 60).astype(int):
        flipped = content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :]
        for damaged, must_equal in ((content[:position], True), (flipped, False)):
            path.write_bytes(damaged)
            try:
                found = [frame.read() for frame in open_image(path).frames]
            except ImageError:
                continue
            if must_equal:
                np.testing.assert_array_equal(found, whole)


def test_truncated_png_and_jpeg_are_refused_when_read(tmp_path):
    array = RNG.integers(0, 255, (64, 64), np.uint8)
    picture = io.BytesIO()
    Image.fromarray(array).save(picture, "JPEG")
    for name, content in (("a.png", imagecodecs.png_encode(array)), ("a.jpg", picture.getvalue())):
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(ImageError, match=f"{name} is damaged or truncated"):
            open_image(tmp_path / name).frames[0].read()


def test_an_image_without_pixels_is_refused(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tifffile's, about writing such a file
        tifffile.imwrite(tmp_path / "a.tif", np.zeros((0, 5), np.uint8))
    with pytest.raises(ImageError, match=r"a.tif has no pixels \(shape "):
        open_image(tmp_path / "a.tif")


def test_complex_pixels_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 5), np.complex64))
    with pytest.raises(ImageError, match="has pixels of type complex64, expected integers or floats; convert it"):
        open_image(tmp_path / "a.tif")


def ome_set(folder, array, file_of):
    """Write (T, Z, Y, X) as an OME-TIFF set, where a time point and slice lie in a file: all describe the whole set."""
    places = [(t, z) for t in range(array.shape[0]) for z in range(array.shape[1])]
    names = {file_of(*place) for place in places}
    inside = {name: [place for place in places if file_of(*place) == name] for name in names}
    planes = "".join(
        f'<TiffData FirstT="{t}" FirstZ="{z}" IFD="{inside[file_of(t, z)].index((t, z))}" PlaneCount="1">'
        f'<UUID FileName="{file_of(t, z)}.ome.tif">urn:uuid:{file_of(t, z)}</UUID></TiffData>'
        for t, z in places
    )
    time, depth, height, width = array.shape
    for name, held in inside.items():
        xml = (
            f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{name}">'
            '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8"'
            f' SizeX="{width}" SizeY="{height}" SizeZ="{depth}" SizeC="1" SizeT="{time}">'
            f'<Channel ID="Channel:0:0" SamplesPerPixel="1"/>{planes}</Pixels></Image></OME>'
        )
        with tifffile.TiffWriter(folder / f"{name}.ome.tif") as tif:
            for index, place in enumerate(held):
                tif.write(array[place], description=None if index else xml, metadata=None, contiguous=False)


@pytest.mark.parametrize("by", [0, 1])
@pytest.mark.parametrize("alone", [False, True])
def test_a_file_of_an_ome_set_has_its_own_frames(by, alone, tmp_path):
    array = RNG.integers(0, 255, (3, 2, 20, 30), np.uint8)
    ome_set(tmp_path, array, lambda *place: "abc"[place[by]] + "0")
    for index, file in enumerate(sorted(tmp_path.iterdir(), key=lambda file: "abc".index(file.name[0]))):
        if alone:
            (tmp_path / "alone").mkdir(exist_ok=True)
            file = file.rename(tmp_path / "alone" / "renamed.ome.tif")
        image = open_image(file)
        expected = array.take([index], by)
        assert image.grid == (("T", expected.shape[0]), ("Z", expected.shape[1]))
        np.testing.assert_array_equal([frame.read()[0] for frame in image.frames], expected.reshape(-1, 20, 30))
        files = array.shape[by]
        assert f"one of {files} files of an OME-TIFF set, only its own frames are read" in image.description


def test_a_file_of_an_ome_set_with_frames_from_all_over_is_refused(tmp_path):
    ome_set(tmp_path, np.zeros((3, 2, 4, 5), np.uint8), lambda t, z: "a" if t == z else "b")
    sentence = (
        r"a.ome.tif is one of 2 files of an OME-TIFF set, with an irregular selection of its frames; save the set"
    )
    with pytest.raises(ImageError, match=sentence):
        open_image(tmp_path / "a.ome.tif")


def test_several_image_series_are_mentioned(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(np.zeros((4, 5), np.uint8))
        tif.write(np.zeros((8, 9), np.uint8))
    assert "first of 2 image series (others: 8 x 9)" in open_image(tmp_path / "a.tif").description


def test_unsupported_colour_spaces_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 5, 4), np.uint8), photometric="separated")
    Image.new("CMYK", (5, 4)).save(tmp_path / "a.jpg")
    for name in ("a.tif", "a.jpg"):
        with pytest.raises(ImageError, match="is CMYK, expected greyscale or RGB; save it as RGB"):
            open_image(tmp_path / name)


def test_log_handling_leaves_the_logger_as_it_was(tmp_path):
    logger = logging.getLogger("tifffile")
    before = list(logger.handlers), logger.propagate
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 5), np.uint8))
    open_tiff(tmp_path / "a.tif", 0)
    assert (list(logger.handlers), logger.propagate) == before


@pytest.mark.parametrize(
    ("image", "channels", "sentence"),
    [
        (np.zeros(4), 1, r"the image has shape \(4,\), expected \(Y, X\) or \(C, Y, X\)"),
        (np.zeros((0, 4)), 1, r"the image has no pixels \(shape \(0, 4\)\)"),
        (np.zeros((2, 4, 5)), 1, "the image has 2 channels, but the model was trained on 1"),
        (
            np.zeros((6, 5, 3)),
            3,
            r"has shape \(6, 5, 3\), which looks like \(Y, X, C\), expected .*; move the channels first with "
            r"np.moveaxis\(image, -1, 0\)",
        ),
        (np.zeros((6, 5, 3)), 1, r"move the channels first with np.moveaxis\(image, -1, 0\)"),
        (np.zeros((6, 5, 3)), None, r"move the channels first with np.moveaxis\(image, -1, 0\)"),
        (np.arange(60).reshape(3, 4, 5), 1, "has 3 channels, but the model was trained on 1"),
        (np.array([[0, np.inf]]), 1, "has 1 NaN or infinite pixel, the first at channel 0, row 0, column 1"),
        (np.array([["a"]]), 1, "has pixels of type <U1, expected integers or floats"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(image, channels, sentence):
    with pytest.raises(ImageError, match=sentence):
        as_channels(image, channels)


def test_a_narrow_image_with_the_channels_of_the_model_is_not_taken_for_channels_last():
    assert as_channels(np.zeros((6, 5, 3)), 6).shape == (6, 5, 3)
