import re

import pytest

from gateway.settings import Settings
from tests.doors import header, make_app, sign_in
from tests.pictures import paint
from tests.unit.gateway.test_app import FixedPredictor, client, post

OWN, OTHER = "https://localhost", "https://evil.example"
PATHS = ("/", "/check", "/model", "/nothing", "/api/v1/nothing", "/health/live", "/metrics", "/static/portal.css")

SIGNS = [
    ({"Sec-Fetch-Site": "same-origin"}, True),
    ({"Sec-Fetch-Site": "none"}, True),
    ({"Sec-Fetch-Site": "same-site"}, False),
    ({"Sec-Fetch-Site": "cross-site"}, False),
    ({"Sec-Fetch-Site": "cross-site", "Origin": OWN}, False),
    ({"Origin": OWN}, True),
    ({"Origin": OTHER}, False),
    ({"Origin": "null"}, False),
    ({"Origin": "http://localhost"}, False),
    ({"Origin": "https://localhost.evil.example"}, False),
    ({"Origin": "https://localhost:444"}, False),
    ({"Origin": OTHER, "Referer": f"{OWN}/check"}, False),
    ({"Referer": f"{OWN}/check"}, True),
    ({"Referer": f"{OTHER}/{OWN}"}, False),
    ({}, False),
]


@pytest.mark.parametrize(("signs", "is_own"), SIGNS, ids=str)
def test_what_a_session_sends_has_to_come_from_our_own_page(tmp_path, signs, is_own):
    person = sign_in(make_app(tmp_path, FixedPredictor(), "oidc"))
    site = person.environ_base.pop("HTTP_SEC_FETCH_SITE")

    for path in ("/check", "/language", "/api/v1/classifications", "/sign-out"):
        response = post(person, paint(), path, headers=signs)
        assert (response.status_code != 403) == is_own, path
        if not is_own and path.startswith("/api"):
            assert response.get_json(force=True)["type"] == "/problems/cross-site"

    person.environ_base["HTTP_SEC_FETCH_SITE"] = site
    assert person.get("/check").status_code == (303 if is_own else 200)


def test_a_key_is_a_programs_and_needs_no_sign(tmp_path):
    app = make_app(tmp_path, FixedPredictor(), "keys,oidc")

    for signs in ({}, {"Origin": OTHER}, {"Sec-Fetch-Site": "cross-site"}):
        assert post(app.test_client(), paint(), headers=header() | signs).status_code == 200


@pytest.mark.parametrize("path", ["/check", "/language", "/api/v1/classifications"])
def test_on_loopback_forms_and_programs_work_and_other_sites_do_not(path):
    for signs in ({}, {"Origin": "http://localhost"}, {"Sec-Fetch-Site": "same-origin"}, {"Referer": "http://localhost/check"}):
        assert post(client(), paint(), path, headers=signs).status_code in (200, 303)
    for signs in ({"Origin": OTHER}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}, {"Referer": OTHER}):
        assert post(client(), paint(), path, headers=signs).status_code == 403


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
    ],
)
def test_on_loopback_a_name_that_points_here_opens_nothing(tmp_path, host, status):
    assert client().get("/check", headers={"Host": host}).status_code == status
    with_keys = make_app(tmp_path, FixedPredictor(), "keys").test_client()
    assert with_keys.get("/health/live", headers={"Host": host}).status_code == 200


def test_reading_is_nobodys_business_to_refuse(tmp_path):
    person = sign_in(make_app(tmp_path, FixedPredictor(), "oidc"))
    person.environ_base["HTTP_SEC_FETCH_SITE"] = "cross-site"

    assert person.get("/check").status_code == 200


def test_every_script_of_a_page_has_the_nonce_of_its_answer():
    caller, nonces = client(), set()
    for path in ("/", "/check", "/model", "/nothing"):
        response = caller.get(path)
        nonce = re.search(r"script-src 'nonce-([\w-]+)' 'strict-dynamic'", response.headers["Content-Security-Policy"])[1]
        scripts = re.findall(r"<script\b[^>]*>", response.text)
        assert scripts
        assert all(f'nonce="{nonce}"' in script for script in scripts)
        nonces.add(nonce)

    assert len(nonces) == 4
    assert min(map(len, nonces)) >= 22


def test_the_policy_of_pages_allows_nothing_that_is_not_named():
    policy = dict(part.split(" ", 1) for part in client().get("/").headers["Content-Security-Policy"].split("; "))

    assert policy.keys() >= {"require-trusted-types-for", "style-src", "img-src", "connect-src"}
    assert {policy[name] for name in ("default-src", "object-src", "base-uri", "frame-ancestors")} == {"'none'"}
    assert policy["form-action"] == "'self'"


@pytest.mark.parametrize("path", ["/api/v1/nothing", "/health/live", "/metrics", "/static/portal.css"])
def test_what_is_no_page_may_do_nothing_as_one(path):
    with client().get(path) as response:
        assert response.headers["Content-Security-Policy"].startswith("default-src 'none'; ")
        assert "script-src" not in response.headers["Content-Security-Policy"]


def test_every_answer_closes_itself_to_other_sites(tmp_path):
    plain, secure = client(), make_app(tmp_path, FixedPredictor(), "oidc").test_client()
    for caller in (plain, secure):
        for path in PATHS:
            with caller.get(path) as response:
                headers = response.headers
            assert headers["X-Frame-Options"] == "DENY"
            assert headers["Referrer-Policy"] == "same-origin"
            for name in ("Opener", "Resource"):
                assert headers[f"Cross-Origin-{name}-Policy"] == "same-origin"
            assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
            assert ("Strict-Transport-Security" in headers) == (caller is secure)


def test_the_language_cookie_is_secure_where_the_site_is(tmp_path):
    for caller, is_secure in ((client(), False), (make_app(tmp_path, FixedPredictor(), "oidc").test_client(), True)):
        assert ("Secure" in caller.post("/language", data={"language": "en"}).headers["Set-Cookie"]) == is_secure


def test_the_settings_are_those_of_loopback_unless_told():
    assert not Settings().asks_who
    assert not Settings().is_https
