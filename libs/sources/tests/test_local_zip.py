"""Members of archives, honest ones and others."""

from __future__ import annotations

import io
import os
import random
import struct
import tracemalloc
import zipfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from pharos_sources.local_zip import LocalZip, ZipLimits
from pharos_sources.source import (
    EntryNotFound,
    EntryRefused,
    EntryTooLarge,
    InvalidCursor,
    Source,
    SourceUnavailable,
    SourceUnreadable,
    every_file,
)

pytestmark = pytest.mark.anyio

MEBIBYTE = 1024 * 1024


def packed(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def with_flag(archive: bytes, flag: int) -> bytes:
    """The archive with *flag* set in every header, as a program sets it that encrypts."""
    return patched(archive, local={6: struct.pack("<H", flag)}, central={8: struct.pack("<H", flag)})


def patched(archive: bytes, *, local: dict[int, bytes] = {}, central: dict[int, bytes] = {}) -> bytes:
    """The archive with bytes replaced at offsets of its first local header and first directory entry."""
    data = bytearray(archive)
    for signature, changes in ((b"PK\x03\x04", local), (b"PK\x01\x02", central)):
        start = data.index(signature)
        for offset, value in changes.items():
            data[start + offset : start + offset + len(value)] = value
    return bytes(data)


@asynccontextmanager
async def opened(tmp_path: Path, archive: bytes, limits: ZipLimits | None = None) -> AsyncIterator[LocalZip]:
    path = tmp_path / "archive.zip"
    path.write_bytes(archive)
    source = LocalZip(path, limits=limits)
    try:
        yield source
    finally:
        await source.close()


async def read(source: Source, file_id: str, bytes_max: int = 100_000_000) -> bytes:
    async with source.open(file_id, bytes_max=bytes_max) as pieces:
        return b"".join([piece async for piece in pieces])


async def test_members_are_listed_and_told_of_and_read_by_their_names(tmp_path: Path) -> None:
    content = {"paper1.pdf": b"%PDF-1", "b/notes.md": b"# Notes", "b/c/d.txt": b"deep", "b/": b""}
    async with opened(tmp_path, packed(content)) as source:
        assert isinstance(source, Source)
        await source.check()
        assert [entry.id async for entry in every_file(source, files_max=9)] == [
            "b/c/d.txt",
            "b/notes.md",
            "paper1.pdf",
        ]
        page = await source.list(under="b")
        assert [(each.id, each.name, each.size) for each in page.entries] == [
            ("b/c/d.txt", "c/d.txt", 4),
            ("b/notes.md", "notes.md", 7),
        ]
        assert (await source.stat("b/")).folder
        assert (await source.stat("b/c")).folder
        told = await source.stat("paper1.pdf")
        assert (told.size, told.content_type, told.modified) == (6, "application/pdf", told.modified)
        assert told.identity == f"crc32:{zipfile.crc32(b'%PDF-1'):08x}-6"
        for name in ("paper1.pdf", "b/notes.md", "b/c/d.txt"):
            assert await read(source, name) == content[name]
        for file_id in ("", "paper2.pdf", "PAPER1.PDF", "/paper1.pdf", "b/../paper1.pdf"):
            with pytest.raises(EntryNotFound):
                await read(source, file_id)
        with pytest.raises(EntryNotFound):
            await source.list(under="paper1.pdf")


@pytest.mark.parametrize("limit", [1, 3, 1000])
async def test_pages_have_every_member_once_and_count_each_that_is_left_out_once(
    tmp_path: Path, limit: int
) -> None:
    names = {f"{folder}{number}.txt": b"x" for folder in ("", "a/", "b/") for number in range(4)}
    async with opened(tmp_path, packed(names | {"a/1.zip": b"", "b/9.zip": b"", "zz/../x": b""})) as source:
        found, left_out, cursor = [], 0, None
        while True:
            page = await source.list(cursor=cursor, limit=limit)
            assert len(page.entries) <= limit
            found += [entry.id for entry in page.entries]
            left_out += sum(page.left_out.values())
            cursor = page.cursor
            if cursor is None:
                break
        assert found == sorted(names)
        assert left_out == 3
        with pytest.raises(InvalidCursor):
            await source.list(cursor="***")


async def test_deep_folders_cost_no_memory_of_their_own(tmp_path: Path) -> None:
    """Of each member there may be thirty."""
    deep = "/".join(["folder"] * 30)
    archive = packed({f"{number:04}/{deep}/f.txt": b"" for number in range(2_000)}, zipfile.ZIP_STORED)
    async with opened(tmp_path, archive) as source:
        tracemalloc.start()
        try:
            await source.check()
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert held < 2_000 * 2_000
        assert (await source.stat(f"0001/{deep[:20]}")).folder
        for folder in ("0001", f"0001/{deep}"):
            assert len((await source.list(under=folder)).entries) == 1
        for nowhere in ("000", "0001/f", f"0001/{deep}/f.txt", "a", "/", ""):
            with pytest.raises(EntryNotFound):
                await source.list(under=nowhere)


async def test_several_members_are_read_at_once(tmp_path: Path) -> None:
    content = {f"{number}.bin": random.Random(number).randbytes(600_000) for number in range(4)}
    found: dict[str, bytes] = {}
    async with opened(tmp_path, packed(content)) as source:

        async def keep(name: str) -> None:
            found[name] = await read(source, name)

        async with anyio.create_task_group() as group:
            for name in content:
                group.start_soon(keep, name)
    assert found == content


@pytest.mark.parametrize(
    ("archive", "name", "reason", "sentence"),
    [
        (with_flag(packed({"x.pdf": b"x"}), 0x1), "x.pdf", "encrypted", "it is encrypted"),
        (with_flag(packed({"x.pdf": b"x"}), 0x41), "x.pdf", "encrypted", "it is encrypted"),
        (packed({"in/y.zip": b"x"}), "in/y.zip", "nested archive", "archive inside the archive"),
        (packed({"y.TAR.GZ": b"x"}), "y.TAR.GZ", "nested archive", "archive inside the archive"),
        (packed({"../x": b"x"}), "../x", "unsafe name", "not a plain path"),
        (packed({"a/../../x": b"x"}), "a/../../x", "unsafe name", "not a plain path"),
        (packed({"/etc/x": b"x"}), "/etc/x", "unsafe name", "not a plain path"),
        (packed({"a//x": b"x"}), "a//x", "unsafe name", "not a plain path"),
        (packed({"C:x": b"x"}), "C:x", "unsafe name", "not a plain path"),
        (packed({"a\\..\\x": b"x"}), "a\\..\\x", "unsafe name", "not a plain path"),
        (packed({"a\nx": b"x"}), "a\nx", "unsafe name", "not a plain path"),
        (packed({"n" * 2000: b"x"}), "n" * 2000, "unsafe name", "not a plain path"),
        (packed({"d/" * 40 + "x": b"x"}), "d/" * 40 + "x", "too deep", "more than 32 folders deep"),
        (packed({"__MACOSX/._x.pdf": b"x"}), "__MACOSX/._x.pdf", "resource fork", "macOS"),
        (packed({"x": b"x"}, zipfile.ZIP_BZIP2), "x", "compression", "pack the archive with deflate"),
        (packed({"x": b"x"}, zipfile.ZIP_LZMA), "x", "compression", "pack the archive with deflate"),
        (packed({"x": bytes(20 * MEBIBYTE)}), "x", "compression ratio", "more than 200-fold"),
        (
            patched(packed({"x": b"../secret"}), central={38: struct.pack("<L", 0o120777 << 16)}),
            "x",
            "link",
            "symbolic link",
        ),
        (
            patched(packed({"x": b""}), central={38: struct.pack("<L", 0o020666 << 16)}),
            "x",
            "special file",
            "no ordinary file",
        ),
        (patched(packed({"x.txt": b"x"}), central={46: b"x\0txt"}), "x", "unsafe name", "not a plain path"),
    ],
)  # fmt: skip
async def test_what_is_not_read_is_left_out_and_refused_by_name(
    tmp_path: Path, archive: bytes, name: str, reason: str, sentence: str
) -> None:
    async with opened(tmp_path, archive) as source:
        page = await source.list()
        assert (page.entries, page.left_out) == ((), {reason: 1})
        for ask in (source.stat(name), read(source, name)):
            with pytest.raises(EntryRefused, match=sentence) as refused:
                await ask
            assert not refused.value.transient
            assert "\n" not in str(refused.value)
            assert len(str(refused.value)) < 400


async def test_one_refused_member_does_not_hide_the_others(tmp_path: Path) -> None:
    async with opened(tmp_path, with_flag(packed({"locked.pdf": b"x", "open.txt": b"read me"}), 1)) as source:
        assert [entry.id for entry in (await source.list()).entries] == ["open.txt"]
        assert await read(source, "open.txt") == b"read me"


@pytest.mark.filterwarnings("ignore:Duplicate name")
async def test_two_members_of_one_name_are_refused_both(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x.txt", "first")
        archive.writestr("x.txt", "second")
        archive.writestr("y.txt", "other")
    async with opened(tmp_path, buffer.getvalue()) as source:
        assert [entry.id for entry in (await source.list()).entries] == ["y.txt"]
        with pytest.raises(EntryRefused, match="more than one of that name"):
            await read(source, "x.txt")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.txt", packed({"y": b"x"})),
        ("notes.docx.txt", packed({})),
        ("notes.txt", b"\x1f\x8b\x08" + b"\0" * 20),
        ("notes.docx", b"7z\xbc\xaf\x27\x1c" + b"\0" * 20),
        ("notes", b"BZh91AY&SY" + b"\0" * 20),
        ("notes", bytes(257) + b"ustar\0" + bytes(300)),
        ("notes.md", b"Rar!\x1a\x07\x01\0"),
    ],
)
async def test_an_archive_by_another_name_is_refused_by_its_first_bytes(
    tmp_path: Path, name: str, content: bytes
) -> None:
    async with opened(tmp_path, packed({name: content})) as source:
        with pytest.raises(EntryRefused, match="archive inside the archive"):
            await read(source, name)


async def test_documents_that_are_archives_inside_are_documents(tmp_path: Path) -> None:
    document = packed({"word/document.xml": b"<w/>"})
    members = {"a.docx": document, "b.XLSX": document, "c.txt": b"BZhello, this is text"}
    async with opened(tmp_path, packed(members)) as source:
        for name, content in members.items():
            assert await read(source, name) == content


CONTENT = b"forty-two bytes of text that deflate well." * 50


def smaller(archive: bytes) -> bytes:
    """Both places declare fewer bytes than there are."""
    size = struct.pack("<L", 10)
    return patched(archive, local={22: size}, central={24: size})


def larger(archive: bytes) -> bytes:
    size = struct.pack("<L", len(CONTENT) + 10)
    return patched(archive, local={22: size}, central={24: size})


def another_size_in_the_header(archive: bytes) -> bytes:
    return patched(archive, local={22: struct.pack("<L", 5)})


def another_packed_size_in_the_header(archive: bytes) -> bytes:
    return patched(archive, local={18: struct.pack("<L", 5)})


def another_checksum_in_the_header(archive: bytes) -> bytes:
    return patched(archive, local={14: struct.pack("<L", 5)})


def another_method_in_the_header(archive: bytes) -> bytes:
    return patched(archive, local={8: struct.pack("<H", 0)})


def another_name_in_the_header(archive: bytes) -> bytes:
    return patched(archive, local={30: b"y.txt"})


def encrypted_in_the_header_only(archive: bytes) -> bytes:
    return patched(archive, local={6: struct.pack("<H", 1)})


def no_header(archive: bytes) -> bytes:
    return patched(archive, local={0: b"XXXX"})


def wrong_checksum(archive: bytes) -> bytes:
    crc = struct.pack("<L", 0xDEAD)
    return patched(archive, local={14: crc}, central={16: crc})


def broken_data(archive: bytes) -> bytes:
    return patched(archive, local={36: b"\xff\xff\xff\xff"})


def fewer_packed_bytes(archive: bytes) -> bytes:
    size = struct.pack("<L", 12)
    return patched(archive, local={18: size}, central={20: size})


@pytest.mark.parametrize(
    "lie",
    [
        smaller,
        larger,
        another_size_in_the_header,
        another_packed_size_in_the_header,
        another_checksum_in_the_header,
        another_method_in_the_header,
        another_name_in_the_header,
        encrypted_in_the_header_only,
        no_header,
        wrong_checksum,
        broken_data,
        fewer_packed_bytes,
    ],
)
async def test_a_member_that_is_not_what_the_archive_says_is_refused(
    tmp_path: Path, lie: Callable[[bytes], bytes]
) -> None:
    honest = packed({"x.txt": CONTENT})
    async with opened(tmp_path, honest) as source:
        assert await read(source, "x.txt") == CONTENT
    async with opened(tmp_path, lie(honest)) as source:
        with pytest.raises(EntryRefused):
            await read(source, "x.txt")


async def test_sizes_that_follow_the_data_are_taken_from_the_directory(tmp_path: Path) -> None:
    class Unseekable(io.RawIOBase):
        def __init__(self) -> None:
            self.data = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, data: bytes) -> int:  # type: ignore[override]
            self.data += data
            return len(data)

    stream = Unseekable()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.txt", CONTENT)
    assert stream.data[6] & 0x8, "the archive has its sizes behind the data"
    async with opened(tmp_path, bytes(stream.data)) as source:
        assert await read(source, "x.txt") == CONTENT


async def test_a_member_with_zip64_sizes_is_read(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, archive.open("x.txt", "w", force_zip64=True) as file:
        file.write(CONTENT)
    async with opened(tmp_path, buffer.getvalue()) as source:
        assert await read(source, "x.txt") == CONTENT


async def test_a_declared_size_above_the_limit_is_refused_before_a_byte_is_read(tmp_path: Path) -> None:
    async with opened(tmp_path, packed({"x.txt": CONTENT})) as source:
        with pytest.raises(EntryTooLarge):
            await read(source, "x.txt", len(CONTENT) - 1)
        assert await read(source, "x.txt", len(CONTENT)) == CONTENT
    async with opened(tmp_path, packed({"x.txt": CONTENT}), ZipLimits(member_bytes_max=100)) as source:
        with pytest.raises(EntryTooLarge):
            await read(source, "x.txt")


def overlapping() -> bytes:
    """Two entries of the directory that share their data, as in D. Fifield's zip bombs."""
    data = packed({"a": CONTENT, "b": CONTENT}, zipfile.ZIP_STORED)
    second = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 4)
    return data[: second + 42] + struct.pack("<L", 0) + data[second + 46 :]


def endless_directory() -> bytes:
    """The record at the end says that the directory is larger than anybody wants to read."""
    data = bytearray(packed({"a": b"x"}))
    end = data.rindex(b"PK\x05\x06")
    filler = bytes(5 * MEBIBYTE)
    size, offset = struct.unpack("<LL", data[end + 12 : end + 20])
    data[end + 12 : end + 16] = struct.pack("<L", size + len(filler))
    return bytes(data[:offset] + filler + data[offset:])


@pytest.mark.parametrize(
    ("archive", "limits", "sentence"),
    [
        (b"", None, "not a zip archive"),
        (b"%PDF-1.7", None, "not a zip archive"),
        (packed({"a": CONTENT})[:-40], None, "not a zip archive"),
        (patched(packed({"a": b"x"}), central={0: b"XXXX"}), None, "not a zip archive"),
        (packed({str(number): b"" for number in range(6)}), ZipLimits(members_max=5), "more than 5 members"),
        (packed({"a": bytes(60), "b": bytes(60)}), ZipLimits(bytes_max=100), "more than 100 bytes together"),
        (overlapping(), None, "overlap"),
        (endless_directory(), None, "too many members"),
    ],
)
async def test_an_archive_that_is_broken_or_beyond_a_limit_is_refused_whole(
    tmp_path: Path, archive: bytes, limits: ZipLimits | None, sentence: str
) -> None:
    async with opened(tmp_path, archive, limits) as source:
        for ask in (source.check(), source.list(), source.stat("a"), read(source, "a")):
            with pytest.raises(SourceUnreadable, match=sentence):
                await ask


async def test_an_archive_that_is_not_there_may_be_there_later(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable) as missing:
        await LocalZip(tmp_path / "archive.zip").check()
    assert str(tmp_path) not in str(missing.value)


async def test_random_damage_is_always_told_of_as_an_error_of_the_source(tmp_path: Path) -> None:
    chance = random.Random(7)
    honest = packed({"a.txt": CONTENT, "b/c.txt": CONTENT[::-1], "d.txt": b""})
    refused = 0
    for _ in range(300):
        data = bytearray(honest)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if chance.random() < 0.2:
            del data[chance.randrange(len(data)) :]
        async with opened(tmp_path, bytes(data)) as source:
            try:
                for entry in (await source.list()).entries:
                    await read(source, entry.id, MEBIBYTE)
            except (SourceUnreadable, EntryRefused, EntryTooLarge):
                refused += 1
    assert refused > 100


async def test_a_long_member_is_streamed_in_pieces(tmp_path: Path) -> None:
    content = os.urandom(3 * MEBIBYTE)
    async with (
        opened(tmp_path, packed({"x.bin": content})) as source,
        source.open("x.bin", bytes_max=4 * MEBIBYTE) as stream,
    ):
        pieces = [piece async for piece in stream]
    assert b"".join(pieces) == content
    assert max(map(len, pieces)) <= 256 * 1024
