"""What each version says of each picture, found before anything breaks; every later answer is held to it."""

import json
from dataclasses import dataclass, replace
from typing import Any

from loadtests.corpus import Entry
from loadtests.exchange import Answer
from loadtests.judge import Judge, Verdict
from loadtests.recipe import OK

CREATED = 201
TOLERANCE = 1e-3
"""Of the figures of one picture from one version: a batch of another size is computed in another order."""


@dataclass(frozen=True)
class Known:
    """One version's answer to one picture."""

    label: str
    reason: str | None
    malignant: float
    none_score: float


class Answers:
    """The known ones. Nothing is learnt once the traffic runs, so that many threads may ask."""

    def __init__(self, malignant_thresholds: dict[int, float]) -> None:
        """Nothing is known yet.

        Args:
            malignant_thresholds: of each version that may answer: an answer read with another version's shows.
        """
        self._thresholds = malignant_thresholds
        self._known: dict[tuple[str, int], Known] = {}

    @property
    def labels(self) -> dict[int, list[str]]:
        """Which labels each version gives, over all pictures."""
        versions = sorted(self._thresholds)
        return {
            version: sorted({known.label for (_, of), known in self._known.items() if of == version}) for version in versions
        }

    def learn(self, answer: Answer, entry: Entry, version: int) -> None:
        """Take it as the true one.

        Raises:
            ValueError: it is none, or of another version.
        """
        verdict = Judge(version).classification(answer, entry)
        if verdict.outcome != "accepted":
            raise ValueError(f"{entry.name}: {verdict.detail or verdict.what}")
        self._known[(entry.sha256, version)] = _read(json.loads(answer.body))

    def judge(self, answer: Answer, entry: Entry) -> Verdict:
        """On an answer to one picture, as a classification or as a case."""
        if answer.status == CREATED:
            try:
                answer = replace(answer, status=OK, body=json.dumps(json.loads(answer.body)["classification"]).encode())
            except (ValueError, KeyError, TypeError) as error:
                return Verdict("wrong", "body", f"no case: {error!r}")
        # A judge of its own: what it remembers is not for several threads, and we know better what to compare with.
        verdict = Judge().classification(answer, entry)
        if verdict.outcome != "accepted":
            return verdict
        fault = self._fault(json.loads(answer.body), entry)
        return Verdict("wrong", "body", fault) if fault else verdict

    def _fault(self, document: dict[str, Any], entry: Entry) -> str:
        """What is otherwise than it is known; empty when nothing is."""
        version, told = document["model"]["version"], _read(document)
        known = self._known.get((entry.sha256, version))
        if known is None:
            return f"version {version} has answered, which nobody asked before"
        if document["thresholds"]["malignant"] != self._thresholds[version]:
            return f"{entry.name}: version {version} was read with another version's threshold"
        if (told.label, told.reason) != (known.label, known.reason):
            return f"{entry.name}: {told.label} {told.reason}, known is {known.label} {known.reason}"
        if max(abs(told.malignant - known.malignant), abs(told.none_score - known.none_score)) > TOLERANCE:
            return f"{entry.name}: figures {told}, known are {known}"
        return ""


def _read(document: dict[str, Any]) -> Known:
    return Known(document["label"], document["reason"], document["probabilities"]["malignant"], document["none_score"])
