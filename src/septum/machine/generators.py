"""Generators that yield records on the way and return a result at the end."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from typing import TypeVar

Record = TypeVar("Record")
Other = TypeVar("Other")
Result = TypeVar("Result")


def drain(steps: Generator[Record, None, Result], each: Callable[[Record], object] | None = None) -> Result:
    """Run a generator to its end, call `each` with every record it yields, and return its result.

    Examples
    --------
    >>> def halves():
    ...     yield "first"
    ...     yield "second"
    ...     return 2
    >>> drain(halves(), print)
    first
    second
    2
    """
    while True:
        try:
            record = next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result
        if each is not None:
            each(record)


def mapped(
    steps: Generator[Record, None, Result], convert: Callable[[Record], Other]
) -> Generator[Other, None, Result]:
    """Yield every record of a generator converted, and return its result.

    Examples
    --------
    >>> def halves():
    ...     yield "first"
    ...     yield "second"
    ...     return 2
    >>> drain(mapped(halves(), str.upper), print)
    FIRST
    SECOND
    2
    """
    result: list[Result] = []

    def records() -> Generator[Record, None, None]:
        result.append((yield from steps))

    with closing(records()) as originals:
        for record in originals:
            yield convert(record)
    return result[0]
