import io

import pytest

from tests.doors import header, make_app, sign_in
from tests.pictures import paint
from tests.unit.gateway.test_api import BATCH, ByColour, send
from tests.unit.gateway.test_app import FixedPredictor, post
from tests.unit.gateway.test_identity import UnreadBody


def test_each_identity_has_its_own_limit_and_is_told(tmp_path):
    app = make_app(tmp_path, FixedPredictor(), "keys,oidc", rate_limit="2 per minute")
    person, program = sign_in(app), app.test_client()

    first = post(program, paint(), headers=header())
    assert (first.headers["RateLimit-Limit"], first.headers["RateLimit-Remaining"]) == ("2", "1")
    assert 1 <= int(first.headers["RateLimit-Reset"]) <= 60
    assert "Retry-After" not in first.headers
    post(program, paint(), headers=header())
    refused = post(program, paint(), headers=header())

    assert (refused.status_code, refused.get_json(force=True)["type"]) == (429, "/problems/too-many-requests")
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert refused.headers["RateLimit-Remaining"] == "0"
    # The person, under the API and in the form alike: one limit for both.
    assert post(person, paint()).status_code == 200
    assert post(person, paint(), "/check").status_code == 200
    page = post(person, paint(), "/check")
    assert page.status_code == 429
    assert "terlalu sering" in page.text
    assert person.get("/check").status_code == 200
    assert program.get("/health/live").status_code == 200


def test_one_over_the_limit_is_refused_before_the_upload_is_read(tmp_path):
    caller = make_app(tmp_path, FixedPredictor(), "none", rate_limit="1 per hour").test_client()
    assert post(caller, paint()).status_code == 200

    body = {"input_stream": UnreadBody(b"x" * 1000), "content_type": "multipart/form-data; boundary=x"}
    assert caller.post("/api/v1/classifications", **body).status_code == 429
    assert post(caller, paint(), environ_overrides={"REMOTE_ADDR": "127.0.0.2"}).status_code == 200


def test_without_the_setting_nobody_is_limited(tmp_path):
    for ways in ("none", "keys"):
        caller = make_app(tmp_path, FixedPredictor(), ways).test_client()
        answers = [post(caller, b"", headers=header()) for _ in range(70)]
        assert {answer.status_code for answer in answers} == {400}
        assert "RateLimit-Limit" not in answers[0].headers


def test_strangers_use_up_nobodys_limit(tmp_path):
    app = make_app(tmp_path, FixedPredictor(), "keys", rate_limit="1 per minute")

    assert {post(app.test_client(), paint()).status_code for _ in range(40)} == {401}
    assert post(app.test_client(), paint(), headers=header()).status_code == 200


def test_wrong_keys_are_limited_by_address_and_right_ones_are_not(tmp_path):
    app = make_app(tmp_path, FixedPredictor(), "keys")
    wrong, elsewhere = header(key="x"), {"environ_overrides": {"REMOTE_ADDR": "10.0.0.7"}}

    statuses = [post(app.test_client(), paint(), headers=wrong).status_code for _ in range(32)]

    assert statuses == 30 * [401] + 2 * [429]
    assert post(app.test_client(), paint(), headers=header()).status_code == 200
    assert post(app.test_client(), paint(), headers=wrong, **elsewhere).status_code == 401


@pytest.mark.parametrize(("method", "path"), [("POST", "/sign-in"), ("GET", "/sign-in/callback?code=1")])
def test_attempts_to_sign_in_are_limited_by_address(tmp_path, method, path):
    caller = make_app(tmp_path, FixedPredictor(), "oidc").test_client()

    statuses = [caller.open(path, method=method).status_code for _ in range(61)]

    assert 429 not in statuses[:60]
    assert statuses[60] == 429
    assert caller.get("/sign-in").status_code == 200


def test_what_another_site_sends_uses_up_nobodys_limit(tmp_path):
    person = sign_in(make_app(tmp_path, FixedPredictor(), "oidc", rate_limit="1 per minute"))

    forged = [post(person, paint(), "/check", headers={"Sec-Fetch-Site": "cross-site"}) for _ in range(3)]

    assert {answer.status_code for answer in forged} == {403}
    assert post(person, paint(), "/check").status_code == 200


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [(["2001:db8::1", "2001:db8::2:3"], {429}), (["2001:db8::1", "2001:db8:0:1::1"], {200}), (["10.0.0.1", "10.0.0.2"], {200})],
)
def test_a_network_of_ipv6_is_one_address(tmp_path, addresses, expected):
    caller = make_app(tmp_path, FixedPredictor(), "none", rate_limit="1 per minute").test_client()
    first, second = ({"environ_overrides": {"REMOTE_ADDR": address}} for address in addresses)
    assert post(caller, paint(), **first).status_code == 200

    assert {post(caller, paint(), **second).status_code} == expected


def test_a_batch_counts_as_many_as_it_has_pictures_all_of_them_or_the_request_alone(tmp_path):
    caller = make_app(tmp_path, ByColour(), "keys", rate_limit="8 per hour").test_client()

    def left(*pictures, path=BATCH):
        answer = send(caller, path, *pictures, **header())
        return answer.status_code, answer.headers["RateLimit-Remaining"]

    assert left(*[paint()] * 3) == (200, "5")
    assert left(paint(), path="/api/v1/classifications") == (200, "4")
    assert left(paint(), b"text") == (200, "2")
    # Three more are not left after the first one of these: it alone is counted.
    assert left(*[paint()] * 4) == (429, "1")
    assert left(paint()) == (200, "0")
    assert left(paint()) == (429, "0")


def test_a_batch_that_is_more_than_the_limit_asks_no_model_and_is_told_when_to_come_back(tmp_path):
    predictor = ByColour()
    caller = make_app(tmp_path, predictor, "keys", rate_limit="2 per minute").test_client()

    refused = send(caller, BATCH, *[paint()] * 3, **header())

    assert (refused.status_code, refused.get_json(force=True)["type"]) == (429, "/problems/too-many-requests")
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert predictor.calls == []


def test_batches_are_free_where_nobody_is_limited(tmp_path):
    caller = make_app(tmp_path, ByColour(), "keys").test_client()

    assert {send(caller, BATCH, *[paint()] * 16, **header()).status_code for _ in range(5)} == {200}


def test_several_pictures_of_the_form_count_as_many(tmp_path):
    person = sign_in(make_app(tmp_path, ByColour(), "oidc", rate_limit="4 per hour"))
    form = {"consent": "yes", "file": [(io.BytesIO(paint()), "x") for _ in range(3)]}

    assert person.post("/check", data=form).headers["RateLimit-Remaining"] == "1"
