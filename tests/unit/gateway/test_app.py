import io
import json
import math
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs
from urllib3 import encode_multipart_formdata

from gateway import deadline
from gateway.app import create_app
from gateway.errors import InvalidModelAnswer, ModelServerOverloaded, ModelServerTimeout, ModelServerUnavailable
from gateway.predictor import Prediction
from gateway.problems import BY_SLUG
from gateway.settings import IS_STOPPING, Settings
from tests.metadata import METADATA
from tests.pictures import paint
from tests.processes import wait_until


class FixedPredictor:
    """Answers the same for every picture, or fails."""

    def __init__(self, malignant=0.1, none_score=0.0, error=None):
        self.prediction = Prediction(malignant, none_score, np.zeros((7, 7), np.float32), 1)
        self.error = error

    def predict(self, image):
        if self.error:
            raise self.error
        return self.prediction

    def predict_batch(self, images):
        return [self.predict(image) for image in images]

    def metadata(self, version):
        return METADATA

    def live_metadata(self, timeout_s=None):
        if self.error:
            raise self.error
        return METADATA


def client(**kwargs):
    return create_app(Settings(max_upload_bytes=200_000), FixedPredictor(**kwargs)).test_client()


def post(caller, data, path="/api/v1/classifications", name="x.png", consent="yes", **kwargs):
    return caller.post(path, data={"file": (io.BytesIO(data), name), "consent": consent}, **kwargs)


def counted(name, **labels):
    return REGISTRY.get_sample_value(f"dermserve_gateway_{name}_total", labels) or 0.0


def test_the_answer_is_this_and_nothing_else():
    answer = post(client(malignant=0.75, none_score=1.5), paint(size=(100, 100))).get_json()

    assert len(answer.pop("id")) == 36
    assert answer == {
        "label": "malignant",
        "reason": None,
        "probabilities": {"benign": 0.25, "malignant": 0.75},
        "none_score": 1.5,
        "thresholds": {"malignant": 0.4, "none": 5.0},
        "warnings": ["blurry", "low_resolution"],
        "model": {"name": "lesion", "version": 1},
    }


@pytest.mark.parametrize(
    ("malignant", "none_score", "label", "reason"),
    [(0.1, 0, "benign", None), (0.9, 0, "malignant", None), (0.4, 0, "none", "uncertain"), (0.1, 9, "none", "out_of_scope")],
)
def test_every_outcome_is_a_200(malignant, none_score, label, reason):
    response = post(client(malignant=malignant, none_score=none_score), paint())

    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-store"
    assert (response.get_json()["label"], response.get_json()["reason"]) == (label, reason)


@pytest.mark.parametrize(
    ("error", "status", "slug"),
    [
        (ModelServerUnavailable("x"), 503, "model-unavailable"),
        (ModelServerOverloaded("x"), 503, "overloaded"),
        (ModelServerTimeout("x"), 504, "model-timeout"),
        (InvalidModelAnswer("x"), 503, "invalid-model-answer"),
        (RuntimeError("secret text"), 500, "internal-error"),
    ],
)
def test_failures_are_problems_that_tell_no_internals(error, status, slug):
    caller = client(error=error)
    caller.application.testing = False

    with capture_logs():
        response = post(caller, paint())

    assert response.status_code == status
    assert response.content_type == "application/problem+json"
    assert json.loads(response.data)["type"] == f"/problems/{slug}"
    assert b"secret" not in response.data
    assert ("Retry-After" in response.headers) == (slug in ("model-unavailable", "overloaded"))


@pytest.mark.parametrize(
    ("data", "status"), [(b"", 400), (b"text", 415), (paint()[:60], 422), (paint(size=(20, 20)), 422), (b"x" * 300_000, 413)]
)
def test_bad_uploads_are_problems_for_machines_and_pages_for_people(data, status):
    caller = client()

    machine, page = post(caller, data), post(caller, data, "/check")

    assert machine.status_code == page.status_code == status
    assert machine.content_type == "application/problem+json"
    assert machine.get_json(force=True)["detail"]
    assert page.content_type.startswith("text/html")
    assert machine.headers["Cache-Control"] == page.headers["Cache-Control"] == "no-store"


def test_an_upload_that_is_too_large_is_told_the_limit():
    assert "200000 bytes" in post(client(), b"x" * 300_000).get_json(force=True)["detail"]


def test_the_form_needs_consent():
    before = counted("problems", problem="no-consent")

    response = post(client(), paint(), "/check", consent="")

    assert response.status_code == 422
    assert "Persetujuan Anda belum ada" in response.text
    assert counted("problems", problem="no-consent") == before + 1


def test_a_form_without_the_field_and_unknown_addresses_are_problems():
    caller = client()

    assert caller.post("/api/v1/classifications", data={"other": "x"}).get_json(force=True)["type"] == "/problems/no-picture"
    assert caller.get("/api/v1/nothing").content_type == "application/problem+json"
    assert caller.get("/api/v1/classifications").status_code == 405
    assert caller.get("/nothing").content_type.startswith("text/html")


def test_a_harmless_request_id_is_taken_over_and_another_is_not():
    caller = client()

    assert post(caller, paint(), headers={"X-Request-ID": "abc-12345"}).headers["X-Request-ID"] == "abc-12345"
    assert post(caller, paint(), headers={"X-Request-ID": "<script>alert(1)"}).headers["X-Request-ID"] != "<script>alert(1)"


def test_the_case_code_on_the_page_is_in_the_log_and_tells_similar_ids_apart():
    codes = []
    for request_id in ("case-00001", "case-00002"):
        with capture_logs() as lines:
            page = post(client(), paint(), "/check", headers={"X-Request-ID": request_id}).text
        codes.append(lines[0]["case"])
        assert f"<code>{codes[-1]}</code>" in page

    assert codes[0] != codes[1]


def test_quality_warnings_and_malignant_looking_rejections_are_counted():
    warnings = counted("quality_warnings", warning="low_resolution")
    rejections = counted("malignant_looking_rejections", model_version="1")
    caller = client(malignant=0.5, none_score=9)

    post(caller, paint(size=(100, 100)))
    post(client(malignant=0.1, none_score=9), paint())

    assert counted("quality_warnings", warning="low_resolution") == warnings + 1
    assert counted("malignant_looking_rejections", model_version="1") == rejections + 1


@pytest.mark.parametrize(("malignant", "advised"), [(0.39, False), (0.4, True)])
def test_what_is_out_of_scope_and_looks_malignant_is_sent_to_a_dermatologist(malignant, advised):
    caller = client(malignant=malignant, none_score=9)
    caller.set_cookie("language", "en")

    page = post(caller, paint(), "/check").text

    assert "Outside what this tool can assess" in page
    assert ("Have a dermatologist look at the lesion" in page) == advised


@pytest.mark.parametrize("path", ["/", "/check"])
def test_pages_that_need_no_model_are_there_without_one(path):
    response = client(error=ModelServerUnavailable("x")).get(path)

    assert response.status_code == 200
    assert response.headers["Vary"] == "Cookie"


def test_the_model_page_without_a_model_speaks_of_no_picture():
    caller = client(error=ModelServerUnavailable("x"))
    caller.set_cookie("language", "en")

    response = caller.get("/model")

    assert response.status_code == 503
    assert "no figures to show" in response.text
    assert "picture was not assessed" not in response.text


@pytest.mark.parametrize(
    ("given", "followed"),
    [("/model", "/model"), ("//evil.example", "/"), ("/\\evil.example", "/"), ("https://evil.example/", "/"), ("", "/")],
)
def test_choosing_a_language_leads_back_to_this_site_only(given, followed):
    response = client().post("/language", data={"language": "en", "next": given})

    assert (response.status_code, response.headers["Location"]) == (303, followed)
    assert response.headers["Set-Cookie"].startswith("language=en;")


def test_logs_and_answers_hold_no_file_name():
    with capture_logs() as lines:
        response = post(client(), paint(), name="Budi-Santoso.png")

    assert "Budi" not in json.dumps(lines)
    assert b"Budi" not in response.data
    assert [line["route"] for line in lines] == ["/api/v1/classifications"]


def test_every_answer_has_the_security_headers():
    for path in ("/", "/api/v1/nothing", "/health/live", "/static/portal.css"):
        with client().get(path) as response:
            headers = response.headers
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_readiness_follows_the_model_and_liveness_does_not():
    broken = client(error=ModelServerUnavailable("x"))

    assert client().get("/health/ready").get_json() == {"status": "ready", "model": {"name": "lesion", "version": 1}}
    assert broken.get("/health/ready").status_code == 503
    assert broken.get("/health/live").status_code == 200


@pytest.mark.parametrize("path", ["/api/v1/classifications", "/check"])
def test_without_a_place_an_upload_is_refused_before_it_is_read(path):
    class Body(io.BytesIO):
        def read(self, *_):
            pytest.fail("the upload was read")

        readline = readinto = read

    release = threading.Event()

    class Slow(FixedPredictor):
        def predict(self, image):
            release.wait(30)
            return super().predict(image)

    app = create_app(Settings(threads=1, max_waiting=0), Slow())
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(post, app.test_client(), paint())
        wait_until(lambda: REGISTRY.get_sample_value("dermserve_gateway_pictures", {"state": "at_work"}))
        body = Body(b"x" * 1000)
        refused = app.test_client().post(path, input_stream=body, content_type="multipart/form-data; boundary=x")
        release.set()
        assert first.result().status_code == 200

    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "2")
    assert "text/html" in refused.content_type or refused.get_json(force=True)["type"] == "/problems/overloaded"
    assert post(app.test_client(), paint()).status_code == 200


def test_each_step_gets_what_is_left_of_the_budget():
    left = {}

    class Asked(FixedPredictor):
        def predict(self, image):
            left["predict"] = deadline.remaining_s(math.inf)
            return super().predict(image)

        def metadata(self, version):
            left["metadata"] = deadline.remaining_s(math.inf)
            return super().metadata(version)

    settings = Settings(request_budget_s=7.0, predict_timeout_s=1.0)

    assert post(create_app(settings, Asked()).test_client(), paint()).status_code == 200
    assert 7.0 > left["predict"] > left["metadata"] > 0
    assert deadline.remaining_s(math.inf) == math.inf


def test_a_process_that_stops_is_not_ready_and_answers():
    caller = client()
    caller.application.config[IS_STOPPING] = True

    ready = caller.get("/health/ready")

    assert (ready.status_code, ready.get_json(force=True)["type"]) == (503, "/problems/stopping")
    assert caller.get("/health/live").status_code == 200
    assert post(caller, paint()).status_code == 200


def test_uploads_over_the_spool_limit_stay_in_memory(monkeypatch, tmp_path):
    caller = create_app(Settings(), FixedPredictor()).test_client()
    body, content_type = encode_multipart_formdata({"file": ("x.bmp", paint(size=(1500, 1000), format="BMP"))})
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "no-such-folder"))

    response = caller.post("/api/v1/classifications", data=body, content_type=content_type)

    assert response.status_code == 200


def test_a_problem_whose_page_fails_is_told_all_the_same():
    app = create_app(Settings(), FixedPredictor())
    app.jinja_env.globals["url_for"] = None

    with capture_logs() as lines:
        answer = app.test_client().get("/nowhere")

    assert (answer.status_code, answer.get_json(force=True)["type"]) == (404, "/problems/not-found")
    assert answer.headers["X-Request-ID"]
    assert [line["event"] for line in lines] == ["unexpected error in a problem's page", "request"]


def test_the_time_of_what_was_accepted_is_kept_apart():
    def timed(path):
        return REGISTRY.get_sample_value("dermserve_gateway_accepted_seconds_count", {"route": path}) or 0.0

    before = {path: timed(path) for path in ("/api/v1/classifications", "/check", "/help")}
    for path in ("/api/v1/classifications", "/check"):
        post(client(), paint(), path)
        post(client(), b"no picture", path)
        post(client(error=ModelServerOverloaded("full")), paint(), path)
    client().get("/help")
    client().get("/check")

    assert {path: timed(path) - count for path, count in before.items()} == {
        "/api/v1/classifications": 1,
        "/check": 1,
        "/help": 0,
    }


def test_what_an_alert_waits_for_is_there_before_it_happens():
    """Of a series that begins with 1 Prometheus sees no increase."""
    client()

    there = {
        (sample.name.removeprefix("dermserve_gateway_"), *sample.labels.values())
        for family in REGISTRY.collect()
        for sample in family.samples
    }
    assert {("problems_total", slug) for slug in BY_SLUG} <= there
    assert {("admissions_total", result) for result in ("admitted", "full", "late")} <= there
