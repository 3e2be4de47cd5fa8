import errno
import io
import json
import sys
import uuid

import pytest
import structlog

from gateway import logs


@pytest.fixture(autouse=True)
def as_it_was():
    yield
    structlog.reset_defaults()


def fail(upload):
    raise RuntimeError("something unforeseen")


def test_a_traceback_says_where_and_holds_no_values(capsys):
    logs.configure()
    try:
        fail(b"PATIENT-NAME")
    except RuntimeError:
        structlog.get_logger().exception("unexpected error")

    line = capsys.readouterr().err
    assert json.loads(line)["exception"][0]["exc_value"] == "something unforeseen"
    assert '"fail"' in line
    assert "PATIENT-NAME" not in line


@pytest.mark.parametrize("given", [None, "", "short", "x" * 65, "a b c d e f", "<script>alert(1)", "-leading-hyphen"])
def test_an_id_that_is_not_harmless_is_replaced(given):
    assert uuid.UUID(logs.request_id(given)).version == 4


def test_a_harmless_id_is_kept():
    assert logs.request_id("Case_2026-11-25") == "Case_2026-11-25"


class Recorder(io.RawIOBase):
    """A disk: what each system call wrote, until it is full."""

    def __init__(self):
        self.writes = []
        self.is_full = False

    def writable(self):
        return True

    def write(self, data):
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.writes.append(bytes(data))
        return len(data)


def log_onto(disk, monkeypatch, *on_loss):
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BufferedWriter(disk), line_buffering=True))
    logs.configure(*on_loss)
    return structlog.get_logger()


def test_a_line_and_its_end_are_one_write_so_that_no_other_process_comes_between(monkeypatch):
    disk = Recorder()
    log = log_onto(disk, monkeypatch)

    log.info("request", id="one")
    log.info("long", text="x" * 20_000)

    assert len(disk.writes) == 2
    assert [json.loads(line)["event"] for line in disk.writes] == ["request", "long"]
    assert all(line.endswith(b"}\n") for line in disk.writes)


def test_a_line_for_which_there_is_no_room_costs_nobody_an_answer_and_is_counted(monkeypatch):
    disk, lost = Recorder(), []
    log = log_onto(disk, monkeypatch, lambda: lost.append(1))

    disk.is_full = True
    for number in range(1000):
        log.info("request", number=number)
    disk.is_full = False
    log.info("request", number=1000)

    assert len(lost) >= 1000
    lines = b"".join(disk.writes).splitlines()
    assert json.loads(lines[-1])["number"] == 1000
    assert all(json.loads(line)["event"] == "request" for line in lines)
    # What is kept for later has an end.
    assert sum(map(len, disk.writes)) < 20_000
