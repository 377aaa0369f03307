"""What the read side reads from its environment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from msgspec import Meta
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from pharos_service.settings import Secret, ServiceSettings

SQLITE: Final = "sqlite"
POSTGRESQL: Final = "postgresql"


class HistorySettings(ServiceSettings, frozen=True, kw_only=True):
    """Settings of ``pharos_history``."""

    database_url: Annotated[
        Secret,
        Meta(
            description="Where history is kept: `postgresql://user:password@host/name`, or "
            "`sqlite:////path/to/file`; empty for `history.sqlite3` in `PHAROS_HOME`.",
        ),
    ] = Secret("")
    history_retention_days: Annotated[
        int,
        Meta(
            description="Days for which an ended job, its items and its log are kept.",
            ge=1,
            le=36_500,
        ),
    ] = 90

    def __post_init__(self) -> None:
        parse_database_url(self.database_url, Path(self.home))


def parse_database_url(given: Secret, home: Path) -> URL:
    """The database to use; ValueError with a sentence that does not repeat *given*, which has a password."""
    if not given:
        return URL.create(SQLITE, database=str((home / "history.sqlite3").absolute()))
    try:
        url = make_url(given.reveal())
    except (ArgumentError, ValueError):
        raise ValueError("PHAROS_DATABASE_URL is not a database URL.") from None
    backend = "postgresql" if url.drivername == "postgres" else url.get_backend_name()
    if backend == POSTGRESQL:
        return url.set(drivername="postgresql+psycopg")
    if backend != SQLITE:
        raise ValueError(f"PHAROS_DATABASE_URL begins with {backend!r}; use 'postgresql' or 'sqlite'.")
    if url.database in (None, "", ":memory:"):
        raise ValueError(
            "PHAROS_DATABASE_URL names no file: history in memory would not outlive the process."
        )
    return url.set(drivername=SQLITE)
