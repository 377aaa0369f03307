"""One database, SQLite or PostgreSQL: its connections, its transactions, its migrations.

Writers take turns: every writing transaction begins by taking the one lock there is (``BEGIN IMMEDIATE``;
an advisory lock), so that it may read, decide and write without another writer in between.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import sqlalchemy
from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Connection, Engine, event, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolExhausted

from pharos_history.settings import SQLITE

BUSY_SECONDS: Final = 5
STATEMENT_SECONDS: Final = 60
CONNECTIONS_MAX: Final = 8
_WRITING: Final = "pharos_writing"
_WRITER_LOCK: Final = 0x7068_6172_6F73  # any constant will do, as long as nothing else in the database has it


class DatabaseUnavailable(Exception):
    """The database cannot be reached, is locked or is full: the same call may succeed later."""


class Database:
    """Call its methods from any thread."""

    def __init__(self, url: URL) -> None:
        self._engine = _engine(url)
        self.is_sqlite = url.get_backend_name() == SQLITE

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one state of the database. DatabaseUnavailable."""
        with _translated(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """The one writing transaction; committed at the end of the block, undone by an exception."""
        with (
            _translated(),
            self._engine.connect().execution_options(**{_WRITING: True}) as connection,
            connection.begin(),
        ):
            if not self.is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _WRITER_LOCK})
            yield connection

    def migrate(self) -> None:
        """Bring the tables to this version's shape; of several processes one does it, the others wait."""
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        with self.writing() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def close(self) -> None:
        self._engine.dispose()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        if is_passing(error):
            raise DatabaseUnavailable(_reason(error)) from error
        raise
    except (PoolExhausted, OSError) as error:
        raise DatabaseUnavailable(str(error)) from error


def is_passing(error: DBAPIError) -> bool:
    """Whether *error* is about the database's state, not about what it was asked."""
    return isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated


def _reason(error: DBAPIError) -> str:
    """The driver's own first line: the statement and its values stay out of it."""
    # A full disk ends SQLite's transaction at once, and then its savepoint is missed: the first error counts.
    first, context = error, error.__context__
    while context is not None:
        first = context if isinstance(context, DBAPIError) else first
        context = context.__context__
    lines = str(first.orig).strip().splitlines()
    return lines[0] if lines else type(first.orig).__name__


def _engine(url: URL) -> Engine:
    shared: dict[str, Any] = {
        "hide_parameters": True,
        "pool_size": CONNECTIONS_MAX,
        "max_overflow": 0,
        "pool_timeout": BUSY_SECONDS,
    }
    if url.get_backend_name() == SQLITE:
        assert url.database is not None, "settings refuse a database in memory"
        with contextlib.suppress(OSError):  # the connection says it better
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        engine = sqlalchemy.create_engine(url, connect_args={"timeout": BUSY_SECONDS}, **shared)
        event.listen(engine, "connect", _sqlite_connected)
        event.listen(engine, "begin", _sqlite_began)
        return engine
    engine = sqlalchemy.create_engine(
        url, connect_args={"connect_timeout": BUSY_SECONDS}, pool_pre_ping=True, **shared
    )
    event.listen(engine, "connect", _postgresql_connected)
    return engine


def _sqlite_connected(connection: Any, _: object) -> None:
    connection.isolation_level = None  # the driver would begin transactions by itself, and too late
    for pragma in (
        f"busy_timeout = {BUSY_SECONDS * 1000}",
        "journal_mode = WAL",
        # An event is acknowledged once it is committed: what is committed must survive a power cut.
        "synchronous = FULL",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _sqlite_began(connection: Connection) -> None:
    mode = "IMMEDIATE" if connection.get_execution_options().get(_WRITING) else "DEFERRED"
    connection.exec_driver_sql(f"BEGIN {mode}")


def _postgresql_connected(connection: Any, _: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SET statement_timeout = '{STATEMENT_SECONDS}s'")
        cursor.execute(f"SET lock_timeout = '{BUSY_SECONDS}s'")
    connection.commit()
