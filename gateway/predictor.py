"""What the gateway asks of a model server, whichever it is."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from serving.metadata import ModelMetadata


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
