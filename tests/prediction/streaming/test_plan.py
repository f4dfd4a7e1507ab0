import os
import re

import numpy as np
import pytest

from septum.config import TtaConfig, UNetConfig
from septum.core.layout import TooLittleMemory
from septum.errors import ConfigError, OutputError
from septum.prediction.streaming.job import PLAN
from septum.prediction.streaming.plan import (
    DECODING,
    StreamPlan,
    check_same,
    choose_tiles,
    fingerprint_image,
    read_plan,
    shrink_plan,
    write_or_resume,
)

# as an earlier version wrote it: plans of unfinished runs, and of results, are read for ever
WRITTEN = """{
 "format": 1,
 "request": {
  "model": "e658", "image": "b8e2", "mask": null, "channel": null, "level": 0, "region": [37, 293, 20, 280],
  "tta": {"kind": "dihedral", "versions": 8, "average": "probabilities"},
  "probabilities": "uint8", "statistics": "image", "device": "cpu"
 },
 "model_path": "/models/em-membrane.safetensors", "image_path": "/images/a.tif", "mask_path": null,
 "shape": [256, 260], "origin": [37, 20], "frames": 1, "stride": [512, 512], "rows": 512, "chunk": 512, "block": 1024,
 "threads": 1, "memory": 244732038, "multiply_adds": 39316959744, "redundancy": 1.0,
 "normalization": [{"offset": [119.55178341013824], "scale": [39.9166845513904]}],
 "keeps_zarr": false
}"""
CONFIG = UNetConfig(base_channels=16, depth=2)


@pytest.fixture
def plan() -> StreamPlan:
    return StreamPlan.model_validate_json(WRITTEN)


def test_a_plan_of_an_earlier_version_is_read_and_written_with_the_same_names(plan, tmp_path):
    path = tmp_path / "a_plan.json"
    path.write_text(WRITTEN)
    assert read_plan(path) == plan
    names = re.findall(r'"(\w+)":', WRITTEN)
    assert re.findall(r'"(\w+)":', plan.model_dump_json()) == names
    assert plan.request.tta == TtaConfig(kind="dihedral", versions=8)
    assert plan.request.region == (37, 293, 20, 280)


def test_a_damaged_or_missing_plan_is_refused(tmp_path):
    path = tmp_path / "a_work" / PLAN
    with pytest.raises(
        OutputError, match=r"plan\.json does not exist on this machine; all workers of a cluster must see"
    ):
        read_plan(path)
    path.parent.mkdir()
    path.write_text(WRITTEN[:300])
    message = (
        rf"plan\.json is damaged or not a plan of Septum; remove a_work, a_plan\.json, .* in {tmp_path} and run again"
    )
    with pytest.raises(OutputError, match=message):
        read_plan(path)


def test_the_error_names_what_differs_between_two_requests(plan, tmp_path):
    path, old = tmp_path / "a_plan.json", plan.request
    check_same(path, old, old.model_copy())
    new = old.model_copy(update={"mask": "77", "level": 1})
    with pytest.raises(OutputError, match=r"a_plan\.json belongs to a result with another mask, level; choose another"):
        check_same(path, old, new)


def test_tiles_cover_the_result(plan):
    assert plan.tiles == 1
    assert plan.model_copy(update={"stride": (128, 96)}).tiles == 2 * 3


def test_steps_are_shared_by_processes_except_those_that_one_process_does(plan):
    assert plan.seconds("tiles", 1e9) == plan.multiply_adds / 1e9
    for step, shared in (
        ("tiles", True),
        ("labels", True),
        ("statistics", False),
        ("pyramid", False),
        ("table", False),
    ):
        alone, four = plan.seconds(step, 1e9), plan.seconds(step, 1e9, processes=4)
        assert four == pytest.approx(alone / 4 if shared else alone)


def test_a_plan_is_described_in_one_sentence(plan):
    several = plan.model_copy(update={"frames": 3, "stride": (128, 96), "redundancy": 1.25})
    assert several.describe(network=130, rest=5, processes=2) == (
        "3 frames of 256 x 260 pixels in 6 tiles of 128 x 96; 25.0 % more computation than in one pass; 245 MB of "
        "memory per worker in addition to the program; about 3 min, of which the network takes 3 min"
    )
    assert plan.describe(network=8.2, rest=1).startswith("256 x 260 pixels in 1 tile of 512 x 512; 0.0 % more")


def test_chunks_are_smaller_where_memory_is_short():
    shape, config = (4096, 4096), UNetConfig(base_channels=64, depth=4)
    wide = choose_tiles(shape, config, 4 * 10**9, None)
    narrow = choose_tiles(shape, config, 190 * 10**6, None)
    assert wide["chunk"] == 512 > narrow["chunk"]
    for fields, memory in ((wide, 4 * 10**9), (narrow, 190 * 10**6)):
        assert DECODING <= fields["memory"] <= memory
        assert all(step % fields["chunk"] == 0 for step in fields["stride"])
    with pytest.raises(TooLittleMemory) as error:
        choose_tiles(shape, config, DECODING - 1, None)
    assert error.value.missing == 1


def test_a_smaller_plan_takes_less_and_keeps_what_is_written(plan):
    wide = plan.model_copy(update={"shape": (4096, 4096), "stride": (4096, 4096), "rows": 512, "memory": 2 * 10**9})
    smaller = shrink_plan(wide, CONFIG)
    assert smaller.memory <= 1.05 * 10**9
    assert (smaller.stride, smaller.rows) < (wide.stride, wide.rows)
    assert all(step % wide.chunk == 0 for step in smaller.stride)
    assert smaller.chunk == wide.chunk
    assert smaller.request == wide.request
    for _ in range(2):
        smaller = shrink_plan(smaller, CONFIG)
    with pytest.raises(ConfigError, match="not even the smallest tile of this network fits into the memory of cpu"):
        shrink_plan(smaller, CONFIG)


def test_a_run_continues_within_less_memory_and_with_its_present_threads(plan, tmp_path):
    path = tmp_path / "a_work" / PLAN
    wide = {"shape": (4096, 4096), "stride": (4096, 4096), "rows": 1024, "memory": 3 * 10**9, "chunk": 16}
    begun = plan.model_copy(update=wide | {"threads": 9})
    assert write_or_resume(path, begun, CONFIG) == begun
    for memory, same in ((2.9e9, True), (4e8, False)):
        now = write_or_resume(path, begun.model_copy(update={"memory": int(memory), "threads": 2}), CONFIG)
        assert now == read_plan(path)
        assert (
            (now.stride, now.rows, now.memory) == (begun.stride, begun.rows, begun.memory)
            if same
            else (now.memory <= memory and now.stride[0] % now.chunk == 0)
        )
        assert (now.threads, now.chunk, now.request) == (2, begun.chunk, begun.request)
    with pytest.raises(ConfigError, match="its smallest tile does not fit into 1 MB; raise --max-memory"):
        write_or_resume(path, begun.model_copy(update={"memory": 10**6}), CONFIG)


def test_large_files_and_zarr_folders_are_fingerprinted_without_being_read(tmp_path, monkeypatch):
    file = tmp_path / "large"
    file.write_bytes(np.random.default_rng(0).bytes(300_000))
    whole = fingerprint_image(file)
    monkeypatch.setattr("septum.prediction.streaming.plan.WHOLE_HASH", 1000)
    monkeypatch.setattr("septum.prediction.streaming.plan.SAMPLE", 100)
    sampled = fingerprint_image(file)
    assert sampled != whole
    assert fingerprint_image(file) == sampled
    os.utime(file, ns=(1, 1))
    assert fingerprint_image(file) != sampled
    folder = tmp_path / "z.zarr"
    (folder / "c").mkdir(parents=True)
    (folder / "zarr.json").write_text("{}")
    (folder / "c" / "0").write_bytes(b"x")
    first = fingerprint_image(folder)
    (folder / "zarr.json").write_text("[]")
    assert fingerprint_image(folder) != first
