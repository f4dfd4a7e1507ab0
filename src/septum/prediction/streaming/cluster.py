"""The steps of a planned prediction on the workers of dask.distributed: processes here or on other machines."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from septum.errors import ConfigError
from septum.machine.memory import limit_allocator_cache
from septum.prediction.streaming.job import Job, Step

if TYPE_CHECKING:
    from collections.abc import Iterator

CONNECT_SECONDS = 10


def run_on(client: Any, job: Job) -> Generator[tuple[Step, int, int], None, int]:
    """Do all missing pieces on the workers of a client; yields (step, pieces done, total).

    If a worker dies, another one does its piece. Whatever a worker writes appears whole or not at all, and does not
    depend on the worker. Returns the number of objects.
    """
    from distributed import CancelledError, KilledWorker, as_completed
    from distributed.comm import CommClosedError

    objects, plan = 0, job.plan.model_dump_json()
    for step in job.steps():
        missing = job.missing(step)
        futures = [client.submit(run_piece, str(job.folder), plan, step, piece, pure=False) for piece in missing]
        done = step.count - len(missing)
        for future in as_completed(futures):
            try:
                future.result()
            except KilledWorker:
                raise ConfigError(
                    f"a piece of step {step.name!r} ended every worker that tried it, probably because memory ran out; "
                    "lower --max-memory and repeat the command: finished pieces are kept"
                ) from None
            except (CancelledError, CommClosedError):
                raise ConfigError(
                    "the connection to the dask scheduler was lost; start it again and repeat the command: finished "
                    "pieces are kept"
                ) from None
            done += 1
            yield step, done, step.count
        objects += job.finish(step)
    return objects


def run_piece(folder: str, plan: str, step: Step, piece: int) -> None:
    """Do one piece of a step on a worker."""
    _job(folder, plan).run(step, piece)


@lru_cache(maxsize=1)
def _job(folder: str, plan: str) -> Job:  # if the plan is made smaller, it is opened again
    limit_allocator_cache()  # this process is a worker's own
    job = Job(Path(folder))
    torch.set_num_threads(job.plan.threads)
    return job


@contextmanager
def connect(address: str | None, workers: int) -> Iterator[Any]:
    """Connect to the scheduler at an address, or start a number of worker processes on this machine.

    Raises
    ------
    ConfigError
        If dask.distributed is not installed, or no scheduler answers.
    """
    try:
        import distributed
    except ImportError:
        raise ConfigError("several workers need dask.distributed; install it with pip install distributed") from None
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # errors are reported in one sentence
    if address is not None:
        try:
            client = distributed.Client(address, timeout=CONNECT_SECONDS)
        except (OSError, ValueError):
            raise ConfigError(
                f"no dask scheduler answers at {address}; start one with: dask scheduler, and workers with: dask worker"
            ) from None
        with client:
            try:
                client.wait_for_workers(1, timeout=CONNECT_SECONDS)
            except TimeoutError:
                raise ConfigError(
                    f"the dask scheduler at {address} has no workers; start some with: dask worker {address}"
                ) from None
            yield client
        return
    with (
        distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            memory_limit=None,
            dashboard_address=None,
            scheduler_kwargs={"dashboard_address": ":0"},  # any free port
            silence_logs=logging.CRITICAL,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client
