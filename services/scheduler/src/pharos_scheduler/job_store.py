"""Job states on JOBS, and the claims that keep the same work from being done twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import datetime
from typing import Final

import structlog

from pharos_contracts import streams, subjects
from pharos_contracts.jobs.v1 import (
    EVENT_OF_STATE,
    ActiveJob,
    AnyJobEvent,
    Job,
    JobAdvanced,
    JobResumed,
    command_of,
)
from pharos_contracts.lifecycle import TERMINAL
from pharos_contracts.message import UnreadableMessage, decode
from pharos_scheduler.ports import Clock, Tracked
from pharos_service.buckets import Bucket, Entry
from pharos_service.bus import Bus
from pharos_service.journal import Journal
from pharos_service.pull import CaughtUp, tail

log = structlog.get_logger()

LEDGER_LAG_SECONDS: Final = 10.0
TOMBSTONE_SECONDS: Final = 3600


class BusJobStore:
    """The adapter of ``ports.JobStore``."""

    def __init__(self, bus: Bus, now: Clock, check: Callable[[], None]) -> None:
        """*check* is called before each write, and raises where this leader may lead no more."""
        self._bus = bus
        self._now = now
        self._check = check
        self._journal = Journal(bus, streams.JOBS)
        self._active = Bucket(bus, streams.KV_ACTIVE, ActiveJob)

    async def open_jobs(self) -> AsyncIterator[Tracked]:
        await self._ledger_is_level()
        ledger = tail(self._bus, streams.LEDGER, ["ledger.job.>"], last_per_subject=True)
        async with aclosing(ledger) as entries:
            async for entry in entries:
                if isinstance(entry, CaughtUp):
                    return
                try:
                    event: AnyJobEvent = decode(entry.data, AnyJobEvent)
                except UnreadableMessage as error:
                    log.error("ledger_entry_unreadable", subject=entry.subject, error=error.reason)
                    continue
                if event.job.state not in TERMINAL:
                    # LEDGER numbers its entries itself; JOBS knows the sequence that comes next.
                    current = await self.load(event.job.tenant, event.job.job_id)
                    if current is not None and current.job.state not in TERMINAL:
                        yield current

    async def _ledger_is_level(self) -> None:
        """Wait until the server has copied what JOBS holds: after a restart that takes it a moment."""
        deadline = asyncio.get_running_loop().time() + LEDGER_LAG_SECONDS
        while asyncio.get_running_loop().time() < deadline:
            info = await self._bus.api(f"STREAM.INFO.{streams.LEDGER}")
            jobs = await self._bus.api(f"STREAM.INFO.{streams.JOBS}")
            sources = info.get("sources") or [{}]
            empty = jobs["state"]["messages"] == 0
            if empty or (sources[0].get("active", -1) >= 0 and sources[0].get("lag", 1) == 0):
                return
            await asyncio.sleep(0.1)
        log.warning("ledger_behind", waited_seconds=LEDGER_LAG_SECONDS)

    async def load(self, tenant: str | None, job_id: str) -> Tracked | None:
        found = await self._bus.last(streams.JOBS, subjects.job_events(tenant, job_id))
        if found is None:
            # Older than the retention of JOBS: the ledger still has it, and nothing to name in between.
            found = await self._bus.last(streams.LEDGER, subjects.ledger_job(tenant, job_id))
            if found is None:
                return None
            event: AnyJobEvent = decode(found.data, AnyJobEvent)
            return Tracked(event.job, 0)
        latest: AnyJobEvent = decode(found.data, AnyJobEvent)
        return Tracked(latest.job, found.sequence)

    async def record(
        self, job: Job, sequence: int, *, resumed: bool = False, advanced: bool = False
    ) -> Tracked:
        self._check()
        # What follows one event is one event: a repeat after an unknown fate is the same message.
        event_id = f"{job.job_id}:{sequence}:{job.state}"
        kind = JobResumed if resumed else JobAdvanced if advanced else EVENT_OF_STATE[job.state]
        event = kind(event_id=event_id, at=self._now(), job=job)
        written = await self._journal.append(
            subjects.job_event_subject(event),
            event,
            message_id=event_id,
            scope=subjects.job_events(job.tenant, job.job_id),
            expect_last=sequence,
        )
        return Tracked(job, written)

    async def active(self, tenant: str, key: str) -> ActiveJob | None:
        entry = await self._active.get(subjects.active_key(tenant, key))
        return entry.value if entry else None

    async def claim(self, job: Job) -> str | None:
        self._check()
        key = subjects.active_key(job.tenant, job.key)
        claim = ActiveJob(command=command_of(job), created_at=self._now(), number=job.number)
        while await self._active.create(key, claim) is None:
            entry = await self._active.get(key)
            if entry is None:
                continue  # released in between
            owner = entry.value.command.job_id
            if owner == job.job_id:
                return None
            other = await self.load(job.tenant, owner)
            if other is None or other.job.state not in TERMINAL:
                return owner
            if await self._active.update(key, claim, entry.revision) is not None:
                return None  # a crash had kept it from being released
        return None

    async def claims(self, before: datetime) -> list[ActiveJob]:
        found = []
        async with aclosing(self._active.watch()) as changes:
            async for change in changes:
                if isinstance(change, CaughtUp):
                    break
                if isinstance(change, Entry):
                    key = subjects.active_key(change.value.command.tenant, change.value.command.key)
                    if change.key == key and change.value.created_at < before:
                        found.append(change.value)
        return found

    async def abandon(self, claim: ActiveJob) -> None:
        self._check()
        key = subjects.active_key(claim.command.tenant, claim.command.key)
        entry = await self._active.get(key)
        if entry is not None and entry.value == claim:
            await self._active.delete(key, entry.revision, tombstone_seconds=TOMBSTONE_SECONDS)

    async def release(self, job: Job) -> None:
        self._check()
        key = subjects.active_key(job.tenant, job.key)
        entry = await self._active.get(key)
        if entry is not None and entry.value.command.job_id == job.job_id:
            await self._active.delete(key, entry.revision, tombstone_seconds=TOMBSTONE_SECONDS)
