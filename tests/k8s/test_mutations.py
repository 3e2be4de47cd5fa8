import copy
import json

import pytest

from tests.k8s import mutations_of_dermserve, mutations_of_pods, mutations_of_references, rendering, validation
from tests.k8s.checks import CHECKS, failing
from tests.k8s.mutations import MUTATIONS

# Everything that can be had together, with the GPU and the object store.
WHOLE = next(chosen for chosen in rendering.everything() if {"gpu", "object-store-models"} <= set(chosen))


@pytest.fixture
def objects():
    # Through JSON: YAML's anchors make one object of equal ones, and a change of one would be a change of both.
    return json.loads(json.dumps(rendering.combination(WHOLE)))


@pytest.mark.parametrize(("check", "what", "mutate"), MUTATIONS, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_broken_is_noticed_by_its_check_alone(objects, check, what, mutate):
    mutate(objects)

    assert list(failing(objects)) == [check]


def test_what_is_not_broken_is_let_through(objects):
    assert failing(objects) == {}


def test_every_check_has_been_seen_to_fail():
    assert all((mutations_of_dermserve, mutations_of_pods, mutations_of_references))
    assert {check for check, _, _ in MUTATIONS} == set(CHECKS)


@pytest.mark.parametrize("version", validation.VERSIONS)
def test_a_misspelt_field_is_invalid_in_every_kind(objects, version):
    kinds = {item["kind"]: item for item in objects if "spec" in item}

    assert {"Deployment", "StatefulSet", "ScaledObject", "HTTPRoute", "Gateway", "TrainJob", "TrainingRuntime"} <= set(kinds)
    for item in kinds.values():
        broken = copy.deepcopy(item)
        broken["spec"]["replica"] = 2
        assert validation.problems(item, version) == []
        assert validation.problems(broken, version) != [], item["kind"]


def test_a_misspelt_field_inside_what_trainer_makes_is_invalid(objects):
    runtime = next(item for item in objects if item["kind"] == "TrainingRuntime")
    (job,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    job["template"]["spec"]["template"]["spec"]["nodeSelectors"] = {}

    assert "nodeSelectors" in str(validation.problems(runtime, validation.VERSIONS[-1]))


def test_a_kind_without_a_schema_is_invalid():
    unknown = {"apiVersion": "example.com/v1", "kind": "Unknown", "metadata": {"name": "one"}}

    assert validation.problems(unknown, validation.VERSIONS[0]) == ["Unknown/one: no schema of example.com/v1"]
