import math
import re

import numpy as np
import pytest

from scripts.capacity.simulation import (
    ANSWERED,
    LATE,
    REFUSED,
    Batch,
    Costs,
    Deployment,
    closed_rate,
    poisson,
    simulate,
)
from tests.processes import ROOT

FREE = Costs(
    caller_s=0, http_s=0, work_s=0, rpc_s=0, idle_s=0, refusal_s=0, batches=(Batch(1, 1.0, 1.0), Batch(32, 32.0, 32.0))
)
ENDLESS = 10**6


def queue(servers: int = 1, **changed) -> Deployment:
    """A single queue before so many servers: the stack without all that makes it more than that."""
    settings = {
        "server_cores": servers,
        "workers": 1,
        "threads": ENDLESS,
        "predict_timeout_s": math.inf,
        "max_batch_size": 1,
        "batch_timeout_s": 0.0,
        "num_batch_threads": servers,
        "max_enqueued_batches": ENDLESS,
    }
    return Deployment(**settings | changed)


def costs(**changed) -> Costs:
    return Costs(**{**FREE.__dict__, **changed})


def exponential() -> tuple[float, ...]:
    steps = (np.arange(2000) + 0.5) / 2000
    factors = -np.log(1 - steps)
    return tuple(factors / factors.mean())


def wait_of_m_m_c(load: float, servers: int) -> float:
    """Erlang's C formula, in service times."""
    offered = load * servers
    terms = [offered**n / math.factorial(n) for n in range(servers)]
    last = offered**servers / math.factorial(servers) / (1 - load)
    return last / (sum(terms) + last) / (servers * (1 - load))


def wait_of_m_d_c(load: float, servers: int) -> float:
    """Cosmetatos' approximation, exact for one server, in service times."""
    correction = 1 + (1 - load) * (servers - 1) * (math.sqrt(4 + 5 * servers) - 2) / (16 * load * servers)
    return correction / 2 * wait_of_m_m_c(load, servers)


def mean_seconds(of, deployment, rate, pictures=16_000, seed=3) -> float:
    outcomes = simulate(of, deployment, poisson(rate, pictures / rate, seed), seed)
    assert set(outcomes.status) == {ANSWERED}
    return float(outcomes.seconds[pictures // 20 :].mean())


@pytest.mark.parametrize("load", [0.4, 0.6])
def test_random_service_times_at_one_server_wait_as_m_m_1_says(load):
    assert mean_seconds(costs(scatter=exponential()), queue(), load) == pytest.approx(1 / (1 - load), rel=0.06)


@pytest.mark.parametrize(("servers", "load"), [(1, 0.6), (1, 0.8), (3, 0.8)])
def test_constant_service_times_wait_as_m_d_c_says(servers, load):
    expected = 1 + wait_of_m_d_c(load, servers)

    assert mean_seconds(FREE, queue(servers), load * servers) == pytest.approx(expected, rel=0.06)


def test_those_who_share_a_core_stay_as_long_as_processor_sharing_says():
    """Mean of M/G/1 with processor sharing: that of M/M/1, whatever the service times are."""
    decoding = costs(work_s=1.0, batches=(Batch(1, 1e-9, 1e-9),))
    shared = queue(gateway_cores=1.0, max_decoding=ENDLESS)

    assert mean_seconds(decoding, shared, 0.6) == pytest.approx(1 / (1 - 0.6), rel=0.06)


def test_as_many_are_present_as_little_says():
    due = poisson(0.7, 8000, 5)
    outcomes = simulate(FREE, queue(), due)

    moments = np.arange(500.0, 7500.0, 0.5)
    left = outcomes.due_s + outcomes.seconds
    present = np.searchsorted(outcomes.due_s, moments) - np.searchsorted(np.sort(left), moments)
    # Little's law holds for every sample path, up to what is cut at its ends.
    assert present.mean() == pytest.approx(0.7 * outcomes.seconds.mean(), rel=0.05)


def test_every_picture_gets_exactly_one_outcome_however_many_come():
    crowded = Deployment(threads=2, max_waiting=2, predict_timeout_s=2.5, max_wait_s=1.5, max_batch_size=2)
    due = poisson(8, 60, 7)
    outcomes = simulate(costs(caller_s=0.01, http_s=0.01, work_s=0.05, refusal_s=0.002), crowded, due)

    assert len(outcomes.status) == len(outcomes.seconds) == len(due)
    assert set(outcomes.status) == {ANSWERED, REFUSED, LATE}
    assert (outcomes.seconds > 0).all()
    # A refusal at once or after the wait; nobody waits for more than turn, call and processors.
    assert outcomes.seconds.max() < 1.5 + 2.5 + 1.0


def test_the_same_seed_gives_the_same_run_and_another_one_another():
    noisy = costs(scatter=(0.5, 1.5))
    runs = [simulate(noisy, queue(), poisson(0.7, 300, 1), seed).seconds.tolist() for seed in (1, 1, 2)]

    assert runs[0] == runs[1] != runs[2]
    assert poisson(5, 10, 1) == poisson(5, 10, 1) != poisson(5, 10, 2)


def test_pictures_that_come_together_share_a_batch_and_those_that_do_not_wait_for_the_timeout():
    sublinear = costs(batches=(Batch(1, 1.0, 1.0), Batch(4, 2.0, 2.0)))
    batching = queue(max_batch_size=4, batch_timeout_s=0.5)

    # Full at once: no waiting for company. Alone: half a second of it.
    assert simulate(sublinear, batching, [0.0] * 4).seconds == pytest.approx([2.0] * 4)
    assert simulate(sublinear, batching, [0.0]).seconds == pytest.approx([1.5])
    # Between two sizes the time is interpolated.
    assert simulate(sublinear, batching, [0.0, 0.1]).seconds == pytest.approx([0.5 + 4 / 3, 0.4 + 4 / 3])


def test_a_batch_that_can_use_two_cores_is_slowed_by_a_picture_that_is_decoded_beside_it():
    wide = costs(work_s=1.0, batches=(Batch(1, 1.0, 2.0),))
    # The first one is decoded for a second; then its batch (two cores) and the second one's decoding (one) share two cores.
    alone = simulate(wide, queue(server_cores=None, gateway_cores=2.0), [0.0])
    beside = simulate(wide, queue(server_cores=None, gateway_cores=2.0), [0.0, 1.0])

    assert alone.seconds == pytest.approx([2.0])
    assert beside.seconds[0] == pytest.approx(1.0 + 1.5)


def test_who_finds_no_place_is_refused_at_once_and_who_waits_too_long_later():
    one = queue(threads=1, max_waiting=1, max_wait_s=0.25)
    outcomes = simulate(costs(refusal_s=0.001), one, [0.0, 0.1, 0.2, 5.0])

    # The last one comes when places and turns are free again.
    assert outcomes.status.tolist() == [ANSWERED, REFUSED, REFUSED, ANSWERED]
    assert outcomes.seconds == pytest.approx([1.0, 0.25, 0.001, 1.0])


def test_no_more_are_worked_on_than_there_are_turns():
    one_at_a_time = queue(servers=2, threads=1, max_waiting=1, max_wait_s=5.0)

    assert simulate(FREE, one_at_a_time, [0.0, 0.0]).seconds == pytest.approx([1.0, 2.0])


def test_no_more_are_decoded_in_a_process_than_it_decodes_at_a_time():
    decoding = costs(work_s=1.0, batches=(Batch(1, 1e-9, 1e-9),))

    assert simulate(decoding, queue(max_decoding=1), [0.0, 0.0]).seconds == pytest.approx([1.0, 2.0])


def test_a_full_queue_of_the_model_server_refuses_and_a_deadline_ends_the_wait():
    assert simulate(FREE, queue(max_enqueued_batches=1), [0.0, 0.1, 0.2]).status.tolist() == [ANSWERED, ANSWERED, REFUSED]
    outcomes = simulate(FREE, queue(predict_timeout_s=1.5), [0.0, 0.1])

    assert outcomes.status.tolist() == [ANSWERED, LATE]
    assert outcomes.seconds == pytest.approx([1.0, 1.5])


def test_the_published_run_under_overload_is_what_the_simulation_gives():
    """docs/overload.md: a model server that answers four at a time, each after 0.2 s; pictures at a constant rate for 15 s."""
    table = (ROOT / "docs" / "overload.md").read_text().partition("## With admission control")[2].partition("## Without")[0]
    rows = re.findall(r"^\| [\d.]+x \| ([\d.]+) \| ([\d.]+) \| (\d+)% .*? \| (\d+) \| \d+ \| [-\d]+ \|$", table, re.MULTILINE)
    paced = queue(
        workers=2, threads=4, max_waiting=4, num_batch_threads=4, predict_timeout_s=6.0, gateway_cores=2.0, server_cores=1
    )
    # What the gateway computes is little beside the 0.2 s; the two costs are those of docs/gateway-speed.md, rounded.
    slow = costs(http_s=0.001, work_s=0.005, refusal_s=0.001, batches=(Batch(1, 0.2, 0.0002),))

    assert len(rows) == 4
    for offered, goodput, refused, p50_ms in ([float(cell) for cell in row] for row in rows):
        outcomes = simulate(slow, paced, [number / offered for number in range(int(offered * 15))])
        answered = outcomes.status == ANSWERED
        assert answered.sum() / 15 == pytest.approx(goodput, rel=0.15)
        assert 100 * (1 - answered.mean()) == pytest.approx(refused, abs=5)
        assert 1000 * np.median(outcomes.seconds[answered]) == pytest.approx(p50_ms, rel=0.15)


def test_a_closed_loop_goes_as_fast_as_what_is_slowest():
    assert closed_rate(costs(), queue(), callers=4, seconds=200) == pytest.approx(1.0, rel=0.01)
    assert closed_rate(costs(idle_s=1.0), queue(), callers=1, seconds=200) == pytest.approx(0.5, rel=0.01)
