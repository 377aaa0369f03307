"""A worker in a process of its own beside the one with the embedded store, on one machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import httpx
import psutil
import pytest

from pharos_local.nats_server import USER
from tests.support.git_server import GitServer
from tests.support.stack import Stack, eventually, job, search, submit, until_ended

BESIDE = "worker-2"
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


@pytest.fixture
def stack(pair: Stack) -> Stack:
    """Its embedder owns the store, and works itself; the process beside that runs now takes work."""
    with pair.client() as client:
        eventually(lambda: is_up(client, pair) or None)
    return pair


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


def is_up(client: httpx.Client, stack: Stack) -> bool:
    """Whether the process beside that runs now takes work, and not one before it."""
    began = datetime.fromtimestamp(psutil.Process(stack.pid(BESIDE)).create_time(), UTC)
    return any(
        each["name"] == BESIDE and datetime.fromisoformat(each["since"]) > began
        for each in client.get("/api/v1/workers").json()["workers"]
    )


def check_whole(client: httpx.Client, ended: dict[str, Any], name: str, creature: str) -> None:
    """The job is complete, and all that it was about is found, by words and by meaning."""
    assert ended["state"] == "completed", ended
    assert ended["result"]["files_processed"] == FILES
    assert ended["result"]["embeddings_generated"] > 0
    found = search(client, f"feed every {creature} of a colony", k=50, repo=name)
    assert len({hit["file"] for hit in found}) == FILES


def test_two_processes_index_at_once_and_both_are_found(git: GitServer, client: httpx.Client) -> None:
    ids = submitted(client, git, "both", CREATURES[:4])
    ended = [until_ended(client, each) for each in ids]
    assert BESIDE in {each["worker"] for each in ended}
    assert len({each["worker"] for each in ended}) == 2
    for each, creature in zip(ended, CREATURES, strict=False):
        check_whole(client, each, f"both/{creature}", creature)


def test_a_second_worker_of_one_name_is_refused_and_the_first_goes_on(stack: Stack) -> None:
    (port,) = re.findall(r'listen: "127.0.0.1:(\d+)"', (stack.home / "nats.conf").read_text())
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PHAROS_")} | {
        "PHAROS_HOME": str(stack.home),
        "PHAROS_NATS_URL": f"nats://127.0.0.1:{port}",
        "PHAROS_NATS_USER": USER,
        "PHAROS_NATS_PASSWORD_FILE": str(stack.home / "nats-password"),
        "PHAROS_WORKER_NAME": BESIDE,
    }
    first = stack.pid(BESIDE)
    namesake = subprocess.run(
        [sys.executable, "-m", "pharos_embedder", "--role", "worker"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert namesake.returncode != 0
    assert "PHAROS_WORKER_NAME" in namesake.stderr
    assert stack.pid(BESIDE) == first


def test_the_job_of_a_worker_that_is_killed_is_finished_whoever_takes_it(
    git: GitServer, client: httpx.Client, stack: Stack
) -> None:
    ids = submitted(client, git, "killed", CREATURES)
    eventually(lambda: running_beside(client, ids), poll_seconds=0.02)
    stack.kill(BESIDE)
    ended = {each: until_ended(client, each) for each in ids}
    for each, creature in zip(ids, CREATURES, strict=True):
        check_whole(client, ended[each], f"killed/{creature}", creature)


def test_nothing_is_lost_when_the_owner_of_the_store_is_killed(
    git: GitServer, client: httpx.Client, stack: Stack
) -> None:
    ids = submitted(client, git, "owned", CREATURES)
    victim = eventually(lambda: running_beside(client, ids), poll_seconds=0.02)
    stack.kill("embedder")
    ended = {each: until_ended(client, each) for each in ids}
    assert ended[victim]["attempt"] == 1
    for each, creature in zip(ids, CREATURES, strict=True):
        check_whole(client, ended[each], f"owned/{creature}", creature)
