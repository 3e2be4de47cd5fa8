"""What is told of a run that is over: a document for programs, lines for a terminal, and a page."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from loadtests.server_side import Figures
from loadtests.slo import PROMISES, Threshold, figures
from loadtests.tally import SEPARATOR, Histogram, Tally

INTERVALS: Final = 60
"""At most so many points in time are shown."""

_BAD: Final = ("failed", "lost", "wrong")
_WELL: Final = [Threshold.parse(text) for text in PROMISES["steady"] if text.startswith(("availability", "accepted_p95"))]
"""What makes an interval one that went well."""


def document(
    run: Mapping[str, Any], tally: Tally, thresholds: Sequence[Threshold], server: Figures | None, server_problem: str = ""
) -> dict[str, Any]:
    """All of it.

    Args:
        run: what was run, and `began`, the second of the wall clock, `duration_s` and `complete`.
        tally: what came of it.
        thresholds: that must hold.
        server: what Prometheus saw; None when it was not asked.
        server_problem: why it gave nothing.
    """
    reached = figures(tally)
    checks = [
        {"threshold": str(one), "value": _number(reached[one.figure]), "holds": one.holds(reached[one.figure])}
        for one in thresholds
    ]
    timeline = _timeline(tally, int(run["began"]), float(run["duration_s"]))
    return {
        "holds": bool(run["complete"]) and not server_problem and all(check["holds"] for check in checks),
        "run": dict(run),
        "thresholds": checks,
        "figures": {name: _number(value) for name, value in reached.items()},
        "sustained_requests_per_s": _sustained(timeline),
        "answers": [
            dict(zip(("step", "outcome", "what", "pictures"), (*name.split(SEPARATOR), count), strict=True))
            for name, count in sorted(tally.counts.items())
        ],
        "times": [_times(name, histogram) for name, histogram in sorted(tally.times.items())],
        "timeline": timeline,
        "server": server,
        "server_problem": server_problem,
        "samples": tally.samples,
    }


def lines(report: Mapping[str, Any]) -> list[str]:
    """For a terminal."""
    run = report["run"]
    told = [f"{run['shape']}, {run['loop']} loop, {run['duration_s']:g} s, peak {run['peak']:g}: {run['host']}"]
    if not run["complete"]:
        told.append("BROKEN  the run was stopped before its end")
    if report["server_problem"]:
        told.append(f"BROKEN  Prometheus: {report['server_problem']}")
    told += [
        f"{'ok    ' if check['holds'] else 'BROKEN'}  {check['threshold']:<26} {show(check['value'])}"
        for check in report["thresholds"]
    ]
    by_answer: Counter[str] = Counter()
    for answer in report["answers"]:
        by_answer[f"{answer['outcome']} {answer['what']}"] += answer["pictures"]
    told += [f"{count:>8}  {name}" for name, count in sorted(by_answer.items())]
    return [*told, *(f"          {sample}" for sample in report["samples"][:5])]


def show(value: float | None) -> str:
    """A figure for a person."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.4g}"  # noqa: PLR2004


def _timeline(tally: Tally, began: int, duration_s: float) -> list[dict[str, float | None]]:
    """Rates and times of intervals of equal length; requests count where they were due."""
    length = max(1, math.ceil(duration_s / INTERVALS))
    # What is due in the last second's fraction has no interval of its own.
    count = max(1, math.floor(duration_s / length))
    intervals = []
    for number in range(count):
        seconds = range(began + number * length, began + (number + 1) * length)
        counter: Counter[str] = Counter()
        histogram = Histogram()
        for second in seconds:
            counter.update(tally.seconds.get(second, {}))
            histogram.bins.update(tally.second_times.get(second, Histogram()).bins)
        rates = {name: counter[name] / length for name in ("offered", "accepted", "rejected", "refused")}
        intervals.append(
            {
                "second": number * length,
                **rates,
                "bad": sum(counter[name] for name in _BAD) / length,
                "accepted_p95_ms": _number(histogram.quantile(0.95)),
            }
        )
    return intervals


def _sustained(timeline: Iterable[Mapping[str, float | None]]) -> float | None:
    """The highest rate of requests that went well, before the first interval that did not."""
    best: float | None = None
    for interval in timeline:
        offered = interval["offered"] or 0.0
        if not offered:
            continue
        answered = (interval["accepted"] or 0.0) + (interval["rejected"] or 0.0)
        p95_ms = interval["accepted_p95_ms"]
        reached = {"availability": answered / offered, "accepted_p95_ms": 0.0 if p95_ms is None else p95_ms}
        if not all(one.holds(reached[one.figure]) for one in _WELL):
            break
        best = max(best or 0.0, offered)
    return best


def _times(name: str, histogram: Histogram) -> dict[str, Any]:
    step, outcome = name.split(SEPARATOR)
    percentiles = {f"p{percent}_ms": _number(histogram.quantile(percent / 100)) for percent in (50, 95, 99)}
    return {"step": step, "outcome": outcome, "requests": histogram.bins.total(), **percentiles}


def _number(value: float) -> float | None:
    """JSON knows no NaN."""
    return round(value, 6) if math.isfinite(value) else None
