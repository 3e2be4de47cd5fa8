"""The pages people see, in Indonesian and English, rendered on the server; the script in web/static only enhances them."""

from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from flask import Blueprint, Flask, Response, abort, g, make_response, redirect, render_template, request
from flask_babel import Babel, format_decimal, format_percent, get_locale
from werkzeug.wrappers import Response as BaseResponse

from gateway.classify import Classification, Classifier
from gateway.errors import NoPicture
from gateway.images import FORMATS
from gateway.predictor import Predictor
from gateway.problems import Problem
from gateway.settings import Settings
from serving.metadata import ModelMetadata

LANGUAGES: Final = {"id": "Bahasa Indonesia", "en": "English"}
DEFAULT_LANGUAGE: Final = "id"
LANGUAGE_COOKIE: Final = "language"
LANGUAGE_COOKIE_AGE_S: Final = 365 * 24 * 3600
FRAGMENT_HEADER: Final = "X-Fragment"
"""The script asks with it for the result alone, to put it into a dialog; without the script the same result is a page."""

_TRANSLATIONS: Final = Path(__file__).parent.parent / "web" / "translations"
_PREVALENCES: Final = (0.02, 0.07, 0.2)


def init_app(app: Flask) -> None:
    """Translations and what every template may use."""
    Babel(
        app,
        default_locale=DEFAULT_LANGUAGE,
        default_translation_directories=str(_TRANSLATIONS),
        locale_selector=_select_language,
    )
    app.jinja_env.globals.update(
        languages=LANGUAGES, current_language=lambda: str(get_locale()), percent=_percent, decimal=_decimal
    )
    app.jinja_env.trim_blocks = True
    app.jinja_env.lstrip_blocks = True


def blueprint(classifier: Classifier, predictor: Predictor, settings: Settings) -> Blueprint:
    """Routes of the portal."""
    portal = Blueprint("portal", __name__)
    limits = {"max_upload_bytes": settings.max_upload_bytes, "formats": FORMATS}

    @portal.get("/")
    def home() -> str:
        """What this is for, and what it is not."""
        return render_template("home.html", **limits)

    @portal.get("/check")
    def check() -> str:
        """The form."""
        return render_template("check.html", **limits)

    @portal.post("/check")
    def classify() -> Response:
        """The form's answer: a page, or the result alone for the script."""
        upload = request.files.get("file")
        if upload is None:
            raise NoPicture("the form has no picture")
        result = classifier.classify(upload.read(), g.request_id)
        template = "_result.html" if FRAGMENT_HEADER in request.headers else "result.html"
        response = make_response(render_template(template, **_result_context(result)))
        response.cache_control.no_store = True
        return response

    @portal.get("/model")
    def model() -> str:
        """What the model that answers now was trained on and how well it does."""
        return render_template("model.html", metadata=predictor.live_metadata())

    @portal.get("/language/<language>")
    def language(language: str) -> BaseResponse:
        """Remember a language and go back."""
        if language not in LANGUAGES:
            abort(404)
        response = redirect(_local_path(request.args.get("next", "/")), 303)
        response.set_cookie(LANGUAGE_COOKIE, language, LANGUAGE_COOKIE_AGE_S, httponly=True, samesite="Lax")
        return response

    return portal


def render_problem(problem: Problem) -> Response:
    """A problem in the portal's clothes."""
    template = "_problem.html" if FRAGMENT_HEADER in request.headers else "problem.html"
    return make_response(render_template(template, problem=problem, case_code=case_code(g.request_id)), problem.status)


def case_code(request_id: str) -> str:
    """What a person can read out on the telephone; the log has the whole id."""
    return request_id[:8].upper()


def _result_context(result: Classification) -> dict[str, object]:
    metadata = result.metadata
    return {
        "result": result,
        "outcome": result.reason or result.label,
        "metadata": metadata,
        "case_code": case_code(result.id),
        "flagged_shares": [(prevalence, _predictive_value(metadata, prevalence)) for prevalence in _PREVALENCES],
    }


def _predictive_value(metadata: ModelMetadata, prevalence: float) -> float:
    """Share of malignant lesions among those flagged, by Bayes."""
    point = metadata.operating_point
    true = point.sensitivity.value * prevalence
    false = (1 - point.specificity.value) * (1 - prevalence)
    return true / (true + false) if true + false else 0.0


def _select_language() -> str:
    chosen = request.cookies.get(LANGUAGE_COOKIE, DEFAULT_LANGUAGE)
    return chosen if chosen in LANGUAGES else DEFAULT_LANGUAGE


def _local_path(target: str) -> str:
    """Only paths of ours: a link to us must not lead elsewhere."""
    parts = urlsplit(target)
    is_local = not parts.scheme and not parts.netloc and target.startswith("/") and not target.startswith(("//", "/\\"))
    return target if is_local else "/"


def _percent(value: float, digits: int = 0) -> str:
    return str(format_percent(value, format="#,##0" + ("." + "0" * digits if digits else "") + "%"))


def _decimal(value: float, digits: int = 2) -> str:
    return str(format_decimal(value, format="#,##0." + "0" * digits))
