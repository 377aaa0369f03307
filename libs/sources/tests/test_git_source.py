"""A repository as a source of files."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pharos_sources.git_source import GitSource
from pharos_sources.source import EntryNotFound, EntryTooLarge, SourceRefused, SourceUnavailable, every_file
from tests.support.git_fetches import address_of
from tests.support.git_server import GitServer, Symlink

pytestmark = pytest.mark.anyio


def source_of(server: GitServer, name: str, work: Path, *, ref: str | None = None) -> GitSource:
    return GitSource(address_of(server, name), work, ref=ref)


async def read(source: GitSource, file_id: str, bytes_max: int = 1_000) -> bytes:
    async with source.open(file_id, bytes_max=bytes_max) as pieces:
        return b"".join([piece async for piece in pieces])


async def test_the_files_of_a_commit_have_the_ids_of_their_blobs(
    running: GitServer, name: str, tmp_path: Path
) -> None:
    running.add_repository(name, {"a.md": "alpha", "src/.x": "hidden", "src/link": Symlink("../a.md")})
    source = source_of(running, name, tmp_path)
    found = [entry async for entry in every_file(source, files_max=10)]
    assert [(entry.id, entry.modified) for entry in found] == [("a.md", None), ("src/.x", None)]
    hashed = subprocess.run(
        ["git", "hash-object", "--stdin"], input=b"alpha", capture_output=True, check=True, timeout=10
    )
    assert found[0].identity == f"git:{hashed.stdout.decode().strip()}"
    assert await source.stat("a.md") == found[0]
    assert (await source.stat("src")).folder
    assert await read(source, "src/.x") == b"hidden"
    with pytest.raises(EntryTooLarge):
        await read(source, "a.md", 4)
    for file_id in ("src/link", "../git/HEAD", "missing"):
        with pytest.raises(EntryNotFound):
            await read(source, file_id)


async def test_a_repository_is_fetched_once_and_never_by_a_check(
    running: GitServer, name: str, tmp_path: Path
) -> None:
    running.add_repository(name, {"a.md": "one"})
    source = source_of(running, name, tmp_path)
    await source.check()
    assert list(tmp_path.iterdir()) == []
    assert await read(source, "a.md") == b"one"
    running.add_commits(name, [{"a.md": "two"}])
    assert await read(source, "a.md") == b"one"


async def test_what_is_wrong_with_a_repository_is_said(running: GitServer, name: str, tmp_path: Path) -> None:
    missing = source_of(running, name, tmp_path)
    with pytest.raises(SourceRefused, match="not found, or it is private"):
        await missing.check()
    with pytest.raises(SourceRefused, match="not found, or it is private"):
        await missing.list()
    running.add_repository(name, {"a.md": "one"})
    with pytest.raises(SourceRefused, match="no branch"):
        await source_of(running, name, tmp_path, ref="missing").check()
    running.answer(name, 503)
    with pytest.raises((SourceUnavailable, SourceRefused)):
        await missing.check()
