"""Label images are read as they are, or refused with the reason and the fix."""

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage
from scipy.spatial import cKDTree

from septum.data.findings import BadFile
from septum.data.labels import as_labels, grey_edges, read_labels
from septum.data.simulate import cells

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 200, (20, 30))


def write(path, values):
    if path.suffix == ".png":
        path.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(values)))
    elif path.suffix == ".jpg":
        Image.fromarray(values).save(path)
    else:
        tifffile.imwrite(path, values, photometric="minisblack")
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.uint32, np.int64, np.float32, np.float64])
def test_whole_numbers_of_any_type_are_read(dtype, tmp_path):
    (labels,), pixel_size, description = read_labels(write(tmp_path / "a.tif", LABELS.astype(dtype)))
    np.testing.assert_array_equal(labels, LABELS)
    assert (labels.dtype, pixel_size) == (np.int32, None)
    assert "axes YX" in description


def test_stacks_masks_grey_rgb_and_palettes_are_read_as_numbers(tmp_path):
    stack = RNG.integers(0, 9, (4, 20, 30), np.uint8)
    np.testing.assert_array_equal(read_labels(write(tmp_path / "stack.tif", stack)).frames, stack)
    np.testing.assert_array_equal(read_labels(write(tmp_path / "bool.tif", LABELS > 99)).frames[0], LABELS > 99)
    grey = np.repeat(LABELS[..., None].astype(np.uint8), 3, axis=2)
    np.testing.assert_array_equal(read_labels(write(tmp_path / "rgb.png", grey)).frames[0], LABELS)
    picture = Image.new("P", (30, 20))
    picture.putdata(LABELS.ravel().tolist())
    picture.putpalette(RNG.integers(0, 255, 768).tolist())
    picture.save(tmp_path / "palette.png")
    picture.save(tmp_path / "transparent.png", transparency=0)
    for name in ("palette.png", "transparent.png"):
        np.testing.assert_array_equal(read_labels(tmp_path / name).frames[0], LABELS)


COLOURS = RNG.integers(0, 255, (20, 30, 3), np.uint8)
BAD = {
    "photo.jpg": (
        LABELS.astype(np.uint8),
        "label-format",
        "is a JPEG, whose compression changes .*; export the labels as TIFF or PNG",
    ),
    "colours.png": (
        COLOURS,
        "label-format",
        "has 3 channels, expected one label per pixel; save one label per pixel as a grey",
    ),
    "fractions.tif": (
        LABELS / 2 + 0.25,
        "label-values",
        "has values that are not whole numbers, such as .*; save integer labels",
    ),
    "nan.tif": (np.full((4, 5), np.nan), "label-values", "has values that are not whole numbers, such as nan"),
    "infinite.tif": (np.full((4, 5), np.inf), "label-values", "has values that are not whole numbers, such as inf"),
    "negative.tif": (
        LABELS.astype(np.int16) - 7,
        "label-values",
        "has negative labels, such as -7; number objects 1, 2",
    ),
    "large.tif": (np.full((4, 5), 2**31, np.uint32), "label-values", "has labels above 2147483647, such as 2147483648"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_labels_is_refused_in_one_sentence(name, tmp_path):
    values, code, sentence = BAD[name]
    with pytest.raises(BadFile, match=f"{name} {sentence}") as caught:
        read_labels(write(tmp_path / name, values))
    assert (caught.value.finding.code, caught.value.finding.level) == (code, "error")


def test_complex_arrays_are_not_labels():
    with pytest.raises(BadFile, match="expected integers"):
        as_labels(np.zeros((2, 2), complex), "a")


def resized(labels, factor):
    return np.rint(ndimage.zoom(labels.astype(float), factor, order=1)).astype(int)


def compressed(labels, tmp_path):
    Image.fromarray(labels.astype(np.uint8)).save(tmp_path / "a.jpg", quality=90)
    return np.asarray(Image.open(tmp_path / "a.jpg")).astype(int)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("touching", [False, True])
def test_grey_edges_are_found_and_intact_labels_pass(seed, touching, tmp_path):
    _, labels = cells((160, 160), 30 if touching else 14, seed, touching=touching)
    mask = 255 * (labels > 0)
    for sound in (labels, mask, np.kron(labels, np.ones((2, 2), int)), ndimage.zoom(labels, 1.7, order=0)):
        assert not grey_edges(sound)
    for bad in (resized(mask, 1.7), resized(mask, 0.6), resized(labels, 1.7), compressed(mask, tmp_path)):
        assert grey_edges(bad)
    assert grey_edges(np.rint(ndimage.gaussian_filter(mask.astype(float), 1)).astype(int))


def test_classes_in_bands_and_dense_tissue_have_no_grey_edges():
    labels = cells((160, 160), 40, 0, touching=True)[1]
    rings = np.where(labels > 0, np.where(ndimage.binary_erosion(labels > 0), 2, 1), 0)  # outline 1, interior 2
    assert not grey_edges(rings)
    for count in (100, 3000):  # the larger: cells four pixels wide
        y, x = np.mgrid[:200, :200]
        nearest = cKDTree(RNG.integers(0, 200, (count, 2))).query(np.stack([y, x], axis=-1))[1]
        assert not grey_edges(nearest + 1)
    assert not grey_edges(np.ones((2, 500), int))
