"""What is measured. Label values come from closed sets only; right with several processes (see gunicorn.conf.py)."""

import contextlib
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal, get_args

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

Stage = Literal["decode", "preprocess", "predict", "decide"]
BreakerState = Literal["closed", "half_open", "open"]
BREAKER_STATES: Final[tuple[BreakerState, ...]] = get_args(BreakerState)

_RENDER_TRIES: Final = 50
_RENDER_PAUSE_S: Final = 0.02
"""A second in all: between the two system calls a busy machine may let other processes run."""

# The objective is an answer within two seconds for 95 of 100 pictures; the buckets are dense around it.
REQUEST_BUCKETS_S: Final = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 15.0)
STAGE_BUCKETS_S: Final = (0.0005, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
PROBABILITY_BUCKETS: Final = tuple(tenth / 10 for tenth in range(1, 11))
DIFFERENCE_BUCKETS: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
NONE_SCORE_BUCKETS: Final = (-20.0, -15.0, -10.0, -7.5, -5.0, -2.5, 0.0, 2.5, 5.0, 7.5, 10.0, 15.0, 20.0)

REQUESTS = Counter(
    "dermserve_gateway_requests", "Requests by route template, method and status.", ["route", "method", "status"]
)
REQUEST_SECONDS = Histogram(
    "dermserve_gateway_request_seconds", "Time to answer, by route template.", ["route"], buckets=REQUEST_BUCKETS_S
)
STAGE_SECONDS = Histogram(
    "dermserve_gateway_stage_seconds", "Time of each stage of a classification.", ["stage"], buckets=STAGE_BUCKETS_S
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


@contextmanager
def stage(name: Stage) -> Iterator[None]:
    """Time one stage; a stage that fails is timed too."""
    with STAGE_SECONDS.labels(name).time():
        yield


def render() -> bytes:
    """The page for Prometheus, over all workers when there are several."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    for _ in range(_RENDER_TRIES - 1):
        # A process that starts makes its file first and gives it its size a moment later: the library fails on an empty one.
        with contextlib.suppress(struct.error):
            return generate_latest(registry)
        time.sleep(_RENDER_PAUSE_S)
    return generate_latest(registry)
