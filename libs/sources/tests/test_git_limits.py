"""A fetch ends: at a limit of bytes, files or time, when it is cancelled, and cleanly."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import anyio
import pytest

from pharos_sources.git import FetchLimits, FetchTimedOut, RepositoryTooLarge, fetch, remote_head
from tests.support.git_fetches import address_of, git_processes
from tests.support.git_server import GitServer

pytestmark = pytest.mark.anyio


async def test_a_repository_with_too_many_bytes_is_refused(running: GitServer, name: str, into: Path) -> None:
    running.add_repository(name, {"zeros": b"\0" * 3_000_000})
    with pytest.raises(RepositoryTooLarge) as failure:  # a small pack that unpacks to a large file
        await fetch(address_of(running, name), into, limits=FetchLimits(bytes_max=1_000_000))
    assert "larger than 976.6 KiB" in str(failure.value)
    assert not into.exists()


async def test_a_pack_that_is_too_large_is_stopped_while_it_arrives(
    running: GitServer, name: str, into: Path
) -> None:
    running.add_repository(name, {"noise": os.urandom(4_000_000)})
    running.throttle(name, 400_000)
    limits = FetchLimits(bytes_max=500_000, poll_seconds=0.02)
    started = time.monotonic()
    with pytest.raises(RepositoryTooLarge):
        await fetch(address_of(running, name), into, limits=limits)
    assert time.monotonic() - started < 7  # the whole of it takes ten seconds
    assert not into.exists()
    assert git_processes(str(into)) == []


async def test_a_repository_with_too_many_files_is_refused(running: GitServer, name: str, into: Path) -> None:
    running.add_repository(name, {f"f{number}": "" for number in range(30)})
    with pytest.raises(RepositoryTooLarge, match="larger than 29 files"):
        await fetch(address_of(running, name), into, limits=FetchLimits(files_max=29))
    assert (await fetch(address_of(running, name), into, limits=FetchLimits(files_max=30))).files == 30


async def test_trees_that_multiply_are_refused_before_they_are_written(
    running: GitServer, name: str, into: Path
) -> None:
    running.add_repository(name, {"seed": "1"})
    bare = running.repository_path(name)

    def git(*arguments: str, stdin: str = "") -> str:
        return subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", *arguments],
            cwd=bare, input=stdin, capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip

    tree = git("rev-parse", "main^{tree}")
    for _ in range(12):  # 10^12 files in a few kilobytes
        tree = git("mktree", stdin="".join(f"040000 tree {tree}\td{number}\n" for number in range(10)))
    git("update-ref", "refs/heads/main", git("commit-tree", "-m", "bomb", tree))
    started = time.monotonic()
    with pytest.raises(RepositoryTooLarge, match="5000 files"):
        await fetch(address_of(running, name), into, limits=FetchLimits(files_max=5_000))
    assert time.monotonic() - started < 20
    assert git_processes(str(into)) == []


async def test_a_slow_server_runs_into_the_time_limit(running: GitServer, name: str, into: Path) -> None:
    running.add_repository(name, {"a": "1"})
    running.delay(name, 30)
    started = time.monotonic()
    with pytest.raises(FetchTimedOut, match=r"within 0\.5 seconds") as failure:
        await fetch(address_of(running, name), into, limits=FetchLimits(seconds=0.5))
    assert failure.value.transient
    assert time.monotonic() - started < 10
    assert not into.exists()
    assert git_processes(str(into)) == []
    with pytest.raises(FetchTimedOut):
        await remote_head(address_of(running, name), seconds=0.3)


async def test_cancelling_kills_git_and_removes_everything(running: GitServer, name: str, into: Path) -> None:
    running.add_repository(name, {"noise": os.urandom(4_000_000)})
    running.throttle(name, 200_000)
    receiving = anyio.Event()

    def on_progress(phase: str, done: int, total: int) -> None:
        if phase == "receiving":
            receiving.set()

    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            await fetch(address_of(running, name), into, on_progress=on_progress)

        tasks.start_soon(run)
        with anyio.fail_after(20):
            await receiving.wait()
        assert any("index-pack" in line for line in git_processes(str(into)))
        started = time.monotonic()
        tasks.cancel_scope.cancel()
    assert time.monotonic() - started < 5
    assert git_processes(str(into)) == []
    assert not into.exists()


async def test_an_error_in_the_progress_callback_ends_the_fetch_cleanly(
    running: GitServer, name: str, into: Path
) -> None:
    running.add_repository(name, {"a": "1"})

    def on_progress(phase: str, done: int, total: int) -> None:
        if phase == "receiving":
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await fetch(address_of(running, name), into, on_progress=on_progress)
    assert not into.exists()
