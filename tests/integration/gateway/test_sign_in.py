"""Signing in at a real provider, over real HTTP, to the gateway as it runs."""

from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from tests import doors, processes, signing_in
from tests.pictures import paint
from tests.signing_in import Person


@pytest.fixture(scope="module")
def hospital(tiny_server, tmp_path_factory):
    """Address of a gateway for people and programs, its program, and the provider's."""
    folder, port = tmp_path_factory.mktemp("hospital"), processes.free_port()
    with signing_in.provider(folder, f"http://127.0.0.1:{port}") as (provider, issuer):
        settings = signing_in.settings(folder, issuer, port)
        with processes.gateway(tiny_server[0], folder, **settings) as (program, address):
            yield address, program, provider


@pytest.fixture
def person(hospital):
    return Person(hospital[0])


def send(person, path="/api/v1/classifications", **kwargs):
    return person.post(path, data={"consent": "yes"}, files={"file": ("x.png", paint("malignant"))}, **kwargs)


@pytest.mark.parametrize(("login", "status"), [("clinician-1", 200), ("admin-1", 200), ("viewer-1", 403), ("cook-1", 403)])
def test_whoever_signs_in_may_what_their_role_says(person, login, status):
    refused = person.get("/check?x=1")
    assert (refused.status_code, refused.headers["Location"]) == (303, "/sign-in?next=/check?x%3D1")

    answer = person.sign_in(login, "/check?x=1")

    assert (answer.status_code, answer.headers["Location"]) == (303, "/check?x=1")
    assert person.get("/check").status_code == status
    assert login in person.get("/").text
    assert send(person, "/check").status_code == status
    assert send(person).status_code == status
    assert person.get("/metrics").status_code == (200 if login == "admin-1" else 403)


def test_the_gateway_asks_with_everything_that_protects_a_sign_in(person):
    page = person.post("/sign-in")
    question = parse_qs(urlsplit(signing_in._provider_link(page)).query)

    assert question["response_type"] == ["code"]
    assert question["code_challenge_method"] == ["S256"]
    assert question["redirect_uri"] == [f"{person.gateway}/sign-in/callback"]
    assert min(len(question[name][0]) for name in ("state", "nonce", "code_challenge")) >= 20


def test_signing_out_ends_both_sessions(person):
    person.sign_in("clinician-2")

    last = person.sign_out()

    assert urlsplit(last.url).path == "/signed-out"
    assert person.get("/check").status_code == 303
    # The provider asks for the name again.
    page = person.post("/sign-in")
    again = requests.get(signing_in._provider_link(page), cookies=person.cookies, timeout=30)
    assert 'name="login"' in again.text


def test_an_answer_opens_one_session_once_and_only_where_it_was_asked_for(hospital, person):
    callback = person.authorize("clinician-3")
    before = person.cookies.copy()
    attacker = Person(hospital[0])

    assert attacker.get(callback).status_code == 400
    assert person.get(callback.replace("state=", "state=x")).status_code == 400
    assert person.get(callback).status_code == 303
    assert person.get(callback).status_code == 400
    # With the cookie of then as well: the provider knows that the code is used.
    attacker.cookies.update(before)
    assert attacker.get(callback).status_code == 400
    assert attacker.get("/check").status_code == 303
    assert person.get("/check").status_code == 200


def test_no_is_an_answer_too(person):
    page = person.get("/sign-in/callback?error=access_denied&error_description=<script>&state=x")

    assert page.status_code == 400
    assert "<script>" not in page.text.partition("<body>")[2]


def test_a_cookie_is_worth_nothing_on_a_page_of_others(person):
    person.sign_in("clinician-4")

    assert send(person, origin="https://evil.example").status_code == 403
    assert send(person, origin="null").status_code == 403
    assert send(person).status_code == 200


def test_programs_show_keys_and_probes_show_nothing(hospital):
    address, _, _ = hospital

    def classify(**headers):
        return requests.post(
            f"{address}/api/v1/classifications", files={"file": ("x.png", paint())}, headers=headers, timeout=30
        )

    assert classify(**doors.header()).status_code == 200
    assert classify(**doors.header(key="x")).status_code == 401
    assert classify().status_code == 401
    assert requests.get(f"{address}/metrics", headers=doors.header("prometheus"), timeout=30).status_code == 200
    assert requests.get(f"{address}/metrics", timeout=30).status_code == 401
    for probe in ("live", "ready"):
        assert requests.get(f"{address}/health/{probe}", timeout=30).status_code == 200


def test_neither_keys_nor_sessions_get_into_the_log(hospital, person):
    callback = person.authorize("clinician-5")
    person.get(callback)
    send(person)
    requests.get(f"{person.gateway}/metrics?key={doors.SECRET}", headers=doors.header("prometheus"), timeout=30)
    output = hospital[1].output

    assert '"identity": "person:clinician-5"' in output
    assert '"identity": "key:prometheus"' in output
    secrets = [doors.SECRET, signing_in.CLIENT_SECRET, *parse_qs(urlsplit(callback).query)["code"]]
    secrets += [cookie.value for cookie in person.cookies if cookie.name == "dermserve"]
    assert len(secrets) == 4
    assert not [secret for secret in secrets if secret in output]


def test_without_the_provider_nobody_gets_in_and_everything_else_goes_on(tiny_server, tmp_path):
    port = processes.free_port()
    settings = signing_in.settings(tmp_path, f"http://127.0.0.1:{processes.free_port()}", port)
    with processes.gateway(tiny_server[0], tmp_path, GATEWAY_WORKERS="1", **settings) as (program, address):
        page = Person(address).post("/sign-in")

        assert (page.status_code, page.headers["Retry-After"]) == (503, "2")
        assert "Halaman masuk rumah sakit tidak dapat dihubungi" in page.text
        assert requests.get(f"{address}/health/ready", timeout=30).ok
        assert "provider does not answer: ConnectionError" in program.output
