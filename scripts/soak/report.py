"""What a soak has shown: what came of each request, and what broke a promise."""

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np

from scripts.soak.memory import MAX_GROWTH, Growth
from scripts.soak.traffic import Asked

OBJECTIVE_S = 2.0
"""Of an answer."""

CALM_S = 5.0
"""Everything that is due in so long is answered within the objective: then it is as before."""

QUIET_REFUSED = 0.001
"""Share of the requests that may be refused while nothing is broken: a machine that others share has its moments."""


@dataclass(frozen=True)
class Chapter:
    """A fault and the rest after it, or a rest alone.

    Attributes:
        name: of the fault; `steady` for none.
        start, mended, end: when it broke, when it was mended, when the next chapter begins.
        may_refuse: slugs of problems that may come until it is as before.
        must_refuse: one of them has to, or nothing was broken.
        versions: of the model that must answer in it; none in particular when empty.
    """

    name: str
    start: float
    mended: float
    end: float
    may_refuse: frozenset[str] = frozenset()
    must_refuse: bool = False
    versions: frozenset[int] = frozenset()

    @property
    def is_fault(self) -> bool:
        """Whether anything is broken."""
        return self.name != STEADY


STEADY = "steady"


@dataclass
class Soak:
    """Everything that was found.

    Attributes:
        minutes: of traffic.
        capacity, rate: pictures a second that callers without a pause got, and that were offered.
        chapters: in their order.
        asked: every request.
        held: port -> when the gateway worker that held a connection from it was killed.
        growth: of memory.
        faults: what is not as it has to be, beside what the requests show.
        facts: what the page says beside the table.
    """

    minutes: float
    capacity: float
    rate: float
    chapters: list[Chapter]
    asked: list[Asked]
    held: dict[int, float]
    growth: list[Growth]
    faults: list[str] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        name, seconds: of the chapter; seconds from broken to mended.
        outcomes: how many requests, by what came of them.
        p50_ms, p99_ms: of what was answered.
        back_s: from mended until it is as before; None where nothing was broken, infinite where it never was.
    """

    name: str
    seconds: float
    outcomes: dict[str, int]
    p50_ms: float
    p99_ms: float
    back_s: float | None


def attribute(asked: list[Asked], held: dict[int, float]) -> list[Asked]:
    """Lost requests that a killed worker held are `cut`: known by their port, and under way at that moment. No others are."""
    return [
        replace(one, outcome="cut")
        if one.outcome == "lost" and one.port and one.sent <= held.get(one.port, -1.0) <= one.ended
        else one
        for one in asked
    ]


def back_at(chapter: Chapter, asked: list[Asked]) -> float:
    """When it is as before: the first moment after the mending from which on everything due in `CALM_S` is answered in time."""
    within = sorted((one for one in asked if chapter.mended <= one.due < chapter.end), key=lambda one: one.due)
    calm_since = chapter.mended
    for one in within:
        if one.due - calm_since >= CALM_S:
            return calm_since
        if not _is_well(one):
            calm_since = max(calm_since, one.due)
    return calm_since if chapter.end - calm_since >= CALM_S and within else float("inf")


def violations(soak: Soak) -> list[str]:
    """Every promise that is broken."""
    asked = attribute(soak.asked, soak.held)
    broken = [f"{one.what} {one.outcome}: {one.detail[:300]}" for one in asked if one.outcome in ("lost", "wrong")]
    broken += [f"{growth.name} has grown by {growth.share:.1%}" for growth in soak.growth if growth.share >= MAX_GROWTH]
    if not soak.growth:
        broken.append("no process's memory was compared")
    cut = sum(one.outcome == "cut" for one in asked)
    if cut > len(soak.held):
        broken.append(f"{cut} requests were cut, and the killed worker held {len(soak.held)}")
    windows = []
    for chapter in soak.chapters:
        within = [one for one in asked if chapter.start <= one.due < chapter.end]
        if not within:
            broken.append(f"{chapter.name}: nothing was asked")
        if not chapter.is_fault:
            continue
        back = back_at(chapter, asked)
        if back == float("inf"):
            broken.append(f"{chapter.name}: it is not as before at the end")
        windows.append((chapter, min(back, chapter.end)))
        if chapter.must_refuse and not any(is_refused(one) and one.detail in chapter.may_refuse for one in within):
            broken.append(f"{chapter.name}: nothing was refused, so nothing was broken")
        if missing := chapter.versions - {one.version for one in within}:
            broken.append(f"{chapter.name}: version {', '.join(map(str, missing))} has not answered")
    unasked = [one for one in asked if is_refused(one) and not any(_may_refuse(one, *window) for window in windows)]
    quiet = Counter(one.detail for one in unasked)
    if quiet.total() - quiet["overloaded"] or quiet.total() > QUIET_REFUSED * len(asked):
        broken.append(f"refused while nothing was broken that explains it: {dict(quiet)}")
    return broken + soak.faults


def rows(soak: Soak) -> list[Row]:
    """The table."""
    asked = attribute(soak.asked, soak.held)
    table = [_row(chapter, asked) for chapter in soak.chapters]
    if soak.chapters:
        whole = Chapter(STEADY, float("-inf"), float("inf"), float("inf"))
        table.append(replace(_row(whole, asked), name="all", seconds=soak.chapters[-1].end - soak.chapters[0].start))
    return table


def _row(chapter: Chapter, asked: list[Asked]) -> Row:
    within = [one for one in asked if chapter.start <= one.due < chapter.end]
    times = [1000 * (one.ended - one.due) for one in within if one.outcome == "answered"] or [float("nan")]
    back_s = back_at(chapter, asked) - chapter.mended if chapter.is_fault else None
    outcomes = {str(name): count for name, count in Counter(one.outcome for one in within).items()}
    return Row(
        chapter.name,
        chapter.mended - chapter.start,
        outcomes,
        float(np.median(times)),
        float(np.quantile(times, 0.99)),
        back_s,
    )


def _is_well(one: Asked) -> bool:
    return one.outcome == "answered" and one.ended - one.due <= OBJECTIVE_S


def is_refused(one: Asked) -> bool:
    """In good order."""
    return one.outcome in ("refused", "late")


def _may_refuse(one: Asked, chapter: Chapter, back: float) -> bool:
    """Refused after it broke, and due before it was as before."""
    return one.detail in chapter.may_refuse and one.ended >= chapter.start and one.due <= back
