"""A web server that answers with exactly the bytes that a test chose, well-formed or not."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from pharos_service.ending import end

_HEAD_BYTES_MAX: Final = 64 * 1024

Script = Callable[[asyncio.StreamWriter], Awaitable[None]]
Answer = bytes | Script


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request as it arrived; names of headers in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]


def answer(
    status: str = "200 OK",
    body: bytes = b"",
    *,
    length: int | None = None,
    **headers: str,
) -> bytes:
    """An answer in HTTP/1.1; `content_type="…"` becomes a header, *length* is what it declares."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


def dripping(pieces: Iterable[bytes], *, seconds: float) -> Script:
    """An answer that comes piece by piece, *seconds* apart."""

    async def write(writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(seconds)

    return write


class WebServer:
    """Listens on 127.0.0.1 while the `async with` block lasts; with *tls* the scheme is https.

    A path without an answer is 404. Every connection serves one request.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self.answers: dict[str, Answer] = {}
        self.requests: list[Request] = []
        self.connections = 0
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> WebServer:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        await end(*self._serving)
        await self._server.wait_closed()

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.connections += 1
        self._serving.add(task)
        try:
            with suppress(OSError, EOFError, ssl.SSLError, asyncio.CancelledError):
                await self._serve(reader, writer)
        finally:
            self._serving.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        assert len(head) < _HEAD_BYTES_MAX
        first, *lines = head.rstrip("\r\n").split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self.requests.append(Request(method=method, target=target, headers=headers))
        chosen = self.answers.get(target.partition("?")[0], answer("404 Not Found"))
        if isinstance(chosen, bytes):
            writer.write(chosen.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if method == "HEAD" else chosen)
            await writer.drain()
        else:
            await chosen(writer)
