"""What a worker says of the item that it holds, and the proof that it still holds it.

Each fact names the sequence of the one before, so a worker that lost its item, frozen or cut off while
another took over, cannot say another word about it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from pharos_contracts import streams, subjects
from pharos_contracts.jobs.v1 import AnyItemEvent, ItemEvent, WorkItem
from pharos_contracts.message import decode, tag_of
from pharos_service.bus import Bus
from pharos_service.journal import Journal

E = TypeVar("E", bound=ItemEvent)


class ItemLog:
    """The facts of one item, as one try at it writes them."""

    def __init__(
        self, bus: Bus, item: WorkItem, *, attempt: int, worker: str, now: Callable[[], datetime]
    ) -> None:
        self._bus = bus
        self._journal = Journal(bus, streams.JOBS)
        self._item = item
        self._attempt = attempt
        self._worker = worker
        self._now = now
        self._scope = subjects.item_events(item.job.tenant, item.job.job_id, item.item_id)
        self._sequence = 0

    async def last(self) -> AnyItemEvent | None:
        """What was said of the item last, by whomever; what this log says next will follow it."""
        found = await self._bus.last(streams.JOBS, self._scope)
        if found is None:
            self._sequence = 0
            return None
        self._sequence = found.sequence
        event: AnyItemEvent = decode(found.data, AnyItemEvent)
        return event

    async def say(self, kind: type[E], **facts: Any) -> None:
        """Write a fact; Superseded where somebody else has the item now."""
        name = tag_of(kind).rpartition(".")[2]
        event = kind(
            # What follows one fact is one fact: a repeat after an unknown fate is the same message.
            event_id=f"{self._item.job.job_id}.{self._item.item_id}:{self._sequence}:{name}:{self._worker}",
            at=self._now(),
            tenant=self._item.job.tenant,
            job_id=self._item.job.job_id,
            item_id=self._item.item_id,
            attempt=self._attempt,
            dispatch=self._item.dispatch,
            worker=self._worker,
            **facts,
        )
        self._sequence = await self._journal.append(
            subjects.item_event_subject(event),
            event,
            message_id=event.event_id,
            scope=self._scope,
            expect_last=self._sequence,
        )
