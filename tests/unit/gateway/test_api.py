import base64
import io
import json

import numpy as np
import pytest
from PIL import Image
from prometheus_client import REGISTRY
from urllib3 import encode_multipart_formdata

from gateway import problems
from gateway.app import create_app
from gateway.classify import MAX_PICTURES
from gateway.errors import BadIdempotencyKey, ModelServerUnavailable, Polyglot
from gateway.idempotency import claim, read_key
from gateway.predictor import Prediction
from gateway.settings import Settings
from tests.metadata import METADATA
from tests.pictures import paint
from tests.unit.gateway.test_app import FixedPredictor

SINGLE, BATCH = "/api/v1/classifications", "/api/v1/classifications:batch"
FHIR = "application/fhir+json"


class ByColour(FixedPredictor):
    """Red is malignant, blue is out of scope; keeps how many pictures each call had. The map is the same for all."""

    grid = np.zeros((7, 7), np.float32)

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.calls = []

    def predict(self, image):
        return self.predict_batch(image[None])[0]

    def predict_batch(self, images):
        self.calls.append(len(images))
        if self.error:
            raise self.error
        red, _, blue = (images[..., channel].mean(axis=(1, 2)) for channel in range(3))
        return [Prediction(float(r) / 255, float(b) / 25.5, self.grid, 1) for r, b in zip(red, blue, strict=True)]


def caller(predictor=None, **settings):
    return create_app(Settings(**settings), predictor or ByColour()).test_client()


def send(client, path, *pictures, **headers):
    body, content_type = encode_multipart_formdata([("file", ("x", picture)) for picture in pictures] or [("other", "x")])
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(path, data=body, content_type=content_type, headers=headers)


def slug(response):
    return response.get_json(force=True)["type"].removeprefix("/problems/")


def counted(name, **labels):
    return REGISTRY.get_sample_value(f"dermserve_gateway_{name}", labels) or 0.0


def test_a_batch_is_one_call_and_answers_in_the_order_sent():
    predictor = ByColour()
    sent = ["malignant", "benign", "out_of_scope", "uncertain", "malignant"]

    response = send(caller(predictor), BATCH, *map(paint, sent), X_Request_ID="case-0001")

    results = response.get_json()["results"]
    assert (response.status_code, predictor.calls) == (200, [5])
    assert [result["reason"] or result["label"] for result in results] == sent
    assert [result["id"] for result in results] == [f"case-0001-{place}" for place in range(1, 6)]
    assert response.headers["Cache-Control"] == "no-store"


def test_a_batch_of_one_answers_as_the_single_address_does():
    client = caller()
    for outcome in ("malignant", "guarded"):
        alone, (inside,) = (
            send(client, SINGLE, paint(outcome)).get_json(),
            send(client, BATCH, paint(outcome)).get_json()["results"],
        )
        del alone["id"], inside["id"]
        assert alone == inside


def test_a_bad_picture_has_its_problem_in_its_place_and_spoils_no_other():
    predictor = ByColour()
    before = counted("problems_total", problem="broken-picture"), counted("problems_total", problem="not-a-picture")

    response = send(
        caller(predictor), BATCH, paint("malignant"), paint()[:60], b"text", paint("benign"), b"", X_Request_ID="case-0001"
    )

    first, broken, text, last, empty = response.get_json()["results"]
    assert (response.status_code, predictor.calls) == (200, [2])
    assert (first["label"], last["label"], last["id"]) == ("malignant", "benign", "case-0001-4")
    assert [problem["type"] for problem in (broken, text, empty)] == [
        "/problems/broken-picture",
        "/problems/not-a-picture",
        "/problems/no-picture",
    ]
    assert (broken["status"], broken["instance"]) == (422, "urn:dermserve:request:case-0001-2")
    after = counted("problems_total", problem="broken-picture"), counted("problems_total", problem="not-a-picture")
    assert after == (before[0] + 1, before[1] + 1)


def test_a_batch_of_bad_pictures_alone_asks_no_model():
    predictor = ByColour()

    response = send(caller(predictor), BATCH, b"x", b"y")

    assert [result["status"] for result in response.get_json()["results"]] == [415, 415]
    assert predictor.calls == []


def test_a_batch_counts_each_picture():
    names = [
        ("outcomes_total", {"label": "malignant", "reason": "", "model_version": "1"}),
        ("stage_seconds_count", {"stage": "decode"}),
    ]
    names += [("stage_seconds_count", {"stage": "decide"}), ("admissions_total", {"result": "admitted"})]
    before = [counted(name, **labels) for name, labels in names]

    send(caller(), BATCH, *[paint("malignant")] * 3)

    assert [counted(name, **labels) for name, labels in names] == [value + 3 for value in before]
    assert {counted("pictures", state=state) for state in ("present", "waiting", "at_work")} == {0}


@pytest.mark.parametrize(("count", "expected"), [(0, "no-picture"), (MAX_PICTURES + 1, "too-many-pictures")])
def test_a_batch_of_none_or_too_many_is_a_problem(count, expected):
    predictor = ByColour()

    assert slug(send(caller(predictor), BATCH, *[paint()] * count)) == expected
    assert predictor.calls == []


def test_the_largest_batch_is_answered_by_a_process_of_one_thread():
    response = send(caller(threads=1, max_waiting=0), BATCH, *[paint()] * MAX_PICTURES)

    assert len(response.get_json()["results"]) == MAX_PICTURES


def test_two_pictures_where_one_is_asked_for_are_not_half_ignored():
    assert slug(send(caller(), SINGLE, paint(), paint())) == "too-many-pictures"


def test_without_a_model_the_whole_batch_has_the_problem():
    response = send(caller(ByColour(error=ModelServerUnavailable("x"))), BATCH, paint(), b"text")

    assert (response.status_code, slug(response)) == (503, "model-unavailable")
    assert response.headers["Retry-After"]


def test_a_batch_has_the_byte_limit_of_any_upload():
    assert send(caller(max_upload_bytes=1000), BATCH, b"x" * 600, b"x" * 600).status_code == 413


@pytest.mark.parametrize(
    ("accept", "given"),
    [
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("application/json", "application/json"),
        (FHIR, FHIR),
        (f"application/json;q=0.5, {FHIR}", FHIR),
        ("application/json, application/problem+json", "application/json"),
        ("application/xml, */*;q=0.1", "application/json"),
    ],
)
def test_the_form_of_the_answer_is_what_the_client_likes_best(accept, given):
    response = send(caller(), SINGLE, paint(), Accept=accept)

    assert (response.status_code, response.content_type) == (200, given)
    assert "Accept" in response.headers["Vary"]


@pytest.mark.parametrize(
    ("path", "accept"), [(SINGLE, "text/html"), (SINGLE, "image/png"), (SINGLE, "application/json;q=0"), (BATCH, FHIR)]
)
def test_a_form_that_there_is_not_is_refused_unread(path, accept):
    response = caller().post(path, input_stream=None, headers={"Accept": accept})

    assert response.status_code == 406
    assert response.content_type == (FHIR if accept == FHIR else "application/problem+json")


def test_a_problem_is_an_operation_outcome_where_fhir_is_asked_for():
    response = send(caller(), SINGLE, b"text", Accept=FHIR)

    document = json.loads(response.data)
    assert (response.status_code, response.content_type) == (415, FHIR)
    assert (document["resourceType"], document["issue"][0]["details"]["coding"][0]["code"]) == (
        "OperationOutcome",
        "not-a-picture",
    )
    assert caller().get("/api/v1/nothing", headers={"Accept": FHIR}).content_type == "application/problem+json"


def test_the_grid_is_the_models_own_numbers_with_their_unit():
    predictor = ByColour()
    predictor.grid = np.arange(-20, 29, dtype=np.float32).reshape(7, 7)
    client = caller(predictor)

    shown = send(client, f"{SINGLE}?activation_map=grid", paint()).get_json()["activation_map"]
    (inside,) = send(client, f"{BATCH}?activation_map=grid", paint()).get_json()["results"]

    assert shown["grid"] == predictor.grid.tolist() == inside["activation_map"]["grid"]
    assert "Logit of malignant" in shown["unit"]
    assert "overlay" not in shown
    assert "activation_map" not in send(client, SINGLE, paint()).get_json()


def test_the_overlay_is_a_png_beside_its_numbers_and_null_when_there_is_nothing_to_draw():
    predictor = ByColour()
    flat = send(caller(predictor), f"{SINGLE}?activation_map=overlay", paint()).get_json()["activation_map"]
    predictor.grid = np.eye(7, dtype=np.float32) * 3
    shown = send(caller(predictor), f"{SINGLE}?activation_map=overlay", paint(size=(1024, 512))).get_json()["activation_map"]

    assert flat["overlay"] is None
    picture = Image.open(io.BytesIO(base64.b64decode(shown["overlay"]["data"])))
    assert (
        (picture.format, picture.size)
        == ("PNG", (512, 256))
        == ("PNG", (shown["overlay"]["width"], shown["overlay"]["height"]))
    )
    assert (shown["grid"][0][0], shown["overlay"]["full_scale"]) == (3.0, 3.0)


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        (f"{SINGLE}?activation_map=yes", {}),
        (f"{SINGLE}?activation_map=", {}),
        (f"{SINGLE}?activation_map=grid&activation_map=overlay", {}),
        (f"{BATCH}?activation_map=overlay", {}),
        (f"{SINGLE}?activation_map=grid", {"Accept": FHIR}),
    ],
)
def test_a_map_that_there_is_not_is_refused_and_never_left_out(path, headers):
    response = send(caller(), path, paint(), **headers)

    assert response.status_code == 400
    assert "bad-parameter" in response.text


@pytest.mark.parametrize("path", [SINGLE, BATCH])
def test_without_redis_a_key_is_refused_and_never_ignored(path):
    predictor = ByColour()

    response = send(caller(predictor), path, paint(), Idempotency_Key='"8e03978e-40d5-43dd"')

    assert (response.status_code, slug(response)) == (501, "idempotency-not-configured")
    assert predictor.calls == []


@pytest.mark.parametrize(
    "header", ["", "short", "x" * 129, "space inside", "komma,komma", '"half-a-quote', "ümlautümlaut", '""']
)
def test_a_key_of_another_form_is_refused(header):
    with pytest.raises(BadIdempotencyKey):
        read_key(header, object())


def test_a_key_is_the_same_in_quotes_and_without():
    assert read_key('"8e03978e-40d5"', object()) == read_key("8e03978e-40d5", object()) == "8e03978e-40d5"
    assert read_key(None, object()) is None


def test_what_makes_another_answer_makes_another_request():
    def of(identity="a", key="12345678", form=("/x", "json"), files=(b"one", b"two")):
        return claim(identity, key, form, map(io.BytesIO, files))

    same = of()
    assert (of().name, of().fingerprint) == (same.name, same.fingerprint)
    assert of().token != same.token
    others = [of(form=("/x", "fhir")), of(files=(b"two", b"one")), of(files=(b"one",)), of(files=(b"onet", b"wo"))]
    assert all(other.name == same.name and other.fingerprint != same.fingerprint for other in others)
    assert len({of("b").name, of(key="12345679").name, same.name}) == 3
    assert "12345678" not in same.name


def test_the_uploads_are_wound_back_after_they_were_looked_at():
    file = io.BytesIO(b"x" * 200_000)

    claim("a", "12345678", (), [file])

    assert len(file.read()) == 200_000


def test_the_model_that_answers_is_described():
    document = caller().get("/api/v1/model").get_json()

    assert document["version"] == METADATA.version
    assert document["thresholds"]["guard"] == METADATA.thresholds.guard
    assert document["operating_point"]["sensitivity"]["n"] == METADATA.operating_point.sensitivity.n
    assert document["provenance"]["sources"][0]["name"] == METADATA.provenance.sources[0].name
    assert slug(caller(ByColour(error=ModelServerUnavailable("x"))).get("/api/v1/model")) == "model-unavailable"


@pytest.mark.parametrize("language", ["en", "id"])
def test_every_problem_has_a_page_of_its_own_in_both_languages(language):
    client, pages = caller(), {}
    client.set_cookie("language", language)
    for name, problem in problems.BY_SLUG.items():
        response = client.get(f"/problems/{name}", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
        assert (response.status_code, response.content_type) == (200, "text/html; charset=utf-8")
        assert str(problem.status) in response.text
        assert {"Cookie", "Accept"} <= set(response.headers["Vary"].split(", "))
        pages[name] = response.text.partition("<h1>")[2].partition("</h1>")[0]

    assert len(set(pages.values())) == len(pages)


@pytest.mark.parametrize("name", problems.BY_SLUG)
def test_every_problem_is_there_for_programs(name):
    document = caller().get(f"/problems/{name}", headers={"Accept": "application/json"}).get_json()

    problem = problems.BY_SLUG[name]
    assert (document["type"], document["status"], document["title"]) == (f"/problems/{name}", problem.status, problem.title)
    assert document["advice"] == problems.ADVICE[document["next_step"]]
    assert (document["next_step"] == "repeat") == (problem.retry_after_s is not None or problem.status in (429, 504))


@pytest.mark.parametrize(
    ("accept", "content_type"), [("text/html", "text/html; charset=utf-8"), ("application/json", "application/problem+json")]
)
def test_an_unknown_problem_is_not_found(accept, content_type):
    response = caller().get("/problems/nothing", headers={"Accept": accept})

    assert (response.status_code, response.content_type) == (404, content_type)


def test_the_type_of_a_problem_is_an_address_that_answers():
    client = caller()

    response = send(client, SINGLE, b"%PDF-" + paint())

    assert client.get(response.get_json(force=True)["type"]).status_code == 200
    assert problems.TABLE[Polyglot].slug in problems.BY_SLUG


def test_a_method_that_an_address_does_not_take_is_told_with_those_it_takes():
    response = caller().delete(SINGLE)

    assert (response.status_code, set(response.headers["Allow"].split(", "))) == (405, {"POST", "OPTIONS"})
