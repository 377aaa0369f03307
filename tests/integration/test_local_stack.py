"""`make run` for real: every process, from the first to the last, on free ports and with a home of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from pharos_client import Pharos, PharosError
from tests.support.git_server import GitServer
from tests.support.nats_server import free_port

READY_SECONDS = 90  # on a machine that does other things as well
STOP_SECONDS = 15

FILES = {
    "src/signer.py": "def sign_cookie(value: str) -> str:\n    '''Sign the value of a cookie.'''\n    return value\n",
    "src/clock.py": "from src.signer import sign_cookie\n\ndef tick() -> int:\n    return 1\n",
    "README.md": "# A small repository\n\nIt signs cookies.\n",
}


class LocalStack:
    """A running ``python -m pharos_local``, and every line that it said."""

    def __init__(self, home: Path, **environ: str) -> None:
        self.home = home
        self.port = free_port()
        self.lines: list[str] = []
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PHAROS_")}
        self.environ = {**inherited, "PHAROS_HOME": str(home), "PHAROS_PORT": str(self.port), **environ}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pharos_local"],
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(line.rstrip("\n") for line in self.process.stdout)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def until_said(self, text: str, seconds: float = READY_SECONDS) -> str:
        return eventually(lambda: next((line for line in self.lines if text in line), None), seconds, self)

    def client(self) -> Pharos:
        return Pharos(self.url, (self.home / "admin-token").read_text().strip())

    def pid(self, name: str) -> int:
        pid: int = json.loads((self.home / "run" / f"{name}.json").read_text())["pid"]
        return pid

    def processes(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
        """(exit code, seconds that it took)."""
        began = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(STOP_SECONDS + 10)
        self._reader.join(5)
        return code, time.monotonic() - began


def eventually[T](probe: Callable[[], T | None], seconds: float, stack: LocalStack) -> T:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = probe()
        if found is not None:
            return found
        time.sleep(0.05)
    raise AssertionError("\n".join(stack.lines[-60:]))
