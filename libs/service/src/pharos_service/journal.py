"""Appending to a stream by compare-and-set, so that of several writers exactly one wins."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from pharos_contracts.message import Message
from pharos_service.bus import (
    MESSAGE_ID,
    Bus,
    BusUnavailable,
    FateUnknown,
    WrongLastSequence,
)

log = structlog.get_logger()

PATIENCE_SECONDS: Final = 60.0
RETRY_SECONDS: Final = 0.2


class Superseded(Exception):
    """Somebody else wrote since; ``sequence`` is that of the last message in the scope."""

    def __init__(self, scope: str, sequence: int) -> None:
        super().__init__(f"{scope} moved on to sequence {sequence}")
        self.scope = scope
        self.sequence = sequence


class Journal:
    """Appends to one stream. A try whose fate is unknown is settled by its message id."""

    def __init__(self, bus: Bus, stream: str, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._bus = bus
        self._stream = stream
        self._patience_seconds = patience_seconds

    async def append(
        self, subject: str, message: Message, *, message_id: str, scope: str, expect_last: int
    ) -> int:
        """Store *message* as the next one of *scope*; its sequence.

        Superseded when the scope's last sequence is not *expect_last*; BusUnavailable when the bus stayed
        away for longer than the patience of this journal.
        """
        deadline = asyncio.get_running_loop().time() + self._patience_seconds
        while True:
            try:
                ack = await self._bus.publish(
                    subject, message, message_id=message_id, expect_last=expect_last, expect_scope=scope
                )
                return ack.seq
            except WrongLastSequence as error:
                last = await self._last(scope, deadline)
                if last is not None and last[1] == message_id:
                    return last[0]
                raise Superseded(scope, last[0] if last else 0) from error
            except (BusUnavailable, FateUnknown) as error:
                if asyncio.get_running_loop().time() >= deadline:
                    raise BusUnavailable(f"The bus stayed away: {error}") from error
                log.debug("append_retried", subject=subject, reason=str(error))
            await asyncio.sleep(RETRY_SECONDS)

    async def _last(self, scope: str, deadline: float) -> tuple[int, str | None] | None:
        """(sequence, message id) of the last message in *scope*."""
        while True:
            try:
                found = await self._bus.last(self._stream, scope)
            except (BusUnavailable, FateUnknown):
                if asyncio.get_running_loop().time() >= deadline:
                    raise
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if found is None:
                return None
            return found.sequence, found.headers.get(MESSAGE_ID)
