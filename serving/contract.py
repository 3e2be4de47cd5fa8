"""The model contract: constants that training, the model server and the gateway must agree on.

What retraining can change (thresholds, calibration, scores) is metadata and lives with the version, in `serving.metadata`.
"""

from pathlib import Path
from typing import Final

MODEL_NAME: Final = "lesion"
STABLE_LABEL: Final = "stable"
CANARY_LABEL: Final = "canary"
PREVIOUS_LABEL: Final = "previous"
LABELS: Final = (STABLE_LABEL, CANARY_LABEL, PREVIOUS_LABEL)
"""Of versions: the one that answers, the one that is tried (the same when none is), and the one to go back to."""

IMAGE_SIZE: Final = 224
IMAGE_SHAPE: Final = (IMAGE_SIZE, IMAGE_SIZE, 3)
"""Height, width, RGB. Values are uint8, 0 to 255, on the wire; the graph normalises."""

CLASSES: Final = ("benign", "malignant")
"""Order of the last axis of `probabilities`."""

MAP_SIZE: Final = 7
"""Height and width of the activation map: ResNet-50's last stage has a stride of 32."""

PREDICT_SIGNATURE: Final = "serving_default"
IMAGES_INPUT: Final = "images"
PROBABILITIES_OUTPUT: Final = "probabilities"
NONE_SCORE_OUTPUT: Final = "none_score"
ACTIVATION_MAP_OUTPUT: Final = "activation_map"

EMBED_SIGNATURE: Final = "embed"
EMBEDDING_OUTPUT: Final = "embedding"

METADATA_SIGNATURE: Final = "metadata"
SCHEMA_VERSION_INPUT: Final = "schema_version"
METADATA_OUTPUT: Final = "metadata"
SCHEMA_VERSION: Final = 1
"""Version of the JSON document in `serving.metadata`; raised when a reader of the old one would misread the new one."""

ALLOWED_BATCH_SIZES: Final = (1, 2, 4, 8, 16, 32)
"""Warm-up records are written for each. The largest is max_batch_size in config/; a GPU pads the sizes in between to them."""

PROBABILITY_EDGES: Final = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9)
NONE_SCORE_EDGES: Final = (-14.0, -12.0, -11.0, -10.0, -9.0, -8.0, -7.0, -5.0, -2.5, 0.0, 5.0)
"""Bins of the two scores, each up to and including its edge, the last without end: of the gateway's histograms and of the
reference in a version's metadata, which can only be compared when they are the same. Chosen so that no bin holds more than a
sixth of version 2's validation lesions, half of which have a probability under 0.05. Other scores may need other edges."""

GOLDEN_PICTURE: Final = Path(__file__).with_name("golden.png")
"""A painted lesion, as somebody would upload it: a version's metadata say what it answers to it, and the gateway asks."""
