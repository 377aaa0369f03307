"""A store of views on both databases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pharos_history.database import Database
from pharos_history.settings import parse_database_url
from pharos_history.view_store import ViewStore
from pharos_service.settings import Secret
from tests.support.postgres_server import PostgresServer

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def open_database(
    request: pytest.FixtureRequest, tmp_path: Path, postgres: PostgresServer
) -> Iterator[Callable[[], Database]]:
    """Opens the test's database, as another process would: each call has connections of its own."""
    given = f"sqlite:///{tmp_path / 'h.sqlite3'}" if request.param == "sqlite" else postgres.database()
    url = parse_database_url(Secret(given), tmp_path)
    opened: list[Database] = []

    def another() -> Database:
        opened.append(Database(url))
        return opened[-1]

    yield another
    for database in opened:
        database.close()


@pytest.fixture
def database(open_database: Callable[[], Database]) -> Database:
    database = open_database()
    database.migrate()
    return database


@pytest.fixture
def store(database: Database) -> ViewStore:
    return ViewStore(database, lambda: NOW)
