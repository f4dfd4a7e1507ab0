"""NumPy files are mapped: any region is that of the array, and nothing else is loaded."""

import tracemalloc

import numpy as np
import pytest

from septum.data.images import open_image
from septum.errors import ImageError

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(40, 50), (3, 40, 50), (2, 3, 40, 50), (1, 1), (1, 700)])
@pytest.mark.parametrize("dtype", [np.uint8, ">u2", np.float32, bool])
@pytest.mark.parametrize("order", ["C", "F"])
def test_regions_are_those_of_the_array(shape, dtype, order, tmp_path):
    array = np.asarray(RNG.integers(0, 255, shape).astype(dtype), order=order)
    np.save(tmp_path / "a.npy", array)
    image = open_image(tmp_path / "a.npy")
    assert image.axes == {2: "YX", 3: "CYX", 4: "ZCYX"}[array.ndim]
    expected = array.reshape(-1, shape[-3] if array.ndim > 2 else 1, *shape[-2:])
    for frame, pixels in zip(image.frames, expected, strict=True):
        np.testing.assert_array_equal(frame.read(), pixels)
        region = slice(shape[-2] // 3, shape[-2]), slice(shape[-1] // 2, shape[-1])
        np.testing.assert_array_equal(frame.read(region), pixels[:, region[0], region[1]])
        assert frame.read().dtype.isnative


def test_what_is_not_an_image_is_refused(tmp_path):
    np.save(tmp_path / "whole.npy", np.zeros((40, 50)))
    content = (tmp_path / "whole.npy").read_bytes()
    (tmp_path / "short.npy").write_bytes(content[:-1])
    (tmp_path / "header.npy").write_bytes(content[:20])
    np.save(tmp_path / "line.npy", np.zeros(5))
    np.save(tmp_path / "objects.npy", np.array([[{}]]))
    for name, sentence in (
        ("short", "is damaged, truncated or not an array of numbers"),
        ("header", "is damaged, truncated or not an array of numbers"),
        ("objects", "is damaged, truncated or not an array of numbers .*objects"),
        ("line", r"has shape \(5,\), expected \(Y, X\), \(C, Y, X\) or \(Z, C, Y, X\); reshape"),
    ):
        with pytest.raises(ImageError, match=f"{name}.npy {sentence}"):
            open_image(tmp_path / f"{name}.npy")


def test_a_region_of_a_large_file_takes_little_memory(tmp_path):
    np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.uint16, (1, 16384, 16384))  # a sparse file
    tracemalloc.start()
    open_image(tmp_path / "a.npy").frames[0].read((slice(8000, 8512), slice(8000, 8512)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 2**20  # the whole is 512 MiB
