import io

import pytest

from gateway.app import create_app
from gateway.identity import PERMISSIONS, PUBLIC, ROLES, guard_of, public
from gateway.sessions import Person
from gateway.settings import Settings
from tests import doors
from tests.doors import header, make_app, sign_in
from tests.pictures import paint
from tests.unit.gateway.test_app import FixedPredictor, post

PUBLIC_ENDPOINTS = {"static", "health.live", "health.ready", "portal.home", "portal.model", "portal.language"}
PUBLIC_ENDPOINTS |= {"portal.services", "portal.privacy", "portal.guide"}
PUBLIC_ENDPOINTS |= {"reference.openapi", "reference.model", "reference.problem"}
"""Everything a stranger gets an answer from. Whoever adds to it has thought about it."""

SIGN_IN_ENDPOINTS = {"sign_in.page", "sign_in.begin", "sign_in.finish", "sign_in.sign_out", "sign_in.signed_out"}
WAYS = ["none", "keys", "oidc", "keys,oidc"]


@pytest.fixture
def app():
    return create_app(Settings(), FixedPredictor())


class UnreadBody(io.BytesIO):
    def read(self, *_):
        pytest.fail("the upload was read")

    readline = readinto = read


def requests_of(app):
    """Every route with each of its methods, with something in the place of its variables."""
    with app.test_request_context():
        for rule in app.url_map.iter_rules():
            address = app.url_map.bind("localhost").build(rule.endpoint, dict.fromkeys(rule.arguments, 1), force_external=False)
            for method in rule.methods - {"HEAD"}:
                yield rule.endpoint, method, address


@pytest.mark.parametrize("ways", WAYS)
def test_every_route_says_whom_it_answers(ways, tmp_path):
    app = make_app(tmp_path, FixedPredictor(), ways)
    guards = {rule.endpoint: guard_of(app, rule.endpoint) for rule in app.url_map.iter_rules()}

    assert set(guards.values()) <= {*PERMISSIONS, PUBLIC}
    strangers = {endpoint for endpoint, guard in guards.items() if guard == PUBLIC}
    assert strangers == PUBLIC_ENDPOINTS | (SIGN_IN_ENDPOINTS if "oidc" in ways else set())


@pytest.mark.parametrize("ways", ["keys", "oidc", "keys,oidc"])
@pytest.mark.parametrize(
    "shown",
    [
        {},
        header(key="x" * 43),
        header(name="unknown"),
        {"Authorization": "Basic cG9ydGFsOnNz"},
        {"Authorization": "Bearer"},
        {"Cookie": "__Host-dermserve=e30.x.y; dermserve=e30.x.y"},
    ],
    ids=["nothing", "wrong secret", "unknown key", "password", "empty", "cookie"],
)
def test_no_guarded_route_answers_a_stranger(ways, shown, tmp_path):
    app = make_app(tmp_path, FixedPredictor(), ways)
    guarded = [route for route in requests_of(app) if guard_of(app, route[0]) != PUBLIC]
    assert len({endpoint for endpoint, _, _ in guarded}) >= 4

    for endpoint, method, address in guarded:
        response = app.test_client().open(
            address, method=method, headers=shown, input_stream=UnreadBody(b"x"), content_type="multipart/form-data; boundary=x"
        )
        is_page = endpoint.startswith(("portal.", "check."))
        if "oidc" in ways and is_page and method == "GET":
            assert (response.status_code, response.headers["Location"]) == (303, f"/sign-in?next={address}"), endpoint
        else:
            assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, "Bearer"), endpoint
            assert is_page or response.get_json(force=True)["type"] == "/problems/not-signed-in"
        assert response.headers["Cache-Control"] == "no-store"


def test_whatever_is_wrong_with_a_key_the_answer_is_the_same(tmp_path):
    app = make_app(tmp_path, FixedPredictor(), "keys")
    answers = []
    for shown in ({}, header(key="x"), header(name="unknown"), {"Authorization": "Bearer dsk_"}):
        response = app.test_client().get("/metrics", headers=shown | {"X-Request-ID": "the-same-id"})
        headers = [(name, value) for name, value in response.headers if not name.startswith("RateLimit")]
        answers.append((response.status_code, response.data, headers))

    assert all(answer == answers[0] for answer in answers)


def test_a_key_opens_what_it_is_for_and_nothing_else(tmp_path):
    app = make_app(tmp_path, FixedPredictor(), "keys,oidc")

    assert post(app.test_client(), paint(), headers=header()).status_code == 200
    assert app.test_client().get("/metrics", headers=header("prometheus")).status_code == 200
    refused = post(app.test_client(), paint(), headers=header("prometheus"))
    assert (refused.status_code, refused.get_json(force=True)["type"]) == (403, "/problems/not-permitted")


def test_a_key_in_the_address_or_in_a_form_is_no_key(tmp_path):
    app = make_app(tmp_path, FixedPredictor(), "keys")
    key = header()["Authorization"].removeprefix("Bearer ")

    for name in ("key", "api_key", "access_token", "authorization"):
        assert post(app.test_client(), paint(), f"/api/v1/classifications?{name}={key}").status_code == 401
        assert app.test_client().post("/api/v1/classifications", data={name: key}).status_code == 401


def test_keys_are_no_way_in_where_they_are_not_set(tmp_path):
    app = make_app(tmp_path, FixedPredictor(), "oidc")

    assert post(app.test_client(), paint(), headers=header()).status_code == 401


def test_a_wrong_key_is_not_made_up_for_by_a_session(tmp_path):
    person = sign_in(make_app(tmp_path, FixedPredictor(), "keys,oidc"))

    assert post(person, paint()).status_code == 200
    assert post(person, paint(), headers=header(key="x")).status_code == 401


@pytest.mark.parametrize("role", ["viewer", "clinician", "admin", ""])
def test_what_each_role_may(role, tmp_path):
    app = make_app(tmp_path, FixedPredictor(), "oidc", doors.FakeProvider(Person("4711", (role, "unknown"))))
    person = sign_in(app)

    for endpoint, method, address in requests_of(app):
        guard = guard_of(app, endpoint)
        if guard == PUBLIC or method == "OPTIONS":
            continue
        is_allowed = guard in ROLES.get(role, ())
        assert (person.open(address, method=method).status_code == 403) != is_allowed, (role, endpoint)


def test_roles_hold_the_permissions_that_were_decided():
    assert ROLES["admin"] == set(PERMISSIONS)
    assert ROLES["clinician"] == {"classify", "read_cases", "write_cases"}
    assert ROLES["viewer"] == {"read_cases"}


def test_a_route_that_does_not_say_is_closed(app):
    app.add_url_rule("/forgotten", "forgotten", lambda: "secret")
    app.add_url_rule("/open", "open", public(lambda: "public"))

    assert app.test_client().get("/forgotten").status_code == 500
    assert app.test_client().get("/open").text == "public"
