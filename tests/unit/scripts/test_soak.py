"""What `make soak` would find: each promise is broken once."""

import json
import math
import re
from dataclasses import replace

import pytest

from gateway import problems
from loadtests.corpus import Entry
from loadtests.exchange import Answer
from scripts.soak.course import Pace
from scripts.soak.faults import FAULTS
from scripts.soak.known import Answers
from scripts.soak.memory import Growth, compare
from scripts.soak.page import report, to_document, to_markdown
from scripts.soak.report import STEADY, Chapter, Soak, attribute, back_at, rows, violations
from scripts.soak.traffic import Asked, _outcome
from tests.processes import ROOT

ENTRY = Entry("lesion.jpg", "everyday", "jpg", 3, 10_000, "digest", data=b"abc")
FAULT = Chapter("model server frozen", 10.0, 20.0, 40.0, frozenset({"model-timeout", "overloaded"}), must_refuse=True)


def document(version=3, **changes):
    told = {
        "label": "benign",
        "reason": None,
        "probabilities": {"benign": 0.9, "malignant": 0.1},
        "none_score": 0.2,
        "thresholds": {"malignant": 0.5 if version == 3 else 0.05, "none": 1.0},
        "model": {"name": "lesion", "version": version},
    }
    return told | changes


def answer(body=None, status=200, **headers):
    kind = {"content-type": "application/json" if status < 300 else "application/problem+json"}
    names = {name.replace("_", "-").lower(): value for name, value in headers.items()}
    return Answer(status, kind | names, json.dumps(document() if body is None else body).encode())


def problem(slug, status, **headers):
    return answer({"type": f"/problems/{slug}", "status": status}, status, **headers)


@pytest.fixture
def known():
    answers = Answers({3: 0.5, 4: 0.05})
    answers.learn(answer(), ENTRY, 3)
    answers.learn(answer(document(4, label="malignant")), ENTRY, 4)
    return answers


@pytest.mark.parametrize("said", [document(), document(4, label="malignant"), document(none_score=0.2004)])
def test_what_a_version_is_known_to_say_is_right(known, said):
    assert _outcome(known.judge(answer(said), ENTRY)) == ("answered", said["label"])
    assert known.judge(answer({"case": {}, "classification": said}, 201), ENTRY).outcome == "accepted"


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        (document(probabilities={"benign": 0.88, "malignant": 0.12}), "figures"),
        (document(none_score=0.21), "figures"),
        (document(label="none", reason="uncertain"), "known is benign"),
        (document(thresholds={"malignant": 0.4, "none": 1.0}), "another version's threshold"),
        (document(4, label="malignant", thresholds={"malignant": 0.1, "none": 1.0}), "another version's threshold"),
        (document(5, label="malignant"), "nobody asked before"),
    ],
)
def test_any_other_answer_is_wrong(known, said, fault):
    for given in (answer(said), answer({"case": {}, "classification": said}, 201)):
        outcome, detail = _outcome(known.judge(given, ENTRY))

        assert outcome == "wrong"
        assert fault in detail


def test_a_case_that_is_none_is_wrong(known):
    assert known.judge(answer({"case": {}}, 201), ENTRY).outcome == "wrong"


def test_a_version_that_another_one_answers_for_is_not_learnt():
    with pytest.raises(ValueError, match="version 3 has answered, not 4"):
        Answers({4: 0.1}).learn(answer(), ENTRY, 4)


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        (problem("overloaded", 503, Retry_After="2"), "refused"),
        (problem("model-timeout", 504), "late"),
        (problem("overloaded", 503), "lost"),
        (problem("internal-error", 500), "lost"),
        (problem("not-signed-in", 401), "lost"),
        (problem("invalid-model-answer", 503), "lost"),
        (problem("not-a-picture", 415), "wrong"),
        (Answer(0, lost="ConnectionResetError"), "lost"),
        (answer([], 200), "wrong"),
        (Answer(504, {"content-type": "text/html"}, b"a proxy's page"), "lost"),
        (problem("model-timeout", 503), "lost"),
    ],
)
def test_only_what_says_what_to_do_is_no_loss(known, given, outcome):
    assert _outcome(known.judge(given, ENTRY))[0] == outcome


def asked(due, outcome="answered", detail="benign", seconds=0.1, **facts):
    return Asked(due, due, due + seconds, "picture", outcome, detail, 3 if outcome == "answered" else 0, **facts)


def test_only_what_a_killed_worker_held_is_cut():
    held = {4000: 5.0, 4001: 5.0}
    requests = [
        asked(4.9, "lost", "reset", 0.2, port=4000),
        asked(4.9, "lost", "reset", 0.2, port=4002),
        asked(6.0, "lost", "reset", 0.2, port=4001),
        asked(4.0, "lost", "reset", 0.2, port=4001),
        asked(4.9, "answered", "benign", 0.2, port=4001),
        asked(4.9, "wrong", "figures", 0.2, port=4001),
        asked(4.9, "lost", "refused", 0.2),
        asked(-1.1, "lost", "refused", 0.2),
    ]

    outcomes = [one.outcome for one in attribute(requests, held)]

    assert outcomes == ["cut", "lost", "lost", "lost", "answered", "wrong", "lost", "lost"]


def steady_until(end, *others):
    return [*(asked(place / 2) for place in range(2 * end)), *others]


def test_it_is_as_before_when_everything_is_answered_in_time_for_some_seconds():
    assert back_at(FAULT, steady_until(40)) == 20.0
    assert back_at(FAULT, steady_until(40, asked(21.2, "refused", "overloaded"))) == 21.2
    # A rest that is calm for less than long enough counts for nothing.
    twice = steady_until(40, asked(21.2, "late", "model-timeout"), asked(25.7, seconds=2.5))
    assert back_at(FAULT, twice) == 25.7
    # What comes after it was as before is another story, told by the violations.
    assert back_at(FAULT, steady_until(40, asked(33.0, "refused", "overloaded"))) == 20.0
    assert back_at(FAULT, steady_until(40, asked(36.0, "lost"), *(asked(20 + n, "lost") for n in range(16)))) == math.inf
    assert back_at(FAULT, []) == math.inf


def soak(*others, **changes):
    chapters = [Chapter(STEADY, 0.0, 10.0, 10.0), FAULT]
    requests = steady_until(40, asked(12.0, "late", "model-timeout", 6.0), asked(19.5, "refused", "overloaded"), *others)
    found = Soak(0.7, 40.0, 28.0, chapters, requests, {4000: 15.0}, [Growth("model server", 100e6, 101e6)])
    return replace(found, **changes)


def test_a_soak_in_which_every_promise_holds_has_no_violations():
    assert violations(soak()) == []
    # In flight when it broke, and due before it was as before.
    assert violations(soak(asked(9.9, "refused", "overloaded", 0.3), asked(14.9, "lost", "reset", 0.2, port=4000))) == []


@pytest.mark.parametrize(
    ("found", "violation"),
    [
        (soak(asked(15.0, "lost", "ConnectionResetError")), "picture lost: ConnectionResetError"),
        (soak(asked(15.0, "wrong", "figures")), "picture wrong: figures"),
        (soak(growth=[Growth("gateway worker 1", 100e6, 102e6)]), "gateway worker 1 has grown by 2.0%"),
        (soak(growth=[]), "no process's memory was compared"),
        (soak(asked(15.0, "refused", "idempotency-unavailable")), "nothing was broken that explains it"),
        (soak(asked(30.0, "late", "model-timeout")), "nothing was broken that explains it"),
        (soak(asked(5.0, "refused", "audit-unavailable")), "nothing was broken that explains it"),
        (soak(*(asked(5.0, "refused", "overloaded") for _ in range(3))), "nothing was broken that explains it"),
        (soak(asked=steady_until(40)), "nothing was refused, so nothing was broken"),
        (soak(*(asked(20 + n, "refused", "overloaded") for n in range(20))), "it is not as before at the end"),
        (soak(asked=[]), "steady: nothing was asked"),
        (soak(chapters=[replace(FAULT, versions=frozenset({3, 4}))]), "version 4 has not answered"),
        (soak(faults=["case 7 is not there"]), "case 7 is not there"),
        (
            soak(*(asked(14.9, "lost", "reset", 0.2, port=4000) for _ in range(2))),
            "2 requests were cut, and the killed worker held 1",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_broken_promise_is_found(found, violation):
    assert any(violation in told for told in violations(found)), violations(found)


def test_of_many_requests_one_may_be_refused_for_want_of_a_place_but_for_no_other_reason():
    many = [asked(5.0 + place / 1000) for place in range(2000)]

    assert violations(soak(*many, asked(5.0, "refused", "overloaded"))) == []
    assert violations(soak(*many, asked(5.0, "refused", "audit-unavailable")))


def test_a_process_that_is_another_one_hides_no_growth():
    before = {("gateway worker 1", 7): 80e6, ("model server", 9): 500e6}

    growth, faults = compare(before, {("gateway worker 1", 8): 70e6, ("model server", 9): 505e6})

    assert [one.name for one in growth] == ["model server"]
    assert growth[0].share == pytest.approx(0.01)
    assert faults


def test_the_table_counts_every_request_once_in_its_chapter_and_in_all():
    steady, frozen, whole = rows(soak())

    assert steady.outcomes == {"answered": 20}
    assert frozen.outcomes == {"answered": 60, "late": 1, "refused": 1}
    assert (frozen.seconds, frozen.back_s, steady.back_s) == (10.0, 0.0, None)
    assert whole.outcomes == {"answered": 80, "late": 1, "refused": 1}


def test_the_page_says_what_the_figures_say():
    text = to_markdown(soak(), "Head.")

    assert "| model server frozen | 10.0 | 62 | 60 | 1 | 1 | 0 | 0 | 0 | 100 | 100 | 0.0 |" in text
    assert "| model server | 100.0 | 101.0 | +1.00% |" in text
    never = soak(*(asked(20 + n, "refused", "overloaded") for n in range(20)))
    assert json.dumps(to_document(never, "machine"), allow_nan=False)


@pytest.mark.parametrize(("found", "code"), [(soak(), 0), (soak(asked(15.0, "lost", "reset")), 1)])
def test_the_command_ends_with_1_for_a_broken_promise_and_the_page_says_so(found, code, tmp_path, capsys):
    (tmp_path / "figures").mkdir()
    (tmp_path / "soak.md").write_text("<!-- soak -->\n<!-- /soak -->\n")

    assert report(found, tmp_path) == code
    page, figures = (tmp_path / "soak.md").read_text(), json.loads((tmp_path / "figures" / "soak.json").read_text())
    assert ("Every promise held." in page) == (not code)
    assert len(figures["broken"]) == code
    assert ("picture lost: reset" in capsys.readouterr().err) == bool(code)


def test_the_page_names_every_fault_and_what_it_may_refuse():
    told = {}
    for line in (ROOT / "docs" / "soak.md").read_text().split("<!-- soak -->")[0].splitlines():
        if line.startswith("| ") and line.count("|") == 4:
            name, _, slugs = line.strip("| ").split(" | ")
            told[name] = (
                told["model server killed"] if slugs == "as when it is killed" else set(re.findall("`([a-z-]+)`", slugs))
            )

    assert {fault.name: set(fault.may_refuse) for fault in FAULTS} == {
        name: told.get(name) for name in told if name != "what breaks"
    }
    assert set().union(*told.values()) <= problems.BY_SLUG.keys()


def test_a_shorter_soak_has_shorter_faults_and_a_longer_one_no_longer_ones():
    shortest, usual = Pace.over(1), Pace.over(20)

    assert (shortest.traffic, usual.traffic) == (60, 1200)
    assert (shortest.fault, shortest.rest) == (Pace.over(4).fault, Pace.over(4).rest)
    assert shortest.fault < Pace.over(12).fault < usual.fault == Pace.over(60).fault
