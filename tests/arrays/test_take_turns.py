"""Pieces of work that are taken by whichever thread is free."""

import threading
import time

import pytest

from shared.arrays import threads


@pytest.mark.parametrize(("items", "pieces", "number"), [(10, 1, 2), (10, 3, 2), (3, 5, 2), (100, 7, 4), (0, 0, 2)])
def test_every_item_is_in_one_piece(items, pieces, number):
    done = []
    threads.take_turns(lambda piece, first, last: done.append((piece, first, last)), items, pieces, number)
    assert sorted(piece for piece, _, _ in done) == list(range(pieces))
    assert sorted(i for _, first, last in done for i in range(first, last)) == list(range(items))


def test_another_thread_joins():
    names, both = set(), threading.Event()

    def work(piece, first, last):
        names.add(threading.current_thread().name)
        if len(names) == 2:
            both.set()
        assert both.wait(60), "nobody else takes a piece"

    threads.take_turns(work, 20, 20, 2)
    assert len(names) == 2


def test_a_thread_that_is_busy_is_not_waited_for():
    release, begun = threading.Event(), threading.Event()
    busy = threads._pool(1).submit(lambda: (begun.set(), release.wait(30)))
    assert begun.wait(30)
    names = []
    try:
        threads.take_turns(lambda *_: names.append(threading.current_thread()), 4, 4, 2)
        assert not busy.done() and names == [threading.current_thread()] * 4
    finally:
        release.set()


@pytest.mark.parametrize("failing", [True, False], ids=["on the caller's thread", "on another"])
def test_an_error_reaches_the_caller_when_all_have_stopped(failing):
    caller, running, names, both = threading.current_thread(), [], set(), threading.Event()

    def work(piece, first, last):
        running.append(piece)
        names.add(threading.current_thread().name)
        if len(names) == 2:
            both.set()
        joined = both.wait(60)
        time.sleep(0.005)
        running.remove(piece)
        assert joined, "nobody else takes a piece"
        if (threading.current_thread() is caller) == failing:
            raise ZeroDivisionError(str(piece))

    with pytest.raises(ZeroDivisionError):
        threads.take_turns(work, 40, 40, 2)
    assert not running
