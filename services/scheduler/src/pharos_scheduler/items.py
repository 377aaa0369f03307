"""The facts of items on JOBS, as the scheduler reads them and takes items away."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any, Final

from pharos_contracts import streams, subjects
from pharos_contracts.jobs.v1 import (
    AnyItemEvent,
    ItemCancelled,
    ItemFailed,
    ItemPaused,
    ItemStarted,
    Job,
    WorkItem,
)
from pharos_contracts.message import decode, tag_of
from pharos_contracts.subjects import ITEM_REPOSITORY
from pharos_scheduler.deciding import WORKER_LOST
from pharos_scheduler.ports import Clock, Fact
from pharos_service.bus import Bus
from pharos_service.journal import Journal
from pharos_service.pull import CaughtUp, tail

FACTS_READ_MAX: Final = 200
SCHEDULER: Final = "scheduler"


class BusItems:
    """The adapter of ``ports.Items``."""

    def __init__(self, bus: Bus, now: Clock) -> None:
        self._bus = bus
        self._now = now
        self._journal = Journal(bus, streams.JOBS)

    async def last(self, job: Job, item_id: str = ITEM_REPOSITORY) -> Fact | None:
        found = await self._bus.last(streams.JOBS, _scope(job, item_id))
        if found is None:
            return None
        event: AnyItemEvent = decode(found.data, AnyItemEvent)
        return Fact(event, found.sequence)

    async def of_batch(self, job: Job) -> dict[str, Fact]:
        found: dict[str, Fact] = {}
        every = [subjects.batch_item_events(job.tenant, job.job_id)]
        async with aclosing(tail(self._bus, streams.JOBS, every, last_per_subject=True)) as facts:
            async for fact in facts:
                if isinstance(fact, CaughtUp):
                    return found
                event: AnyItemEvent = decode(fact.data, AnyItemEvent)
                known = found.get(event.item_id)
                if known is None or known.sequence < fact.sequence:
                    found[event.item_id] = Fact(event, fact.sequence)
        raise AssertionError("a tail goes on for ever")

    async def take_away(self, job: Job, kind: type[ItemCancelled | ItemPaused], after: Fact | None) -> int:
        attempt = after.event.attempt if after is not None else job.attempt
        return (await self._say(job, ITEM_REPOSITORY, kind, after, attempt)).sequence

    async def take_away_file(
        self,
        job: Job,
        item_id: str,
        kind: type[ItemCancelled | ItemPaused],
        after: Fact | None,
        attempt: int,
    ) -> Fact:
        return await self._say(job, item_id, kind, after, attempt)

    async def fail(self, item: WorkItem, error: str, after: Fact | None) -> Fact:
        return await self._say(
            item.job, item.item_id, ItemFailed, after, item.attempt, error=error, code=WORKER_LOST
        )

    async def _say(
        self,
        job: Job,
        item_id: str,
        kind: type[ItemCancelled | ItemPaused | ItemFailed],
        after: Fact | None,
        attempt: int,
        **more: Any,
    ) -> Fact:
        last = after.sequence if after is not None else 0
        event = kind(
            event_id=f"{job.job_id}.{item_id}:{last}:{tag_of(kind)}",
            at=self._now(),
            tenant=job.tenant,
            job_id=job.job_id,
            item_id=item_id,
            attempt=attempt,
            dispatch=after.event.dispatch if after is not None else job.dispatch,
            worker=SCHEDULER,
            deaths=after.event.deaths if after is not None else 0,
            **more,
        )
        sequence = await self._journal.append(
            subjects.item_event_subject(event),
            event,
            message_id=event.event_id,
            scope=_scope(job, item_id),
            expect_last=last,
        )
        return Fact(event, sequence)

    async def workers(self, job: Job) -> tuple[str, ...]:
        found: dict[str, None] = {}
        sequence = 1
        for _ in range(FACTS_READ_MAX):
            stored = await self._bus.first(streams.JOBS, _scope(job, ITEM_REPOSITORY), sequence)
            if stored is None:
                break
            event: AnyItemEvent = decode(stored.data, AnyItemEvent)
            if isinstance(event, ItemStarted):
                found[event.worker] = None
            sequence = stored.sequence + 1
        return tuple(found)


def _scope(job: Job, item_id: str) -> str:
    return subjects.item_events(job.tenant, job.job_id, item_id)
