"""What is measured. Label values come from closed sets only; right with several processes (see gunicorn.conf.py)."""

import contextlib
import os
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, Literal, get_args

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from serving import tracing
from serving.contract import NONE_SCORE_EDGES, PROBABILITY_EDGES

Stage = Literal["decode", "preprocess", "predict", "decide"]
BreakerState = Literal["closed", "half_open", "open"]
BREAKER_STATES: Final[tuple[BreakerState, ...]] = get_args(BreakerState)
GoldenResult = Literal["ok", "differs", "no_reference", "failed", "skipped"]
GOLDEN_RESULTS: Final[tuple[GoldenResult, ...]] = get_args(GoldenResult)

_RENDER_TRIES: Final = 50
_RENDER_PAUSE_S: Final = 0.02
"""A second in all: between the two system calls a busy machine may let other processes run."""

# The objective is an answer within two seconds for 95 of 100 pictures; the buckets are dense around it.
REQUEST_BUCKETS_S: Final = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 15.0)
STAGE_BUCKETS_S: Final = (0.0005, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
# Those of the reference in a version's metadata, or the two could not be compared.
PROBABILITY_BUCKETS: Final = PROBABILITY_EDGES
DIFFERENCE_BUCKETS: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
NONE_SCORE_BUCKETS: Final = NONE_SCORE_EDGES

REQUESTS = Counter(
    "dermserve_gateway_requests", "Requests by route template, method and status.", ["route", "method", "status"]
)
REQUEST_SECONDS = Histogram(
    "dermserve_gateway_request_seconds", "Time to answer, by route template.", ["route"], buckets=REQUEST_BUCKETS_S
)
STAGE_SECONDS = Histogram(
    "dermserve_gateway_stage_seconds", "Time of each stage of a classification.", ["stage"], buckets=STAGE_BUCKETS_S
)
STAGE_CPU_SECONDS = Counter(
    "dermserve_gateway_stage_cpu_seconds", "Processor time of each stage of a classification, of its own thread.", ["stage"]
)
# Apart from all requests: a refusal takes milliseconds, and many of them would make the objective look kept.
ACCEPTED_SECONDS = Histogram(
    "dermserve_gateway_accepted_seconds",
    "Time to answer what was sent with POST and got a status of 2xx, by route template.",
    ["route"],
    buckets=REQUEST_BUCKETS_S,
)
OUTCOMES = Counter(
    "dermserve_gateway_outcomes", "Classifications by label, reason and version.", ["label", "reason", "model_version"]
)
MALIGNANT_PROBABILITY = Histogram(
    "dermserve_gateway_malignant_probability", "Calibrated probability.", ["model_version"], buckets=PROBABILITY_BUCKETS
)
NONE_SCORE = Histogram("dermserve_gateway_none_score", "None score.", ["model_version"], buckets=NONE_SCORE_BUCKETS)
QUALITY_WARNINGS = Counter("dermserve_gateway_quality_warnings", "Quality warnings by kind.", ["warning"])
MALIGNANT_LOOKING_REJECTIONS = Counter(
    "dermserve_gateway_malignant_looking_rejections",
    "Pictures sent to none with a probability over the malignant threshold.",
    ["model_version"],
)
CANARY_SHARE = Gauge(
    "dermserve_gateway_canary_share",
    "Share of the pictures that the canary answers, as it was set.",
    multiprocess_mode="livemax",
)
CANARY_FALLBACKS = Counter(
    "dermserve_gateway_canary_fallbacks", "Pictures that the canary should have answered and the stable version did."
)
SHADOWS = Counter(
    "dermserve_gateway_shadows", "Pictures shown to the canary beside the answer, by what came of it.", ["result"]
)
SHADOW_OUTCOMES = Counter(
    "dermserve_gateway_shadow_outcomes",
    "Label that was answered and label that the canary would have given.",
    ["label", "canary_label", "canary_version"],
)
SHADOW_DIFFERENCE = Histogram(
    "dermserve_gateway_shadow_probability_difference",
    "Distance of the canary's probability of malignant from the answered one.",
    ["canary_version"],
    buckets=DIFFERENCE_BUCKETS,
)
ADMISSIONS = Counter(
    "dermserve_gateway_admissions",
    "Pictures by what admission control did: admitted, full (refused unread), late (refused after waiting).",
    ["result"],
)
# Gauges add up over the processes that live.
PICTURES = Gauge(
    "dermserve_gateway_pictures",
    "Pictures that are present (from before their upload is read), that wait, and that are at work.",
    ["state"],
    multiprocess_mode="livesum",
)
RETRIES = Counter(
    "dermserve_gateway_retries", "Calls to repeat to the model server: sent, or refused by the budget.", ["channel", "result"]
)
BREAKERS = Gauge(
    "dermserve_gateway_breakers",
    "Processes whose circuit breaker is in this state.",
    ["channel", "state"],
    multiprocess_mode="livesum",
)
PROBLEMS = Counter("dermserve_gateway_problems", "Problem answers by kind.", ["problem"])
SIGN_INS = Counter(
    "dermserve_gateway_sign_ins",
    "Attempts to sign in: signed_in, without_role, failed, unavailable (the provider).",
    ["result"],
)
KEY_FILE_READS = Counter(
    "dermserve_gateway_key_file_reads", "Changes of the file of API keys: read, or failed (the old keys stay).", ["result"]
)
RATE_LIMIT_FALLBACKS = Counter(
    "dermserve_gateway_rate_limit_fallbacks", "Times that a process lost the store of its rate limits and counted for itself."
)
LOG_LINES_LOST = Counter("dermserve_gateway_log_lines_lost", "Lines of the log that could not be written when they were due.")
MODEL_INFO = Gauge(
    "dermserve_gateway_model_info",
    "1 for each version that has answered since the start, with where it comes from.",
    ["model_version", "preset", "config_sha256"],
    multiprocess_mode="mostrecent",
)
REFERENCE_SHARE = Gauge(
    "dermserve_gateway_reference_share",
    "Share of the version's reference pictures with a score over `above` and up to `le`.",
    ["score", "model_version", "above", "le"],
    multiprocess_mode="mostrecent",
)
REFERENCE_PICTURES = Gauge(
    "dermserve_gateway_reference_pictures", "That the shares are of.", ["model_version"], multiprocess_mode="mostrecent"
)
GOLDEN_CHECKS = Counter("dermserve_gateway_golden_checks", "Checks with the golden picture, by what came of it.", ["result"])
GOLDEN_LAST_OK = Gauge(
    "dermserve_gateway_golden_last_ok_timestamp_seconds",
    "When the golden picture last got its recorded answer; 0 before.",
    multiprocess_mode="mostrecent",
)
GOLDEN_PERIOD = Gauge(
    "dermserve_gateway_golden_period_seconds",
    "Between two checks with the golden picture, as it was set; 0: there are none.",
    multiprocess_mode="livemax",
)
GOLDEN_DIFFERENCE = Gauge(
    "dermserve_gateway_golden_difference",
    "Distance of the last golden answer from the recorded one.",
    ["score"],
    multiprocess_mode="mostrecent",
)
SPANS = Counter("dermserve_gateway_spans", "Spans of traces by what became of them: sent, or lost on the way.", ["result"])

FAILURES: Final = (500, 503, 504)
"""What a route of ours answers when it fails."""


def expect_failures(route: str, method: str) -> None:
    """Begin at 0: of a series that begins with its first failure Prometheus sees no increase."""
    for status in FAILURES:
        REQUESTS.labels(route, method, status)


@contextmanager
def stage(name: Stage) -> Iterator[None]:
    """Time one stage; a stage that fails is timed too."""
    begun_s = time.thread_time()
    try:
        with tracing.span(name), STAGE_SECONDS.labels(name).time():
            yield
    finally:
        STAGE_CPU_SECONDS.labels(name).inc(time.thread_time() - begun_s)


class _Page(CollectorRegistry):
    """What is measured, and what is worked out from that."""

    def __init__(self, measured: CollectorRegistry, derive: Callable[[Iterable[Metric]], Iterable[Metric]]) -> None:
        super().__init__()
        self._measured = measured
        self._derive = derive

    def collect(self) -> Iterable[Metric]:
        families = list(self._measured.collect())
        return [*families, *self._derive(families)]


def render(derive: Callable[[Iterable[Metric]], Iterable[Metric]] = lambda _: ()) -> bytes:
    """The page for Prometheus, over all workers when there are several.

    Args:
        derive: makes further figures of those that were measured, summed up over the workers already.
    """
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(_Page(REGISTRY, derive))
    merged = CollectorRegistry()
    MultiProcessCollector(merged)  # type: ignore[no-untyped-call]
    registry = _Page(merged, derive)
    for _ in range(_RENDER_TRIES - 1):
        # A process that starts makes its file first and gives it its size a moment later: the library fails on an empty one.
        with contextlib.suppress(struct.error):
            return generate_latest(registry)
        time.sleep(_RENDER_PAUSE_S)
    return generate_latest(registry)
