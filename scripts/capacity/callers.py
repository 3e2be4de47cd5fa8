"""Callers that send a picture whenever one is due, and what they see. Used by capacity.py."""

import http.client
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http import HTTPStatus

import numpy as np

from scripts.capacity.simulation import ANSWERED, LATE, REFUSED, Outcomes

PATH = "/api/v1/classifications"
BOUNDARY = "dermserve-capacity"
CALLERS = 256
TIMEOUT_S = 30.0


def form(data: bytes) -> bytes:
    """A form with one file, made once: what the callers compute competes with what is measured."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="x.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    return head.encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()


def post(address: str, body: bytes) -> tuple[int, bytes]:
    """On a connection of its own. Gives status and answer."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=TIMEOUT_S)
    try:
        kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", "Connection": "close"}
        connection.request("POST", PATH, body, kind)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@contextmanager
def held_place(address: str, body: bytes) -> Iterator[None]:
    """An upload that has begun and does not go on: it holds a place."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=TIMEOUT_S)
    try:
        connection.putrequest("POST", PATH)
        connection.putheader("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body[:1000])
        yield
    finally:
        connection.close()


def offer(address: str, body: bytes, due_s: Sequence[float]) -> Outcomes:
    """Send a picture at every moment that is due, whether or not the ones before are answered. Seconds count from then.

    Raises:
        RuntimeError: an answer that is neither a classification nor a refusal, or none.
    """
    started = time.perf_counter()
    seconds, status = np.zeros(len(due_s)), np.full(len(due_s), ANSWERED)
    wrong: list[str] = []
    meanings = {HTTPStatus.OK: ANSWERED, HTTPStatus.SERVICE_UNAVAILABLE: REFUSED, HTTPStatus.GATEWAY_TIMEOUT: LATE}

    def send(number: int, due: float) -> None:
        try:
            code, text = post(address, body)
            seconds[number] = time.perf_counter() - due
            status[number] = meanings[HTTPStatus(code)]
        except (OSError, http.client.HTTPException, KeyError) as error:
            wrong.append(f"{error!r}: {text[:200]!r}" if isinstance(error, KeyError) else repr(error))

    with ThreadPoolExecutor(CALLERS) as pool:
        # All of them now: a thread that is started while one is due makes it late.
        together = threading.Barrier(CALLERS)
        for waiting in [pool.submit(together.wait) for _ in range(CALLERS)]:
            waiting.result()
        started = time.perf_counter()
        for number, moment in enumerate(due_s):
            time.sleep(max(started + moment - time.perf_counter(), 0.0))
            pool.submit(send, number, started + moment)
    if wrong:
        raise RuntimeError(f"{len(wrong)} pictures were lost; the first: {wrong[0]}")
    return Outcomes(np.array(due_s, float), seconds, status)
