"""A worker in a process of its own beside the one with the embedded store, on one machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import httpx
import pytest

from pharos_local.nats_server import USER
from tests.support.git_server import GitServer
from tests.support.nats_server import free_port
from tests.support.stack import Stack, eventually, job, search, submit, until_ended

BESIDE = "beside"
FILES = 30
CREATURES = ("penguin", "otter", "heron", "badger", "lynx", "marten")


def repository(creature: str) -> dict[str, str]:
    """Code that is about one creature, so that a search for it tells whether it was indexed."""
    return {
        f"src/{creature}_{number}.py": "".join(
            f"def {verb}_{creature}_{number}(limit):\n"
            f'    """{verb.capitalize()} every {creature} of colony {number}."""\n'
            f"    return [{creature} for {creature} in range(limit + {number})]\n\n\n"
            for verb in ("count", "feed", "photograph")
        )
        for number in range(FILES)
    }


class WorkerBeside:
    """``pharos_embedder --role worker`` in the home of *stack*, as somebody starts it by hand."""

    def __init__(self, stack: Stack, nats_port: int, *, name: str = BESIDE) -> None:
        self._stack = stack
        self._environ = {
            **{key: value for key, value in os.environ.items() if not key.startswith("PHAROS_")},
            "PHAROS_HOME": str(stack.home),
            "PHAROS_NATS_URL": f"nats://127.0.0.1:{nats_port}",
            "PHAROS_NATS_USER": USER,
            "PHAROS_NATS_PASSWORD_FILE": str(stack.home / "nats-password"),
            "PHAROS_GIT_ALLOWED_HOSTS": stack.allowed_hosts,
            "PHAROS_WORKER_NAME": name,
            "PHAROS_LOG_FORMAT": "json",
        }
        self.log = stack.home / "logs" / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pharos_embedder", "--role", "worker"],
                env=self._environ,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> WorkerBeside:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()


@pytest.fixture(scope="module")
def nats_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def owner(git: GitServer, nats_port: int) -> Iterator[Stack]:
    """A stack whose embedder owns the store, and works itself."""
    with Stack(allowed_hosts=git.allowed_hosts, PHAROS_NATS_PORT=str(nats_port)) as running:
        yield running


@pytest.fixture
def client(owner: Stack) -> Iterator[httpx.Client]:
    with owner.client() as found:
        yield found


@pytest.fixture(scope="module")
def beside(owner: Stack, nats_port: int) -> Iterator[WorkerBeside]:
    with WorkerBeside(owner, nats_port) as worker, owner.client() as client:
        eventually(lambda: BESIDE in workers(client) or None)
        yield worker


def workers(client: httpx.Client) -> set[str]:
    return {each["name"] for each in client.get("/api/v1/workers").json()["workers"]}


def submitted(client: httpx.Client, git: GitServer, prefix: str, creatures: tuple[str, ...]) -> list[str]:
    ids = []
    for creature in creatures:
        git.add_repository(f"{prefix}/{creature}", repository(creature))
        ids.append(submit(client, git.url(f"{prefix}/{creature}"))["id"])
    return ids


def running_beside(client: httpx.Client, ids: list[str]) -> str | None:
    """A job that the worker beside has in hand."""
    for each in ids:
        found = job(client, each)
        if found is not None and found["state"] == "running" and found["worker"] == BESIDE:
            return each
    return None


def check_whole(client: httpx.Client, ended: dict[str, Any], name: str, creature: str) -> None:
    """The job is complete, and all that it was about is found, by words and by meaning."""
    assert ended["state"] == "completed", ended
    assert ended["result"]["files_processed"] == FILES
    assert ended["result"]["embeddings_generated"] > 0
    found = search(client, f"feed every {creature} of a colony", k=50, repo=name)
    assert len({hit["file"] for hit in found}) == FILES


def test_two_processes_index_at_once_and_both_are_found(
    git: GitServer, client: httpx.Client, beside: WorkerBeside
) -> None:
    ids = submitted(client, git, "both", CREATURES[:4])
    ended = [until_ended(client, each) for each in ids]
    assert BESIDE in {each["worker"] for each in ended}
    assert len({each["worker"] for each in ended}) == 2
    for each, creature in zip(ended, CREATURES, strict=False):
        check_whole(client, each, f"both/{creature}", creature)


def test_a_second_worker_of_one_name_is_refused(owner: Stack, nats_port: int, beside: WorkerBeside) -> None:
    namesake = WorkerBeside(owner, nats_port)
    namesake.log = owner.home / "logs" / "namesake.log"
    with namesake:
        assert namesake.process is not None
        assert namesake.process.wait(60) != 0
    assert "PHAROS_WORKER_NAME" in namesake.log.read_text()
    assert beside.process is not None
    assert beside.process.poll() is None


def test_the_job_of_a_worker_that_is_killed_is_finished_by_the_other(
    git: GitServer, client: httpx.Client, owner: Stack, beside: WorkerBeside
) -> None:
    ids = submitted(client, git, "killed", CREATURES)
    victim = eventually(lambda: running_beside(client, ids), poll_seconds=0.02)
    beside.kill()
    ended = {each: until_ended(client, each) for each in ids}
    assert ended[victim]["worker"] != BESIDE
    for each, creature in zip(ids, CREATURES, strict=True):
        check_whole(client, ended[each], f"killed/{creature}", creature)
    folder = owner.home / "workers" / BESIDE
    (folder / "left").mkdir(exist_ok=True)
    beside.start()
    eventually(lambda: not (folder / "left").exists())


def test_nothing_is_lost_when_the_owner_of_the_store_is_killed(
    git: GitServer, client: httpx.Client, owner: Stack, beside: WorkerBeside
) -> None:
    ids = submitted(client, git, "owned", CREATURES)
    victim = eventually(lambda: running_beside(client, ids), poll_seconds=0.02)
    owner.kill("embedder")
    ended = {each: until_ended(client, each) for each in ids}
    assert ended[victim]["attempt"] == 1
    for each, creature in zip(ids, CREATURES, strict=True):
        check_whole(client, ended[each], f"owned/{creature}", creature)
