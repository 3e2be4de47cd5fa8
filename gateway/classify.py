"""The use case: bytes of an upload -> a classification. Knows no HTTP and no gRPC."""

import threading
from dataclasses import dataclass
from typing import Final

from gateway import deadline, images, metrics
from gateway.admission import Admission
from gateway.decision import Label, Reason, decide
from gateway.errors import GatewayOverloaded
from gateway.predictor import Prediction, Predictor
from serving.metadata import ModelMetadata

MAX_DECODING: Final = 2
"""Pictures that one process decodes at a time: more would only share the processors, and each holds up to 450 MB meanwhile."""


@dataclass(frozen=True)
class Classification:
    """The answer for one picture, with all that is needed to read it.

    Attributes:
        id: of the request.
        label: benign, malignant or none.
        reason: why the label is none, otherwise None.
        malignant: calibrated probability.
        none_score: higher = further from lesions.
        warnings: what makes it less sure.
        metadata: of the version that answered, thresholds included.
    """

    id: str
    label: Label
    reason: Reason | None
    malignant: float
    none_score: float
    warnings: tuple[images.Warning, ...]
    metadata: ModelMetadata


class Classifier:
    """Classifies pictures with one model server."""

    def __init__(self, predictor: Predictor, admission: Admission, max_picture_pixels: int, budget_s: float) -> None:
        """One for each process.

        Args:
            predictor: the model server.
            admission: how many are worked on at a time.
            max_picture_pixels: width times height.
            budget_s: for one picture, from the last byte of its upload on, waiting included.
        """
        self._predictor = predictor
        self._admission = admission
        self._max_picture_pixels = max_picture_pixels
        self._budget_s = budget_s
        self._decoding = threading.BoundedSemaphore(MAX_DECODING)

    def classify(self, data: bytes, request_id: str) -> Classification:
        """Wait for one's turn, decode, predict, decide.

        Raises:
            GatewayOverloaded: the turn did not come in time.
            PictureError: the upload is no picture we can use.
            PredictionError: the model server gave no answer that may be shown.
        """
        with deadline.within(self._budget_s), self._admission.work():
            return self._classify(data, request_id)

    def _classify(self, data: bytes, request_id: str) -> Classification:
        with metrics.stage("decode"):
            picture = self._decode(data)
        with metrics.stage("preprocess"):
            image = images.model_input(picture)
        with metrics.stage("predict"):
            prediction = self._predictor.predict(image)
            metadata = self._predictor.metadata(prediction.model_version)
        with metrics.stage("decide"):
            label, reason = decide(prediction, metadata.thresholds)
        _measure(prediction, metadata, picture, label, reason)
        return Classification(
            id=request_id,
            label=label,
            reason=reason,
            malignant=prediction.malignant,
            none_score=prediction.none_score,
            warnings=picture.warnings,
            metadata=metadata,
        )

    def _decode(self, data: bytes) -> images.Picture:
        if not self._decoding.acquire(timeout=deadline.remaining_s(self._budget_s)):
            raise GatewayOverloaded("the time was over before the picture was decoded")
        try:
            return images.decode(data, self._max_picture_pixels)
        finally:
            self._decoding.release()


def _measure(
    prediction: Prediction, metadata: ModelMetadata, picture: images.Picture, label: Label, reason: Reason | None
) -> None:
    version = str(metadata.version)
    metrics.OUTCOMES.labels(label, reason or "", version).inc()
    metrics.MALIGNANT_PROBABILITY.labels(version).observe(prediction.malignant)
    metrics.NONE_SCORE.labels(version).observe(prediction.none_score)
    for warning in picture.warnings:
        metrics.QUALITY_WARNINGS.labels(warning).inc()
    if label == "none" and prediction.malignant >= metadata.thresholds.malignant:
        metrics.MALIGNANT_LOOKING_REJECTIONS.labels(version).inc()
