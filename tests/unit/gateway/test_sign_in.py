import json
import re
import time

import pytest
from itsdangerous import TimestampSigner
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from gateway import auditing
from gateway.errors import ProviderUnavailable, SignInFailed
from gateway.sessions import IDLE_S, LONGEST_S, Person
from gateway.settings import SettingsError
from tests import doors
from tests.doors import FakeProvider, browser, make_app, sign_in
from tests.pictures import paint
from tests.unit.gateway.test_app import FixedPredictor, post
from tests.unit.gateway.test_cases_api import ListAudit

COOKIE = "__Host-dermserve"


@pytest.fixture
def make(tmp_path):
    def make(provider=None, **settings):
        return make_app(tmp_path, FixedPredictor(), "oidc", provider, **settings)

    return make


def age(person, **seconds):
    """As if the session's times were so long ago."""
    with person.session_transaction() as session:
        for name, value in seconds.items():
            session[name] -= value


def test_signing_in_leads_to_where_one_wanted_to_go(make):
    provider = FakeProvider()
    app = make(provider)
    stranger = browser(app)
    refused = stranger.get("/check?x=1")
    page = stranger.get(refused.headers["Location"])
    assert 'name="next" value="/check?x=1"' in page.text

    handed_over = stranger.post("/sign-in", data={"next": "/check?x=1"})

    assert f'content="0; url={doors.PROVIDER_URL}"' in handed_over.text
    assert provider.redirect_uri == f"{doors.PUBLIC_URL}/sign-in/callback"
    assert stranger.get("/sign-in/callback?code=1").headers["Location"] == "/check?x=1"
    assert stranger.get("/check").status_code == 200


@pytest.mark.parametrize(
    "path", ["//evil.example", "/\\evil.example", "https://evil.example/", "/\n/evil.example", "/" + 500 * "a", ""]
)
def test_signing_in_leads_to_this_site_only(make, path):
    person = browser(make())
    person.post("/sign-in", data={"next": path})

    assert person.get("/sign-in/callback?code=1").headers["Location"] == "/"
    assert "evil" not in person.get("/sign-in", query_string={"next": path}).text


def test_the_cookie_is_closed_to_scripts_other_sites_and_other_hosts(make):
    person = browser(make())
    person.post("/sign-in")
    answer = person.get("/sign-in/callback?code=1")

    name, *attributes = answer.headers["Set-Cookie"].replace(" ", "").split(";")
    assert name.startswith(f"{COOKIE}=")
    assert set(attributes) == {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"}
    assert "no-store" in answer.headers["Cache-Control"]


def test_without_tls_the_cookie_has_another_name(make):
    person = make(public_url="http://127.0.0.1:8000").test_client()
    person.post("/sign-in")
    cookie = person.get("/sign-in/callback?code=1").headers["Set-Cookie"]

    assert cookie.startswith("dermserve=")
    assert "Secure" not in cookie


def test_the_session_holds_account_role_and_times_only(make):
    person = sign_in(make(FakeProvider(Person("4711", ("viewer", "admin", "x")))))

    with person.session_transaction() as session:
        assert {**session} == {"account": "4711", "role": "admin", "began": session["began"], "used": session["used"]}
        assert abs(time.time() - session["began"]) < 60


@pytest.mark.parametrize("subject", ["budi@hospital.example", "Budi Santoso", "x" * 300, "a\nb"])
def test_what_may_be_a_name_or_an_address_is_kept_as_a_hash(make, subject):
    with capture_logs() as lines:
        person = sign_in(make(FakeProvider(Person(subject, ("clinician",)))))
        page = person.get("/check").text

    assert re.search(r"sha256-[0-9a-f]{32}", page)
    assert {line["identity"] for line in lines if line.get("route") == "/check"} == {
        f"person:{re.search('sha256-[0-9a-f]*', page)[0]}"
    }
    assert subject not in json.dumps(lines) + page


@pytest.mark.parametrize(
    ("seconds", "status"),
    [
        ({"used": IDLE_S - 60}, 200),
        ({"used": IDLE_S}, 303),
        ({"began": LONGEST_S - 60}, 200),
        ({"began": LONGEST_S}, 303),
        ({"used": -60}, 303),
    ],
)
def test_a_session_ends_unused_and_after_a_shift(make, seconds, status):
    person = sign_in(make())
    age(person, **seconds)

    assert person.get("/check").status_code == status


@pytest.mark.parametrize(("name", "status"), [("used", 303), ("began", 303), ("role", 403)])
def test_a_session_that_lacks_something_opens_nothing(make, name, status):
    person = sign_in(make())
    with person.session_transaction() as session:
        del session[name]

    assert person.get("/check").status_code == status


def test_use_keeps_a_session_alive_but_never_longer_than_a_shift(make):
    person = sign_in(make())
    for _ in range(LONGEST_S // (IDLE_S - 100)):
        age(person, used=IDLE_S - 100, began=IDLE_S - 100)
        assert person.get("/check").status_code == 200
    age(person, used=IDLE_S - 100, began=IDLE_S - 100)

    assert person.get("/check").status_code == 303


def test_a_form_after_the_end_says_what_became_of_the_picture(make):
    person = sign_in(make())
    person.set_cookie("language", "en")
    age(person, used=IDLE_S)

    page = post(person, paint(), "/check")
    fragment = post(person, paint(), "/check", headers={"X-Fragment": "1"})
    machine = post(person, paint())

    assert page.status_code == fragment.status_code == machine.status_code == 401
    assert "it was not assessed and not kept. Sign in, then choose it again." in page.text
    assert 'href="/sign-in?next=/check"' in page.text
    assert "it is still chosen here" in fragment.text
    assert 'target="_blank"' in fragment.text
    assert fragment.headers["X-Fragment"] == "1"
    assert machine.get_json(force=True)["type"] == "/problems/not-signed-in"


def test_a_cookie_that_was_changed_or_signed_by_another_is_nobodys(make, tmp_path):
    app = make()
    person = sign_in(app)
    value = person.get_cookie(COOKIE).value
    payload, _, signature = value.rpartition(".")
    (tmp_path / "session.key").write_text("x" * 32)

    # Its first character: the last one has bits that decode to nothing.
    forged = ("B" if signature[0] == "A" else "A") + signature[1:]
    for cookie in (f"{payload}.{forged}", f"{payload[:-1]}.{signature}", payload, ""):
        stranger = browser(app)
        stranger.set_cookie(COOKIE, cookie)
        assert stranger.get("/check").status_code == 303


def test_a_new_first_key_opens_the_sessions_of_the_old_one_until_that_is_gone(make, tmp_path):
    value = sign_in(make()).get_cookie(COOKIE).value
    for keys, status in (("n" * 32 + "\n" + doors.SESSION_KEY, 200), ("n" * 32, 303)):
        app = make()
        (tmp_path / "session.key").write_text(keys)
        app.config["SECRET_KEY"], *app.config["SECRET_KEY_FALLBACKS"] = keys.encode().split()
        person = browser(app)
        person.set_cookie(COOKIE, value)
        assert person.get("/check").status_code == status


def test_nothing_of_the_session_before_is_left_after_signing_in(make):
    """Session fixation: what somebody has planted is gone."""
    victim = browser(make())
    with victim.session_transaction() as session:
        session.update(account="attacker", role="admin", began=int(time.time()), used=int(time.time()), planted="x")
    planted = victim.get_cookie(COOKIE).value

    victim.post("/sign-in")
    victim.get("/sign-in/callback?code=1")

    assert victim.get_cookie(COOKIE).value != planted
    with victim.session_transaction() as session:
        assert session["account"] == "4711"
        assert "planted" not in session


def test_beginning_to_sign_in_ends_the_session_of_before(make):
    """On a shared computer the next person must not fall back into it when they give up."""
    person = sign_in(make())

    person.post("/sign-in")

    assert person.get("/check").status_code == 303


def test_signing_out_drops_the_cookie_and_goes_to_the_provider(make):
    person = sign_in(make())

    answer = person.post("/sign-out")

    assert "https://provider.example/end?return=https://localhost/signed-out" in answer.text
    assert f"{COOKIE}=;" in answer.headers["Set-Cookie"]
    assert person.get("/check").status_code == 303
    assert person.get("/signed-out").status_code == 200
    assert person.get("/sign-out").status_code == 405


def test_without_the_provider_one_still_signs_out(make):
    provider = FakeProvider()
    person = sign_in(make(provider))
    provider.error = ProviderUnavailable("x")

    assert person.post("/sign-out").headers["Location"] == "/signed-out"
    assert person.get("/check").status_code == 303


@pytest.mark.parametrize(
    ("error", "status", "slug", "result"),
    [
        (SignInFailed("x"), 400, "sign-in-failed", "failed"),
        (ProviderUnavailable("x"), 503, "provider-unavailable", "unavailable"),
    ],
)
def test_a_sign_in_that_fails_is_told_counted_and_leads_on(make, error, status, slug, result):
    def counted(name, **labels):
        return REGISTRY.get_sample_value(f"dermserve_gateway_{name}_total", labels) or 0

    before = counted("sign_ins", result=result), counted("problems", problem=slug)
    person = browser(make(FakeProvider(error=error)))

    answer = person.get("/sign-in/callback?code=1")

    assert answer.status_code == status
    assert 'href="/sign-in?next=/check"' in answer.text
    assert (counted("sign_ins", result=result), counted("problems", problem=slug)) == (before[0] + 1, before[1] + 1)
    assert person.get("/check").status_code == 303
    assert person.get("/health/ready").status_code == 200


def test_whoever_has_no_role_is_told_what_to_do(make):
    person = sign_in(make(FakeProvider(Person("4711", ("cook",)))))
    person.set_cookie("language", "en")

    page = person.get("/check")

    assert page.status_code == 403
    assert "your account has no role in Dermserve yet. Ask the hospital's IT staff" in page.text
    assert "Signed in, without a role" in page.text


def test_pages_say_who_is_signed_in_and_are_not_stored(make):
    app = make()
    person = sign_in(app)
    for client in (person, stranger := browser(app)):
        client.set_cookie("language", "en")

    assert "Signed in: clinician" in person.get("/").text
    assert "no-store" in person.get("/").headers["Cache-Control"]
    assert "Signed in" not in stranger.get("/").text
    assert 'href="/sign-in?next=/model"' in stranger.get("/model").text
    with person.get("/static/portal.css") as style:
        assert "Cookie" not in style.headers.get("Vary", "")


def test_logs_hold_the_account_and_neither_key_nor_session(tmp_path):
    app = make_app(tmp_path, FixedPredictor(), "keys,oidc")
    with capture_logs() as lines:
        person = sign_in(app)
        post(person, paint())
        post(app.test_client(), paint(), headers=doors.header())
        post(app.test_client(), paint(), headers=doors.header("other"))
    cookie = person.get_cookie(COOKIE).value

    text = json.dumps(lines)
    assert doors.SECRET not in text
    assert cookie not in text
    assert cookie.rpartition(".")[2] not in text
    names = [line["identity"] for line in lines if line.get("route") == "/api/v1/classifications"]
    assert names == ["person:4711", "key:portal", "stranger"]


@pytest.mark.parametrize("keys", ["", "short\n", "k" * 32 + "\nshort", None])
def test_the_session_keys_have_to_be_there_and_long(make, tmp_path, keys):
    with pytest.raises(SettingsError, match="SESSION_KEY_FILE"):
        make(session_key_file=str(_write(tmp_path, keys)))


def _write(folder, keys):
    path = folder / "other.key"
    if keys is not None:
        path.write_text(keys)
    return path


def test_signing_in_and_out_are_recorded(make):
    app, audit = make(), ListAudit()
    auditing.init_app(app, audit)

    person = sign_in(app)
    person.post("/sign-out")
    person.post("/sign-out")

    (name,) = {event.who for event in audit.events}
    assert name.startswith("person:")
    assert audit.told() == [("sign_in", "done"), ("sign_out", "done")]


def test_a_sign_in_that_fails_is_recorded(make):
    app, audit = make(FakeProvider(error=SignInFailed("x"))), ListAudit()
    auditing.init_app(app, audit)

    with capture_logs():
        browser(app).get("/sign-in/callback?code=1")

    assert audit.told() == [("sign_in", "sign-in-failed")]


def test_nobody_is_let_in_whose_sign_in_cannot_be_recorded(make):
    app, audit = make(), ListAudit()
    auditing.init_app(app, audit)
    audit.fails = True
    person = browser(app)
    person.post("/sign-in")

    with capture_logs():
        assert person.get("/sign-in/callback?code=1").status_code == 503

    assert person.get("/check").status_code == 303


def test_a_sign_out_that_cannot_be_recorded_is_one_all_the_same(make):
    app, audit = make(), ListAudit()
    auditing.init_app(app, audit)
    person = sign_in(app)
    audit.fails = True

    with capture_logs():
        assert person.post("/sign-out").status_code == 503

    assert person.get("/check").status_code == 303


@pytest.mark.parametrize(("ahead_s", "status"), [(5, 200), (60, 303)])
def test_another_gateways_clock_may_be_a_little_ahead(make, monkeypatch, ahead_s, status):
    person = sign_in(make())
    with monkeypatch.context() as ahead:
        ahead.setattr(TimestampSigner, "get_timestamp", lambda self: int(time.time()) + ahead_s)
        age(person, used=-ahead_s, began=-ahead_s)

    assert person.get("/check").status_code == status
