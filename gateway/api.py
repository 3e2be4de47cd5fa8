"""The JSON API."""

from flask import Blueprint, Response, g, jsonify, request

from gateway.admission import Admission
from gateway.classify import Classification, Classifier
from gateway.errors import NoPicture
from gateway.identity import requires


def blueprint(classifier: Classifier, admission: Admission) -> Blueprint:
    """Routes under /api/v1."""
    api = Blueprint("api", __name__, url_prefix="/api/v1")

    @api.post("/classifications")
    @requires("classify")
    def classify() -> Response:
        """Classify the picture in the multipart field `file`."""
        # Before the first look at the form, which reads the upload.
        with admission.place():
            upload = request.files.get("file")
            if upload is None:
                raise NoPicture("the form has no field `file` with a picture")
            response = jsonify(to_document(classifier.classify(upload.read(), g.request_id)))
        response.cache_control.no_store = True
        return response

    return api


def to_document(classification: Classification) -> dict[str, object]:
    """The API's answer; its keys are kept from version to version."""
    metadata = classification.metadata
    return {
        "id": classification.id,
        "label": classification.label,
        "reason": classification.reason,
        "probabilities": {"benign": 1.0 - classification.malignant, "malignant": classification.malignant},
        "none_score": classification.none_score,
        "thresholds": {"malignant": metadata.thresholds.malignant, "none": metadata.thresholds.none},
        "warnings": list(classification.warnings),
        "model": {"name": metadata.name, "version": metadata.version},
    }
