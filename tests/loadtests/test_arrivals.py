import itertools
import random
import statistics
import time

import gevent
import pytest
from gevent.event import AsyncResult, Event

from loadtests import arrivals
from loadtests.arrivals import Arrivals


def begin(count, rate, spacing="constant", visit=None, drop=lambda: None):
    """Let so many visits arrive; gives when they were due and when they began."""
    moments, enough = [], AsyncResult()

    def note(due_s):
        moments.append((due_s, time.perf_counter()))
        if len(moments) == count:
            enough.set()
        if visit:
            visit()

    running = gevent.spawn(Arrivals(lambda: rate, note, drop, spacing, random.Random(1)).run)
    enough.get(timeout=20)
    running.kill()
    return [due for due, _ in moments[:count]], [began for _, began in moments[:count]]


def gaps(due):
    return [later - sooner for sooner, later in itertools.pairwise(due)]


def test_visits_come_at_the_rate_even_when_none_ends():
    never = Event()

    due, _ = begin(50, 200.0, visit=never.wait)

    assert gaps(due) == pytest.approx([1 / 200] * 49)


def test_a_visit_that_begins_late_was_due_in_time():
    """Nothing is left out while this program is busy: its visits are made up for, with the times at which they were due."""
    is_first = [True]

    def block():
        if is_first.pop() if is_first else False:
            time.sleep(0.3)

    due, began = begin(50, 100.0, visit=block)

    assert gaps(due) == pytest.approx([1 / 100] * 49)
    assert max(start - planned for planned, start in zip(due, began, strict=True)) > 0.2


def test_people_come_by_chance():
    due, _ = begin(500, 2000.0, "poisson")

    between = gaps(due)
    assert statistics.mean(between) == pytest.approx(1 / 2000, rel=0.15)
    assert statistics.stdev(between) == pytest.approx(statistics.mean(between), rel=0.2)


def test_a_rate_that_changes_is_followed():
    rates = iter([0.0] * 2 + [400.0] * 10_000)
    due = []
    running = gevent.spawn(Arrivals(lambda: next(rates), due.append, lambda: None, "constant", random.Random(1)).run)
    started = time.perf_counter()
    with gevent.Timeout(20):
        while len(due) < 20:
            gevent.sleep(0.01)
    running.kill()

    # Two slices without anybody, then one after the other.
    assert due[0] - started == pytest.approx(2 * arrivals._SLICE_S + 1 / 400, abs=0.01)
    assert gaps(due[:20]) == pytest.approx([1 / 400] * 19)


def test_visits_for_which_there_is_no_room_are_counted(monkeypatch):
    monkeypatch.setattr(arrivals, "MAX_VISITS", 5)
    dropped, never = AsyncResult(), Event()

    begin(5, 500.0, visit=never.wait, drop=lambda: dropped.set() or None)
    running = gevent.spawn(
        Arrivals(lambda: 500.0, lambda _: never.wait(), lambda: dropped.set(True), "constant", random.Random(1)).run
    )

    assert dropped.get(timeout=20)
    running.kill()
