"""What is promised, as data, and whether a run kept it."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from loadtests.tally import Tally
from loadtests.visits import SINGLE

PROMISES: Final[dict[str, tuple[str, ...]]] = {
    # Within what the gateway can take.
    "steady": (
        "requests>0",
        "wrong==0",
        "lost==0",
        "unsent==0",
        "availability>=0.99",
        "accepted_p95_ms<=2000",
        "accepted_p99_ms<=4000",
        "batch_p95_ms<=8000",
        "lag_p99_ms<=250",
    ),
    # Beyond it: refusals are right, and what is accepted is still answered in time.
    "overloaded": (
        "requests>0",
        "wrong==0",
        "lost==0",
        "unsent==0",
        "accepted_p95_ms<=2000",
        "accepted_p99_ms<=4000",
        "lag_p99_ms<=250",
    ),
}
"""The objective is an answer within two seconds for 95 of 100 pictures (gateway's docs/monitoring.md)."""

OPTIONAL: Final = ("batch_p95_ms",)
"""Figures that a short run may not have, since nothing of the kind was sent; without any others a promise is not kept."""

_FORM: Final = re.compile(r"(\w+)(<=|>=|==|>)(\d+(?:\.\d+)?)")
_PERCENTILES: Final = (50, 95, 99)


class ThresholdError(ValueError):
    """No threshold."""


@dataclass(frozen=True)
class Threshold:
    """A figure and its bound, as in `accepted_p95_ms<=2000`."""

    figure: str
    comparison: str
    bound: float

    @classmethod
    def parse(cls, text: str) -> "Threshold":
        """Read one.

        Raises:
            ThresholdError: it is none, or of a figure that there is not.
        """
        found = _FORM.fullmatch(text.replace(" ", ""))
        if not found or found[1] not in figures(Tally()):
            raise ThresholdError(f"not like accepted_p95_ms<=2000: {text!r}; figures: {', '.join(figures(Tally()))}")
        return cls(found[1], found[2], float(found[3]))

    def holds(self, value: float) -> bool:
        """Whether a figure keeps to it; one that there is not (NaN) does not, unless it is optional."""
        if math.isnan(value):
            return self.figure in OPTIONAL
        return {
            "<=": value <= self.bound,
            ">=": value >= self.bound,
            "==": value == self.bound,
            ">": value > self.bound,
        }[self.comparison]

    def __str__(self) -> str:
        return f"{self.figure} {self.comparison} {self.bound:g}"


def thresholds(promise: str, overrides: Sequence[str]) -> list[Threshold]:
    """Those of a promise; one of the overrides replaces those of the same figure.

    Raises:
        ThresholdError: an override is none.
    """
    chosen = [Threshold.parse(text) for text in overrides]
    replaced = {threshold.figure for threshold in chosen}
    return [*(kept for kept in map(Threshold.parse, PROMISES[promise]) if kept.figure not in replaced), *chosen]


def figures(tally: Tally) -> dict[str, float]:
    """Of a run that is over: what was begun and never ended is lost."""
    answered = tally.pictures["accepted"] + tally.pictures["rejected"]
    unanswered = tally.offered - tally.ended
    of_all = tally.pictures.total() + unanswered
    single, batch = tally.merged(SINGLE, "accepted"), tally.merged(("batch",), "accepted", "rejected")
    refusals = tally.merged((*SINGLE, "batch", "slow upload", "hostile"), "refused")
    return {
        "requests": tally.offered,
        "visits": tally.begun,
        "wrong": tally.pictures["wrong"],
        "lost": tally.pictures["lost"] + unanswered,
        "failed": tally.pictures["failed"],
        "unsent": tally.unsent,
        "availability": answered / of_all if of_all else math.nan,
        "refused_share": tally.pictures["refused"] / of_all if of_all else math.nan,
        **{f"accepted_p{percent}_ms": single.quantile(percent / 100) for percent in _PERCENTILES},
        **{f"batch_p{percent}_ms": batch.quantile(percent / 100) for percent in _PERCENTILES},
        "refused_p99_ms": refusals.quantile(0.99),
        "lag_p99_ms": tally.lag.quantile(0.99),
    }
