"""What is asked, and the right answers: those of the released version, computed by TensorFlow."""

import io
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image

from scripts.bench.pixels import read_bytes
from scripts.bench.tolerance import Answer
from serving.contract import GOLDEN_PICTURE, NONE_SCORE_OUTPUT, PROBABILITIES_OUTPUT
from training.golden import paint_golden_pictures

PredictFn = Callable[[np.ndarray], Mapping[str, np.ndarray]]
"""uint8 [N, 224, 224, 3] -> the outputs of the contract's predict signature."""

TIMED = "timed"
"""The picture that everybody is sent while it is measured."""

TIMED_SIZE = (1024, 768)
NOISE = 4.0
"""Of the timed picture, in grey levels, as a sensor's."""


def paint_pictures() -> dict[str, bytes]:
    """Files by name: the timed JPEG, the golden picture, which the model is unsure of, and painted lesions. Always the same."""
    with Image.open(GOLDEN_PICTURE) as golden:
        large = np.asarray(golden.convert("RGB").resize(TIMED_SIZE, Image.Resampling.BICUBIC), np.float32)
    noise = np.random.default_rng(1).normal(0, NOISE, large.shape)
    timed = Image.fromarray(np.clip(large + noise, 0, 255).astype(np.uint8))
    painted = {f"painted {number}": _encode(Image.fromarray(one), "PNG") for number, one in enumerate(paint_golden_pictures())}
    return {TIMED: _encode(timed, "JPEG"), "golden": GOLDEN_PICTURE.read_bytes(), **painted}


def right_answers(predict: PredictFn, pictures: Mapping[str, bytes]) -> dict[str, Answer]:
    """By the same names, one picture at a time."""
    answers = {}
    for name, picture in pictures.items():
        outputs = predict(read_bytes(picture)[None])
        answers[name] = Answer(float(outputs[PROBABILITIES_OUTPUT][0, 1]), float(outputs[NONE_SCORE_OUTPUT][0]))
    return answers


def _encode(picture: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, quality=85)
    return buffer.getvalue()
