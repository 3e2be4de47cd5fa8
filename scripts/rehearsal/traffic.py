"""Steady traffic for a rehearsal: pictures and cases over every gateway that is ready, and a ledger of what was answered."""

import hashlib
import itertools
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from math import inf
from typing import Any, Literal

import requests

from scripts.rehearsal.ledger import Kept
from tests.pictures import encode, textured

PICTURE_CALLERS = 3
ERASED_ONE_IN = 5
ERASED_AFTER = 3
PAUSE_S = 0.05
POLL_S = 0.2
TOLERANCE = 1e-3
"""Of the probability of one picture from one version: a batch of another size is computed in another order."""

Outcome = Literal["answered", "refused", "lost", "wrong"]


@dataclass(frozen=True)
class Asked:
    """One request: when it was sent, what it asked for, and what came of it."""

    sent: float
    what: str
    outcome: Outcome
    detail: str = ""


class Balancer:
    """Sends to whoever says that it is ready, in turn, as a Service of Kubernetes does."""

    def __init__(self) -> None:
        self._addresses: dict[str, str] = {}
        self._ready: list[str] = []
        self._turn = itertools.count()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> "Balancer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def set(self, name: str, address: str) -> None:
        """Where a gateway is from now on; back when it takes part."""
        self._addresses[name] = address
        while address not in self._ready:
            time.sleep(POLL_S)

    def pick(self) -> str:
        """The next one."""
        while not (ready := self._ready):
            time.sleep(POLL_S)
        return ready[next(self._turn) % len(ready)]

    def _poll(self) -> None:
        while not self._stopped.wait(POLL_S):
            self._ready = [address for address in list(self._addresses.values()) if _is_ready(address)]


class Traffic:
    """Callers that send pictures without a pause, and one that keeps cases, adds findings and erases some."""

    def __init__(self, balancer: Balancer, thresholds: dict[int, float]) -> None:
        self.asked: list[Asked] = []
        self.ledger: dict[str, Kept] = {}
        self._balancer = balancer
        self._thresholds = thresholds
        self._pictures = [encode(textured((600, 450), seed), "JPEG", quality=90) for seed in range(20)]
        self._first: dict[tuple[int, int], dict[str, Any]] = {}
        self._stopped = threading.Event()
        callers = [threading.Thread(target=self._send_pictures, args=(number,)) for number in range(PICTURE_CALLERS)]
        self._threads = [*callers, threading.Thread(target=self._keep_cases)]

    def __enter__(self) -> "Traffic":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _send_pictures(self, number: int) -> None:
        with requests.Session() as session:
            for place in itertools.count(number):
                if self._stopped.is_set():
                    return
                picture = place % len(self._pictures)
                sent = time.monotonic()
                answer, asked = self._ask(session, "picture", "POST", "/api/v1/classifications", files=self._form(picture))
                if answer and (fault := self._fault(picture, answer)):
                    asked = Asked(sent, "picture", "wrong", fault)
                self.asked.append(asked)

    def _keep_cases(self) -> None:
        erasable = deque[Kept]()
        with requests.Session() as session:
            for place in itertools.count():
                if self._stopped.wait(PAUSE_S):
                    return
                if not self._keep_one(session, place, erasable):
                    # What was kept last may be gone with its database.
                    erasable.clear()

    def _keep_one(self, session: requests.Session, place: int, erasable: deque[Kept]) -> bool:
        picture = place % len(self._pictures)
        sent = time.monotonic()
        answer, asked = self._ask(session, "case", "POST", "/api/v1/cases", files=self._form(picture))
        if not answer:
            self.asked.append(asked)
            return False
        kept = self.ledger[answer["case"]["id"]] = Kept(answer["case"], sent, time.monotonic())
        fault = self._fault(picture, answer["classification"]) or self._case_fault(picture, answer)
        self.asked.append(Asked(sent, "case", "wrong", fault) if fault else asked)
        path = f"/api/v1/cases/{kept.document['id']}"
        finding = {"agrees": place % 2 == 0, "histology": "benign"}
        answer, asked = self._ask(session, "finding", "POST", f"{path}/findings", json=finding)
        self.asked.append(asked)
        if not answer:
            return False
        kept.findings.append((time.monotonic(), answer))
        erasable.append(kept)
        if place % ERASED_ONE_IN == 0 and len(erasable) > ERASED_AFTER:
            return self._erase(session, erasable.popleft())
        return True

    def _erase(self, session: requests.Session, kept: Kept) -> bool:
        sent = time.monotonic()
        kept.erasure = (sent, inf)
        answer, asked = self._ask(session, "erasure", "DELETE", f"/api/v1/cases/{kept.document['id']}")
        self.asked.append(asked)
        if answer is None:
            return False
        kept.erasure = (sent, time.monotonic())
        return True

    def _form(self, picture: int) -> dict[str, tuple[str, bytes]]:
        return {"file": ("x.jpg", self._pictures[picture])}

    def _ask(
        self, session: requests.Session, what: str, method: str, path: str, **body: Any
    ) -> tuple[dict[str, Any] | None, Asked]:
        """The answer's document, or none, and what to note."""
        sent = time.monotonic()
        try:
            response = session.request(method, f"{self._balancer.pick()}{path}", timeout=60, **body)
        except requests.RequestException as error:
            return None, Asked(sent, what, "lost", f"{type(error).__name__} {error}")
        if response.ok:
            return response.json() if response.content else {}, Asked(sent, what, "answered")
        return None, Asked(sent, what, "refused" if _is_clean(response) else "lost", f"{response.status_code} {response.text}")

    def _fault(self, picture: int, answer: dict[str, Any]) -> str:
        """What is wrong with a classification; empty when nothing is."""
        version = answer["model"]["version"]
        if answer["thresholds"]["malignant"] != self._thresholds.get(version):
            return f"version {version} was read with another version's threshold"
        first = self._first.setdefault((picture, version), answer)
        if first["label"] != answer["label"]:
            return f"picture {picture} was {first['label']}, and now {answer['label']}"
        if abs(first["probabilities"]["malignant"] - answer["probabilities"]["malignant"]) > TOLERANCE:
            return f"picture {picture} has another probability than before"
        return ""

    def _case_fault(self, picture: int, answer: dict[str, Any]) -> str:
        case, classification = answer["case"], answer["classification"]
        if case["picture_sha256"] != hashlib.sha256(self._pictures[picture]).hexdigest():
            return "the case is of another picture"
        same = case["label"] == classification["label"] and case["model_version"] == classification["model"]["version"]
        return "" if same else "the case is not what was answered"


def _is_clean(response: requests.Response) -> bool:
    """A refusal that says what it is and loses nothing: too much at once, or no case record at the moment."""
    if response.status_code != HTTPStatus.SERVICE_UNAVAILABLE:
        return False
    return "Retry-After" in response.headers or response.json().get("type") == "/problems/cases-unavailable"


def _is_ready(address: str) -> bool:
    with suppress(requests.RequestException):
        return requests.get(f"{address}/health/ready", timeout=5).ok
    return False
