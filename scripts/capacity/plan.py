"""`python -m scripts.capacity.plan --people 270e6 ...`: how much of everything a country needs, and what it costs.

What one picture costs comes from the last `make capacity` (docs/figures/capacity.json), everything else from
scripts/capacity/assumptions.json; each of those is an argument here. Prints parts of docs/capacity.md.
"""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from scripts.capacity.demand import ASSUMPTIONS, MAY_BE, Demand
from scripts.capacity.settings import released
from scripts.capacity.simulation import ANSWERED, Batch, Costs, Deployment, Outcomes, poisson, simulate
from scripts.capacity.storage import Bytes

ROOT = Path(__file__).parents[2]
MEASURED = ROOT / "docs" / "figures" / "capacity.json"
GPUS = Path(__file__).parent / "gpus.json"
HOST_CORES = 2
"""Of a gateway's and of a model server's host: as many as were measured. How the network's speed grows with more was not."""

SIMULATED_PICTURES = 8_000
LEAST_S = 8.0
"""Of a simulation, however many pictures come: every place and every queue is full after a second or two."""

MAX_REFUSED = 0.001
"""Share of the peak; a burst is more than was planned for, and may be refused."""

YEAR_HOURS = 8760
GIGA = 1e9


@dataclass(frozen=True)
class Plan:
    """Hosts of each kind in one zone, and what one host can do.

    Attributes:
        gateway_rate, server_rate: pictures a second of one host.
        gateways, servers: hosts in a zone.
    """

    gateway_rate: float
    server_rate: float
    gateways: int
    servers: int


def gateway_rate(costs: Costs, cores: float = HOST_CORES) -> float:
    """Pictures a second of a gateway's host that does nothing else."""
    return cores / (costs.http_s + costs.work_s)


def server_rate(costs: Costs, largest: int, cores: float = HOST_CORES) -> float:
    """Pictures a second of a model server's host with full batches."""
    return cores / (costs.rpc_s + costs.batch(largest).cpu_s / largest)


def hosts(demand: Demand, rate: float) -> int:
    """In each zone, so that the others carry the peak at the planned utilisation when one has failed."""
    needed = math.ceil(demand.peak / ((demand.zones - 1) * rate * demand.utilisation))
    return max(needed, int(demand.least))


def make_plan(demand: Demand, costs: Costs) -> Plan:
    """On processors."""
    of_gateway, of_server = gateway_rate(costs), server_rate(costs, released().max_batch_size)
    return Plan(of_gateway, of_server, hosts(demand, of_gateway), hosts(demand, of_server))


def on_gpu(costs: Costs, latency_ms: dict[str, float]) -> Costs:
    """The model server's work as published for a GPU; what its host's processors do beside it takes its time, but no GPU."""
    sizes = sorted(int(size) for size in latency_ms)
    # Padded to the sizes that batching.gpu.config allows.
    padded = [next(size for size in sizes if size >= pictures) for pictures in range(1, sizes[-1] + 1)]
    batches = (Batch(pictures, *2 * (latency_ms[f"{size}"] / 1000,)) for pictures, size in enumerate(padded, 1))
    return replace(costs, batches=tuple(batches), scatter=(1.0,), rpc_s=0.0, idle_s=costs.idle_s + costs.rpc_s)


def try_out(costs: Costs, deployment: Deployment, rate: float, pictures: int) -> tuple[str, float, float]:
    """What a simulation gives: cells of a table, p99 in seconds, and the share that was refused."""
    seconds = max(pictures / rate, LEAST_S)
    outcomes = simulate(replace(costs, caller_s=0.0), deployment, poisson(rate, seconds, seed=1), seed=1)
    p50, p99 = quantiles_ms(outcomes, (0.5, 0.99))
    refused = float((outcomes.status != ANSWERED).mean())
    return (
        f"{rate:,.0f} | {deployment.gateways} | {deployment.servers} | {p50:.0f} | {p99:.0f} | {refused:.1%}",
        p99 / 1000,
        refused,
    )


def quantiles_ms(outcomes: Outcomes, shares: Sequence[float]) -> list[float]:
    """Of the pictures that were answered."""
    return [float(value) for value in 1000 * np.quantile(outcomes.seconds[outcomes.status == ANSWERED], shares)]


def describe(demand: Demand, costs: Costs, size: Bytes, shards: int = 1, pictures: int = SIMULATED_PICTURES) -> list[str]:
    """The plan in words and tables."""
    plan = make_plan(demand, costs)
    zones = int(demand.zones)
    gateways, servers = plan.gateways * zones, plan.servers * zones
    cores = (gateways + servers) * HOST_CORES
    million = demand.pictures_a_year / 1e6
    full_s = HOST_CORES / plan.gateway_rate + HOST_CORES / plan.server_rate
    return [
        f"{demand.pictures_a_year:,.0f} pictures a year; {demand.peak:,.1f} a second in the busiest hour.",
        "",
        "| kind | pictures/s of a host | hosts in each zone | hosts | cores | busy at the peak | with a zone down |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {kind} | {rate:.0f} | {count} | {count * zones} | {count * zones * HOST_CORES} "
            f"| {demand.peak / (count * zones * rate):.0%} | {demand.peak / (count * (zones - 1) * rate):.0%} |"
            for kind, rate, count in (
                ("gateway", plan.gateway_rate, plan.gateways),
                ("model server", plan.server_rate, plan.servers),
            )
        ),
        "",
        f"- Cost of a million pictures at {demand.core_price:g} a core and hour (the default is an example, nobody's price):",
        f"  {cores * YEAR_HOURS * demand.core_price / million:,.2f} with all {cores} cores paid the whole year;",
        f"  {1e6 * full_s / 3600 * demand.core_price:,.2f} where only busy cores are paid.",
        f"- Audit record: {million * 1e6 * size.audit / GIGA:,.0f} GB a year. Case record: "
        f"{million * 1e6 * demand.kept * size.case / GIGA:,.0f} GB a year. Pictures are kept nowhere.",
        f"- Network at the peak: {demand.peak * size.upload * 8 / GIGA:,.2f} Gbit/s of uploads, "
        f"{demand.peak * size.call * 8 / GIGA:,.2f} Gbit/s from gateways to model servers.",
        "",
        *_scenarios(demand, costs, plan, shards, pictures),
    ]


def _scenarios(demand: Demand, costs: Costs, plan: Plan, shards: int, pictures: int) -> list[str]:
    zones, slowest_s, refused_at_peak = int(demand.zones), 0.0, 0.0
    lines = [
        "| simulated | pictures/s | gateways | model servers | p50 ms | p99 ms | refused |",
        "|---|---|---|---|---|---|---|",
    ]
    cases = (
        ("the peak", demand.peak, zones),
        ("the peak, one zone down", demand.peak, zones - 1),
        (f"a burst of {demand.burst:g} times the peak", demand.peak * demand.burst, zones),
        ("the burst, one zone down", demand.peak * demand.burst, zones - 1),
    )
    for name, rate, up in cases:
        shared = released(
            gateways=max(plan.gateways * up // shards, 1),
            servers=max(plan.servers * up // shards, 1),
            gateway_cores=HOST_CORES,
            server_cores=HOST_CORES,
        )
        cells, p99_s, refused = try_out(costs, shared, rate / shards, pictures)
        slowest_s = max(slowest_s, p99_s)
        if rate == demand.peak:
            refused_at_peak = max(refused_at_peak, refused)
        lines.append(f"| {name} | {cells} |")
    is_fast, is_enough = slowest_s <= demand.objective_s, refused_at_peak <= MAX_REFUSED
    part = f" Simulated is one of {shards} equal parts." if shards > 1 else ""
    return [
        *lines,
        "",
        f"- {_verdict(is_fast)}: 99 % of what is answered is answered within {slowest_s:.2f} s, "
        f"objective: {demand.objective_s:g} s.",
        f"- {_verdict(is_enough)}: at the peak, with a zone down too, at most {refused_at_peak:.1%} is refused, "
        f"planned: {MAX_REFUSED:.1%}.{'' if is_enough else ' More GATEWAY_THREADS, or a lower --utilisation.'}",
        "",
        f"Each simulation: Poisson arrivals for at least {LEAST_S:g} s and {pictures:,} pictures.{part}",
    ]


def _verdict(holds: bool) -> str:
    return "Holds" if holds else "**Does not hold**"


def describe_gpus(demand: Demand, costs: Costs, size: Bytes, pictures: int = SIMULATED_PICTURES) -> list[str]:
    """A row for each GPU whose figures are published. None of them was measured here."""
    published = json.loads(GPUS.read_text())
    lines = [
        "| GPU | pictures/s, published | planned for | gateways of two cores | calls from gateways, Gbit/s | p99 ms, simulated "
        "| GPUs for the peak | cost of a million pictures at that rate |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, latency_ms in published["latency_ms"].items():
        largest = max(int(batch) for batch in latency_ms)
        rate = 1000 * largest / latency_ms[f"{largest}"]
        planned = rate * demand.utilisation
        gateways = math.ceil(planned / (gateway_rate(costs) * demand.utilisation))
        deployment = released("batching.gpu.config", gateways=gateways, gateway_cores=HOST_CORES, server_cores=1)
        outcomes = simulate(
            replace(on_gpu(costs, latency_ms), caller_s=0.0), deployment, poisson(planned, pictures / planned, seed=1)
        )
        price_a_second = (demand.gpu_price + gateways * HOST_CORES * demand.core_price) / 3600
        lines.append(
            f"| {name} | {rate:,.0f} | {planned:,.0f} | {gateways} | {planned * size.call * 8 / GIGA:.2f} "
            f"| {quantiles_ms(outcomes, (0.99,))[0]:.0f} | {hosts(demand, rate) * int(demand.zones)} "
            f"| {1e6 / planned * price_a_second:.2f} |"
        )
    return [*lines, "", f"Published: {published['what']} ({published['source']})."]


def read_measured(path: Path = MEASURED) -> tuple[Costs, Bytes]:
    """What `make capacity` has written."""
    document = json.loads(path.read_text())
    costs = document["costs"]
    batches = tuple(Batch(**batch) for batch in costs.pop("batches"))
    return Costs(**costs | {"batches": batches, "scatter": tuple(costs["scatter"])}), Bytes(**document["bytes"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the arguments and print."""
    parser = argparse.ArgumentParser(description="Plan a deployment from measured figures (docs/capacity.md).")
    for name, entry in json.loads(ASSUMPTIONS.read_text()).items():
        text = f"{entry['what']}; {entry['basis']}".replace("%", "%%")
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=entry["value"], help=text)
    parser.add_argument("--shards", type=int, default=1, help="simulate one of so many equal parts")
    parser.add_argument("--pictures", type=int, default=SIMULATED_PICTURES, help="in each simulation")
    given = vars(parser.parse_args(arguments))
    wrong = [f"--{name.replace('_', '-')}" for name, value in given.items() if not MAY_BE[name] <= value < math.inf]
    if wrong:
        parser.error(f"too small, or no number: {', '.join(wrong)}")
    shards, pictures = given.pop("shards"), given.pop("pictures")
    demand = Demand(**given)
    costs, size = read_measured()
    print("\n".join([*describe(demand, costs, size, shards, pictures), "", *describe_gpus(demand, costs, size, pictures)]))


if __name__ == "__main__":
    main()
