"""Fetching from a real git server, with the real git binary."""

from __future__ import annotations

import os
import pickle
import ssl
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
import trustme

from pharos_sources import git_process
from pharos_sources.git import (
    Checkout,
    FetchError,
    FetchFailed,
    FetchLimits,
    FetchTimedOut,
    GitMissing,
    HostUnreachable,
    RefNotFound,
    RepositoryEmpty,
    RepositoryNotFound,
    RepositoryTooLarge,
    Secret,
    fetch,
    remote_head,
)
from pharos_sources.repository_url import AllowedHosts, RepositoryAddress, parse_repository_url
from tests.support.git_server import Executable, GitServer, Submodule, Symlink

pytestmark = pytest.mark.anyio

TOKEN = "ghp_hunter2-hunter2"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def running() -> Iterator[GitServer]:
    with GitServer() as server:
        yield server


@pytest.fixture
def name(tmp_path: Path) -> str:
    """A repository name of this test alone."""
    return f"owner/{tmp_path.name}"


@pytest.fixture
def into(tmp_path: Path) -> Path:
    return tmp_path / "work" / "job"


def address_of(server: GitServer, name: str, suffix: str = "") -> RepositoryAddress:
    allowed = AllowedHosts.parse(server.allowed_hosts)
    return parse_repository_url(server.url(name) + suffix, allowed_hosts=allowed)


def files_in(checkout: Checkout) -> dict[str, bytes]:
    found = {}
    for path in checkout.root.rglob("*"):
        assert not path.is_symlink()
        if path.is_file():
            found[str(path.relative_to(checkout.root))] = path.read_bytes()
    return found


def git_processes(marker: str) -> list[str]:
    """Command lines of living processes whose environment or arguments mention *marker*."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if marker.encode() in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


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


async def test_symbolic_links_are_left_out_and_never_followed(
    running: GitServer, name: str, into: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    running.add_repository(
        name,
        {
            "real": "1",
            "absolute": Symlink("/etc/passwd"),
            "d/up": Symlink("../../../../outside/secret"),
            "dir": Symlink(str(outside)),
            "inside": Symlink("real"),
        },
    )
    checkout = await fetch(address_of(running, name), into)
    assert files_in(checkout) == {"real": b"1"}
    assert (checkout.files, checkout.symlinks) == (5, 4)
    assert checkout.symlink_examples == ("absolute", "d/up", "dir", "inside")
    assert (outside / "secret").read_text() == "secret"


async def test_a_link_cannot_redirect_what_is_written_later(
    running: GitServer, name: str, into: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    running.add_repository(name, {"a/payload": "owned"})
    bare = running.repository_path(name)

    def git(*arguments: str, stdin: bytes = b"") -> str:
        return subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", *arguments],
            cwd=bare, input=stdin, capture_output=True, check=True,
        ).stdout.decode().strip()  # fmt: skip

    link = git("hash-object", "-w", "--stdin", stdin=str(outside).encode())
    folder = git("rev-parse", "main:a")
    raw = b"120000 a\0" + bytes.fromhex(link) + b"40000 a\0" + bytes.fromhex(folder)
    tree = git("hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=raw)
    git("update-ref", "refs/heads/main", git("commit-tree", "-m", "evil", tree))
    try:
        checkout = await fetch(address_of(running, name), into)
    except FetchError:
        pass
    else:
        files_in(checkout)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize(
    "path", ["../escape", ".git/hooks/post-checkout", "d/../../escape", "..", ".GIT/config"]
)
async def test_a_path_that_leaves_the_tree_fails_the_fetch(
    running: GitServer, name: str, into: Path, path: str
) -> None:
    running.add_repository(name, {"a": "1"})
    bare = running.repository_path(name)

    def git(*arguments: str, stdin: bytes = b"") -> str:
        return subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", *arguments],
            cwd=bare, input=stdin, capture_output=True, check=True,
        ).stdout.decode().strip()  # fmt: skip

    blob = git("rev-parse", "main:a")
    raw = b"100644 " + path.encode() + b"\0" + bytes.fromhex(blob)
    tree = git("hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=raw)
    git("update-ref", "refs/heads/main", git("commit-tree", "-m", "evil", tree))
    with pytest.raises(FetchFailed):
        await fetch(address_of(running, name), into)
    assert not into.exists()
    assert list(into.parent.iterdir()) == []


async def test_the_folder_of_a_submodule_stays_empty(running: GitServer, name: str, into: Path) -> None:
    modules = '[submodule "m"]\n\tpath = m\n\turl = https://example.com/a/b\n'
    running.add_repository(name, {".gitmodules": modules, "m": Submodule("1" * 40), "a": "1"})
    checkout = await fetch(address_of(running, name), into)
    assert set(files_in(checkout)) == {".gitmodules", "a"}
    assert list((checkout.root / "m").iterdir()) == []
    assert checkout.submodules == 1


async def test_names_and_bytes_arrive_as_they_are(running: GitServer, name: str, into: Path) -> None:
    files = {
        "größe/日本語.py": "ä = 1\n",
        "with space/a b.txt": "1",
        'quote"d.txt': "1",
        "back\\slash.txt": "1",
        "-dash": "1",
        "new\nline": "1",
        "crlf.txt": "a\r\nb\r\n",
        "lf.bat": "a\nb\n",
        "ident.c": "$Id$\n",
        "wide.txt": "plain\n",
        ".gitattributes": "* text=auto\n*.bat eol=crlf\n*.c ident\nwide.txt working-tree-encoding=UTF-16\n"
        "*.py filter=lfs\n",
    }
    running.add_repository(name, files)
    checkout = await fetch(address_of(running, name), into)
    assert files_in(checkout) == {path: content.encode() for path, content in files.items()}
    assert checkout.bytes == sum(len(content.encode()) for content in files.values())


async def test_nothing_of_a_repository_or_of_this_machine_is_run(
    running: GitServer, name: str, into: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proof = tmp_path / "proof"
    script = f"#!/bin/sh\ntouch {proof}\n"
    hooks = tmp_path / "home" / "hooks"
    hooks.mkdir(parents=True)
    for hook in ("post-checkout", "reference-transaction", "post-index-change"):
        (hooks / hook).write_text(script)
        (hooks / hook).chmod(0o755)
    (tmp_path / "home" / ".gitconfig").write_text(
        f'[core]\n\thooksPath = {hooks}\n\tfsmonitor = {hooks}/post-checkout\n[filter "x"]\n'
        f"\tsmudge = touch {proof}\n[http]\n\tproxy = http://127.0.0.1:9\n"
    )
    for key, value in {
        "HOME": str(tmp_path / "home"),
        "GIT_CONFIG_GLOBAL": str(tmp_path / "home" / ".gitconfig"),
        "GIT_TEMPLATE_DIR": str(tmp_path / "home"),
        "GIT_ASKPASS": f"{hooks}/post-checkout",
        "GIT_DIR": "/nonexistent",
        "http_proxy": "http://127.0.0.1:9",
        "ALL_PROXY": "http://127.0.0.1:9",
    }.items():
        monkeypatch.setenv(key, value)
    running.add_repository(
        name,
        {
            ".gitattributes": "* filter=x\n",
            "a": "1",
            ".githooks/post-checkout": Executable(script),
            "hooks/post-checkout": Executable(script),
        },
    )
    checkout = await fetch(address_of(running, name), into)
    assert files_in(checkout)["a"] == b"1"
    assert stat.S_IXUSR & (checkout.root / "hooks/post-checkout").stat().st_mode
    assert not proof.exists()


async def test_a_repository_around_the_work_folder_is_not_discovered(
    running: GitServer, name: str, tmp_path: Path
) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    subprocess.run(
        ["git", "-C", str(tmp_path), "config", "url.http://127.0.0.1:9/.insteadOf", running.base_url + "/"],
        check=True,
    )
    commit = running.add_repository(name, {"a": "1"})
    assert (await fetch(address_of(running, name), tmp_path / "into")).commit == commit


async def test_a_renamed_repository_is_followed_on_its_own_host(
    running: GitServer, name: str, into: Path
) -> None:
    commit = running.add_repository(name, {"a": "1"})
    running.require_token(name, TOKEN)
    running.answer(f"{name}-old", 301, location=f"{running.base_url}/{name}.git")
    checkout = await fetch(address_of(running, f"{name}-old"), into, token=Secret(TOKEN))
    assert checkout.commit == commit


async def test_a_redirect_to_another_host_is_refused_and_gets_no_token(
    running: GitServer, name: str, into: Path
) -> None:
    with GitServer() as other:
        other.add_repository(name, {"a": "1"})
        running.answer(name, 302, location=f"{other.base_url}/{name}.git")
        with pytest.raises(FetchFailed, match="moved to another host"):
            await fetch(address_of(running, name), into, token=Secret(TOKEN))
        assert other.requests == ()


async def test_redirects_in_a_circle_end(running: GitServer, name: str, into: Path) -> None:
    running.answer(name, 302, location=running.url(name))
    with pytest.raises(FetchFailed, match="redirects in circles"):
        await fetch(address_of(running, name), into)


class FakeResolver:
    """Answers every name with the same addresses, and remembers the names."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self.names: list[str] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.names.append(host)
        return self.addresses


@pytest.mark.parametrize("addresses", [("127.0.0.1",), ("::1", "127.0.0.1")])
async def test_git_connects_to_the_address_that_was_checked_and_looks_nothing_up(
    running: GitServer, name: str, into: Path, addresses: tuple[str, ...]
) -> None:
    commit = running.add_repository(name, {"a": "1"})
    allowed = AllowedHosts.parse(f"http://git.pinned.example:{running.port}")
    url = f"http://git.pinned.example:{running.port}/{name}"
    resolver = FakeResolver(*addresses)
    checkout = await fetch(parse_repository_url(url, allowed_hosts=allowed), into, resolver=resolver)
    assert checkout.commit == commit
    assert resolver.names == ["git.pinned.example"]


async def test_a_public_name_with_a_private_address_is_refused_without_a_connection(
    running: GitServer, into: Path
) -> None:
    address = parse_repository_url(
        f"https://rebind.example.com:{running.port}/a/b", allowed_hosts=AllowedHosts()
    )
    before = len(running.requests)
    with pytest.raises(FetchFailed, match="does not have a public address"):
        await fetch(address, into, resolver=FakeResolver("8.8.8.8", "127.0.0.1"))
    assert len(running.requests) == before
    assert not into.exists()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def secure(authority: trustme.CA) -> Iterator[GitServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("git.secure.example").configure_cert(context)
    with GitServer(tls=context) as server:
        yield server


def secure_address(server: GitServer, name: str, host: str = "git.secure.example") -> RepositoryAddress:
    allowed = AllowedHosts.parse(f"http://{host}:{server.port}")
    return parse_repository_url(f"https://{host}:{server.port}/{name}", allowed_hosts=allowed)


async def test_https_is_verified_against_the_name_and_the_pinned_address_is_used(
    secure: GitServer, authority: trustme.CA, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = secure.add_repository(name, {"a": "1"})
    secure.answer(f"{name}-old", 301, location=f"https://git.secure.example:{secure.port}/{name}.git")
    resolver = FakeResolver("127.0.0.1")
    with pytest.raises(HostUnreachable) as failure:  # nobody vouches for it yet
        await fetch(secure_address(secure, name), tmp_path / "0", resolver=resolver)
    assert not failure.value.transient
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    for number, repository in enumerate((name, f"{name}-old"), start=1):
        address = secure_address(secure, repository)
        assert (await fetch(address, tmp_path / str(number), resolver=resolver)).commit == commit
    with pytest.raises(HostUnreachable) as failure:
        other = secure_address(secure, name, host="git.other.example")
        await fetch(other, tmp_path / "3", resolver=resolver)
    assert not failure.value.transient


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
