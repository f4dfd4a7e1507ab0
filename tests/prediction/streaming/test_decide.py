import numpy as np
import pytest
import tifffile
import torch

from septum.data.images import open_image
from septum.errors import ConfigError, ImageError, ModelError
from septum.model.model import load
from septum.prediction.streaming import decide
from septum.prediction.streaming.decide import StreamOptions, is_streamed_before, needs_streaming, parse_region
from septum.prediction.streaming.plan import fingerprint_image
from tests.prediction.streaming.test_job import SHAPE, planned, stream


def test_a_plan_records_the_request(model_path, image, tmp_path):
    tifffile.imwrite(tmp_path / "mask.tif", np.ones(SHAPE, np.uint8))
    options = StreamOptions(region=(10, 70, 20, 90), mask=tmp_path / "mask.tif", probabilities="float16")
    found = planned(model_path, image, options)
    request = found.plan.request
    assert (request.model, request.image) == (load(model_path).saved().sha256, fingerprint_image(image))
    assert request.mask == fingerprint_image(tmp_path / "mask.tif")
    assert (request.region, request.probabilities, request.device) == ((10, 70, 20, 90), "float16", "cpu")
    assert (found.plan.shape, found.plan.origin, found.plan.frames) == ((60, 70), (10, 20), 1)
    assert found.plan.image_path == str(image.resolve())
    assert found.inputs.mask.shape == (1, *SHAPE)


def test_processes_share_memory_and_threads(model_path, image, monkeypatch):
    monkeypatch.setattr(decide, "resident", lambda: 10**8)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    limits = []
    monkeypatch.setattr(decide, "choose_tiles", lambda *values: limits.append(values[2]) or TILES)
    threads = [
        planned(model_path, image, options, max_memory=10**9).plan.threads
        for options in (StreamOptions(), StreamOptions(workers=3), StreamOptions(cluster="tcp://host:1"))
    ]
    # a program alone takes 100 MB of the memory; three workers and the program that leads them take four times as much
    assert limits == [9 * 10**8, 2 * 10**8, 9 * 10**8]
    assert threads == [8, 2, 8]


TILES = {"stride": (32, 32), "rows": 8, "chunk": 32, "memory": 1, "multiply_adds": 1, "redundancy": 1.0}


def test_a_model_without_a_file_cannot_be_streamed(model_path, image):
    model = load(model_path)
    model.file = None
    with pytest.raises(ModelError, match="this model has no file; save it with"):
        decide.plan_stream(model, open_image(image), StreamOptions(), max_memory=10**12, speed=1e9)


def test_too_little_memory_says_what_works(model_path, image, tmp_path):
    def attempt(memory):
        planned(model_path, image, max_memory=memory)

    with pytest.raises(
        ConfigError, match=r"too little for a single tile of this network; use at least --max-memory (\d+)MB"
    ) as error:
        attempt(10**8)
    attempt(int(str(error.value).split("--max-memory ")[1].removesuffix("MB")) * 10**6)


def test_regions_and_masks_that_do_not_fit_are_refused(model_path, image, tmp_path):
    with pytest.raises(ImageError, match=r"the region 0:151,0:10 is not inside a\.tif, which has 150 rows"):
        stream(model_path, image, tmp_path / "out", StreamOptions(region=(0, 151, 0, 10)), small=False)
    tifffile.imwrite(tmp_path / "mask.tif", np.ones((10, 10), np.uint8))
    with pytest.raises(ImageError, match=r"mask .* is 10 x 10 .* but the image is 150 x 190"):
        stream(model_path, image, tmp_path / "out", StreamOptions(mask=tmp_path / "mask.tif"), small=False)
    with pytest.raises(ConfigError, match="a region must be y0:y1,x0:x1"):
        parse_region("5,6")
    assert not (tmp_path / "out").exists()


def test_an_image_is_streamed_if_it_takes_more_than_half_of_the_memory(image, monkeypatch):
    monkeypatch.setattr(decide, "resident", lambda: 10**8)
    opened, per_pixel = open_image(image), 1 * (1 + 12) + 12 * 2 + 16
    room = 2 * SHAPE[0] * SHAPE[1] * per_pixel
    assert not needs_streaming(opened, 2, 10**8 + room)
    assert needs_streaming(opened, 2, 10**8 + room - 2)
    assert needs_streaming(opened, 2, 10**7)


def test_results_and_unfinished_runs_are_found_again(model_path, image, tmp_path):
    output = tmp_path / "out"
    assert not is_streamed_before(image, output)
    stream(model_path, image, output)
    assert is_streamed_before(image, output)
    (output / "a_plan.json").rename(tmp_path / "plan.json")
    assert not is_streamed_before(image, output)
    (output / "a_work").mkdir()
    (tmp_path / "plan.json").rename(output / "a_work" / "plan.json")
    assert is_streamed_before(image, output)
