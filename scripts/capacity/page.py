"""The page docs/capacity.md. Used by capacity.py."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.capacity import plan as planning
from scripts.capacity.calibration import PICTURE_SIZE
from scripts.capacity.charts import CORES, WORDS
from scripts.capacity.comparison import COMPARED, TOLERANCE, Compared
from scripts.capacity.demand import assumed, assumptions_table
from scripts.capacity.settings import released

if TYPE_CHECKING:
    from scripts.capacity.__main__ import Run

MONTHLY = 12.0
"""Checks a person and year of the second plan: everybody once a month."""

STEPS = (0.1, 1.0, 4.0, 12.0, 52.0)
"""Checks a person and year of the last table."""

CALIBRATED = """
Every time in the simulation comes from a measurement of that part alone, one caller, one request at a time, nothing queues;
times by how much slower all of it is in company.

| what | measured on |
|---|---|
| caller, gateway | one caller through the whole stack; processor time of each |
| HTTP | the same with a file of that size which is no picture; the rest of the gateway's time is its turn |
| call | one picture a call to a model server whose model computes next to nothing; its processor time |
| refusal | a gateway whose only place is held by an upload that has stopped |
| batch | so many pictures in one call to the released model, without waiting for company; by the clock, and processor time |
| scatter | by how much these calls differed from their mean |
| company | pictures a second of eight callers in a closed loop, simulated from all of the above, over measured |
| idle | what is left of the first row's time by the clock without all of that, for one picture |

Nothing is fitted to the run it is compared with: of that the simulation is given the moments at which pictures came. Its
structure is the code's: places, turns and the wait for them, two decodings in a process, batches with size, timeout, threads
and queue as in `serving/config/batching.config`, deadlines. On one machine all of it shares the cores: a picture being decoded
can use one, a batch as many as its processor time is times its time by the clock, and when that is more than there are, all are
slowed alike. Not in it: the kernel's preference for those who have slept, the network of the country.
"""

LIMITS = """
- No GPU was measured. The published figures are of a ResNet-50 without our second and third output, in another version of
  TensorFlow, without a server before it; what our network gives on such a card has to be measured there
  (`make bench-serving` points the way). Calls to it take a core for the time in the table above in our embedded model server;
  what they take in TensorFlow Serving was not measured.
- Hosts of the plan have as many cores as were measured. Eight cores in one host are not four times two: not measured.
- A core is one of this machine. Others differ, also by whether they have AVX512_BF16.
- Balancing between gateways is random in the simulation, between model servers in turn. Connections of browsers that stay open
  are not in it, nor are TLS, proxies, identity, the audit record's disk and the case record's database.
- Activation maps cost more, and whoever asks how steady an answer is shows the model four pictures.
"""


def write(docs: Path, run: "Run") -> str:
    """The whole page."""
    lines = [
        "# Capacity",
        "",
        "Printed by `make capacity`, which writes this page. Nothing is to be edited here.",
        "",
        f"{run.machine}. Callers, gateway and model server share them.",
        "",
        *_verdicts(run),
        "",
        "## What a picture costs",
        "",
        *_costs(run),
        CALIBRATED,
        "## The simulation beside the stack",
        "",
        *_comparison(run.compared),
        "",
        "![latency, measured and simulated](figures/capacity-latency.png)",
        "",
        "![utilisation and p99](figures/capacity-utilisation.png)",
        "",
        "## A country",
        "",
        *_plans(run),
        "",
        "## What this does not say",
        LIMITS,
    ]
    text = "\n".join(lines)
    (docs / "capacity.md").write_text(text)
    return text


def _verdicts(run: "Run") -> list[str]:
    rows = run.compared
    lines = []
    if not run.is_quiet:
        lines.append(
            f"- **Provisional**: something else used up to {max(row.others for row in rows):.0%} of the processors meanwhile. "
            "The figures are not those of the stack; run it again with nothing else running."
        )
    else:
        lines.append(f"- Something else used at most {max(row.others for row in rows):.1%} of the processors during the run.")
    for figure in COMPARED:
        worst = max(rows, key=lambda row: abs(row.difference(figure)))
        is_within = all(figure not in row.outside for row in rows)
        lines.append(
            f"- {'Agrees' if is_within else '**Does not agree**'}: {WORDS[figure]}, simulated from measured, at most "
            f"{abs(worst.difference(figure)):.0%} away, at {worst.load:g} times the capacity; allowed: {TOLERANCE:.0%}."
        )
    inside = [row for row in rows if row.low.p99_ms <= row.simulated.p99_ms <= row.high.p99_ms]
    worst = max(rows, key=lambda row: abs(row.difference("p99_ms")))
    lines.append(
        f"- p99 is not held to it: {abs(worst.difference('p99_ms')):.0%} away at worst, and inside the measured one's 95 % "
        f"interval at {len(inside)} of {len(rows)} loads."
    )
    drift = max(abs(one.batches[0].cpu_s / run.costs.batches[0].cpu_s - 1) for one in run.calibrations)
    lines.append(f"- The calibrations before and after lie {drift:.1%} from their median (processor time of a batch of one).")
    return lines


def _costs(run: "Run") -> list[str]:
    costs, server = run.costs, released().max_batch_size
    width, height = PICTURE_SIZE
    of_gateway, of_server = planning.gateway_rate(costs, 1), planning.server_rate(costs, server, 1)
    named = (
        ("the caller, who is on the same machine", costs.caller_s),
        ("the gateway, HTTP", costs.http_s),
        ("the gateway, in its turn", costs.work_s),
        ("the model server, the call", costs.rpc_s),
        ("by the clock, with no processor busy", costs.idle_s),
        ("the gateway, to refuse a picture", costs.refusal_s),
    )
    return [
        f"A JPEG of {width} x {height} pixels, {run.size.upload / 1e6:.2f} MB; to decode and resize it takes "
        f"{1000 * run.decoding_s:.1f} ms of the gateway's turn.",
        "",
        "| part | ms |",
        "|---|---|",
        *(f"| {name} | {1000 * seconds:.2f} |" for name, seconds in named),
        "",
        f"In company everything takes {costs.company:.2f} times what it takes alone: caches, memory and the interpreter's lock "
        "are shared. These figures have it in them.",
        "",
        "| pictures in a batch | ms by the clock | processor ms | processor ms a picture | cores used |",
        "|---|---|---|---|---|",
        *(
            f"| {of.pictures} | {1000 * of.wall_s:.1f} | {1000 * of.cpu_s:.1f} | {1000 * of.cpu_s / of.pictures:.1f} "
            f"| {of.cpu_s / of.wall_s:.2f} |"
            for of in costs.batches
        ),
        "",
        "| | pictures/s and core |",
        "|---|---|",
        f"| gateway | {of_gateway:.0f} |",
        f"| model server, full batches | {of_server:.1f} |",
        f"| all on one machine, simulated, callers included | {run.capacity / CORES:.1f} |",
        "",
        f"So a core of gateways feeds {of_gateway / of_server:.1f} cores of model servers.",
    ]


def _comparison(rows: Sequence[Compared]) -> list[str]:
    lines = [
        "Poisson arrivals at the real stack (gunicorn, gateway with its defaults, embedded model server, released model), and",
        "the same arrivals in the simulation; times count from when a picture was due, of those that were answered. In",
        "brackets the 95 % interval of the measured figure, from blocks of two seconds drawn again. The load is in times the",
        "simulated capacity.",
        "",
        "| load | offered/s | | pictures/s | p50 ms | p95 ms | p99 ms | refused |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        names = ("rate", "p50_ms", "p95_ms", "p99_ms")
        measured = (_spread(row, name) for name in names)
        simulated = (f"{getattr(row.simulated, name):.{1 if name == 'rate' else 0}f}" for name in names)
        differences = (
            f"{'**' if name in row.outside else ''}{row.difference(name):+.0%}{'**' if name in row.outside else ''}"
            for name in names
        )
        points = 100 * (row.simulated.refused - row.measured.refused)
        lines += [
            f"| {row.load:g} | {row.offered:.1f} | measured | {' | '.join(measured)} | {row.measured.refused:.1%} |",
            f"| | | simulated | {' | '.join(simulated)} | {row.simulated.refused:.1%} |",
            f"| | | difference | {' | '.join(differences)} | {points:+.1f} points |",
        ]
    return lines


def _spread(row: Compared, name: str) -> str:
    digits = 1 if name == "rate" else 0
    low, middle, high = (f"{getattr(of, name):.{digits}f}" for of in (row.low, row.measured, row.high))
    return f"{middle} [{low} to {high}]"


def _plans(run: "Run") -> list[str]:
    demand, costs, size = assumed(), run.costs, run.size
    monthly = replace(demand, checks_per_person=MONTHLY)
    command = ".venvs/test/bin/python -m scripts.capacity.plan"
    rows = []
    for checks in STEPS:
        of = replace(demand, checks_per_person=checks)
        plan = planning.make_plan(of, costs)
        cores = planning.HOST_CORES * int(of.zones) * (plan.gateways + plan.servers)
        rows.append(
            f"| {checks:g} | {of.pictures_a_year / 1e6:,.0f} | {of.peak:,.0f} | {plan.gateways * int(of.zones)} "
            f"| {plan.servers * int(of.zones)} | {cores} | {of.pictures_a_year * size.audit / 1e9:,.0f} |"
        )
    return [
        "Each figure is an argument of the command below; these are its defaults.",
        "",
        *assumptions_table(),
        "",
        "### Everybody once a year",
        "",
        f"```\n{command} --people {demand.people:.10g}\n```",
        "",
        *planning.describe(demand, costs, size),
        "",
        "### Everybody once a month",
        "",
        f"```\n{command} --people {demand.people:.10g} --checks-per-person {MONTHLY:g}\n```",
        "",
        *planning.describe(monthly, costs, size),
        "",
        "### On GPUs, by others' figures",
        "",
        "The second plan's peak; the same command prints it. **None of these was measured by us.** Planned for "
        f"{demand.utilisation:.0%} of what is published.",
        "",
        *planning.describe_gpus(monthly, costs, size),
        "",
        "### By how often people check",
        "",
        "| checks a person and year | million pictures a year | pictures/s, peak | gateways | model servers | cores "
        "| audit, GB a year |",
        "|---|---|---|---|---|---|---|",
        *rows,
    ]
