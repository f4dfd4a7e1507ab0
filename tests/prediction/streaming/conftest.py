from pathlib import Path

import pytest
import tifffile

from tests.prediction.streaming.test_job import image_of, make_model


@pytest.fixture
def model_path(tmp_path) -> Path:
    return make_model(tmp_path)


@pytest.fixture
def image(tmp_path) -> Path:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, image_of()[0], tile=(32, 32))
    return path
