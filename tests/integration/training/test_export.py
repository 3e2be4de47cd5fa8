import dataclasses
import hashlib
import itertools
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from gateway.decision import decide
from gateway.predictor import Prediction
from serving.contract import ALLOWED_BATCH_SIZES, GOLDEN_PICTURE, IMAGE_SHAPE, NONE_SCORE_EDGES, PROBABILITY_EDGES
from serving.embedded.check import GOLDEN_FILE, ContractError, check
from serving.metadata import ModelMetadata, Thresholds
from serving.release import ReleaseError, verify_sums
from tests.processes import ROOT
from tests.untrained import telling_apart
from training.__main__ import main
from training.calibrate import calibrate
from training.data import binary_labels, load_examples, load_pixels, read_picture, select
from training.evaluate import decide_all, evaluate, format_scores, load_predict_fn, predict_all
from training.export import export, initial_weights
from training.report import render_card, report
from training.train import WEIGHTS_FILE
from training.watch import histogram

# A version's making scores it in every way there is, which takes minutes whatever its size.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def useful_run(trained_run, painted_data):
    """The run with a network that tells the classes apart, which so short a training cannot promise."""
    run = trained_run.with_name("useful")
    shutil.copytree(trained_run, run)
    examples = select(load_examples(painted_data), "train")
    pixels, is_malignant = load_pixels(examples, run.parent / "cache"), binary_labels(examples).astype(bool)
    telling_apart(np.array(pixels), is_malignant).save_weights(run / WEIGHTS_FILE)
    return run


@pytest.fixture(scope="module")
def exported(useful_run, tmp_path_factory):
    calibrate(useful_run)
    return export(useful_run, tmp_path_factory.mktemp("models") / "lesion", 3)


def test_a_version_is_complete_and_small(exported):
    size = sum(path.stat().st_size for path in exported.rglob("*") if path.is_file())

    assert exported.name == "3"
    assert size < 50e6
    verify_sums(exported)
    records = list(tf.data.TFRecordDataset(str(exported / "assets.extra" / "tf_serving_warmup_requests")))
    assert len(records) == len(ALLOWED_BATCH_SIZES)


def test_it_keeps_the_contract_in_a_fresh_process(exported):
    result = subprocess.run(
        [sys.executable, "-m", "serving.embedded.check", exported], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert "keeps the contract" in result.stdout


def test_a_version_whose_readable_metadata_differ_is_refused(exported, tmp_path):
    version = with_own_extras(exported, tmp_path)
    document = json.loads((version / "assets.extra" / "metadata.json").read_text())
    document["thresholds"]["none"] += 1
    (version / "assets.extra" / "metadata.json").write_text(json.dumps(document))

    with pytest.raises(ContractError, match="metadata"):
        check(version)


def test_a_version_that_answers_otherwise_than_it_did_is_refused(exported, tmp_path):
    version = with_own_extras(exported, tmp_path)
    with np.load(version / GOLDEN_FILE) as golden:
        answers = dict(golden)
    answers["probabilities"] = answers["probabilities"][:, ::-1]
    np.savez(version / GOLDEN_FILE, **answers)

    with pytest.raises(ContractError, match="probabilities of a golden picture"):
        check(version)


def test_a_version_whose_warm_up_is_missing_or_fails_is_refused(exported, tmp_path):
    version = with_own_extras(exported, tmp_path)
    (version / "assets.extra" / "tf_serving_warmup_requests").write_bytes(b"no records" * 100)

    with pytest.raises(ContractError, match="DATA_LOSS"):
        check(version)
    (version / "assets.extra" / "tf_serving_warmup_requests").unlink()
    with pytest.raises(ContractError, match="no warm-up"):
        check(version)


def with_own_extras(exported, folder):
    """A copy of the version whose assets.extra can be changed."""
    for name in ("saved_model.pb", "variables", "fingerprint.pb"):
        (folder / name).symlink_to(exported / name)
    shutil.copytree(exported / "assets.extra", folder / "assets.extra")
    return folder


def test_other_shapes_are_refused_by_the_graph(exported):
    predict = load_predict_fn(exported)

    assert predict(np.zeros((2, *IMAGE_SHAPE), np.uint8))["probabilities"].shape == (2, 2)
    with pytest.raises((tf.errors.InvalidArgumentError, TypeError, ValueError)):
        predict(np.zeros((1, 128, 128, 3), np.uint8))


def test_a_published_number_is_never_overwritten(exported, useful_run):
    before = (exported / "saved_model.pb").stat().st_mtime_ns

    with pytest.raises(ReleaseError, match="never overwritten"):
        export(useful_run, exported.parent, 3)

    assert (exported / "saved_model.pb").stat().st_mtime_ns == before
    assert [path.name for path in exported.parent.iterdir()] == ["3"]


def test_scores_in_the_metadata_are_those_of_the_published_graph(exported, painted_data, tmp_path, capsys):
    metadata = ModelMetadata.from_json((exported / "assets.extra" / "metadata.json").read_text())

    main(["evaluate", "--model", str(exported), "--data", str(painted_data), "--cache", str(tmp_path)])

    header, *stated = format_scores(metadata.scores).splitlines()
    printed = capsys.readouterr().out.partition(header)[2].split("\n")[1:-1]
    assert len(printed) > 40
    assert stated[: len(printed)] == printed
    scores = {(score.metric, score.subset): score.estimate for score in metadata.scores}
    assert scores["AUROC", "all"].n == 16
    assert scores["none score AUROC", "photo"].n == 24
    assert scores["none score FPR@95", "tinea"].n == 24
    assert scores["malignant of those flagged", "prevalence 7%"].n == 16
    assert scores["sensitivity", "all"] == metadata.operating_point.sensitivity


def test_its_reference_is_what_the_published_graph_answers_to_the_validation_lesions(exported, painted_data, tmp_path):
    reference = ModelMetadata.from_json((exported / "assets.extra" / "metadata.json").read_text()).reference
    examples = [
        example
        for example in load_examples(painted_data)
        if example.split == "val" and example.label in ("benign", "malignant")
    ]

    malignant, none_score = predict_all(load_predict_fn(exported), load_pixels(examples, tmp_path))

    assert (reference.split, len(examples)) == ("val", 16)
    for given, values, edges in (
        (reference.malignant, malignant, PROBABILITY_EDGES),
        (reference.none_score, none_score, NONE_SCORE_EDGES),
    ):
        bounds = [-np.inf, *edges, np.inf]
        assert given.edges == edges
        assert given.counts == tuple(sum(low < value <= high for value in values) for low, high in itertools.pairwise(bounds))


def test_a_value_on_an_edge_belongs_to_the_bin_below_it_as_in_the_gateways_histograms():
    assert histogram(np.array([0.1, 0.1, 0.1001, 0.3]), (0.1, 0.2)).counts == (2, 1, 1)


def test_its_golden_answer_is_what_the_published_graph_answers(exported):
    golden = ModelMetadata.from_json((exported / "assets.extra" / "metadata.json").read_text()).golden

    outputs = load_predict_fn(exported)(read_picture(GOLDEN_PICTURE)[None])

    assert golden.malignant == pytest.approx(float(outputs["probabilities"][0, 1]), abs=1e-6)
    assert golden.none_score == pytest.approx(float(outputs["none_score"][0]), abs=1e-4)
    assert golden.picture_sha256 == hashlib.sha256(GOLDEN_PICTURE.read_bytes()).hexdigest()


def test_the_none_score_is_scored_on_kinds_that_its_fit_never_saw(exported, useful_run, capsys):
    main(["unseen", "--run", str(useful_run)])

    metadata = ModelMetadata.from_json((exported / "assets.extra" / "metadata.json").read_text())
    stated = [score for score in metadata.scores if score.metric.startswith("none score without the kind")]
    assert format_scores(stated) in capsys.readouterr().out
    # All pictures of the kind count, of every split, beside the lesions of the test split.
    assert {(score.subset, score.estimate.n) for score in stated} == {("photo", 16 + 28), ("tinea", 16 + 28)}


def test_a_run_on_another_runs_weights_names_where_that_one_began(tiny_config, tmp_path):
    (tmp_path / "config.json").write_text(dataclasses.replace(tiny_config, weights="somewhere/start.npz").to_json())

    second = dataclasses.replace(tiny_config, weights=str(tmp_path / "model.weights.h5"))

    assert initial_weights(second) == "preset tiny, from start.npz"


def test_the_model_card_says_what_the_metadata_say(exported, useful_run, painted_data, tmp_path):
    (tmp_path / "docs").mkdir()

    report(exported, load_predict_fn(exported), painted_data, tmp_path / "cache", tmp_path / "docs", useful_run)

    card = (tmp_path / "docs" / "model-card.md").read_text()
    metadata = ModelMetadata.from_json((exported / "assets.extra" / "metadata.json").read_text())
    assert "not a diagnosis" in card
    assert f"{metadata.thresholds.malignant:.4f}" in card
    assert all(source.name in card for source in metadata.provenance.sources)
    names = {path.name for path in (tmp_path / "docs" / "figures").iterdir()}
    assert names == {"roc.png", "reliability.png", "risk-coverage.png", "none-score.png", "maps.png", "curves.png"}
    assert all(f"](figures/{name})" in card for name in names)
    assert all(f"| {score.metric} | {score.subset} |" in card for score in metadata.scores)
    assert "size, float32 weights" in card
    assert f"{metadata.golden.malignant:.4f}" in card
    assert "16 lesions of the val split" in card
    compared = (tmp_path / "docs" / "none-scores.md").read_text()
    assert all(name in compared for name in ("KNN *", "ViM *", metadata.none_score))
    changes = (tmp_path / "docs" / "robustness.md").read_text()
    assert "| class flips: JPEG 30 | all |" in changes


def test_a_card_of_other_data_claims_nothing_of_ours(exported, painted_data, tmp_path):
    """Folders as in the paper have no other pictures, and a source may hold one class only."""
    rows = [row for row in painted_data.read_text().splitlines() if ",none," not in row]
    rows += [row.replace(" paint,painted,", " paint,elsewhere,") for row in rows if "malignant/test" in row]
    data = painted_data.with_name("lesions-only.csv")
    data.write_text("\n".join(rows) + "\n")
    metadata = ModelMetadata.from_json((exported / "assets.extra" / "metadata.json").read_text())

    scores = evaluate(load_predict_fn(exported), metadata, data, tmp_path / "cache")
    report(exported, load_predict_fn(exported), data, tmp_path / "cache", tmp_path)

    assert ("AUROC", "elsewhere") not in {(score.metric, score.subset) for score in scores}
    assert ("sensitivity", "elsewhere") in {(score.metric, score.subset) for score in scores}
    bare = render_card(dataclasses.replace(metadata, scores=tuple(scores)), exported)
    assert "without pictures of anything else" in bare
    assert "## Watched in use" not in render_card(dataclasses.replace(metadata, reference=None, golden=None), exported)
    assert "HAM10000" not in bare
    assert "none-score.png" not in (tmp_path / "model-card.md").read_text()
    assert "curves.png" not in (tmp_path / "model-card.md").read_text()


def test_evaluation_decides_as_the_gateway_does():
    thresholds = Thresholds(malignant=0.2, none=3.0, uncertain_low=0.18, uncertain_high=0.22, guard=0.6)
    grid = [(p, s) for p in (0.0, 0.1799, 0.18, 0.2, 0.2199, 0.22, 0.59, 0.6, 1.0) for s in (-5.0, 2.99, 3.0, 9.0)]
    empty = np.zeros((7, 7), np.float32)

    at_once = decide_all(np.array([p for p, _ in grid]), np.array([s for _, s in grid]), thresholds)

    one_by_one = [decide(Prediction(p, s, empty, 1), thresholds) for p, s in grid]
    assert at_once.tolist() == [reason or label for label, reason in one_by_one]


def test_what_is_evaluated_is_what_is_given(painted_data, tmp_path):
    """A predictor that knows the colours is perfect; its scores say so."""
    thresholds = Thresholds(malignant=0.5, none=0.5, uncertain_low=0.5, uncertain_high=0.5, guard=0.9)
    metadata = type("Metadata", (), {"thresholds": thresholds})()

    def predict(images):
        red, blue = images[..., 0].mean(axis=(1, 2)), images[..., 2].mean(axis=(1, 2))
        malignant = (red < 110) & (blue < 130)
        return {"probabilities": np.stack([~malignant, malignant], 1).astype(float), "none_score": (blue > 130).astype(float)}

    scores = {
        (score.metric, score.subset): score.estimate.value for score in evaluate(predict, metadata, painted_data, tmp_path)
    }

    assert scores["AUROC", "all"] == 1.0
    assert scores["accuracy", "painted"] == 1.0
    assert scores["none score AUROC", "photo"] == 1.0
    assert scores["non-lesions accepted", "photo"] == 0.0


def test_a_malignant_lesion_that_is_sent_to_none_is_not_counted_as_flagged(painted_data, tmp_path):
    thresholds = Thresholds(malignant=0.5, none=0.5, uncertain_low=0.5, uncertain_high=0.5, guard=0.9)
    metadata = type("Metadata", (), {"thresholds": thresholds})()

    def predict(images):
        return {"probabilities": np.full((len(images), 2), 0.8), "none_score": np.ones(len(images))}

    scores = {
        (score.metric, score.subset): score.estimate.value for score in evaluate(predict, metadata, painted_data, tmp_path)
    }

    assert scores["sensitivity", "all"] == 0.0
    assert scores["malignant lesions called benign", "all"] == 0.0
    assert scores["malignant lesions sent to none", "all"] == 1.0
