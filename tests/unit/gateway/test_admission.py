import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from prometheus_client import REGISTRY

from gateway import deadline
from gateway.admission import Admission
from gateway.errors import GatewayOverloaded
from tests.processes import wait_until

LONG_S = 30.0


def pictures(state):
    return REGISTRY.get_sample_value("dermserve_gateway_pictures", {"state": state}) or 0.0


def admissions(result):
    return REGISTRY.get_sample_value("dermserve_gateway_admissions_total", {"result": result}) or 0.0


class Worker:
    """A thread that wants to work, and works until it is told to end."""

    def __init__(self, pool, admission, name="", done=None, count=1):
        self.end = threading.Event()
        self.begun = threading.Event()
        self.future = pool.submit(self._work, admission, name, done if done is not None else [], count)

    def _work(self, admission, name, done, count):
        with admission.work(count):
            done.append(name)
            self.begun.set()
            self.end.wait(LONG_S)


def test_beyond_its_places_nobody_is_let_in_and_nobody_waits():
    admission, before = Admission(2, 1, LONG_S), admissions("full")
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(admission.place())
        for _ in range(5):
            with pytest.raises(GatewayOverloaded), admission.place():
                pytest.fail("let in")
        assert (pictures("present"), admissions("full") - before) == (3, 5)

    with admission.place():
        assert pictures("present") == 1


def test_a_place_and_a_turn_are_given_back_by_whoever_fails():
    admission = Admission(1, 0, 0.0)
    for _ in range(3):
        with pytest.raises(RuntimeError), admission.place(), admission.work():
            raise RuntimeError
    assert pictures("present") == pictures("at_work") == pictures("waiting") == 0


def test_turns_go_to_whoever_has_waited_longest():
    admission, done = Admission(1, 9, LONG_S), []
    with ThreadPoolExecutor(6) as pool:
        workers = [Worker(pool, admission, 0, done)]
        assert workers[0].begun.wait(LONG_S)
        for number in range(1, 6):
            workers.append(Worker(pool, admission, number, done))
            wait_until(lambda expected=number: pictures("waiting") == expected)
        assert pictures("at_work") == 1
        for worker in workers:
            assert worker.begun.wait(LONG_S)
            worker.end.set()
        for worker in workers:
            worker.future.result()

    assert done == [0, 1, 2, 3, 4, 5]


def test_never_more_than_so_many_are_at_work():
    admission, at_work, most = Admission(3, 50, LONG_S), [], []

    def work(_):
        with admission.work():
            at_work.append(1)
            most.append(len(at_work))
            at_work.pop()

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(work, range(500)))

    assert max(most) <= 3
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(admission.work())


@pytest.mark.parametrize(("max_wait_s", "left_s"), [(0.01, LONG_S), (LONG_S, 0.01)])
def test_who_waits_too_long_or_past_its_deadline_leaves_the_queue(max_wait_s, left_s):
    admission, before = Admission(1, 5, max_wait_s), admissions("late")
    with ThreadPoolExecutor(1) as pool:
        worker = Worker(pool, admission)
        assert worker.begun.wait(LONG_S)

        with pytest.raises(GatewayOverloaded), deadline.within(left_s), admission.work():
            pytest.fail("worked on")
        worker.end.set()
        worker.future.result()

    assert admissions("late") == before + 1
    # Its turn was not given to nobody.
    with admission.work():
        assert pictures("at_work") == 1


def test_several_pictures_take_several_places_or_none():
    admission, before = Admission(2, 2, LONG_S), admissions("full")
    with admission.place(), admission.place(2):
        assert pictures("present") == 3
        with pytest.raises(GatewayOverloaded), admission.place(2):
            pytest.fail("let in")
        with admission.place():
            assert pictures("present") == 4

    assert admissions("full") == before + 2
    with admission.place(4):
        assert pictures("present") == 4


def test_no_upload_counts_as_more_than_can_be_worked_on_at_a_time():
    admission = Admission(4, 0, LONG_S)

    assert [admission.counted(count) for count in (1, 4, 5, 16)] == [1, 4, 4, 4]


def test_a_batch_waits_for_all_its_turns_and_nobody_overtakes_it():
    admission, done = Admission(2, 9, LONG_S), []
    with ThreadPoolExecutor(4) as pool:
        first, second = Worker(pool, admission), Worker(pool, admission)
        assert first.begun.wait(LONG_S)
        assert second.begun.wait(LONG_S)
        batch = Worker(pool, admission, "batch", done, count=2)
        wait_until(lambda: pictures("waiting") == 2)
        late = Worker(pool, admission, "late", done)
        wait_until(lambda: pictures("waiting") == 3)
        first.end.set()
        first.future.result()
        # One turn is free, and the one that needs no more than it stands behind.
        assert (done, pictures("at_work")) == ([], 1)
        second.end.set()
        assert batch.begun.wait(LONG_S)
        assert (done, pictures("at_work")) == (["batch"], 2)
        batch.end.set()
        late.end.set()
        late.future.result()

    assert done == ["batch", "late"]


def test_a_batch_that_leaves_the_queue_lets_those_behind_it_through():
    admission = Admission(2, 9, LONG_S)

    def give_up():
        with deadline.within(1.0), pytest.raises(GatewayOverloaded), admission.work(2):
            pytest.fail("worked on")

    with ThreadPoolExecutor(3) as pool:
        first = Worker(pool, admission)
        assert first.begun.wait(LONG_S)
        batch = pool.submit(give_up)
        wait_until(lambda: pictures("waiting") == 2)
        behind = Worker(pool, admission)
        # Though nobody has given back a turn: the first one works on for longer than this waits.
        assert behind.begun.wait(LONG_S / 3)
        batch.result()
        for worker in (first, behind):
            worker.end.set()
            worker.future.result()


def test_what_nobody_has_sent_is_worked_on_only_where_two_turns_are_free_and_counts_nowhere():
    admission, before = Admission(2, 5, LONG_S), admissions("admitted")

    with admission.spare():
        assert pictures("at_work") == 0
        # The other one is a visitor's, and is had at once.
        with admission.work(), pytest.raises(GatewayOverloaded), admission.spare():
            pytest.fail("taken from a visitor")
    with admission.work(), pytest.raises(GatewayOverloaded), admission.spare():
        pytest.fail("the last turn was taken")

    with Admission(1, 0, LONG_S).spare():
        pass
    assert admissions("admitted") == before + 2


def test_whoever_waits_gets_the_turn_that_was_spare():
    admission, done = Admission(1, 1, LONG_S), []
    with ThreadPoolExecutor(1) as pool:
        with admission.spare():
            waiting = Worker(pool, admission, "visitor", done)
            wait_until(lambda: pictures("waiting") == 1)
            assert not done
        assert waiting.begun.wait(LONG_S)
        waiting.end.set()
    assert done == ["visitor"]
