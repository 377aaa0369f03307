"""Three stacks, for as many tests as can share one: a stack takes seconds of both cores to start.

``stack`` is what most tests need, ``slots`` takes two jobs at once in one process, and ``pair`` in two.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import xdist.scheduler
from anyio.from_thread import start_blocking_portal

from tests.support.git_server import GitServer
from tests.support.polyglot import FILES
from tests.support.s3_server import S3Server
from tests.support.stack import Stack, submit, until_ended
from tests.support.web_server import WebServer

Received = list[tuple[dict[str, str], bytes]]

OF_SLOTS_AND_PAIR: Final = ("batches", "complaints", "kills", "workers_beside")
OF_THEIR_OWN: Final = ("provider", "queue_limits", "secrets")


class ByStack(xdist.scheduler.LoadScopeScheduling):
    """The tests of one stack run in one process, so that it is started once."""

    def _split_scope(self, nodeid: str) -> str:
        name = Path(nodeid.partition("::")[0]).stem.removeprefix("test_")
        if name in OF_THEIR_OWN:
            return name
        return "slots and pair" if name in OF_SLOTS_AND_PAIR else "stack"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByStack:
    return ByStack(config, log)


@pytest.fixture(scope="session")
def git() -> Iterator[GitServer]:
    with GitServer() as server:
        server.add_repository("harbour/polyglot", FILES)
        yield server


@pytest.fixture(scope="session")
def web() -> Iterator[WebServer]:
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(WebServer()) as server:
        yield server


@pytest.fixture(scope="session")
def bucket() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture(scope="session")
def receiver() -> Iterator[tuple[str, Received]]:
    """Somebody who wants to be called, and what he was sent."""
    received: Received = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", received
        server.shutdown()


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of which directories may be connected."""
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="session")
def stack(git: GitServer, web: WebServer, receiver: tuple[str, Received], root: Path) -> Iterator[Stack]:
    """One worker, and projects that are open to clients that send no credential."""
    with Stack(
        allowed_hosts=git.allowed_hosts,
        PHAROS_WEB_ALLOWED_HOSTS=web.url,
        PHAROS_CALLBACK_ALLOWED_HOSTS=receiver[0],
        PHAROS_ANONYMOUS="default:editor",
        PHAROS_LOCAL_ROOTS=str(root),
    ) as running:
        yield running


@pytest.fixture(scope="session")
def slots(git: GitServer) -> Iterator[Stack]:
    """One worker that takes two jobs at once."""
    with Stack(allowed_hosts=git.allowed_hosts, PHAROS_WORKER_SLOTS="2") as running:
        yield running


@pytest.fixture(scope="session")
def pair(git: GitServer, bucket: S3Server, root: Path) -> Iterator[Stack]:
    """Two workers, of which one owns the store."""
    with Stack(
        allowed_hosts=git.allowed_hosts,
        PHAROS_WORKERS="2",
        PHAROS_WEB_ALLOWED_HOSTS=bucket.url,
        PHAROS_ANONYMOUS="default:editor",
        PHAROS_LOCAL_ROOTS=str(root),
    ) as running:
        yield running


@pytest.fixture
def client(stack: Stack) -> Iterator[httpx.Client]:
    with stack.client() as found:
        yield found


@pytest.fixture(scope="session")
def polyglot(git: GitServer, stack: Stack) -> dict[str, object]:
    """The job that indexed the repository in six languages."""
    with stack.client() as found:
        return until_ended(found, submit(found, git.url("harbour/polyglot"))["id"])
