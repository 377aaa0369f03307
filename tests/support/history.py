"""The history service as a process of its own."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from tests.support.nats_server import free_port

_direct: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class History:
    """``python -m pharos_history`` on a home of its own."""

    def __init__(self, home: Path, nats_url: str) -> None:
        self.home = home
        self.health_port = free_port()
        self.environment = os.environ | {
            "PHAROS_HOME": str(home),
            "PHAROS_NATS_URL": nats_url,
            "PHAROS_HEALTH_PORT": str(self.health_port),
            "PHAROS_HISTORY_RETENTION_DAYS": "36500",
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(self._command(), env=self.environment, stdout=log, stderr=log)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(15)

    def rebuild(self) -> None:
        done = subprocess.run(
            [*self._command(), "rebuild"],
            env=self.environment,
            capture_output=True,
            timeout=30,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def ready(self) -> tuple[int, str]:
        """The status of /readyz and what it says; 0 while nobody listens."""
        try:
            with _direct.open(f"http://127.0.0.1:{self.health_port}/readyz", timeout=2) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def tables(self) -> dict[str, list[tuple[Any, ...]]]:
        """All rows, read beside the service."""
        with closing(sqlite3.connect(self.home / "history.sqlite3")) as connection:
            return {
                name: sorted(connection.execute(f"SELECT * FROM {name}").fetchall())
                for name in ("jobs", "items", "events", "unreadable", "position")
            }

    @property
    def log(self) -> str:
        return (self.home / "log").read_text()

    def _command(self) -> list[str]:
        return [sys.executable, "-W", "error", "-m", "pharos_history"]
