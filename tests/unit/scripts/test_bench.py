"""What `make bench` would print. No contestant runs here but invented ones."""

import itertools
import json
import math
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest

from scripts.bench import visits as visiting
from scripts.bench.answers import TIMED, paint_pictures
from scripts.bench.contestants import CONTESTANTS, DERMSERVE, Contestant
from scripts.bench.figures import Spread, coverage, paired, rate_at, spread, stand
from scripts.bench.load import Cell, ComeBackError, measure
from scripts.bench.page import versions, write
from scripts.bench.report import NAMES, Run, publish, standings
from scripts.bench.running import Served
from scripts.bench.tolerance import MALIGNANT_TOLERANCE, NONE_SCORE_TOLERANCE, Answer, WrongAnswerError, check
from scripts.bench.visits import Book, Measured, Question, Visit, order, visit
from tests.processes import ROOT

RIGHT = Answer(0.6, -3.5)
CALLERS = (1, 4)
RUN = Run("a machine", 3, CALLERS, 2.0)


def seen(contestant, number, rate=10.0, **facts):
    """A visit in which every answer takes ten callers' share of a second."""
    measured = tuple(Measured(count, rate, (1000 * count / rate,) * 20, 0, (), 0.0) for count in CALLERS)
    values = {"start_s": 5.0, "memory_mb": 500.0, "measured": measured} | facts
    return Visit(contestant, number, **values)


def a_run(rates=(10.0, 11.0, 12.0), **facts):
    """Everybody in every round; Dermserve twice as fast as each other one."""
    return [
        seen(name, number, rate * (2 if name == DERMSERVE else 1), **facts)
        for number, rate in enumerate(rates)
        for name in NAMES
    ]


class Invented:
    """A contestant that is up, and what it was asked."""

    pids = ()

    def __init__(self, answer):
        self.answer = answer
        self.cells = []

    def ask(self, picture):
        return self.answer

    def measure(self, picture, expected, callers, seconds):
        self.cells.append((callers, seconds))
        check("timed", self.answer, expected)
        return Cell(callers, 20.0, (50.04,) * 30, 3, (900.06,))


def contestant(answer=RIGHT):
    running = Invented(answer)

    @contextmanager
    def start(prepared, folder):
        assert list(folder.iterdir()) == []
        yield running

    return Contestant("invented", None, (), "nothing", "so", start), running


def visited(answer=RIGHT, expected=RIGHT, tmp_path=None):
    somebody, running = contestant(answer)
    questions = {name: Question(ROOT / "README.md", expected) for name in (TIMED, "another")}
    return visit(somebody, None, questions, 2, CALLERS, 0.5), running


def test_everybody_comes_once_a_round_each_time_in_another_place_and_after_somebody_else():
    orders = [order("abcdefgh", number) for number in range(8)]

    assert all(sorted(one) == list("abcdefgh") for one in orders)
    assert all(len({one.index(name) for one in orders}) == 8 for name in "abcdefgh")
    assert len({pair for one in orders for pair in itertools.pairwise(one)}) == 8 * 7
    assert len(NAMES) % 2 == 0


def test_the_interval_is_what_a_coin_says_about_the_median():
    assert coverage(6) == pytest.approx(0.96875)
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)


def test_a_slow_day_does_not_count_against_who_was_measured_on_it():
    """All of the rounds differ by more than the two; within each the one is a fifth faster."""
    ours = [seen("a", number, 1.2 * rate) for number, rate in enumerate((10, 20, 30))]
    theirs = [seen("b", number, rate) for number, rate in ((2, 30), (0, 10), (1, 20))]

    times = paired(ours, theirs, rate_at(4))

    assert (times.low, times.high) == (pytest.approx(1.2), pytest.approx(1.2))


def test_a_standing_takes_the_answers_of_all_rounds_together():
    fast = Measured(1, 100.0, (10.0,) * 99, 0, (), 0.0)
    slow = Measured(1, 50.0, (10.0,) * 98 + (900.0,), 25, (1000.0,), 0.0)
    rounds = [
        seen("a", 0, measured=(fast,), malignant_off=0.001, none_score_off=0.1),
        seen("a", 1, measured=(slow,), malignant_off=0.004, none_score_off=0.02),
    ]

    standing = stand(rounds)

    load = standing.loads[1]
    assert load.rate == Spread(75.0, 50.0, 100.0)
    assert load.answers == 198
    assert load.refused == pytest.approx(25 / 223)
    assert load.unanswered == Spread(0.5, 0, 1)
    assert load.p99_ms.median == pytest.approx(10 + 0.02 * 890), "of all that were awaited, not of two rounds"
    assert (standing.malignant_off, standing.none_score_off) == (0.004, 0.1)


@pytest.mark.parametrize(
    ("answer", "is_right"),
    [
        (RIGHT, True),
        (Answer(0.6 + 0.9 * MALIGNANT_TOLERANCE, -3.5), True),
        (Answer(0.6 + 1.1 * MALIGNANT_TOLERANCE, -3.5), False),
        (Answer(0.6 - 1.1 * MALIGNANT_TOLERANCE, -3.5), False),
        (Answer(0.6, -3.5 - 1.1 * NONE_SCORE_TOLERANCE), False),
        (Answer(0.6), True),
        (Answer(math.nan, -3.5), False),
        (Answer(0.6, math.nan), False),
    ],
)
def test_an_answer_is_the_same_within_the_tolerance_and_not_beyond(answer, is_right):
    if is_right:
        check("x", answer, RIGHT)
    else:
        with pytest.raises(WrongAnswerError, match="picture x"):
            check("x", answer, RIGHT)


def test_a_visit_measures_with_every_number_of_callers():
    result, running = visited(Answer(0.61, -3.45))

    assert running.cells == [(1, 0.5), (4, 0.5)]
    assert (result.contestant, result.number, result.fault) == ("invented", 2, None)
    figures = [(one.callers, one.rate, one.refused, one.unanswered) for one in result.measured]
    assert figures == [(1, 20.0, 3, (900.1,)), (4, 20.0, 3, (900.1,))]
    assert set(result.measured[0].milliseconds) == {50.0}
    assert (result.malignant_off, result.none_score_off) == (pytest.approx(0.01), pytest.approx(0.05))
    assert result.start_s > 0


def test_a_wrong_answer_is_not_measured_at_all():
    result, running = visited(Answer(0.9, -3.5))

    assert running.cells == []
    assert result.measured == ()
    assert "WrongAnswerError: malignant probability of the picture timed is 0.9000; 0.6000 is right" in result.fault


def test_who_fails_otherwise_gets_a_fault_and_the_run_goes_on():
    somebody, running = contestant()
    running.measure = lambda *_: 1 / 0

    result = visit(somebody, None, {TIMED: Question(ROOT / "README.md", RIGHT)}, 0, CALLERS, 0.5)

    assert result.fault == "ZeroDivisionError: division by zero"


def test_a_run_that_was_interrupted_goes_on_where_it_was(tmp_path):
    path = tmp_path / "state" / "visits.json"
    book = Book(path, {"machine": "a", "callers": CALLERS})
    book.add(seen("a", 0))
    book.add(Visit("b", 0, fault="wrong"))

    again = Book(path, {"machine": "a", "callers": CALLERS})

    assert again.visits == book.visits
    assert again.has("a", 0)
    assert not again.has("a", 1)
    assert again.has("b", 5), "who was wrong once is not asked again"
    assert again.failed == ["b"]
    again.add(Visit("c", 0, fault="WrongAnswerError: of the picture"))
    assert again.failed == ["b"], "another try would not help the other"
    again.forget_faults()
    assert not again.has("b", 0)
    with pytest.raises(ValueError, match="another run"):
        Book(path, {"machine": "b", "callers": CALLERS})
    again.close()
    assert Book(path, {"machine": "b"}).visits == []


def test_callers_are_watched_through_a_window():
    calls = [0]
    lock = threading.Lock()

    def call():
        with lock:
            calls[0] += 1
            if calls[0] % 2 == 0:
                raise ComeBackError(0.0)

    cell = measure([call] * 3, 0.05)

    assert cell.callers == 3
    # What came before the window opened does not count.
    assert 3 <= len(cell.milliseconds) < calls[0]
    assert cell.refused == pytest.approx(len(cell.milliseconds), abs=1 + 0.01 * len(cell.milliseconds))
    assert cell.rate > 0
    assert cell.quantile(0.5) <= cell.quantile(0.99)


def test_one_wrong_answer_among_many_ends_a_measurement():
    answered = threading.Semaphore(50)

    def call():
        if not answered.acquire(blocking=False):
            raise WrongAnswerError("the fifty-first")

    with pytest.raises(WrongAnswerError, match="fifty-first"):
        measure([call] * 4, 60.0)


class Replies:
    """A session that gets one reply after the other."""

    def __init__(self, *replies):
        self.replies = list(replies)
        self.closed = 0

    def close(self):
        self.closed += 1

    def post(self, address, **body):
        status, headers = self.replies.pop(0)

        class Reply:
            status_code = status

            def raise_for_status(self):
                if status >= 400:
                    raise ConnectionError(status)

            def json(self):
                return {"malignant": 0.5}

        Reply.headers = headers
        return Reply()


def test_who_is_told_to_come_back_is_known_and_anything_else_is_a_fault():
    served = Served("http://nowhere", [], lambda document: Answer(**document))
    session = Replies((503, {"Retry-After": "2"}), (200, {}))

    with pytest.raises(ComeBackError) as caught:
        served._post(session, b"x")
    assert caught.value.seconds == 2
    assert session.closed == 1, "the next try is on a new connection"
    assert served._post(session, b"x") == Answer(0.5)
    with pytest.raises(ConnectionError):
        served._post(Replies((503, {})), b"x")


def test_who_comes_back_in_vain_is_counted_and_the_answer_s_time_begins_with_the_first_try():
    tries = [0]

    def late():
        tries[0] += 1
        if tries[0] < 3:
            raise ComeBackError(0.3)

    def in_vain():
        raise ComeBackError(0.01)

    cell = measure([late, in_vain, lambda: time.sleep(0.001)], 0.5)

    assert max(cell.milliseconds) >= 600
    assert len(cell.unanswered) == 1
    assert cell.unanswered[0] >= 1000
    assert cell.quantile(1.0) == cell.unanswered[0]
    assert cell.refused > 10


def test_a_contestant_with_a_wrong_answer_has_no_figure_on_the_page():
    visits = a_run()
    wrong = "OpenVINO, in process, bfloat16"
    visits = [one if one.contestant != wrong else Visit(wrong, one.number, fault="it is wrong") for one in visits]

    page = write(visits, standings(visits), "a machine", 3, 2.0)

    assert wrong not in standings(visits)
    assert f"- **{wrong}**: it is wrong" in page
    rows = [line for line in page.splitlines() if line.startswith(f"| {wrong} |")]
    assert len(rows) == 1, "only what it would have served"
    assert "asking" not in rows[0]


def test_a_fault_in_the_last_round_takes_the_figures_of_the_others():
    visits = a_run()
    visits[-1] = Visit(visits[-1].contestant, visits[-1].number, fault="lost its connection")

    assert visits[-1].contestant not in standings(visits)


def loses(page):
    section = page.partition("### Where Dermserve loses")[2].partition("###")[0]
    return [line for line in section.splitlines() if line.startswith("- ")]


def test_where_dermserve_is_worse_is_said_first_and_by_its_name():
    assert loses(write(a_run(), standings(a_run()), "a machine", 3, 2.0)) == ["- nowhere"]

    visits = [replace(one, memory_mb=900.0) if one.contestant == DERMSERVE else one for one in a_run()]
    visits = [seen("BentoML", one.number, 99.0) if one.contestant == "BentoML" else one for one in visits]
    page = write(visits, standings(visits), "a machine", 3, 2.0)

    told = loses(page)
    assert "- against BentoML: pictures/s, 1, 0.22 (0.20 to 0.24) times the other's" in told
    assert "- against BentoML: p99, 4, 4.50 (4.12 to 4.95) times the other's" in told
    assert sum("memory, 1.80" in line for line in told) == 4, "each of the servers"
    assert "**1.80 (1.80 to 1.80)**" in page


def test_what_the_rounds_disagree_about_is_neither_won_nor_lost():
    visits = [replace(one, start_s=4.0 + 2 * one.number) if one.contestant == DERMSERVE else one for one in a_run()]
    page = write(visits, standings(visits), "a machine", 3, 2.0)

    assert "*1.20 (0.80 to 1.60)*" in page
    assert loses(page) == ["- nowhere"]


def test_the_page_is_written_between_its_marks(tmp_path):
    (tmp_path / "benchmarks.md").write_text("before\n<!-- benchmark -->\nStale.\n<!-- /benchmark -->\nafter\n")

    assert publish(tmp_path, a_run(), RUN)

    page = (tmp_path / "benchmarks.md").read_text()
    assert page.startswith("before\n")
    assert page.endswith("after\n")
    assert "Stale" not in page
    assert "a machine." in page
    assert (tmp_path / "figures" / "benchmarks.png").read_bytes().startswith(b"\x89PNG")
    kept = json.loads((tmp_path / "figures" / "benchmarks.json").read_text())
    assert kept["contestants"][DERMSERVE]["loads"]["4"]["rate"] == {"median": 22.0, "low": 20.0, "high": 24.0}


def test_a_run_beside_something_else_is_provisional_and_fails(tmp_path):
    (tmp_path / "benchmarks.md").write_text("<!-- benchmark -->\n<!-- /benchmark -->\n")
    visits = a_run()
    busy = tuple(replace(one, others=0.3) for one in visits[0].measured)

    assert not publish(tmp_path, [replace(visits[0], measured=busy), *visits[1:]], RUN)
    assert "**Provisional**: something else used up to 30%" in (tmp_path / "benchmarks.md").read_text()


def test_without_dermserve_nothing_is_written(tmp_path):
    visits = a_run()
    visits = [Visit(DERMSERVE, one.number, fault="down") if one.contestant == DERMSERVE else one for one in visits]

    assert not publish(tmp_path, visits, RUN)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("one", CONTESTANTS, ids=lambda one: one.name)
def test_everybody_says_what_is_served_how_and_in_which_version(one):
    assert one.serves
    assert one.setup
    assert all(len(told.split(" ")) == 2 for told in versions(one, ROOT / "requirements").split(", "))


def test_pictures_are_the_same_each_time():
    assert paint_pictures() == paint_pictures()
    assert visiting.TIMED in paint_pictures()
