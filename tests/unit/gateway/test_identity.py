import pytest

from gateway.app import create_app
from gateway.identity import PERMISSIONS, PUBLIC, guard_of, public
from gateway.settings import Settings
from tests.unit.gateway.test_app import FixedPredictor

PUBLIC_ENDPOINTS = {"static", "health.live", "health.ready", "portal.home", "portal.model", "portal.language"}
"""Everything a stranger gets an answer from. Whoever adds to it has thought about it."""


@pytest.fixture
def app():
    return create_app(Settings(), FixedPredictor())


def test_every_route_says_whom_it_answers(app):
    guards = {rule.endpoint: guard_of(app, rule.endpoint) for rule in app.url_map.iter_rules()}

    assert set(guards.values()) <= {*PERMISSIONS, PUBLIC}
    assert {endpoint for endpoint, guard in guards.items() if guard == PUBLIC} == PUBLIC_ENDPOINTS


def test_a_route_that_does_not_say_is_closed(app):
    app.add_url_rule("/forgotten", "forgotten", lambda: "secret")
    app.add_url_rule("/open", "open", public(lambda: "public"))

    assert app.test_client().get("/forgotten").status_code == 500
    assert app.test_client().get("/open").text == "public"
