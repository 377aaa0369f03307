"""Dead letters on DEAD, one per subject."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from pharos_contracts import streams, subjects
from pharos_contracts.control.v1 import DeadLetter, DeadLetterKind
from pharos_contracts.identity import TENANT_DEFAULT, InvalidName, token
from pharos_contracts.message import decode
from pharos_service.bus import Bus

SUBMITS: Final = (["cmd", "ingest"], ["cmd", "document"])  # what their subjects begin with


class BusDeadLetters:
    """The adapter of ``ports.DeadLetters``."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def put(self, letter: DeadLetter) -> None:
        await self._bus.publish(subjects.dead_letter_subject(letter), letter)

    async def get(self, tenant: str | None, letter_id: str) -> DeadLetter | None:
        found = await self._bus.last(streams.DEAD, subjects.dead_letters(tenant, letter_id))
        if found is None:
            return None
        letter: DeadLetter = decode(found.data, DeadLetter)
        return letter

    async def purge(self, letter: DeadLetter) -> None:
        await self._bus.api(f"STREAM.PURGE.{streams.DEAD}", {"filter": subjects.dead_letter_subject(letter)})

    async def republish(self, letter: DeadLetter) -> None:
        assert letter.subject is not None, "a message has a subject"
        await self._bus.publish(letter.subject, letter.payload)


def unreadable(
    stream: str, sequence: int, subject: str, payload: bytes, reason: str, *, at: datetime
) -> DeadLetter:
    """A message that nobody can read, with all that there is of it. Its subject may say whose it is."""
    parts = subject.split(".")
    try:
        tenant = token(parts[2]) if parts[:2] in SUBMITS else TENANT_DEFAULT
    except (InvalidName, IndexError):
        tenant = TENANT_DEFAULT
    return DeadLetter(
        letter_id=f"{stream}-{sequence}",
        kind=DeadLetterKind.MESSAGE,
        tenant=tenant,
        at=at,
        reason=f"It could not be read: {reason}",
        code="unreadable_message",
        stream=stream,
        subject=subject,
        payload=payload,
    )
