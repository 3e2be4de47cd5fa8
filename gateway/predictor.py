"""What the gateway asks of a model server, whichever it is, and what an answer must be to be shown."""

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from gateway.errors import InvalidModelAnswer
from serving.contract import (
    ACTIVATION_MAP_OUTPUT,
    CLASSES,
    IMAGE_SHAPE,
    MAP_SIZE,
    NONE_SCORE_OUTPUT,
    PROBABILITIES_OUTPUT,
)
from serving.metadata import ModelMetadata

OUTPUT_SHAPES: Final[Mapping[str, tuple[int, ...]]] = {
    PROBABILITIES_OUTPUT: (1, len(CLASSES)),
    NONE_SCORE_OUTPUT: (1,),
    ACTIVATION_MAP_OUTPUT: (1, MAP_SIZE, MAP_SIZE),
}
"""Of the answer for one picture; the first axis is that of the pictures."""

_SIZES: Final = {name: math.prod(shape) for name, shape in OUTPUT_SHAPES.items()}
"""Numbers for each picture."""

_PROBABILITY_SUM_TOLERANCE: Final = 1e-3


@dataclass(frozen=True)
class Prediction:
    """The model's answer for one picture.

    Attributes:
        malignant: calibrated probability; benign is the rest.
        none_score: higher = further from lesions.
        activation_map: float32 [7, 7], each place's share of the logit.
        model_version: the version that answered.
    """

    malignant: float
    none_score: float
    activation_map: npt.NDArray[np.float32]
    model_version: int


class Predictor(Protocol):
    """A model server."""

    def predict(self, image: npt.NDArray[np.uint8]) -> Prediction:
        """Classify one picture, uint8 [224, 224, 3].

        Raises:
            gateway.errors.PredictionError: no answer that may be shown.
        """
        ...

    def predict_batch(self, images: npt.NDArray[np.uint8]) -> list[Prediction]:
        """Classify one picture or more in one call, uint8 [N, 224, 224, 3]; the answers in the same order.

        Raises:
            gateway.errors.PredictionError: no answer that may be shown, for none of them.
        """
        ...

    def metadata(self, version: int) -> ModelMetadata:
        """Verified metadata of one version.

        Raises:
            gateway.errors.PredictionError: as above.
        """
        ...

    def live_metadata(self, timeout_s: float | None = None) -> ModelMetadata:
        """Verified metadata of the version that would answer now. Asks the server every time: readiness depends on it.

        Args:
            timeout_s: where a prediction's own is too long to wait.

        Raises:
            gateway.errors.PredictionError: as above.
        """
        ...


class KnownMetadata:
    """Metadata of the versions that have answered this process. Asked for once a version: a version never changes."""

    def __init__(self, ask: Callable[[int], ModelMetadata]) -> None:
        self._ask = ask
        self._known: dict[int, ModelMetadata] = {}
        self._lock = threading.Lock()

    def of(self, version: int) -> ModelMetadata:
        """See `Predictor.metadata`."""
        with self._lock:
            known = self._known.get(version)
        if known is not None:
            return known
        metadata = self._ask(version)
        with self._lock:
            self._known[version] = metadata
        return metadata


def check_images(images: npt.NDArray[np.uint8]) -> None:
    """Refuse what the model does not take, before a server says so less clearly.

    Raises:
        ValueError: not uint8 [N, 224, 224, 3], or no picture.
    """
    if images.shape[1:] != IMAGE_SHAPE or not len(images) or images.dtype != np.uint8:
        raise ValueError(f"expected uint8 (N, {', '.join(map(str, IMAGE_SHAPE))}), got {images.dtype} {images.shape}")


def output_shape(name: str, count: int) -> tuple[int, ...]:
    """Of an output of the contract, for so many pictures."""
    return (count, *OUTPUT_SHAPES[name][1:])


def read_predictions(outputs: Mapping[str, Sequence[float]], count: int, version: int) -> list[Prediction]:
    """Check everything that is going to be shown: a NaN must not come out as benign.

    Args:
        outputs: the values of each output of the contract, those of the first picture first.
        count: of pictures that were asked about.
        version: that gave them; 0 or less if the server did not say.

    Raises:
        InvalidModelAnswer: what is wrong.
    """
    for name in OUTPUT_SHAPES:
        if name not in outputs:
            raise InvalidModelAnswer(f"the answer lacks {name}")
        expected = math.prod(output_shape(name, count))
        if len(outputs[name]) != expected:
            raise InvalidModelAnswer(f"{name} has {len(outputs[name])} values, expected {expected}")
        if not all(map(math.isfinite, outputs[name])):
            raise InvalidModelAnswer(f"{name} is not finite")
    if version <= 0:
        raise InvalidModelAnswer("the answer does not say which version gave it")
    return [
        _read_prediction({name: outputs[name][place * size : (place + 1) * size] for name, size in _SIZES.items()}, version)
        for place in range(count)
    ]


def _read_prediction(outputs: Mapping[str, Sequence[float]], version: int) -> Prediction:
    probabilities = outputs[PROBABILITIES_OUTPUT]
    if min(probabilities) < 0 or not math.isclose(sum(probabilities), 1.0, abs_tol=_PROBABILITY_SUM_TOLERANCE):
        raise InvalidModelAnswer(f"{PROBABILITIES_OUTPUT} are no probabilities: {probabilities}")
    return Prediction(
        malignant=probabilities[CLASSES.index("malignant")],
        none_score=outputs[NONE_SCORE_OUTPUT][0],
        activation_map=np.array(outputs[ACTIVATION_MAP_OUTPUT], np.float32).reshape(MAP_SIZE, MAP_SIZE),
        model_version=version,
    )
