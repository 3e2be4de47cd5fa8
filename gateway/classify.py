"""The use case: bytes of an upload -> a classification. Knows no HTTP and no gRPC."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from gateway import deadline, drift, images, metrics
from gateway.activation_map import Overlay, draw, reduce
from gateway.admission import Admission
from gateway.audit.record import Event, digest
from gateway.audit.trail import NO_AUDIT, Audit
from gateway.decision import Label, Reason, decide
from gateway.errors import GatewayOverloaded, PictureError
from gateway.predictor import Prediction, Predictor
from serving.metadata import ModelMetadata

MAX_PICTURES: Final = 16
"""Of a batch: half of the largest that the model server computes at once, so that two of them share it."""

ORIENTATIONS: Final = 4
"""In which a picture is shown to the model to see how steady its answer is: as it is, and turned by each quarter."""

MAX_DECODING: Final = 2
"""Pictures that one process decodes at a time: more would only share the processors, and each holds up to 450 MB meanwhile."""


@dataclass(frozen=True)
class Extras:
    """What is asked for beside the class.

    Attributes:
        overlay: the activation map over the picture.
        thumbnail: the picture in small.
        steadiness: what other orientations of the picture get.
    """

    overlay: bool = False
    thumbnail: bool = False
    steadiness: bool = False

    @property
    def orientations(self) -> int:
        """Of each picture that the model is shown."""
        return ORIENTATIONS if self.steadiness else 1


NO_EXTRAS: Final = Extras()


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
        thumbnail: JPEG of the picture in small, when it was asked for.
        orientations: outcome of each orientation, the picture's own first; they have no say in the label. Empty when they were
            not asked for, or not all were answered by one version.
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
    thumbnail: bytes | None = field(default=None, compare=False, repr=False)
    orientations: tuple[Label | Reason, ...] = ()

    @property
    def outcome(self) -> Label | Reason:
        """The label, or why there is none."""
        return self.reason or self.label


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

    def classify(self, data: bytes, request_id: str, who: str, extras: Extras = NO_EXTRAS) -> Classification:
        """Wait for one's turn, decode, predict, decide, record; add the extras.

        Raises:
            GatewayOverloaded: the turn did not come in time.
            PictureError: the upload is no picture we can use.
            PredictionError: the model server gave no answer that may be shown.
            AuditUnavailable: it could not be recorded.
        """
        with deadline.within(self._budget_s), self._admission.work(self._admission.counted(extras.orientations)):
            classification = self._classify(data, request_id, self._predictor, extras)
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
            return self._classify(data, "rehearsal", predictor, NO_EXTRAS)

    def classify_batch(
        self, uploads: Iterator[bytes], count: int, request_id: str, who: str, extras: Extras = NO_EXTRAS
    ) -> list[Classification | PictureError]:
        """Wait for the turn of all, decode one after the other, predict in one call, decide and record each.

        Args:
            uploads: the files; of each no more is kept than the model's input, and what the extras need.
            count: of files.
            request_id: theirs are this one with their place behind it, the first one being 1.
            who: asks.
            extras: for each of them.

        Returns:
            For each file, in their order, its classification, or why it has none; the latter are not recorded here.

        Raises:
            GatewayOverloaded: the turn did not come in time, or the time was over before all were decoded.
            PredictionError: the model server gave no answer that may be shown.
            AuditUnavailable: one of them could not be recorded.
        """
        turns = self._admission.counted(count * extras.orientations)
        with deadline.within(self._budget_s), self._admission.work(turns):
            read: list[_Read | PictureError] = []
            digests: list[str] = []
            for data in uploads:
                read.append(self._read_if_usable(data, extras))
                digests.append(digest(data))
            usable = [entry for entry in read if isinstance(entry, _Read)]
            if not usable:
                return [entry for entry in read if isinstance(entry, PictureError)]
            images_of_all = np.stack([turned for entry in usable for turned in _turn(entry.image, extras)])
            with metrics.stage("predict"):
                given = _look_up(self._predictor, self._predictor.predict_batch(images_of_all))
            answers = iter(_group(given, extras))
            results: list[Classification | PictureError] = [
                self._conclude(f"{request_id}-{place}", next(answers), entry) if isinstance(entry, _Read) else entry
                for place, entry in enumerate(read, 1)
            ]
        for sha256, result in zip(digests, results, strict=True):
            if isinstance(result, Classification):
                self._settle(sha256, who, result)
        return results

    def _read_if_usable(self, data: bytes, extras: Extras) -> "_Read | PictureError":
        try:
            return self._read(data, extras)
        except PictureError as error:
            return error

    def _read(self, data: bytes, extras: Extras) -> "_Read":
        with metrics.stage("decode"):
            picture = self._decode(data)
        with metrics.stage("preprocess"):
            return _Read(
                image=images.model_input(picture),
                warnings=picture.warnings,
                background=reduce(picture.rgb) if extras.overlay else None,
                thumbnail=images.thumbnail(picture) if extras.thumbnail else None,
            )

    def _classify(self, data: bytes, request_id: str, predictor: Predictor, extras: Extras) -> Classification:
        read = self._read(data, extras)
        with metrics.stage("predict"):
            if extras.steadiness:
                given = _look_up(predictor, predictor.predict_batch(np.stack(_turn(read.image, extras))))
            else:
                given = _look_up(predictor, [predictor.predict(read.image)])
        return self._conclude(request_id, given, read)

    def _conclude(self, classification_id: str, given: "_Given", read: "_Read") -> Classification:
        """From what each orientation got, the picture's own first: that one alone decides."""
        prediction, metadata = given[0]
        with metrics.stage("decide"):
            decided = [decide(other, its_metadata.thresholds) for other, its_metadata in given]
        label, reason = decided[0]
        # Two versions may differ on a picture that each of them is sure of.
        is_comparable = len(given) > 1 and len({other.model_version for other, _ in given}) == 1
        self._versions.announce(metadata)
        return Classification(
            id=classification_id,
            label=label,
            reason=reason,
            malignant=prediction.malignant,
            none_score=prediction.none_score,
            warnings=read.warnings,
            metadata=metadata,
            activation_map=prediction.activation_map,
            overlay=draw(read.background, prediction.activation_map) if read.background else None,
            thumbnail=read.thumbnail,
            orientations=tuple(its_reason or its_label for its_label, its_reason in decided) if is_comparable else (),
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
    """What is kept of a picture until the model has answered.

    Attributes:
        image: the model's input.
        warnings: what makes its classification less sure.
        background: of the activation map, when it is going to be drawn.
        thumbnail: as in `Classification`.
    """

    image: npt.NDArray[np.uint8]
    warnings: tuple[images.Warning, ...]
    background: Image.Image | None
    thumbnail: bytes | None


_Given = list[tuple[Prediction, ModelMetadata]]
"""Predictions, each with the metadata of its version."""


def _turn(image: npt.NDArray[np.uint8], extras: Extras) -> list[npt.NDArray[np.uint8]]:
    """The orientations that the model is shown: exact, for the model's input is a square of the whole picture."""
    return [np.rot90(image, quarter) for quarter in range(extras.orientations)]


def _group(given: _Given, extras: Extras) -> list[_Given]:
    """Those of one picture together."""
    return [given[start : start + extras.orientations] for start in range(0, len(given), extras.orientations)]


def _look_up(predictor: Predictor, predictions: list[Prediction]) -> "_Given":
    """With the metadata of the version that gave each."""
    return [(prediction, predictor.metadata(prediction.model_version)) for prediction in predictions]


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
