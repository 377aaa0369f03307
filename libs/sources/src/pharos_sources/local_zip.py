"""Members of a zip archive that a stranger made, one at a time, never unpacked to disk.

What an archive says of itself is checked where that is possible and counted where it is not: its directory
against the headers beside the data, the bytes that come out against both. What a member is refused for is
said with its name.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO, Final

import anyio
from anyio import to_thread

from pharos_sources import content_types, cursors
from pharos_sources.source import (
    Entry,
    EntryNotFound,
    EntryRefused,
    EntryTooLarge,
    Page,
    SourceUnavailable,
    SourceUnreadable,
    clamped,
)
from pharos_sources.streaming import bounded, read_in_thread

_LOCAL_HEADER: Final = struct.Struct("<4s5H3L2H")  # APPNOTE 4.3.7
_LOCAL_SIGNATURE: Final = b"PK\x03\x04"
_ENCRYPTED: Final = 0x1 | 0x40 | 0x2000  # APPNOTE 4.4.4: traditional, strong, masked directory
_DESCRIPTOR: Final = 0x8  # sizes and checksum come after the data; the header has zeros
_IN_ZIP64: Final = 0xFFFFFFFF
_METHODS: Final = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_HARMLESS_BYTES: Final = 1024 * 1024  # so little may be as dense as it likes

_DUPLICATE: Final = ("duplicate", "the archive has more than one of that name")
_NESTED: Final = ("nested archive", "it is an archive inside the archive: upload it by itself")
_CONTRADICTION: Final = "the archive contradicts itself about it"

_ARCHIVE_ENDINGS: Final = frozenset(
    [
        ".zip",
        ".jar",
        ".war",
        ".ear",
        ".apk",
        ".whl",
        ".egg",
        ".nupkg",
        ".tar",
        ".tgz",
        ".tbz",
        ".tbz2",
        ".txz",
        ".tzst",
        ".gz",
        ".bz2",
        ".xz",
        ".lzma",
        ".lz4",
        ".zst",
        ".br",
        ".z",
        ".7z",
        ".rar",
        ".cab",
        ".arj",
        ".lzh",
        ".cpio",
        ".iso",
        ".dmg",
        ".rpm",
        ".deb",
    ]
)
_DOCUMENT_ENDINGS: Final = frozenset(  # documents that are zip archives inside, and are read as documents
    [
        ".docx",
        ".docm",
        ".dotx",
        ".xlsx",
        ".xlsm",
        ".xltx",
        ".pptx",
        ".pptm",
        ".potx",
        ".odt",
        ".ods",
        ".odp",
        ".epub",
    ]
)
_ZIP_MAGIC: Final = (b"PK\x03\x04", b"PK\x05\x06")
_ARCHIVE_MAGIC: Final = (
    b"\x1f\x8b\x08",
    b"\xfd7zXZ\x00",
    b"7z\xbc\xaf\x27\x1c",
    b"Rar!\x1a\x07",
    b"\x28\xb5\x2f\xfd",
    b"\x04\x22\x4d\x18",
    b"MSCF\x00\x00\x00\x00",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ZipLimits:
    """`directory_bytes_max` bounds what is read to learn the members; `ratio_max` what comes out per byte."""

    members_max: int = 20_000
    directory_bytes_max: int = 4 * 1024**2
    bytes_max: int = 10 * 1024**3
    member_bytes_max: int = 2 * 1024**3
    ratio_max: int = 200
    depth_max: int = 32
    name_length_max: int = 1_024

    def __post_init__(self) -> None:
        assert self.directory_bytes_max >= 1024**2, "members are read by the same calls, piece by piece"


class LocalZip:
    """The members of the archive at a path of this machine. Ids are their names; a folder's ends in `/`.

    The archive is opened once, at the first call, and belongs to the source until `close`.
    """

    def __init__(self, path: Path, *, limits: ZipLimits | None = None) -> None:
        self._path = path
        self._limits = limits or ZipLimits()
        self._opening = anyio.Lock()
        self._archive: _Archive | None = None

    async def close(self) -> None:
        if self._archive is not None:
            await to_thread.run_sync(self._archive.close)

    async def list(self, *, under: str | None = None, cursor: str | None = None, limit: int = 200) -> Page:
        archive = await self._opened()
        after = "" if cursor is None else cursors.decode(cursor, str)
        prefix = "" if under is None else f"{under.rstrip('/')}/"
        return archive.page(prefix, after, clamped(limit))

    async def stat(self, file_id: str) -> Entry:
        return (await self._opened()).stat(file_id)

    @asynccontextmanager
    async def open(self, file_id: str, *, bytes_max: int) -> AsyncIterator[AsyncIterator[bytes]]:
        archive = await self._opened()
        member = archive.member(file_id)
        bytes_max = min(bytes_max, self._limits.member_bytes_max)
        if member.file_size > bytes_max:
            raise EntryTooLarge(file_id, bytes_max)
        reading = await to_thread.run_sync(archive.reading, member)
        try:
            yield bounded(read_in_thread(reading.read), file_id, bytes_max)
        finally:
            reading.close()

    async def check(self) -> None:
        await self._opened()

    async def _opened(self) -> _Archive:
        async with self._opening:
            if self._archive is None:
                self._archive = await to_thread.run_sync(_Archive, self._path, self._limits)
            return self._archive


class _Archive:
    """An open archive, its members in the order of their names, and why some of them are not read."""

    def __init__(self, path: Path, limits: ZipLimits) -> None:
        try:
            self._file = _Frugal(path, limits.directory_bytes_max)
        except OSError:
            raise SourceUnavailable("the archive could not be opened") from None
        try:
            self._zip = _read_directory(self._file)
            members = self._zip.infolist()
            _check_whole(members, self._zip.start_dir, limits)
        except BaseException:
            self._file.close()
            raise
        times = Counter(member.filename for member in members)
        self._members: dict[str, zipfile.ZipInfo] = {}
        self._refused: dict[str, tuple[str, str]] = {}
        folders: list[str] = []
        for member in members:
            name = member.filename
            refusal = _refusal(member, limits) if times[name] == 1 else _DUPLICATE
            if refusal is not None:
                self._refused[name] = refusal
                continue
            if name.endswith("/"):
                folders.append(name)
            else:
                self._members[name] = member
        self._names = sorted([*self._members, *self._refused])
        # Members and folders that are not refused. The folders above them are not named: there may be thirty
        # to a member.
        self._known = sorted([*self._members, *folders])

    def close(self) -> None:
        self._zip.close()
        self._file.close()

    def page(self, prefix: str, after: str, limit: int) -> Page:
        if prefix and not self._is_folder(prefix):
            raise EntryNotFound(prefix)
        entries: list[Entry] = []
        left_out: Counter[str] = Counter()
        first = max(bisect_left(self._names, prefix), bisect_right(self._names, after))
        for position in range(first, len(self._names)):
            name = self._names[position]
            if not name.startswith(prefix):
                break
            if len(entries) == limit:
                before = cursors.encode(self._names[position - 1])
                return Page(entries=tuple(entries), cursor=before, left_out=dict(left_out))
            if name in self._refused:
                left_out[self._refused[name][0]] += 1
            else:
                entries.append(_entry(self._members[name], name.removeprefix(prefix)))
        return Page(entries=tuple(entries), left_out=dict(left_out))

    def stat(self, file_id: str) -> Entry:
        if self._is_folder(f"{file_id.rstrip('/')}/"):
            return Entry(id=file_id, name=file_id, folder=True)
        return _entry(self.member(file_id), file_id)

    def _is_folder(self, prefix: str) -> bool:
        """Whether something is below *prefix*, which ends in a slash, or is it."""
        place = bisect_left(self._known, prefix)
        return place < len(self._known) and self._known[place].startswith(prefix)

    def member(self, file_id: str) -> zipfile.ZipInfo:
        if file_id in self._refused:
            raise EntryRefused(file_id, self._refused[file_id][1])
        if file_id not in self._members:
            raise EntryNotFound(file_id)
        return self._members[file_id]

    def reading(self, member: zipfile.ZipInfo) -> _Reading:
        """The data of *member*, if the header before it says what the directory says."""
        header = self._file.read_at(member.header_offset, _LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size or not _agree(member, header):
            raise EntryRefused(member.filename, _CONTRADICTION)
        try:
            return _Reading(member, self._zip.open(member))
        except (zipfile.BadZipFile, RuntimeError, ValueError, OSError):
            raise EntryRefused(member.filename, _CONTRADICTION) from None


class _Reading:
    """The bytes of one member, which must be as many as were declared and no archive themselves."""

    def __init__(self, member: zipfile.ZipInfo, data: IO[bytes]) -> None:
        self._member = member
        self._data = data
        self._total = 0

    def read(self, size: int) -> bytes:
        name = self._member.filename
        try:
            piece = self._data.read(size)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError):
            raise EntryRefused(name, "its data are broken") from None
        if self._total == 0 and _is_archive(name, piece):
            raise EntryRefused(name, _NESTED[1])
        self._total += len(piece)
        if not piece and self._total != self._member.file_size:
            raise EntryRefused(name, "it is not as long as the archive says")
        return piece

    def close(self) -> None:
        self._data.close()


class _Frugal:
    """The archive's file. `zipfile` reads the directory by one call, as long as it says it is: not here."""

    def __init__(self, path: Path, bytes_max: int) -> None:
        self._file = path.open("rb")
        self._bytes_max = bytes_max
        self.seek = self._file.seek
        self.tell = self._file.tell
        self.seekable = self._file.seekable
        self.close = self._file.close

    def read(self, size: int = -1) -> bytes:
        if size > self._bytes_max:
            raise SourceUnreadable("it has too many members")
        return self._file.read(size if size >= 0 else self._bytes_max)

    def read_at(self, offset: int, size: int) -> bytes:
        """Beside the position that `zipfile` moves, so that several members can be read at once."""
        return os.pread(self._file.fileno(), size, offset)


def _read_directory(file: _Frugal) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except zipfile.BadZipFile:
        raise SourceUnreadable("it is not a zip archive, or it is not complete") from None
    except (NotImplementedError, ValueError, OverflowError, struct.error):
        raise SourceUnreadable("its directory is broken") from None
    except OSError:
        raise SourceUnavailable("the archive could not be read") from None


def _check_whole(members: Sequence[zipfile.ZipInfo], directory_at: int, limits: ZipLimits) -> None:
    """Raises `SourceUnreadable` for an archive of which nothing is to be read."""
    if len(members) > limits.members_max:
        raise SourceUnreadable(f"it has more than {limits.members_max} members")
    if sum(member.file_size for member in members) > limits.bytes_max:
        raise SourceUnreadable(f"its members have more than {limits.bytes_max} bytes together")
    # Members that share their data make a small archive endless.
    end = 0
    for member in sorted(members, key=lambda member: member.header_offset):
        if member.header_offset < end:
            raise SourceUnreadable("its members overlap")
        end = member.header_offset + _LOCAL_HEADER.size + member.compress_size
    if end > directory_at:
        raise SourceUnreadable("its members overlap")


def _refusal(member: zipfile.ZipInfo, limits: ZipLimits) -> tuple[str, str] | None:
    """Why *member* is not read, as a word to count by and a clause; None where it is."""
    name = member.filename
    parts = name.removesuffix("/").split("/")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if (
        name != member.orig_filename
        or "\\" in name
        or any(unicodedata.category(character) in {"Cc", "Cs"} for character in name)
        or len(name) > limits.name_length_max
        or re.match(r"[A-Za-z]:", name)
        or any(part in {"", ".", ".."} for part in parts)
    ):
        return "unsafe name", "its name is not a plain path inside the archive"
    if len(parts) > limits.depth_max:
        return "too deep", f"it is more than {limits.depth_max} folders deep"
    if kind == stat.S_IFLNK:
        return "link", "it is a symbolic link"
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        return "special file", "it is no ordinary file"
    if parts[0] == "__MACOSX":
        return "resource fork", "it only tells macOS about another file"
    if member.flag_bits & _ENCRYPTED:
        return "encrypted", "it is encrypted: pack the archive without a password"
    if member.compress_type not in _METHODS:
        return "compression", "its compression is not supported: pack the archive with deflate"
    if PurePosixPath(name).suffix.lower() in _ARCHIVE_ENDINGS and not name.endswith("/"):
        return _NESTED
    if member.file_size > max(_HARMLESS_BYTES, limits.ratio_max * member.compress_size):
        return "compression ratio", f"it grows more than {limits.ratio_max}-fold when it is decompressed"
    return None


def _agree(member: zipfile.ZipInfo, header: bytes) -> bool:
    """Whether the header before the data says what the directory says."""
    signature, _, flags, method, _, _, crc, packed, size, _, _ = _LOCAL_HEADER.unpack(header)
    if signature != _LOCAL_SIGNATURE or flags & _ENCRYPTED or method != member.compress_type:
        return False
    declared = ((crc, member.CRC), (packed, member.compress_size), (size, member.file_size))
    later = {0} if flags & _DESCRIPTOR else set()
    # In ZIP64 the sizes are in an extra field, which `zipfile` reads from the directory alone.
    return all(here in {there, _IN_ZIP64} | later for here, there in declared)


def _is_archive(name: str, start: bytes) -> bool:
    if start.startswith(_ZIP_MAGIC):
        return PurePosixPath(name).suffix.lower() not in _DOCUMENT_ENDINGS
    bzip2 = start.startswith(b"BZh") and start[4:10] == b"1AY&SY"
    return bzip2 or start.startswith(_ARCHIVE_MAGIC) or start[257:262] == b"ustar"


def _entry(member: zipfile.ZipInfo, name: str) -> Entry:
    try:
        modified = datetime(*member.date_time, tzinfo=UTC)  # the format knows no time zone
    except ValueError:
        modified = None
    return Entry(
        id=member.filename,
        name=name,
        size=member.file_size,
        modified=modified,
        content_type=content_types.of_name(name),
        identity=f"crc32:{member.CRC:08x}-{member.file_size}",
    )
