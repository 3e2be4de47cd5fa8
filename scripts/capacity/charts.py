"""The charts of docs/capacity.md. Used by capacity.py."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

from scripts.capacity import plan as planning
from scripts.capacity.comparison import Compared
from scripts.capacity.demand import assumed
from scripts.capacity.settings import released
from scripts.capacity.simulation import Costs, Deployment, poisson, simulate

CORES = float(os.cpu_count() or 1)
WORDS = {"rate": "pictures/s", "p50_ms": "p50", "p95_ms": "p95", "p99_ms": "p99"}
CURVE_LOADS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5)
CURVE_S = 60.0
UTILISATIONS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0, 1.1)
SERVERS = (1, 4, 16)


def draw_latencies(rows: Sequence[Compared], costs: Costs, capacity: float, path: Path) -> None:
    """Measured points with their intervals on simulated curves."""
    deployment = released(gateway_cores=CORES)
    curves = []
    for load in CURVE_LOADS:
        outcomes = simulate(costs, deployment, poisson(load * capacity, CURVE_S, seed=round(100 * load)))
        curves.append(planning.quantiles_ms(outcomes, (0.5, 0.95, 0.99)))
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axis = figure.subplots()
    for number, name in enumerate(("p50_ms", "p95_ms", "p99_ms")):
        (line,) = axis.plot(CURVE_LOADS, [curve[number] for curve in curves], label=f"{WORDS[name]}, simulated")
        middle = [getattr(row.measured, name) for row in rows]
        spread = [[getattr(row.measured, name) - getattr(row.low, name) for row in rows]]
        spread.append([getattr(row.high, name) - getattr(row.measured, name) for row in rows])
        shape = {"color": line.get_color(), "marker": "o", "linestyle": "none", "capsize": 4}
        axis.errorbar([row.load for row in rows], middle, spread, label=f"{WORDS[name]}, measured", **shape)
    axis.set(
        xlabel="offered load, times the capacity",
        ylabel="ms",
        ylim=(0, None),
        title="Latency of answered pictures, one machine",
    )
    axis.legend()
    figure.savefig(path, dpi=120)


def draw_utilisation(costs: Costs, path: Path) -> None:
    """How high a host may be used: p99 over utilisation, for few and for many model servers."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axis = figure.subplots()
    elsewhere = replace(costs, caller_s=0.0)
    one = planning.server_rate(costs, released().max_batch_size)
    for servers in SERVERS:
        deployment: Deployment = released(
            gateways=servers, servers=servers, gateway_cores=planning.HOST_CORES, server_cores=planning.HOST_CORES
        )
        p99 = []
        for utilisation in UTILISATIONS:
            rate = utilisation * servers * one
            outcomes = simulate(elsewhere, deployment, poisson(rate, (1000 + 250 * servers) / rate, seed=1))
            p99 += planning.quantiles_ms(outcomes, (0.99,))
        axis.plot(UTILISATIONS, p99, marker="o", label=f"{servers} model server{'s' if servers > 1 else ''}, as many gateways")
    axis.set(
        xlabel="offered load, as a share of what the model servers can do with full batches",
        ylabel="p99, ms",
        ylim=(0, None),
        title="Utilisation and p99, simulated, hosts of two cores",
    )
    axis.axvline(assumed().utilisation, color="grey", linestyle=":", label="planned, with a zone down")
    axis.legend()
    figure.savefig(path, dpi=120)
