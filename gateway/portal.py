"""The pages. Their wording, every outcome's and every problem's, is in web/templates; here is what they are told."""

import datetime
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from flask import Blueprint, Flask, Response, current_app, g, make_response, redirect, render_template, request, url_for
from flask_babel import Babel, format_date, format_percent, get_locale

from gateway import logs
from gateway.browser_security import own_path
from gateway.errors import PredictionError
from gateway.identity import public, requires
from gateway.images import MAX_UNREDUCED_PIXELS, MIN_EDGE
from gateway.predictor import Predictor
from gateway.problems import Problem
from gateway.settings import Settings

if TYPE_CHECKING:
    from serving.metadata import ModelMetadata

TRANSLATIONS: Final = Path(__file__).parent.parent / "web" / "translations"
LANGUAGES: Final = {"id": "Bahasa Indonesia", "en": "English"}
"""Of the portal, the first one being the default; each is called what its speakers call it."""

LANGUAGE_COOKIE: Final = "language"
_COOKIE_AGE: Final = datetime.timedelta(days=365)

FRAGMENT_HEADER: Final = "X-Fragment"
"""On a request: the script wants the part of the page that it puts in place. On a response: this is that part."""

_LIVE_MODEL_AGE_S: Final = 30.0
_LIVE_MODEL_TIMEOUT_S: Final = 0.5
"""Nobody waits longer for a footer."""

_MODEL_PAGE_TIMEOUT_S: Final = 2.0
"""The objective of an answer. Pages share few threads with the probes (gunicorn.conf.py): none may be held for long."""

_PERCENT: Final = "#,##0.0%"
_PROBABILITY_EDGE: Final = 0.001


class LiveModel:
    """The version that answers now, as far as the pages' footers know: it may be half a minute behind, a result never is.

    A page that needs no model must not wait for the model server each time, nor fail with it.

    """

    def __init__(self, predictor: Predictor) -> None:
        self._metadata: ModelMetadata | None = None
        self._predictor = predictor
        self._asked_s = float("-inf")
        self._asking = threading.Lock()

    @property
    def metadata(self) -> "ModelMetadata | None":
        """None when the model server gave none. One thread asks again when it is time, the others go on with what is known."""
        if time.monotonic() - self._asked_s >= _LIVE_MODEL_AGE_S and self._asking.acquire(blocking=False):
            self._ask()
        return self._metadata

    def _ask(self) -> None:
        try:
            self._metadata = self._predictor.live_metadata(_LIVE_MODEL_TIMEOUT_S)
        except PredictionError:
            self._metadata = None
        finally:
            self._asked_s = time.monotonic()
            self._asking.release()


def init_app(app: Flask) -> None:
    """Prepare the application for pages in two languages."""
    Babel(
        app,
        default_locale=next(iter(LANGUAGES)),
        default_translation_directories=str(TRANSLATIONS),
        locale_selector=_select_language,
    )
    app.jinja_env.trim_blocks = True
    app.jinja_env.lstrip_blocks = True
    app.jinja_env.filters |= {"percent": _percent, "probability": _probability, "day": _day}


def blueprint(predictor: Predictor, settings: Settings) -> Blueprint:
    """Routes /, /check, /model, /services, /privacy, /help and /language."""
    portal = Blueprint("portal", __name__)
    live = LiveModel(predictor)

    @portal.app_context_processor
    def tell_every_template() -> dict[str, Any]:
        return {
            "language": _language(),
            "languages": LANGUAGES,
            "live": live,
            "max_bytes": settings.max_upload_bytes,
            "max_pixels": settings.max_picture_pixels,
            "max_unreduced_pixels": min(settings.max_picture_pixels, MAX_UNREDUCED_PIXELS),
            "min_edge": MIN_EDGE,
            # What the page on privacy has to say depends on what is turned on.
            "keeps_audit": bool(settings.audit_file),
            "keeps_cases": bool(settings.cases_database),
            "keeps_answers": bool(settings.redis_url),
            "counts_requests": settings.asks_who or bool(settings.rate_limit),
        }

    portal.after_request(_depend_on_the_cookie)

    @portal.get("/")
    @public
    def home() -> str:
        """What it is for, whom it is for, what it is not."""
        return render_template("home.html")

    @portal.get("/check")
    @requires("classify")
    def check() -> str:
        """The form, for a browser with or without scripts."""
        return render_template("check.html")

    @portal.get("/model")
    @public
    def model() -> str:
        """Everything that is known of the version that answers now."""
        return render_template("model.html", metadata=predictor.live_metadata(_MODEL_PAGE_TIMEOUT_S))

    _add_texts(portal)
    portal.add_url_rule("/language", "language", _choose_language, methods=["POST"])
    return portal


def _add_texts(portal: Blueprint) -> None:
    """The pages that are there to be read."""

    @portal.get("/services")
    @public
    def services() -> str:
        """What it does and does not, how often it is right, and where it ends."""
        return render_template("services.html")

    @portal.get("/privacy")
    @public
    def privacy() -> str:
        """What is kept and what is not."""
        return render_template("privacy.html")

    @portal.get("/help")
    @public
    def guide() -> str:
        """A good picture, what each answer means, and what to do then."""
        return render_template("help.html")


def render_problem(problem: Problem) -> Response:
    """The problem for people: what is wrong and what to do, by its slug; never the exception's text."""
    return render_page("problem", problem.status, slug=problem.slug)


def render_page(name: str, status: int, **context: Any) -> Response:
    """The template `name`, or for the script only its part `_name`; with the case code, never to be stored."""
    is_fragment = FRAGMENT_HEADER in request.headers
    # In a dialog the page's own heading is the first.
    context |= {"level": 2 if is_fragment else 1, "case_code": logs.case_code(g.request_id)}
    response = make_response(render_template(f"_{name}.html" if is_fragment else f"{name}.html", **context), status)
    if is_fragment:
        response.headers[FRAGMENT_HEADER] = "1"
    response.cache_control.no_store = True
    response.vary.add("Cookie")
    return response


@public
def _choose_language() -> Response:
    """Remember the language and go back to the page it was chosen on."""
    response = make_response(redirect(own_path(request.form.get("next", ""), url_for("portal.home")), 303))
    chosen = request.form.get("language")
    if chosen in LANGUAGES:
        response.set_cookie(
            LANGUAGE_COOKIE, chosen, max_age=_COOKIE_AGE, secure=current_app.config["IS_HTTPS"], httponly=True, samesite="Lax"
        )
    return response


def _depend_on_the_cookie(response: Response) -> Response:
    """The language is in the cookie: a cache must not give one visitor's page to another."""
    response.vary.add("Cookie")
    if not response.cache_control.no_store:
        response.cache_control.no_cache = True
    return response


def _select_language() -> str:
    chosen = request.cookies.get(LANGUAGE_COOKIE, "")
    return chosen if chosen in LANGUAGES else next(iter(LANGUAGES))


def _language() -> str:
    return str(get_locale())


def _percent(share: float) -> str:
    return str(format_percent(share, _PERCENT))


def _day(moment: str) -> str:
    """Of a time as a version's metadata hold it."""
    return str(format_date(datetime.date.fromisoformat(moment[:10])))


def _probability(probability: float) -> str:
    """A probability for people; what is nearly nothing or all is never shown as a certainty."""
    if probability < _PROBABILITY_EDGE:
        return f"< {_percent(_PROBABILITY_EDGE)}"
    if probability > 1 - _PROBABILITY_EDGE:
        return f"> {_percent(1 - _PROBABILITY_EDGE)}"
    return _percent(probability)
