"""The JSON API: one picture, or several at once. docs/openapi.yaml says what it takes and gives."""

import json
from collections.abc import Callable, Sequence
from typing import Final

from flask import Blueprint, Response, g, request
from werkzeug.datastructures import FileStorage

from gateway import auditing, charges, fhir, idempotency, problems
from gateway.admission import Admission
from gateway.classify import MAX_PICTURES, Classification, Classifier, Extras
from gateway.errors import BadParameter, NoPicture, OverlayNotKept, PictureError, TooManyPictures
from gateway.idempotency import Answers
from gateway.identity import current, requires
from gateway.negotiation import FHIR, JSON, PROBLEM, choose, depends_on_accept, prefers

_PATHS: Final = ("/api/v1/classifications", "/api/v1/classifications:batch")
_MAP_PARAMETER: Final = "activation_map"
_MAP_UNIT: Final = (
    "Logit of malignant, before calibration: the mean of the 49 cells is the logit of the whole picture. Above 0 a cell speaks "
    "for malignant, below 0 against it. The first row is the top of the upright picture, and the cells cover all of it. It "
    "shows where the model looked, not where a lesion is malignant."
)


def blueprint(classifier: Classifier, admission: Admission, answers: Answers | None = None) -> Blueprint:
    """Routes under /api/v1 that classify.

    Args:
        classifier: the use case.
        admission: how many pictures are present.
        answers: of requests with an Idempotency-Key; None where none are kept.
    """
    api = Blueprint("api", __name__, url_prefix="/api/v1")
    api.after_request(depends_on_accept)

    @api.post("/classifications")
    @requires("classify")
    def classify() -> Response:
        """Classify the picture in the multipart field `file`."""
        media_type = choose(JSON, FHIR)
        shown = _map_parameter("grid", "overlay")
        if shown and media_type == FHIR:
            raise BadParameter(f"{_MAP_PARAMETER} is for {JSON} only")
        key = idempotency.read_key(request.headers.get(idempotency.HEADER), answers)
        if key and shown == "overlay":
            raise OverlayNotKept("send an overlay's request without Idempotency-Key: its answer holds the picture")

        # Before the first look at the form, which reads the upload.
        with admission.place():
            (upload,) = uploads_of_form(1)

            def work() -> str:
                classification = classifier.classify(
                    upload.read(), g.request_id, current().name, Extras(overlay=shown == "overlay")
                )
                return json.dumps(fhir.to_bundle(classification) if media_type == FHIR else to_document(classification, shown))

            return _answer(answers, key, (media_type, shown), [upload], work)

    @api.post("/classifications:batch")
    @requires("classify")
    def classify_batch() -> Response:
        """Classify the pictures in the multipart fields `file`; one that cannot be used does not spoil the others."""
        media_type = choose(JSON)
        shown = _map_parameter("grid")
        key = idempotency.read_key(request.headers.get(idempotency.HEADER), answers)
        with admission.place():
            uploads = uploads_of_form(MAX_PICTURES)
            charges.charge(len(uploads) - 1)

            def work() -> str:
                files = (upload.read() for upload in uploads)
                results = classifier.classify_batch(files, len(uploads), g.request_id, current().name)
                numbered = enumerate(zip(results, uploads, strict=True), 1)
                return json.dumps(
                    {"results": [_to_result(result, place, shown, upload) for place, (result, upload) in numbered]}
                )

            # How many there are is not known before the form is read; from here on they count.
            with admission.place(admission.counted(len(uploads)) - 1):
                return _answer(answers, key, (media_type, shown), uploads, work)

    return api


def to_document(classification: Classification, shown: str = "") -> dict[str, object]:
    """The API's answer; its keys are kept from version to version.

    Args:
        classification: of one picture.
        shown: of the activation map: nothing, `grid` or `overlay`.
    """
    metadata = classification.metadata
    document: dict[str, object] = {
        "id": classification.id,
        "label": classification.label,
        "reason": classification.reason,
        "probabilities": {"benign": 1.0 - classification.malignant, "malignant": classification.malignant},
        "none_score": classification.none_score,
        "thresholds": {"malignant": metadata.thresholds.malignant, "none": metadata.thresholds.none},
        "warnings": list(classification.warnings),
        "model": {"name": metadata.name, "version": metadata.version},
    }
    if shown and classification.activation_map is not None:
        shown_map = {"grid": classification.activation_map.tolist(), "unit": _MAP_UNIT}
        if shown == "overlay":
            shown_map["overlay"] = classification.overlay.to_document() if classification.overlay else None
        document[_MAP_PARAMETER] = shown_map
    return document


def render_problem(problem: problems.Problem) -> Response:
    """The problem for machines, in the form of the answer that it stands for."""
    if request.path in _PATHS and prefers(FHIR, JSON, PROBLEM):
        outcome = fhir.to_operation_outcome(problem, g.request_id)
        return Response(json.dumps(outcome) + "\n", problem.status, content_type=FHIR)
    return problems.to_response(problem)


def _map_parameter(*taken: str) -> str:
    """Empty when it is not there.

    Raises:
        BadParameter: it has another value, or comes more than once.
    """
    values = request.args.getlist(_MAP_PARAMETER)
    if not values:
        return ""
    if len(values) > 1 or values[0] not in taken:
        raise BadParameter(f"{_MAP_PARAMETER} takes {' or '.join(taken)}, once")
    return values[0]


def uploads_of_form(at_most: int) -> list[FileStorage]:
    """The form's fields `file`.

    Raises:
        NoPicture: there is none.
        TooManyPictures: there are more.
    """
    uploads = request.files.getlist("file")
    if not uploads:
        raise NoPicture("the form has no field `file` with a picture")
    if len(uploads) > at_most:
        raise TooManyPictures(f"the form has {len(uploads)} pictures, this address takes {at_most}")
    return uploads


def _answer(
    answers: Answers | None, key: str | None, form: tuple[str, str], uploads: Sequence[FileStorage], work: Callable[[], str]
) -> Response:
    """What the work gives, or what it gave when the request came first."""
    is_kept = False
    if key is None or answers is None:
        body = work()
    else:
        streams = (upload.stream for upload in uploads)
        body, is_kept = idempotency.once(answers, idempotency.claim(current().name, key, (request.path, *form), streams), work)
    response = Response(body + "\n", content_type=form[0])
    if is_kept:
        _record_replay(body, form[0], uploads)
        response.headers[idempotency.REPLAYED_HEADER] = "true"
    response.cache_control.no_store = True
    return response


def _record_replay(body: str, media_type: str, uploads: Sequence[FileStorage]) -> None:
    """An outcome is shown once more: of each picture, under which id it was first answered; its record there has the rest."""
    document = json.loads(body)
    if "results" not in document:
        first_id = fhir.read_id(document) if media_type == FHIR else document["id"]
        auditing.write_replay(g.request_id, first_id, uploads[0])
        return
    for place, (result, upload) in enumerate(zip(document["results"], uploads, strict=True), 1):
        first_id = result["id"] if "id" in result else result["instance"].removeprefix(problems.INSTANCES)
        auditing.write_replay(f"{g.request_id}-{place}", first_id, upload)


def _to_result(result: Classification | PictureError, place: int, shown: str, upload: FileStorage) -> dict[str, object]:
    if isinstance(result, Classification):
        return to_document(result, shown)
    picture_id = f"{g.request_id}-{place}"
    problem = auditing.describe_unusable(result, picture_id, upload)
    return {**problems.to_document(problem, picture_id)}
