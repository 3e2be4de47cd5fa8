"""The tables' way from one revision to the next. Alembic is loaded by the command line only, never by what serves."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

from gateway.cases import database
from gateway.errors import CasesUnavailable

MIGRATIONS: Final = Path(__file__).parent.parent / "migrations"


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Bring the tables to a revision, the newest unless told.

    Raises:
        CasesUnavailable: they have one that a newer program has made.
    """
    with _changing(engine) as config:
        command.upgrade(config, revision)


def downgrade(engine: Engine, revision: str) -> None:
    """Go back to an older revision; what it has no place for is lost.

    Raises:
        CasesUnavailable: they have one that a newer program has made.
    """
    with _changing(engine) as config:
        command.downgrade(config, revision)


def require_known(revision: str | None) -> None:
    """Check that there is a way from a revision to that of this program.

    Raises:
        CasesUnavailable: none; only the program that has made it knows the way back.
    """
    known = {script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()}
    if revision is not None and revision not in known:
        raise CasesUnavailable(f"revision {revision} is of another program; this one knows {', '.join(sorted(known))}")


@contextmanager
def _changing(engine: Engine) -> Iterator[Config]:
    require_known(database.current_revision(engine))
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    is_sqlite = engine.dialect.name == "sqlite"
    with engine.connect() as connection:
        if is_sqlite:
            # It changes a table by a copy and drops the old one, and findings would go with the cases that they belong to.
            # Outside a transaction, where alone it has an effect.
            connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
            connection.commit()
        try:
            with connection.begin():
                config.attributes["connection"] = connection
                yield config
        finally:
            if is_sqlite:
                connection.exec_driver_sql("PRAGMA foreign_keys = ON")
