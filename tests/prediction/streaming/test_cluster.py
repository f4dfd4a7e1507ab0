import os
import signal
import socket
import sys

import pytest

from septum.errors import ConfigError, ImageError
from septum.prediction.streaming import cluster
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
PART = StreamOptions(region=(20, 90, 3, 83))


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    import tifffile

    monkeypatch.setenv("PYTHONPATH", "src")
    tifffile.imwrite(tmp_path / "a.tif", image_of()[0], tile=(32, 32))
    return make_model(tmp_path), tmp_path / "a.tif"


@pytest.fixture
def client(monkeypatch):
    """A worker in a thread of this process, which leaves its threads and its allocator as they are."""
    import distributed

    calls = []
    monkeypatch.setattr(cluster.torch, "set_num_threads", lambda number: calls.append(number))
    monkeypatch.setattr(cluster, "limit_allocator_cache", lambda: calls.append("limited"))
    with (
        distributed.LocalCluster(
            processes=False, n_workers=1, threads_per_worker=1, scheduler_kwargs={"dashboard_address": ":0"}
        ) as local,
        distributed.Client(local) as client,
    ):
        client.calls = calls
        yield client
    cluster._job.cache_clear()


def test_a_worker_writes_the_same_bytes_and_sets_its_own_threads_once(inputs, tmp_path, client):
    stream(*inputs, tmp_path / "alone", PART)
    plan_small_tiles(*inputs, tmp_path / "out", PART, threads=3)
    job = Job(tmp_path / "out" / "a_work")
    records = list(run_on(client, job))
    assert client.calls == ["limited", 3]
    for step in job.steps():
        assert (step, step.count, step.count) in records
        assert job.missing(step) == []
    stream(*inputs, tmp_path / "out", PART, small=False)
    assert tree(tmp_path / "out") == tree(tmp_path / "alone")


def test_an_error_in_a_worker_is_raised_here(inputs, tmp_path, client):
    plan_small_tiles(*inputs, tmp_path / "out", PART)
    job = Job(tmp_path / "out" / "a_work")
    inputs[1].write_bytes(inputs[1].read_bytes()[:9_000])
    with pytest.raises(ImageError, match=r"a\.tif is damaged or truncated"):
        list(run_on(client, job))


@pytest.mark.posix
@pytest.mark.slow
def test_the_kill_of_a_worker_does_not_change_the_bytes(inputs, tmp_path):
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


@pytest.mark.slow
def test_a_local_cluster_is_an_option(inputs, tmp_path):
    stream(*inputs, tmp_path / "alone")
    stream(*inputs, tmp_path / "out", StreamOptions(workers=2))
    assert tree(tmp_path / "out") == tree(tmp_path / "alone")


def test_a_scheduler_that_does_not_answer(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr("septum.prediction.streaming.cluster.CONNECT_SECONDS", 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ConfigError, match=f"no dask scheduler answers at {address}; start one with"):
        stream(*inputs, tmp_path / "out", StreamOptions(cluster=address))
    assert (tmp_path / "out" / "a_work" / "plan.json").exists()


def test_without_dask_the_error_says_how_to_install_it(inputs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match=r"several workers need dask\.distributed; install it with pip install dist"):
        stream(*inputs, tmp_path / "out", StreamOptions(workers=2))
