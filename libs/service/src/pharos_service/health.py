"""``/livez`` and ``/readyz`` for a service without HTTP of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

REQUEST_BYTES_MAX = 8192
REQUEST_SECONDS_MAX = 5


@asynccontextmanager
async def probes(host: str, port: int, ready: Callable[[], str | None]) -> AsyncIterator[None]:
    """Answer probes while the block runs; a port of 0 answers none.

    *ready* returns None when the service can do its work, else a sentence that says why not. ``/livez``
    is 200 for as long as the event loop turns.
    """
    if port == 0:
        yield
        return

    open_now: set[asyncio.StreamWriter] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_now.add(writer)
        try:
            async with asyncio.timeout(REQUEST_SECONDS_MAX):
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ", 2)[1].decode("latin-1") if head.count(b" ") >= 2 else ""
                writer.write(_response(*_respond(path, ready)))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever asked like that gets no answer
        finally:
            open_now.discard(writer)
            writer.close()

    server = await asyncio.start_server(answer, host, port, limit=REQUEST_BYTES_MAX)
    try:
        yield
    finally:
        server.close()
        for writer in tuple(open_now):
            writer.close()
        await server.wait_closed()


def _response(status: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def _respond(path: str, ready: Callable[[], str | None]) -> tuple[str, bytes]:
    if path == "/livez":
        return "200 OK", b"alive\n"
    if path == "/readyz":
        reason = ready()
        return (
            ("200 OK", b"ready\n") if reason is None else ("503 Service Unavailable", f"{reason}\n".encode())
        )
    return "404 Not Found", b"/livez or /readyz\n"
