"""What a run is told on its command line, and whether there is a gateway that it can begin with."""

import argparse
from typing import Any, Final

from loadtests.exchange import Connection
from loadtests.recipe import OK
from loadtests.shapes import SHAPES
from loadtests.visits import MIX

_NO_KEY: Final = (302, 303, 401, 403)


class OptionError(ValueError):
    """An option is none, or there is nobody to send anything to."""


def add_to(parser: argparse.ArgumentParser) -> None:
    """Beside Locust's own; each also as an environment variable."""
    group: Any = parser.add_argument_group("Dermserve")

    def add(name: str, variable: str, default: Any, text: str, **more: Any) -> None:
        group.add_argument(name, env_var=variable, default=default, help=text, **more)

    add("--shape", "LOAD_SHAPE", "soak", "course of the load", choices=list(SHAPES))
    add("--loop", "LOAD_LOOP", "open", "visits arrive at a rate (open), or users wait for answers", choices=["open", "closed"])
    add("--spacing", "LOAD_SPACING", "poisson", "of an open loop's visits", choices=["poisson", "constant"])
    add("--duration", "LOAD_DURATION", 60.0, "seconds", type=float)
    add("--peak", "LOAD_PEAK", 5.0, "visits a second (open) or users (closed) at the highest point", type=float)
    add("--mix", "LOAD_MIX", "", "weights of the visits, as in api=3,hostile=1; those that are not named do not come")
    add("--corpus", "LOAD_CORPUS", ".run/corpus", "folder that `python -m loadtests.corpus` has made")
    add("--key-file", "LOAD_KEY_FILE", "", "file with an API key")
    add("--model-version", "LOAD_MODEL_VERSION", 0, "version that has to answer; 0 for any", type=int)
    add("--thresholds", "LOAD_THRESHOLDS", "", "instead of the shape's of the same figure: accepted_p95_ms<=500,lost==0")
    add("--reports", "LOAD_REPORTS", ".run/load", "folder for report.json and report.html")
    add("--prometheus", "LOAD_PROMETHEUS", "", "address of a Prometheus that watches the gateway")
    add("--prometheus-settle", "LOAD_PROMETHEUS_SETTLE", 20.0, "seconds until it has the run's last samples", type=float)


def read_mix(text: str) -> dict[str, int]:
    """Weights by flow.

    Raises:
        OptionError: no such flow, or no weight.
    """
    if not text:
        return dict(MIX)
    weights = dict.fromkeys(MIX, 0)
    for part in text.split(","):
        flow, _, weight = part.strip().partition("=")
        if flow not in weights or not weight.isdigit():
            raise OptionError(f"not like api=3,hostile=1: {text!r}; visits: {', '.join(MIX)}")
        weights[flow] = int(weight)
    if not any(weights.values()):
        raise OptionError(f"no visit has a weight in {text!r}")
    return weights


def look(host: str, key: str) -> None:
    """Whether there is a gateway that is ready and lets us in.

    Raises:
        OptionError: there is none; the text says why.
    """
    connection = Connection(host, key, timeout_s=10)
    answer = connection.send("GET", "/health/ready")
    if answer.lost:
        raise OptionError(f"no answer from {host}: {answer.lost}")
    if answer.status != OK:
        raise OptionError(f"{host} is no gateway that is ready: it answers {answer.status} to /health/ready")
    answer = connection.send("GET", "/check")
    if answer.status in _NO_KEY:
        raise OptionError(
            f"{host} does not let us in ({answer.status}): give the file of a key that may classify with --key-file"
        )
    if answer.status != OK:
        raise OptionError(f"{host} answers {answer.lost or answer.status} to /check")
    connection.close()
