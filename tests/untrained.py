"""Networks that answer sensibly without having been trained."""

import keras
import numpy as np

from training.graph import NetworkWeights, run_batches
from training.model import LOGIT_LAYER, backbone_of, build_classifier


def telling_apart(pixels, is_malignant):
    """A classifier of random features under a head that tells these pictures apart; what a test can train gives chance answers.

    Args:
        pixels: [N, 224, 224, 3].
        is_malignant: [N].
    """
    keras.utils.set_random_seed(6)
    classifier = build_classifier("none")
    rng = np.random.default_rng(2)
    for layer in backbone_of(classifier).layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            size = layer.gamma.shape
            layer.set_weights([rng.uniform(0.5, 1, size), rng.normal(0, 0.1, size), rng.normal(0, 0.1, size), np.ones(size)])
    embedding = run_batches(NetworkWeights(classifier), [pixels])["conv5"]
    benign, malignant = embedding[~is_malignant].mean(axis=0), embedding[is_malignant].mean(axis=0)
    kernel = 4 * (malignant - benign) / np.square(malignant - benign).sum()
    classifier.get_layer(LOGIT_LAYER).set_weights([kernel[:, None], np.array([-(benign + malignant) / 2 @ kernel])])
    return classifier
