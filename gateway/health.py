"""Probes and metrics."""

from flask import Blueprint, Response, jsonify

from gateway import metrics
from gateway.predictor import Predictor


def blueprint(predictor: Predictor) -> Blueprint:
    """Routes /health/live, /health/ready and /metrics."""
    health = Blueprint("health", __name__)

    @health.get("/health/live")
    def live() -> Response:
        """The process answers; says nothing of the model."""
        return jsonify(status="alive")

    @health.get("/health/ready")
    def ready() -> Response:
        """A version of the model answers and its metadata keep the contract; otherwise the problem says why not."""
        metadata = predictor.live_metadata()
        return jsonify(status="ready", model={"name": metadata.name, "version": metadata.version})

    @health.get("/metrics")
    def page() -> Response:
        """For Prometheus."""
        return Response(metrics.render(), content_type="text/plain; version=0.0.4; charset=utf-8")

    return health
