import numpy as np
import tifffile

from septum.core.tiling import ArraySource
from septum.data.images import open_image
from septum.prediction.preview import PREVIEW_SIDE, preview_files, read_downsampled
from tests.prediction.streaming.test_job import load, make_model


def test_read_downsampleding_is_the_mean_of_squares_whatever_the_blocks():
    image = np.random.default_rng(0).integers(0, 255, (2, 61, 90)).astype(np.uint8)
    expected = image[:, :60, :88].reshape(2, 15, 4, 22, 4).mean((2, 4))
    np.testing.assert_allclose(read_downsampled(ArraySource(image), 4), expected, rtol=1e-6)


def test_a_preview_is_one_small_picture(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (2100, 1500)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", image)
    (record,) = preview_files(load(make_model(tmp_path)), [tmp_path / "a.tif"], tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a_preview.png"]
    assert open_image(record.outputs[0]).frames[0].shape == (3, 700, 500)
    assert max(700, 500) <= PREVIEW_SIDE
