"""Two versions under one gateway: real gunicorn, real gRPC, real model server."""

from collections import Counter

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from tests import processes
from tests.pictures import encode, paint, textured

THRESHOLDS = {1: 0.4, 2: 0.5}


@pytest.fixture(scope="module")
def model_port(tmp_path_factory, make_version):
    base = tmp_path_factory.mktemp("two-versions")
    for number, threshold in THRESHOLDS.items():
        make_version(base, number, str(threshold))
    with processes.model_server(base, tmp_path_factory.mktemp("server"), labels="stable:1,canary:2") as (_, port, _rest):
        yield port


def classify(address, data):
    response = requests.post(f"{address}/api/v1/classifications", files={"file": ("x.png", data)}, timeout=30)
    response.raise_for_status()
    return response.json()


def test_every_answer_is_read_with_the_thresholds_of_the_version_that_gave_it(model_port, tmp_path):
    pictures = [encode(textured(seed=seed), "PNG") for seed in range(30)]
    with processes.gateway(model_port, tmp_path, GATEWAY_CANARY_SHARE="0.5") as (_, address):
        answers = [classify(address, picture) for picture in pictures]
        again = [classify(address, picture) for picture in pictures]

    versions = [answer["model"]["version"] for answer in answers]
    assert 5 <= Counter(versions)[2] <= 25
    assert all(answer["thresholds"]["malignant"] == THRESHOLDS[answer["model"]["version"]] for answer in answers)
    assert [answer["model"]["version"] for answer in again] == versions


def test_a_shadowed_canary_is_counted_and_has_no_say(model_port, tmp_path):
    # 0.4 is the one version's threshold and lies in its band; to the other it is benign.
    pictures = {"malignant": "malignant", "benign": "benign", "uncertain": "none"}
    with processes.gateway(model_port, tmp_path, GATEWAY_SHADOW_SHARE="1", GATEWAY_WORKERS="1") as (program, address):
        for outcome, label in pictures.items():
            answer = classify(address, paint(outcome))
            assert (answer["label"], answer["model"]["version"]) == (label, 1)

        def compared():
            families = text_string_to_metric_families(requests.get(f"{address}/metrics", timeout=10).text)
            return {
                (sample.labels["label"], sample.labels["canary_label"]): sample.value
                for family in families
                for sample in family.samples
                if sample.name == "dermserve_gateway_shadow_outcomes_total"
            }

        program.wait_for(lambda: sum(compared().values()) == len(pictures))
        assert compared() == {("malignant", "malignant"): 1, ("benign", "benign"): 1, ("none", "benign"): 1}


def test_a_canary_label_that_nobody_carries_costs_no_answer(tiny_server, tmp_path):
    with processes.gateway(tiny_server[0], tmp_path, GATEWAY_CANARY_SHARE="1") as (_, address):
        assert classify(address, paint("benign"))["model"]["version"] == 1
