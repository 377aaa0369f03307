"""What a hostile repository cannot do: leave its folder, run anything, or be changed on its way."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from pharos_sources.git import FetchError, FetchFailed, fetch
from tests.support.git_fetches import address_of, files_in
from tests.support.git_server import Executable, GitServer, Submodule, Symlink

pytestmark = pytest.mark.anyio


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
