"""Counts of a run, which workers send to their master in parts and which add up."""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from loadtests.judge import Outcome, Verdict, worst

_GROWTH: Final = 1.01
"""Of the histograms' bins: a quantile is right to one per cent."""

_MAX_SAMPLES: Final = 20
SEPARATOR: Final = "|"


class Histogram:
    """Milliseconds in bins that grow by one per cent each."""

    def __init__(self, bins: Mapping[int, int] | None = None) -> None:
        self.bins: Counter[int] = Counter(bins or {})

    def add(self, milliseconds: float) -> None:
        """Count one."""
        self.bins[math.ceil(math.log(max(milliseconds, 1.0)) / math.log(_GROWTH))] += 1

    def quantile(self, share: float) -> float:
        """Upper edge of the bin that holds it; NaN without any."""
        left = share * self.bins.total()
        for place in sorted(self.bins):
            left -= self.bins[place]
            if left <= 0:
                return _GROWTH**place
        return math.nan


class Tally:
    """What was sent and what came back.

    Attributes:
        counts: by step, outcome and what was said.
        pictures: by outcome; a batch has several.
        times: of answers, by step and outcome.
        lag: from when a visit was due until it began: the load generator's own slowness.
        seconds: by second of the wall clock, how many requests were due and what became of them.
        second_times: of accepted single pictures, by second.
        offered, ended: requests that were due, and that have got an outcome.
        begun, over, unsent: visits, each of one request or several; those that are over; those that the generator dropped.
        samples: texts of what failed, was lost or was wrong; the first ones.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.pictures: Counter[str] = Counter()
        self.times: dict[str, Histogram] = {}
        self.lag = Histogram()
        self.seconds: dict[int, Counter[str]] = {}
        self.second_times: dict[int, Histogram] = {}
        self.offered = 0
        self.ended = 0
        self.begun = 0
        self.over = 0
        self.unsent = 0
        self.samples: list[str] = []

    @property
    def in_flight(self) -> int:
        """Visits that are not over yet."""
        return self.begun - self.over

    def offer(self, second: int) -> None:
        """A request is due."""
        self.offered += 1
        self.seconds.setdefault(second, Counter())["offered"] += 1

    def begin_visit(self, late_s: float) -> None:
        """Begin a visit, so much later than it was due."""
        self.begun += 1
        self.lag.add(1000 * late_s)

    def end_visit(self) -> None:
        """It is over, whatever came of it."""
        self.over += 1

    def drop(self) -> None:
        """A visit was due and is not made: there are too many already."""
        self.unsent += 1

    def end(self, step: str, second: int, took_s: float, verdicts: Sequence[Verdict], is_timed: bool = False) -> None:
        """A request has got its outcome.

        Args:
            step: what was asked.
            second: at which it was due.
            took_s: since then.
            verdicts: one for each of its pictures; the worst is the request's.
            is_timed: whether its time counts as that of a single picture.
        """
        self.ended += 1
        for verdict in verdicts:
            self.counts[SEPARATOR.join((step, verdict.outcome, verdict.what))] += 1
            self.pictures[verdict.outcome] += 1
            if verdict.detail and len(self.samples) < _MAX_SAMPLES:
                self.samples.append(f"{step}: {verdict.detail}")
        outcome = worst(verdicts).outcome
        self.seconds.setdefault(second, Counter())[outcome] += 1
        self.times.setdefault(SEPARATOR.join((step, outcome)), Histogram()).add(1000 * took_s)
        if is_timed and outcome == "accepted":
            self.second_times.setdefault(second, Histogram()).add(1000 * took_s)

    def crash(self, flow: str, what: str) -> None:
        """A visit ended by a fault of the load test's own."""
        self.counts[SEPARATOR.join((flow, "lost", what))] += 1
        self.pictures["lost"] += 1
        self.samples.append(f"{flow}: the load test itself failed with {what}")

    def to_document(self) -> dict[str, Any]:
        """All of it, for a message."""
        return {
            "counts": dict(self.counts),
            "pictures": dict(self.pictures),
            "times": {name: dict(histogram.bins) for name, histogram in self.times.items()},
            "lag": dict(self.lag.bins),
            "seconds": {second: dict(counter) for second, counter in self.seconds.items()},
            "second_times": {second: dict(histogram.bins) for second, histogram in self.second_times.items()},
            "offered": self.offered,
            "ended": self.ended,
            "begun": self.begun,
            "over": self.over,
            "unsent": self.unsent,
            "samples": self.samples,
        }

    def add(self, document: Mapping[str, Any]) -> None:
        """Another one's counts."""
        self.counts.update(document["counts"])
        self.pictures.update(document["pictures"])
        for name, bins in document["times"].items():
            self.times.setdefault(name, Histogram()).bins.update(_numbered(bins))
        self.lag.bins.update(_numbered(document["lag"]))
        for second, counter in document["seconds"].items():
            self.seconds.setdefault(int(second), Counter()).update(counter)
        for second, bins in document["second_times"].items():
            self.second_times.setdefault(int(second), Histogram()).bins.update(_numbered(bins))
        self.offered += document["offered"]
        self.ended += document["ended"]
        self.begun += document["begun"]
        self.over += document["over"]
        self.unsent += document["unsent"]
        self.samples = [*self.samples, *document["samples"]][:_MAX_SAMPLES]

    def merged(self, steps: Iterable[str], *outcomes: Outcome) -> Histogram:
        """Times of several steps with some outcomes."""
        together = Histogram()
        for name in itertools.product(steps, outcomes):
            together.bins.update(self.times.get(SEPARATOR.join(name), Histogram()).bins)
        return together


def _numbered(bins: Mapping[Any, int]) -> dict[int, int]:
    """Messages may have made texts of the numbers."""
    return {int(place): count for place, count in bins.items()}
