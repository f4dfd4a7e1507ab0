import os
import signal
import socket

import pytest

from septum.errors import ConfigError
from septum.prediction.streaming.cluster import connect, run_on
from septum.prediction.streaming.decide import StreamOptions
from septum.prediction.streaming.job import Job
from tests.prediction.streaming.test_job import image_of, make_model, plan_small_tiles, stream, tree

pytest.importorskip("distributed")
# dask's own: sockets that its processes leave to the garbage collector when one of them is killed
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    import tifffile

    monkeypatch.setenv("PYTHONPATH", "src")
    tifffile.imwrite(tmp_path / "a.tif", image_of()[0], tile=(32, 32))
    return make_model(tmp_path), tmp_path / "a.tif"


@pytest.mark.posix
def test_workers_of_which_one_is_killed_write_the_same_bytes(inputs, tmp_path):
    stream(*inputs, tmp_path / "alone")
    plan_small_tiles(*inputs, tmp_path / "out")
    job = Job(tmp_path / "out" / "a_work")
    with connect(None, workers=2) as client:
        steps = run_on(client, job)
        pids = list(client.run(os.getpid).values())
        assert len({*pids, os.getpid()}) == 3
        killed = False
        for step, done, _ in steps:
            if step.name == "tiles" and done == 3 and not killed:
                os.kill(pids[0], signal.SIGKILL)
                killed = True
    assert killed
    stream(*inputs, tmp_path / "out", small=False)
    assert tree(tmp_path / "out") == tree(tmp_path / "alone")


def test_a_local_cluster_is_an_option(inputs, tmp_path):
    stream(*inputs, tmp_path / "alone")
    stream(*inputs, tmp_path / "out", StreamOptions(workers=2))
    assert tree(tmp_path / "out") == tree(tmp_path / "alone")


def test_a_scheduler_that_is_not_there(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr("septum.prediction.streaming.cluster.CONNECT_SECONDS", 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ConfigError, match=f"no dask scheduler answers at {address}; start one with"):
        stream(*inputs, tmp_path / "out", StreamOptions(cluster=address))
    assert (tmp_path / "out" / "a_work" / "plan.json").exists()
