import json
import math
import random

import pytest

from loadtests import page, report
from loadtests.judge import Verdict
from loadtests.options import OptionError, read_mix
from loadtests.shapes import SHAPES, Shape, level
from loadtests.slo import OPTIONAL, PROMISES, Threshold, ThresholdError, figures, thresholds
from loadtests.tally import Histogram, Tally

ACCEPTED, REFUSED, WRONG, LOST = (Verdict(outcome, "x") for outcome in ("accepted", "refused", "wrong", "lost"))


def visit(tally, verdict=ACCEPTED, step="api", took_s=0.1, late_s=0.0, second=100):
    tally.begin_visit(late_s)
    tally.offer(second)
    tally.end(step, second, took_s, [verdict], is_timed=step == "api")
    tally.end_visit()


def good():
    tally = Tally()
    for _ in range(200):
        visit(tally)
    visit(tally, step="batch")
    return tally


def nothing_came(tally):
    tally.__init__()


BREAKS = {
    "requests": nothing_came,
    "wrong": lambda tally: visit(tally, WRONG),
    "lost": lambda tally: visit(tally, LOST),
    "unsent": lambda tally: tally.drop(),
    "availability": lambda tally: [visit(tally, REFUSED) for _ in range(3)],
    "accepted_p95_ms": lambda tally: [visit(tally, took_s=2.1) for _ in range(15)],
    "accepted_p99_ms": lambda tally: [visit(tally, took_s=4.1) for _ in range(3)],
    "batch_p95_ms": lambda tally: visit(tally, step="batch", took_s=8.2),
    "lag_p99_ms": lambda tally: [visit(tally, late_s=0.3) for _ in range(3)],
}
"""Figure -> what spoils it."""


def broken(promise, tally):
    reached = figures(tally)
    return {one.figure for one in thresholds(promise, []) if not one.holds(reached[one.figure])}


def test_a_good_run_keeps_every_promise():
    assert {promise: broken(promise, good()) for promise in PROMISES} == {promise: set() for promise in PROMISES}


@pytest.mark.parametrize(("promise", "threshold"), [(promise, text) for promise, texts in PROMISES.items() for text in texts])
def test_each_threshold_is_broken_by_what_it_is_for(promise, threshold):
    figure = Threshold.parse(threshold).figure
    tally = good()

    BREAKS[figure](tally)

    assert figure in broken(promise, tally)


def test_refusals_break_no_promise_beyond_the_capacity():
    tally = good()
    BREAKS["availability"](tally)

    assert broken("overloaded", tally) == set()


def test_a_request_without_an_end_is_lost():
    tally = good()
    tally.offer(100)

    assert figures(tally)["lost"] == 1
    assert figures(tally)["availability"] < 1


def test_a_fault_of_the_load_test_itself_breaks_the_gate():
    tally = good()
    tally.crash("api", "TypeError")

    assert "lost" in broken("steady", tally)
    assert "itself failed" in tally.samples[0]


def test_a_figure_that_is_missing_is_no_promise_kept():
    tally = Tally()
    visit(tally, step="hostile")

    assert math.isnan(figures(tally)["accepted_p95_ms"])
    assert broken("steady", tally) == {"accepted_p95_ms", "accepted_p99_ms"}
    assert OPTIONAL == ("batch_p95_ms",)


def test_an_override_replaces_the_threshold_of_its_figure():
    chosen = [str(one) for one in thresholds("steady", ["accepted_p95_ms<=500", "failed == 0"])]

    assert "accepted_p95_ms <= 500" in chosen
    assert "accepted_p95_ms <= 2000" not in chosen
    assert "failed == 0" in chosen
    assert len(chosen) == len(PROMISES["steady"]) + 1


@pytest.mark.parametrize("text", ["", "lost", "lost=0", "speed<=3", "lost==zero", "lost==0 or 1"])
def test_what_is_no_threshold(text):
    with pytest.raises(ThresholdError):
        thresholds("steady", [text])


@pytest.mark.parametrize(
    ("text", "kept", "missed"), [("lost<=2", 2, 3), ("lost>=2", 2, 1), ("lost==2", 2, 3), ("lost>2", 3, 2)]
)
def test_comparisons(text, kept, missed):
    assert Threshold.parse(text).holds(kept)
    assert not Threshold.parse(text).holds(missed)


def test_parts_add_up_to_the_whole():
    """As workers send them: as documents, whose numbers may have become texts."""
    chance, whole, master = random.Random(1), Tally(), Tally()
    for _ in range(5):
        part = Tally()
        for _ in range(20):
            made = {"verdict": chance.choice([ACCEPTED, LOST, Verdict("wrong", "y", "a text")]), "took_s": chance.random()}
            made |= {"step": chance.choice(["api", "batch"]), "second": chance.randrange(90, 110)}
            visit(whole, **made)
            visit(part, **made)
        part.drop()
        whole.drop()
        master.add(json.loads(json.dumps(part.to_document())))

    assert master.to_document() == whole.to_document()
    assert master.in_flight == 0


def test_quantiles_are_right_to_one_per_cent():
    histogram, chance = Histogram(), random.Random(1)
    values = sorted(chance.lognormvariate(4, 1) for _ in range(2000))
    for value in values:
        histogram.add(value)

    for share in (0.5, 0.95, 0.99):
        assert histogram.quantile(share) == pytest.approx(values[int(share * 2000) - 1], rel=0.011)
    assert math.isnan(Histogram().quantile(0.5))


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_cover_their_time_and_reach_their_peak(name):
    points = SHAPES[name].points

    assert (points[0][0], points[-1][0]) == (0, 1)
    assert sorted(moment for moment, _ in points) == [moment for moment, _ in points]
    assert max(share for _, share in points) == 1
    assert all(0 <= level(SHAPES[name], moment / 100) <= 1 for moment in range(120))
    assert SHAPES[name].promise in PROMISES


def test_a_level_lies_on_the_line_between_points():
    shape = Shape(((0, 0), (0.5, 1), (0.5, 0.2), (1, 0.4)), "steady")

    assert [round(level(shape, moment), 6) for moment in (0, 0.25, 0.4999999, 0.5, 0.75, 1, 2)] == [
        0,
        0.5,
        1,
        0.2,
        0.3,
        0.4,
        0.4,
    ]


@pytest.mark.parametrize("text", ["robot=1", "api", "api=x", "api=0", "api=1,,"])
def test_what_is_no_mix(text):
    with pytest.raises(OptionError):
        read_mix(text)


def test_a_mix_has_a_weight_for_every_visit():
    assert read_mix("api=3, hostile=1") == {"portal": 0, "api": 3, "batch": 0, "slow": 0, "hostile": 1}
    assert sum(read_mix("").values()) == 100


def run(duration_s=10.0, **changes):
    told = {"host": "http://x", "shape": "ramp", "loop": "open", "peak": 5.0, "duration_s": duration_s, "began": 100.4}
    told |= {"began_utc": "2026-01-01T00:00:00+00:00", "workers": 1, "complete": True, "unit": "visits a second"}
    return told | {"spacing": "constant", "mix": {"api": 1}} | changes


def test_the_report_says_up_to_which_rate_it_went_well():
    tally = Tally()
    for second in range(10):
        for number in range(second + 1):
            # The first failure is a second that is refused; what goes well after that does not count.
            visit(tally, REFUSED if second == 7 and number == 0 else ACCEPTED, second=100 + second)

    told = report.document(run(), tally, [], None)

    assert told["sustained_requests_per_s"] == 7
    assert [interval["offered"] for interval in told["timeline"]] == [float(second + 1) for second in range(10)]


def test_a_run_that_was_stopped_or_not_watched_keeps_no_promise():
    assert report.document(run(), good(), thresholds("steady", []), None)["holds"]
    assert not report.document(run(complete=False), good(), [], None)["holds"]
    assert not report.document(run(), good(), [], None, "no answer")["holds"]


def test_the_page_shows_everything_and_escapes_it():
    tally = good()
    visit(tally, Verdict("wrong", "body", "<script>alert(1)</script>"))
    server = {"outcomes": {"label benign": 201.0}, "API, p99 ms": {}}
    told = report.document(run(host="http://x/<b>"), tally, thresholds("steady", []), server)

    shown = page.render(told)

    assert "does not hold" in shown
    assert "<script" not in shown
    assert "<b>" not in shown
    assert "http://x/&lt;b&gt;" in shown
    for text in ("wrong == 0", "BROKEN", "label benign", "no samples", "availability"):
        assert text in shown
    assert json.loads(json.dumps(told)) == told
    assert any(line.startswith("BROKEN  wrong") for line in report.lines(told))
