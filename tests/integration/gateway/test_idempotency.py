"""One answer for one key: two gateways that share a real Redis, before a model server that a test can hold up."""

import json
import signal
import uuid
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing

import pytest
import redis
import requests

from gateway.errors import IdempotencyUnavailable
from gateway.idempotency import Claim
from gateway.redis_answers import PREFIX, RedisAnswers
from gateway.redis_store import connect
from gateway.settings import Settings
from tests import paced_server, processes
from tests.pictures import paint

CLAIM_S = 30.0
"""The gateway's default for a worker that hangs."""

DAY_S = 24 * 3600
SINGLE, BATCH = "/api/v1/classifications", "/api/v1/classifications:batch"
PICTURE, OTHER = paint("malignant"), paint("benign")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with processes.redis_server(tmp_path_factory.mktemp("redis")) as (_, port):
        yield port


@pytest.fixture(scope="module")
def server():
    with paced_server.serving(paced_server.PacedServer()) as running:
        yield running


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """The audit record that both gateways write."""
    return tmp_path_factory.mktemp("audit") / "audit.jsonl"


@pytest.fixture(scope="module")
def addresses(store, server, record, tmp_path_factory):
    """Of two gateways, so that it is certain that another process answers; each with two workers."""
    settings = {"GATEWAY_REDIS_URL": f"redis://127.0.0.1:{store}/0", "GATEWAY_WORKERS": "2", "GATEWAY_AUDIT_FILE": str(record)}
    with (
        processes.gateway(server.port, tmp_path_factory.mktemp("first"), **settings) as (_, first),
        processes.gateway(server.port, tmp_path_factory.mktemp("second"), **settings) as (_, second),
    ):
        yield first, second


def send(address, key, *pictures, path=SINGLE, **headers):
    """On a connection of its own."""
    files = [("file", (f"{uuid.uuid4()}.png", picture)) for picture in pictures or [PICTURE]]
    return requests.post(address + path, files=files, headers={"Idempotency-Key": key, **headers}, timeout=30)


def slug(response):
    return response.json()["type"].removeprefix("/problems/")


def new_key():
    return f'"{uuid.uuid4()}"'


def is_replayed(response):
    return response.headers.get("Idempotency-Replayed") == "true"


def test_the_same_request_gets_the_same_answer_from_every_process(addresses, server, record):
    key, before = new_key(), server.pictures

    answers = [send(addresses[turn % 2], key) for turn in range(8)]

    assert [answer.status_code for answer in answers] == [200] * 8
    assert len({answer.text for answer in answers}) == 1
    assert [is_replayed(answer) for answer in answers] == [False] + [True] * 7
    # The request's own id is another each time.
    assert len({answer.headers["X-Request-ID"] for answer in answers}) == 8
    assert {answer.headers["Cache-Control"] for answer in answers} == {"no-store"}
    assert server.pictures == before + 1
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    seen = {line["request"]: (line["action"], line["reason"]) for line in lines}
    first, *again = (answer.headers["X-Request-ID"] for answer in answers)
    assert [seen[first], *(seen[name] for name in again)] == [("classify", None)] + [("replay", first)] * 7


def test_without_a_key_every_request_is_classified(addresses, server):
    before = server.pictures

    ids = {processes.post_picture(addresses[0], PICTURE).json()["id"] for _ in range(3)}

    assert (len(ids), server.pictures) == (3, before + 3)


def test_a_batch_is_kept_as_a_whole(addresses, server):
    key, before = new_key(), (server.pictures, server.calls)

    first, second = (send(address, key, PICTURE, b"text", OTHER, path=BATCH) for address in addresses)

    assert (first.status_code, first.text, is_replayed(second)) == (200, second.text, True)
    assert (server.pictures, server.calls) == (before[0] + 2, before[1] + 1)
    assert slug(send(addresses[0], key, OTHER, b"text", PICTURE, path=BATCH)) == "idempotency-key-reused"


@pytest.mark.parametrize(
    ("path", "picture", "headers"),
    [
        (SINGLE, OTHER, {}),
        (BATCH, PICTURE, {}),
        (f"{SINGLE}?activation_map=grid", PICTURE, {}),
        (SINGLE, PICTURE, {"Accept": "application/fhir+json"}),
    ],
    ids=["picture", "address", "parameter", "form"],
)
def test_a_key_that_comes_with_another_request_is_refused(addresses, server, path, picture, headers):
    key = new_key()
    assert send(addresses[0], key).ok
    before = server.pictures

    answer = send(addresses[1], key, picture, path=path, **headers)

    assert answer.status_code == 422
    assert "idempotency-key-reused" in answer.text
    assert server.pictures == before
    assert is_replayed(send(addresses[1], key))


def test_an_overlay_is_not_kept(addresses):
    answer = send(addresses[0], new_key(), path=f"{SINGLE}?activation_map=overlay")

    assert (answer.status_code, slug(answer)) == (400, "overlay-not-kept")


def test_a_fhir_answer_is_kept_in_its_form(addresses):
    key = new_key()

    first, second = (send(address, key, Accept="application/fhir+json") for address in addresses)

    assert first.text == second.text
    assert second.headers["Content-Type"] == "application/fhir+json"


def test_while_the_first_is_at_work_the_same_request_is_a_conflict_and_another_one_refused(addresses, server):
    key, before = new_key(), server.pictures
    server.go.clear()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(send, addresses[0], key)
        processes.wait_until(lambda: server.pictures == before + 1)
        meanwhile = [send(address, key) for address in addresses]
        other = send(addresses[1], key, OTHER)
        server.go.set()
        answer = first.result()

    assert [(again.status_code, slug(again), again.headers["Retry-After"]) for again in meanwhile] == [
        (409, "idempotency-in-progress", "2")
    ] * 2
    assert (other.status_code, slug(other)) == (422, "idempotency-key-reused")
    assert answer.ok
    assert send(addresses[1], key).text == answer.text
    assert server.pictures == before + 1


def test_many_at_once_are_one_classification(addresses, server):
    key, before = new_key(), server.pictures
    server.go.clear()
    with ThreadPoolExecutor(16) as pool:
        calls = [pool.submit(send, addresses[turn % 2], key) for turn in range(16)]
        processes.wait_until(lambda: sum(call.done() for call in calls) == 15)
        server.go.set()
        assert not wait(calls, timeout=30).not_done

    assert sorted(call.result().status_code for call in calls) == [200] + [409] * 15
    assert server.pictures == before + 1


def test_what_failed_is_not_kept(addresses):
    key = new_key()

    answers = [send(address, key, paint()[:60]) for address in (*addresses, addresses[0])]

    assert [(answer.status_code, is_replayed(answer)) for answer in answers] == [(422, False)] * 3
    assert {slug(answer) for answer in answers} == {"broken-picture"}
    # The key is free for the picture as it should be.
    assert send(addresses[1], key).ok


def test_what_is_kept_is_the_answer_for_a_day_and_nothing_of_picture_or_key(addresses, store):
    key, marked = str(uuid.uuid4()), paint("malignant", format="PNG", size=(301, 207))

    answer = send(addresses[0], key, marked)

    with closing(redis.Redis(port=store)) as client:
        names = {name: client.get(name) for name in client.scan_iter(f"{PREFIX}*")}
        (kept,) = [name for name, value in names.items() if answer.json()["id"].encode() in value]
        seconds = client.ttl(kept)
        assert len(list(client.scan_iter("*"))) == len(names)
    state, fingerprint, document = names[kept].split(b"\n", 2)
    assert DAY_S - 60 < seconds <= DAY_S
    assert (state, document.decode() + "\n") == (b"done", answer.text)
    assert len(fingerprint) == 64
    assert key.encode() not in b"".join([*names, *names.values()])
    assert marked[:16] not in names[kept]


def test_a_claim_ends_by_itself_when_its_process_dies(addresses, server, store):
    key, before = new_key(), server.pictures
    server.go.clear()
    with ThreadPoolExecutor(1) as pool, closing(redis.Redis(port=store)) as client:
        first = pool.submit(send, addresses[0], key)
        processes.wait_until(lambda: server.pictures == before + 1)
        claims = [name for name in client.scan_iter(f"{PREFIX}*") if client.get(name).startswith(b"at work")]
        left_ms = [client.pttl(name) for name in claims]
        server.go.set()
        assert first.result().ok

    assert len(claims) == 1
    assert 0 < left_ms[0] <= CLAIM_S * 1000


def test_an_answer_that_comes_after_its_claim_was_lost_replaces_nobodys(store):
    with closing(connect(Settings(redis_url=f"redis://127.0.0.1:{store}/0"))) as client:
        answers, name = RedisAnswers(client, CLAIM_S), uuid.uuid4().hex
        slow, fast = Claim(name, "f" * 64, "slow"), Claim(name, "f" * 64, "fast")
        assert answers.begin(slow) is None
        client.delete(PREFIX + name)
        assert answers.begin(fast) is None

        with pytest.raises(IdempotencyUnavailable):
            answers.keep(slow, "late")
        answers.release(slow)
        answers.keep(fast, "first")
        assert answers.begin(slow) == "first"


def test_the_password_is_read_from_its_file(tmp_path):
    (tmp_path / "right").write_text("s3cret\n")
    (tmp_path / "wrong").write_text("guess\n")
    with processes.redis_server(tmp_path, "--requirepass", "s3cret") as (_, port):
        found = {}
        for name in ("right", "wrong"):
            settings = Settings(redis_url=f"redis://127.0.0.1:{port}/0", redis_password_file=str(tmp_path / name))
            with closing(connect(settings)) as client:
                try:
                    found[name] = RedisAnswers(client, CLAIM_S).begin(Claim(name, "f" * 64, "t"))
                except IdempotencyUnavailable as error:
                    found[name] = type(error)

    assert found == {"right": None, "wrong": IdempotencyUnavailable}


def test_without_redis_a_key_is_refused_what_has_none_is_answered_and_it_heals_by_itself(server, tmp_path):
    port = processes.free_port()
    settings = {"GATEWAY_REDIS_URL": f"redis://127.0.0.1:{port}/0", "GATEWAY_WORKERS": "1"}
    for name in ("redis", "again", "gateway"):
        (tmp_path / name).mkdir()
    with processes.gateway(server.port, tmp_path / "gateway", **settings) as (program, address):
        key, before = new_key(), server.pictures
        with processes.redis_server(tmp_path / "redis", port=port) as (store, _):
            assert send(address, key).ok
            server.go.clear()
            with ThreadPoolExecutor(1) as pool:
                pending = pool.submit(send, address, new_key())
                processes.wait_until(lambda: server.pictures == before + 2)
                store.process.send_signal(signal.SIGKILL)
                store.process.wait(30)
                server.go.set()
                unkept = pending.result()
            away = send(address, new_key())
            without = processes.post_picture(address, PICTURE)
        with processes.redis_server(tmp_path / "again", port=port):
            healed = [send(address, key) for _ in range(2)]
        output = program.output

    for answer in (unkept, away):
        assert (answer.status_code, slug(answer)) == (503, "idempotency-unavailable")
        assert answer.headers["Retry-After"] == "2"
    assert without.ok
    assert [(answer.status_code, is_replayed(answer)) for answer in healed] == [(200, False), (200, True)]
    # A key is claimed before anything is worked on: the one that came while Redis was away cost nothing.
    assert server.pictures == before + 4
    assert "Traceback" not in output
