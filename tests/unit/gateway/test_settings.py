import dataclasses

import pytest

from gateway.settings import CALLS, MAX_WAIT_S, Settings, SettingsError


def test_an_empty_environment_gives_the_defaults_in_the_order_that_deadlines_need():
    settings = Settings.from_env({"PATH": "/bin"})

    assert settings == Settings()
    calls_s = CALLS * settings.predict_timeout_s
    assert settings.worker_timeout_s > settings.request_budget_s > settings.max_wait_s + calls_s > calls_s


def test_every_field_is_read_with_its_type():
    settings = Settings.from_env({"GATEWAY_BIND": "0.0.0.0:80", "GATEWAY_WORKERS": "5", "GATEWAY_PREDICT_TIMEOUT_S": "1.5"})

    assert settings == dataclasses.replace(Settings(), bind="0.0.0.0:80", workers=5, predict_timeout_s=1.5)


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
