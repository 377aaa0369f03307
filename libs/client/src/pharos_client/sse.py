"""Server-sent events, as the WHATWG HTML standard parses them (9.2.6, "Interpreting an event stream").

Bytes in, in chunks of any size; events out. An event that the stream ends in the middle of is dropped.
"""

from __future__ import annotations

from typing import Final

import msgspec

EVENT_BYTES_MAX: Final = 4 * 1024 * 1024

_BOM: Final = b"\xef\xbb\xbf"
_LF: Final = 0x0A


class EventTooLarge(Exception):
    """The server sent a line or an event that is larger than any real one."""


class ServerSentEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event. ``id`` is the one that this very event carried, None where it carried none."""

    event: str
    data: str
    id: str | None = None


class Parser:
    """Feed it what arrives. ``last_event_id`` and ``retry_ms`` are as of the last complete field."""

    def __init__(self, *, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._event_bytes_max = event_bytes_max
        self._line = bytearray()
        self._skip_line_feed = False
        self._at_start = True
        self._event = ""
        self._data: list[str] = []
        self._data_size = 0
        self._own_id: str | None = None
        self.last_event_id = ""
        self.retry_ms: int | None = None

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """The events that *chunk* completes; EventTooLarge where one exceeds the limit."""
        found: list[ServerSentEvent] = []
        if self._skip_line_feed and chunk:
            self._skip_line_feed = False
            if chunk[0] == _LF:
                chunk = chunk[1:]
        position = 0
        while position < len(chunk):
            end = _line_end(chunk, position)
            self._grow(chunk[position : end if end >= 0 else len(chunk)])
            if end < 0:
                break
            position = end + 1
            if chunk[end] != _LF:
                if position == len(chunk):
                    self._skip_line_feed = True
                elif chunk[position] == _LF:
                    position += 1
            event = self._take_line()
            if event is not None:
                found.append(event)
        return found

    def _grow(self, part: bytes) -> None:
        if len(self._line) + len(part) > self._event_bytes_max:
            raise EventTooLarge(f"a line exceeds {self._event_bytes_max} bytes")
        self._line += part

    def _take_line(self) -> ServerSentEvent | None:
        raw = bytes(self._line)
        self._line.clear()
        if self._at_start:
            self._at_start = False
            raw = raw.removeprefix(_BOM)
        if not raw:
            return self._dispatch()
        name, colon, value = raw.decode("utf-8", errors="replace").partition(":")
        if not name and colon:
            return None  # a comment
        self._field(name, value.removeprefix(" "))
        return None

    def _field(self, name: str, value: str) -> None:
        match name:
            case "event":
                self._event = value
            case "data":
                self._data_size += len(value) + 1
                if self._data_size > self._event_bytes_max:
                    raise EventTooLarge(f"an event exceeds {self._event_bytes_max} bytes")
                self._data.append(value)
            case "id" if "\0" not in value:
                self._own_id = value
                self.last_event_id = value
            case "retry" if value.isascii() and value.isdigit() and len(value) < 10:
                self.retry_ms = int(value)
            case _:
                pass

    def _dispatch(self) -> ServerSentEvent | None:
        event = None
        if self._data:
            event = ServerSentEvent(
                event=self._event or "message", data="\n".join(self._data), id=self._own_id
            )
        self._event, self._data, self._data_size, self._own_id = "", [], 0, None
        return event


def _line_end(chunk: bytes, start: int) -> int:
    """Where the first CR or LF from *start* on is; -1 where there is none."""
    feed, carriage = chunk.find(b"\n", start), chunk.find(b"\r", start)
    if feed < 0 or carriage < 0:
        return max(feed, carriage)
    return min(feed, carriage)
