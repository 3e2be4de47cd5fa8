"""The chart of docs/benchmarks.md: pictures a second and p99 by callers."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from scripts.bench.contestants import CONTESTANTS, DERMSERVE
from scripts.bench.figures import Load, Spread, Standing

COLOURS = ("#0072b2", "#d55e00", "#e69f00", "#009e73", "#cc79a7", "#555555", "#999999", "#56b4e9")
"""Okabe and Ito's, which people with any colour vision tell apart; one for each contestant, always the same."""

MARKS = "osv^Dxx+"


def draw(standings: Mapping[str, Standing], path: Path) -> None:
    """A line for each contestant; servers are solid, engines without a server dashed."""
    figure = Figure(figsize=(10, 5.4), layout="constrained")
    rates, latencies = figure.subplots(1, 2)
    for place, contestant in enumerate(CONTESTANTS):
        if contestant.name not in standings:
            continue
        loads = standings[contestant.name].loads
        style = {
            "color": COLOURS[place % len(COLOURS)],
            "marker": MARKS[place % len(MARKS)],
            "linestyle": "-" if contestant.is_server else "--",
            "linewidth": 2.6 if contestant.name == DERMSERVE else 1.4,
            "capsize": 3,
            "label": contestant.name,
        }
        for axis, values in ((rates, [load.rate for load in loads.values()]), (latencies, _p99(loads))):
            middle = [one.median for one in values]
            reach = [[max(one.median - one.low, 0) for one in values], [max(one.high - one.median, 0) for one in values]]
            axis.errorbar(list(loads), middle, reach, **style)
    rates.set(ylabel="pictures a second", ylim=(0, None), title="Throughput (more is better)")
    latencies.set(ylabel="ms", yscale="log", title="p99 (less is better)")
    for axis in (rates, latencies):
        callers = sorted({count for standing in standings.values() for count in standing.loads})
        axis.set(xlabel="callers at a time", xscale="log")
        axis.set_xticks(callers, labels=[str(count) for count in callers])
        axis.minorticks_off()
        axis.grid(visible=True, alpha=0.3)
    handles, labels = rates.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=120)


def _p99(loads: Mapping[int, Load]) -> list[Spread]:
    return [load.p99_ms for load in loads.values()]
