"""Two versions behind one predictor: a share of the pictures is answered by the canary, another is only shown to it."""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import numpy.typing as npt
import structlog

from gateway import metrics
from gateway.decision import decide
from gateway.errors import PredictionError
from gateway.predictor import Prediction, Predictor
from serving.metadata import ModelMetadata

MAX_SHADOWED: Final = 4
"""Pictures of one process that wait for the canary's opinion; a slow canary must not fill the memory or the model server."""


_log = structlog.get_logger()


class CanaryPredictor:
    """Sends each picture to the version that its pixels choose: the same picture always gets the same one."""

    def __init__(self, stable: Predictor, canary: Predictor, canary_share: float, shadow_share: float) -> None:
        """Make one in each process, after it was forked.

        Args:
            stable: answers every picture that the canary does not.
            canary: the version under trial.
            canary_share: of pictures that the canary answers.
            shadow_share: of the others that it is shown as well, without a say in the answer.
        """
        self._stable = stable
        self._canary = canary
        self._canary_share = canary_share
        metrics.CANARY_SHARE.set(canary_share)
        self._shadow_share = shadow_share
        self._shadows = ThreadPoolExecutor(1, thread_name_prefix="shadow")
        self._of_canary: dict[int, ModelMetadata] = {}
        self._free = threading.BoundedSemaphore(MAX_SHADOWED)

    def close(self) -> None:
        """Wait for the pictures that are being compared."""
        self._shadows.shutdown()

    def predict(self, image: npt.NDArray[np.uint8]) -> Prediction:
        """See `gateway.predictor.Predictor`. A canary that fails costs nobody the answer."""
        if not self._canary_share and not self._shadow_share:
            return self._stable.predict(image)
        first, second = _places(image)
        if first < self._canary_share:
            try:
                prediction = self._canary.predict(image)
                # Before the answer is used, and kept: a version whose metadata are missing answers nobody.
                self._of_canary[prediction.model_version] = self._canary.metadata(prediction.model_version)
            except PredictionError:
                metrics.CANARY_FALLBACKS.inc()
                return self._stable.predict(image)
            return prediction
        prediction = self._stable.predict(image)
        if second < self._shadow_share:
            self._shadow(image, prediction)
        return prediction

    def predict_batch(self, images: npt.NDArray[np.uint8]) -> list[Prediction]:
        """See `gateway.predictor.Predictor`. Each picture goes where it would go alone: in two calls at most."""
        if not self._canary_share and not self._shadow_share:
            return self._stable.predict_batch(images)
        places = [_places(image) for image in images]
        answers = self._ask_canary(images, [place for place, (first, _) in enumerate(places) if first < self._canary_share])
        rest = [place for place in range(len(images)) if place not in answers]
        if rest:
            answers |= dict(zip(rest, self._stable.predict_batch(images[rest]), strict=True))
        for place in rest:
            first, second = places[place]
            if first >= self._canary_share and second < self._shadow_share:
                self._shadow(images[place], answers[place])
        return [answers[place] for place in range(len(images))]

    def metadata(self, version: int) -> ModelMetadata:
        """See `gateway.predictor.Predictor`."""
        return self._of_canary.get(version) or self._stable.metadata(version)

    def live_metadata(self, timeout_s: float | None = None) -> ModelMetadata:
        """See `gateway.predictor.Predictor`. Of the stable version."""
        return self._stable.live_metadata(timeout_s)

    def _ask_canary(self, images: npt.NDArray[np.uint8], chosen: list[int]) -> dict[int, Prediction]:
        """Its answers by the picture's place; none when it fails."""
        if not chosen:
            return {}
        try:
            predictions = self._canary.predict_batch(images[chosen])
            for version in {prediction.model_version for prediction in predictions}:
                self._of_canary[version] = self._canary.metadata(version)
        except PredictionError:
            metrics.CANARY_FALLBACKS.inc(len(chosen))
            return {}
        return dict(zip(chosen, predictions, strict=True))

    def _shadow(self, image: npt.NDArray[np.uint8], answered: Prediction) -> None:
        if not self._free.acquire(blocking=False):
            metrics.SHADOWS.labels("dropped").inc()
            return
        self._shadows.submit(self._compare, image, answered)

    def _compare(self, image: npt.NDArray[np.uint8], answered: Prediction) -> None:
        try:
            prediction = self._canary.predict(image)
            if prediction.model_version == answered.model_version:
                metrics.SHADOWS.labels("no_canary").inc()
                return
            labels = [
                decide(given, self._stable.metadata(given.model_version).thresholds)[0] for given in (answered, prediction)
            ]
        except PredictionError:
            metrics.SHADOWS.labels("failed").inc()
        except Exception:  # noqa: BLE001  (the edge of a thread: nobody waits for what it raises)
            metrics.SHADOWS.labels("failed").inc()
            _log.exception("a comparison with the canary failed")
        else:
            metrics.SHADOWS.labels("compared").inc()
            metrics.SHADOW_OUTCOMES.labels(*labels, str(prediction.model_version)).inc()
            difference = abs(prediction.malignant - answered.malignant)
            metrics.SHADOW_DIFFERENCE.labels(str(prediction.model_version)).observe(difference)
        finally:
            self._free.release()


def _places(image: npt.NDArray[np.uint8]) -> tuple[float, float]:
    """Two numbers from 0 up to, not including, 1 that depend on the pixels alone."""
    digest = hashlib.sha256(image.tobytes()).digest()
    first, second = (int.from_bytes(digest[start : start + 6]) / 2**48 for start in (0, 6))
    return first, second
