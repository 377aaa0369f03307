"""Pushes on SCHED, which the server sends on when they rest (NATS ADR-51)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import structlog

from pharos_contracts import streams, subjects
from pharos_contracts.message import UnreadableMessage, decode
from pharos_contracts.subjects import Due
from pharos_scheduler.pushes import Held, HeldPushes, newest
from pharos_service.bus import Bus, WrongLastSequence

log = structlog.get_logger()

# What arrived while no scheduler ran is kept for as long as its job may wait, and at least for this long.
KEPT_SECONDS_MIN: Final = 3600


class BusPushes:
    """The adapter of ``pushes.PushStore``. *check* raises where this leader may lead no more."""

    def __init__(self, bus: Bus, check: Callable[[], None]) -> None:
        self._bus = bus
        self._check = check

    async def now(self) -> datetime:
        info = await self._bus.api(f"STREAM.INFO.{streams.SCHED}")
        return datetime.fromisoformat(info["ts"])

    async def held(self, due: Due) -> Held | None:
        found = await self._bus.last(streams.SCHED, subjects.later_subject(due))
        if found is None:
            return None
        try:
            return Held(decode(found.data, HeldPushes), found.sequence)
        except UnreadableMessage as error:
            log.error("pushes_unreadable", subject=found.subject, error=error.reason)
            return Held(None, found.sequence)

    async def hold(self, due: Due, pushes: HeldPushes, at: datetime, after: int) -> bool:
        self._check()
        kept = max(KEPT_SECONDS_MIN, newest(pushes.pushes).job.ttl_seconds)
        headers = {
            "Nats-Schedule": f"@at {at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}",
            "Nats-Schedule-Target": subjects.due_subject(due),
            "Nats-Schedule-TTL": f"{kept}s",
        }
        try:
            await self._bus.publish(subjects.later_subject(due), pushes, expect_last=after, headers=headers)
        except WrongLastSequence:
            return False
        return True
