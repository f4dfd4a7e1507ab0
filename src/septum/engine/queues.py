"""Writing behind: a bounded queue and its thread, so that disks and network work at the same time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

_END = object()


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
