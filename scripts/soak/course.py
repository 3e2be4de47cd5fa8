"""The course of a soak: capacity, warm-up with every fault, then the faults again while memory is watched."""

import hashlib
import itertools
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from loadtests.corpus import Entry
from loadtests.painting import encode, paint
from loadtests.pictures import USUAL
from scripts.callers import drive, http_caller
from scripts.rehearsal.ledger import compare as compare_record
from scripts.rehearsal.ledger import read_record, unknown
from scripts.rehearsal.stack import RehearsalError
from scripts.soak import memory
from scripts.soak.batches import fill_pool
from scripts.soak.faults import Fault
from scripts.soak.report import CALM_S, STEADY, Chapter, Soak
from scripts.soak.traffic import Traffic

if TYPE_CHECKING:
    # It loads TensorFlow, and the tests of this need none.
    from scripts.soak.stack import Stack

LOAD = 0.7
"""Times the capacity."""

CALLERS = 12
"""Without a pause, for the capacity: fewer than the places of one gateway worker, so that nobody is refused."""

PICTURES = 24
_SHORT_MINUTES, _LONG_MINUTES = 4.0, 20.0


@dataclass(frozen=True)
class Pace:
    """How long everything takes, in seconds.

    Attributes:
        traffic: all of it, at least; every fault is had twice all the same, those that replace a process once.
        capacity: measuring it.
        fault: one, where nothing else ends it.
        rest: after it was as before, which takes `CALM_S` at least.
        memory: measuring it.
    """

    traffic: float
    capacity: float
    fault: float
    rest: float
    memory: float

    @classmethod
    def over(cls, minutes: float) -> "Pace":
        """From the shortest faults that show anything, in four minutes and less, to the longest, in twenty and more."""
        share = min(max((minutes - _SHORT_MINUTES) / (_LONG_MINUTES - _SHORT_MINUTES), 0.0), 1.0)
        seconds = (low + share * (high - low) for low, high in ((5, 15), (8, 20), (12, 30), (8, 60)))
        return cls(60 * minutes, *seconds)


class Course:
    """One soak of a stack."""

    def __init__(self, stack: "Stack", pace: Pace, faults: Sequence[Fault]) -> None:
        """Nothing is asked yet.

        Args:
            stack: running.
            pace: how long everything takes.
            faults: in their order.
        """
        self._stack = stack
        self._pace = pace
        self._faults = faults
        self._chapters: list[Chapter] = []

    def run(self) -> Soak:
        """All of it."""
        stack = self._stack
        entries = [_picture(number) for number in range(PICTURES)]
        stack.learn(entries)
        capacity = self._capacity(entries)
        print(f"capacity {capacity:.1f} requests/s; labels {stack.known.labels}", flush=True)
        start = time.monotonic()
        with Traffic(stack.address, entries, stack.known, LOAD * capacity) as traffic:
            self._rest(self._pace.rest)
            for fault in self._faults:
                self._inflict(fault)
            start += self._fill_pool(traffic)
            before = self._measure()
            again = [fault for fault in self._faults if not fault.replaces]
            for number, fault in enumerate(itertools.cycle(again)):
                if number >= len(again) and time.monotonic() - start >= self._pace.traffic:
                    break
                self._inflict(fault)
            self._rest(max(start + self._pace.traffic - time.monotonic(), 0.0))
            after = self._measure()
            end = time.monotonic()
        growth, faults = memory.compare(before, after)
        soak = Soak(
            (end - start) / 60, capacity, LOAD * capacity, self._chapters, traffic.asked, stack.held_by_killed, growth, faults
        )
        soak.facts.append(
            f"A killed gateway worker held {len(stack.held_by_killed)} connections; what was cut are requests on these."
        )
        self._check_record(soak, traffic)
        return soak

    def _capacity(self, entries: list[Entry]) -> float:
        """Requests a second that callers get who never pause."""
        with ExitStack() as opened:
            address = f"{self._stack.address}/api/v1/classifications"
            callers = [http_caller(opened, address, entries[number % PICTURES].data) for number in range(CALLERS)]
            return drive(callers, self._pace.capacity).rate

    def _fill_pool(self, traffic: Traffic) -> float:
        """While nobody asks anything else. Returns for how long."""
        start = time.monotonic()
        with traffic.paused():
            fill_pool(self._stack.model_port, self._pace.fault)
        took = time.monotonic() - start
        print(f"every batch size: {took:.1f} s", flush=True)
        self._rest(self._pace.rest)
        return took

    def _rest(self, seconds: float) -> None:
        start = time.monotonic()
        time.sleep(seconds)
        if seconds:
            end = time.monotonic()
            self._note(Chapter(STEADY, start, end, end))

    def _measure(self) -> dict[tuple[str, int], float]:
        start = time.monotonic()
        seen = memory.sample(self._stack.watched(), self._pace.memory)
        end = time.monotonic()
        self._note(Chapter(STEADY, start, end, end))
        return seen

    def _inflict(self, fault: Fault) -> None:
        mended: list[float] = []
        start = time.monotonic()
        fault.inflict(self._stack, self._pace.fault, lambda: mended.append(time.monotonic()))
        time.sleep(CALM_S + self._pace.rest)
        chapter = Chapter(fault.name, start, mended[0], time.monotonic(), fault.may_refuse, fault.must_refuse)
        versions = frozenset(self._stack.versions) if fault.shows_versions else frozenset[int]()
        self._note(replace(chapter, versions=versions))

    def _note(self, chapter: Chapter) -> None:
        self._chapters.append(chapter)
        print(f"{chapter.name}: {chapter.end - chapter.start:.1f} s", flush=True)

    def _check_record(self, soak: Soak, traffic: Traffic) -> None:
        """Every case that was answered is in the record, and the chain of the audit holds."""
        now = time.monotonic()
        found = read_record(self._stack.cases)
        soak.faults += compare_record(found, traffic.ledger, now, now, erased_by=now)
        strangers = unknown(found, traffic.ledger)
        unanswered = sum(one.what == "case" and one.outcome == "lost" for one in soak.asked)
        if len(strangers) > unanswered:
            soak.faults += strangers
        try:
            self._stack.gateway.stop()
            records = self._stack.gateway.verify_audit()
        except RehearsalError as error:
            soak.faults.append(str(error))
            return
        answered = sum(one.outcome == "answered" for one in soak.asked)
        if records < answered:
            soak.faults.append(f"{answered} requests were answered, and the audit has {records} records")
        soak.facts += [
            f"The case record holds {len(found)} cases; {len(traffic.ledger)} were answered.",
            f"Audit record: {records} records, the chain holds.",
        ]


def _picture(number: int) -> Entry:
    data = encode(paint(f"soak-{number}", USUAL), "JPEG", quality=85)
    digest = hashlib.sha256(data).hexdigest()
    return Entry(f"soak-{number}.jpg", "everyday", "jpg", len(data), USUAL[0] * USUAL[1], digest, data=data)
