"""The facts of items on JOBS, as the scheduler reads them and takes items away."""

from __future__ import annotations

from typing import Final

from pharos_contracts import streams, subjects
from pharos_contracts.jobs.v1 import AnyItemEvent, ItemCancelled, ItemPaused, ItemStarted, Job
from pharos_contracts.message import decode, tag_of
from pharos_contracts.subjects import ITEM_REPOSITORY
from pharos_scheduler.ports import Clock, Fact
from pharos_service.bus import Bus
from pharos_service.journal import Journal

FACTS_READ_MAX: Final = 200
SCHEDULER: Final = "scheduler"


class BusItems:
    """The adapter of ``ports.Items``."""

    def __init__(self, bus: Bus, now: Clock) -> None:
        self._bus = bus
        self._now = now
        self._journal = Journal(bus, streams.JOBS)

    async def last(self, job: Job) -> Fact | None:
        found = await self._bus.last(streams.JOBS, _scope(job))
        if found is None:
            return None
        event: AnyItemEvent = decode(found.data, AnyItemEvent)
        return Fact(event, found.sequence)

    async def take_away(self, job: Job, kind: type[ItemCancelled | ItemPaused], after: Fact | None) -> int:
        last = after.sequence if after is not None else 0
        event = kind(
            event_id=f"{job.job_id}.{ITEM_REPOSITORY}:{last}:{tag_of(kind)}",
            at=self._now(),
            tenant=job.tenant,
            job_id=job.job_id,
            item_id=ITEM_REPOSITORY,
            attempt=after.event.attempt if after is not None else job.attempt,
            dispatch=after.event.dispatch if after is not None else job.dispatch,
            worker=SCHEDULER,
            deaths=after.event.deaths if after is not None else 0,
        )
        return await self._journal.append(
            subjects.item_event_subject(event),
            event,
            message_id=event.event_id,
            scope=_scope(job),
            expect_last=last,
        )

    async def workers(self, job: Job) -> tuple[str, ...]:
        found: dict[str, None] = {}
        sequence = 1
        for _ in range(FACTS_READ_MAX):
            stored = await self._bus.first(streams.JOBS, _scope(job), sequence)
            if stored is None:
                break
            event: AnyItemEvent = decode(stored.data, AnyItemEvent)
            if isinstance(event, ItemStarted):
                found[event.worker] = None
            sequence = stored.sequence + 1
        return tuple(found)


def _scope(job: Job) -> str:
    return subjects.item_events(job.tenant, job.job_id, ITEM_REPOSITORY)
