"""The JSON API of the case record; it is there only when a database is set."""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from flask import Blueprint, Response, g, jsonify, request, url_for

from gateway import idempotency
from gateway.admission import Admission
from gateway.api import to_document, uploads_of_form
from gateway.audit.record import Action, Event
from gateway.audit.trail import Audit
from gateway.case_book import Asker, CaseBook
from gateway.cases.record import MAX_PAGE, CaseStore, Cursor, Finding, KeptCase, Selection
from gateway.classify import Classifier
from gateway.errors import BadIdempotencyKey, CaseNotFound, InvalidCaseRequest, NotPermitted
from gateway.identity import current, requires
from gateway.keeping import CaseKeeper

_PAGE: Final = 20
_EXPORT_PAGE: Final = 500
_COLUMNS: Final = (
    *("id", "kept_at", "kept_by", "picture_sha256", "label", "reason", "malignant", "none_score", "model_version"),
    *("found_at", "found_by", "agrees", "histology"),
)
_FORMULA: Final = re.compile(r"[=+\-@\t\r\n|%]")
"""What makes a spreadsheet read a cell as a formula (OWASP, CSV injection)."""

_NUMBER: Final = re.compile(r"[0-9]{1,9}")
_ID: Final = re.compile(r"[0-9a-f]{32}")


def blueprint(store: CaseStore, classifier: Classifier, admission: Admission, audit: Audit) -> Blueprint:
    """Routes under /api/v1/cases."""
    cases = Blueprint("cases", __name__, url_prefix="/api/v1")
    keeper = CaseKeeper(store, audit)
    cases.before_request(_take_no_keys)
    cases.before_request(_find_only_ids)
    cases.after_request(_never_store)

    book = CaseBook(store, audit)

    def record(action: Action, *ids: str) -> None:
        audit.write(Event(current().name, action, g.request_id, "done", cases=ids))

    @cases.post("/cases")
    @requires("write_cases")
    def keep() -> tuple[Response, int, dict[str, str]]:
        """Classify the picture in the field `file` and keep the outcome: what is kept is what is answered, and nothing else."""
        if "classify" not in current().permissions:
            raise NotPermitted(f"{current().name} may not classify")
        with admission.place():
            (upload,) = uploads_of_form(1)
            data = upload.read()
            classification = classifier.classify(data, g.request_id, current().name)
        case = keeper.keep(data, classification, current().name)
        document = {"case": _case_document(case), "classification": to_document(classification)}
        return jsonify(document), 201, {"Location": url_for("cases.read", id=case.id)}

    @cases.get("/cases")
    @requires("read_cases")
    def browse() -> Response:
        """A page of cases, the newest first."""
        limit = _limit(request.args.get("limit"))
        after = Cursor.parse(request.args["cursor"]) if "cursor" in request.args else None
        page = book.browse(_asker(), _selection(), limit, after)
        following = None if page.following is None else str(page.following)
        return jsonify(cases=[_case_document(case) for case in page.cases], next=following)

    @cases.get("/cases/<id>")
    @requires("read_cases")
    def read(id: str) -> Response:  # noqa: A002
        """One case with its findings."""
        return jsonify(_case_document(book.read(_asker(), id)))

    @cases.post("/cases/<id>/findings")
    @requires("write_cases")
    def find_out(id: str) -> tuple[Response, int]:  # noqa: A002
        """Add a finding: `agrees`, and `histology` once there is one."""
        finding = _read_finding()
        book.add_finding(_asker(), id, finding)
        return jsonify(_finding_document(finding)), 201

    @cases.delete("/cases/<id>")
    @requires("erase_cases")
    def erase(id: str) -> tuple[str, int]:  # noqa: A002
        """For a person who wants it (docs/cases.md)."""
        store.erase(id, lambda: record("erase_case", id))
        return "", 204

    @cases.get("/cases.csv")
    @requires("export_cases")
    def export() -> Response:
        """Everything, a line a finding; a case without one has a line as well."""
        selection = _selection()
        first = store.page(selection, _EXPORT_PAGE)
        # Before the first line leaves. Which cases is no list: those that were there at this record's time.
        record("export_cases")
        response = Response(_csv_lines(store, selection, first), content_type="text/csv; charset=utf-8")
        response.headers["Content-Disposition"] = "attachment; filename=cases.csv"
        return response

    return cases


def _take_no_keys() -> None:
    """A key would promise that nothing is done twice; the answer that it needs kept would outlive an erased case."""
    if request.method == "POST" and idempotency.HEADER in request.headers:
        raise BadIdempotencyKey("requests about cases take no Idempotency-Key: their answers are not kept")


def _find_only_ids() -> None:
    """What is no id is not there, and the database need not be asked: PostgreSQL takes not every text."""
    id_ = (request.view_args or {}).get("id")
    if id_ is not None and not _ID.fullmatch(id_):
        raise CaseNotFound("there is no case with this id")


def _never_store(response: Response) -> Response:
    response.cache_control.no_store = True
    return response


def _asker() -> Asker:
    return Asker(current().name, g.request_id)


def _limit(given: str | None) -> int:
    if given is None:
        return _PAGE
    if not _NUMBER.fullmatch(given) or not 1 <= int(given) <= MAX_PAGE:
        raise InvalidCaseRequest(f"limit is not a number from 1 to {MAX_PAGE}")
    return int(given)


def _selection() -> Selection:
    asked = request.args
    return Selection.read(asked.get("label"), asked.get("model_version"), asked.get("picture_sha256"))


def _read_finding() -> Finding:
    """Exactly two fields, of closed sets: anything else could be about a patient, and would be kept."""
    try:
        document = request.get_json(silent=True)
    except RecursionError:
        document = None
    if not isinstance(document, dict) or not document.keys() <= {"agrees", "histology"}:
        raise InvalidCaseRequest("a finding is a JSON object with agrees and histology, and nothing else")
    return Finding.read(current().name, document.get("agrees"), document.get("histology"))


def _case_document(case: KeptCase) -> dict[str, object]:
    return {
        "id": case.id,
        "kept_at": case.kept_at.isoformat(),
        "kept_by": case.kept_by,
        "picture_sha256": case.picture_sha256,
        "label": case.label,
        "reason": case.reason,
        "malignant": case.malignant,
        "none_score": case.none_score,
        "model_version": case.model_version,
        "findings": [_finding_document(finding) for finding in case.findings],
    }


def _finding_document(finding: Finding) -> dict[str, object]:
    return {
        "found_at": finding.found_at.isoformat(),
        "found_by": finding.found_by,
        "agrees": finding.agrees,
        "histology": finding.histology,
    }


def _csv_lines(store: CaseStore, selection: Selection, page: list[KeptCase]) -> Iterator[str]:
    yield _csv_line(_COLUMNS)
    while page:
        for case in page:
            document = _case_document(case)
            for finding in case.findings or (None,):
                cells = document | (_finding_document(finding) if finding else {})
                yield _csv_line([cells.get(column) for column in _COLUMNS])
        page = store.page(selection, _EXPORT_PAGE, Cursor(page[-1].kept_at, page[-1].id))


def _csv_line(cells: Iterable[Any]) -> str:
    """Texts that a spreadsheet would calculate get an apostrophe before them; numbers stay numbers."""
    line = io.StringIO()
    csv.writer(line).writerow(f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) else cell for cell in cells)
    return line.getvalue()
