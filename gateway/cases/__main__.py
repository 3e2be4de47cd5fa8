"""`python -m gateway.cases`: the tables of the case record, how long a case is kept, its backup and the way back."""

import argparse
import getpass
import os
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from gateway.audit.history import CaseHistory, IncompleteHistory, read_history
from gateway.audit.record import Action, Event, Head
from gateway.audit.trail import NO_AUDIT, Audit, FileAudit
from gateway.audit.verification import BrokenChain
from gateway.cases import database, migration
from gateway.cases.backup import BackupError, Contents, back_up, restore
from gateway.cases.record import now
from gateway.cases.store import DatabaseStore
from gateway.cases.tables import REVISION
from gateway.errors import GatewayError
from gateway.settings import PREFIX, Settings, SettingsError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with the gateway's own environment."""
    given = _parser().parse_args(arguments)
    try:
        settings = Settings.from_env(os.environ)
        if not settings.cases_database:
            raise SettingsError(f"{PREFIX}CASES_DATABASE is not set")
        print(_run(given, settings))
    except BrokenChain as error:
        print(f"error: an audit record is broken, erasures may be missing from it: {error}", file=sys.stderr)
        return 1
    except IncompleteHistory as error:
        print(f"error: erasures may be missing: {error}", file=sys.stderr)
        return 1
    except (SettingsError, GatewayError, BackupError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except SQLAlchemyError as error:
        print(f"error: the database did not do it: {getattr(error, 'orig', None) or error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gateway.cases", description="Looks after the case record's database.")
    commands = parser.add_subparsers(required=True, dest="command")
    commands.add_parser("revision", help="print the revision of the database, and the one that this program needs")
    upgrade = commands.add_parser("upgrade", help="make the tables, or bring them up to this program")
    upgrade.add_argument("revision", nargs="?", default="head")
    downgrade = commands.add_parser("downgrade", help="go back; what the older tables have no place for is lost")
    downgrade.add_argument("revision", help="`base` removes everything")
    purge = commands.add_parser("purge", help="remove cases for good")
    purge.add_argument("--older-than", type=_days, required=True, metavar="DAYS", help="kept more days ago than this")
    backup = commands.add_parser("backup", help="copy an SQLite record into a new file, while the gateway runs")
    backup.add_argument("file", type=Path)
    back = commands.add_parser("restore", help="bring a backup into an empty SQLite record, without what was erased since")
    back.add_argument("file", type=Path)
    known = back.add_mutually_exclusive_group(required=True)
    _add_audit(known.add_argument)
    known.add_argument("--no-audit", action="store_true", help="there is no audit record: erased cases come back")
    _add_after(back)
    again = commands.add_parser("erase-again", help="after pg_restore: erase what the audit record says was erased")
    _add_audit(again.add_argument, required=True)
    _add_after(again)
    return parser


def _add_audit(add: Callable[..., object], **options: bool) -> None:
    add(
        "--audit",
        action="append",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="audit files of one machine, the oldest first; once for each machine",
        **options,
    )


def _add_after(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--after",
        action="append",
        default=[],
        type=Head.parse,
        metavar="SEQUENCE:HASH",
        help="end of older audit files that are not given: they were full before the backup was made; once for each machine",
    )


def _run(given: argparse.Namespace, settings: Settings) -> str:
    engine = database.connect(settings)
    try:
        if given.command == "purge":
            return _purge(DatabaseStore(engine), given.older_than, settings)
        if given.command == "backup":
            return _back_up(engine, given.file, settings)
        if given.command in ("restore", "erase-again"):
            history = read_history(given.audit or (), given.after)
            if given.command == "restore":
                return _restore(engine, given.file, history, settings)
            return _erase_again(DatabaseStore(engine), history, settings)
        if given.command == "upgrade":
            migration.upgrade(engine, given.revision)
        elif given.command == "downgrade":
            migration.downgrade(engine, given.revision)
        return f"database {database.current_revision(engine) or 'without tables'}, program {REVISION}"
    finally:
        engine.dispose()


def _purge(store: DatabaseStore, age: timedelta, settings: Settings) -> str:
    before = now() - age
    record = _recorder(settings)
    reason = f"kept before {before.isoformat()}"
    erased = store.purge(before, lambda ids: record("erase_case", "purge", reason, ids))
    return f"{erased} cases {reason} removed"


def _back_up(engine: Engine, file: Path, settings: Settings) -> str:
    record = _recorder(settings)
    # Whoever holds the file has every case.
    contents = back_up(engine, file, lambda _: record("export_cases", "backup", "backup", ()))
    return f"{contents.cases} cases and {contents.findings} findings of revision {contents.revision} in {file}"


def _restore(engine: Engine, file: Path, history: CaseHistory, settings: Settings) -> str:
    record = _recorder(settings)

    def seal(contents: Contents) -> None:
        record("restore_cases", "restore", f"{contents.cases} cases, {contents.left_out} erased ones left out", ())

    contents = restore(engine, file, history.erased, seal)
    told = f"{contents.cases} cases and {contents.findings} findings restored, {contents.left_out} erased ones left out"
    return told + _tell_missing(DatabaseStore(engine), history)


def _erase_again(store: DatabaseStore, history: CaseHistory, settings: Settings) -> str:
    record = _recorder(settings)
    erased = store.erase_again(history.erased, lambda ids: record("erase_case", "erase-again", "came back with a backup", ids))
    return f"{erased} cases erased again" + _tell_missing(store, history)


def _tell_missing(store: DatabaseStore, history: CaseHistory) -> str:
    """From where on erasures are known, and what was kept after the backup: only its ids are left."""
    known = f"; erasures are known from {' and '.join(history.known_from)} on" if history.known_from else ""
    missing = store.missing(history.kept - history.erased)
    told = f"{known}; {len(missing)} kept according to the audit record and not there"
    return "\n".join([told, *missing])


def _recorder(settings: Settings) -> Callable[[Action, str, str, tuple[str, ...]], None]:
    """Writes what an operator does into the audit record, if there is one."""
    audit: Audit = FileAudit(Path(settings.audit_file)) if settings.audit_file else NO_AUDIT
    who = f"operator:{getpass.getuser()}"

    def record(action: Action, command: str, reason: str, cases: tuple[str, ...]) -> None:
        audit.write(Event(who, action, command, "done", reason=reason, cases=cases))

    return record


def _days(text: str) -> timedelta:
    days = timedelta(days=int(text))
    if days <= timedelta():
        raise argparse.ArgumentTypeError("must be above zero")
    return days


if __name__ == "__main__":
    sys.exit(main())
