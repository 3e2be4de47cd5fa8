"""The Python client against running gateways."""

import dataclasses
import time
from concurrent.futures import ThreadPoolExecutor
from typing import get_args, get_type_hints

import pytest
import yaml

from gateway import client as models
from gateway.client import MAX_PICTURES, Classification, Client, NotReachable, Problem
from tests import doors, paced_server, processes
from tests.pictures import paint
from tests.processes import ROOT

SCHEMAS = yaml.safe_load((ROOT / "docs" / "openapi.yaml").read_text())["components"]["schemas"]


@pytest.fixture
def client(stack):
    with Client(stack[0]) as opened:
        yield opened


def test_one_picture(client):
    answer = client.classify(paint("malignant"))

    assert (answer.label, answer.reason, answer.model) == ("malignant", None, models.Model("lesion", 1))
    assert answer.probabilities.benign + answer.probabilities.malignant == pytest.approx(1)
    assert answer.thresholds == models.Thresholds(malignant=0.4, none=5.0)
    assert answer.activation_map is None


def test_the_map_on_request(client):
    shown = client.classify(paint("malignant"), with_map=True).activation_map

    assert [len(row) for row in shown.grid] == [7] * 7
    assert shown.grid[0][0] == pytest.approx(40)
    assert "Logit" in shown.unit


def test_a_batch_has_the_problem_of_a_picture_in_its_place(client):
    first, bad, last = client.classify_batch([paint("malignant"), b"text", paint("out_of_scope")], with_map=True)

    assert (first.label, last.label, last.reason) == ("malignant", "none", "out_of_scope")
    assert isinstance(bad, Problem)
    assert (bad.slug, bad.status) == ("not-a-picture", 415)


def test_a_problem_is_an_exception_with_its_facts(client):
    with pytest.raises(Problem) as caught:
        client.classify(paint(size=(20, 20)))

    problem = caught.value
    assert (problem.slug, problem.status, problem.title) == ("picture-too-small", 422, "The picture is too small")
    assert "20 x 20" in problem.detail
    assert problem.instance.startswith("urn:dermserve:request:")
    with pytest.raises(Problem, match="too-many-pictures"):
        client.classify_batch([paint()] * (MAX_PICTURES + 1))


def test_what_cannot_pass_by_waiting_is_not_repeated(stack):
    begun = time.monotonic()
    with Client(stack[0], with_idempotency_keys=True) as opened, pytest.raises(Problem, match="idempotency-not-configured"):
        opened.classify(paint())

    assert time.monotonic() - begun < 2


def test_nobody_there_until_the_deadline():
    with Client(f"http://127.0.0.1:{processes.free_port()}", deadline_s=0.2) as opened, pytest.raises(NotReachable):
        opened.classify(paint())


def test_something_else_there(tiny_server):
    """The model server's own pages are no gateway's."""
    with Client(f"http://127.0.0.1:{tiny_server[1]}") as opened, pytest.raises((NotReachable, Problem)):
        opened.classify(paint())


def test_without_a_model_it_repeats_until_there_is_one_or_its_deadline_is_over(tmp_path):
    port = processes.free_port()
    with processes.gateway(port, tmp_path) as (_, address), ThreadPoolExecutor(1) as pool:
        with Client(address, deadline_s=5) as hasty, pytest.raises(Problem, match="model-unavailable"):
            hasty.classify(paint())
        with Client(address, deadline_s=60) as patient:
            pending = pool.submit(patient.classify, paint())
            processes.wait_until(lambda: processes.read_metrics(address).get(("problems_total", "model-unavailable"), 0) >= 2)
            with paced_server.serving(paced_server.PacedServer(), port):
                assert pending.result().label == "benign"


def test_an_answer_that_got_lost_is_asked_for_again_under_the_same_key(tmp_path):
    with (
        processes.redis_server(tmp_path) as (_, store),
        paced_server.serving(paced_server.PacedServer()) as server,
        processes.gateway(server.port, tmp_path, GATEWAY_REDIS_URL=f"redis://127.0.0.1:{store}/0") as (_, address),
        ThreadPoolExecutor(1) as pool,
    ):
        server.go.clear()
        with Client(address, timeout_s=0.5, with_idempotency_keys=True) as opened:
            pending = pool.submit(opened.classify, paint())
            # The first try has timed out, the second one has been told that the first is at work.
            processes.wait_until(
                lambda: processes.read_metrics(address).get(("problems_total", "idempotency-in-progress"), 0) >= 1
            )
            server.go.set()
            assert pending.result().label == "benign"
        assert server.pictures == 1


@pytest.fixture(scope="module")
def guarded(tiny_server, tmp_path_factory):
    """Address of a gateway that asks for keys and takes one picture in three seconds of each."""
    folder = tmp_path_factory.mktemp("guarded")
    keys = doors.write_keys(folder / "keys.json", portal="classify", other="classify", prometheus="read_metrics")
    settings = {"GATEWAY_IDENTITY": "keys", "GATEWAY_API_KEYS_FILE": str(keys), "GATEWAY_RATE_LIMIT": "1 per 3 second"}
    with processes.gateway(tiny_server[0], folder, GATEWAY_WORKERS="1", **settings) as (_, address):
        yield address


@pytest.mark.parametrize(
    ("api_key", "status", "slug"),
    [
        ("", 401, "not-signed-in"),
        (doors.token("portal", "x"), 401, "not-signed-in"),
        (doors.token("prometheus"), 403, "not-permitted"),
    ],
    ids=["none", "wrong", "other permission"],
)
def test_a_key_that_does_not_open_is_told_at_once(guarded, api_key, status, slug):
    begun = time.monotonic()
    with Client(guarded, api_key) as opened, pytest.raises(Problem) as caught:
        opened.classify(paint())

    assert (caught.value.status, caught.value.slug) == (status, slug)
    assert api_key not in str(caught.value) or not api_key
    assert time.monotonic() - begun < 2


def test_asked_too_often_it_waits_as_long_as_it_is_told_if_its_deadline_lets_it(guarded, tmp_path, monkeypatch):
    # What somebody has for this host in their .netrc is not what opens it.
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with Client(guarded, doors.token("portal")) as patient, Client(guarded, doors.token("portal"), deadline_s=0.4) as hasty:
        assert patient.classify(paint("malignant")).label == "malignant"
        with pytest.raises(Problem, match="429 too-many-requests"):
            hasty.classify(paint())
        begun = time.monotonic()
        assert patient.classify(paint("malignant")).label == "malignant"
        assert time.monotonic() - begun > 0.5
    with Client(guarded, doors.token("other")) as somebody_else:
        assert somebody_else.classify(paint("malignant")).label == "malignant"


@pytest.mark.parametrize(
    ("model", "schema"),
    [
        (Classification, SCHEMAS["Classification"]),
        (models.Probabilities, SCHEMAS["Classification"]["properties"]["probabilities"]),
        (models.Thresholds, SCHEMAS["Classification"]["properties"]["thresholds"]),
        (models.Model, SCHEMAS["ModelVersion"]),
        (models.ActivationMap, SCHEMAS["ActivationMap"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_its_models_are_those_of_the_document(model, schema):
    fields = dataclasses.fields(model)
    required = {field.name for field in fields if field.default is dataclasses.MISSING}

    # It does not ask for the drawing.
    assert {field.name for field in fields} == schema["properties"].keys() - {"overlay"}
    assert required == set(schema["required"])
    for name, hint in get_type_hints(model).items():
        choices = {choice for part in (hint, *get_args(hint)) for choice in get_args(part) if isinstance(choice, str)}
        if choices:
            assert choices == set(schema["properties"][name]["enum"]) - {None}


def test_its_limit_is_that_of_the_document():
    assert SCHEMAS["BatchAnswer"]["properties"]["results"]["maxItems"] == MAX_PICTURES
