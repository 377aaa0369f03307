"""The way to the workers: WORK, the bucket ``control``, and what still waits in Q and DOCS."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import structlog

from pharos_contracts import streams, subjects
from pharos_contracts.control.v1 import Action, StopItem
from pharos_contracts.jobs.v1 import NO_NUMBER, Job, SubmitJob, WorkItem
from pharos_contracts.message import UnreadableMessage, decode
from pharos_contracts.subjects import ITEM_CLEAR, ITEM_REPOSITORY, QueuedCommand
from pharos_scheduler.ports import Clock, Handed
from pharos_service.buckets import Bucket
from pharos_service.bus import MARKER, Bus, BusRefused, WrongLastSequence

log = structlog.get_logger()


class BusDispatcher:
    """The adapter of ``ports.Dispatcher``."""

    def __init__(self, bus: Bus, now: Clock, check: Callable[[], None]) -> None:
        """*check* is called before each hand-out, and raises where this leader may lead no more."""
        self._bus = bus
        self._now = now
        self._check = check
        self._control = Bucket(bus, streams.KV_CONTROL, StopItem)

    async def dispatch(self, item: WorkItem) -> None:
        self._check()
        try:
            await self._bus.publish(
                subjects.work_subject(item),
                item,
                message_id=subjects.work_message_id(item),
                expect_last=0,  # an item is in the queue once, whoever handed it out
            )
        except WrongLastSequence:
            log.info("item_handed_out_already", job_id=item.job.job_id, item_id=item.item_id)

    async def handed(self) -> Handed:
        info = await self._bus.api(f"STREAM.INFO.{streams.WORK}", {"subjects_filter": "work.>"})
        items = [subject.split(".")[2:4] for subject in info["state"].get("subjects") or {}]
        return Handed(
            items=frozenset((job_id, item_id) for job_id, item_id in items if item_id != ITEM_CLEAR),
            jobs=frozenset(job_id for job_id, item_id in items if item_id != ITEM_CLEAR),
            clearing=frozenset(job_id for job_id, item_id in items if item_id == ITEM_CLEAR),
        )

    async def withdraw(self, job: Job, action: Action, fact: int, item_id: str = ITEM_REPOSITORY) -> None:
        self._check()
        stop = StopItem(job_id=job.job_id, item_id=item_id, action=action, fact=fact, at=self._now())
        await self._control.put(subjects.held_name(job, item_id), stop)
        await self.remove_item(job.job_id, item_id)

    async def remove_item(self, job_id: str, item_id: str = ITEM_REPOSITORY) -> None:
        self._check()
        await self._bus.api(f"STREAM.PURGE.{streams.WORK}", {"filter": subjects.work_item(job_id, item_id)})

    async def commands(self) -> frozenset[str]:
        found: set[str] = set()
        for stream in (streams.Q, streams.DOCS):
            info = await self._bus.api(f"STREAM.INFO.{stream}", {"subjects_filter": ">"})
            found.update(subject.rpartition(".")[2] for subject in info["state"].get("subjects") or {})
        return frozenset(found)

    async def remove_command(self, job: Job) -> None:
        if job.document is not None:
            subject = subjects.document_command_filter(job.job_id)
            await self._bus.api(f"STREAM.PURGE.{streams.DOCS}", {"filter": subject})
            return
        with contextlib.suppress(BusRefused):  # it is gone already
            await self._bus.api(f"STREAM.MSG.DELETE.{streams.Q}", {"seq": job.number, "no_erase": True})

    async def lapsed(self, job_id: str) -> QueuedCommand | None:
        found = await self._bus.last(streams.TIMERS, subjects.timer_filter(job_id))
        if found is None or MARKER not in found.headers:
            return None
        return subjects.parse_timer(found.subject)

    async def queued(self, job_id: str) -> tuple[SubmitJob, int] | None:
        found, is_document = await self._bus.first(streams.Q, subjects.command_filter(job_id)), False
        if found is None:
            subject = subjects.document_command_filter(job_id)
            found, is_document = await self._bus.first(streams.DOCS, subject), True
        if found is None:
            return None
        try:
            command: SubmitJob = decode(found.data, SubmitJob)
        except UnreadableMessage as error:
            log.error("command_unreadable", subject=found.subject, error=error.reason)
            return None
        return command, NO_NUMBER if is_document else found.sequence
