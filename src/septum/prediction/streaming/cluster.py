"""The pieces of a planned prediction on many processes or machines, by dask.distributed."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from septum.errors import ConfigError
from septum.prediction.streaming.job import Job, Step

if TYPE_CHECKING:
    from collections.abc import Iterator

CONNECT_SECONDS = 10


def run_on(client: Any, job: Job) -> Generator[tuple[Step, int, int], None, int]:
    """Do all that is missing on the workers of a client; yields (step, pieces done, all of them).

    A piece whose worker dies goes to another one. What a worker wrote is whole or not there, and the same whoever
    writes it. Returns the number of objects.
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
                    f"a piece of step {step.name!r} has ended every worker that tried it, most likely for lack of "
                    "memory; give less --max-memory. What is done is kept"
                ) from None
            except (CancelledError, CommClosedError):
                raise ConfigError(
                    "the dask scheduler has gone away; start it again and repeat the command: what is done is kept"
                ) from None
            done += 1
            yield step, done, step.count
        objects += job.finish(step)
    return objects


def run_piece(folder: str, plan: str, step: Step, piece: int) -> None:
    """Do one piece of a step: what a worker is asked for."""
    _job(folder, plan).run(step, piece)


@lru_cache(maxsize=1)
def _job(folder: str, plan: str) -> Job:  # a smaller plan is another job
    return Job(Path(folder))


@contextmanager
def connect(address: str | None, workers: int) -> Iterator[Any]:
    """Give a client of the scheduler at an address, or of so many worker processes on this machine.

    Raises
    ------
    ConfigError
        If dask.distributed is not installed, or no scheduler answers.
    """
    try:
        import distributed
    except ImportError:
        raise ConfigError(
            'several workers need dask.distributed; install it with: pip install "septum[cluster]"'
        ) from None
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters is said in one sentence
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
            silence_logs=logging.CRITICAL,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client
