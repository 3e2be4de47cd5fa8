"""What Prometheus saw of a run: the gateway's and the model server's own figures of the same minutes."""

import json
import math
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from loadtests.exchange import AddressError, Connection
from loadtests.recipe import OK

Figures = dict[str, dict[str, float | None]]
"""By name and by labels."""

_API: Final = 'dermserve_gateway_request_seconds_bucket{route="/api/v1/classifications"}'
_QUEUE: Final = "{__name__=':tensorflow:serving:batching_session:queuing_latency_bucket'}"


def _grown(series: str, by: str) -> str:
    """By how much a counter grew since the run began. Not `increase`: that misses what a series begins with."""
    now, before = f"sum by ({by}) ({series})", f"sum by ({by}) ({series} offset {{window}}s)"
    return f"(({now}) - ({before}) or ({now}))"


def _quantile(series: str, share: float, unit: float) -> str:
    return f"histogram_quantile({share}, {_grown(series, 'le')}) * {unit:g}"


def _over_time(function: str, state: str) -> str:
    return f'{function}_over_time(sum(dermserve_gateway_pictures{{state="{state}"}})[{{window}}s:1s])'


QUERIES: Final[dict[str, str]] = {
    "API, p50 ms": _quantile(_API, 0.5, 1000),
    "API, p95 ms": _quantile(_API, 0.95, 1000),
    "API, p99 ms": _quantile(_API, 0.99, 1000),
    "pictures at work, most": _over_time("max", "at_work"),
    "pictures at work, mean": _over_time("avg", "at_work"),
    "pictures waiting, most": _over_time("max", "waiting"),
    "pictures present, most": _over_time("max", "present"),
    "model server's queue, p99 ms": _quantile(_QUEUE, 0.99, 0.001),
    "outcomes": _grown("dermserve_gateway_outcomes_total", "label, reason, model_version"),
    "problems": _grown("dermserve_gateway_problems_total", "problem"),
    "admissions": _grown("dermserve_gateway_admissions_total", "result"),
    "circuit breakers open": 'max_over_time(sum(dermserve_gateway_breakers{state="open"})[{window}s:1s])',
    "gateways": "count(count by (instance) (dermserve_gateway_requests_total))",
}
"""Name -> PromQL, with {window} for the seconds since the run began. A histogram's quantiles are as fine as its bins."""


class PrometheusError(Exception):
    """Prometheus gave no figures."""


def fetch(address: str, began_s: float) -> Figures:
    """Ask for every figure.

    Args:
        address: of Prometheus, http://host:port.
        began_s: of the wall clock: when the run began.

    Raises:
        PrometheusError: it does not answer, or not as Prometheus does.
    """
    try:
        connection = Connection(address)
    except AddressError as error:
        raise PrometheusError(str(error)) from error
    now_s = time.time()
    window = str(math.ceil(now_s - began_s))
    try:
        return {name: _ask(connection, query.replace("{window}", window), now_s) for name, query in QUERIES.items()}
    finally:
        connection.close()


def _ask(connection: Connection, query: str, now_s: float) -> dict[str, float | None]:
    """Empty where there are no samples."""
    answer = connection.send("GET", "/api/v1/query?" + urlencode({"query": query, "time": f"{now_s:.3f}"}))
    if answer.status != OK:
        raise PrometheusError(f"{connection.origin} gave {answer.lost or answer.status} to {query}")
    try:
        return dict(_read(sample) for sample in json.loads(answer.body)["data"]["result"])
    except (ValueError, KeyError, TypeError) as error:
        raise PrometheusError(f"{connection.origin} is no Prometheus: {error!r}") from error


def _read(sample: Mapping[str, Any]) -> tuple[str, float | None]:
    value = float(sample["value"][1])
    labels = ", ".join(f"{name} {text}" for name, text in sorted(sample["metric"].items()) if text)
    return labels, value if math.isfinite(value) else None
