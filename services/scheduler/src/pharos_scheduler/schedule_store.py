"""Schedules in their bucket, their wake-ups on SCHED, and the way into Q for the jobs of their runs.

Each adapter is given a *check* that it calls before each write: it raises where this leader may lead no more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import datetime
from typing import Final, Protocol

import structlog
from msgspec.structs import replace

from pharos_contracts import streams, subjects
from pharos_contracts.identity import token
from pharos_contracts.jobs.v1 import ActiveJob, Job, SubmitJob
from pharos_contracts.lifecycle import TERMINAL, JobState
from pharos_contracts.message import UnreadableMessage, decode
from pharos_contracts.schedules.v1 import Schedule
from pharos_contracts.subjects import Due, DueKind
from pharos_scheduler.later import bus_now, send_later
from pharos_scheduler.ports import Clock, Tracked
from pharos_scheduler.schedules import (
    BEING_DECIDED,
    QUEUE_FULL,
    UNREADABLE,
    Later,
    Merged,
    Pending,
    Submitted,
    WakeUp,
    has_room,
)
from pharos_service.buckets import Bucket, Entry
from pharos_service.bus import Bus, BusError, StreamFull, WrongLastSequence
from pharos_service.pull import CaughtUp, tail

log = structlog.get_logger()

# A wake-up that arrived is in the way of others, and one that nobody took is found again by the next leader.
WAKE_UP_KEPT_SECONDS: Final = 3600
ORPHAN_SECONDS: Final = 10.0
EXPIRY_KEPT_SECONDS: Final = 8 * 86_400  # longer than the marker of an expired command is kept
SUBMITS_MAX: Final = 5


class BusScheduleStore:
    """The adapter of ``schedules.ScheduleStore``."""

    def __init__(self, bus: Bus, check: Callable[[], None]) -> None:
        self._check = check
        self._bucket = Bucket(bus, streams.KV_SCHEDULES, Schedule)

    async def all(self) -> AsyncIterator[Entry[Schedule]]:
        async with aclosing(self._bucket.watch()) as changes:
            async for change in changes:
                if isinstance(change, CaughtUp):
                    return
                if isinstance(change, Entry):
                    yield change

    async def get(self, tenant: str, schedule_id: str) -> Entry[Schedule] | None:
        key = _key(tenant, schedule_id)
        try:
            return await self._bucket.get(key)
        except UnreadableMessage as error:
            log.error("schedule_unreadable", key=key, error=error.reason)
            return None

    async def write(self, schedule: Schedule, revision: int) -> bool:
        self._check()
        key = _key(schedule.tenant, schedule.schedule_id)
        if revision == 0:
            return await self._bucket.create(key, schedule) is not None
        return await self._bucket.update(key, schedule, revision) is not None

    async def delete(self, entry: Entry[Schedule]) -> bool:
        self._check()
        return await self._bucket.delete(entry.key, entry.revision)


class BusWakeUps:
    """The adapter of ``schedules.WakeUps``: messages that the server holds until their time (NATS ADR-51)."""

    def __init__(self, bus: Bus, check: Callable[[], None]) -> None:
        self._bus = bus
        self._check = check

    async def now(self) -> datetime:
        return await bus_now(self._bus)

    async def planned(self) -> dict[tuple[str, str], datetime]:
        found: dict[tuple[str, str], datetime] = {}
        subject = f"sched.{DueKind.CRON}.*.*"
        async with aclosing(tail(self._bus, streams.SCHED, [subject], last_per_subject=True)) as held:
            async for message in held:
                if isinstance(message, CaughtUp):
                    break
                _, _, tenant, schedule_id = message.subject.split(".")
                try:
                    found[tenant, schedule_id] = decode(message.data, WakeUp).planned
                except UnreadableMessage as error:
                    log.error("wake_up_unreadable", subject=message.subject, error=error.reason)
        return found

    async def pending(self, tenant: str, schedule_id: str) -> Pending | None:
        found = await self._bus.last(streams.SCHED, subjects.later_subject(_due(tenant, schedule_id)))
        if found is None:
            return None
        try:
            return Pending(decode(found.data, WakeUp), found.sequence)
        except UnreadableMessage as error:
            log.error("wake_up_unreadable", subject=found.subject, error=error.reason)
            return Pending(None, found.sequence)

    async def place(self, tenant: str, schedule_id: str, wake_up: WakeUp, at: datetime, after: int) -> bool:
        self._check()
        due = _due(tenant, schedule_id)
        return await send_later(self._bus, due, wake_up, at, kept_seconds=WAKE_UP_KEPT_SECONDS, after=after)

    async def remove(self, tenant: str, schedule_id: str, sequence: int) -> None:
        self._check()
        subject = subjects.later_subject(_due(tenant, schedule_id))
        await self._bus.api(f"STREAM.PURGE.{streams.SCHED}", {"filter": subject, "seq": sequence + 1})


class Jobs(Protocol):
    """Where a job can be looked up: see ``ports.JobStore``."""

    async def load(self, tenant: str, job_id: str) -> Tracked | None: ...


class BusSubmissions:
    """The adapter of ``schedules.Submissions``, by the protocol of every submit.

    The entry in ``active`` is created first, then the command is published, guarded by the subjects of Q.
    Whatever ends between the two leaves an entry without a job, which the next submit takes over.
    """

    def __init__(
        self,
        bus: Bus,
        jobs: Jobs,
        *,
        now: Clock,
        check: Callable[[], None],
        tenant_queue_max: int | None,
    ) -> None:
        """*tenant_queue_max* bounds what Q holds of one tenant; None where nothing does."""
        self._bus = bus
        self._jobs = jobs
        self._now = now
        self._check = check
        self._tenant_queue_max = tenant_queue_max
        self._active = Bucket(bus, streams.KV_ACTIVE, ActiveJob)

    async def submit(self, command: SubmitJob) -> Submitted | Merged | Later:
        """Errors of the bus pass through: what they leave undecided, the next call finds."""
        try:
            return await self._submit(command)
        except UnreadableMessage as error:
            log.error("same_work_unreadable", job_id=command.job_id, error=error.reason)
            return Later(UNREADABLE)

    async def _submit(self, command: SubmitJob) -> Submitted | Merged | Later:
        for _ in range(SUBMITS_MAX):
            if await self._jobs.load(command.tenant, command.job_id) is not None:
                return Submitted()
            claim = await self._active.get(_claim_key(command))
            found = await self._queued(command, claim) or await self._claimed(command, claim)
            if found is not None:
                return found
            if not await self._has_room(command.tenant):
                return Later(QUEUE_FULL)
            submitted = await self._publish(command, claim)
            if submitted is not None:
                return submitted
        return Later(BEING_DECIDED)

    async def _queued(self, command: SubmitJob, claim: Entry[ActiveJob] | None) -> Submitted | Merged | None:
        """What Q says of the same work."""
        stored = await self._bus.first(streams.Q, subjects.same_work_filter(command))
        if stored is None:
            return None
        queued: SubmitJob = decode(stored.data, SubmitJob)
        if queued.job_id == command.job_id:
            return Submitted()
        if claim is not None and claim.value.command.job_id == command.job_id:
            self._check()
            owner = replace(claim.value, command=queued, number=stored.sequence)
            await self._active.update(claim.key, owner, claim.revision)
        return Merged(queued.job_id, JobState.QUEUED)

    async def _claimed(self, command: SubmitJob, claim: Entry[ActiveJob] | None) -> Merged | Later | None:
        """What the entry of another job for the same work says; None where it is to be taken over."""
        if claim is None or claim.value.command.job_id == command.job_id:
            return None
        other = claim.value.command
        tracked = await self._jobs.load(other.tenant, other.job_id)
        if tracked is not None:
            return _merged(tracked.job)
        if (self._now() - claim.value.created_at).total_seconds() <= ORPHAN_SECONDS:
            return Later(BEING_DECIDED)
        self._check()
        # If its command expired while no scheduler ran, its job must still end with a name.
        await self._active.create(
            subjects.active_key(other.tenant, other.job_id), claim.value, ttl_seconds=EXPIRY_KEPT_SECONDS
        )
        return None

    async def _publish(self, command: SubmitJob, claim: Entry[ActiveJob] | None) -> Submitted | Later | None:
        """Claim the work and publish; None where somebody else was faster."""
        self._check()
        key = _claim_key(command)
        wanted = ActiveJob(command=command, created_at=self._now())
        if claim is None:
            revision = await self._active.create(key, wanted)
        else:
            revision = await self._active.update(key, wanted, claim.revision)
        if revision is None:
            return None
        self._check()
        try:
            ack = await self._bus.publish(
                subjects.submit_subject(command),
                command,
                message_id=command.job_id,
                ttl_seconds=command.ttl_seconds,
                expect_last=0,
                expect_scope=subjects.same_work_filter(command),
            )
        except WrongLastSequence:
            return None
        except StreamFull:
            await self._active.delete(key, revision)
            return Later(QUEUE_FULL)
        try:
            await self._active.update(key, replace(wanted, number=ack.seq), revision)
        except BusError as error:  # Q knows the number too
            log.info("number_not_noted", job_id=command.job_id, reason=str(error))
        return Submitted()

    async def _has_room(self, tenant: str) -> bool:
        info = await self._bus.api(f"STREAM.INFO.{streams.Q}")
        if not has_room(int(info["state"]["messages"]), int(info["config"]["max_msgs"])):
            return False
        if self._tenant_queue_max is None:
            return True
        info = await self._bus.api(
            f"STREAM.INFO.{streams.Q}", {"subjects_filter": f"cmd.ingest.{token(tenant)}.>"}
        )
        return has_room(len(info["state"].get("subjects") or ()), self._tenant_queue_max)


def _merged(job: Job) -> Merged | None:
    return None if job.state in TERMINAL else Merged(job.job_id, job.state)


def _key(tenant: str, schedule_id: str) -> str:
    return f"{token(tenant)}.{token(schedule_id)}"


def _claim_key(command: SubmitJob) -> str:
    return subjects.active_key(command.tenant, command.key)


def _due(tenant: str, schedule_id: str) -> Due:
    return Due(DueKind.CRON, tenant, schedule_id)
