"""The example on which our none scores and the library oodeel must agree.

`make oodeel` runs it as a program, in an environment of its own (oodeel wants an older NumPy), and records what oodeel gives.
"""

import json
import sys
import types
from pathlib import Path

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

RECORDED = Path(__file__).parent / "unit" / "training" / "oodeel.json"
CLASSES, WIDTH, PRINCIPAL = 4, 24, 12


def example() -> tuple[Floats, npt.NDArray[np.int64], Floats, Floats, Floats]:
    """Embeddings of lesions [300, 24], their diagnoses [300], embeddings to score [20, 24], kernel [24, 4], bias [4]."""
    rng = np.random.default_rng(17)
    classes = np.repeat(np.arange(CLASSES), 75)
    centres = rng.gamma(1.0, 1.0, (CLASSES, WIDTH))
    lesions = np.abs(centres[classes] + rng.normal(0, 0.4, (300, WIDTH)))
    others = np.abs(np.concatenate([lesions[::30] + rng.normal(0, 0.1, (10, WIDTH)), rng.gamma(1.0, 1.5, (10, WIDTH))]))
    return lesions, classes, others, rng.normal(0, 0.4, (WIDTH, CLASSES)), rng.normal(0, 0.1, CLASSES)


def oodeel_scores() -> dict[str, list[float]]:
    """What oodeel gives for the example."""
    # Its loaders of public data sets, which are not used here, need a package that has no wheel.
    sys.modules["tensorflow_datasets"] = types.ModuleType("tensorflow_datasets")
    import tensorflow as tf
    from oodeel.methods import DKNN, MLS, RMDS, VIM, Energy, Mahalanobis

    lesions, classes, others, kernel, bias = example()
    inputs = tf.keras.Input((WIDTH,), name="pictures")
    embedding = tf.keras.layers.Activation("linear", name="embedding")(inputs)
    model = tf.keras.Model(inputs, tf.keras.layers.Dense(CLASSES, name="head")(embedding))
    model.get_layer("head").set_weights([kernel, bias])
    known = tf.data.Dataset.from_tensor_slices((lesions.astype(np.float32), classes)).batch(len(lesions))
    methods = {
        "max softmax": MLS(output_activation="softmax"),
        "energy": Energy(),
        "ReAct": Energy(use_react=True, react_quantile=0.9),
        "SCALE": Energy(use_scale=True, scale_percentile=0.85),
        "Mahalanobis": Mahalanobis(),
        "relative Mahalanobis": RMDS(),
        "KNN": DKNN(nearest=50),
        "ViM": VIM(princ_dims=PRINCIPAL),
    }
    scores = {}
    for name, method in methods.items():
        method.fit(model, fit_dataset=known, feature_layers_id=["embedding"])
        scores[name] = [float(value) for value in method.score(tf.constant(others.astype(np.float32)))[0]]
    return scores


if __name__ == "__main__":
    taken = oodeel_scores()
    if sys.argv[1:] == ["record"]:
        RECORDED.write_text(json.dumps(taken, indent=1) + "\n")
    recorded = json.loads(RECORDED.read_text())
    for name, values in taken.items():
        difference = np.abs(np.subtract(values, recorded[name])).max()
        sys.stdout.write(f"{name:22} largest difference from what is recorded {difference:.1e}\n")
        np.testing.assert_allclose(values, recorded[name], rtol=1e-4, atol=1e-5)
