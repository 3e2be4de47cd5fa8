"""How the cases' database is reached, and which revision of the tables it has."""

import contextlib
import sqlite3
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, create_engine, event, inspect, make_url, text

from gateway.settings import Settings

_TIMEOUT_S: Final = 5
"""For one statement, by the server's clock, and for SQLite's lock while another process writes. Ours take milliseconds."""

_CONNECT_TIMEOUT_S: Final = 2
_CONNECTIONS: Final = 4
"""Of one process: a request holds one for milliseconds. PostgreSQL has a hundred for everybody by default."""


def connect(settings: Settings) -> Engine:
    """Connections are opened when they are needed, not here; a database that is not there is told then."""
    url = make_url(settings.cases_database)
    if settings.cases_password_file:
        url = url.set(password=Path(settings.cases_password_file).read_text().strip())
    if url.get_backend_name() == "sqlite":
        # SQLite would make it for everybody to read; what it makes beside it takes over the file's rights.
        with contextlib.suppress(OSError):
            Path(url.database or "").touch(mode=0o600, exist_ok=True)
        engine = create_engine(url, connect_args={"timeout": _TIMEOUT_S}, hide_parameters=True)
        event.listen(engine, "connect", _prepare_sqlite)
        return engine
    limits = {
        "connect_timeout": _CONNECT_TIMEOUT_S,
        "options": f"-c statement_timeout={_TIMEOUT_S}s -c timezone=UTC",
        # The server keeps the time of a statement; a host that is away keeps none.
        "tcp_user_timeout": _TIMEOUT_S * 1000,
        "keepalives_idle": _TIMEOUT_S,
        "keepalives_interval": 1,
        "keepalives_count": 2,
    }
    # A connection that a restart of the server has cut is found before it is used.
    return create_engine(
        url,
        connect_args=limits,
        pool_size=_CONNECTIONS,
        max_overflow=0,
        pool_timeout=_TIMEOUT_S,
        pool_pre_ping=True,
        hide_parameters=True,
    )


def current_revision(engine: Engine) -> str | None:
    """Of the database; None when it has no tables."""
    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
        return revision


def _prepare_sqlite(connection: sqlite3.Connection, _: Any) -> None:
    # Readers do not wait for the writer, and what is committed survives a power cut.
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "secure_delete = ON"):
        connection.execute(f"PRAGMA {pragma}")
