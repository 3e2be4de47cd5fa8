"""docs/openapi.yaml against the gateway: the document is the truth, so a difference is mended in the gateway."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import requests
import yaml
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate

from gateway import problems
from gateway.app import create_app
from gateway.settings import Settings
from tests import processes
from tests.pictures import paint
from tests.processes import ROOT
from tests.unit.gateway.test_app import FixedPredictor

PATH = ROOT / "docs" / "openapi.yaml"
DOCUMENT = yaml.safe_load(PATH.read_text())
PREFIXES = ("/api/", "/health/", "/metrics", "/problems/")
METHODS = {"get", "post", "put", "patch", "delete"}
EXAMPLES = 25
"""Of each operation, beside the edge cases that its schema gives."""


@pytest.fixture(scope="module")
def address(tiny_server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gateway")
    with (
        processes.redis_server(folder) as (_, port),
        processes.gateway(tiny_server[0], folder, GATEWAY_REDIS_URL=f"redis://127.0.0.1:{port}/0") as (_, address),
    ):
        yield address


def operations():
    return [
        (path, method, operation)
        for path, item in DOCUMENT["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    ]


def resolved(node):
    while "$ref" in node:
        target = DOCUMENT
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = target
    return node


def examples():
    for path, method, operation in operations():
        for status, response in operation["responses"].items():
            for media_type, content in resolved(response).get("content", {}).items():
                for name, example in content.get("examples", {}).items():
                    yield pytest.param(content["schema"], example["value"], id=f"{method} {path} {status} {media_type} {name}")


def test_the_document_is_valid():
    validate(DOCUMENT)


def test_every_route_is_in_the_document_and_no_other():
    rules = create_app(Settings(), FixedPredictor()).url_map.iter_rules()
    routes = {
        (re.sub(r"<(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in rules
        for method in rule.methods - {"HEAD", "OPTIONS"}
        if rule.rule.startswith(PREFIXES)
    }

    assert routes == {(path, method) for path, method, _ in operations()}


def test_what_is_guarded_is_guarded_in_the_document_too():
    app = create_app(Settings(), FixedPredictor())
    for path, _, operation in operations():
        rule = next(rule for rule in app.url_map.iter_rules() if re.sub(r"<(\w+)>", r"{\1}", rule.rule) == path)
        is_public = app.view_functions[rule.endpoint].__guard__ == "public"
        assert operation["security"] == ([] if is_public else [{}, {"apiKey": []}, {"session": []}])
        assert is_public or {"401", "403", "429"} <= operation["responses"].keys()


def test_every_problem_that_the_document_names_exists_with_the_status_it_stands_under():
    named = set()
    for _, _, operation in operations():
        for status, response in operation["responses"].items():
            text = resolved(response)["description"]
            for slug in re.findall(r"`([a-z]+(?:-[a-z]+)*)`", text) if int(status) >= 400 else ():
                assert problems.BY_SLUG[slug].status == int(status)
                named.add(slug)

    # The rest belongs to the portal, to identities, or to addresses that are not there.
    assert {problem.slug for error, problem in problems.TABLE.items() if error.__name__.startswith(("Idem", "Model"))} <= named


@pytest.mark.parametrize(("schema", "example"), list(examples()))
def test_every_example_is_what_its_schema_says(schema, example):
    OAS31Validator({**schema, "components": DOCUMENT["components"]}).validate(example)


def test_it_is_served_as_it_is(address):
    response = requests.get(f"{address}/api/v1/openapi.yaml", timeout=10)

    assert (response.content, response.headers["Content-Type"]) == (PATH.read_bytes(), "application/yaml")


@pytest.mark.parametrize(
    ("picture", "headers", "status"),
    [
        (b"", {}, 400),
        (paint(), {"Idempotency-Key": "short"}, 400),
        (paint(), {"Accept": "image/png"}, 406),
        (paint(size=(5001, 5001)), {}, 413),
        (b"text", {}, 415),
        (b"text", {"Accept": "application/fhir+json"}, 415),
        (paint()[:60], {}, 422),
        (paint(size=(20, 20)), {}, 422),
    ],
)
def test_every_refusal_of_a_picture_is_in_the_document(address, picture, headers, status):
    """What schemathesis does not send, for it cannot know what a picture is."""
    path = "/api/v1/classifications"

    answer = requests.post(address + path, files={"file": ("x", picture)}, headers=headers, timeout=30)

    assert answer.status_code == status
    response = resolved(DOCUMENT["paths"][path]["post"]["responses"][str(status)])
    content = response["content"][answer.headers["Content-Type"]]
    OAS31Validator({**content["schema"], "components": DOCUMENT["components"]}).validate(answer.json())
    assert answer.json().get("resourceType") or f"`{answer.json()['type'].rpartition('/')[2]}`" in response["description"]


def test_the_gateway_answers_as_the_document_says(address, tmp_path):
    """What it allows, what it does not allow, and the edges of both; every check of schemathesis, none left out."""
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", str(PATH), f"--url={address}"]
    # From the file: of the document that it has fetched it leaves out the address.
    command += ["--checks=all"]
    command += [f"--max-examples={EXAMPLES}", "--generation-deterministic", "--continue-on-failure", "--no-color"]
    environment = os.environ | {"SCHEMATHESIS_HOOKS": "tests.schemathesis_hooks", "PYTHONPATH": str(ROOT)}

    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120)

    assert run.returncode == 0, run.stdout + run.stderr
    assert f"Tested: {len(operations())}" in run.stdout
    generated = re.search(r"(\d+) generated, \1 passed", run.stdout)
    assert generated, run.stdout
    assert int(generated[1]) > 200
