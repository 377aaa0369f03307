"""Files below a root, and nothing from outside of it, whatever the tree is made of."""

from __future__ import annotations

import os
import socket
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from pharos_sources.local_directory import DirectoryLimits, DirectoryRefused, LocalDirectory, below_root
from pharos_sources.source import (
    EntryNotFound,
    EntryRefused,
    EntryTooLarge,
    InvalidCursor,
    Source,
    SourceRefused,
    SourceUnreadable,
    TooManyFiles,
    every_file,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with three files, beside a secret that is outside of it."""
    (tmp_path / "secret.txt").write_text("hunter2")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_text("hunter2")
    root = tmp_path / "root"
    (root / "papers" / "old").mkdir(parents=True)
    (root / "a.md").write_text("alpha")
    (root / "papers" / "b.pdf").write_bytes(b"%PDF-")
    (root / "papers" / "old" / "c.txt").write_text("gamma")
    return root


async def read(source: Source, file_id: str, bytes_max: int = 1_000_000) -> bytes:
    async with source.open(file_id, bytes_max=bytes_max) as pieces:
        return b"".join([piece async for piece in pieces])


async def ids(source: Source, under: str | None = None, files_max: int = 100_000) -> list[str]:
    return [entry.id async for entry in every_file(source, under, files_max=files_max)]


async def test_files_of_all_folders_are_listed_and_told_of_and_read(root: Path) -> None:
    source = LocalDirectory(root)
    assert isinstance(source, Source)
    await source.check()
    assert await ids(source) == ["a.md", "papers/b.pdf", "papers/old/c.txt"]
    assert await ids(source, "papers") == ["papers/b.pdf", "papers/old/c.txt"]
    (page,) = [await source.list(under="papers")]
    assert [(entry.name, entry.size, entry.content_type) for entry in page.entries] == [
        ("b.pdf", 5, "application/pdf"),
        ("old/c.txt", 5, "text/plain"),
    ]
    assert (await source.stat("papers")).folder
    told = await source.stat("papers/b.pdf")
    assert (told.identity, told.modified) == (page.entries[0].identity, page.entries[0].modified)
    assert await read(source, "papers/old/c.txt") == b"gamma"


async def test_the_identity_changes_with_the_content(root: Path) -> None:
    source = LocalDirectory(root)
    before = (await source.stat("a.md")).identity
    assert (await source.stat("a.md")).identity == before
    (root / "a.md").write_text("alphabet")
    assert (await source.stat("a.md")).identity != before


@pytest.mark.parametrize(
    "file_id",
    [
        "../secret.txt", "papers/../../secret.txt", "papers/../a.md", "./a.md", "/etc/passwd", "//etc/passwd",
        "", ".", "..", "papers//b.pdf", "papers/", "a.md/", "a.md\0.pdf", "a.md/x", "missing", "n" * 300,
        "n/" * 3000, "\ud800", "\udcff", "papers\\..\\..\\secret.txt", "%2e%2e/secret.txt", "~/secret.txt",
        "~root",
    ],
)  # fmt: skip
async def test_an_id_leads_nowhere_but_down(root: Path, file_id: str) -> None:
    source = LocalDirectory(root, hidden=True)
    for ask in (source.stat(file_id), read(source, file_id), source.list(under=file_id)):
        with pytest.raises((EntryNotFound, EntryRefused)) as refused:
            await ask
        assert str(root.parent) not in str(refused.value)


def link_to_file(root: Path) -> str:
    (root / "x").symlink_to("../secret.txt")
    return "x"


def link_to_folder(root: Path) -> str:
    (root / "x").symlink_to("../outside")
    return "x/secret.txt"


def link_to_inside(root: Path) -> str:
    (root / "x").symlink_to("a.md")
    return "x"


def link_to_root(root: Path) -> str:
    (root / "x").symlink_to("/")
    return "x/etc/passwd"


def link_to_nothing(root: Path) -> str:
    (root / "x").symlink_to("nothing")
    return "x"


def link_to_itself(root: Path) -> str:
    (root / "x").symlink_to("x")
    return "x"


def named_pipe(root: Path) -> str:
    os.mkfifo(root / "x")
    return "x"


def local_socket(root: Path) -> str:
    here = os.open(root, os.O_RDONLY)
    before = os.open(".", os.O_RDONLY)
    os.fchdir(here)  # the name of a socket may not be long
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind("x")
    os.fchdir(before)
    os.close(here)
    os.close(before)
    return "x"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (link_to_file, "link"),
        (link_to_folder, "link"),
        (link_to_inside, "link"),
        (link_to_root, "link"),
        (link_to_nothing, "link"),
        (link_to_itself, "link"),
        (named_pipe, "special file"),
        (local_socket, "special file"),
    ],
)
async def test_links_and_special_files_are_left_out_and_refused(
    root: Path, make: Callable[[Path], str], reason: str
) -> None:
    file_id = make(root)
    source = LocalDirectory(root)
    page = await source.list()
    assert len(page.entries) == 3
    assert page.left_out == {reason: 1}
    with anyio.fail_after(5):  # a pipe that nobody writes to would wait
        for ask in (source.stat(file_id), read(source, file_id)):
            with pytest.raises((EntryRefused, EntryNotFound)):
                await ask


async def test_a_folder_that_becomes_a_link_between_two_calls_gives_nothing(root: Path) -> None:
    source = LocalDirectory(root)
    page = await source.list(limit=2)
    (root / "papers").rename(root / "moved")
    (root / "papers").symlink_to("../outside")
    with pytest.raises(EntryNotFound):
        await read(source, "papers/b.pdf")
    with pytest.raises(EntryNotFound):
        await source.list(under="papers")
    after = await source.list(cursor=page.cursor)
    assert after.entries == ()
    assert after.left_out == {"link": 1}


async def test_whoever_swaps_a_folder_for_a_link_while_it_is_read_gains_nothing(root: Path) -> None:
    (root / "papers" / "secret.txt").write_text("harmless")
    (root / "link").symlink_to("../outside")
    source = LocalDirectory(root)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            (root / "papers").rename(root / "away")
            (root / "link").rename(root / "papers")
            (root / "papers").rename(root / "link")
            (root / "away").rename(root / "papers")

    thread = threading.Thread(target=swap)
    thread.start()
    seen: Counter[bytes] = Counter()
    try:
        with anyio.move_on_after(20):
            while seen[b"harmless"] < 50 or seen[b""] < 50:
                try:
                    seen[await read(source, "papers/secret.txt")] += 1
                except (EntryNotFound, EntryRefused):
                    seen[b""] += 1
    finally:
        stop.set()
        thread.join()
    assert seen[b"harmless"] >= 50
    assert seen[b""] >= 50, "the link was met"
    assert set(seen) == {b"harmless", b""}


async def test_a_link_in_the_path_of_the_directory_itself_is_refused_and_the_root_may_be_one(
    root: Path, tmp_path: Path
) -> None:
    (root / "link").symlink_to("../outside")
    with pytest.raises(SourceRefused):
        await LocalDirectory(root, ("link",)).check()
    with pytest.raises(SourceRefused):
        await LocalDirectory(root, ("papers", "missing")).list()
    (tmp_path / "by-link").symlink_to(root)
    assert await ids(LocalDirectory(tmp_path / "by-link", ("papers",))) == ["b.pdf", "old/c.txt"]


async def test_hidden_files_are_read_only_by_a_connection_that_says_so(root: Path) -> None:
    (root / ".env").write_text("TOKEN=hunter2")
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text("[core]")
    page = await LocalDirectory(root).list()
    assert len(page.entries) == 3
    assert page.left_out == {"hidden": 2}
    for file_id in (".env", ".git/config", "papers/.x"):
        with pytest.raises(EntryRefused):
            await read(LocalDirectory(root), file_id)
    assert await read(LocalDirectory(root, hidden=True), ".env") == b"TOKEN=hunter2"
    assert (await ids(LocalDirectory(root, hidden=True)))[:2] == [".env", ".git/config"]


async def test_a_name_that_is_not_text_is_left_out(root: Path) -> None:
    (Path(os.fsdecode(os.fsencode(root) + b"/\xff.txt"))).write_text("x")
    page = await LocalDirectory(root).list()
    assert len(page.entries) == 3
    assert page.left_out == {"name that is not UTF-8": 1}


async def test_a_file_larger_than_wanted_is_refused_also_when_it_grows_while_it_is_read(root: Path) -> None:
    big = root / "big.bin"
    big.write_bytes(b"x" * 1_000_000)
    source = LocalDirectory(root)
    with pytest.raises(EntryTooLarge):
        await read(source, "big.bin", 999_999)
    assert len(await read(source, "big.bin", 1_000_000)) == 1_000_000
    received = 0
    with pytest.raises(EntryTooLarge):
        async with source.open("big.bin", bytes_max=1_000_000) as pieces:
            with big.open("ab") as file:
                file.write(b"y")
            async for piece in pieces:
                received += len(piece)
    assert received <= 1_000_000


@pytest.mark.parametrize("limit", [1, 2, 7, 1000])
async def test_pages_of_any_size_have_every_file_once_in_order(tmp_path: Path, limit: int) -> None:
    expected = []
    for folder in ("", "a/", "a/c/", "a.b/", "ä/", "z/z/z/"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for name in ("a0.txt", "a.txt", "b", "~"):
            (tmp_path / folder / name).write_text("x")
            expected.append(f"{folder}{name}")
    source = LocalDirectory(tmp_path)
    found: list[str] = []
    cursor = None
    while True:
        page = await source.list(cursor=cursor, limit=limit)
        assert len(page.entries) <= limit
        found += [entry.id for entry in page.entries]
        cursor = page.cursor
        if cursor is None:
            break
    assert found == sorted(expected, key=lambda name: name.split("/"))


async def test_a_page_ends_early_when_it_walked_enough_and_the_next_goes_on(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number:02}" / "sub").mkdir(parents=True)
    (tmp_path / "29" / "sub" / "last.txt").write_text("x")
    source = LocalDirectory(tmp_path, limits=DirectoryLimits(depth_max=4, folders_per_page=7))
    first = await source.list()
    assert first.entries == ()
    assert first.cursor is not None
    assert await ids(source) == ["29/sub/last.txt"]


async def test_what_breaks_a_limit_is_left_out_or_said(root: Path) -> None:
    limits = DirectoryLimits(depth_max=2, folders_per_page=5, names_max=3)
    source = LocalDirectory(root, limits=limits)
    page = await source.list()
    assert [entry.id for entry in page.entries] == ["a.md", "papers/b.pdf"]
    assert page.left_out == {"too deep": 1}
    with pytest.raises(EntryRefused):
        await source.stat("papers/old/c.txt")
    for name in "xyz":
        (root / name).write_text("x")
    with pytest.raises(SourceUnreadable, match="more than 3 names"):
        await source.list()
    with pytest.raises(TooManyFiles):
        await ids(LocalDirectory(root), files_max=5)


@pytest.mark.parametrize("cursor", ["", "x", "!", "WzFd", "eyJhIjoxfQ", "W" * 20_000, "ä"])
async def test_a_cursor_that_was_not_given_out_is_refused(root: Path, cursor: str) -> None:
    with pytest.raises(InvalidCursor):
        await LocalDirectory(root).list(cursor=cursor)


@pytest.mark.parametrize(
    ("path", "root", "rest"),
    [
        ("/data", "/data", ()),
        ("/data/", "/data", ()),
        ("/data/./a/b", "/data", ("a", "b")),
        ("/srv/files/x", "/srv/files", ("x",)),
    ],
)
def test_a_path_is_below_one_of_the_roots(path: str, root: str, rest: tuple[str, ...]) -> None:
    assert below_root(path, [Path("/data"), Path("/srv/files")]) == (Path(root), rest)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "data",
        "./data",
        "/",
        "/dat",
        "/database",
        "/data/../etc",
        "/data/..",
        "/srv",
        "//data",
        "/data\0/x",
        "~",
    ],
)
def test_any_other_path_is_refused(path: str) -> None:
    with pytest.raises(DirectoryRefused):
        below_root(path, [Path("/data"), Path("/srv/files")])
