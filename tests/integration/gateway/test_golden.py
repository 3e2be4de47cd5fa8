"""The golden picture and the drift as they run: two processes, of which one checks."""

import dataclasses
import os
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.drift import psi, shares
from tests import paced_server, processes
from tests.metadata import VALIDATION_LIKE, with_reference
from tests.pictures import paint

AT_WORK = 2


class RecordedServer(paced_server.PacedServer):
    """Its version has recorded what it answers; as soon as it lies, other weights answer under the version's number."""

    def __init__(self):
        super().__init__()
        self.is_lying = False

    def predict(self, request, context):
        response = super().predict(request, context)
        if "metadata" in response.outputs:
            response.outputs["metadata"].string_val[0] = with_reference().to_json().encode()
        elif self.is_lying:
            response.outputs["none_score"].float_val[0] = 3.0
        return response


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """A model server, the gateway's program and its address."""
    settings = {"GATEWAY_WORKERS": "2", "GATEWAY_THREADS": str(AT_WORK), "GATEWAY_GOLDEN_PERIOD_S": "0.2"}
    with (
        paced_server.serving(RecordedServer()) as server,
        processes.gateway(server.port, tmp_path_factory.mktemp("golden"), **settings) as (program, address),
    ):
        yield server, program, address


def checks(address, result):
    return processes.read_metrics(address).get(("golden_checks_total", result), 0.0)


def wait_for_more(address, result):
    before = checks(address, result)
    processes.wait_until(lambda: checks(address, result) >= before + 2)


def children(program):
    master = program.process.pid
    return Path(f"/proc/{master}/task/{master}/children").read_text().split()


def holders(program):
    """Processes of the gateway that have locked something, by what the kernel says of their files."""
    return [child for child in children(program) if any(map(is_locked, Path(f"/proc/{child}/fdinfo").iterdir()))]


def is_locked(file):
    try:
        return "FLOCK" in file.read_text()
    except OSError:
        # Closed since.
        return False


def test_the_recorded_answer_is_ok_and_weights_that_lie_are_found(checked):
    server, program, address = checked

    wait_for_more(address, "ok")
    before = processes.read_metrics(address)
    server.is_lying = True
    try:
        wait_for_more(address, "differs")
        seen = processes.read_metrics(address)
    finally:
        server.is_lying = False

    assert seen["golden_difference", "none_score"] == 3
    assert before["golden_last_ok_timestamp_seconds",] > 1.7e9
    assert "another answer than its version recorded" in program.output
    wait_for_more(address, "ok")
    # Nobody has sent a picture meanwhile.
    for name in ("outcomes_total", "none_score_count", "admissions_total", "requests_total"):
        of_pictures = [
            {key: value for key, value in page.items() if key[0] == name and "GET" not in key} for page in (before, seen)
        ]
        assert of_pictures[0] == of_pictures[1]


def test_one_process_checks_and_another_takes_over_when_it_dies(checked):
    _, program, address = checked
    wait_for_more(address, "ok")
    (first,) = holders(program)

    os.kill(int(first), signal.SIGKILL)
    processes.wait_until(lambda: first not in children(program) and len(children(program)) == 2)
    wait_for_more(address, "ok")

    (second,) = holders(program)
    assert second != first


def test_while_all_turns_are_taken_it_is_skipped_and_nobody_pays_for_it(checked):
    server, _, address = checked
    is_over, codes = threading.Event(), Counter()

    def send():
        """One after the other, refused or not: both processes are full before long, and whoever leaves is followed."""
        while not is_over.is_set():
            codes[processes.post_picture(address, paint()).status_code] += 1

    server.go.clear()
    with ThreadPoolExecutor(8 * AT_WORK) as pool:
        senders = [pool.submit(send) for _ in range(8 * AT_WORK)]
        try:
            wait_for_more(address, "skipped")
        finally:
            is_over.set()
            server.go.set()
        for sender in senders:
            sender.result()

    assert codes[200] >= AT_WORK
    wait_for_more(address, "ok")


def test_drift_is_that_of_all_processes_whichever_is_asked(checked):
    _, _, address = checked
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: processes.post_picture(address, paint()), range(16)))

    answered = processes.read_metrics(address)["malignant_probability_count", "1"]
    pages = [processes.read_metrics(address) for _ in range(6)]

    # A float32 of 0.1 every time, which is a little more: the seventh bin.
    expected = psi(shares(VALIDATION_LIKE), shares([answered if place == 6 else 0 for place in range(12)]))
    for page in pages:
        assert page["drift_pictures", "1", "malignant_probability"] == answered >= 16
        assert page["drift_psi", "1", "malignant_probability"] == pytest.approx(expected)
        assert page["reference_pictures", "1"] == sum(VALIDATION_LIKE)
        assert page["model_info", "0" * 64, "1", "tiny"] == 1


def test_a_gateway_that_checks_stops_as_one_that_does_not(tmp_path):
    """With a check under way that would take longer than anybody waits."""
    with (
        paced_server.serving(RecordedServer()) as server,
        processes.gateway(server.port, tmp_path, GATEWAY_WORKERS="1", GATEWAY_GOLDEN_PERIOD_S="0.05") as (program, _),
    ):
        server.go.clear()
        processes.wait_until(lambda: server.pictures > 0)
        program.process.send_signal(signal.SIGTERM)
        assert program.process.wait(5) == 0


def test_the_document_of_the_test_is_a_released_one_with_more():
    """Otherwise nothing above would say anything of a version before 3."""
    assert dataclasses.replace(with_reference(), reference=None, golden=None).to_json() == paced_server.METADATA.to_json()
