"""`python -m serving.embedded.check FOLDER`: a version, loaded in a process that did not make it, keeps the contract.

What the exporting process can do with its own objects proves nothing: a Keras 3 SavedModel predicts there and nowhere else.
"""

import sys
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from serving.contract import (
    ACTIVATION_MAP_OUTPUT,
    CLASSES,
    EMBED_SIGNATURE,
    EMBEDDING_OUTPUT,
    IMAGE_SHAPE,
    IMAGES_INPUT,
    MAP_SIZE,
    METADATA_OUTPUT,
    METADATA_SIGNATURE,
    NONE_SCORE_OUTPUT,
    PREDICT_SIGNATURE,
    PROBABILITIES_OUTPUT,
    SCHEMA_VERSION,
    SCHEMA_VERSION_INPUT,
)
from serving.embedded.monitoring import Monitoring
from serving.embedded.servable import WARMUP_FILE, Servable
from serving.embedded.status import ServingError
from serving.metadata import ModelMetadata
from serving.release import EXTRA, METADATA_FILE

GOLDEN_FILE = Path(EXTRA, "golden.npz")
"""Pictures `images` [N, 224, 224, 3] and what the version answered to them when it was made, by name of the output."""

GOLDEN_TOLERANCES = {PROBABILITIES_OUTPUT: 0.05, NONE_SCORE_OUTPUT: 0.5, ACTIVATION_MAP_OUTPUT: 0.5}
"""Largest difference from a recorded answer. A processor without bfloat16 rounds otherwise: this is to find another graph."""


class ContractError(Exception):
    """The version does not keep the contract."""


def check(folder: Path) -> None:
    """Load a version and try its signatures, its recorded answers and its warm-up.

    Args:
        folder: of the version; without golden.npz (versions before 3) no answers are compared.

    Raises:
        ContractError: what differs.
    """
    metadata = ModelMetadata.from_json((folder / EXTRA / METADATA_FILE).read_text())
    try:
        servable = Servable(metadata.name, metadata.version, folder)
        _check_metadata(servable, metadata)
        _check_answers(servable, metadata)
        if (folder / GOLDEN_FILE).exists():
            _check_golden(servable, folder / GOLDEN_FILE)
        if not (folder / WARMUP_FILE).exists():
            raise ContractError("there is no warm-up: the first request would wait for what it does")
        servable.warm_up(folder, Monitoring())
    except ServingError as error:
        raise ContractError(str(error)) from error


def _check_metadata(servable: Servable, readable: ModelMetadata) -> None:
    versions = np.full(2, SCHEMA_VERSION, np.int32)
    documents = servable.run(METADATA_SIGNATURE, {SCHEMA_VERSION_INPUT: versions})[METADATA_OUTPUT]
    _require(documents.shape == (2,), "the metadata signature does not give one document for each of a batch")
    _require(
        all(ModelMetadata.from_json(document) == readable for document in documents),
        f"{EXTRA}/{METADATA_FILE} differs from the document in the graph",
    )


def _check_answers(servable: Servable, metadata: ModelMetadata) -> None:
    images = np.random.default_rng(1).integers(0, 256, (3, *IMAGE_SHAPE), dtype=np.uint8)
    outputs = servable.run(PREDICT_SIGNATURE, {IMAGES_INPUT: images})
    shapes = {
        PROBABILITIES_OUTPUT: (3, len(CLASSES)),
        NONE_SCORE_OUTPUT: (3,),
        ACTIVATION_MAP_OUTPUT: (3, MAP_SIZE, MAP_SIZE),
    }
    _require({name: value.shape for name, value in outputs.items()} == shapes, "the predict signature has other outputs")
    _require(all(np.isfinite(value).all() for value in outputs.values()), "an output is not finite")
    _require(np.allclose(outputs[PROBABILITIES_OUTPUT].sum(axis=1), 1.0, atol=1e-5), "probabilities do not sum to one")
    logits = outputs[ACTIVATION_MAP_OUTPUT].mean(axis=(1, 2))
    platt = metadata.calibration
    expected = 1 / (1 + np.exp(-(platt.slope * logits + platt.intercept)))
    _require(
        np.allclose(outputs[PROBABILITIES_OUTPUT][:, 1], expected, atol=1e-4), "the activation map does not give the logit"
    )
    embedding = servable.run(EMBED_SIGNATURE, {IMAGES_INPUT: images})[EMBEDDING_OUTPUT]
    _require(embedding.shape == (3, 2048), "the embed signature gives another shape")
    for shape in ((1, 128, 128, 3), IMAGE_SHAPE):
        _require(_is_refused(servable, shape), f"a request of shape {shape} is answered")


def _check_golden(servable: Servable, file: Path) -> None:
    with np.load(file) as golden:
        outputs = servable.run(PREDICT_SIGNATURE, {IMAGES_INPUT: golden[IMAGES_INPUT]})
        for name, tolerance in GOLDEN_TOLERANCES.items():
            difference = _largest_difference(outputs[name], golden[name])
            _require(difference <= tolerance, f"{name} of a golden picture is off by {difference:.3g}, more than {tolerance}")


def _largest_difference(given: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    return float(np.abs(given - expected).max()) if given.shape == expected.shape else np.inf


def _is_refused(servable: Servable, shape: tuple[int, ...]) -> bool:
    try:
        servable.run(PREDICT_SIGNATURE, {IMAGES_INPUT: np.zeros(shape, np.uint8)})
    except ServingError:
        return True
    return False


def _require(holds: bool, reason: str) -> None:
    if not holds:
        raise ContractError(reason)


if __name__ == "__main__":
    try:
        check(Path(sys.argv[1]))
    except (ContractError, OSError, ValueError, KeyError, BadZipFile) as failure:
        # In one line, the last: the runtime's texts have several.
        sys.exit(f"{sys.argv[1]}: {' '.join(str(failure).split())}")
    print(f"it keeps the contract{' and gives its recorded answers' if (Path(sys.argv[1]) / GOLDEN_FILE).exists() else ''}")
