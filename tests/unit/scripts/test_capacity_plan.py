import dataclasses
import json
import math
import subprocess
import sys

import numpy as np
import pytest

from gateway.settings import Settings
from scripts.capacity import plan as planning
from scripts.capacity.comparison import Compared, Figures, interval, summarize
from scripts.capacity.demand import ASSUMPTIONS, MAY_BE, Demand, assumed
from scripts.capacity.plan import describe, describe_gpus, hosts, make_plan, on_gpu
from scripts.capacity.settings import released
from scripts.capacity.simulation import ANSWERED, REFUSED, Batch, Costs, Outcomes
from scripts.capacity.storage import Bytes, count
from serving.contract import ALLOWED_BATCH_SIZES, IMAGE_SHAPE
from tests.processes import ROOT

COSTS = Costs(
    caller_s=0.001,
    http_s=0.001,
    work_s=0.004,
    rpc_s=0.001,
    idle_s=0.001,
    refusal_s=0.001,
    batches=(Batch(1, 0.013, 0.023), Batch(32, 0.3, 0.576)),
)
SIZE = Bytes(upload=200_000, answer=400, call=150_000, audit=500, case=600)


def demand(**changed):
    return dataclasses.replace(assumed(), **changed)


def test_the_peak_is_what_the_assumptions_make_of_the_people():
    of = demand(people=1e6, growth_per_year=0.0, checks_per_person=2.0, pictures_per_check=3.0, days=100, busiest_hour=0.36)

    assert of.pictures_a_year == pytest.approx(6e6)
    assert of.peak == pytest.approx(6.0)
    assert demand(people=1e6, growth_per_year=0.1, years=2).pictures_a_year == pytest.approx(1.21e6 * 1 * 2)


def test_a_host_does_what_its_cores_have_time_for():
    plan = make_plan(demand(), COSTS)

    assert plan.gateway_rate == pytest.approx(2 / 0.005)
    assert plan.server_rate == pytest.approx(2 / (0.001 + 0.576 / 32))


@pytest.mark.parametrize("checks", [0.1, 3, 30])
def test_the_zones_that_are_left_carry_the_peak_and_no_host_is_too_many(checks):
    of = demand(checks_per_person=checks)
    for rate in (100.0, 400.0):
        count_of_zone = hosts(of, rate)
        left = (of.zones - 1) * rate * of.utilisation
        assert count_of_zone * left >= of.peak
        assert count_of_zone == of.least or (count_of_zone - 1) * left < of.peak


def test_the_deployment_has_the_settings_that_are_released():
    deployment, settings = released(), Settings()

    assert (deployment.workers, deployment.threads, deployment.max_waiting) == (2, settings.threads, settings.max_waiting)
    assert deployment.max_batch_size == max(ALLOWED_BATCH_SIZES)
    assert (deployment.batch_timeout_s, deployment.num_batch_threads) == (0.002, 2)
    assert released("batching.gpu.config").batch_timeout_s == 0.005


def test_a_gpu_computes_what_is_published_for_the_size_that_a_batch_is_padded_to():
    latency_ms = json.loads(planning.GPUS.read_text())["latency_ms"]
    for published in latency_ms.values():
        costs = on_gpu(COSTS, published)
        assert costs.batch(32).wall_s == pytest.approx(published["32"] / 1000)
        assert costs.batch(3).wall_s == costs.batch(4).wall_s == pytest.approx(published["4"] / 1000)
        assert {int(size) for size in published} == set(ALLOWED_BATCH_SIZES)


def test_every_assumption_says_what_it_rests_on():
    entries = json.loads(ASSUMPTIONS.read_text())

    assert set(entries) == {field.name for field in dataclasses.fields(Demand)}
    assert {entry["basis"] for entry in entries.values()} == {"source", "assumption", "choice", "example"}
    assert all(entry["why"] and entry["what"] for entry in entries.values())
    assert all("https://" in entry["why"] or name != "people" for name, entry in entries.items())


def test_the_plan_tells_hosts_cost_storage_network_and_what_happens_when_a_zone_fails():
    small = demand(people=270e4, checks_per_person=10.0, core_price=0.36)
    text = "\n".join(describe(small, COSTS, SIZE, pictures=300))

    cores = 6 * 2 * 2
    million = small.pictures_a_year / 1e6
    assert f"| model server | 105 | 2 | 6 | 12 | {small.peak / (6 * 2 / 0.019):.0%} |" in text
    assert f"{cores * 8760 * 0.36 / million:,.2f} with all {cores} cores paid the whole year" in text
    # 24 ms of a core for each picture, at 0.0001 a second.
    assert "2.40 where only busy cores are paid" in text
    assert f"Audit record: {million * 500 / 1000:,.0f} GB a year" in text
    assert f"{small.peak * 200_000 * 8 / 1e9:,.2f} Gbit/s of uploads" in text
    assert "Holds: 99 % of what is answered is answered within 0." in text
    assert "**Does not hold**: 99 %" in "\n".join(
        describe(dataclasses.replace(small, objective_s=0.01), COSTS, SIZE, pictures=300)
    )
    assert [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ") and "simulated" not in line][3:] == [
        "| the peak",
        "| the peak, one zone down",
        "| a burst of 3 times the peak",
        "| the burst, one zone down",
    ]


def test_a_burst_beyond_all_hosts_is_refused_and_not_answered_late():
    rows = describe(demand(checks_per_person=1.0, burst=30.0), COSTS, SIZE, pictures=3000)
    peak, burst = (next(row for row in rows if row.startswith(name)).split(" | ") for name in ("| the peak |", "| a burst"))

    assert peak[-1] == "0.0% |"
    assert any(row.startswith("- Holds: at the peak, with a zone down too, at most 0.0% is refused") for row in rows)
    assert float(burst[-1].rstrip("% |")) > 50
    assert float(burst[-2]) < 2000


def test_a_plan_that_refuses_pictures_at_the_peak_does_not_hold():
    rows = describe(demand(checks_per_person=3.0, utilisation=2.0, least=1, burst=1.0), COSTS, SIZE, pictures=500)

    assert any(row.startswith("- **Does not hold**: at the peak") and "GATEWAY_THREADS" in row for row in rows)


def test_gpus_are_marked_with_where_their_figures_come_from():
    text = "\n".join(describe_gpus(demand(), COSTS, SIZE, pictures=200))

    assert "https://github.com/NVIDIA/DeepLearningExamples/" in text
    assert "| T4 16 GB | 972 |" in text


def test_bytes_are_those_that_our_code_writes():
    size = count(upload=1000, answer=300)

    assert (size.upload, size.answer) == (1000, 300)
    assert 0 < size.call - math.prod(IMAGE_SHAPE) < 200
    assert 300 < size.audit < 800
    assert 200 < size.case < 2000


def outcomes(seconds, refused=()):
    status = np.where(np.isin(np.arange(len(seconds)), refused), REFUSED, ANSWERED)
    return Outcomes(np.linspace(0, 19.9, len(seconds)), np.array(seconds), status)


def test_refused_pictures_are_in_no_latency_and_rounds_are_taken_together():
    first = outcomes([0.1] * 100)
    second = outcomes([0.1] * 50 + [9.0] * 50, refused=range(50, 100))

    assert summarize([first, second], 20.0) == pytest.approx(Figures(150 / 40, 100.0, 100.0, 100.0, 0.25))
    assert summarize([outcomes([1.0], refused=[0])], 20.0) == Figures(0.0, 0.0, 0.0, 0.0, 1.0)


def test_the_interval_holds_the_figure_and_is_wider_with_less():
    rng = np.random.default_rng(1)
    many, few = (outcomes(rng.exponential(0.1, count)) for count in (4000, 400))
    widths = []
    for one in (many, few):
        low, high = interval([one], 20.0)
        assert low.p50_ms < summarize([one], 20.0).p50_ms < high.p50_ms
        widths.append(high.p50_ms - low.p50_ms)

    assert widths[0] < widths[1]


@pytest.mark.parametrize(
    ("simulated", "outside"),
    [
        ((50, 100, 200), []),
        ((57, 115, 170.1), []),
        ((58, 100, 200), ["rate"]),
        ((50, 84, 200), ["p50_ms"]),
        ((50, 100, 231), ["p95_ms"]),
    ],
)
def test_rate_median_and_p95_must_lie_within_fifteen_percent(simulated, outside):
    measured = Figures(50, 100, 200, 300, 0.0)
    row = Compared(0.5, 50, measured, Figures(*simulated, 900, 0.5), measured, measured, 0.0)

    assert row.outside == outside


def test_nothing_measured_is_no_agreement():
    nothing = Figures(0, 0, 0, 0, 1.0)

    assert Compared(0.5, 50, nothing, nothing, nothing, nothing, 0.0).outside == ["rate", "p50_ms", "p95_ms"]


def test_the_command_takes_the_readers_figures():
    command = [sys.executable, "-m", "scripts.capacity.plan", "--pictures", "200", "--people", "1e6"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert "2,128,164 pictures a year" in printed


@pytest.mark.parametrize("name", MAY_BE)
@pytest.mark.parametrize("value", ["-1", "nan", "inf", "many"])
def test_the_command_refuses_senseless_figures(name, value, capsys):
    argument = f"--{name.replace('_', '-')}"
    with pytest.raises(SystemExit) as ended:
        planning.main([f"{argument}={value}"])

    assert ended.value.code == 2
    assert argument in capsys.readouterr().err
