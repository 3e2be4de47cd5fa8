"""The model contract: constants that training, the model server and the gateway must agree on.

What retraining can change (thresholds, calibration, scores) is metadata and lives with the version, in `serving.metadata`.
"""

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
