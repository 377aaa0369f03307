"""Following a stream of events across lost connections: when to try again, and which events are new. Pure."""

from __future__ import annotations

from typing import Final

from pharos_client.errors import PharosError
from pharos_client.sse import ServerSentEvent

WAIT_SECONDS_FIRST: Final = 0.25
WAIT_SECONDS_MAX: Final = 5.0
PATIENCE_SECONDS: Final = 120.0


class Resumption:
    """The state of one reader. It gives up after ``patience_seconds`` without a connection.

    State events carry the sequence of the bus as their id; progress carries none and is never repeated.
    """

    def __init__(self, last_event_id: str | None, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self.last_event_id = last_event_id
        self._patience_seconds = patience_seconds
        self._wait_seconds = WAIT_SECONDS_FIRST
        self._lost_at: float | None = None

    def headers(self) -> dict[str, str]:
        return {} if self.last_event_id is None else {"Last-Event-ID": self.last_event_id}

    def is_new(self, event: ServerSentEvent) -> bool:
        """False for an event that was seen before; a new one is remembered.

        ``reset`` begins anew: its snapshot stands for whatever is no longer kept.
        """
        if event.id is None or event.id == "":
            return True
        if event.event != "reset" and _is_sequence(event.id) and _is_sequence(self.last_event_id):
            assert self.last_event_id is not None
            if int(event.id) <= int(self.last_event_id):
                return False
        self.last_event_id = event.id
        return True

    def connected(self) -> None:
        self._lost_at = None
        self._wait_seconds = WAIT_SECONDS_FIRST

    def wait_seconds(self, now: float, error: PharosError | None) -> float:
        """How long to wait before the next try, *now* being a monotonic time.

        Raises *error* when it is of a kind that time does not heal, or when patience is at its end. Without
        an error the server ended the stream in good order.
        """
        if error is not None and not error.transient:
            raise error
        self._lost_at = now if self._lost_at is None else self._lost_at
        if error is not None and now - self._lost_at >= self._patience_seconds:
            raise error
        wait = self._wait_seconds
        self._wait_seconds = min(WAIT_SECONDS_MAX, wait * 2)
        asked = error.retry_after_seconds if error is not None else None
        return min(WAIT_SECONDS_MAX, max(wait, asked or 0.0))


def _is_sequence(text: str | None) -> bool:
    return text is not None and text.isascii() and text.isdigit() and len(text) < 20
