"""Pictures that come when they are due, whatever is broken, and what becomes of each."""

import json
import random
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from loadtests.corpus import Entry
from loadtests.exchange import Answer, Connection, form
from loadtests.judge import Verdict
from scripts.rehearsal.ledger import Kept
from scripts.soak.known import CREATED, Answers

Outcome = Literal["answered", "refused", "late", "cut", "lost", "wrong"]
OUTCOMES: tuple[Outcome, ...] = ("answered", "refused", "late", "cut", "lost", "wrong")
"""Right; told to come again (503 or 429 with Retry-After); told that the model took too long (504, a problem that the API's
document says may be repeated); held by a gateway worker when it was killed; no answer, or one that does not say what to do; not
true."""

CALLERS = 256
KEYS, CASES = 0.2, 0.1
"""Shares of the requests that carry an Idempotency-Key, and that keep a case."""

What = Literal["picture", "picture with a key", "case"]
_WHAT: tuple[What, ...] = ("picture", "picture with a key", "case")
_PATHS: dict[What, str] = {"case": "/api/v1/cases"}
_LATE = "model-timeout"
_OUTCOMES: dict[str, Outcome] = {"accepted": "answered", "refused": "refused", "wrong": "wrong"}


@dataclass(frozen=True)
class Asked:
    """One request.

    Attributes:
        due, sent, ended: of the monotonic clock: when it had to begin, when it did, when its answer or an end came.
        what: it asked for.
        outcome: of it.
        detail: a problem's slug, or what is wrong.
        version: that has answered; 0 for none.
        port: of ours; what a killed process held is known by it.
    """

    due: float
    sent: float
    ended: float
    what: What
    outcome: Outcome
    detail: str = ""
    version: int = 0
    port: int = 0


class Traffic:
    """An open loop over HTTP. Each request has a connection of its own, as callers who do not know each other have."""

    def __init__(self, address: str, entries: list[Entry], known: Answers, rate: float) -> None:
        self.asked: list[Asked] = []
        self.ledger: dict[str, Kept] = {}
        self._address = address
        self._bodies = [(entry, *form([entry.data])) for entry in entries]
        self._known = known
        self._rate = rate
        self._chance = random.Random(1)  # noqa: S311  (chance that chooses pictures guards nothing)
        self._stopped = threading.Event()
        self._open, self._idle = threading.Event(), threading.Event()
        self._open.set()
        self._pool = ThreadPoolExecutor(CALLERS)
        self._pending: list[Future[None]] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Traffic":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        for pending in self._pending:
            # Whatever went wrong in us must not look like a request that was never made.
            pending.result()
        self._pool.shutdown()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is due meanwhile; what was under way has ended."""
        self._open.clear()
        self._idle.wait()
        wait(self._pending)
        try:
            yield
        finally:
            self._open.set()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stopped.wait(max(due - time.monotonic(), 0.0)):
            if not self._open.is_set():
                self._idle.set()
                self._open.wait()
                self._idle.clear()
                due = time.monotonic()
            what = self._chance.choices(_WHAT, (1 - KEYS - CASES, KEYS, CASES))[0]
            self._pending.append(self._pool.submit(self._ask, due, what, self._chance.randrange(len(self._bodies))))
            due += self._chance.expovariate(self._rate)

    def _ask(self, due: float, what: What, number: int) -> None:
        entry, content_type, body = self._bodies[number]
        headers = {"Content-Type": content_type, "Connection": "close"}
        if what == "picture with a key":
            headers["Idempotency-Key"] = uuid.uuid4().hex
        sent = time.monotonic()
        connection = Connection(self._address)
        try:
            answer = connection.send("POST", _PATHS.get(what, "/api/v1/classifications"), headers, body)
        finally:
            connection.close()
        ended = time.monotonic()
        verdict = self._known.judge(answer, entry)
        if answer.status == CREATED and verdict.outcome == "accepted":
            case = json.loads(answer.body)["case"]
            self.ledger[case["id"]] = Kept(case, sent, ended)
        self.asked.append(Asked(due, sent, ended, what, *_outcome(verdict), _version(answer, verdict), answer.port))


def _outcome(verdict: Verdict) -> tuple[Outcome, str]:
    if verdict.outcome == "failed" and verdict.what == _LATE:
        return "late", _LATE
    outcome = _OUTCOMES.get(verdict.outcome, "lost")
    return outcome, verdict.what if outcome in ("refused", "answered") else verdict.detail


def _version(answer: Answer, verdict: Verdict) -> int:
    if verdict.outcome != "accepted":
        return 0
    document = json.loads(answer.body)
    return int(document.get("classification", document)["model"]["version"])
