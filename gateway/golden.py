"""The golden picture: a painted lesion that goes the whole way again and again, and must get the answer its version recorded.

It finds what no single answer shows: other weights under a version's number, pixels that another library decodes otherwise. Of
all processes of a gateway one does it. The picture goes where a visitor's goes, from the encoded bytes on, but only where there
is room.
"""

import fcntl
import hashlib
import os
import threading
from collections.abc import Callable, Sequence

import structlog

from gateway import metrics
from gateway.classify import Classification, Classifier
from gateway.errors import GatewayError, GatewayOverloaded, ModelServerOverloaded
from gateway.predictor import Predictor
from serving.contract import GOLDEN_PICTURE

_log = structlog.get_logger()


class GoldenCheck:
    """Make one in each process, after it was forked."""

    def __init__(
        self,
        classifier: Classifier,
        predictors: Sequence[Predictor],
        period_s: float,
        folder: str | None,
        is_stopping: Callable[[], bool],
    ) -> None:
        """Nothing is done yet.

        Args:
            classifier: the one that answers everybody.
            predictors: of each version that answers somebody.
            period_s: between two checks, and before the first: a model server may still be loading.
            folder: that the gateway's processes share; None when there is only one process.
            is_stopping: whether the process was told to stop.
        """
        self._classifier = classifier
        self._predictors = predictors
        self._period_s = period_s
        self._turn = Turn(folder) if folder else None
        self._is_stopping = is_stopping
        self._picture = GOLDEN_PICTURE.read_bytes()
        self._sha256 = hashlib.sha256(self._picture).hexdigest()
        self._ended = threading.Event()
        metrics.GOLDEN_PERIOD.set(period_s)
        for result in metrics.GOLDEN_RESULTS:
            metrics.GOLDEN_CHECKS.labels(result)

    def start(self) -> None:
        """In the background, until the process ends, which waits for nothing of this."""
        threading.Thread(target=self._repeat, name="golden", daemon=True).start()

    def stop(self) -> None:
        """Check no more."""
        self._ended.set()

    def check(self, predictor: Predictor) -> metrics.GoldenResult:
        """Once, and count what came of it."""
        try:
            result = self._compare(self._classifier.rehearse(self._picture, predictor))
        except (GatewayOverloaded, ModelServerOverloaded):
            # Whoever asked now would be refused as well, and counted; one more would only make it worse.
            result = "skipped"
        except GatewayError as error:
            _log.warning("the golden picture got no answer", reason=str(error))
            result = "failed"
        except Exception:  # noqa: BLE001  (the edge of a thread: nobody waits for what it raises)
            _log.exception("the golden check failed")
            result = "failed"
        metrics.GOLDEN_CHECKS.labels(result).inc()
        return result

    def _repeat(self) -> None:
        try:
            while not self._ended.wait(self._period_s) and not self._is_stopping():
                if self._turn is None or self._turn.is_ours():
                    for predictor in self._predictors:
                        self.check(predictor)
        finally:
            if self._turn:
                self._turn.close()

    def _compare(self, answer: Classification) -> metrics.GoldenResult:
        recorded = answer.metadata.golden
        if recorded is None or recorded.picture_sha256 != self._sha256:
            return "no_reference"
        malignant_off = abs(answer.malignant - recorded.malignant)
        none_score_off = abs(answer.none_score - recorded.none_score)
        metrics.GOLDEN_DIFFERENCE.labels("malignant_probability").set(malignant_off)
        metrics.GOLDEN_DIFFERENCE.labels("none_score").set(none_score_off)
        if malignant_off <= recorded.malignant_tolerance and none_score_off <= recorded.none_score_tolerance:
            metrics.GOLDEN_LAST_OK.set_to_current_time()
            return "ok"
        _log.error(
            "the golden picture got another answer than its version recorded",
            model_version=answer.metadata.version,
            malignant=answer.malignant,
            recorded_malignant=recorded.malignant,
            none_score=answer.none_score,
            recorded_none_score=recorded.none_score,
        )
        return "differs"


class Turn:
    """Held by one process at a time, and by none that is dead: the kernel takes a lock from a process that ends.

    The folder itself is locked, so that no file has to be made in it.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._held: int | None = None

    def is_ours(self) -> bool:
        """Take it where it is free. Once taken it is kept."""
        if self._held is None:
            try:
                opened = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError:
                return False
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(opened)
                return False
            self._held = opened
        return True

    def close(self) -> None:
        """Give it up."""
        if self._held is not None:
            os.close(self._held)
            self._held = None
