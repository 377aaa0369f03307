"""What a worker says of the item that it holds, and the proof that it still holds it.

Each fact names the sequence of the one before, so a worker that lost its item, frozen or cut off while
another took over, cannot say another word about it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from pharos_contracts import streams, subjects
from pharos_contracts.jobs.v1 import AnyItemEvent, ItemEvent, WorkItem
from pharos_contracts.message import decode, tag_of
from pharos_embedder.taking import Fact
from pharos_service.bus import Bus
from pharos_service.journal import Journal

E = TypeVar("E", bound=ItemEvent)


async def last_fact(bus: Bus, tenant: str, job_id: str, item_id: str) -> Fact | None:
    """What was said of an item last, by whomever; None where nothing was."""
    found = await bus.last(streams.JOBS, subjects.item_events(tenant, job_id, item_id))
    if found is None:
        return None
    event: AnyItemEvent = decode(found.data, AnyItemEvent)
    return Fact(event, found.sequence)


class ItemLog:
    """The facts of one item, as one try at it writes them behind *last*."""

    def __init__(
        self,
        bus: Bus,
        item: WorkItem,
        last: Fact | None,
        *,
        attempt: int,
        deaths: int,
        worker: str,
        instance: str,
        now: Callable[[], datetime],
    ) -> None:
        self._bus = bus
        self._journal = Journal(bus, streams.JOBS)
        self._item = item
        self._attempt = attempt
        self._deaths = deaths
        self._worker = worker
        self._instance = instance
        self._now = now
        self._scope = subjects.item_events(item.job.tenant, item.job.job_id, item.item_id)
        self._sequence = last.sequence if last is not None else 0
        self._writing = asyncio.Lock()

    @property
    def sequence(self) -> int:
        """That of the fact that was said last, as far as this log knows."""
        return self._sequence

    async def said_by_another(self) -> Fact | None:
        """What somebody else has said of the item since, and so taken it; None while it is this try's."""
        async with self._writing:
            job = self._item.job
            last = await last_fact(self._bus, job.tenant, job.job_id, self._item.item_id)
            return None if last is None or last.sequence == self._sequence else last

    async def say(self, kind: type[E], **facts: Any) -> None:
        """Write a fact; Superseded where somebody else has the item now."""
        async with self._writing:
            name = tag_of(kind).rpartition(".")[2]
            said = f"{self._item.job.job_id}.{self._item.item_id}:{self._sequence}:{name}"
            event = kind(
                # What follows one fact is one fact: a repeat after an unknown fate is the same message.
                event_id=f"{said}:{self._instance}",
                at=self._now(),
                tenant=self._item.job.tenant,
                job_id=self._item.job.job_id,
                item_id=self._item.item_id,
                attempt=self._attempt,
                dispatch=self._item.dispatch,
                worker=self._worker,
                instance=self._instance,
                deaths=self._deaths,
                **facts,
            )
            self._sequence = await self._journal.append(
                subjects.item_event_subject(event),
                event,
                message_id=event.event_id,
                scope=self._scope,
                expect_last=self._sequence,
            )
