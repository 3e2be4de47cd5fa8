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
from gateway.api_keys import ApiKeys
from gateway.app import Doors, create_app
from gateway.audit.verification import verify
from gateway.identity import PERMISSIONS
from gateway.rate_limits import RateLimits
from gateway.settings import KEYS, Settings
from tests import doors, processes
from tests.pictures import paint
from tests.processes import ROOT
from tests.unit.gateway.test_app import FixedPredictor
from tests.unit.gateway.test_cases_api import ListAudit, MemoryStore

PATH = ROOT / "docs" / "openapi.yaml"
DOCUMENT = yaml.safe_load(PATH.read_text())
PREFIXES = ("/api/", "/health/", "/metrics", "/problems/")
METHODS = {"get", "post", "put", "patch", "delete"}
EXAMPLES = 12
"""Of each operation, beside the edge cases that its schema gives."""


EVERYTHING = doors.header("everything")
OTHERWISE = {"/metrics": doors.header("portal")}
"""Keys without the permission that an operation takes: of most, `prometheus`."""

ELSEWHERE = {"no-consent", "sign-in-failed", "provider-unavailable"}
"""Problems of the portal alone."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("gateway")


@pytest.fixture(scope="module")
def address(tiny_server, folder):
    """As a hospital runs it: with keys, an audit record, a case record and Redis."""
    keys = doors.write_keys(
        folder / "keys.json", everything=" ".join(PERMISSIONS), portal="classify", prometheus="read_metrics"
    )
    cases = {"GATEWAY_CASES_DATABASE": f"sqlite:///{folder}/cases.db"}
    upgrade = [sys.executable, "-m", "gateway.cases", "upgrade"]
    subprocess.run(upgrade, cwd=ROOT, env=os.environ | cases, check=True, capture_output=True)
    settings = {
        "GATEWAY_IDENTITY": "keys",
        "GATEWAY_API_KEYS_FILE": str(keys),
        "GATEWAY_AUDIT_FILE": str(folder / "audit.jsonl"),
    }
    with (
        processes.redis_server(folder) as (_, port),
        processes.gateway(tiny_server[0], folder, **settings, **cases, GATEWAY_REDIS_URL=f"redis://127.0.0.1:{port}/0") as (
            _,
            address,
        ),
    ):
        yield address


def make_app(folder, audit=None, store=None, **settings):
    """Every route that there is, without a socket."""
    keys = doors.write_keys(folder / "keys.json", everything=" ".join(PERMISSIONS))
    values = Settings(identity=KEYS, api_keys_file=str(keys), **settings)
    opened = Doors(ApiKeys(keys), None, RateLimits(values, None).init_app)
    return create_app(values, FixedPredictor(), opened, None, audit or ListAudit(), store or MemoryStore())


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


def guarded():
    return [pytest.param(*entry, id=f"{entry[1]} {entry[0]}") for entry in operations() if entry[2]["security"]]


def template(rule):
    return re.sub(r"<(\w+)>", r"{\1}", rule.rule)


def address_of(path):
    return path.format(id="0" * 32, slug="overloaded")


def named_in(text):
    return set(re.findall(r"`([a-z]+(?:-[a-z]+)*)`", text)) & problems.BY_SLUG.keys()


def is_as_documented(operation, status, headers, document):
    """A problem that an operation gives stands under its status, in its form, with its headers."""
    response = resolved(operation["responses"][str(status)])
    content = response["content"][headers["Content-Type"]]
    OAS31Validator({**content["schema"], "components": DOCUMENT["components"]}).validate(document)
    for name, header in ((name, resolved(header)) for name, header in response["headers"].items()):
        assert name in headers or not header.get("required")
        if name in headers:
            OAS31Validator(header["schema"]).validate(headers[name])
    coding = document.get("issue", [{}])[0].get("details", {}).get("coding", [{}])[0]
    slug = coding.get("code") or document["type"].rpartition("/")[2]
    assert slug in named_in(response["description"])
    return slug


def examples():
    for path, method, operation in operations():
        for status, response in operation["responses"].items():
            for media_type, content in resolved(response).get("content", {}).items():
                for name, example in content.get("examples", {}).items():
                    yield pytest.param(content["schema"], example["value"], id=f"{method} {path} {status} {media_type} {name}")


def test_the_document_is_valid():
    validate(DOCUMENT)


def test_every_route_is_in_the_document_and_no_other(tmp_path):
    routes = {
        (template(rule), method.lower())
        for rule in make_app(tmp_path).url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
        if rule.rule.startswith(PREFIXES)
    }

    assert routes == {(path, method) for path, method, _ in operations()}


def test_what_needs_a_case_record_is_not_there_without_one_and_the_document_says_so():
    rules = {template(rule) for rule in create_app(Settings(), FixedPredictor()).url_map.iter_rules()}

    assert {path for path, _, operation in operations() if operation["tags"] == ["cases"]} == DOCUMENT["paths"].keys() - rules
    assert "GATEWAY_CASES_DATABASE" in DOCUMENT["info"]["description"]


def test_what_is_guarded_is_guarded_in_the_document_too_and_by_the_same_permission(tmp_path):
    app = make_app(tmp_path)
    for path, method, operation in operations():
        (rule,) = [rule for rule in app.url_map.iter_rules() if template(rule) == path and method.upper() in rule.methods]
        guard = app.view_functions[rule.endpoint].__guard__
        permissions = [] if guard == "public" else [guard]
        if operation["operationId"] == "keepCase":
            permissions.append("classify")
        assert operation["security"] == ([{"apiKey": permissions}, {"session": permissions}] if permissions else [])
        assert all(f"`{permission}`" in operation["description"] for permission in permissions)
        assert {"403", "429", "500"} <= operation["responses"].keys()
        # A refusal is recorded too.
        assert not permissions or {"401", "503"} <= operation["responses"].keys()


def test_every_problem_is_in_the_document_under_its_status_and_no_other():
    named = named_in(DOCUMENT["info"]["description"])
    for _, _, operation in operations():
        for status, response in operation["responses"].items():
            text = resolved(response)["description"]
            for slug in re.findall(r"`([a-z]+(?:-[a-z]+)+)`", text) if int(status) >= 400 else ():
                assert problems.BY_SLUG[slug].status == int(status)
            named |= named_in(text)

    assert named == problems.BY_SLUG.keys() - ELSEWHERE


def test_every_problem_that_the_code_can_tell_has_an_address():
    told = {*problems.TABLE.values(), *(value for value in vars(problems).values() if isinstance(value, problems.Problem))}

    assert {problem.slug for problem in told} == problems.BY_SLUG.keys()


@pytest.mark.parametrize(("path", "method", "operation"), guarded())
def test_whoever_may_not_is_told_as_the_document_says(address, path, method, operation):
    url = address + address_of(path)

    stranger = requests.request(method, url, timeout=10)
    other = requests.request(method, url, headers=OTHERWISE.get(path, doors.header("prometheus")), timeout=10)

    assert is_as_documented(operation, stranger.status_code, stranger.headers, stranger.json()) == "not-signed-in"
    assert is_as_documented(operation, other.status_code, other.headers, other.json()) == "not-permitted"


@pytest.mark.parametrize(("path", "method", "operation"), guarded())
def test_a_refusal_that_cannot_be_recorded_is_told_as_the_document_says(tmp_path, path, method, operation):
    audit = ListAudit()
    audit.fails = True

    wrong = (
        make_app(tmp_path, audit).test_client().open(address_of(path), method=method, headers=doors.header("everything", "x"))
    )

    assert is_as_documented(operation, wrong.status_code, wrong.headers, wrong.get_json(force=True)) == "audit-unavailable"


@pytest.mark.parametrize("header", [doors.header("everything", "x"), EVERYTHING], ids=["wrong key", "right key"])
@pytest.mark.parametrize(
    ("path", "method", "operation"), [pytest.param(*entry, id=f"{entry[1]} {entry[0]}") for entry in operations()]
)
def test_whoever_asks_too_often_is_told_as_the_document_says(tmp_path, header, path, method, operation):
    caller = make_app(tmp_path, rate_limit="1 per hour").test_client()
    headers = {"Accept": "application/json", **header}

    answers = [caller.open(address_of(path), method=method, headers=headers) for _ in range(31 if header != EVERYTHING else 2)]

    # With the right key those are limited that classify or write.
    is_limited = header != EVERYTHING or method == "post"
    assert (answers[-1].status_code == 429) == is_limited
    if is_limited:
        last = answers[-1]
        assert is_as_documented(operation, last.status_code, last.headers, last.get_json(force=True)) == "too-many-requests"
        assert {"Retry-After", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"} <= set(last.headers.keys())


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

    answer = requests.post(address + path, files={"file": ("x", picture)}, headers=EVERYTHING | headers, timeout=30)

    assert answer.status_code == status
    assert is_as_documented(DOCUMENT["paths"][path]["post"], status, answer.headers, answer.json())


@pytest.mark.parametrize(
    ("pictures", "headers", "status"),
    [
        ([], {}, 400),
        ([paint()], {"Idempotency-Key": "8e03978e-40d5-43dd"}, 400),
        ([paint(size=(5001, 5001))], {}, 413),
        ([b"text"], {}, 415),
        ([paint()[:60]], {}, 422),
        ([paint()] * 2, {}, 422),
    ],
)
def test_every_refusal_of_a_picture_for_a_case_is_in_the_document(address, pictures, headers, status):
    path = "/api/v1/cases"
    files = [("file", ("x", picture)) for picture in pictures]

    answer = requests.post(address + path, files=files, headers=EVERYTHING | headers, timeout=30)

    assert answer.status_code == status
    assert is_as_documented(DOCUMENT["paths"][path]["post"], status, answer.headers, answer.json())


def test_the_gateway_answers_as_the_document_says(address, folder, tmp_path):
    """What it allows, what it does not allow, and the edges of both; every check of schemathesis, none left out."""
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", str(PATH), f"--url={address}"]
    # From the file: of the document that it has fetched it leaves out the address.
    command += ["--checks=all", f"--header=Authorization: {EVERYTHING['Authorization']}"]
    command += [f"--max-examples={EXAMPLES}", "--generation-deterministic", "--continue-on-failure", "--no-color"]
    environment = os.environ | {"SCHEMATHESIS_HOOKS": "tests.schemathesis_hooks", "PYTHONPATH": str(ROOT)}

    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120)

    assert run.returncode == 0, run.stdout + run.stderr
    assert f"Tested: {len(operations())}" in run.stdout
    generated = re.search(r"(\d+) generated, \1 passed", run.stdout)
    assert generated, run.stdout
    assert int(generated[1]) > 200
    # What it has done went by the record.
    assert verify([folder / "audit.jsonl"]).records > 200
