"""Reading ahead and writing behind: a thread each, so that disk and network work at the same time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")

_END: Any = object()


def ahead(items: Iterable[T], size: int = 2) -> Iterator[T]:
    """Yield the same items, fetched by a thread while earlier ones are in use; at most `size` are fetched ahead.

    Examples
    --------
    >>> list(ahead(range(3)))
    [0, 1, 2]
    """
    line, pool = iter(items), ThreadPoolExecutor(1)
    try:
        fetched = deque(pool.submit(next, line, _END) for _ in range(size))
        while (item := fetched.popleft().result()) is not _END:
            fetched.append(pool.submit(next, line, _END))
            yield item
            del item  # the next one may need its memory
    finally:
        pool.shutdown(cancel_futures=True)


class Behind:
    """Calls a function in a thread, in order.

    While one call runs and `size` wait, `put` waits; it raises the error of an earlier call.
    """

    def __init__(self, action: Callable[..., object], size: int = 2) -> None:
        self.action, self.size = action, size
        self.pool = ThreadPoolExecutor(1)
        self.calls: deque[Future[object]] = deque()

    def put(self, *values: object) -> None:
        while self.calls and (len(self.calls) > self.size or self.calls[0].done()):
            self.calls.popleft().result()
        self.calls.append(self.pool.submit(self.action, *values))

    def close(self) -> None:
        """Wait until all calls are done; raises the first error."""
        with self.pool:
            while self.calls:
                self.calls.popleft().result()
