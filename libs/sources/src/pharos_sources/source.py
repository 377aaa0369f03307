"""What every source of files can do, whatever it is: list, tell of a file, stream it, say whether it works.

A file is known by its id, which the source chose and which stays valid while the file does. Its name is for
people and parsers; no path on disk is ever made of either.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from hashlib import sha256
from typing import Final, Protocol, runtime_checkable

import msgspec
from msgspec.structs import force_setattr

__all__ = [
    "Entry",
    "EntryNotFound",
    "EntryRefused",
    "EntryTooLarge",
    "InvalidCursor",
    "Page",
    "Source",
    "SourceError",
    "SourceRefused",
    "SourceUnavailable",
    "SourceUnreadable",
    "TooManyFiles",
    "every_file",
    "shown",
]

LIST_MAX: Final = 1_000
ID_LENGTH_MAX: Final = 4_096
NAME_LENGTH_MAX: Final = 1_024
CONTENT_TYPE_LENGTH_MAX: Final = 255
IDENTITY_LENGTH_MAX: Final = 255
SIZE_MAX: Final = 2**63 - 1
_SHOWN_LENGTH_MAX: Final = 200


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a source, or a folder, which has no bytes and can be listed by its id.

    `name` is the path below what was listed, its parts joined by `/`, as far as it is known. `size` is in
    bytes; None where the source does not know it before the last one. `identity` changes when the content
    does, and says how it was found: `md5:…`, `etag:…`, `git:…`; None where the source knows nothing of the
    kind. Equal identities of one id mean that there is nothing new to read.

    What a server says at greater length than anybody needs is cut here, since thousands of entries are held
    at once: of a name the end stays, which has the ending, and of an identity its SHA-256.
    """

    id: str
    name: str
    size: int | None = None
    modified: datetime | None = None
    content_type: str | None = None
    identity: str | None = None
    folder: bool = False

    def __post_init__(self) -> None:
        if len(self.name) > NAME_LENGTH_MAX:
            force_setattr(self, "name", self.name[-NAME_LENGTH_MAX:])
        if self.size is not None and not 0 <= self.size <= SIZE_MAX:
            force_setattr(self, "size", None)
        if self.content_type is not None and len(self.content_type) > CONTENT_TYPE_LENGTH_MAX:
            force_setattr(self, "content_type", None)
        if self.identity is not None and len(self.identity) > IDENTITY_LENGTH_MAX:
            digest = sha256(self.identity.encode(errors="surrogatepass")).hexdigest()
            force_setattr(self, "identity", f"sha256:{digest}")


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Some files of a listing, never folders, and where it goes on: None at its end.

    A page may have fewer files than were asked for, even none, while there are more to come: what one call
    may cost is bounded. `left_out` counts by reason what was passed over.
    """

    entries: tuple[Entry, ...]
    cursor: str | None = None
    left_out: Mapping[str, int] = {}


@runtime_checkable
class Source(Protocol):
    """Somewhere that files are. Every method raises `SourceError`."""

    async def list(self, *, under: str | None = None, cursor: str | None = None, limit: int = 200) -> Page:
        """The next files, of all folders below the folder *under* (an id), or of the whole source.

        *limit* is from 1 to `LIST_MAX`; *cursor* is that of the page before, else `InvalidCursor`.
        """
        ...

    async def stat(self, file_id: str) -> Entry:
        """What is known of one file or folder. Raises `EntryNotFound` and `EntryRefused`."""
        ...

    def open(self, file_id: str, *, bytes_max: int) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The bytes of a file, piece by piece, while the block lasts.

        Raises `EntryTooLarge` as soon as there are more than *bytes_max*, whatever was declared; a stream
        that ends without an error was complete.
        """
        ...

    async def check(self) -> None:
        """Returns when the source can be listed now; raises what is wrong with it."""
        ...


class SourceError(Exception):
    """Base of the errors below: one sentence each, fit for a user, without secrets or paths of this machine.

    `transient` says whether trying again may help.
    """

    transient: bool = False


class EntryNotFound(SourceError):
    """The source has no such file, or does not show it to this connection."""

    def __init__(self, file_id: str) -> None:
        super().__init__(
            f"There is no file {shown(file_id)} in this source, or the connection may not see it"
        )
        self.file_id = file_id


class EntryRefused(SourceError):
    """The file is there and is not read; `reason` is a clause."""

    def __init__(self, file_id: str, reason: str) -> None:
        super().__init__(f"{shown(file_id)} is refused: {reason}")
        self.file_id = file_id
        self.reason = reason


class EntryTooLarge(SourceError):
    """The file has more bytes than it may; `bytes_max` is how many."""

    def __init__(self, file_id: str, bytes_max: int) -> None:
        super().__init__(f"{shown(file_id)} is larger than {bytes_max} bytes")
        self.file_id = file_id
        self.bytes_max = bytes_max


class SourceRefused(SourceError):
    """The source does not accept the connection as it is configured; `reason` is a clause."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The source cannot be used: {reason}")
        self.reason = reason


class SourceUnreadable(SourceError):
    """What the source consists of is broken or breaks a limit; `reason` is a clause."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The source cannot be read: {reason}")
        self.reason = reason


class SourceUnavailable(SourceError):
    """It does not work now and may later; `retry_after_seconds` if the source said when."""

    transient = True

    def __init__(self, reason: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(f"The source is not available now: {reason}")
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds


class InvalidCursor(SourceError):
    """The cursor is not one that this source gave out for this listing."""

    def __init__(self) -> None:
        super().__init__("The cursor is not valid: list again from the beginning")


class TooManyFiles(SourceError):
    """A listing has more files than are wanted."""

    def __init__(self, files_max: int) -> None:
        super().__init__(f"There are more than {files_max} files: name a folder below, or fewer folders")
        self.files_max = files_max


async def every_file(
    source: Source, under: str | None = None, *, files_max: int, pages_max: int = 10_000
) -> AsyncIterator[Entry]:
    """Every file below *under*, page after page. Raises `TooManyFiles`, after *files_max* of them."""
    cursor, count = None, 0
    for _ in range(pages_max):
        page = await source.list(under=under, cursor=cursor, limit=LIST_MAX)
        for entry in page.entries:
            count += 1
            if count > files_max:
                raise TooManyFiles(files_max)
            yield entry
        cursor = page.cursor
        if cursor is None:
            return
    raise SourceUnreadable(f"its listing has more than {pages_max} pages")


def shown(file_id: str) -> str:
    """*file_id* as it may stand in a sentence: short, in one line, and nothing in it acts on a terminal."""
    text = "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in file_id
    )
    return text if len(text) <= _SHOWN_LENGTH_MAX else f"{text[:_SHOWN_LENGTH_MAX]}…"


def clamped(limit: int) -> int:
    """*limit* within what one page may hold."""
    return max(1, min(limit, LIST_MAX))
