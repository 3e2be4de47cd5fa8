"""How the outcomes compare with histology, for Prometheus.

Asked of the database when somebody scrapes, so that it is right whichever process answers, and nothing is to be added up. Only
cases with histology are in it, and whoever decides on a biopsy has seen the outcome: docs/cases.md says what follows.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from gateway.cases.record import HISTOLOGIES, LABELS, CaseStore, Count, now
from gateway.errors import CasesUnavailable

WINDOW: Final = timedelta(days=180)
"""Histology is rare; a shorter window would show chance."""

MAX_WAIT_S: Final = 1.0
"""For the database: a scrape has ten seconds, and its thread is one of few."""

_PREFIX: Final = "dermserve_gateway_cases"


class Figures(Collector):
    """Counts, and the two shares that follow from them."""

    def __init__(self, counts: "Counts") -> None:
        self._counts = counts

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Ask the database."""
        answers = GaugeMetricFamily(f"{_PREFIX}_up", "Whether the case record's database has answered this scrape.")
        try:
            counts = self._counts.ask()
        except CasesUnavailable:
            answers.add_metric([], 0)
            yield answers
            return
        answers.add_metric([], 1)
        yield answers
        gauge = partial(GaugeMetricFamily, labels=["model_version"])
        cases = GaugeMetricFamily(
            f"{_PREFIX}_with_histology",
            f"Cases whose latest histology was entered within {WINDOW.days} days, by outcome and histology.",
            labels=["model_version", "label", "histology"],
        )
        sensitivity = gauge(f"{_PREFIX}_sensitivity", "Malignant among the histologically malignant that got a label.")
        specificity = gauge(f"{_PREFIX}_specificity", "Benign among the histologically benign that got a label.")
        for version in sorted({count.model_version for count in counts}):
            table = Counter[tuple[str, str]]()
            for count in counts:
                if count.model_version == version:
                    table[count.label, count.histology] = count.cases
            for label in LABELS:
                for histology in HISTOLOGIES:
                    cases.add_metric([str(version), label, histology], table[label, histology])
            for family, right, wrong in ((sensitivity, "malignant", "benign"), (specificity, "benign", "malignant")):
                labelled = table[right, right] + table[wrong, right]
                if labelled:
                    family.add_metric([str(version)], table[right, right] / labelled)
        yield from (cases, sensitivity, specificity)


class Counts:
    """Asks the database, and does not wait for one that hangs: all other figures are on the same page."""

    def __init__(self, store: CaseStore, max_wait_s: float = MAX_WAIT_S) -> None:
        self._store = store
        self._max_wait_s = max_wait_s
        self._asking: threading.Thread | None = None
        self._lock = threading.Lock()
        self._answer: list[Count] | None = None

    def ask(self) -> list[Count]:
        """Those of now.

        Raises:
            CasesUnavailable: it did not answer, or not in time; the one that asks may still be at it.
        """
        with self._lock:
            if self._asking is None or not self._asking.is_alive():
                self._asking = threading.Thread(target=self._ask, name="case-figures", daemon=True)
                self._asking.start()
            self._asking.join(self._max_wait_s)
            if self._asking.is_alive() or self._answer is None:
                raise CasesUnavailable("the database does not answer")
            return self._answer

    def _ask(self) -> None:
        self._answer = None
        with suppress(CasesUnavailable):
            self._answer = list(self._store.count(now() - WINDOW))


def render(counts: Counts) -> bytes:
    """A further part of the page for Prometheus."""
    registry = CollectorRegistry()
    registry.register(Figures(counts))
    return generate_latest(registry)
