"""A copy of the case record in one file, and the way back; for SQLite. PostgreSQL has pg_dump (docs/recovery.md)."""

import os
import shutil
import tempfile
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine, func, insert, select
from sqlalchemy.exc import DatabaseError

from gateway.cases import database, migration
from gateway.cases.tables import Base, CaseRow, FindingRow
from gateway.settings import Settings

_ROWS: Final = 1_000
_CASE_OF: Final = {CaseRow.__tablename__: "id", FindingRow.__tablename__: "case_id"}
"""Which column of a table names the case that a row belongs to."""


class BackupError(Exception):
    """The backup, or what it shall be restored to, is not as it has to be; nothing was changed."""


@dataclass(frozen=True)
class Contents:
    """What is in a copy.

    Attributes:
        cases, findings: how many.
        revision: of its tables.
        left_out: cases that were not restored because they had been erased.
    """

    cases: int
    findings: int
    revision: str
    left_out: int = 0


def back_up(engine: Engine, file: Path, seal: Callable[[Contents], None]) -> Contents:
    """Copy the record of one moment, while others read and write, into a new file for its owner alone.

    Args:
        engine: of the record.
        file: is there whole or not at all.
        seal: called before it is there; what it raises undoes it.

    Raises:
        BackupError: there is nothing that could be copied, or the file is there already.
    """
    _require_sqlite(engine)
    if file.exists():
        raise BackupError(f"{file} is there already")
    with tempfile.TemporaryDirectory(prefix=".backup-", dir=file.parent) as folder:
        copy = Path(folder, file.name)
        copy.touch(mode=0o600)
        # One read transaction: what is committed meanwhile is not in it, and what is free, erased rows included, is left out.
        with engine.connect() as connection:
            connection.exec_driver_sql("VACUUM INTO ?", (str(copy),))
        contents = _examine(engine, copy)
        _sync(copy)
        seal(contents)
        copy.rename(file)
    _sync(file.parent)
    return contents


def restore(engine: Engine, file: Path, erased: AbstractSet[str], seal: Callable[[Contents], None]) -> Contents:
    """Bring a backup's cases into a record without any; all of them, or nothing happens.

    Args:
        engine: of the record; its tables are made where they are missing.
        file: is read only; an older revision is upgraded in a copy.
        erased: cases that must not come back.
        seal: called when it is sure to be possible and before it is done; what it raises undoes it.

    Raises:
        BackupError: the file is no backup or damaged, or the record holds cases.
        CasesUnavailable: one of the two is of another program.
    """
    _require_sqlite(engine)
    if Path(f"{file}-wal").exists():
        raise BackupError(f"{file} is no backup but a database in use: part of it stands in {file}-wal")
    target = Path(engine.url.database or "")
    # Beside the record: a copy of health data is no matter for everybody's folder.
    with tempfile.TemporaryDirectory(prefix=".restore-", dir=target.parent) as folder:
        copy = Path(folder, "cases.db")
        copy.touch(mode=0o600)
        shutil.copyfile(file, copy)
        migration.require_known(_examine(engine, copy).revision)
        source = _open(engine, copy)
        try:
            migration.upgrade(source)
            migration.upgrade(engine)
            return _transfer(source, engine, erased, seal)
        finally:
            source.dispose()


def _transfer(source: Engine, target: Engine, erased: AbstractSet[str], seal: Callable[[Contents], None]) -> Contents:
    with source.connect() as old, target.begin() as new:
        if there := _count(new, "cases"):
            raise BackupError(f"the record holds {there} cases: only an empty one is restored to")
        for table in Base.metadata.sorted_tables:
            for rows in old.execution_options(yield_per=_ROWS).execute(select(table)).mappings().partitions():
                if staying := [dict(row) for row in rows if row[_CASE_OF[table.name]] not in erased]:
                    new.execute(insert(table), staying)
        left_out = len(erased & set(old.scalars(select(CaseRow.id))))
        contents = Contents(_count(new, "cases"), _count(new, "findings"), _revision(target), left_out)
        # Between the look and the lock somebody may have kept a case.
        if contents.cases != _count(old, "cases") - left_out:
            raise BackupError("somebody has kept a case meanwhile: stop the gateways first")
        seal(contents)
    return contents


def _examine(engine: Engine, copy: Path) -> Contents:
    """Look at a file that nobody else has open.

    Raises:
        BackupError: it is damaged, or no case record.
    """
    opened = _open(engine, copy)
    try:
        with opened.connect() as connection:
            faults = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA integrity_check(3)")]
            faults += [f"row without a case in {row[0]}" for row in connection.exec_driver_sql("PRAGMA foreign_key_check")][:3]
            if faults != ["ok"]:
                raise BackupError(f"the copy is damaged: {'; '.join(faults)}")
            # It goes in one file: as a reader leaves it, not as a server needs it.
            connection.exec_driver_sql("PRAGMA journal_mode = DELETE")
        revision = _revision(opened)
        with opened.connect() as connection:
            return Contents(_count(connection, "cases"), _count(connection, "findings"), revision)
    except DatabaseError as error:
        raise BackupError(f"it is no case record: {error.orig}") from error
    finally:
        opened.dispose()


def _revision(engine: Engine) -> str:
    revision = database.current_revision(engine)
    if revision is None:
        raise BackupError("it is no case record: it has no tables")
    return revision


def _count(connection: Connection, table: str) -> int:
    return connection.scalar(select(func.count()).select_from(Base.metadata.tables[table])) or 0


def _open(engine: Engine, copy: Path) -> Engine:
    return database.connect(Settings(cases_database=engine.url.set(database=str(copy)).render_as_string()))


def _require_sqlite(engine: Engine) -> None:
    if engine.dialect.name != "sqlite":
        raise BackupError("PostgreSQL is backed up by pg_dump and restored by pg_restore: docs/recovery.md")


def _sync(path: Path) -> None:
    """A file survives a power cut when it and its folder have reached the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
