"""What one connection may take of time and memory, whoever it is: uvicorn's protocols, with limits to both.

uvicorn waits for ever for the rest of a head or of a body and for a client that reads, keeps as many headers,
trailers, empty fragments and requests in a row as are sent, and answers pings that nobody reads.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, Final

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

HEAD_SECONDS: Final = 10.0
HEAD_BYTES_MAX: Final = 64 * 1024
SLICE_BYTES: Final = 16 * 1024  # read at once: what is not looked at in between is bounded
BODY_SECONDS: Final = 30.0  # in which so much of a body must come, unless we are the slower one
BODY_BYTES_MIN: Final = 1024
READ_SECONDS: Final = 90.0  # more than an event stream leaves to a client that takes nothing
REQUESTS_AHEAD_MAX: Final = 16
FRAGMENTS_MAX: Final = 64
# A body in chunks has lengths in between: as many bytes for one byte of the body are not counted as its head.
CHUNKED: Final = 8


def refusal(status: HTTPStatus, code: str, detail: str) -> bytes:
    """The whole answer to what never became a request."""
    body = msgspec.json.encode({"detail": detail, "code": code})
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}",
        "content-type: application/json",
        f"content-length: {len(body)}",
        "connection: close",
    )
    return "\r\n".join((*head, "", "")).encode() + body


INVALID: Final = refusal(HTTPStatus.BAD_REQUEST, "invalid_http", "This is not HTTP as it is spoken here")
TOO_LARGE: Final = refusal(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large", "The head of the request is too large"
)
TOO_SLOW: Final = refusal(
    HTTPStatus.REQUEST_TIMEOUT, "too_slow", "The rest of the request did not come in time"
)


class TooMuch(Exception):
    """The client says more than anybody needs to."""


class _Reader:
    """Cuts a client off that does not read what was sent to it, also when its connection is being closed."""

    def __init__(self) -> None:
        self._cut: asyncio.TimerHandle | None = None

    def paused(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
        if self._cut is None:
            self._cut = loop.call_later(READ_SECONDS, transport.abort)

    def resumed(self) -> None:
        if self._cut is not None:
            self._cut.cancel()
            self._cut = None


class HttpConnection(HttpToolsProtocol):
    """A connection over which requests come, one after the other."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._reader = _Reader()
        self._patience: asyncio.TimerHandle | None = None
        self._in_head = True
        self._beside_body = 0  # bytes of the message: its head, its trailers, what is between chunks
        self._of_body = 0  # bytes since the last look

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait(None)
        self._reader.resumed()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        for start in range(0, len(data), SLICE_BYTES):
            if self.transport.is_closing():
                return
            if self.transport.get_protocol() is not self:
                self._received_by_socket(data[start:])
                return
            self._beside_body += len(data[start : start + SLICE_BYTES])
            super().data_received(data[start : start + SLICE_BYTES])
            if self._beside_body > HEAD_BYTES_MAX:
                self._refuse(TOO_LARGE)

    def _received_by_socket(self, data: bytes) -> None:
        protocol = self.transport.get_protocol()
        assert isinstance(protocol, asyncio.Protocol), "a connection becomes a socket and nothing else"
        protocol.data_received(data)

    def send_400_response(self, msg: str) -> None:
        self._refuse(INVALID)

    def handle_websocket_upgrade(self) -> None:
        self._wait(None)
        super().handle_websocket_upgrade()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reader.paused(self.loop, self.transport)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._reader.resumed()

    # What the parser tells. Whatever is raised here is answered with 400.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._beside_body = 0  # the rest of its slice is not counted
        self._wait(HEAD_SECONDS)

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= REQUESTS_AHEAD_MAX:
            raise TooMuch
        super().on_headers_complete()
        self._in_head = False
        self._wait(BODY_SECONDS)

    def on_body(self, body: bytes) -> None:
        self._of_body += len(body)
        self._beside_body = max(self._beside_body - CHUNKED * len(body), 0)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._wait(None)
        super().on_message_complete()

    def _wait(self, seconds: float | None) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if seconds is not None:
            self._patience = self.loop.call_later(seconds, self._look)

    def _look(self) -> None:
        if self.transport.is_closing():
            return
        if self._in_head and self.cycle is not None and not self.cycle.response_complete:
            self._wait(HEAD_SECONDS)  # an earlier request is still being answered
        elif not self._in_head and (self.flow.read_paused or self._of_body >= BODY_BYTES_MIN):
            self._of_body = 0
            self._wait(BODY_SECONDS)
        else:
            self._refuse(TOO_SLOW)

    def _refuse(self, answer: bytes) -> None:
        """Nothing more is heard of this client, which gets *answer* unless it is getting another one."""
        if self.transport.is_closing():
            return
        if self.cycle is None or not self.cycle.response_started or self.cycle.response_complete:
            self.transport.write(answer)
        self._reader.paused(self.loop, self.transport)
        self.transport.close()


class SocketConnection(WebSocketsSansIOProtocol):
    """A WebSocket. While its client does not read, it is not listened to either: pings are answered too."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._reader = _Reader()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.writable.is_set() and not self.read_paused:
            self.transport.pause_reading()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reader.paused(self.loop, self.transport)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._reader.resumed()
        if not self.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._reader.resumed()
        super().connection_lost(exc)

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) >= FRAGMENTS_MAX:
            self.conn.fail(1009, "too many fragments")
            self.handle_parser_exception()
            return
        super().handle_cont(event)
