"""Sending pictures from the page: one result, or one for each picture, with what was ticked beside it."""

import base64
import datetime
import importlib
import io
from dataclasses import dataclass
from typing import Any, Final

from flask import Blueprint, Response, g, render_template, request
from flask_babel import get_locale
from werkzeug.datastructures import FileStorage

from gateway import auditing, charges, logs, prevalence
from gateway.admission import Admission
from gateway.api import uploads_of_form
from gateway.cases.record import KeptCase
from gateway.classify import MAX_PICTURES, ORIENTATIONS, Classification, Classifier, Extras
from gateway.errors import CaseError, NoConsent, PictureError
from gateway.identity import current, requires
from gateway.keeping import CaseKeeper
from gateway.portal import render_page

MAX_TURNED: Final = MAX_PICTURES // ORIENTATIONS
"""Pictures whose steadiness is looked at in one call; all their orientations together are as many as a batch may have."""

_PDF_WITH_PICTURES: Final = "pdf_picture"


@dataclass(frozen=True)
class Answer:
    """What is shown of one picture.

    Attributes:
        place: among those that were sent, from 1 on.
        classification: None when it could not be classified.
        slug: of the problem why not, otherwise empty.
        case: what was kept of it.
        has_keeping_failed: it was to be kept and is not.
    """

    place: int
    classification: Classification | None = None
    slug: str = ""
    case: KeptCase | None = None
    has_keeping_failed: bool = False


def blueprint(classifier: Classifier, admission: Admission, keeper: CaseKeeper | None) -> Blueprint:
    """The route that the form of /check is sent to.

    Args:
        classifier: the use case.
        admission: how many pictures are present.
        keeper: of the case record, where there is one.
    """
    check = Blueprint("check", __name__)

    def may_keep() -> bool:
        return keeper is not None and "write_cases" in current().permissions

    @check.app_context_processor
    def tell_every_template() -> dict[str, Any]:
        return {"max_pictures": MAX_PICTURES, "max_turned": MAX_TURNED, "may_keep": may_keep(), "prevalence": prevalence}

    @check.app_template_filter("data_uri")
    def to_data_uri(data: bytes, media_type: str) -> str:
        return f"data:{media_type};base64,{base64.b64encode(data).decode()}"

    @check.post("/check")
    @requires("classify")
    def classify() -> Response:
        """The results: a page, or the fragment of it that the script asks for."""
        # Before the first look at the form, which reads the upload.
        with admission.place():
            uploads = _read_form()
            charges.charge(len(uploads) - 1)
            # How many there are is not known before the form is read; from here on they count.
            with admission.place(admission.counted(len(uploads)) - 1):
                answers = _classify(classifier, uploads)
                if "keep" in request.form and may_keep():
                    answers = [_keep(keeper, answer, upload) for answer, upload in zip(answers, uploads, strict=True)]
        context: dict[str, Any] = {"asked": request.form, "now": datetime.datetime.now(datetime.UTC)}
        context |= {"answers": answers} if len(answers) > 1 else {"answer": answers[0]}
        if classified := [answer.classification for answer in answers if answer.classification]:
            # The page's footer says which version has answered.
            context["classification"] = classified[0]
        if request.form.keys() & {"pdf", _PDF_WITH_PICTURES}:
            context["pdf"] = _render_pdf(context)
        return render_page("results" if len(answers) > 1 else "result", 200, **context)

    return check


def _read_form() -> list[FileStorage]:
    """Its pictures.

    Raises:
        NoConsent: without it nothing of them is looked at.
        NoPicture: there is none.
        TooManyPictures: there are more than one call takes.
    """
    if not request.form.get("consent"):
        raise NoConsent("the form was sent without consent")
    return uploads_of_form(MAX_PICTURES)


def _classify(classifier: Classifier, uploads: list[FileStorage]) -> list[Answer]:
    """One picture that cannot be used is the request's problem; one of several is only its own.

    Raises:
        GatewayError: there is no answer to any of them.
    """
    extras = Extras(
        overlay="map" in request.form,
        thumbnail=len(uploads) > 1 or _PDF_WITH_PICTURES in request.form,
        steadiness="steadiness" in request.form and len(uploads) <= MAX_TURNED,
    )
    if len(uploads) == 1:
        return [Answer(1, classifier.classify(uploads[0].read(), g.request_id, current().name, extras))]
    files = (upload.read() for upload in uploads)
    results = classifier.classify_batch(files, len(uploads), g.request_id, current().name, extras)
    return [_answer(place, result, upload) for place, (result, upload) in enumerate(zip(results, uploads, strict=True), 1)]


def _answer(place: int, result: Classification | PictureError, upload: FileStorage) -> Answer:
    if isinstance(result, Classification):
        return Answer(place, result)
    return Answer(place, slug=auditing.describe_unusable(result, f"{g.request_id}-{place}", upload).slug)


def _keep(keeper: CaseKeeper | None, answer: Answer, upload: FileStorage) -> Answer:
    """The answer is given all the same when the record cannot be reached: it is there, and says what became of the case."""
    if keeper is None or answer.classification is None:
        return answer
    upload.stream.seek(0, io.SEEK_SET)
    try:
        case = keeper.keep(upload.read(), answer.classification, current().name)
    except CaseError:
        return Answer(answer.place, answer.classification, has_keeping_failed=True)
    return Answer(answer.place, answer.classification, case=case)


def _render_pdf(context: dict[str, Any]) -> bytes:
    """What the page says, to take along: of this answer, for nothing is kept that another request could make it of."""
    # ReportLab takes 11 MB of a worker: it is loaded with the first PDF that somebody asks for.
    result_pdf = importlib.import_module("gateway.result_pdf")
    case_code = logs.case_code(g.request_id)
    paper = "pictures" if _PDF_WITH_PICTURES in request.form else "words"
    html = render_template("result_pdf.html", paper=paper, case_code=case_code, **context)
    pdf: bytes = result_pdf.render(html, str(get_locale()))
    return pdf
