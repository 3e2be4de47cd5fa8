"""The gateway against Triton, a real server of the Open Inference Protocol, which serves the tiny model through OpenVINO."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import requests

from gateway.errors import ModelServerOverloaded, ModelServerTimeout, ModelServerUnavailable
from gateway.open_inference import OpenInferencePredictor
from gateway.tfserving import TFServingPredictor
from serving.embedded.check import GOLDEN_TOLERANCES
from serving.models_config import read_models_config
from serving.release import read_metadata
from tests import processes
from tests.conftest import DATA
from tests.pictures import paint
from tests.processes import ROOT
from tests.triton import kill, triton
from training.data import evenly, load_examples, read_picture, select
from training.golden import paint_golden_pictures

DELAY_S = 0.2


@pytest.fixture(scope="module")
def versions(tmp_path_factory, make_version):
    base = tmp_path_factory.mktemp("versions")
    make_version(base, 1)
    make_version(base, 2, "0.7")
    return base


@pytest.fixture(scope="module")
def server(versions, tmp_path_factory):
    with triton(versions, tmp_path_factory.mktemp("triton"), DELAY_S) as (_, port):
        yield port


@pytest.fixture
def predictor(server):
    opened = OpenInferencePredictor(f"127.0.0.1:{server}", timeout_s=20.0)
    yield opened
    opened.close()


def test_the_newest_version_answers_as_its_graph_says(predictor):
    image = np.zeros((224, 224, 3), np.uint8)
    image[..., 0], image[..., 2] = 51, 102
    image[:32, :32, 1] = 7

    prediction = predictor.predict(image)

    assert prediction.model_version == 2
    assert prediction.malignant == pytest.approx(0.2)
    assert prediction.none_score == pytest.approx(4.0)
    assert prediction.activation_map[0, 0] == pytest.approx(7.0)
    assert prediction.activation_map[1:].max() == 0


def test_several_pictures_are_answered_in_one_call_as_each_of_them_alone(predictor):
    images = np.stack([np.full((224, 224, 3), grey, np.uint8) for grey in (10, 120, 240)])

    together = predictor.predict_batch(images)

    assert [answer.malignant for answer in together] == [predictor.predict(image).malignant for image in images]
    assert [answer.activation_map.max() for answer in together] == pytest.approx([10, 120, 240])


@pytest.mark.parametrize("version", [1, 2])
def test_each_version_has_its_own_metadata(predictor, versions, version):
    assert predictor.metadata(version) == read_metadata(versions / str(version))


def test_the_newest_version_is_live(predictor, versions):
    assert predictor.live_metadata() == read_metadata(versions / "2")


def test_a_version_that_is_not_served_is_unavailable(predictor):
    with pytest.raises(ModelServerUnavailable, match="version 9"):
        predictor.metadata(9)


def test_a_full_queue_is_overload(predictor):
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(predictor.predict, np.zeros((224, 224, 3), np.uint8)) for _ in range(8)]
        failures = [call.exception() for call in calls]

    refused = [failure for failure in failures if failure]
    assert 0 < len(refused) < len(calls)
    assert {type(failure) for failure in refused} == {ModelServerOverloaded}


def test_an_answer_after_the_deadline_is_a_timeout(server):
    predictor = OpenInferencePredictor(f"127.0.0.1:{server}", timeout_s=DELAY_S / 4)

    with pytest.raises(ModelServerTimeout):
        predictor.predict(np.zeros((224, 224, 3), np.uint8))
    predictor.close()


def lesions():
    """Real ones where they are, painted ones otherwise; uint8 [224, 224, 3]."""
    if not (DATA / "labels.csv").exists():
        return paint_golden_pictures()
    examples = select(load_examples(DATA / "labels.csv"), "test")
    return [read_picture(example.path) for example in evenly(examples, 10)]


def test_the_released_version_answers_as_it_does_behind_tensorflow_serving(tmp_path):
    """Another engine may round otherwise: OpenVINO's own choice of bfloat16 moved the none score by up to 12."""
    released = read_models_config(ROOT / "serving/config/models.config")
    base = ROOT / "serving/models/lesion"
    for name in ("triton", "server"):
        (tmp_path / name).mkdir()
    with (
        triton(base, tmp_path / "triton") as (_, triton_port),
        processes.model_server(base, tmp_path / "server", labels=f"stable:{released.labels['stable']}") as (_, port, _rest),
    ):
        there = OpenInferencePredictor(f"127.0.0.1:{triton_port}", timeout_s=60.0)
        here = TFServingPredictor(f"127.0.0.1:{port}", "stable", timeout_s=60.0)
        answers = [(there.predict(image), here.predict(image)) for image in lesions()]
        there.close()
        here.close()

    for theirs, ours in answers:
        assert theirs.model_version == ours.model_version == released.labels["stable"]
        assert theirs.malignant == pytest.approx(ours.malignant, abs=GOLDEN_TOLERANCES["probabilities"])
        assert theirs.none_score == pytest.approx(ours.none_score, abs=GOLDEN_TOLERANCES["none_score"])
        assert theirs.activation_map == pytest.approx(ours.activation_map, abs=GOLDEN_TOLERANCES["activation_map"])


def test_the_gateway_classifies_over_it_by_configuration(server, tmp_path):
    with processes.gateway(server, tmp_path, GATEWAY_MODEL_SERVER_PROTOCOL="open-inference") as (_, address):
        ready = requests.get(f"{address}/health/ready", timeout=30)
        answer = requests.post(
            f"{address}/api/v1/classifications", files={"file": ("x.png", paint("malignant"))}, timeout=30
        ).json()

    assert ready.status_code == 200
    assert (answer["label"], answer["model"]["version"], answer["thresholds"]["malignant"]) == ("malignant", 2, 0.7)


def test_a_server_that_is_gone_is_told_to_the_client(versions, tmp_path):
    (tmp_path / "triton").mkdir()
    with (
        triton(versions, tmp_path / "triton") as (program, port),
        processes.gateway(port, tmp_path, GATEWAY_MODEL_SERVER_PROTOCOL="open-inference") as (_, address),
    ):
        kill(program)
        answer = requests.post(f"{address}/api/v1/classifications", files={"file": ("x.png", paint())}, timeout=30)

    assert answer.status_code == 503
    assert answer.json()["type"] == "/problems/model-unavailable"
