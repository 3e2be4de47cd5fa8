"""Batches through gunicorn: a real model server, and one that is held up."""

import requests

from tests import processes
from tests.integration.gateway.test_overload import AT_WORK, WAITING, full, held_up
from tests.pictures import COLOURS, paint

SINGLE, BATCH = "/api/v1/classifications", "/api/v1/classifications:batch"


def send(address, *pictures, path=BATCH):
    return requests.post(address + path, files=[("file", ("x", picture)) for picture in pictures], timeout=60)


def test_sixteen_pictures_are_answered_as_each_of_them_alone(stack):
    address, _ = stack
    outcomes = [*COLOURS, *COLOURS, *COLOURS, "benign"]
    pictures = [paint(outcome, (120 + 10 * place, 200)) for place, outcome in enumerate(outcomes)]

    together = send(address, *pictures).json()["results"]
    alone = [send(address, picture, path=SINGLE).json() for picture in pictures]

    for answer in (*together, *alone):
        del answer["id"]
    assert together == alone
    assert len(together) == 16


def test_a_batch_takes_as_many_places_as_it_counts_for_and_a_single_picture_still_finds_one(tmp_path):
    with held_up(tmp_path) as (server, _, address):
        server.go.set()
        with full(address, server, AT_WORK + WAITING - 1):
            refused = send(address, *[paint()] * 5)
            before = server.pictures
            alone, one = send(address, paint(), path=SINGLE), send(address, paint())
        processes.wait_until(lambda: processes.read_metrics(address)["pictures", "present"] == 0)
        largest = send(address, *[paint()] * 16)
        metrics = processes.read_metrics(address)

    assert (refused.status_code, refused.json()["type"], refused.headers["Retry-After"]) == (503, "/problems/overloaded", "2")
    assert (before, alone.status_code, one.status_code) == (0, 200, 200)
    assert len(largest.json()["results"]) == 16
    assert (server.pictures, server.calls) == (18, 3)
    assert {metrics["pictures", state] for state in ("present", "waiting", "at_work")} == {0}
