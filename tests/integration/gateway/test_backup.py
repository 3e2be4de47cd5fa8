"""The case record is lost and comes back: whole, of one moment, and without what was erased."""

import os
import shlex
import sqlite3
import subprocess
import sys
import threading
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from gateway.audit.record import Event
from gateway.audit.trail import FileAudit
from gateway.audit.verification import verify
from gateway.cases import database, migration
from gateway.cases.__main__ import main
from gateway.cases.backup import BackupError, back_up, restore
from gateway.cases.record import Finding, KeptCase, Selection
from gateway.cases.store import DatabaseStore
from gateway.cases.tables import REVISION
from gateway.errors import CasesUnavailable
from gateway.settings import Settings
from tests import processes, releases

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NOTHING = frozenset()


def case(number):
    kept_at = NOON + number * timedelta(milliseconds=1)
    return KeptCase(f"{number:032x}", kept_at, "key:clinic", f"{number:064x}", "malignant", None, 0.1 + 0.2, -1.5, 2)


def keep(store, *numbers):
    """Cases with a finding each."""
    for number in numbers:
        store.keep(case(number), seal)
        store.add_finding(case(number).id, Finding(NOON, "key:clinic", number % 2 == 0, "benign"), seal)


def seal(*_):
    """What is about to be done may be done."""


def refuse(*_):
    raise PermissionError


def numbers(store):
    return sorted(int(kept.id, 16) for kept in store.page(Selection(), 10_000))


class Record:
    """An SQLite record in a folder of its own."""

    def __init__(self, folder):
        folder.mkdir()
        self.path = folder / "cases.db"
        self.address = f"sqlite:///{self.path}"
        self.engine = database.connect(Settings(cases_database=self.address))
        self.store = DatabaseStore(self.engine)

    def files(self):
        return {path.name for path in self.path.parent.iterdir()}


@pytest.fixture
def record(tmp_path):
    made = Record(tmp_path / "record")
    migration.upgrade(made.engine)
    yield made
    made.engine.dispose()


@pytest.fixture
def empty(tmp_path):
    made = Record(tmp_path / "another")
    yield made
    made.engine.dispose()


@pytest.fixture
def file(tmp_path):
    (tmp_path / "backups").mkdir()
    return tmp_path / "backups" / "cases.backup"


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    with processes.postgres_server(tmp_path_factory.mktemp("postgres")) as (_, address, password):
        yield address, password


@pytest.fixture
def connect():
    """The store in one of PostgreSQL's databases."""
    with ExitStack() as opened:

        def open_store(postgres, name):
            address = postgres[0].replace("/cases", f"/{name}")
            engine = database.connect(Settings(cases_database=address, cases_password_file=str(postgres[1])))
            opened.callback(engine.dispose)
            return DatabaseStore(engine)

        yield open_store


@pytest.fixture(scope="module")
def next_release(tmp_path_factory):
    return releases.next_release(tmp_path_factory.mktemp("next"), reads_it=True)


def test_what_was_backed_up_is_what_is_restored(record, empty, file):
    keep(record.store, *range(5))
    before = record.store.page(Selection(), 9)

    made = back_up(record.engine, file, seal)
    restored = restore(empty.engine, file, NOTHING, seal)

    assert (made.cases, made.findings, made.revision) == (5, 5, REVISION)
    assert (restored.cases, restored.findings, restored.left_out) == (5, 5, 0)
    assert empty.store.page(Selection(), 9) == before
    # One file, for its owner alone, that can be read where nothing can be written: without a write-ahead log (bytes 18 and 19).
    assert file.read_bytes()[18:20] == b"\x01\x01"
    assert [(path.name, path.stat().st_mode & 0o777) for path in file.parent.iterdir()] == [(file.name, 0o600)]
    assert empty.path.stat().st_mode & 0o777 == 0o600
    assert empty.files() <= {"cases.db", "cases.db-wal", "cases.db-shm"}


def test_a_backup_is_of_one_moment_however_many_write(record, empty, file):
    """Every thread's cases come in their order: a copy of one moment holds the first so many of each."""
    answered = [0] * 3
    stopped = threading.Event()

    def write(thread):
        while not stopped.is_set():
            keep(record.store, 1000 * thread + answered[thread])
            answered[thread] += 1

    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(3)]
    for thread in threads:
        thread.start()
    try:
        processes.wait_until(lambda: min(answered) > 3)
        before = list(answered)
        back_up(record.engine, file, seal)
        after = list(answered)
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
    restore(empty.engine, file, NOTHING, seal)

    found = numbers(empty.store)
    for thread in range(3):
        own = [number % 1000 for number in found if number // 1000 == thread]
        assert own == list(range(len(own)))
        assert before[thread] <= len(own) <= after[thread] + 1


def test_a_record_with_cases_is_not_written_over(record, empty, file):
    keep(record.store, 1)
    back_up(record.engine, file, seal)
    migration.upgrade(empty.engine)
    keep(empty.store, 2)

    with pytest.raises(BackupError, match="holds 1 cases"):
        restore(empty.engine, file, NOTHING, seal)
    with pytest.raises(BackupError, match="is there already"):
        back_up(record.engine, file, seal)

    assert numbers(empty.store) == [2]


def test_what_cannot_be_recorded_is_not_done(record, empty, file):
    keep(record.store, 1)
    with pytest.raises(PermissionError):
        back_up(record.engine, file, refuse)
    assert list(file.parent.iterdir()) == []
    back_up(record.engine, file, seal)

    with pytest.raises(PermissionError):
        restore(empty.engine, file, NOTHING, refuse)

    assert numbers(empty.store) == []


def truncated(data):
    return data[: len(data) // 2]


def overwritten(data):
    return data[:4096] + b"\x55" * 8192 + data[12288:]


@pytest.mark.parametrize("damage", [truncated, overwritten, lambda data: b"", lambda data: b"no database " * 500])
def test_a_damaged_backup_changes_nothing(record, empty, file, damage):
    keep(record.store, *range(60))
    back_up(record.engine, file, seal)
    file.write_bytes(damage(file.read_bytes()))

    with pytest.raises(BackupError):
        restore(empty.engine, file, NOTHING, seal)

    assert empty.files() <= {"cases.db"}


@pytest.mark.parametrize(
    "contradiction",
    ["PRAGMA ignore_check_constraints = ON; UPDATE cases SET malignant = 7", "PRAGMA foreign_keys = OFF; DELETE FROM cases"],
)
def test_a_backup_that_contradicts_itself_changes_nothing(record, empty, file, contradiction):
    keep(record.store, 1)
    back_up(record.engine, file, seal)
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(contradiction)

    with pytest.raises(BackupError, match="damaged"):
        restore(empty.engine, file, NOTHING, seal)

    assert empty.files() <= {"cases.db"}


def test_a_database_in_use_is_no_backup(record, empty):
    keep(record.store, 1)

    with pytest.raises(BackupError, match="in use"):
        restore(empty.engine, record.path, NOTHING, seal)


def test_what_a_newer_program_has_made_is_left_to_it(record, empty, file):
    keep(record.store, 1)
    with record.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'newer'"))
    back_up(record.engine, file, seal)

    with pytest.raises(CasesUnavailable, match="revision newer is of another program"):
        restore(empty.engine, file, NOTHING, seal)
    for change in (lambda: migration.upgrade(record.engine), lambda: migration.downgrade(record.engine, "base")):
        with pytest.raises(CasesUnavailable, match="revision newer is of another program"):
            change()


def test_an_older_backup_is_upgraded_and_a_newer_one_refused(record, empty, file, next_release, monkeypatch, capsys):
    keep(record.store, *range(3))
    before = record.store.page(Selection(), 9)
    back_up(record.engine, file, seal)
    newer = file.with_name("newer.backup")

    restored = command("restore", str(file), "--no-audit", release=next_release, GATEWAY_CASES_DATABASE=empty.address)
    copied = command("backup", str(newer), release=next_release, GATEWAY_CASES_DATABASE=empty.address)
    monkeypatch.setenv("GATEWAY_CASES_DATABASE", f"{empty.address}.2")

    assert restored.returncode == copied.returncode == 0, restored.stderr + copied.stderr
    assert f"of revision {releases.NEXT_REVISION}" in copied.stdout
    assert main(["restore", str(newer), "--no-audit"]) == 1
    assert "is of another program" in capsys.readouterr().err
    # The way back to this release loses nothing that it knows.
    assert command("downgrade", REVISION, release=next_release, GATEWAY_CASES_DATABASE=empty.address).returncode == 0
    assert empty.store.page(Selection(), 9) == before


class TwoMachines:
    """An audit record each, a file for each record; since the backup two cases were erased and one was kept."""

    def __init__(self, record, file, folder):
        machines = [FileAudit(folder / f"audit-{name}.jsonl", max_bytes=1) for name in ("a", "b")]
        for number in range(6):
            record.store.keep(case(number), lambda number=number: note(machines[0], "keep_case", case(number)))
        back_up(record.engine, file, seal)
        record.store.erase(case(0).id, lambda: note(machines[0], "erase_case", case(0)))
        record.store.erase(case(1).id, lambda: note(machines[1], "erase_case", case(1)))
        record.store.keep(case(6), lambda: note(machines[1], "keep_case", case(6)))
        self.a, self.b = ([*sorted(folder.glob(f"audit-{name}.jsonl.0*")), folder / f"audit-{name}.jsonl"] for name in "ab")


@pytest.fixture
def machines(record, empty, file, tmp_path, monkeypatch):
    monkeypatch.setenv("GATEWAY_CASES_DATABASE", empty.address)
    monkeypatch.setenv("GATEWAY_AUDIT_FILE", str(tmp_path / "audit-a.jsonl"))
    return TwoMachines(record, file, tmp_path)


def test_what_was_erased_does_not_come_back_with_a_backup(machines, empty, file, tmp_path, capsys):
    assert main(["restore", str(file), "--audit", *map(str, machines.a), "--audit", *map(str, machines.b)]) == 0

    assert numbers(empty.store) == [2, 3, 4, 5]
    told = capsys.readouterr().out
    assert "4 cases and 0 findings restored, 2 erased ones left out; erasures are known from record 1 of 2" in told
    assert told.endswith(f"; 1 kept according to the audit record and not there\n{case(6).id}\n")
    report = verify([*sorted(tmp_path.glob("audit-a.jsonl.0*")), tmp_path / "audit-a.jsonl"])
    assert report.records == 6 + 1 + 1


def test_a_file_with_an_erasure_is_not_left_out_unseen(machines, empty, file, tmp_path, capsys):
    """Nobody can tell it from one that holds none, so neither is."""
    assert len(machines.b) == 2
    (tmp_path / "begun").touch()
    whole = ["--audit", *map(str, machines.a)]
    for missing in (machines.b[1:], [tmp_path / "begun"]):
        assert main(["restore", str(file), *whole, "--audit", *map(str, missing)]) == 1
        assert "erasures may be missing" in capsys.readouterr().err
    assert main(["restore", str(file), "--audit", *map(str, machines.a[2:]), "--audit", *map(str, machines.b)]) == 1
    assert "audit-a.jsonl.000000000003 begins with record 3" in capsys.readouterr().err
    assert not empty.path.exists() or empty.path.stat().st_size == 0
    migration.upgrade(empty.engine)
    assert main(["erase-again", *whole, "--audit", str(machines.b[1])]) == 1


def test_older_files_are_left_out_where_somebody_says_that_they_were_full_before(machines, empty, file, capsys):
    end = str(verify(machines.a[:2]).head)
    known = ["--audit", *map(str, machines.a[2:]), "--audit", *map(str, machines.b), "--after", end]

    assert main(["restore", str(file), *known]) == 0
    told = capsys.readouterr().out
    assert main(["erase-again", *known]) == 0

    assert numbers(empty.store) == [2, 3, 4, 5]
    for output in (told, capsys.readouterr().out):
        assert "; erasures are known from record 3 of 2" in output
        assert " and record 1 of 2" in output


def test_a_broken_audit_record_stops_the_restoration(record, empty, file, tmp_path, capsys, monkeypatch):
    keep(record.store, 1)
    back_up(record.engine, file, seal)
    audit = tmp_path / "audit.jsonl"
    for _ in range(3):
        note(FileAudit(audit), "erase_case", case(1))
    lines = audit.read_bytes().splitlines(keepends=True)
    audit.write_bytes(lines[0] + lines[2])
    monkeypatch.setenv("GATEWAY_CASES_DATABASE", empty.address)

    assert main(["restore", str(file), "--audit", str(audit)]) == 1
    assert "erasures may be missing" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["restore", str(file)])
    with pytest.raises(CasesUnavailable, match="revision None"):
        numbers(empty.store)


def test_postgresql_comes_back_beside_the_old_one_and_without_what_was_erased(postgres, connect, tmp_path, monkeypatch, capsys):
    """The commands of docs/recovery.md as they stand there, while a gateway is connected and connects again."""
    address, password = postgres
    monkeypatch.setenv("GATEWAY_CASES_DATABASE", address)
    monkeypatch.setenv("GATEWAY_CASES_PASSWORD_FILE", str(password))
    monkeypatch.setenv("GATEWAY_AUDIT_FILE", str(tmp_path / "audit.jsonl"))
    assert main(["upgrade"]) == 0
    store = connect(postgres, "cases")
    audit = FileAudit(tmp_path / "audit.jsonl")
    for number in range(5):
        store.keep(case(number), lambda number=number: note(audit, "keep_case", case(number)))
    assert main(["backup", str(tmp_path / "file")]) == 1
    assert "pg_dump" in capsys.readouterr().err
    dump, *out_of_the_way, create, fill, give_name = documented_commands(tmp_path / "cases.dump")
    assert len(out_of_the_way) == 3

    postgres_program(postgres, *dump)
    store.erase(case(3).id, lambda: note(audit, "erase_case", case(3)))
    with asking(store) as answers:
        for command_line in (*out_of_the_way, create, fill):
            postgres_program(postgres, *command_line)
        monkeypatch.setenv("GATEWAY_CASES_DATABASE", address.replace("/cases", "/restored"))
        assert main(["upgrade"]) == 0
        assert main(["erase-again", "--audit", str(tmp_path / "audit.jsonl")]) == 0
        assert "1 cases erased again; erasures are known from record 1 of 2" in capsys.readouterr().out
        processes.wait_until(lambda: answers[-1] is None)
        postgres_program(postgres, *give_name)
        processes.wait_until(lambda: answers[-1] is not None)

    # Nobody has seen what had been erased.
    assert [answer for answer in dict.fromkeys(answers) if answer] == [(0, 1, 2, 4)]
    # Numbers of findings go on from where they were.
    keep(store, 9)
    assert verify([tmp_path / "audit.jsonl"]).records == 5 + 1 + 1


def documented_commands(dump):
    """PostgreSQL's own, with the place of the dump."""
    lines = (processes.ROOT / "docs" / "recovery.md").read_text().splitlines()
    found = [line for line in lines if line.startswith(("pg_dump ", "psql ", "createdb ", "pg_restore "))]
    return [shlex.split(line.replace("cases-2026-01-31.dump", str(dump))) for line in found]


@contextmanager
def asking(store):
    """Somebody who asks for the cases all the time; None is a record that is away."""
    answers = []
    stopped = threading.Event()

    def ask():
        while not stopped.is_set():
            try:
                answers.append(tuple(numbers(store)))
            except CasesUnavailable:
                answers.append(None)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        processes.wait_until(lambda: answers)
        yield answers
    finally:
        stopped.set()
        thread.join()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_migration_that_changes_a_table_keeps_what_hangs_on_it(kind, empty, postgres, connect, next_release):
    environment, store = {"GATEWAY_CASES_DATABASE": empty.address}, empty.store
    if kind == "postgresql":
        postgres_program(postgres, "createdb", "--owner=dermserve", "migrated")
        address = postgres[0].replace("/cases", "/migrated")
        environment = {"GATEWAY_CASES_DATABASE": address, "GATEWAY_CASES_PASSWORD_FILE": str(postgres[1])}
        store = connect(postgres, "migrated")
    engine = store._engine
    migration.upgrade(engine)
    keep(store, *range(3))
    before = store.page(Selection(), 9)

    assert command("upgrade", release=next_release, **environment).returncode == 0
    # A process that has looked before goes on, during a roll-out.
    assert store.page(Selection(), 9) == before
    keep(store, 3)
    assert command("downgrade", REVISION, release=next_release, **environment).returncode == 0

    assert store.page(Selection(), 9)[1:] == before
    store.erase(case(0).id, seal)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM findings")) == 3


def test_a_copy_that_another_program_has_made_is_restored_too(record, empty, file):
    """As `sqlite3 cases.db ".backup FILE"` leaves it."""
    keep(record.store, 1)
    with closing(sqlite3.connect(record.path)) as source, closing(sqlite3.connect(file)) as target:
        source.backup(target)

    assert restore(empty.engine, file, NOTHING, seal).cases == 1


def note(audit, action, kept):
    audit.write(Event("key:clinic", action, "request-1", "done", cases=(kept.id,)))


def postgres_program(postgres, program, *arguments):
    """As an operator, who is not the role that the gateways are; the server of the tests listens on a port only."""
    port = postgres[0].rpartition(":")[2].partition("/")[0]
    environment = os.environ | {"PGHOST": "127.0.0.1", "PGPORT": port, "PGUSER": "postgres"}
    environment["PGPASSWORD"] = postgres[1].read_text().strip()
    subprocess.run([processes.postgres_programs() / program, *arguments], env=environment, check=True, timeout=60)


def command(*arguments, release=processes.ROOT, **environment):
    return subprocess.run(
        [sys.executable, "-m", "gateway.cases", *arguments],
        cwd=release,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
