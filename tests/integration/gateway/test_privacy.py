"""Nothing of a picture gets out: marks are planted in uploads and looked for in all that the gateway says, keeps and writes."""

import base64
import ctypes
import os
import re
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from gateway.audit.verification import verify
from gateway.cases import database, migration
from gateway.settings import Settings
from tests import processes
from tests.planted import SEED, bad_pictures, good_pictures, leaks, mark

PATHS = ("/api/v1/classifications", "/check", "/api/v1/cases")
MAY_BE_WRITTEN = re.compile(
    r"gateway\.log|audit\.jsonl(\.lock)?|cases\.db(-wal|-shm|-journal)?|dermserve-metrics-\w+/(counter|gauge_\w+|histogram)_\d+\.db"
)
COMMON = ("/tmp", "/dev/shm")  # noqa: S108  (others write there too: what stays there is read)
IN_MODIFY, IN_CLOSE_WRITE, IN_MOVED_TO, IN_CREATE, IN_NONBLOCK = 0x2, 0x8, 0x80, 0x100, 0o4000


@dataclass
class Exposure:
    """What a gateway has given away.

    Attributes:
        answers: status, headers and body of each request.
        written: files that were created or written meanwhile.
        files: content of every file of the gateway's folders.
        metrics: the page for Prometheus.
        output: its log.
        statuses: of the answers.
    """

    answers: dict[str, bytes]
    written: set[str]
    files: dict[str, bytes]
    metrics: bytes
    output: bytes
    statuses: list[int]


class Watch:
    """inotify: which files come into being or change in folders, however short they live."""

    def __init__(self, folders):
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._file = self._libc.inotify_init1(IN_NONBLOCK)
        assert self._file >= 0
        mask = IN_MODIFY | IN_CLOSE_WRITE | IN_MOVED_TO | IN_CREATE
        self._folders = {self._libc.inotify_add_watch(self._file, os.fsencode(folder), mask): folder for folder in folders}
        assert min(self._folders) > 0

    def close(self):
        seen = set()
        while True:
            try:
                data = os.read(self._file, 1 << 16)
            except BlockingIOError:
                break
            while data:
                folder, _, _, length = struct.unpack_from("iIII", data)
                assert folder > 0, "more happened than the kernel remembers"
                seen.add(str(Path(self._folders[folder], data[16 : 16 + length].rstrip(b"\0").decode())))
                data = data[16 + length :]
        os.close(self._file)
        return seen


@pytest.fixture(scope="module")
def exposure(tiny_server, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    place = {"TMPDIR": str(home), "HOME": str(home), "GATEWAY_WORKERS": "1", "GATEWAY_AUDIT_FILE": f"{home}/audit.jsonl"}
    place["GATEWAY_CASES_DATABASE"] = f"sqlite:///{home}/cases.db"
    engine = database.connect(Settings(cases_database=place["GATEWAY_CASES_DATABASE"]))
    migration.upgrade(engine)
    engine.dispose()
    good = good_pictures()
    assert all(SEED.encode() in data for data in good.values())
    pictures = good | bad_pictures(good)
    with processes.gateway(tiny_server[0], home, **place) as (program, address):
        root = processes.ROOT
        own = [home, *(path for path in home.rglob("*") if path.is_dir())]
        source = [root, root / "gateway", root / "web", *(path for path in (root / "web").rglob("*") if path.is_dir())]
        watch = Watch([*own, *source, *COMMON])
        with ThreadPoolExecutor(4) as pool:
            jobs = [(path, name) for path in PATHS for name in pictures]
            responses = list(pool.map(lambda job: upload(address, *job, pictures[job[1]]), jobs))
        others = [
            requests.get(f"{address}/api/v1/{mark('path')}?name={mark('query')}", timeout=30),
            requests.get(f"{address}/api/v1/cases?label={mark('label')}", timeout=30),
            requests.get(f"{address}/api/v1/cases?limit=100", timeout=30),
            requests.get(f"{address}/api/v1/cases.csv", timeout=30),
            requests.post(f"{address}/api/v1/cases/{mark('id')}/findings", json={"note": mark("note")}, timeout=30),
            requests.post(f"{address}/language", data={"language": mark("language")}, allow_redirects=False, timeout=30),
        ]
        written = watch.close()
        answers = {f"{path} {name}": told(answer) for (path, name), answer in zip(jobs, responses, strict=True)}
        answers |= {str(number): told(answer) for number, answer in enumerate(others)}
        metrics = requests.get(f"{address}/metrics", timeout=30).content
        files = {str(path): path.read_bytes() for path in home.rglob("*") if path.is_file()}
    return Exposure(answers, written, files, metrics, program.output.encode(), [answer.status_code for answer in responses])


def upload(address, path, name, data):
    """With a mark in everything that comes beside the picture as well."""
    return requests.post(
        f"{address}{path}?patient={mark('query')}",
        files={"file": (f"{mark('name')}-{name}", data, f"image/jpeg; name={mark('type')}")},
        data={"consent": "yes", "pdf_picture": "yes", "patient": mark("field"), mark("field-name"): "x"},
        headers={"X-Request-ID": f"{mark('id')}!", "Cookie": f"language={mark('cookie')}", "User-Agent": mark("agent")},
        timeout=60,
    )


def told(response):
    headers = "".join(f"{name}: {value}\n" for name, value in response.headers.items())
    return f"{response.status_code} {response.reason}\n{headers}\n".encode() + response.content


def test_the_uploads_went_all_the_ways(exposure):
    """Otherwise the tests below would prove nothing."""
    assert {200, 201, 415, 422} <= set(exposure.statuses)
    assert 500 not in exposure.statuses
    kept = {name.removeprefix("/api/v1/cases ") for name, answer in exposure.answers.items() if answer.startswith(b"201")}
    assert kept >= {"x.jpg", "x.png", "x.tif", "x.webp", "x.heic", "x.dcm"}
    assert exposure.output.count(b'"request"') > len(exposure.statuses)
    assert exposure.metrics.count(b"dermserve_gateway_problems_total") > 5
    assert any("audit.jsonl" in path for path in exposure.written)


def test_no_answer_holds_a_mark(exposure):
    assert [name for name, answer in exposure.answers.items() if leaks(answer)] == []


def test_the_log_and_the_metrics_hold_no_mark(exposure):
    assert not leaks(exposure.output)
    assert not leaks(exposure.metrics)


def test_the_audit_the_cases_and_every_other_file_hold_no_mark(exposure):
    names = {Path(name).name for name in exposure.files}

    assert {"audit.jsonl", "cases.db"} <= names
    assert [name for name, content in exposure.files.items() if leaks(content)] == []


def test_every_upload_that_was_read_is_in_the_audit(exposure, tmp_path):
    (content,) = (content for name, content in exposure.files.items() if name.endswith("audit.jsonl"))
    (tmp_path / "audit.jsonl").write_bytes(content)
    report = verify([tmp_path / "audit.jsonl"])

    # The kept ones twice, and the questions about cases.
    assert report.records == len(exposure.statuses) + exposure.statuses.count(201) + 2


def test_no_file_is_written_but_those_that_are_known(exposure):
    ours = {path for path in exposure.written if str(Path(path).parent) not in COMMON}
    (home,) = {str(Path(name).parent) for name in exposure.files if name.endswith("audit.jsonl")}
    # What tests themselves leave in the checkout.
    ours = {
        path for path in ours if not re.search(r"/(\.pytest_cache|\.hypothesis|\.mypy_cache|\.ruff_cache|__pycache__)", path)
    }

    assert {path for path in ours if not MAY_BE_WRITTEN.fullmatch(os.path.relpath(path, home))} == set()
    assert [path for path in exposure.written - ours if leaks(what_is_left(path))] == []


def what_is_left(path):
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize(
    "form",
    [
        str.encode,
        str.lower,
        lambda text: text.encode("utf-16-le"),
        lambda text: text.encode("utf-16-be"),
        lambda text: text.encode().hex(),
        lambda text: base64.b64encode(text.encode()),
        lambda text: base64.b64encode(b"1" + text.encode()),
        lambda text: base64.b64encode(b"12" + text.encode()),
        lambda text: str(text.encode()),
    ],
)
def test_a_mark_is_found_however_it_is_written(form):
    written = form(mark("somewhere"))

    assert leaks(written if isinstance(written, bytes) else written.encode())
    assert not leaks(b"")
