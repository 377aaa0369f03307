"""Documents on the web as a source of files: each URL of the connection is one.

The query of a URL may be what opens it, and ids are seen by many; so an id is the URL with its query replaced
by a few digits that tell one query from another.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from pharos_sources import cursors
from pharos_sources.hosts import AllowedHosts
from pharos_sources.source import (
    Entry,
    EntryNotFound,
    EntryRefused,
    EntryTooLarge,
    InvalidCursor,
    Page,
    SourceError,
    SourceRefused,
    SourceUnavailable,
    clamped,
)
from pharos_sources.streaming import bounded
from pharos_sources.web_address import InvalidWebAddress, WebAddress, parse_web_address
from pharos_sources.web_content import file_name
from pharos_sources.web_errors import (
    AnswerTooLarge,
    AnswerUnreadable,
    HTTPError,
    WebError,
    WebHostUnreachable,
    WebTimedOut,
)

if TYPE_CHECKING:  # whoever only reads addresses needs no HTTP client
    from pharos_sources.fetching import DocumentFetcher, WebDocument

URLS_MAX: Final = 10_000
_QUERY_DIGITS: Final = 16
_MISSING: Final = frozenset({401, 403, 404, 410, 451})


def entry_id(address: WebAddress) -> str:
    """What the document at *address* is called: its URL, the query of which is not shown. Pure."""
    shown = f"{address.scheme}://{address.authority}{address.path}"
    _, mark, query = address.target.partition("?")
    return f"{shown}?{sha256(query.encode()).hexdigest()[:_QUERY_DIGITS]}" if mark else shown


def addresses_of(urls: Sequence[str], *, allowed_hosts: AllowedHosts) -> Mapping[str, WebAddress]:
    """The addresses of a connection by id, in order. Pure. Raises `SourceRefused` naming what is wrong."""
    if not urls:
        raise SourceRefused("it has no URL")
    if len(urls) > URLS_MAX:
        raise SourceRefused(f"it has more than {URLS_MAX} URLs")
    found: dict[str, WebAddress] = {}
    for number, url in enumerate(urls, 1):
        try:
            address = parse_web_address(url, allowed_hosts=allowed_hosts)
        except InvalidWebAddress as invalid:
            raise SourceRefused(f"URL {number} is refused, {invalid.reason}") from None
        found.setdefault(entry_id(address), address)
    return found


class HttpSource:
    """The documents at *addresses*, which `addresses_of` made."""

    def __init__(self, addresses: Mapping[str, WebAddress], fetcher: DocumentFetcher) -> None:
        self._addresses = addresses
        self._fetcher = fetcher

    async def list(self, *, under: str | None = None, cursor: str | None = None, limit: int = 200) -> Page:
        if under is not None:
            raise EntryNotFound(under)  # there are no folders
        start = 0 if cursor is None else cursors.decode(cursor, int)
        if not 0 <= start <= len(self._addresses):
            raise InvalidCursor
        end = start + clamped(limit)
        ids = list(self._addresses)[start:end]
        return Page(
            entries=tuple(Entry(id=each, name=_name(self._addresses[each])) for each in ids),
            cursor=cursors.encode(end) if end < len(self._addresses) else None,
        )

    async def stat(self, file_id: str) -> Entry:
        address = self._address(file_id)
        with _explained(file_id):
            document = await self._fetcher.describe(address)
        return _entry(file_id, document)

    @asynccontextmanager
    async def open(self, file_id: str, *, bytes_max: int) -> AsyncIterator[AsyncIterator[bytes]]:
        address = self._address(file_id)
        bytes_max = min(bytes_max, self._fetcher.limits.bytes_max)
        with _explained(file_id, bytes_max):
            async with self._fetcher.open(address) as (document, pieces):
                if document.size_bytes is not None and document.size_bytes > bytes_max:
                    raise EntryTooLarge(file_id, bytes_max)
                yield bounded(_arriving(pieces, file_id, bytes_max), file_id, bytes_max)

    async def check(self) -> None:
        """The first document says what all of them need: that hosts can be reached from here."""
        await self.stat(next(iter(self._addresses)))

    def _address(self, file_id: str) -> WebAddress:
        try:
            return self._addresses[file_id]
        except KeyError:
            raise EntryNotFound(file_id) from None


async def _arriving(pieces: AsyncIterator[bytes], file_id: str, bytes_max: int) -> AsyncIterator[bytes]:
    with _explained(file_id, bytes_max):
        async for piece in pieces:
            yield piece


def _name(address: WebAddress) -> str:
    return file_name(unquote(address.path)) or address.host


def _entry(file_id: str, document: WebDocument) -> Entry:
    identity = None
    if document.etag is not None:
        identity = f"etag:{document.etag}"
    elif document.modified is not None:
        identity = f"modified:{document.modified}"
    return Entry(
        id=file_id,
        name=document.content.name or document.address.host,
        size=document.size_bytes,
        modified=_time(document.modified),
        content_type=document.content.media_type,
        identity=identity,
    )


def _time(text: str | None) -> datetime | None:
    try:
        found = None if text is None else parsedate_to_datetime(text)
        return found and (found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC))
    except (ValueError, OverflowError):
        return None


@contextmanager
def _explained(file_id: str, bytes_max: int = 0) -> Iterator[None]:
    """What the web says of *file_id*, as a `SourceError`."""
    try:
        yield
    except SourceError:
        raise
    except AnswerTooLarge:
        raise EntryTooLarge(file_id, bytes_max) from None
    except HTTPError as failed:
        if failed.status in _MISSING:
            raise EntryNotFound(file_id) from None
        if failed.transient:
            raise SourceUnavailable(str(failed)) from None
        raise EntryRefused(file_id, str(failed)) from None
    except (WebHostUnreachable, WebTimedOut, AnswerUnreadable) as failed:
        if failed.transient:
            raise SourceUnavailable(str(failed)) from None
        raise EntryRefused(file_id, str(failed)) from None
    except WebError as failed:
        raise EntryRefused(file_id, str(failed)) from None
