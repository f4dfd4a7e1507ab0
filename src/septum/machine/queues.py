"""Reading ahead and writing behind: bounded queues and their threads, so that disks and network work together."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")

_END = object()
PATIENCE = 0.1  # seconds between two looks whether anybody still wants what was fetched


def ahead(items: Iterable[T], size: int = 1) -> Iterator[T]:
    """Yield the same items, fetched by a thread while those before are in use; at most `size` wait in line.

    Examples
    --------
    >>> list(ahead(range(3)))
    [0, 1, 2]
    """
    line: queue.Queue[Any] = queue.Queue(size)
    unwanted = threading.Event()
    failure: list[BaseException] = []

    def put(item: object) -> None:
        while not unwanted.is_set():
            with suppress(queue.Full):
                line.put(item, timeout=PATIENCE)
                return

    def fetch() -> None:
        try:
            for item in items:
                put(item)
                if unwanted.is_set():
                    break
        except BaseException as error:  # it is raised where the item would have been used
            failure.append(error)
        put(_END)

    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    try:
        while (item := line.get()) is not _END:
            yield item
            del item
        if failure:
            raise failure[0]
    finally:
        unwanted.set()
        thread.join()


class Behind:
    """Calls a function in a thread, in order; `put` waits while two calls are waiting, and raises what one raised."""

    def __init__(self, action: Callable[..., object], size: int = 2) -> None:
        self.action = action
        self.waiting: queue.Queue[Any] = queue.Queue(size)
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def put(self, *values: object) -> None:
        self._check()
        self.waiting.put(values)

    def close(self) -> None:
        """Wait until all is done."""
        self.waiting.put(_END)
        self.thread.join()
        self._check()

    def _work(self) -> None:
        while (values := self.waiting.get()) is not _END:
            if self.error is None:
                try:
                    self.action(*values)
                except BaseException as error:  # it is raised where the next values are put
                    self.error = error

    def _check(self) -> None:
        if self.error is not None:
            error, self.error = self.error, None
            raise error
