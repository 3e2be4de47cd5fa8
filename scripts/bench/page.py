"""The part of docs/benchmarks.md that a run writes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.bench.contestants import CONTESTANTS, DERMSERVE, Contestant
from scripts.bench.figures import Spread, Standing, coverage, p99_at, paired, rate_at
from scripts.bench.tolerance import MALIGNANT_TOLERANCE, NONE_SCORE_TOLERANCE
from scripts.bench.visits import Visit
from tests import processes

BLOCK = "benchmark"
CHART = "figures/benchmarks.png"
FIGURES = "figures/benchmarks.json"
WINS, LOSES, NEITHER = "wins", "loses", "neither"
MAX_OTHERS = 0.05
"""Share of the processors; above it the run says nothing about the contestants."""


def write(visits: Sequence[Visit], standings: Mapping[str, Standing], machine: str, rounds: int, seconds: float) -> str:
    """All that stands between the marks."""
    others = max(one.others for visited in visits for one in visited.measured)
    lines = [
        f"{machine}.",
        f"{rounds} rounds; in each every contestant was started, checked, measured with every number of callers for",
        f"{seconds:g} s or more, and stopped. Medians, and in brackets the lowest and the highest round: the interval holds",
        f"the true median with a probability of {coverage(rounds):.1%}. p99 is that of the answers of all rounds together.",
        "",
    ]
    if others > MAX_OTHERS:
        lines += [f"**Provisional**: something else used up to {others:.0%} of the processors meanwhile. Run it again.", ""]
    lines += [*_verdicts(visits, standings), "", f"![pictures a second, and p99, by callers]({CHART})", ""]
    for callers in next(iter(standings.values())).loads:
        lines += [*_table(visits, standings, callers), ""]
    lines += [*_costs(standings), "", *_answers(visits, standings), "", *_setups()]
    return "\n".join(lines)


def _of(visits: Sequence[Visit], name: str) -> list[Visit]:
    return [one for one in visits if one.contestant == name]


def _verdicts(visits: Sequence[Visit], standings: Mapping[str, Standing]) -> list[str]:
    """Every comparison with a server. Losses are told first; none is left out."""
    callers = list(standings[DERMSERVE].loads)
    compared = {
        name: _compare(_of(visits, DERMSERVE), _of(visits, name), callers)
        for name in (one.name for one in CONTESTANTS if one.is_server and one.name != DERMSERVE)
        if name in standings
    }
    lost = [
        f"- against {name}: {comparison.what}, {comparison.times.told(2)} times the other's"
        for name, comparisons in compared.items()
        for comparison in comparisons
        if comparison.verdict == LOSES
    ]
    columns = [comparison.what for comparison in next(iter(compared.values()), [])]
    return [
        "### Where Dermserve loses",
        "",
        *(lost or ["- nowhere"]),
        "",
        "### Dermserve's figure over each other server's",
        "",
        "Paired within each round. Won or lost where no round says otherwise: **bold is lost**, *slanted* is neither.",
        "",
        f"| against | {' | '.join(columns)} |",
        f"|---|{len(columns) * '---|'}",
        *(f"| {name} | {' | '.join(one.told for one in comparisons)} |" for name, comparisons in compared.items()),
    ]


@dataclass(frozen=True)
class _Comparison:
    what: str
    times: Spread
    is_more_better: bool

    @property
    def verdict(self) -> str:
        if self.times.low <= 1 <= self.times.high:
            return NEITHER
        return WINS if (self.times.low > 1) == self.is_more_better else LOSES

    @property
    def told(self) -> str:
        mark = {WINS: "", LOSES: "**", NEITHER: "*"}[self.verdict]
        return f"{mark}{self.times.told(2)}{mark}"


def _compare(ours: Sequence[Visit], theirs: Sequence[Visit], callers: Sequence[int]) -> list[_Comparison]:
    rates = [_Comparison(f"pictures/s, {count}", paired(ours, theirs, rate_at(count)), True) for count in callers]
    tails = [_Comparison(f"p99, {count}", paired(ours, theirs, p99_at(count)), False) for count in callers]
    memory = _Comparison("memory", paired(ours, theirs, lambda one: one.memory_mb), False)
    return [*rates, *tails, memory, _Comparison("cold start", paired(ours, theirs, lambda one: one.start_s), False)]


def _table(visits: Sequence[Visit], standings: Mapping[str, Standing], callers: int) -> list[str]:
    lines = [
        f"### {callers} caller{'s' if callers > 1 else ''}",
        "",
        "| | pictures/s | Dermserve is so many times as fast | p50 ms | p99 ms | told to come back | callers without an answer "
        "| answers |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, standing in standings.items():
        load = standing.loads[callers]
        times = paired(_of(visits, DERMSERVE), _of(visits, name), rate_at(callers)).told(2) if name != DERMSERVE else ""
        lines.append(
            f"| {name} | {load.rate.told(1)} | {times} | {load.p50_ms.told(0)} | {load.p99_ms.told(0)} "
            f"| {load.refused:.0%} | {load.unanswered.told(0)} | {load.answers} |"
        )
    return lines


def _costs(standings: Mapping[str, Standing]) -> list[str]:
    lines = ["### Memory and cold start", "", "| | MB | s from launch to the first answer |", "|---|---|---|"]
    return lines + [
        f"| {name} | {standing.memory_mb.told(0)} | {standing.start_s.told(1)} |" for name, standing in standings.items()
    ]


def _answers(visits: Sequence[Visit], standings: Mapping[str, Standing]) -> list[str]:
    lines = [
        "### Answers",
        "",
        f"Tolerated: {MALIGNANT_TOLERANCE:g} of the malignant probability, {NONE_SCORE_TOLERANCE:g} of the none score.",
        "",
        "| | malignant probability off by at most | none score |",
        "|---|---|---|",
    ]
    for name, standing in standings.items():
        none_off = "not computed" if standing.none_score_off is None else f"{standing.none_score_off:.3f}"
        lines.append(f"| {name} | {standing.malignant_off:.4f} | {none_off} |")
    faults = {one.contestant: one.fault for one in visits if one.fault}
    if faults:
        lines += ["", "No figures, because:", "", *(f"- **{name}**: {fault}" for name, fault in faults.items())]
    return lines


def _setups() -> list[str]:
    lines = ["### What was served, and how", "", "| | serves | set up | versions |", "|---|---|---|---|"]
    return lines + [
        f"| {one.name} | {one.serves} | {one.setup} | {versions(one, processes.ROOT / 'requirements')} |" for one in CONTESTANTS
    ]


def versions(contestant: Contestant, requirements: Path) -> str:
    """Of its packages, from the lock that it was installed from."""
    lock = (requirements / f"{contestant.environment or 'test'}.txt").read_text()
    pins = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", lock, re.MULTILINE))
    return ", ".join(f"{package} {pins[package]}" for package in contestant.packages)
