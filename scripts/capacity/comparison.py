"""Measured beside simulated, and what must agree. Used by capacity.py."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scripts.capacity.simulation import ANSWERED, Outcomes

TOLERANCE = 0.15
COMPARED = ("rate", "p50_ms", "p95_ms")
"""What has to agree; p99 and refusals are shown beside."""

RESAMPLES = 500
BLOCK_S = 2.0
"""Pictures that queue behind each other are not independent; what lies further apart nearly is."""


@dataclass(frozen=True)
class Figures:
    """Of one load.

    Attributes:
        rate: pictures answered a second.
        p50_ms, p95_ms, p99_ms: of them.
        refused: share of all that came which got no classification.
    """

    rate: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    refused: float


@dataclass(frozen=True)
class Compared:
    """One load.

    Attributes:
        load: times the capacity that the simulation gives.
        offered: pictures a second.
        measured, simulated: over the same arrivals.
        low, high: ends of the measured figures' 95 % intervals.
        others: share of the processors that something else used meanwhile.
    """

    load: float
    offered: float
    measured: Figures
    simulated: Figures
    low: Figures
    high: Figures
    others: float

    def difference(self, figure: str) -> float:
        """Of simulated from measured, as a share of measured."""
        measured: float = getattr(self.measured, figure)
        return float(getattr(self.simulated, figure)) / measured - 1 if measured else float("inf")

    @property
    def outside(self) -> list[str]:
        """What does not agree."""
        return [figure for figure in COMPARED if not abs(self.difference(figure)) <= TOLERANCE]


def summarize(rounds: Sequence[Outcomes], seconds: float) -> Figures:
    """Of several rounds of the same load, so many seconds each."""
    taken = np.concatenate([one.seconds[one.status == ANSWERED] for one in rounds])
    came = sum(len(one.status) for one in rounds)
    return _figures(taken, came, seconds * len(rounds))


def interval(rounds: Sequence[Outcomes], seconds: float) -> tuple[Figures, Figures]:
    """Ends of the 95 % intervals: blocks of time drawn again and again from those there are."""
    blocks: list[npt.NDArray[np.float64]] = []
    came: list[int] = []
    for one in rounds:
        block = (one.due_s // BLOCK_S).astype(int)
        for number in range(int(np.ceil(seconds / BLOCK_S))):
            blocks.append(one.seconds[(block == number) & (one.status == ANSWERED)])
            came.append(int((block == number).sum()))
    rng = np.random.default_rng(1)
    drawn = []
    for _ in range(RESAMPLES):
        chosen = rng.integers(len(blocks), size=len(blocks))
        drawn.append(_figures(np.concatenate([blocks[n] for n in chosen]), sum(came[n] for n in chosen), seconds * len(rounds)))
    names = Figures.__dataclass_fields__
    ends = {name: np.quantile([getattr(one, name) for one in drawn], (0.025, 0.975)) for name in names}
    return tuple(Figures(**{name: float(ends[name][end]) for name in names}) for end in (0, 1))  # type: ignore[return-value]


def _figures(taken_s: npt.NDArray[np.float64], came: int, seconds: float) -> Figures:
    if not len(taken_s):
        return Figures(0.0, 0.0, 0.0, 0.0, 1.0 if came else 0.0)
    p50, p95, p99 = (float(value) for value in 1000 * np.quantile(taken_s, (0.5, 0.95, 0.99)))
    return Figures(len(taken_s) / seconds, p50, p95, p99, 1 - len(taken_s) / came)
