import json

import pytest

from loadtests.corpus import Entry
from loadtests.exchange import Answer
from loadtests.judge import Judge, judge_page

PICTURE = Entry("a.jpg", "everyday", "jpg", 1, 1, "digest-a")
OTHER = Entry("b.jpg", "everyday", "jpg", 1, 1, "digest-b")
HOSTILE = Entry("truncated.png", "hostile", "png", 1, 0, "digest-c", 422, "broken-picture")
PROBLEM = {"content-type": "application/problem+json"}


def document(**changes):
    return {
        "id": "1",
        "label": "benign",
        "reason": None,
        "probabilities": {"benign": 0.75, "malignant": 0.25},
        "none_score": 0.0,
        "thresholds": {"malignant": 0.5, "none": 3.0},
        "warnings": [],
        "model": {"name": "lesion", "version": 1},
    } | changes


def answer(body, status=200, **headers):
    return Answer(status, headers, json.dumps(body).encode())


def problem(status, slug, **headers):
    return Answer(status, PROBLEM | headers, json.dumps({"type": f"/problems/{slug}", "status": status}).encode())


def likely(malignant):
    return {"benign": 1 - malignant, "malignant": malignant}


def page(kind, version=1):
    text = f'<article class="result {kind}" aria-labelledby="x"><dl><dt>Model version</dt><dd>{version}</dd></dl></article>'
    return Answer(200, {}, text.encode())


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({}, "benign"),
        ({"label": "malignant", "probabilities": likely(0.5)}, "malignant"),
        ({"label": "none", "reason": "uncertain", "probabilities": likely(0.5)}, "none:uncertain"),
        ({"label": "none", "reason": "out_of_scope", "none_score": 3.0}, "none:out_of_scope"),
        # A picture that looks malignant is never silenced, however strange it looks.
        ({"label": "none", "reason": "uncertain", "none_score": 9.0, "probabilities": likely(0.9)}, "none:uncertain"),
    ],
)
def test_right_answers(changes, what):
    verdict = Judge().classification(answer(document(**changes)), PICTURE)

    assert (verdict.outcome, verdict.what) == ("accepted", what)


@pytest.mark.parametrize(
    "body",
    [
        document(label="healthy"),
        document(label="none", reason="tired"),
        document(label="none"),
        document(reason="uncertain"),
        document(probabilities={"benign": 0.75, "malignant": 0.2}),
        document(probabilities={"benign": -0.5, "malignant": 1.5}),
        document(probabilities={"benign": float("nan"), "malignant": float("nan")}),
        document(label="malignant"),
        document(probabilities=likely(0.6)),
        document(none_score=5.0),
        document(label="none", reason="out_of_scope"),
        document(model={"name": "lesion"}),
        {key: value for key, value in document().items() if key != "none_score"},
        [],
        "text",
    ],
    ids=lambda body: json.dumps(body)[:80],
)
def test_wrong_bodies(body):
    assert Judge().classification(answer(body), PICTURE).outcome == "wrong"


def test_a_body_that_is_no_json_is_wrong():
    assert Judge().classification(Answer(200, {}, b"<html>"), PICTURE).outcome == "wrong"


def test_another_version_than_was_asked_for_is_wrong():
    assert Judge(version=1).classification(answer(document()), PICTURE).outcome == "accepted"
    verdict = Judge(version=2).classification(answer(document()), PICTURE)

    assert verdict.outcome == "wrong"
    assert "version 1" in verdict.detail


def test_the_same_picture_gets_the_same_answer():
    judge = Judge()
    judge.classification(answer(document()), PICTURE)

    other_figures = judge.classification(answer(document(probabilities=likely(0.4))), PICTURE)

    assert other_figures.outcome == "wrong"
    assert judge.classification(answer(document(probabilities=likely(0.4))), OTHER).outcome == "accepted"


def test_the_none_score_is_compared_too():
    judge = Judge()
    judge.classification(answer(document()), PICTURE)

    assert judge.classification(answer(document(none_score=0.6)), PICTURE).outcome == "wrong"


def test_rounding_may_carry_a_picture_over_a_threshold_and_nothing_else_may():
    just_below, just_above = document(probabilities=likely(0.499)), document(label="malignant", probabilities=likely(0.5))
    judge = Judge()

    assert judge.classification(answer(just_below), PICTURE).outcome == "accepted"
    assert judge.classification(answer(just_above), PICTURE).outcome == "accepted"
    uncertain = document(label="none", reason="uncertain")
    judge = Judge()
    assert judge.classification(answer(document()), PICTURE).outcome == "accepted"
    assert judge.classification(answer(uncertain), PICTURE).outcome == "wrong"


def test_another_version_may_answer_otherwise():
    judge = Judge()
    judge.classification(answer(document()), PICTURE)
    other = document(label="malignant", probabilities=likely(0.9), model={"name": "lesion", "version": 2})

    assert judge.classification(answer(other), PICTURE).outcome == "accepted"


@pytest.mark.parametrize(
    ("got", "outcome", "what"),
    [
        (problem(422, "broken-picture"), "rejected", "broken-picture"),
        (problem(415, "not-a-picture"), "wrong", "not-a-picture"),
        (problem(400, "broken-picture"), "wrong", "broken-picture"),
        (answer(document()), "wrong", "body"),
        (Answer(422, {"content-type": "text/html"}, b"<html>"), "wrong", "http-422"),
        (Answer(422, PROBLEM, b"{}"), "wrong", "body"),
        (Answer(422, PROBLEM, b"{"), "wrong", "body"),
        (
            Answer(422, PROBLEM, json.dumps({"type": "/problems/broken-picture", "status": 500}).encode()),
            "wrong",
            "broken-picture",
        ),
    ],
)
def test_a_hostile_file_gets_its_problem_and_no_other(got, outcome, what):
    verdict = Judge().classification(got, HOSTILE)

    assert (verdict.outcome, verdict.what) == (outcome, what)


@pytest.mark.parametrize(
    ("got", "outcome", "what"),
    [
        (problem(503, "overloaded", **{"retry-after": "2"}), "refused", "overloaded"),
        (problem(429, "too-many-requests", **{"retry-after": "2"}), "refused", "too-many-requests"),
        (problem(503, "overloaded"), "lost", "overloaded"),
        (problem(504, "model-timeout"), "failed", "model-timeout"),
        (problem(500, "internal-error"), "failed", "internal-error"),
        (problem(401, "not-signed-in"), "failed", "not-signed-in"),
        (Answer(502, {"content-type": "text/html"}, b"Bad Gateway"), "failed", "http-502"),
        (Answer(0, lost="ConnectionResetError"), "lost", "ConnectionResetError"),
        (problem(422, "broken-picture"), "wrong", "broken-picture"),
        (problem(404, "not-found"), "wrong", "not-found"),
    ],
)
def test_what_comes_instead_of_an_answer(got, outcome, what):
    judge = Judge()

    assert (judge.classification(got, PICTURE).outcome, judge.classification(got, PICTURE).what) == (outcome, what)
    assert [verdict.outcome for verdict in judge.batch(got, [PICTURE, OTHER])] == [outcome, outcome]


def test_each_result_of_a_batch_is_judged():
    entries = [PICTURE, HOSTILE, OTHER]
    broken = {"type": "/problems/broken-picture", "status": 422}

    def outcomes(*results):
        return [verdict.outcome for verdict in Judge().batch(answer({"results": results}), entries)]

    assert outcomes(document(), broken, document()) == ["accepted", "rejected", "accepted"]
    assert outcomes(broken, document(), document()) == ["wrong", "wrong", "accepted"]
    assert outcomes(document(), broken | {"status": 400}, document()) == ["accepted", "wrong", "accepted"]
    assert outcomes(document(), broken) == ["wrong", "wrong", "wrong"]
    assert [verdict.outcome for verdict in Judge().batch(answer([]), entries)] == ["wrong"] * 3


def test_the_portal_says_what_the_api_says():
    judge = Judge()

    assert judge.classification(answer(document()), PICTURE).outcome == "accepted"
    assert judge.page(page("benign"), PICTURE).what == "benign"
    assert judge.page(page("uncertain"), OTHER).what == "none:uncertain"
    assert judge.page(page("malignant"), PICTURE).outcome == "wrong"


@pytest.mark.parametrize("got", [page("healthy"), page("none"), Answer(200, {}, b"<h1>Welcome</h1>"), page("benign", "x")])
def test_a_page_without_a_result_is_wrong(got):
    assert Judge().page(got, PICTURE).outcome == "wrong"


def test_a_page_of_another_version_is_wrong():
    assert Judge(version=2).page(page("benign", 1), PICTURE).outcome == "wrong"


@pytest.mark.parametrize(
    ("got", "outcome"),
    [
        (Answer(200), "accepted"),
        (Answer(303), "wrong"),
        (Answer(404), "wrong"),
        (Answer(500), "failed"),
        (Answer(503, {"retry-after": "2"}), "refused"),
        (Answer(0, lost="TimeoutError"), "lost"),
    ],
)
def test_pages(got, outcome):
    assert judge_page(got).outcome == outcome
    assert got.status == 200 or Judge().page(got, PICTURE).outcome == outcome
