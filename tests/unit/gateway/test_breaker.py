import pytest
from prometheus_client import REGISTRY

from gateway.breaker import FAILURES, PAUSE_S, Breaker
from gateway.errors import ModelServerUnavailable
from gateway.model_channel import RETRY_BURST, RETRY_SHARE, RetryBudget


class Clock:
    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def breaker(clock):
    return Breaker("test", clock)


def state():
    values = {
        name: REGISTRY.get_sample_value("dermserve_gateway_breakers", {"channel": "test", "state": name})
        for name in ("closed", "half_open", "open")
    }
    assert sum(values.values()) == 1
    return next(name for name, value in values.items() if value)


def call(breaker, clock, is_answered, seconds=0.1):
    begun = breaker.begin()
    clock.now_s += seconds
    breaker.end(begun, is_answered)


def opened(breaker, clock):
    for _ in range(FAILURES):
        call(breaker, clock, False)


def test_it_opens_after_failures_in_a_row_and_not_before(breaker, clock):
    for _ in range(3):
        for _ in range(FAILURES - 1):
            call(breaker, clock, False)
        call(breaker, clock, True)
    assert state() == "closed"

    opened(breaker, clock)

    assert state() == "open"
    with pytest.raises(ModelServerUnavailable):
        breaker.begin()


def test_one_round_of_failures_at_once_does_not_open_it(breaker, clock):
    """Those that hang in one bad replica end together; the others are not asked in between."""
    calls = [breaker.begin() for _ in range(3 * FAILURES)]
    clock.now_s += 6.0
    for begun in calls:
        breaker.end(begun, False)
    assert state() == "closed"

    call(breaker, clock, False)

    assert state() == "open"


def test_calls_that_do_not_tell_do_not_count(breaker, clock):
    for _ in range(3 * FAILURES):
        call(breaker, clock, None)

    assert state() == "closed"


def test_after_the_pause_one_call_passes_and_its_success_closes_it(breaker, clock):
    opened(breaker, clock)
    clock.now_s += PAUSE_S - 0.01
    with pytest.raises(ModelServerUnavailable):
        breaker.begin()
    clock.now_s += 0.01

    trial = breaker.begin()
    assert state() == "half_open"
    for _ in range(3):
        with pytest.raises(ModelServerUnavailable):
            breaker.begin()
    breaker.end(trial, True)

    assert state() == "closed"
    breaker.begin()


def test_a_trial_that_fails_costs_another_pause(breaker, clock):
    opened(breaker, clock)
    clock.now_s += PAUSE_S
    call(breaker, clock, False)
    clock.now_s += PAUSE_S - 0.01

    with pytest.raises(ModelServerUnavailable):
        breaker.begin()
    clock.now_s += 0.01
    assert breaker.begin().is_trial


def test_a_trial_that_does_not_tell_leaves_it_to_the_next(breaker, clock):
    opened(breaker, clock)
    clock.now_s += PAUSE_S
    call(breaker, clock, None)

    assert state() == "open"
    assert breaker.begin().is_trial


def test_a_late_failure_does_not_end_a_trial(breaker, clock):
    late = breaker.begin()
    opened(breaker, clock)
    clock.now_s += PAUSE_S
    trial = breaker.begin()

    breaker.end(late, False)
    assert state() == "half_open"
    breaker.end(trial, True)
    assert state() == "closed"


def test_the_retry_budget_is_a_burst_and_then_a_share_of_the_calls():
    budget, calls = RetryBudget(), 1000
    assert [budget.spend() for _ in range(RETRY_BURST + 2)] == [True] * RETRY_BURST + [False] * 2

    allowed = 0
    for _ in range(calls):
        budget.earn()
        allowed += budget.spend()

    assert RETRY_SHARE * calls * 0.9 <= allowed <= RETRY_SHARE * calls


def test_a_quiet_channel_saves_no_more_than_the_burst():
    budget = RetryBudget()
    for _ in range(1000):
        budget.earn()

    assert [budget.spend() for _ in range(RETRY_BURST + 1)].count(True) == RETRY_BURST
