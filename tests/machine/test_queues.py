import threading

import pytest

from septum.machine.queues import Behind, ahead


def test_items_are_fetched_ahead_but_not_too_far():
    fetched = [threading.Event() for _ in range(10)]

    def items():
        for number in range(10):
            fetched[number].set()
            yield number

    line = ahead(items(), size=2)
    assert next(line) == 0
    assert fetched[2].wait(60)  # one is in use, two wait
    assert not fetched[3].wait(0.3)
    assert list(line) == list(range(1, 10))


def test_what_goes_wrong_while_fetching_is_raised_where_the_item_would_have_come():
    def items():
        yield 1
        raise ValueError("broken strip")

    line = ahead(items())
    assert next(line) == 1
    with pytest.raises(ValueError, match="broken strip"):
        next(line)


def test_nothing_goes_on_when_nobody_wants_the_items():
    before = threading.active_count()
    line = ahead(iter(int, 1))
    next(line)
    assert threading.active_count() == before + 1
    line.close()
    assert threading.active_count() == before


def test_writing_behind_raises_what_went_wrong():
    def full(_):
        raise OSError("full")

    writer = Behind(full)
    writer.put(1)
    with pytest.raises(OSError, match="full"):
        writer.close()
