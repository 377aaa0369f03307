"""Pushes on SCHED, which the server sends on when they rest (NATS ADR-51)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

import structlog

from pharos_contracts import streams, subjects
from pharos_contracts.message import UnreadableMessage, decode
from pharos_contracts.subjects import Due
from pharos_scheduler.later import bus_now, send_later
from pharos_scheduler.pushes import Held, HeldPushes, newest
from pharos_service.bus import Bus

log = structlog.get_logger()

# What arrived while no scheduler ran is kept for as long as its job may wait, and at least for this long.
KEPT_SECONDS_MIN: Final = 3600


class BusPushes:
    """The adapter of ``pushes.PushStore``. *check* raises where this leader may lead no more."""

    def __init__(self, bus: Bus, check: Callable[[], None]) -> None:
        self._bus = bus
        self._check = check

    async def now(self) -> datetime:
        return await bus_now(self._bus)

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
        return await send_later(self._bus, due, pushes, at, kept_seconds=kept, after=after)
