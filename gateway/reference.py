"""What a client looks up: the API's description, the model that answers now, and what each problem means."""

from dataclasses import asdict
from pathlib import Path
from typing import Final

from flask import Blueprint, Response, jsonify, render_template
from werkzeug.exceptions import NotFound

from gateway import problems
from gateway.browser_security import PROBLEMS, is_for_machines
from gateway.identity import public
from gateway.negotiation import depends_on_accept
from gateway.predictor import Predictor

OPENAPI: Final = Path(__file__).parent.parent / "docs" / "openapi.yaml"

_MODEL_TIMEOUT_S: Final = 2.0
"""As for the page on the model: it takes one of the few threads that pages and probes share."""

_OF_MODEL: Final = ("name", "version", "classes", "thresholds", "operating_point", "none_score", "provenance")
_PAGE: Final = "text/html; charset=utf-8"


def blueprint(predictor: Predictor) -> Blueprint:
    """Routes /api/v1/openapi.yaml, /api/v1/model and /problems/<slug>."""
    reference = Blueprint("reference", __name__)
    description = OPENAPI.read_bytes()

    @reference.get("/api/v1/openapi.yaml")
    @public
    def openapi() -> Response:
        """The OpenAPI document."""
        return _revalidated(Response(description, content_type="application/yaml"))

    @reference.get("/api/v1/model")
    @public
    def model() -> Response:
        """What is true of the version that answers now; all its scores are on the page /model."""
        metadata = asdict(predictor.live_metadata(_MODEL_TIMEOUT_S))
        return _revalidated(jsonify({name: metadata[name] for name in _OF_MODEL}))

    @reference.get(f"{PROBLEMS}<slug>")
    @public
    def problem(slug: str) -> Response:
        """What a problem means and what to do about it, at the address that is its type."""
        found = problems.BY_SLUG.get(slug)
        if found is None:
            raise NotFound
        step = problems.next_step(found)
        if is_for_machines():
            document = {
                "type": f"{PROBLEMS}{slug}",
                "title": found.title,
                "status": found.status,
                "next_step": step,
                "advice": problems.ADVICE[step],
            }
            response = jsonify(document)
        else:
            response = Response(render_template("problem_type.html", slug=slug, found=found, step=step), content_type=_PAGE)
            # The language is in it.
            response.vary.add("Cookie")
        return _revalidated(depends_on_accept(response))

    return reference


def _revalidated(response: Response) -> Response:
    response.cache_control.no_cache = True
    return response
