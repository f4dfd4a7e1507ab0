import threading
import time

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


def test_an_error_while_fetching_is_raised_in_place_of_the_item():
    def items():
        yield 1
        raise ValueError("broken strip")

    line = ahead(items())
    assert next(line) == 1
    with pytest.raises(ValueError, match="broken strip"):
        next(line)


def test_fetching_ends_when_the_reader_closes():
    before = threading.active_count()
    line = ahead(iter(int, 1))
    next(line)
    assert threading.active_count() == before + 1
    line.close()
    assert threading.active_count() == before


def test_an_error_while_writing_is_raised():
    def full(_):
        raise OSError("full")

    writer = Behind(full)
    writer.put(1)
    with pytest.raises(OSError, match="full"):
        writer.close()


def test_at_most_two_writes_wait_and_all_are_done_in_order():
    gate, done = threading.Event(), []

    def write(value):
        assert gate.wait(60)
        done.append(value)

    writer = Behind(write, size=2)
    for value in range(3):
        writer.put(value)
    fourth = threading.Thread(target=writer.put, args=(3,))
    fourth.start()
    fourth.join(0.2)
    assert fourth.is_alive()  # one is written, two wait
    gate.set()
    fourth.join(60)
    writer.close()
    assert done == [0, 1, 2, 3]


def test_an_error_while_writing_is_raised_where_the_next_value_is_put():
    def full(_):
        raise OSError("full")

    writer = Behind(full)
    writer.put(1)
    while not writer.calls[0].done():
        time.sleep(0.001)
    with pytest.raises(OSError, match="full"):
        writer.put(2)
    writer.close()
