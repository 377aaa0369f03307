"""Fetching from a real git server, with the real git binary."""

from __future__ import annotations

import os
import pickle
import subprocess
from pathlib import Path

import anyio
import pytest

from pharos_sources import git_process
from pharos_sources.git import (
    FetchError,
    FetchFailed,
    GitMissing,
    HostUnreachable,
    RefNotFound,
    RepositoryEmpty,
    RepositoryNotFound,
    Secret,
    fetch,
    remote_head,
)
from tests.support.git_fetches import address_of, files_in
from tests.support.git_server import GitServer

pytestmark = pytest.mark.anyio

TOKEN = "ghp_hunter2-hunter2"


async def test_the_default_branch_is_the_head_of_the_remote(
    running: GitServer, name: str, into: Path
) -> None:
    commit = running.add_repository(name, {"a.py": "x = 1\n", "d/b.txt": b"\0\xff"}, branch="trunk")
    running.add_commits(name, [{"other": "1"}], branch="main", start="trunk")
    seen: list[tuple[str, int, int]] = []
    checkout = await fetch(
        address_of(running, name), into, on_progress=lambda *progress: seen.append(progress)
    )
    assert checkout.commit == commit
    assert (checkout.branch, checkout.default_branch) == ("trunk", "trunk")
    assert files_in(checkout) == {"a.py": b"x = 1\n", "d/b.txt": b"\0\xff"}
    assert (checkout.files, checkout.bytes) == (2, 8)
    assert seen[0] == ("connecting", 0, 0)
    assert seen[-1] == ("checking out", 2, 2)
    assert ("receiving", 5, 5) in seen
    assert into.stat().st_mode & 0o777 == 0o700
    assert not (checkout.root / ".git").exists()


async def test_another_branch_and_a_branch_with_slashes_and_a_tag(
    running: GitServer, name: str, tmp_path: Path
) -> None:
    main = running.add_repository(name, {"a": "1"}, commits=[{"a": "2"}])
    feature = running.add_commits(name, [{"a": "3"}], branch="feature/a/b", start="main")
    running.add_tag(name, "v1", main)
    running.add_tag(name, "v2", feature, annotated=True)
    address = address_of(running, name)
    by_ref = await fetch(address, tmp_path / "1", ref="feature/a/b")
    by_url = await fetch(address_of(running, name, "/tree/feature/a/b"), tmp_path / "2")
    light = await fetch(address, tmp_path / "3", ref="v1")
    annotated = await fetch(address, tmp_path / "4", ref="v2")
    assert (by_ref.commit, by_ref.branch, by_ref.default_branch) == (feature, "feature/a/b", "main")
    assert (by_url.commit, by_url.branch) == (feature, "feature/a/b")
    assert (light.commit, light.branch) == (main, None)
    assert (annotated.commit, annotated.branch) == (feature, None)
    assert files_in(annotated) == {"a": b"3"}


async def test_a_commit_is_fetched_exactly(running: GitServer, name: str, tmp_path: Path) -> None:
    first = running.add_repository(name, {"a": "1"})
    last = running.add_commits(name, [{"a": "2"}, {"a": "3"}])
    assert first != last
    address = address_of(running, name)
    checkout = await fetch(address, tmp_path / "1", ref="main", sha=first.upper())
    assert (checkout.commit, checkout.branch, files_in(checkout)) == (first, "main", {"a": b"1"})
    by_url = await fetch(address_of(running, name, f"/tree/{first}"), tmp_path / "2")
    assert (by_url.commit, by_url.branch) == (first, None)


async def test_only_the_wanted_commit_is_transferred(running: GitServer, name: str, into: Path) -> None:
    running.add_repository(name, {"big": os.urandom(300_000)}, commits=[{"big": None, "small": "1"}])
    await fetch(address_of(running, name), into)
    pack_bytes = sum(path.stat().st_size for path in (into / "git").rglob("*.pack"))
    assert pack_bytes < 10_000


async def test_who_is_told_of_the_commit_may_end_the_fetch_before_anything_is_transferred(
    running: GitServer, name: str, into: Path
) -> None:
    commit = running.add_repository(name, {"a": "1"})
    told: list[tuple[str, str | None]] = []

    async def refuse(commit: str, branch: str | None) -> None:
        told.append((commit, branch))
        raise LookupError

    with pytest.raises(LookupError):
        await fetch(address_of(running, name), into, on_located=refuse)
    assert told == [(commit, "main")]
    assert name not in running.packs
    assert not into.exists()


async def test_remote_head_answers_without_fetching(running: GitServer, name: str) -> None:
    main = running.add_repository(name, {"a": "1"})
    feature = running.add_commits(name, [{"a": "2"}], branch="feature", start="main")
    running.add_tag(name, "v1", main, annotated=True)
    address = address_of(running, name)
    assert await remote_head(address) == main
    assert await remote_head(address, "feature") == feature
    assert await remote_head(address, "v1") == main
    assert await remote_head(address_of(running, name, "/tree/feature")) == feature
    with pytest.raises(RefNotFound):
        await remote_head(address, "nope")


async def test_a_server_that_knows_the_name_without_git_is_asked_once(running: GitServer, name: str) -> None:
    running.add_repository(name, {"a": "1"})
    running.require_full_name(name)
    before = len(running.requests)
    await remote_head(address_of(running, name))
    assert [request.path.rpartition("/info/")[0] for request in running.requests[before:]][:2] == [
        f"/{name}",
        f"/{name}.git",
    ]


async def test_a_missing_repository_is_not_found(running: GitServer, into: Path) -> None:
    with pytest.raises(RepositoryNotFound) as failure:
        await fetch(address_of(running, "owner/nothing"), into)
    assert str(failure.value) == (f"Repository not found, or it is private: {running.base_url}/owner/nothing")
    assert not failure.value.transient
    assert not into.exists()


@pytest.mark.parametrize(
    ("ref", "sha"),
    [
        ("nope", None),
        (None, "1" * 40),
        (None, "1" * 64),
        ("-x", None),
        ("a..b", None),
        (None, "abc"),
        ("main", "nope"),
        ("1" * 40, None),
    ],
)
async def test_a_missing_branch_or_commit_is_not_found(
    running: GitServer, name: str, into: Path, ref: str | None, sha: str | None
) -> None:
    running.add_repository(name, {"a": "1"})
    with pytest.raises(RefNotFound) as failure:
        await fetch(address_of(running, name), into, ref=ref, sha=sha)
    assert str(failure.value).startswith("There is no branch, tag or commit ")
    assert not into.exists()


async def test_an_empty_repository_says_so(running: GitServer, name: str, into: Path) -> None:
    running.add_empty_repository(name)
    for ref in (None, "main"):
        with pytest.raises(RepositoryEmpty):
            await fetch(address_of(running, name), into, ref=ref)
    assert not into.exists()


async def test_a_head_without_its_branch_falls_back_to_the_usual_one(
    running: GitServer, name: str, into: Path
) -> None:
    running.add_empty_repository(name, branch="gone")
    running.add_commits(name, [{"a": "1"}], branch="other")
    commit = running.add_commits(name, [{"a": "2"}], branch="main")
    checkout = await fetch(address_of(running, name), into)
    assert (checkout.commit, checkout.branch) == (commit, "main")


async def test_a_detached_head_has_no_branch(running: GitServer, name: str, into: Path) -> None:
    commit = running.add_repository(name, {"a": "1"}, commits=[{"a": "2"}])
    (running.repository_path(name) / "HEAD").write_text(f"{commit}\n")
    checkout = await fetch(address_of(running, name), into)
    assert (checkout.commit, checkout.branch) == (commit, None)


async def test_a_private_repository_reads_as_missing(running: GitServer, name: str, into: Path) -> None:
    running.add_repository(name, {"a": "1"})
    running.require_token(name, TOKEN)
    for token in (None, Secret("wrong")):
        with pytest.raises(RepositoryNotFound, match="or it is private"):
            await fetch(address_of(running, name), into, token=token)


async def test_a_token_opens_a_private_repository_and_is_seen_by_nobody(
    running: GitServer, name: str, into: Path
) -> None:
    running.add_repository(name, {"a": "1"})
    running.require_token(name, TOKEN)
    running.delay(name, 0.05)
    arguments: set[str] = set()
    done = anyio.Event()

    async def look() -> None:
        while not done.is_set():
            for entry in Path("/proc").iterdir():
                if entry.name.isdigit():
                    try:
                        arguments.add((entry / "cmdline").read_bytes().decode(errors="replace"))
                    except OSError:
                        continue
            await anyio.sleep(0.01)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(look)
        checkout = await fetch(address_of(running, name), into, token=Secret(TOKEN))
        done.set()
    encoded = git_process.authorization(address_of(running, name), Secret(TOKEN)).removeprefix("Basic ")
    assert any("ls-remote" in line and name in line for line in arguments)
    assert not [line for line in arguments if TOKEN in line or encoded in line]
    written = b"".join(path.read_bytes() for path in into.rglob("*") if path.is_file())
    assert TOKEN.encode() not in written
    assert encoded.encode() not in written
    assert files_in(checkout) == {"a": b"1"}


async def test_a_token_and_a_local_path_never_reach_an_error(
    running: GitServer, name: str, into: Path
) -> None:
    running.add_repository(name, {"a": "1"})
    running.require_token(name, "another")
    running.answer(f"{name}-broken", 500)
    for repository in (name, f"{name}-broken", f"{name}-missing"):
        with pytest.raises(FetchError) as failure:
            await fetch(address_of(running, repository), into, token=Secret(TOKEN))
        shown = f"{failure.value!s} {failure.value!r} {failure.value.diagnostic} {vars(failure.value)}"
        assert TOKEN not in shown
        assert str(into) not in shown
        assert str(into.parent) not in str(failure.value)
    assert TOKEN not in f"{Secret(TOKEN)} {Secret(TOKEN)!r}"


async def test_a_server_in_trouble_is_worth_another_try(running: GitServer, name: str, into: Path) -> None:
    for status, transient in ((500, True), (503, True), (429, True), (400, False)):
        running.answer(name, status)
        with pytest.raises(FetchFailed, match=f"the server answered {status}") as failure:
            await fetch(address_of(running, name), into)
        assert failure.value.transient is transient


async def test_a_host_that_does_not_listen_is_unreachable(into: Path) -> None:
    with GitServer() as gone:
        address = address_of(gone, "owner/name")
    with pytest.raises(HostUnreachable) as failure:
        await fetch(address, into)
    assert failure.value.transient


async def test_a_machine_without_a_safe_git_says_so(
    running: GitServer, name: str, into: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for script in (None, "git version 2.36.9", "something else"):
        if script is not None:
            (tmp_path / "git").write_text(f"#!/bin/sh\necho {script}\n")
            (tmp_path / "git").chmod(0o755)
        with pytest.raises(GitMissing, match=r"git 2\.37 or newer"):
            await fetch(address_of(running, name), into)
        assert not into.exists()


async def test_many_fetches_at_once_do_not_meet(running: GitServer, name: str, tmp_path: Path) -> None:
    commits = [running.add_repository(f"{name}-{number}", {"a": str(number)}) for number in range(4)]
    got: dict[int, tuple[str, dict[str, bytes]]] = {}

    async def one(number: int) -> None:
        checkout = await fetch(address_of(running, f"{name}-{number}"), tmp_path / str(number))
        got[number] = (checkout.commit, files_in(checkout))

    async with anyio.create_task_group() as tasks:
        for number in range(4):
            tasks.start_soon(one, number)
    assert got == {number: (commits[number], {"a": b"%d" % number}) for number in range(4)}


async def test_a_fetch_leaves_no_open_files(running: GitServer, name: str, tmp_path: Path) -> None:
    running.add_repository(name, {"a": "1"})
    await fetch(address_of(running, name), tmp_path / "first")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(3):
        await fetch(address_of(running, name), tmp_path / str(number))
        with pytest.raises(RefNotFound):
            await fetch(address_of(running, name), tmp_path / f"x{number}", ref="nope")
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1


def test_a_secret_is_not_copied_into_a_message() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(Secret(TOKEN))
    assert TOKEN not in f"{Secret(TOKEN)!r} {Secret(TOKEN)} {[Secret(TOKEN)]}"
    assert Secret(TOKEN).reveal() == TOKEN
    assert not Secret("")


async def test_a_folder_in_use_is_left_alone(running: GitServer, name: str, into: Path) -> None:
    running.add_repository(name, {"a": "1"})
    into.mkdir(parents=True)
    (into / "mine").write_text("1")
    with pytest.raises(FileExistsError):
        await fetch(address_of(running, name), into)
    assert (into / "mine").read_text() == "1"


async def test_a_copy_of_a_checkout_can_be_served(running: GitServer, name: str, tmp_path: Path) -> None:
    running.add_repository(name, {"a": "1"}, commits=[{"b": "2"}])
    source = tmp_path / "source"
    subprocess.run(["git", "clone", "-q", str(running.repository_path(name)), str(source)], check=True)
    commit = running.add_bare_from(source, f"{name}-copy")
    checkout = await fetch(address_of(running, f"{name}-copy"), tmp_path / "into")
    assert (checkout.commit, files_in(checkout)) == (commit, {"a": b"1", "b": b"2"})
