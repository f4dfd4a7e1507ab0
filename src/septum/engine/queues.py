"""Reading ahead and writing behind: bounded queues, a thread each, so that disks and network work at the same time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
_END = object()


def ahead(items: Iterable[T], size: int = 2) -> Iterator[T]:
    """Yield items that a thread gets ready, at most `size` of them before they are asked for.

    Examples
    --------
    >>> list(ahead(range(3)))
    [0, 1, 2]
    """
    waiting: queue.Queue[Any] = queue.Queue(size)
    stopped = threading.Event()

    def put(item: object) -> None:
        while not stopped.is_set():
            try:
                waiting.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put(item)
                if stopped.is_set():
                    return
            put(_END)
        except BaseException as error:  # it is raised where the items are used
            put(_Failed(error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while (item := waiting.get()) is not _END:
            if isinstance(item, _Failed):
                raise item.error
            yield item
    finally:
        stopped.set()
        thread.join()


class _Failed:
    def __init__(self, error: BaseException) -> None:
        self.error = error


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
