"""The pages of the case record: a list, a case, and a form for what was found; there only when a database is set."""

from typing import Any, Final

from flask import Blueprint, Response, g, make_response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from gateway.case_book import Asker, CaseBook
from gateway.cases.record import HISTOLOGIES, LABELS, Cursor, Finding, Selection
from gateway.errors import InvalidCaseRequest
from gateway.identity import current, requires

_PAGE: Final = 20
_AGREES: Final = {"yes": True, "no": False}
_FILTERS: Final = ("label", "model_version", "picture_sha256")


def blueprint(book: CaseBook) -> Blueprint:
    """Routes /cases, /cases/<id> and /cases/<id>/findings."""
    pages = Blueprint("case_pages", __name__)
    pages.after_request(_never_store)

    @pages.app_context_processor
    def tell_every_template() -> dict[str, Any]:
        return {
            "may_read_cases": "read_cases" in current().permissions,
            "may_export_cases": "export_cases" in current().permissions,
            "may_write_cases": "write_cases" in current().permissions,
        }

    @pages.get("/cases")
    @requires("read_cases")
    def browse() -> Response:
        """The newest first, as the filter wants."""
        # A form sends what was left empty, too.
        asked = {name: request.args[name].strip() for name in _FILTERS if request.args.get(name, "").strip()}
        after = Cursor.parse(request.args["cursor"]) if "cursor" in request.args else None
        try:
            selection = Selection.read(*(asked.get(name) for name in _FILTERS))
        except InvalidCaseRequest:
            return _page("cases", 422, asked=asked, labels=LABELS, found=None)
        return _page(
            "cases", 200, asked=asked, labels=LABELS, found=book.browse(_asker(), selection, _PAGE, after), after=after
        )

    @pages.get("/cases/<id>")
    @requires("read_cases")
    def read(id: str) -> Response:  # noqa: A002
        """One case with its findings."""
        return _page("case", 200, case=book.read(_asker(), id), histologies=HISTOLOGIES)

    @pages.get("/cases/<id>/findings")
    @requires("read_cases")
    def look_again(id: str) -> BaseResponse:  # noqa: A002
        """Where the choice of a language leads to from the answer to the form."""
        return redirect(url_for("case_pages.read", id=id), 303)

    @pages.post("/cases/<id>/findings")
    @requires("write_cases")
    def find_out(id: str) -> BaseResponse:  # noqa: A002
        """Add a finding, then show the case: loading that page again adds nothing."""
        agrees = _AGREES.get(request.form.get("agrees", ""))
        histology = request.form.get("histology") or None
        if agrees is None and "read_cases" in current().permissions:
            case = book.read(_asker(), id)
            return _page("case", 422, case=case, histologies=HISTOLOGIES, is_incomplete=True, given=histology)
        book.add_finding(_asker(), id, Finding.read(current().name, agrees, histology))
        return redirect(url_for("case_pages.read", id=id, added="yes"), 303)

    return pages


def _asker() -> Asker:
    return Asker(current().name, g.request_id)


def _page(name: str, status: int, **context: Any) -> Response:
    return make_response(render_template(f"{name}.html", **context), status)


def _never_store(response: Response) -> Response:
    response.cache_control.no_store = True
    return response
