"""Fetching the document at a web address, as if its server wished us harm.

Redirects are followed by asking anew: each is judged like the first address, looked up again and connected to
under guard. What arrives is counted, whatever was declared, and written to a file piece by piece.
"""

from __future__ import annotations

import errno
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final

import anyio
import httpx

from pharos_sources.git_output import in_words
from pharos_sources.guard import Resolver, system_resolver
from pharos_sources.hosts import AllowedHosts
from pharos_sources.transport import TransportLimits, guarded_client, location_of
from pharos_sources.web_address import InvalidWebAddress, WebAddress, parse_redirect
from pharos_sources.web_content import Unreadable, WebContent, content_of
from pharos_sources.web_errors import (
    AnswerTooLarge,
    AnswerUnreadable,
    ContentRefused,
    HTTPError,
    NoRoom,
    RedirectRefused,
    WebTimedOut,
)

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_PARTIAL: Final = 206
_GONE: Final = frozenset({401, 404, 410, 451})
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_VERSION_LENGTH_MAX: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentLimits:
    """What one document may take. `seconds` is all of it, redirects included; `bytes_max` is decompressed."""

    seconds: float = 120.0
    idle_seconds: float = 20.0
    bytes_max: int = 100 * 1024**2
    redirects_max: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class WebDocument:
    """What the server says of a document.

    `address` is where the redirects led. `size_bytes` is what was declared, and after a fetch what arrived;
    None for unknown. `etag` and `modified` are the server's headers as they are, None where missing or odd.
    """

    address: WebAddress
    content: WebContent
    size_bytes: int | None
    etag: str | None
    modified: str | None


class DocumentFetcher:
    """Fetches documents from the hosts that *allowed* admits. An asynchronous context manager."""

    def __init__(
        self,
        allowed: AllowedHosts,
        *,
        resolver: Resolver = system_resolver,
        limits: DocumentLimits | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._allowed = allowed
        self.limits = limits or DocumentLimits()
        self._client = guarded_client(
            allowed,
            resolver=resolver,
            limits=TransportLimits(
                seconds=self.limits.seconds,
                idle_seconds=self.limits.idle_seconds,
                bytes_max=self.limits.bytes_max,
            ),
            tls=tls,
        )

    async def __aenter__(self) -> DocumentFetcher:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def fetch(self, address: WebAddress, into: Path) -> WebDocument:
        """Write the document to the new file *into*. Raises `WebError`; the file is removed if that fails."""
        size = 0
        with anyio.move_on_after(self.limits.seconds):
            async with self.open(address) as (document, pieces), _new_file(into) as file:
                async for piece in pieces:
                    await _write(file, piece)
                    size += len(piece)
            return replace(document, size_bytes=size)
        raise WebTimedOut(address.authority, self.limits.seconds)

    async def describe(self, address: WebAddress) -> WebDocument:
        """What the server says of the document, which is not transferred. Raises `WebError`."""
        with anyio.move_on_after(self.limits.seconds):
            try:
                async with self._following("HEAD", address) as (where, answer):
                    return _document(where, answer)
            except HTTPError as failed:
                if failed.status in _GONE:
                    raise
            async with self._following("GET", address) as (where, answer):  # some servers know no HEAD
                return _document(where, answer)
        raise WebTimedOut(address.authority, self.limits.seconds)

    @asynccontextmanager
    async def open(self, address: WebAddress) -> AsyncIterator[tuple[WebDocument, AsyncIterator[bytes]]]:
        """The document, and its bytes piece by piece while the block lasts. Raises `WebError`."""
        async with self._following("GET", address) as (where, answer):
            document = _document(where, answer)
            if document.size_bytes is not None and document.size_bytes > self.limits.bytes_max:
                raise AnswerTooLarge(where.authority, in_words(self.limits.bytes_max))
            yield document, answer.aiter_bytes()

    @asynccontextmanager
    async def _following(
        self, method: str, address: WebAddress
    ) -> AsyncIterator[tuple[WebAddress, httpx.Response]]:
        """The answer of success that *address* leads to, and where that was."""
        deadline = anyio.current_time() + self.limits.seconds
        for _ in range(1 + self.limits.redirects_max):
            if anyio.current_time() >= deadline:
                raise WebTimedOut(address.authority, self.limits.seconds)
            async with self._client.stream(method, address.url) as answer:
                if answer.status_code not in _REDIRECTS:
                    _check_status(address, answer.status_code)
                    yield address, answer
                    return
                location = location_of(answer)
            address = self._redirected(address, location)
        raise RedirectRefused(address.authority, f"there are more than {self.limits.redirects_max}")

    def _redirected(self, address: WebAddress, location: str | None) -> WebAddress:
        if not location:
            raise RedirectRefused(address.authority, "it leads nowhere")
        try:
            return parse_redirect(location, source=address, allowed_hosts=self._allowed)
        except InvalidWebAddress as invalid:
            raise RedirectRefused(address.authority, invalid.reason) from None


def _check_status(address: WebAddress, status: int) -> None:
    if status == _PARTIAL:
        raise AnswerUnreadable(address.authority, "it is only a part that nobody asked for")
    if not httpx.codes.is_success(status):
        raise HTTPError(status)


def _document(address: WebAddress, answer: httpx.Response) -> WebDocument:
    headers = answer.headers
    try:
        content = content_of(
            headers.get("content-type", ""), headers.get("content-disposition", ""), address.path
        )
    except Unreadable as unreadable:
        raise ContentRefused(address.authority, unreadable.reason) from None
    declared = headers.get("content-length", "")
    return WebDocument(
        address=address,
        content=content,
        size_bytes=int(declared) if re.fullmatch(r"[0-9]{1,18}", declared) else None,
        etag=_short(headers.get("etag")),
        modified=_short(headers.get("last-modified")),
    )


@asynccontextmanager
async def _new_file(path: Path) -> AsyncIterator[anyio.AsyncFile[bytes]]:
    """A file that was not there before, and is not there afterwards when the block fails.

    Without a buffer, so that a full disk is met where bytes are written and not when the file is closed.
    """
    async with await anyio.open_file(path, "xb", buffering=0) as file:
        try:
            yield file
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await anyio.Path(path).unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno in _NO_ROOM:
                raise NoRoom from None
            raise


async def _write(file: anyio.AsyncFile[bytes], piece: bytes) -> None:
    left = memoryview(piece)
    while left:
        left = left[await file.write(left) :]


def _short(text: str | None) -> str | None:
    usable = text and text.isascii() and text.isprintable() and len(text) <= _VERSION_LENGTH_MAX
    return text if usable else None
