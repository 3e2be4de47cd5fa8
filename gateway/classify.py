"""The use case: bytes of an upload -> a classification. Knows no HTTP and no gRPC."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from gateway import deadline, drift, images, metrics
from gateway.activation_map import Overlay, draw
from gateway.admission import Admission
from gateway.audit.record import Event, digest
from gateway.audit.trail import NO_AUDIT, Audit
from gateway.decision import Label, Reason, decide
from gateway.errors import GatewayOverloaded, PictureError
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
        activation_map: float32 [7, 7], see `gateway.predictor.Prediction`.
        overlay: the map over the picture, when it was asked for and there is something to draw.
    """

    id: str
    label: Label
    reason: Reason | None
    malignant: float
    none_score: float
    warnings: tuple[images.Warning, ...]
    metadata: ModelMetadata
    activation_map: npt.NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    overlay: Overlay | None = field(default=None, compare=False, repr=False)


class Classifier:
    """Classifies pictures with one model server."""

    def __init__(
        self, predictor: Predictor, admission: Admission, max_picture_pixels: int, budget_s: float, audit: Audit = NO_AUDIT
    ) -> None:
        """One for each process.

        Args:
            predictor: the model server.
            admission: how many are worked on at a time.
            max_picture_pixels: width times height.
            budget_s: for one picture, from the last byte of its upload on, waiting included.
            audit: takes a record of every picture before its answer is given.
        """
        self._predictor = predictor
        self._admission = admission
        self._max_picture_pixels = max_picture_pixels
        self._budget_s = budget_s
        self._audit = audit
        self._decoding = threading.BoundedSemaphore(MAX_DECODING)
        self._versions = drift.Versions()

    def classify(self, data: bytes, request_id: str, who: str, *, with_overlay: bool = False) -> Classification:
        """Wait for one's turn, decode, predict, decide, record; draw the activation map where it was asked for.

        Raises:
            GatewayOverloaded: the turn did not come in time.
            PictureError: the upload is no picture we can use.
            PredictionError: the model server gave no answer that may be shown.
            AuditUnavailable: it could not be recorded.
        """
        with deadline.within(self._budget_s), self._admission.work():
            classification = self._classify(data, request_id, self._predictor, with_overlay=with_overlay)
        self._settle(data, who, classification)
        return classification

    def rehearse(self, data: bytes, predictor: Predictor) -> Classification:
        """As `classify`, of a picture that nobody has sent: not counted among the outcomes, and only where there is room.

        Args:
            data: the file.
            predictor: of the version that is to answer; the classifier's own may choose by the picture.

        Raises:
            gateway.errors.GatewayError: as above.
        """
        with deadline.within(self._budget_s), self._admission.spare():
            return self._classify(data, "rehearsal", predictor)

    def classify_batch(
        self, uploads: Iterator[bytes], count: int, request_id: str, who: str
    ) -> list[Classification | PictureError]:
        """Wait for the turn of all, decode one after the other, predict in one call, decide and record each.

        Args:
            uploads: the files; of each no more is kept than the model's input.
            count: of files.
            request_id: theirs are this one with their place behind it, the first one being 1.
            who: asks.

        Returns:
            For each file, in their order, its classification, or why it has none; the latter are not recorded here.

        Raises:
            GatewayOverloaded: the turn did not come in time, or the time was over before all were decoded.
            PredictionError: the model server gave no answer that may be shown.
            AuditUnavailable: one of them could not be recorded.
        """
        with deadline.within(self._budget_s), self._admission.work(self._admission.counted(count)):
            read = [self._read(data) for data in uploads]
            usable = [entry for entry in read if isinstance(entry, _Read)]
            if not usable:
                return [entry for entry in read if isinstance(entry, PictureError)]
            with metrics.stage("predict"):
                predictions = self._predictor.predict_batch(np.stack([entry.image for entry in usable]))
                given = iter([(prediction, self._predictor.metadata(prediction.model_version)) for prediction in predictions])
            results: list[Classification | PictureError] = [
                self._conclude(f"{request_id}-{place}", *next(given), entry.warnings) if isinstance(entry, _Read) else entry
                for place, entry in enumerate(read, 1)
            ]
        for entry, result in zip(read, results, strict=True):
            if isinstance(entry, _Read) and isinstance(result, Classification):
                self._settle(entry.sha256, who, result)
        return results

    def _read(self, data: bytes) -> "_Read | PictureError":
        try:
            with metrics.stage("decode"):
                picture = self._decode(data)
        except PictureError as error:
            return error
        with metrics.stage("preprocess"):
            return _Read(images.model_input(picture), picture.warnings, digest(data))

    def _classify(self, data: bytes, request_id: str, predictor: Predictor, *, with_overlay: bool = False) -> Classification:
        with metrics.stage("decode"):
            picture = self._decode(data)
        with metrics.stage("preprocess"):
            image = images.model_input(picture)
        with metrics.stage("predict"):
            prediction = predictor.predict(image)
            metadata = predictor.metadata(prediction.model_version)
        overlay = draw(picture.rgb, prediction.activation_map) if with_overlay else None
        return self._conclude(request_id, prediction, metadata, picture.warnings, overlay)

    def _conclude(
        self,
        classification_id: str,
        prediction: Prediction,
        metadata: ModelMetadata,
        warnings: tuple[images.Warning, ...],
        overlay: Overlay | None = None,
    ) -> Classification:
        with metrics.stage("decide"):
            label, reason = decide(prediction, metadata.thresholds)
        self._versions.announce(metadata)
        return Classification(
            id=classification_id,
            label=label,
            reason=reason,
            malignant=prediction.malignant,
            none_score=prediction.none_score,
            warnings=warnings,
            metadata=metadata,
            activation_map=prediction.activation_map,
            overlay=overlay,
        )

    def _settle(self, picture: bytes | str, who: str, classification: Classification) -> None:
        """Record and count, once for every picture (its bytes or their digest), before anybody sees its answer."""
        self._audit.write(
            Event(
                who=who,
                action="classify",
                request_id=classification.id,
                outcome=classification.label,
                reason=classification.reason,
                picture=picture,
                model_version=classification.metadata.version,
            )
        )
        _measure(classification)

    def _decode(self, data: bytes) -> images.Picture:
        if not self._decoding.acquire(timeout=deadline.remaining_s(self._budget_s)):
            raise GatewayOverloaded("the time was over before the picture was decoded")
        try:
            return images.decode(data, self._max_picture_pixels)
        finally:
            self._decoding.release()


@dataclass(frozen=True)
class _Read:
    """What a batch keeps of a picture until the model has answered."""

    image: npt.NDArray[np.uint8]
    warnings: tuple[images.Warning, ...]
    sha256: str


def _measure(classification: Classification) -> None:
    metadata, label = classification.metadata, classification.label
    version = str(metadata.version)
    metrics.OUTCOMES.labels(label, classification.reason or "", version).inc()
    metrics.MALIGNANT_PROBABILITY.labels(version).observe(classification.malignant)
    metrics.NONE_SCORE.labels(version).observe(classification.none_score)
    for warning in classification.warnings:
        metrics.QUALITY_WARNINGS.labels(warning).inc()
    if label == "none" and classification.malignant >= metadata.thresholds.malignant:
        metrics.MALIGNANT_LOOKING_REJECTIONS.labels(version).inc()
