"""The whole of Pharos, as `make run` starts it, in a home of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar

import httpx

from tests.support.nats_server import free_port

START_SECONDS: Final = 90.0
STOP_SECONDS: Final = 20.0
QUEUE_MAX: Final = 50
PROGRAMS: Final = ("nats", "gateway", "scheduler", "embedder", "history")

T = TypeVar("T")


class Stack:
    """Start it with ``with``; ``home`` survives a stop, so that it can be started again on what it stored."""

    def __init__(self, *, allowed_hosts: str = "", home: Path | None = None, **settings: str) -> None:
        self._own_home = tempfile.TemporaryDirectory(prefix="pharos-home-") if home is None else None
        self.home = home or Path(self._own_home.name)  # type: ignore[union-attr]
        self.port = free_port()
        self._environ: Mapping[str, str] = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PHAROS_")},
            "PHAROS_HOME": str(self.home),
            "PHAROS_PORT": str(self.port),
            "PHAROS_DEMO_GIT_PORT": "0",
            "PHAROS_GIT_ALLOWED_HOSTS": allowed_hosts,
            "PHAROS_QUEUE_MAX": str(QUEUE_MAX),
            "PHAROS_LOG_FORMAT": "json",
            **settings,
        }
        self._process: subprocess.Popen[str] | None = None
        self.lines: deque[str] = deque(maxlen=2000)
        self._ready = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def token(self) -> str:
        return (self.home / "admin-token").read_text().strip()

    def start(self, *, wait: bool = True) -> Stack:
        self._ready.clear()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pharos_local"],
            env=dict(self._environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()
        deadline = time.monotonic() + START_SECONDS
        while wait and not self._ready.wait(0.1):
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError("the stack did not start:\n" + "\n".join(self.lines))
        return self

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self.lines.append(line.rstrip())
                if "Pharos is ready at" in line:
                    self._ready.set()

    def stop(self) -> int:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise RuntimeError("the stack did not stop:\n" + "\n".join(self.lines)) from None

    def said(self, *words: str) -> bool:
        """Whether a line of its output has all these words."""
        return any(all(word in line for word in words) for line in tuple(self.lines))

    def fetched(self) -> list[Path]:
        """What jobs have fetched and not removed yet."""
        standing = {self.home / "workspaces" / name for name in ("archives", "checkouts")}
        return [path for path in (self.home / "workspaces").iterdir() if path not in standing]

    def pid(self, program: str) -> int:
        """The process that runs *program* now; waits while it is being restarted."""
        record = self.home / "run" / f"{program}.json"

        def read() -> int | None:
            try:
                return int(json.loads(record.read_text())["pid"])
            except (OSError, ValueError):
                return None

        return eventually(read, seconds=30)

    def kill(self, program: str) -> None:
        """As a crash would: kill -9."""
        os.kill(self.pid(program), signal.SIGKILL)

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=20,
            trust_env=False,
            **options,
        )

    def __enter__(self) -> Stack:
        try:
            return self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self.stop()
        if self._own_home is not None:
            self._own_home.cleanup()


def eventually(read: Callable[[], T | None], *, seconds: float = 60, poll_seconds: float = 0.05) -> T:
    """What *read* returns once it returns something; fails when the time is up."""
    deadline = time.monotonic() + seconds
    while True:
        found = read()
        if found is not None and found is not False:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"nothing after {seconds} s")
        time.sleep(poll_seconds)


def submit(client: httpx.Client, url: str, **query: str) -> dict[str, Any]:
    """Submit a repository; its answer, which must be 200. A bus that restarts is waited for."""

    def attempt() -> httpx.Response | None:
        try:
            answer = client.post(f"/api/v1/ingestion/ingest/{url}", params=query)
        except httpx.TransportError:
            return None
        return None if answer.status_code == 503 else answer

    answer = eventually(attempt)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def job(client: httpx.Client, job_id: object) -> dict[str, Any] | None:
    """The job as the API tells it; None while nobody can tell."""
    try:
        answer = client.get(f"/api/v1/jobs/{job_id}")
    except httpx.TransportError:
        return None
    if answer.status_code != 200:
        return None
    body: dict[str, Any] = answer.json()
    return body


ENDED: Final = ("completed", "failed", "skipped", "cancelled")


def until_ended(client: httpx.Client, job_id: object, *, seconds: float = 120) -> dict[str, Any]:
    def read() -> dict[str, Any] | None:
        found = job(client, job_id)
        return found if found is not None and found["state"] in ENDED else None

    return eventually(read, seconds=seconds, poll_seconds=0.1)


def search(client: httpx.Client, query: str, **facts: Any) -> list[dict[str, Any]]:
    """The results of a search; a search service that restarts is waited for."""

    def attempt() -> httpx.Response | None:
        try:
            answer = client.post("/api/v1/search", json={"query": query, **facts})
        except httpx.TransportError:
            return None
        return None if answer.status_code == 503 else answer

    answer = eventually(attempt)
    assert answer.status_code == 200, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


@contextmanager
def sse(
    client: httpx.Client, path: str, *, last_event_id: int | None = None
) -> Iterator[Iterator[dict[str, str]]]:
    """The events of a stream, each as its fields."""
    headers = {} if last_event_id is None else {"Last-Event-ID": str(last_event_id)}
    with client.stream("GET", path, headers=headers, timeout=60) as response:
        assert response.status_code == 200, response.read()

        def events() -> Iterator[dict[str, str]]:
            fields: dict[str, str] = {}
            for line in response.iter_lines():
                if not line:
                    if fields:
                        yield fields
                    fields = {}
                elif not line.startswith(":"):
                    name, _, value = line.partition(":")
                    fields[name] = value.removeprefix(" ")

        yield events()
