"""`python -m gateway.cases`: the tables of the case record, and how long a case is kept."""

import argparse
import getpass
import os
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from gateway.audit.record import Event
from gateway.audit.trail import NO_AUDIT, Audit, FileAudit
from gateway.cases import database, migration
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
    except (SettingsError, GatewayError, OSError) as error:
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
    return parser


def _run(given: argparse.Namespace, settings: Settings) -> str:
    engine = database.connect(settings)
    try:
        if given.command == "purge":
            return _purge(DatabaseStore(engine), given.older_than, settings)
        if given.command == "upgrade":
            migration.upgrade(engine, given.revision)
        elif given.command == "downgrade":
            migration.downgrade(engine, given.revision)
        return f"database {database.current_revision(engine) or 'without tables'}, program {REVISION}"
    finally:
        engine.dispose()


def _purge(store: DatabaseStore, age: timedelta, settings: Settings) -> str:
    audit: Audit = FileAudit(Path(settings.audit_file)) if settings.audit_file else NO_AUDIT
    before = now() - age
    who = f"operator:{getpass.getuser()}"

    def seal(erased: tuple[str, ...]) -> None:
        audit.write(Event(who, "erase_case", "purge", "done", reason=f"kept before {before.isoformat()}", cases=erased))

    erased = store.purge(before, seal)
    return f"{erased} cases kept before {before.isoformat()} removed"


def _days(text: str) -> timedelta:
    days = timedelta(days=int(text))
    if days <= timedelta():
        raise argparse.ArgumentTypeError("must be above zero")
    return days


if __name__ == "__main__":
    sys.exit(main())
