"""One stack and one git server for all of these tests: a stack takes seconds to start."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from anyio.from_thread import start_blocking_portal

from tests.support.git_server import GitServer
from tests.support.polyglot import FILES
from tests.support.stack import Stack, submit, until_ended
from tests.support.web_server import WebServer


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
def stack(git: GitServer, web: WebServer) -> Iterator[Stack]:
    with Stack(
        allowed_hosts=git.allowed_hosts, PHAROS_QUEUE_MAX="50", PHAROS_WEB_ALLOWED_HOSTS=web.url
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
