import dataclasses

import pytest

from gateway.settings import CALLS, MAX_WAIT_S, Settings, SettingsError


def test_an_empty_environment_gives_the_defaults_in_the_order_that_deadlines_need():
    settings = Settings.from_env({"PATH": "/bin"})

    assert settings == Settings()
    calls_s = CALLS * settings.predict_timeout_s
    assert settings.worker_timeout_s > settings.request_budget_s > settings.max_wait_s + calls_s > calls_s


def test_every_field_is_read_with_its_type():
    settings = Settings.from_env({"GATEWAY_BIND": "[::1]:80", "GATEWAY_WORKERS": "5", "GATEWAY_PREDICT_TIMEOUT_S": "1.5"})

    assert settings == dataclasses.replace(Settings(), bind="[::1]:80", workers=5, predict_timeout_s=1.5)


def test_all_problems_are_reported_at_once():
    environ = {"GATEWAY_PORT": "tcp://10.0.0.1:80", "GATEWAY_WORKERS": "many", "GATEWAY_THREADS": "0", "GATEWAY_BIND": "here"}
    environ |= {"GATEWAY_CANARY_SHARE": "1.5", "GATEWAY_SHADOW_SHARE": "nan"}

    with pytest.raises(SettingsError) as caught:
        Settings.from_env(environ)

    for name in environ:
        assert name in str(caught.value)


def test_a_deadline_longer_than_what_waits_for_it_is_refused():
    with pytest.raises(SettingsError, match="does not hold"):
        Settings.from_env({"GATEWAY_PREDICT_TIMEOUT_S": "7"})


@pytest.mark.parametrize(("budget_s", "wait_s"), [("18.5", 0.25), ("20", 1.0), ("29", MAX_WAIT_S)])
def test_the_wait_for_ones_turn_leaves_time_for_the_calls_and_never_costs_the_objective(budget_s, wait_s):
    assert Settings.from_env({"GATEWAY_REQUEST_BUDGET_S": budget_s}).max_wait_s == wait_s


def test_no_queue_and_no_delay_are_allowed_and_less_is_not():
    zero = {"GATEWAY_MAX_WAITING": "0", "GATEWAY_DRAIN_S": "0"}
    assert Settings.from_env(zero).max_waiting == 0

    with pytest.raises(SettingsError) as caught:
        Settings.from_env({"GATEWAY_MAX_WAITING": "-1", "GATEWAY_DRAIN_S": "nan"})

    for name in zero:
        assert name in str(caught.value)


def test_no_golden_picture_and_no_traces_are_allowed_and_nonsense_is_not():
    off = Settings.from_env({"GATEWAY_GOLDEN_PERIOD_S": "0", "GATEWAY_TRACES_ENDPOINT": ""})
    assert (off.golden_period_s, off.traces_endpoint) == (0, "")
    none_begun = Settings.from_env({"GATEWAY_TRACES_ENDPOINT": "http://collector:4318", "GATEWAY_TRACES_SHARE": "0"})
    assert (none_begun.traces_endpoint, none_begun.traces_share) == ("http://collector:4318", 0)

    nonsense = {"GATEWAY_GOLDEN_PERIOD_S": "nan", "GATEWAY_TRACES_SHARE": "1.5", "GATEWAY_TRACES_ENDPOINT": "collector:4318"}
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(nonsense)

    for name in nonsense:
        assert name in str(caught.value)


def test_a_protocol_has_to_be_one_that_is_spoken():
    with pytest.raises(SettingsError, match="MODEL_SERVER_PROTOCOL"):
        Settings.from_env({"GATEWAY_MODEL_SERVER_PROTOCOL": "http"})


def test_what_needs_labels_is_refused_over_a_protocol_without_them():
    environ = {"GATEWAY_MODEL_LABEL": "next", "GATEWAY_CANARY_SHARE": "0.1", "GATEWAY_SHADOW_SHARE": "0.1"}
    assert Settings.from_env(environ)

    with pytest.raises(SettingsError) as caught:
        Settings.from_env(environ | {"GATEWAY_MODEL_SERVER_PROTOCOL": "open-inference"})

    for name in environ:
        assert name in str(caught.value)


OIDC = {
    "GATEWAY_IDENTITY": "keys,oidc",
    "GATEWAY_BIND": "0.0.0.0:8000",
    "GATEWAY_API_KEYS_FILE": "keys.json",
    "GATEWAY_OIDC_ISSUER": "https://id.hospital.example/realms/staff",
    "GATEWAY_OIDC_CLIENT_ID": "dermserve",
    "GATEWAY_OIDC_CLIENT_SECRET_FILE": "secret",
    "GATEWAY_SESSION_KEY_FILE": "session.key",
    "GATEWAY_PUBLIC_URL": "https://derm.hospital.example",
}


@pytest.mark.parametrize("bind", ["0.0.0.0:8000", "10.0.0.7:8000", "[::]:8000", "gateway:8000"])
def test_others_reach_the_gateway_only_when_they_are_asked_who_they_are(bind):
    with pytest.raises(
        SettingsError, match=r"GATEWAY_IDENTITY.*keys, oidc or keys,oidc .docs/identity.md., or bind to 127.0.0.1"
    ):
        Settings.from_env({"GATEWAY_BIND": bind})

    assert Settings.from_env({"GATEWAY_BIND": bind, "GATEWAY_IDENTITY": "keys", "GATEWAY_API_KEYS_FILE": "x"}).asks_who


@pytest.mark.parametrize("bind", ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1"])
def test_on_loopback_nobody_needs_to_be_asked(bind):
    assert not Settings.from_env({"GATEWAY_BIND": bind}).asks_who


def test_a_hospitals_settings_are_taken_and_each_of_them_is_needed():
    assert Settings.from_env(OIDC).identities == ("keys", "oidc")
    for name in OIDC.keys() - {"GATEWAY_BIND", "GATEWAY_IDENTITY"}:
        with pytest.raises(SettingsError, match=f"{name} is needed"):
            Settings.from_env({key: value for key, value in OIDC.items() if key != name})


@pytest.mark.parametrize("identity", ["", "none,keys", "password", "keys,", "oidc;keys"])
def test_an_identity_is_one_that_there_is(identity):
    with pytest.raises(SettingsError, match="GATEWAY_IDENTITY"):
        Settings.from_env(OIDC | {"GATEWAY_IDENTITY": identity})


def test_what_would_do_nothing_is_refused():
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(OIDC | {"GATEWAY_IDENTITY": "none", "GATEWAY_BIND": "127.0.0.1:1"})

    for name in OIDC.keys() - {"GATEWAY_BIND", "GATEWAY_IDENTITY", "GATEWAY_PUBLIC_URL"}:
        assert f"{name} does nothing" in str(caught.value)


@pytest.mark.parametrize("name", ["GATEWAY_PUBLIC_URL", "GATEWAY_OIDC_ISSUER"])
@pytest.mark.parametrize(
    "address", ["http://hospital.example", "hospital.example", "https://", "https://a@b.example", "https://b/?x=1"]
)
def test_addresses_that_browsers_are_sent_to_are_safe(name, address):
    with pytest.raises(SettingsError, match=name):
        Settings.from_env(OIDC | {name: address})

    assert Settings.from_env(OIDC | {name: "http://127.0.0.1:9000"})


@pytest.mark.parametrize("address", ["https://derm.hospital.example/", "https://derm.hospital.example/portal"])
def test_the_public_address_has_no_path(address):
    with pytest.raises(SettingsError, match="GATEWAY_PUBLIC_URL"):
        Settings.from_env(OIDC | {"GATEWAY_PUBLIC_URL": address})


def test_a_rate_is_a_number_and_a_time():
    for rate in ("60 per minute", "1 per second", "1000 per 12 hours"):
        assert Settings.from_env({"GATEWAY_RATE_LIMIT": rate}).rate_limit == rate
    for rate in ("60", "60/minute", "0 per minute", "many per minute", "60 per minute; 1 per day"):
        with pytest.raises(SettingsError, match="GATEWAY_RATE_LIMIT"):
            Settings.from_env({"GATEWAY_RATE_LIMIT": rate})


def test_no_proxy_is_the_default_and_less_is_not_possible():
    assert Settings.from_env({"GATEWAY_PROXIES": "0"}).proxies == 0
    with pytest.raises(SettingsError, match="GATEWAY_PROXIES"):
        Settings.from_env({"GATEWAY_PROXIES": "-1"})


@pytest.mark.parametrize("url", ["redis://127.0.0.1:6379/0", "rediss://cache.example:6380/1", ""])
def test_a_redis_is_named_by_its_address(url):
    assert Settings.from_env({"GATEWAY_REDIS_URL": url}).redis_url == url


@pytest.mark.parametrize("url", ["127.0.0.1:6379", "http://127.0.0.1", "redis://:secret@127.0.0.1:6379/0", "redis://"])
def test_another_address_and_one_with_a_password_are_refused_and_not_repeated(url):
    with pytest.raises(SettingsError, match="REDIS_URL") as caught:
        Settings.from_env({"GATEWAY_REDIS_URL": url})

    assert "secret" not in str(caught.value)


def test_a_password_needs_a_redis():
    with pytest.raises(SettingsError, match="REDIS_PASSWORD_FILE needs"):
        Settings.from_env({"GATEWAY_REDIS_PASSWORD_FILE": "/run/secrets/redis"})


@pytest.mark.parametrize(
    ("database", "told"),
    [
        ("mysql://gateway@host/cases", "is neither"),
        ("sqlite://", "is neither"),
        ("postgresql+psycopg://gateway:hunter2@host/cases", "must hold no password"),
        ("postgresql+psycopg://gateway@host/cases?password=hunter2", "must hold no password"),
    ],
)
def test_a_database_of_cases_is_of_two_kinds_and_its_password_in_a_file(database, told):
    with pytest.raises(SettingsError, match=told) as caught:
        Settings.from_env({"GATEWAY_CASES_DATABASE": database})

    assert "hunter2" not in str(caught.value)


def test_a_password_needs_a_database_that_takes_one():
    with pytest.raises(SettingsError, match="CASES_PASSWORD_FILE needs"):
        Settings.from_env({"GATEWAY_CASES_DATABASE": "sqlite:////cases.db", "GATEWAY_CASES_PASSWORD_FILE": "/password"})


@pytest.mark.parametrize(
    "settings",
    [
        {"GATEWAY_GOLDEN_PERIOD_S": "inf"},
        {"GATEWAY_PREDICT_TIMEOUT_S": "nan"},
        {"GATEWAY_WORKER_TIMEOUT_S": "inf"},
        {"GATEWAY_TRACES_ENDPOINT": "http://user:secret@collector:4318"},
        {"GATEWAY_TRACES_SHARE": "0.5"},
        {"GATEWAY_OIDC_ROLES_CLAIM": "groups"},
        {"GATEWAY_REDIS_URL": "redis://host/0?password=secret"},
        {"GATEWAY_PUBLIC_URL": "https://hospital.example:443"},
    ],
)
def test_what_cannot_be_meant_is_refused(settings):
    (name,) = settings
    with pytest.raises(SettingsError, match=name):
        Settings.from_env(settings)
