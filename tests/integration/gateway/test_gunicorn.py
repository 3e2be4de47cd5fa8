"""The gateway as it runs: gunicorn, several workers, a model server behind it."""

import http.client
import json
import math
import os
import re
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import requests
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from gateway.classify import MAX_DECODING
from gateway.images import MAX_UNREDUCED_PIXELS
from gateway.problems import RETRY_AFTER_S
from tests import processes
from tests.pictures import encode, paint, textured

MAX_RESIDENT_BYTES = 100_000_000
CLOSED = ("breakers", "stable", "closed")
"""As many processes as are up have it in the metrics."""


def classify(address, data, **headers):
    return requests.post(f"{address}/api/v1/classifications", files={"file": ("x.png", data)}, headers=headers, timeout=30)


@pytest.mark.parametrize("outcome", ["malignant", "benign", "uncertain", "out_of_scope", "guarded"])
def test_the_whole_way_gives_what_was_painted(stack, outcome):
    address, _ = stack

    answer = classify(address, paint(outcome)).json()

    expected = {"uncertain": ("none", "uncertain"), "out_of_scope": ("none", "out_of_scope"), "guarded": ("none", "uncertain")}
    assert (answer["label"], answer["reason"]) == expected.get(outcome, (outcome, None))


def test_totals_add_up_over_workers(tiny_server, tmp_path):
    with processes.gateway(tiny_server[0], tmp_path, GATEWAY_WORKERS="2") as (program, address):
        program.wait_for(lambda: processes.read_metrics(address).get(CLOSED) == 2)
        with ThreadPoolExecutor(8) as pool:
            assert all(answer.ok for answer in pool.map(lambda _: classify(address, paint("malignant")), range(40)))

        families = text_string_to_metric_families(requests.get(f"{address}/metrics", timeout=10).text)
        samples = {
            (sample.name, *sorted(sample.labels.items())): sample.value for family in families for sample in family.samples
        }

    key = ("dermserve_gateway_outcomes_total", ("label", "malignant"), ("model_version", "1"), ("reason", ""))
    assert samples[key] == 40
    route = ("route", "/api/v1/classifications")
    assert samples["dermserve_gateway_requests_total", ("method", "POST"), route, ("status", "200")] == 40
    assert samples["dermserve_gateway_request_seconds_count", route] == 40
    for stage in ("decode", "preprocess", "predict", "decide"):
        assert samples["dermserve_gateway_stage_seconds_count", ("stage", stage)] == 40
    assert samples["dermserve_gateway_admissions_total", ("result", "admitted")] == 40
    assert samples["dermserve_gateway_pictures", ("state", "present")] == 0
    # Two processes, each with two channels.
    for label in ("stable", "canary"):
        for state, processes_in_it in (("closed", 2), ("half_open", 0), ("open", 0)):
            assert samples["dermserve_gateway_breakers", ("channel", label), ("state", state)] == processes_in_it
    assert program.process.returncode == 0


def test_a_worker_that_is_gone_counts_no_longer(tiny_server, tmp_path):
    with processes.gateway(tiny_server[0], tmp_path, GATEWAY_WORKERS="2") as (program, address):
        program.wait_for(lambda: processes.read_metrics(address).get(CLOSED) == 2)
        master = program.process.pid
        first = Path(f"/proc/{master}/task/{master}/children").read_text().split()[0]
        os.kill(int(first), signal.SIGKILL)

        program.wait_for(lambda: str(first) not in Path(f"/proc/{master}/task/{master}/children").read_text().split())
        program.wait_for(lambda: processes.read_metrics(address).get(CLOSED) == 2)


def test_who_comes_back_when_told_to_finds_the_connection_open(stack):
    address, _ = stack
    # Unlike requests, it opens no other one unasked.
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=10)

    statuses = []
    for pause_s in (0, RETRY_AFTER_S + 1.5):
        # The server may look once a second for connections to close.
        time.sleep(pause_s)
        connection.request("GET", "/health/live")
        with connection.getresponse() as response:
            statuses.append(response.status)
            response.read()
    connection.close()

    assert statuses == [200, 200]


def test_workers_are_small_and_hold_no_tensorflow(tiny_server, tmp_path):
    with processes.gateway(tiny_server[0], tmp_path, GATEWAY_WORKERS="2") as (program, address):
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: classify(address, encode(textured((1500, 1000)), "JPEG")), range(20)))
        master = program.process.pid
        children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
        resident = [_bytes_of(int(child), "VmRSS") for child in children]
        maps = "".join(Path(f"/proc/{child}/maps").read_text() for child in children)

    assert len(resident) == 2
    assert max(resident) < MAX_RESIDENT_BYTES
    assert "tensorflow" not in maps


def test_a_worker_leaves_no_core_dump(stack):
    """It would hold pictures. Not 0: where dumps go to a program, the kernel heeds only 1."""
    _, program = stack
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    master = program.process.pid
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    limits = {re.search(r"^Max core file size +(\w+) +(\w+)", read_limits(pid), re.MULTILINE).groups() for pid in children}

    assert limits == {("0", "0") if hard == 0 else ("1", "1")}


def read_limits(pid):
    return Path(f"/proc/{pid}/limits").read_text()


def test_small_files_with_many_pixels_do_not_fill_the_memory(tiny_server, tmp_path):
    """Flat pictures: some 100 kB that Pillow decodes to a hundred megabytes each."""
    edge = math.isqrt(MAX_UNREDUCED_PIXELS)
    bombs = [
        encode(Image.fromarray(np.zeros((edge, edge), np.uint16)), "PNG"),
        encode(Image.new("RGBA", (edge, edge), (90, 40, 40, 255)), "PNG"),
    ]
    with processes.gateway(tiny_server[0], tmp_path, GATEWAY_WORKERS="1") as (program, address):
        with ThreadPoolExecutor(8) as pool:
            assert all(answer.ok for answer in pool.map(lambda data: classify(address, data), bombs * 4))
        (worker,) = Path(f"/proc/{program.process.pid}/task/{program.process.pid}/children").read_text().split()
        peak = _bytes_of(int(worker), "VmHWM")

    # Four bytes a pixel, at most twice (decoded, and with premultiplied alpha), and room for what is not given back yet.
    assert peak < MAX_RESIDENT_BYTES + MAX_DECODING * 3 * 4 * MAX_UNREDUCED_PIXELS


def test_no_upload_becomes_a_file(tiny_server, tmp_path):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    large = encode(textured((2500, 2000)), "BMP")
    with processes.gateway(tiny_server[0], tmp_path, TMPDIR=str(temporary), GATEWAY_WORKERS="1") as (program, address):
        watched = set()
        with ThreadPoolExecutor(1) as pool:
            pending = pool.submit(classify, address, large)
            while not pending.done():
                watched |= _open_files(program.process.pid)
            assert pending.result().ok
        names = {path.name for path in temporary.rglob("*") if path.is_file()}

    assert not [path for path in watched if path.startswith(str(temporary)) and not path.endswith(".db")]
    assert all(name.endswith(".db") for name in names), names
    assert not list(temporary.rglob("*"))


def test_logs_hold_one_line_a_request_and_nothing_of_the_picture(tiny_server, tmp_path):
    exif = textured().getexif()
    exif[0x010E] = "Budi Santoso"
    data = encode(textured(), "JPEG", exif=exif)
    with processes.gateway(tiny_server[0], tmp_path) as (program, address):
        answer = requests.post(
            f"{address}/api/v1/classifications",
            files={"file": ("Budi.jpg", data)},
            headers={"X-Request-ID": "case-0001"},
            timeout=30,
        )
        output = program.output

    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert [line["id"] for line in lines if line.get("route") == "/api/v1/classifications"] == ["case-0001"]
    assert "Budi" not in output
    assert "Budi" not in answer.text


def test_without_a_model_server_it_lives_and_is_not_ready(tmp_path):
    with processes.gateway(processes.free_port(), tmp_path) as (_, address):
        assert requests.get(f"{address}/health/live", timeout=10).ok
        ready = requests.get(f"{address}/health/ready", timeout=30)
        answer = classify(address, paint())

    assert (ready.status_code, ready.headers["Content-Type"]) == (503, "application/problem+json")
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/model-unavailable")
    assert answer.headers["Retry-After"]


def test_a_wrong_environment_stops_the_start_and_names_everything(tmp_path):
    environment = os.environ | {"GATEWAY_PORT": "80", "GATEWAY_WORKERS": "x"}
    command = [sys.executable, "-m", "gunicorn", "--config", "gateway/gunicorn.conf.py", "gateway.wsgi:app"]

    result = subprocess.run(
        command, cwd=processes.ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )

    assert result.returncode
    assert "GATEWAY_PORT is not a setting" in result.stderr
    assert "GATEWAY_WORKERS is not of kind int" in result.stderr


def _bytes_of(pid, name):
    """One line of the process's memory: VmRSS is what it holds now, VmHWM the most it has held."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(name))


def _open_files(master):
    found = set()
    for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split():
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                found.add(str(link.readlink()))
            except OSError:
                continue
    return found


def test_a_process_has_room_for_all_its_metrics_before_it_serves_anybody(tiny_server, tmp_path):
    """A hole in such a file ends the process when it is written and the disk is full."""
    with processes.gateway(tiny_server[0], tmp_path, GATEWAY_WORKERS="1", PROMETHEUS_MULTIPROC_DIR=str(tmp_path)) as (
        _,
        address,
    ):
        assert classify(address, paint("malignant")).ok
        files = {path.name.rpartition("_")[0]: path.stat() for path in tmp_path.glob("*.db")}

    assert {"counter", "histogram", "gauge_mostrecent"} <= files.keys()
    assert {name: stat.st_blocks * 512 >= stat.st_size for name, stat in files.items()} == dict.fromkeys(files, True)
