"""`make run` for real: every process, on free ports and with a home of its own."""

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
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from pharos_client import Pharos, PharosError
from tests.support.git_server import GitServer
from tests.support.nats_server import free_port

READY_SECONDS = 90  # on a machine that does other things as well
STOP_SECONDS = 15

T = TypeVar("T")

FILES = {
    "src/signer.py": "def sign_cookie(value: str) -> str:\n    # Sign a cookie.\n    return value\n",
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
        with self.process.stdout as output:
            self.lines.extend(line.rstrip("\n") for line in output)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def until_said(self, text: str, seconds: float = READY_SECONDS) -> str:
        return eventually(lambda: next((line for line in self.lines if text in line), None), seconds, self)

    def ask(self, question: Callable[[Pharos], T]) -> T:
        with Pharos(self.url, (self.home / "admin-token").read_text().strip()) as client:
            return question(client)

    def pid(self, name: str) -> int:
        pid: int = json.loads((self.home / "run" / f"{name}.json").read_text())["pid"]
        return pid

    def processes(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
        """(exit code, seconds that it took)."""
        began = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(STOP_SECONDS + 10)
        self._reader.join(5)
        return code, time.monotonic() - began


def eventually(probe: Callable[[], T | None], seconds: float, stack: LocalStack) -> T:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = probe()
        if found is not None:
            return found
        time.sleep(0.05)
    raise AssertionError("\n".join(stack.lines[-60:]))


@contextmanager
def running(**environ: str) -> Iterator[LocalStack]:
    """A stack with a home of its own; whatever is left of it is ended."""
    home = Path(tempfile.mkdtemp(prefix="pharos-home-"))
    stack = LocalStack(home / ".pharos", **environ)
    try:
        yield stack
    finally:
        stack.stop()
        shutil.rmtree(home, ignore_errors=True)


def command(stack: LocalStack, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pharos_client", *arguments],
        env=stack.environ,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.timeout(300)
def test_from_nothing_to_a_search_and_back_to_nothing() -> None:
    with GitServer() as git, running(PHAROS_GIT_ALLOWED_HOSTS=f"*,{git.base_url}") as stack:
        commit = git.add_repository("acme/cookies", FILES)
        assert stack.until_said("Pharos is ready") == f"Pharos is ready at {stack.url}"
        assert [line for line in stack.lines if line.startswith("Pharos is ready")] == [
            f"Pharos is ready at {stack.url}"
        ]
        stack.until_said(f"The admin token is in {stack.home / 'admin-token'}", 1)
        stack.until_said("ingest https://", 1)
        assert (stack.home / "endpoint").read_text().strip() == stack.url

        ingested = command(stack, "ingest", git.url("acme/cookies"), "--watch")
        assert ingested.returncode == 0, ingested.stdout + ingested.stderr
        assert "completed" in ingested.stdout and commit in ingested.stdout
        found = command(stack, "search", "sign a cookie", "--json")
        assert json.loads(found.stdout)["results"][0]["file"] == "src/signer.py"
        doctor = command(stack, "doctor")
        assert doctor.returncode == 0, doctor.stdout

        token = (stack.home / "admin-token").read_text().strip()
        password = (stack.home / "nats-password").read_text().strip()
        started = stack.processes()
        for process in started:
            shown = " ".join([*process.cmdline(), *process.environ().values()])
            assert token not in shown and password not in shown
        assert not any(token in line or password in line for line in stack.lines)

        second = subprocess.run(
            [sys.executable, "-m", "pharos_local"],
            env={**stack.environ, "PHAROS_PORT": str(free_port())},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert second.returncode == 1
        assert f"process {stack.process.pid}" in second.stderr

        code, seconds = stack.stop(signal.SIGINT)
        assert (code, seconds < STOP_SECONDS) == (0, True), "\n".join(stack.lines[-30:])
        assert [process for process in started if process.is_running()] == []
        with pytest.raises(PharosError, match="No gateway answers"):
            stack.ask(Pharos.worker_status)


@pytest.mark.timeout(300)
def test_two_stacks_side_by_side_and_crashes_in_one_of_them() -> None:
    with running(PHAROS_WORKER_SLOTS="0") as one, running(PHAROS_WORKER_SLOTS="0") as two:
        one.until_said("Pharos is ready")
        two.until_said("Pharos is ready")
        assert one.ask(Pharos.worker_status).status == "Offline"
        for name in ("scheduler", "history", "gateway", "nats"):
            before = one.pid(name)
            os.kill(before, signal.SIGKILL)
            one.until_said(f"{name} ended unexpectedly (killed by SIGKILL)", 10)
            eventually(lambda: is_new(one, name, before), 30, one)
        eventually(lambda: healthy(one), 30, one)
        assert two.ask(Pharos.not_ready) is None
        assert not any("unexpectedly" in line for line in two.lines)


def is_new(stack: LocalStack, name: str, before: int) -> bool | None:
    try:
        return stack.pid(name) != before or None
    except OSError:
        return None


def healthy(stack: LocalStack) -> bool | None:
    try:
        health = stack.ask(Pharos.health)
    except PharosError:
        return None
    return set(health.dependencies.values()) == {"ok"} or None


@pytest.mark.timeout(120)
def test_a_mistake_in_a_setting_of_a_service_ends_the_stack_with_its_sentence() -> None:
    with running(PHAROS_ANONYMOUS="nonsense") as stack:
        stack.until_said("gateway refuses its settings", 60)
        assert stack.process.wait(STOP_SECONDS) == 1
        stack.until_said("PHAROS_ANONYMOUS is", 5)
