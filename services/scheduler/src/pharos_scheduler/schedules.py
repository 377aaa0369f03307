"""Schedules: repositories that are indexed again and again, with no run lost and none done twice.

A schedule is an entry that says when its next run is planned. Behind it stands a wake-up: a message that the
bus holds until then, and that says which run it is for. So the entry decides, whatever arrives: a wake-up for
a run that the entry does not plan is out of date. Each step here may be repeated, by a second delivery or by
another leader, and changes nothing then: the job of a run has the id that follows from schedule and time, and
every write names the one that it follows.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta
from typing import Final, Protocol, assert_never

import msgspec
import structlog
from msgspec.structs import replace

from pharos_contracts.identity import InvalidName, fingerprint, token, uuid7, work_key
from pharos_contracts.jobs.v1 import SubmitJob, Trigger
from pharos_contracts.lifecycle import JobState
from pharos_contracts.message import Message
from pharos_contracts.schedules.v1 import Schedule
from pharos_scheduler import cron
from pharos_scheduler.cron import InvalidCron
from pharos_scheduler.ports import Clock
from pharos_service.buckets import Entry
from pharos_service.bus import BusError, StreamFull

log = structlog.get_logger()

SCHEDULES_PER_TENANT_MAX: Final = 1000
JITTER_SECONDS_MAX: Final = 86_400
TRY_AGAIN_SECONDS: Final = 30
REWRITES_MAX: Final = 20

SUBMITTED: Final = "submitted"
QUEUE_FULL: Final = "the queue had no room"
BEING_DECIDED: Final = "an earlier submit of the same repository was still being decided"
UNREADABLE: Final = "what is stored of another job for the same repository cannot be read"


class InvalidSchedule(Exception):
    """A schedule that is not taken; ``status`` is the HTTP status that says so best."""

    def __init__(self, detail: str, *, code: str = "invalid_schedule", status: int = 422) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code
        self.status = status


class WakeUp(Message, frozen=True, kw_only=True, tag="schedules.command.v1.wake_up"):
    """Please see to the run that was planned for ``planned``; it waits for room since ``waiting_since``."""

    planned: datetime
    waiting_since: datetime | None = None


class Pending(msgspec.Struct, frozen=True):
    """The wake-up that the bus holds for a schedule, and the sequence to name when replacing it.

    ``wake_up`` is None where what is held cannot be read.
    """

    wake_up: WakeUp | None
    sequence: int


class Submitted(msgspec.Struct, frozen=True):
    """The job of the run is accepted, now or by an earlier try."""


class Merged(msgspec.Struct, frozen=True):
    """Another job does the same work, and is in ``state``."""

    job_id: str
    state: JobState


class Later(msgspec.Struct, frozen=True):
    """Nothing was submitted, for a reason that may pass."""

    reason: str


class ScheduleStore(Protocol):
    """Schedules, each written by compare-and-set."""

    def all(self) -> AsyncIterator[Entry[Schedule]]:
        """Every schedule of every tenant."""
        ...

    async def get(self, tenant: str, schedule_id: str) -> Entry[Schedule] | None: ...

    async def write(self, schedule: Schedule, revision: int) -> bool:
        """Whether *schedule* is stored: not if its entry is no longer at *revision* (0: is there already)."""
        ...

    async def delete(self, entry: Entry[Schedule]) -> bool:
        """Whether it is gone: not if it is no longer at the revision of *entry*."""
        ...


class WakeUps(Protocol):
    """Messages that arrive later, at most one for each schedule."""

    async def now(self) -> datetime:
        """What the clock shows that they arrive by."""
        ...

    async def planned(self) -> Mapping[tuple[str, str], datetime]:
        """Which run the wake-up of each schedule is for, by tenant and id."""
        ...

    async def pending(self, tenant: str, schedule_id: str) -> Pending | None: ...

    async def place(self, tenant: str, schedule_id: str, wake_up: WakeUp, at: datetime, after: int) -> bool:
        """Whether *wake_up* will arrive at *at*, or now if that has passed, instead of the one at *after*.

        Not if another one took the place of *after* (0: of none) meanwhile.
        """
        ...

    async def remove(self, tenant: str, schedule_id: str, sequence: int) -> None:
        """Forget the wake-up at *sequence*, and no later one."""
        ...


class Submissions(Protocol):
    """The way into the queue."""

    async def submit(self, command: SubmitJob) -> Submitted | Merged | Later:
        """Submit *command* where there is room; a second time changes nothing."""
        ...


def rhythm(schedule: Schedule) -> tuple[str, str, int]:
    """What decides when a schedule runs."""
    return schedule.cron, schedule.timezone, schedule.jitter_seconds


def next_run(schedule: Schedule, after: datetime) -> datetime | None:
    """When *schedule* runs next, behind *after*; InvalidCron."""
    share = int(fingerprint("jitter", schedule.tenant, schedule.schedule_id)[:16], 16)
    return cron.next_run(
        cron.parse(schedule.cron, schedule.timezone),
        after,
        jitter_seconds=schedule.jitter_seconds,
        share=share,
    )


def first_run(schedule: Schedule, now: datetime) -> datetime:
    """When *schedule* runs for the first time, if it is put now; InvalidSchedule where it is not taken."""
    if not 0 <= schedule.jitter_seconds <= JITTER_SECONDS_MAX:
        raise InvalidSchedule(f"The jitter is between 0 and {JITTER_SECONDS_MAX} seconds")
    if schedule.ttl_seconds < 1:
        raise InvalidSchedule("A run waits for at least one second")
    try:
        token(schedule.tenant)
        token(schedule.schedule_id)
        planned = next_run(schedule, now)
    except (InvalidName, InvalidCron) as error:
        raise InvalidSchedule(str(error)) from error
    if planned is None:
        raise InvalidSchedule(f"{schedule.cron!r} never comes round")
    return planned


def put_over(wanted: Schedule, stored: Schedule | None, first: datetime) -> Schedule:
    """*wanted*, to run for the first time at *first*, as it is stored over what is there.

    A run that is planned already stays planned unless the rhythm changed: one that was missed is not
    forgotten because something else was edited.
    """
    if stored is None:
        return replace(wanted, next_run_at=first, last_run_at=None, last_job_id=None, last_outcome=None)
    keeps_rhythm = rhythm(stored) == rhythm(wanted) and stored.next_run_at is not None
    return replace(
        wanted,
        created_at=stored.created_at,
        created_by=stored.created_by,
        next_run_at=stored.next_run_at if keeps_rhythm else first,
        last_run_at=stored.last_run_at,
        last_job_id=stored.last_job_id,
        last_outcome=stored.last_outcome,
    )


def command_of(schedule: Schedule, wake_up: WakeUp, now: datetime) -> SubmitJob:
    """The command of one run. Its time to live is what its wait for room has left of it."""
    source = schedule.source
    planned_ms = int(wake_up.planned.timestamp() * 1000)
    identity = fingerprint("run", schedule.tenant, schedule.schedule_id, str(planned_ms))
    return SubmitJob(
        job_id=str(uuid7(planned_ms, bytes.fromhex(identity)[:10])),
        tenant=schedule.tenant,
        key=work_key(
            project=schedule.project,
            dataset=schedule.dataset,
            repository=schedule.repository_key or source.identity,
            ref=source.sha or source.branch,
        ),
        source=source,
        project=schedule.project,
        dataset=schedule.dataset,
        scope=schedule.scope,
        priority=schedule.priority,
        force=not schedule.skip_unchanged,
        submitted_at=now,
        submitted_by=f"schedule:{schedule.schedule_id}",
        ttl_seconds=max(1, schedule.ttl_seconds - int(waited_seconds(wake_up, now))),
        trigger=Trigger.SCHEDULED,
    )


def waited_seconds(wake_up: WakeUp, now: datetime) -> float:
    """How long the run has waited for room."""
    return 0.0 if wake_up.waiting_since is None else (now - wake_up.waiting_since).total_seconds()


def has_room(size: int, capacity: int) -> bool:
    """Whether a queue of *size* takes a scheduled job: half of *capacity* stays free for people who wait, of
    however many tenants. A queue of one place has none to keep; one below 1 has no cap."""
    kept = min(math.ceil(capacity / 2), capacity - 1)
    return capacity < 1 or size < capacity - kept


def after_run(
    schedule: Schedule, planned: datetime, now: datetime, *, job_id: str | None, outcome: str
) -> Schedule:
    """*schedule* when the run of *planned* is seen to; what it missed besides that is not made up for."""
    noted = replace(schedule, last_run_at=now, last_job_id=job_id, last_outcome=outcome)
    if schedule.next_run_at != planned:
        return noted  # it was given another rhythm meanwhile
    try:
        return replace(noted, next_run_at=next_run(schedule, max(planned, now)))
    except InvalidCron as error:  # it was valid once: time zones come and go
        return replace(noted, next_run_at=None, last_outcome=f"{outcome}; it will not run again: {error}")


class Schedules:
    """The use cases. Call ``recover`` before anything else: it is one leader's, like its term."""

    def __init__(
        self,
        store: ScheduleStore,
        wake_ups: WakeUps,
        submissions: Submissions,
        *,
        now: Clock,
    ) -> None:
        self._store = store
        self._wake_ups = wake_ups
        self._submissions = submissions
        self._now = now
        self._tenants: dict[str, set[str]] = {}  # tenant -> ids of its schedules

    async def recover(self) -> None:
        """Every schedule has its wake-up: one that was missed arrives at once."""
        planned = await self._wake_ups.planned()
        async for entry in self._store.all():
            tenant, schedule_id = entry.value.tenant, entry.value.schedule_id
            self._tenants.setdefault(tenant, set()).add(schedule_id)
            if planned.get((tenant, schedule_id)) != entry.value.next_run_at:
                await self._keep_wake_up(tenant, schedule_id)
        log.info("schedules_recovered", schedules=sum(map(len, self._tenants.values())))

    async def put(self, schedule: Schedule) -> Schedule:
        """Store *schedule*, over one of the same id; as it stands now, with its next run. InvalidSchedule."""
        first = first_run(schedule, self._now())
        tenant, schedule_id = schedule.tenant, schedule.schedule_id
        for _ in range(REWRITES_MAX):
            entry = await self._store.get(tenant, schedule_id)
            if entry is None and len(self._tenants.get(tenant, ())) >= SCHEDULES_PER_TENANT_MAX:
                raise InvalidSchedule(
                    f"A tenant has at most {SCHEDULES_PER_TENANT_MAX} schedules",
                    code="too_many_schedules",
                    status=409,
                )
            wanted = put_over(schedule, entry.value if entry else None, first)
            try:
                written = await self._store.write(wanted, entry.revision if entry else 0)
            except StreamFull as error:
                raise InvalidSchedule(
                    "There is no room for more schedules", code="too_many_schedules", status=409
                ) from error
            if written:
                self._tenants.setdefault(tenant, set()).add(schedule_id)
                await self._keep_wake_up(tenant, schedule_id)
                log.info("schedule_put", tenant=tenant, schedule_id=schedule_id, next=wanted.next_run_at)
                return wanted
        raise InvalidSchedule(
            "What is stored under this id cannot be read", code="schedule_stuck", status=409
        )

    async def delete(self, tenant: str | None, schedule_id: str) -> bool:
        """Whether there was such a schedule, of *tenant* or (None) of anybody. InvalidSchedule where several
        tenants have one."""
        owners = [tenant] if tenant is not None else self._owners(schedule_id)
        if len(owners) > 1:
            raise InvalidSchedule(
                f"{len(owners)} tenants have a schedule of this name: say whose",
                code="ambiguous_schedule",
                status=409,
            )
        found = False
        for owner in owners:
            while (entry := await self._store.get(owner, schedule_id)) is not None:
                if await self._store.delete(entry):
                    found = True
                    log.info("schedule_deleted", tenant=owner, schedule_id=schedule_id)
            self._tenants.get(owner, set()).discard(schedule_id)
            await self._keep_wake_up(owner, schedule_id)
        return found

    async def due(self, tenant: str, schedule_id: str, wake_up: WakeUp) -> None:
        """A wake-up arrived, in time, late, or again."""
        entry = await self._store.get(tenant, schedule_id)
        if entry is None or entry.value.next_run_at != wake_up.planned:
            log.info("wake_up_out_of_date", tenant=tenant, schedule_id=schedule_id)
            await self._keep_wake_up(tenant, schedule_id)
            return
        schedule, now = entry.value, self._now()
        command = command_of(schedule, wake_up, now)
        job_id: str | None = command.job_id
        match await self._submissions.submit(command):
            case Submitted():
                outcome = SUBMITTED
            case Merged(job_id=other, state=state):
                job_id, outcome = other, f"already {state}"
            case Later(reason=reason):
                waited = waited_seconds(wake_up, now)
                if waited < schedule.ttl_seconds:
                    await self._wait(schedule, wake_up, now)
                    return
                job_id, outcome = None, f"given up after {int(waited)} s: {reason}"
            case never:
                assert_never(never)
        log.info("schedule_ran", tenant=tenant, schedule_id=schedule_id, outcome=outcome, job_id=job_id)
        try:
            await self._note(schedule, wake_up.planned, now, job_id, outcome)
        except StreamFull:
            log.error("schedules_full", tenant=tenant, schedule_id=schedule_id)
            await self._wait(schedule, wake_up, now)
            return
        await self._keep_wake_up(tenant, schedule_id)

    async def _wait(self, schedule: Schedule, wake_up: WakeUp, now: datetime) -> None:
        """The same run again, in a while."""
        tenant, schedule_id = schedule.tenant, schedule.schedule_id
        pending = await self._wake_ups.pending(tenant, schedule_id)
        # If it was given another rhythm meanwhile, this one is out of date, and makes room for the right one.
        await self._wake_ups.place(
            tenant,
            schedule_id,
            WakeUp(planned=wake_up.planned, waiting_since=wake_up.waiting_since or now),
            # By our own clock it could arrive at once, and again and again, if that one is behind.
            await self._wake_ups.now() + timedelta(seconds=TRY_AGAIN_SECONDS),
            pending.sequence if pending else 0,
        )
        log.info("schedule_waits", tenant=tenant, schedule_id=schedule_id, planned=wake_up.planned)

    async def _note(
        self, schedule: Schedule, planned: datetime, now: datetime, job_id: str | None, outcome: str
    ) -> None:
        for _ in range(REWRITES_MAX):
            entry = await self._store.get(schedule.tenant, schedule.schedule_id)
            if entry is None:
                return
            noted = after_run(entry.value, planned, now, job_id=job_id, outcome=outcome)
            if await self._store.write(noted, entry.revision):
                return
        raise BusError(f"schedule {schedule.schedule_id} changed {REWRITES_MAX} times while it was written")

    async def _keep_wake_up(self, tenant: str, schedule_id: str) -> None:
        """Let the bus hold the wake-up that the entry asks for, and no other.

        The entry is read before the wake-up: whoever changes the entry meanwhile comes here afterwards, and
        either replaces what is placed here, or was faster, and then this placing loses.
        """
        for _ in range(REWRITES_MAX):
            entry = await self._store.get(tenant, schedule_id)
            planned = entry.value.next_run_at if entry else None
            pending = await self._wake_ups.pending(tenant, schedule_id)
            if planned is None:
                if pending is not None:
                    await self._wake_ups.remove(tenant, schedule_id, pending.sequence)
                return
            if pending is not None and pending.wake_up is not None and pending.wake_up.planned == planned:
                return
            if await self._wake_ups.place(
                tenant, schedule_id, WakeUp(planned=planned), planned, pending.sequence if pending else 0
            ):
                return
        raise BusError(f"the wake-up of schedule {schedule_id} changed {REWRITES_MAX} times")

    def _owners(self, schedule_id: str) -> list[str]:
        return [tenant for tenant, ids in self._tenants.items() if schedule_id in ids]
