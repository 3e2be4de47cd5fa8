"""Says of each answer what it is: right, refused in good order, failed, lost or wrong."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from loadtests.corpus import Entry
from loadtests.exchange import Answer
from loadtests.recipe import OK

Outcome = Literal["accepted", "rejected", "refused", "failed", "lost", "wrong"]
"""Right answer to a picture; right problem of a hostile file; told to come again; another failure; no answer; not true.

A 503 that does not say when to come again is lost: its sender does not know what to do.
"""
OUTCOMES: Final[tuple[Outcome, ...]] = ("accepted", "rejected", "refused", "failed", "lost", "wrong")

LABELS: Final = {"benign": (None,), "malignant": (None,), "none": ("out_of_scope", "uncertain")}
"""Every label and its reasons."""

PROBABILITY_TOLERANCE: Final = 0.05
NONE_SCORE_TOLERANCE: Final = 0.5
"""Two answers to the same picture by the same version: batches of another size round otherwise. As of the golden picture."""

_SUM_TOLERANCE: Final = 1e-6
_STEADY: Final = 1e-4
"""Below it figures are the same: the page rounds them."""

_PROBLEM_TYPE: Final = "application/problem+json"
_COME_AGAIN: Final = (429, 503)
_NOT_LET_IN: Final = (401, 403)
_INTERNAL: Final = 500
_RESULT: Final = re.compile(r'<article class="result (\w+)"')
_SHOWN: Final = re.compile(r'<rect class="value"[^>]* width="([\d.]+)%"')
_VERSION: Final = re.compile(r"<dt>Model version</dt><dd>(\d+)</dd>")


@dataclass(frozen=True)
class Verdict:
    """On one answer.

    Attributes:
        outcome: of it.
        what: label and reason, a problem's slug, or how the connection ended: one of few.
        detail: what is wrong with it, for a person.
    """

    outcome: Outcome
    what: str
    detail: str = ""


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """That of a request with several pictures."""
    return max(verdicts, key=lambda verdict: OUTCOMES.index(verdict.outcome))


class _Wrong(Exception):
    """An answer that is not true."""


@dataclass
class _Seen:
    """What one version has said of one picture so far: its classes, and from where to where its figures go."""

    classes: set[str] = field(default_factory=set)
    figures: dict[str, tuple[float, float]] = field(default_factory=dict)

    def spread(self, name: str) -> float:
        low, high = self.figures.get(name, (0.0, 0.0))
        return high - low


class Judge:
    """Remembers what was said of each picture: the same picture must get the same answer of the same version."""

    def __init__(self, version: int | None = None) -> None:
        """Nothing is remembered yet.

        Args:
            version: that has to answer; None for any.
        """
        self._version = version
        self._seen: dict[tuple[str, int], _Seen] = {}

    def classification(self, answer: Answer, entry: Entry) -> Verdict:
        """The API's answer to one file."""
        if answer.status != OK:
            return _judge_problem(answer, entry)
        return self._guarded(lambda: self._judge_document(_json(answer), entry))

    def batch(self, answer: Answer, entries: Sequence[Entry]) -> list[Verdict]:
        """The API's answer to several files; of a problem of the whole request, each file gets it."""
        if answer.status != OK:
            verdict = _judge_problem(answer, None)
            return [verdict] * len(entries)
        try:
            results = _json(answer)["results"]
            if len(results) != len(entries):
                raise _Wrong(f"{len(results)} results of {len(entries)} files")
        except (_Wrong, KeyError, TypeError) as error:
            return [Verdict("wrong", "body", f"no batch: {error!r}")] * len(entries)
        return [self._judge_result(result, entry) for result, entry in zip(results, entries, strict=True)]

    def page(self, answer: Answer, entry: Entry) -> Verdict:
        """The portal's answer to one picture."""
        if answer.status != OK:
            return judge_page(answer)
        text = answer.body.decode(errors="replace")
        shown, version = _RESULT.findall(text), _VERSION.findall(text)
        if len(shown) != 1 or len(version) != 1:
            return Verdict("wrong", "page", f"{len(shown)} results and {len(version)} versions on the page")
        of_label = shown[0] in LABELS and shown[0] != "none"
        label, reason = (shown[0], None) if of_label else ("none", shown[0])
        bar = _SHOWN.search(text)
        figures = {"malignant": float(bar[1]) / 100} if bar else {}
        return self._guarded(lambda: self._compare(entry, label, reason, int(version[0]), figures))

    def _judge_result(self, result: Any, entry: Entry) -> Verdict:
        if isinstance(result, dict) and "type" in result:
            slug, status = str(result["type"]).rpartition("/")[2], result.get("status")
            if (status, slug) == (entry.status, entry.problem):
                return Verdict("rejected", slug)
            return Verdict("wrong", slug, f"{entry.name} got {status} {slug}, not {entry.status} {entry.problem or ''}")
        return self._guarded(lambda: self._judge_document(result, entry))

    def _guarded(self, judge: Any) -> Verdict:
        try:
            verdict: Verdict = judge()
        except _Wrong as error:
            return Verdict("wrong", "body", str(error))
        except (KeyError, TypeError, ValueError) as error:
            return Verdict("wrong", "body", f"not as documented: {error!r}")
        return verdict

    def _judge_document(self, document: Mapping[str, Any], entry: Entry) -> Verdict:
        if entry.status != OK:
            raise _Wrong(f"{entry.name} was classified instead of {entry.problem}")
        label, reason, thresholds = document["label"], document["reason"], document["thresholds"]
        malignant, benign = document["probabilities"]["malignant"], document["probabilities"]["benign"]
        none_score, version = document["none_score"], document["model"]["version"]
        if not (0 <= malignant <= 1 and abs(malignant + benign - 1) <= _SUM_TOLERANCE):
            raise _Wrong(f"probabilities {benign} and {malignant}")
        if label != "none" and (label == "malignant") != (malignant >= thresholds["malignant"]):
            raise _Wrong(f"{label} with a probability of {malignant} and a threshold of {thresholds['malignant']}")
        if reason != "uncertain" and (reason == "out_of_scope") != (none_score >= thresholds["none"]):
            raise _Wrong(f"{label} {reason} with a none score of {none_score} and a threshold of {thresholds['none']}")
        return self._compare(entry, label, reason, version, {"malignant": malignant, "none_score": none_score})

    def _compare(self, entry: Entry, label: str, reason: str | None, version: int, figures: Mapping[str, float]) -> Verdict:
        if entry.status != OK:
            raise _Wrong(f"{entry.name} was classified instead of {entry.problem}")
        if label not in LABELS or reason not in LABELS[label]:
            raise _Wrong(f"label {label!r} with reason {reason!r}")
        if self._version not in (None, version):
            raise _Wrong(f"version {version} has answered, not {self._version}")
        shown = f"{label}:{reason}" if reason else label
        seen = self._seen.setdefault((entry.sha256, version), _Seen())
        for name, value in figures.items():
            low, high = seen.figures.get(name, (value, value))
            seen.figures[name] = (min(low, value), max(high, value))
        if seen.spread("malignant") > PROBABILITY_TOLERANCE or seen.spread("none_score") > NONE_SCORE_TOLERANCE:
            raise _Wrong(f"{entry.name} got other figures than before: {seen.figures}")
        # Rounding may carry a picture over a threshold, but then its figures differ.
        is_steady = max(seen.spread("malignant"), seen.spread("none_score")) <= _STEADY
        if seen.classes and shown not in seen.classes and is_steady:
            raise _Wrong(f"{entry.name} got {shown}, before {', '.join(sorted(seen.classes))}")
        seen.classes.add(shown)
        return Verdict("accepted", shown)


def judge_page(answer: Answer) -> Verdict:
    """A page that is no result: there, or a problem of the portal's."""
    if answer.status == OK:
        return Verdict("accepted", "page")
    return _without_answer(answer, f"http-{answer.status}") or Verdict(
        "wrong", f"http-{answer.status}", f"a page answered {answer.status}"
    )


def _judge_problem(answer: Answer, entry: Entry | None) -> Verdict:
    """A problem of the whole request."""
    slug = f"http-{answer.status}"
    if answer.headers.get("content-type", "").startswith(_PROBLEM_TYPE):
        try:
            document = _json(answer)
            slug = document["type"].rpartition("/")[2]
            if document["status"] != answer.status:
                return Verdict("wrong", slug, f"a problem of {document['status']} came with status {answer.status}")
        except (_Wrong, KeyError, TypeError, AttributeError) as error:
            return Verdict("wrong", "body", f"no problem document: {error!r}")
    if verdict := _without_answer(answer, slug):
        return verdict
    if entry and (answer.status, slug) == (entry.status, entry.problem):
        return Verdict("rejected", slug)
    wanted = f"{entry.name} must get {entry.status} {entry.problem or ''}" if entry else "all were pictures"
    return Verdict("wrong", slug, f"{answer.status} {slug}, but {wanted}")


def _without_answer(answer: Answer, slug: str) -> Verdict | None:
    """What came instead of an answer, whatever was asked; None when it depends on that."""
    if answer.lost:
        return Verdict("lost", answer.lost, f"no answer: {answer.lost}")
    if answer.status in _COME_AGAIN:
        if "retry-after" in answer.headers:
            return Verdict("refused", slug)
        return Verdict("lost", slug, f"{answer.status} {slug} without Retry-After")
    if answer.status >= _INTERNAL or answer.status in _NOT_LET_IN:
        return Verdict("failed", slug, f"{answer.status} {slug}")
    return None


def _json(answer: Answer) -> Any:
    try:
        return json.loads(answer.body)
    except ValueError as error:
        raise _Wrong("no JSON") from error
