import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from serving.contract import PREDICT_SIGNATURE
from serving.metadata import Calibration, Thresholds
from tests.metadata import METADATA
from tests.tiny_model import save_tiny_model
from tests.untrained import telling_apart
from training.calibrate import load_classifier
from training.data import binary_labels, load_examples, load_pixels, select
from training.evaluate import load_predict_fn, predict_all
from training.export import ExportedModel
from training.graph import NetworkWeights
from training.model import LOGIT_LAYER, backbone_of
from training.parity import format_parity, parity
from training.robustness import answer
from training.train import WEIGHTS_FILE

# With the none score below, some of the benign pictures are rejected and no malignant one.
THRESHOLDS = Thresholds(malignant=0.5, none=2.0, uncertain_low=0.5, uncertain_high=0.5, guard=0.7)


class LikeBenign:
    """A none score: the less malignant, the higher."""

    def score(self, outputs):
        return -outputs["logit"]


@pytest.fixture(scope="module")
def lesions(painted_data, tmp_path_factory):
    examples = select(load_examples(painted_data), "test")
    return load_pixels(examples, tmp_path_factory.mktemp("pixels")), binary_labels(examples).astype(bool)


@pytest.fixture(scope="module")
def run(lesions, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    telling_apart(*lesions).save_weights(folder / WEIGHTS_FILE)
    return folder


@pytest.fixture(scope="module")
def version(run, tmp_path_factory):
    """What `export` writes of the run, without its scores."""
    metadata = dataclasses.replace(METADATA, calibration=Calibration(0.8, 0.1), thresholds=THRESHOLDS)
    model = ExportedModel(NetworkWeights(load_classifier(run)), metadata.calibration, LikeBenign(), metadata.to_json())
    folder = tmp_path_factory.mktemp("versions") / "1"
    tf.saved_model.save(model, str(folder), signatures={PREDICT_SIGNATURE: model.predict})
    write_metadata(folder, metadata)
    return folder


@pytest.fixture(scope="module")
def result(run, version, painted_data, tmp_path_factory):
    return parity(run, version, painted_data, tmp_path_factory.mktemp("cache"))


@pytest.fixture
def tampered(run, tmp_path):
    """The run with one layer changed."""

    def tamper(find_layer, change_weights):
        classifier = load_classifier(run)
        layer = find_layer(classifier)
        layer.set_weights(change_weights(*layer.get_weights()))
        (tmp_path / "tampered").mkdir()
        classifier.save_weights(tmp_path / "tampered" / WEIGHTS_FILE)
        return tmp_path / "tampered"

    return tamper


def write_metadata(folder, metadata):
    (folder / "assets.extra").mkdir(exist_ok=True)
    (folder / "assets.extra" / "metadata.json").write_text(metadata.to_json())


def test_a_version_answers_as_the_network_it_was_made_from_up_to_rounding(result):
    assert 0 < result.mean_difference < result.max_difference < 0.05
    assert result.mean_difference < result.quantile_difference <= result.max_difference
    assert result.changed == 0
    assert result.changed_share.n == 16
    assert result.auroc.value == result.float32_auroc.value == 1.0
    assert result.map_error < 1e-3
    assert result.float32_map_error < 1e-3


def test_a_version_is_half_as_large_as_float32_weights(result, version):
    files = [path for path in version.rglob("*") if path.is_file()]

    assert len(files) > 2
    assert result.version_mb == pytest.approx(sum(len(path.read_bytes()) for path in files) / 1e6)
    assert 0.45 < result.version_mb / result.float32_mb < 0.55
    assert result.float32_mb == pytest.approx(94.4, abs=0.1)


@pytest.mark.parametrize(
    ("layer", "change_weights"),
    [
        ("conv4_block3_2_conv", lambda kernel, bias: [-kernel, bias]),
        ("conv3_block2_1_bn", lambda gamma, beta, mean, variance: [gamma, beta, mean + 5, variance]),
    ],
)
def test_another_network_is_seen_as_another(result, tampered, version, painted_data, tmp_path, layer, change_weights):
    run = tampered(lambda classifier: backbone_of(classifier).get_layer(layer), change_weights)

    other = parity(run, version, painted_data, tmp_path)

    assert other.mean_difference > 3 * result.mean_difference
    assert other.quantile_difference > 3 * result.quantile_difference


def test_labels_are_compared_with_the_none_score_of_the_version(lesions, tampered, version, painted_data, tmp_path):
    """The network calls everything malignant, which the none score overrules as it does for the version."""
    run = tampered(lambda classifier: classifier.get_layer(LOGIT_LAYER), lambda kernel, bias: [kernel, bias + 100])
    labels = answer(*predict_all(load_predict_fn(version), lesions[0]), THRESHOLDS).labels

    changed = parity(run, version, painted_data, tmp_path)

    assert {"none", "benign", "malignant"} == set(labels)
    assert changed.changed == (labels == "benign").sum()
    assert changed.changed_share.value == changed.changed / 16
    assert changed.mean_difference == pytest.approx(1 - predict_all(load_predict_fn(version), lesions[0])[0].mean())
    assert "labels changed" in format_parity(changed)
    assert f"{changed.changed} of 16" in format_parity(changed)


def test_a_map_that_does_not_sum_to_the_logit_is_seen_where_the_logit_can_be_told(run, tmp_path):
    """The tiny model's probability is its red and its map its green; of pure red float32 keeps no logit."""
    version = save_tiny_model(tmp_path, 1)
    write_metadata(version, METADATA)
    rows = ["path,label,dx,source,lesion_id,group,split"]
    for label, colour in (("benign", (102, 3, 0)), ("malignant", (255, 50, 0))):
        Image.new("RGB", (224, 224), colour).save(tmp_path / f"{label}.png")
        rows.append(f"{label}.png,{label},painted,painted,{label},{label},test")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")

    result = parity(run, version, tmp_path / "labels.csv", tmp_path / "cache")

    assert result.map_error == pytest.approx(3 - np.log(0.4 / 0.6), abs=1e-4)
    assert result.float32_map_error < 1e-3
