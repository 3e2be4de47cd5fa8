"""Probes and metrics."""

from collections.abc import Callable
from typing import Final

from flask import Blueprint, Response, current_app, jsonify

from gateway import drift, metrics
from gateway.errors import Stopping
from gateway.identity import public, requires
from gateway.predictor import Predictor
from gateway.settings import IS_STOPPING

_READY_TIMEOUT_S: Final = 2.0
"""The objective of an answer. A probe that waits has a thread (gunicorn.conf.py has few for them), and gives up by itself."""


def blueprint(predictor: Predictor, more_metrics: Callable[[], bytes] = bytes) -> Blueprint:
    """Routes /health/live, /health/ready and /metrics, which may have more than what this process counts."""
    health = Blueprint("health", __name__)
    # By which an outage is found that no request comes through to.
    metrics.expect_failures("/health/ready", "GET")

    @health.get("/health/live")
    @public
    def live() -> Response:
        """The process answers; says nothing of the model."""
        return jsonify(status="alive")

    @health.get("/health/ready")
    @public
    def ready() -> Response:
        """A version of the model answers and its metadata keep the contract; otherwise the problem says why not.

        It asks the server each time, past the circuit breaker, and does not touch it.
        """
        if current_app.config.get(IS_STOPPING):
            raise Stopping("the process stops; it answers what reaches it")
        metadata = predictor.live_metadata(_READY_TIMEOUT_S)
        return jsonify(status="ready", model={"name": metadata.name, "version": metadata.version})

    @health.get("/metrics")
    @requires("read_metrics")
    def page() -> Response:
        """For Prometheus."""
        return Response(metrics.render(drift.derive) + more_metrics(), content_type="text/plain; version=0.0.4; charset=utf-8")

    return health
