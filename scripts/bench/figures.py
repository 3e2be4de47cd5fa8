"""What the rounds say together: medians with their intervals, and Dermserve against each other, round by round."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from scripts.bench.visits import Measured, Visit


@dataclass(frozen=True)
class Spread:
    """A figure over the rounds: median, lowest, highest."""

    median: float
    low: float
    high: float

    def told(self, digits: int) -> str:
        """As in a table."""
        return f"{self.median:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


@dataclass(frozen=True)
class Load:
    """A contestant with a number of callers.

    Attributes:
        rate: answers a second.
        p50_ms: of a round.
        p99_ms: the median is that of the answers of all rounds together, of which a round has too few; low and high of rounds.
        answers: in all rounds.
        refused: tries that were told to come back later, of all tries.
        unanswered: callers to whom no answer came in a round's window.
    """

    rate: Spread
    p50_ms: Spread
    p99_ms: Spread
    answers: int
    refused: float
    unanswered: Spread


@dataclass(frozen=True)
class Standing:
    """A contestant over all rounds.

    Attributes:
        start_s, memory_mb: see `Visit`.
        malignant_off, none_score_off: the largest difference from a right answer.
        loads: by callers.
    """

    start_s: Spread
    memory_mb: Spread
    malignant_off: float
    none_score_off: float | None
    loads: dict[int, Load]


def spread(values: Sequence[float]) -> Spread:
    """Lowest and highest are an interval of the median whatever the distribution; see `coverage`."""
    return Spread(statistics.median(values), min(values), max(values))


def coverage(rounds: int) -> float:
    """How often lowest to highest of so many rounds covers the true median: misses when all fall on the same side of it."""
    return 1 - 2 * 0.5**rounds


def stand(visits: Sequence[Visit]) -> Standing:
    """Of one contestant's visits, none of them with a fault."""
    callers = [one.callers for one in visits[0].measured]
    none_offs = [one.none_score_off for one in visits if one.none_score_off is not None]
    return Standing(
        start_s=spread([one.start_s for one in visits]),
        memory_mb=spread([one.memory_mb for one in visits]),
        malignant_off=max(one.malignant_off for one in visits),
        none_score_off=max(none_offs) if none_offs else None,
        loads={count: _load([_with(one, count) for one in visits]) for count in callers},
    )


def paired(ours: Sequence[Visit], theirs: Sequence[Visit], figure: Callable[[Visit], float]) -> Spread:
    """Ours over theirs, in each round; of rounds that both have."""
    by_number = {one.number: figure(one) for one in theirs}
    return spread([figure(one) / by_number[one.number] for one in ours if one.number in by_number])


def rate_at(callers: int) -> Callable[[Visit], float]:
    """Answers a second."""
    return lambda visited: _with(visited, callers).rate


def p99_at(callers: int) -> Callable[[Visit], float]:
    """Milliseconds, of the round."""
    return lambda visited: float(np.quantile(_with(visited, callers).times, 0.99))


def _with(visited: Visit, callers: int) -> Measured:
    return next(one for one in visited.measured if one.callers == callers)


def _load(rounds: Sequence[Measured]) -> Load:
    together = np.concatenate([one.times for one in rounds])
    p99 = [float(np.quantile(one.times, 0.99)) for one in rounds]
    answers = sum(len(one.milliseconds) for one in rounds)
    refused = sum(one.refused for one in rounds)
    return Load(
        rate=spread([one.rate for one in rounds]),
        p50_ms=spread([float(np.median(one.times)) for one in rounds]),
        p99_ms=Spread(float(np.quantile(together, 0.99)), min(p99), max(p99)),
        answers=answers,
        refused=refused / (refused + answers),
        unanswered=spread([len(one.unanswered) for one in rounds]),
    )
