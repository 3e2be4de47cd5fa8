import fcntl
import json
import multiprocessing
import os
import resource
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from gateway.audit.__main__ import main
from gateway.audit.record import START, Event, Head, digest, read_line, write_line
from gateway.audit.trail import FileAudit
from gateway.audit.verification import BrokenChain, verify
from gateway.errors import AuditUnavailable

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def event(outcome="benign", **facts):
    return Event("anybody", "classify", "request-1", outcome, **{"picture": b"pixels", "model_version": 2} | facts)


def chain(count):
    """Lines of a chain, and its end."""
    lines, head = [], START
    for number in range(count):
        line, head = write_line(event(reason=str(number)), NOON, head)
        lines.append(line)
    return lines, head


LINES, HEAD = chain(5)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.jsonl"


def test_a_record_says_all_and_of_the_picture_only_its_digest(path):
    head = FileAudit(path).write(event("none", reason="uncertain", cases=("c",)))

    document = json.loads(path.read_bytes())
    assert document.pop("time").endswith("Z")
    assert document == {
        "sequence": 1,
        "who": "anybody",
        "action": "classify",
        "request": "request-1",
        "picture": digest(b"pixels"),
        "cases": ["c"],
        "outcome": "none",
        "reason": "uncertain",
        "model_version": 2,
        "previous": "0" * 64,
        "hash": head.hash,
    }
    assert Head.parse(str(head)) == head
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_picture_is_in_no_text_of_the_event():
    assert "pixels" not in repr(event())


@st.composite
def changed(draw):
    """The chain of five with one change: a byte, a byte more or less, a line less, twice, elsewhere, or another one."""
    lines = list(LINES)
    kind = draw(st.sampled_from(["byte", "insert", "cut", "remove", "double", "swap", "foreign", "truncate"]))
    at = draw(st.integers(0, len(lines) - 1))
    if kind in ("byte", "insert", "cut", "truncate"):
        data = b"".join(lines)
        place = draw(st.integers(0, len(data) - 1))
        if kind == "truncate":
            return data[:place]
        new = b"" if kind == "cut" else bytes([draw(st.integers(0, 255))])
        return data[:place] + new + data[place + (kind != "insert") :]
    if kind == "remove":
        del lines[at]
    elif kind == "double":
        lines.insert(draw(st.integers(0, len(lines))), lines[at])
    elif kind == "foreign":
        lines.insert(at, chain(7)[0][draw(st.integers(5, 6))])
    else:
        other = draw(st.integers(0, len(lines) - 1))
        lines[at], lines[other] = lines[other], lines[at]
    return b"".join(lines)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changed())
def test_any_change_is_found(tmp_path, data):
    path = tmp_path / "changed.jsonl"
    path.write_bytes(data)

    if data == b"".join(LINES):
        assert verify([path], [HEAD]).records == 5
    else:
        with pytest.raises(BrokenChain):
            verify([path], [HEAD])


def test_every_single_byte_is_kept(path):
    data = LINES[0]
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(BrokenChain):
            verify([path], [read_line(LINES[0]).head])


def test_a_chain_that_was_written_anew_is_found_by_the_head_alone(path):
    """Whoever can write the whole file can make a chain that holds by itself: that is what an anchor is for."""
    line, head = write_line(event("malignant"), NOON, START)
    path.write_bytes(line)

    assert verify([path]).head == head
    with pytest.raises(BrokenChain, match="not the one that"):
        verify([path], [read_line(LINES[0]).head])


def test_the_command_names_the_first_bad_line(path, capsys):
    path.write_bytes(b"".join(LINES))
    assert main(["verify", str(path), "--head", str(HEAD), "--head", str(read_line(LINES[1]).head)]) == 0
    assert capsys.readouterr().out == (
        f"5 records, first 2026-01-01T12:00:00.000Z, last 2026-01-01T12:00:00.000Z\nhead {HEAD}\n"
    )

    path.write_bytes(b"".join([LINES[0], LINES[1].replace(b"benign", b"malign"), *LINES[2:]]))
    assert main(["verify", str(path)]) == 1
    assert capsys.readouterr().err == f"broken: {path}, line 2: not a record\n"

    path.write_bytes(b"".join(LINES[:3]))
    assert main(["verify", str(path), "--head", str(HEAD)]) == 1
    assert "record 5 is missing, the last one is 3" in capsys.readouterr().err

    assert main(["verify", str(path.with_name("none"))]) == 1


def test_a_full_file_is_followed_by_another_and_the_chain_goes_on(path):
    audit = FileAudit(path, max_bytes=1000)
    heads = [audit.write(event()) for _ in range(10)]
    files = [*sorted(path.parent.glob("audit.jsonl.0*")), path]

    assert len(files) > 2
    assert verify(files, heads).head == heads[-1]
    assert max(file.stat().st_size for file in files) < 1600
    with pytest.raises(BrokenChain):
        verify(files[1:])
    gone = verify(files[:1]).head
    assert verify(files[1:], heads[gone.sequence :], after=gone).head == heads[-1]
    with pytest.raises(BrokenChain):
        verify([files[1], files[0], *files[2:]])


def test_a_process_that_ended_between_two_files_loses_no_link(path):
    audit = FileAudit(path, max_bytes=300)
    first = audit.write(event())
    path.rename(f"{path}.{first.sequence:012}")

    assert FileAudit(path).write(event()).sequence == 2
    assert verify([path.with_name("audit.jsonl.000000000001"), path]).records == 2


@pytest.mark.parametrize("torn", [LINES[1][:1], LINES[1][:-2], LINES[1][:200], b"\0" * 4096])
def test_a_torn_record_is_told_kept_and_sealed(path, torn):
    path.write_bytes(LINES[0] + torn)
    with pytest.raises(BrokenChain):
        verify([path])

    with capture_logs() as logged:
        head = FileAudit(path).write(event())

    assert [line["event"] for line in logged] == ["audit record torn"]
    assert path.read_bytes().startswith(LINES[0] + torn + b"\n")
    report = verify([path], [head, read_line(LINES[0]).head])
    assert (report.records, report.torn) == (3, 1)
    for other in (torn[:-1] + b"~", b""):
        path.write_bytes(path.read_bytes().replace(torn + b"\n", other + (other and b"\n"), 1))
        with pytest.raises(BrokenChain):
            verify([path])


def test_a_record_that_has_only_its_end_of_line_missing_is_whole(path):
    path.write_bytes(LINES[0] + LINES[1][:-1])
    with pytest.raises(BrokenChain):
        verify([path])

    FileAudit(path).write(event())

    report = verify([path], [read_line(LINES[1]).head])
    assert (report.records, report.torn) == (3, 0)


def test_a_crash_while_a_torn_record_is_sealed_is_one_more(path):
    path.write_bytes(LINES[0] + b'{"torn\n{"action":"recov')

    FileAudit(path).write(event())

    assert verify([path]).torn == 1


def test_a_torn_first_record_is_sealed_too(path):
    path.write_bytes(b'{"torn')

    FileAudit(path).write(event())

    assert (verify([path]).records, verify([path]).torn) == (2, 1)


@pytest.mark.parametrize("end", [LINES[1].replace(b"benign", b"malign"), b"\n", b"x" * 100_000])
def test_nothing_is_written_behind_what_is_not_ours(path, end):
    path.write_bytes(LINES[0] + end)

    with pytest.raises(AuditUnavailable), capture_logs():
        FileAudit(path).write(event())

    assert path.read_bytes() == LINES[0] + end


def test_without_room_there_is_no_record_and_no_rest_of_one(path):
    audit = FileAudit(path)
    audit.write(event())
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, limits[1]))
    try:
        with pytest.raises(AuditUnavailable), capture_logs():
            audit.write(event())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert path.read_bytes() == before
    assert audit.write(event()).sequence == 2


def test_a_full_disk_and_a_folder_that_is_not_there_are_told(tmp_path, path):
    path.symlink_to("/dev/full")
    with pytest.raises(AuditUnavailable, match="No space left"), capture_logs():
        FileAudit(path).write(event())
    with pytest.raises(AuditUnavailable, match="No such file"):
        FileAudit(tmp_path / "none" / "audit.jsonl")


def _write_many(path, count):
    audit = FileAudit(path, max_bytes=20_000)
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda _: audit.write(event()), range(count)):
            pass


def test_processes_and_threads_write_one_chain(path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_write_many, args=(path, 100)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)

    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert verify([*sorted(path.parent.glob("audit.jsonl.0*")), path]).records == 300


def _write_until_killed(path, ready):
    audit = FileAudit(path)
    while True:
        audit.write(event())
        ready.set()


def test_a_writer_that_is_killed_blocks_nobody_and_breaks_nothing(path):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_write_until_killed, args=(path, ready))
    process.start()
    assert ready.wait(60)
    audit = FileAudit(path)
    killer = threading.Timer(0.05, os.kill, (process.pid, signal.SIGKILL))
    killer.start()
    while process.is_alive():
        audit.write(event())
    killer.join()
    process.join(30)

    with capture_logs():
        head = audit.write(event())
    assert verify([path], [head]).head == head


def test_the_lock_file_holds_nothing(path):
    FileAudit(path).write(event())

    assert Path(f"{path}.lock").read_bytes() == b""


def test_a_process_that_holds_the_lock_and_does_nothing_is_not_waited_for(path):
    audit = FileAudit(path, max_wait_s=0.02)
    with Path(f"{path}.lock").open("r+b") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with capture_logs(), pytest.raises(AuditUnavailable, match="holds the lock"):
            audit.write(event())

    assert audit.write(event()).sequence == 1


def test_a_chain_that_is_shorter_than_it_was_is_told(path):
    audit = FileAudit(path)
    for _ in range(3):
        audit.write(event())
    path.unlink()

    with capture_logs() as lines:
        audit.write(event())

    (line,) = lines
    assert line["event"] == "audit chain shorter than it was"
    assert line["was"].startswith("3:")
