"""Messages that SCHED sends on when their time has come (NATS ADR-51): one for each thing that is due."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from pharos_contracts import streams, subjects
from pharos_contracts.subjects import Due
from pharos_service.bus import Bus, WrongLastSequence


async def bus_now(bus: Bus) -> datetime:
    """The time by the clock that decides when a message is sent on."""
    info = await bus.api(f"STREAM.INFO.{streams.SCHED}")
    return datetime.fromisoformat(info["ts"])


async def send_later(
    bus: Bus, due: Due, message: msgspec.Struct | bytes, at: datetime, *, kept_seconds: int, after: int | None
) -> bool:
    """Have *message* sent on at *at*, in the place of the one that was to be; whether that is so.

    With *after* it is not where another one than that was there. What was sent on while nobody read is kept
    for *kept_seconds*.
    """
    headers = {
        "Nats-Schedule": f"@at {at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}",
        "Nats-Schedule-Target": subjects.due_subject(due),
        "Nats-Schedule-TTL": f"{kept_seconds}s",
    }
    try:
        await bus.publish(subjects.later_subject(due), message, expect_last=after, headers=headers)
    except WrongLastSequence:
        return False
    return True
