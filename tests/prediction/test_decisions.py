"""What is decided about an image before the first one is predicted is carried through: one plan, one hash, one open."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tifffile

from septum.data import images as images_module
from septum.prediction import files as module
from septum.prediction.files import predict_files
from septum.prediction.records import FileDone, StreamDone
from septum.prediction.streaming.decide import StreamOptions
from tests.prediction.test_files import MODEL, SHAPE, picture, saved


@pytest.fixture
def calls(monkeypatch):
    """How often each file is opened, hashed and planned."""
    counts = Counter()

    def count(where, name, what, path_of):
        original = getattr(where, name)

        def counted(*values, **settings):
            counts[what, path_of(*values).name] += 1
            return original(*values, **settings)

        monkeypatch.setattr(where, name, counted)

    count(images_module, "open_stored", "open", lambda path, *_: path)
    count(module, "fingerprint_image", "hash", lambda path: path)
    count(module, "plan_stream", "plan", lambda model, image, *_: image.path)
    count(module, "network_speed", "probe", lambda net: Path("network"))
    return counts


def write(folder):
    paths = [folder / "a.tif", folder / "b.tif"]
    for seed, path in enumerate(paths):
        tifffile.imwrite(path, picture(seed)[0])
    tifffile.imwrite(folder / "mask.tif", np.ones(SHAPE, np.uint8))
    return paths


def test_streamed_images_are_opened_hashed_and_planned_once(tmp_path, calls):
    paths = write(tmp_path)
    options = StreamOptions(mask=tmp_path / "mask.tif", verify=1)
    records = list(predict_files(saved(MODEL), paths, tmp_path / "out", stream=options))
    done = [one for one in records if isinstance(one, StreamDone)]
    assert len(done) == 2
    once = {(what, name): 1 for what in ("open", "hash", "plan") for name in ("a.tif", "b.tif")}
    # the mask belongs to two images
    assert calls == once | {("open", "mask.tif"): 2, ("hash", "mask.tif"): 1, ("probe", "network"): 1}


def test_images_in_memory_are_opened_and_hashed_once(tmp_path, calls):
    paths = write(tmp_path)
    for _ in range(2):
        calls.clear()
        done = [one for one in predict_files(saved(MODEL), paths, tmp_path / "out") if isinstance(one, FileDone)]
        assert len(done) == 2
        images = {key: number for key, number in calls.items() if key[1] in ("a.tif", "b.tif")}
        assert images == {(what, name): 1 for what in ("open", "hash") for name in ("a.tif", "b.tif")}


def test_a_large_image_that_was_done_in_memory_is_hashed_once(tmp_path, calls, monkeypatch):
    """Its hash says that it is not done with this model, and goes into the plan."""
    path = write(tmp_path)[0]
    list(predict_files(saved(MODEL), [path], tmp_path / "out"))
    monkeypatch.setattr(module, "needs_streaming", lambda *_: True)
    calls.clear()
    records = list(predict_files(saved(MODEL, "another"), [path], tmp_path / "out"))
    assert isinstance(records[-1], StreamDone)
    assert calls["hash", "a.tif"] == calls["open", "a.tif"] == 1
