"""One contestant in one round: started, asked, checked, measured with every number of callers, stopped; and the book of it."""

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scripts.bench.answers import TIMED
from scripts.bench.contestants import Contestant, Prepared
from scripts.bench.running import Running, memory_mb, wait_for_answer
from scripts.bench.tolerance import Answer, WrongAnswerError, check
from scripts.capacity.machine import Others

MAX_LOG = 2000
"""Characters of what a contestant said, to be shown when it failed."""


@dataclass(frozen=True)
class Question:
    """A picture as a file, and its right answer."""

    picture: Path
    expected: Answer


@dataclass(frozen=True)
class Measured:
    """One number of callers in one visit.

    Attributes:
        callers: at a time.
        rate: answers a second.
        milliseconds: of each answer, rounded.
        refused: tries that were told to come back later.
        unanswered: milliseconds, so far, of each caller to whom no answer came meanwhile.
        others: share of the processors that something else used.
    """

    callers: int
    rate: float
    milliseconds: tuple[float, ...]
    refused: int
    unanswered: tuple[float, ...]
    others: float

    @property
    def times(self) -> tuple[float, ...]:
        """Of answers, and of those that have not come as if they just did: never longer than they are."""
        return self.milliseconds + self.unanswered


@dataclass(frozen=True)
class Visit:
    """What came of it.

    Attributes:
        contestant, number: whom, and in which round.
        start_s: from its launch to its first answer.
        memory_mb: after the last measurement.
        malignant_off, none_score_off: largest difference of an answer from the right one.
        measured: in the order it was done.
        fault: why there are no figures; None where there are.
    """

    contestant: str
    number: int
    start_s: float = 0.0
    memory_mb: float = 0.0
    malignant_off: float = 0.0
    none_score_off: float | None = None
    measured: tuple[Measured, ...] = ()
    fault: str | None = None


def order(names: Sequence[str], number: int) -> list[str]:
    """Of a round: each once, in another place each time, and each time after somebody else (Williams, 1949).

    So holds for as many rounds as there are names, where these are even in number.
    """
    count = len(names)
    zigzag = [(place + 1) // 2 if place % 2 else -place // 2 for place in range(count)]
    return [names[(step + number) % count] for step in zigzag]


def visit(
    contestant: Contestant,
    prepared: Prepared,
    questions: Mapping[str, Question],
    number: int,
    callers: Sequence[int],
    seconds: float,
) -> Visit:
    """Do it. A contestant that answers wrongly, or not at all, gets a fault and no figures."""
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        launched = time.perf_counter()
        try:
            with contestant.start(prepared, Path(folder)) as running:
                return _measure(contestant, running, questions, number, callers, seconds, launched)
        except Exception as error:  # noqa: BLE001  (the other contestants go on, and the page tells it)
            for log in Path(folder).glob("*.log"):
                print(f"{log.name} ends:\n{log.read_text(errors='replace')[-MAX_LOG:]}", flush=True)
            return Visit(contestant.name, number, fault=f"{type(error).__name__}: {error}"[:300])


def _measure(
    contestant: Contestant,
    running: Running,
    questions: Mapping[str, Question],
    number: int,
    callers: Sequence[int],
    seconds: float,
    launched: float,
) -> Visit:
    timed = questions[TIMED]
    wait_for_answer(running, timed.picture)
    start_s = time.perf_counter() - launched
    answers = {name: running.ask(question.picture) for name, question in questions.items()}
    for name, answer in answers.items():
        check(name, answer, questions[name].expected)
    measured = []
    for count in callers:
        watch = Others()
        cell = running.measure(timed.picture, timed.expected, count, seconds)
        others = watch.share()
        milliseconds, unanswered = (tuple(round(one, 1) for one in times) for times in (cell.milliseconds, cell.unanswered))
        measured.append(Measured(count, cell.rate, milliseconds, cell.refused, unanswered, others))
        print(
            f"round {number + 1} {contestant.name:32}{count:4} callers{cell.rate:8.1f}/s"
            f"{cell.quantile(0.5):9.1f}{cell.quantile(0.99):9.1f} ms, refused {cell.refused}, "
            f"unanswered {len(cell.unanswered)}, others {others:.1%}",
            flush=True,
        )
    none_off = [
        abs(answer.none_score - right)
        for name, answer in answers.items()
        if answer.none_score is not None and (right := questions[name].expected.none_score) is not None
    ]
    return Visit(
        contestant.name,
        number,
        start_s=start_s,
        memory_mb=memory_mb(running.pids),
        malignant_off=max(abs(answer.malignant - questions[name].expected.malignant) for name, answer in answers.items()),
        none_score_off=max(none_off) if none_off else None,
        measured=tuple(measured),
    )


class Book:
    """The visits of a run that can be interrupted: every one is written down when it is over."""

    def __init__(self, path: Path, run: Mapping[str, object]) -> None:
        """Take up what is there of the same run.

        Raises:
            ValueError: the file is of another run: another commit, machine or length.
        """
        self._path = path
        self._run = json.loads(json.dumps(run))
        self.visits: list[Visit] = []
        if path.exists():
            document = json.loads(path.read_text())
            if document["run"] != self._run:
                raise ValueError(f"{path} is of another run: {document['run']}; --fresh begins anew")
            self.visits = [_read(one) for one in document["visits"]]

    @property
    def failed(self) -> list[str]:
        """Who might have figures at another try; a wrong answer stays wrong."""
        return [one.contestant for one in self.visits if one.fault and not one.fault.startswith(WrongAnswerError.__name__)]

    def close(self) -> None:
        """It is all there: the next run begins anew. The figures of each answer stay beside it."""
        self._path.rename(self._path.with_name("finished.json"))

    def forget_faults(self) -> None:
        """So that who was at fault is asked again."""
        self.visits = [one for one in self.visits if not one.fault]

    def has(self, contestant: str, number: int) -> bool:
        """Whether this was done, or need not be: who was at fault once is not asked again."""
        mine = [one for one in self.visits if one.contestant == contestant]
        return any(one.number == number or one.fault for one in mine)

    def add(self, visited: Visit) -> None:
        """Write it down."""
        self.visits.append(visited)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps({"run": self._run, "visits": [asdict(one) for one in self.visits]}))
        partial.rename(self._path)


def _read(document: dict[str, Any]) -> Visit:
    times = ("milliseconds", "unanswered")
    measured = tuple(Measured(**one | {name: tuple(one[name]) for name in times}) for one in document["measured"])
    return Visit(**{**document, "measured": measured})
