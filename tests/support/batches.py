"""Batches, as a gateway would create them, and workers that do their files by hand."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from msgspec.structs import replace

from pharos_contracts import streams
from pharos_contracts.batches.v1 import BatchFile, BatchOptions, BatchPart, BatchSource, Manifest
from pharos_contracts.connections.v1 import SourceType
from pharos_contracts.control.v1 import Action, ControlJob, CreateBatch
from pharos_contracts.jobs.v1 import (
    ItemCommitting,
    ItemCompleted,
    ItemFailed,
    ItemStarted,
    JobKind,
    Purpose,
    SubmitJob,
    WorkItem,
)
from pharos_contracts.message import decode, encode
from pharos_embedder.items import last_fact
from pharos_embedder.taking import Start, decide
from pharos_scheduler.app import utc_now
from pharos_service.bus import Bus, heeding
from pharos_service.ending import end
from pharos_service.journal import Superseded
from tests.support.scheduling import RESULT, ask, command, say


def batch_command(number: int, *parts: int, connection: str = "c", **options: Any) -> SubmitJob:
    """A batch with one part of that many files for each of *parts*, from connections ``c0``, ``c1``…"""
    wanted = command(number)
    return replace(
        wanted,
        kind=JobKind.BATCH,
        source=None,
        batch=BatchSource(
            name=f"batch-{number}",
            manifest=wanted.job_id,
            parts=tuple(
                BatchPart(
                    connection_id=f"{connection}{part}", source_type=SourceType.LOCAL_DIRECTORY, files=files
                )
                for part, files in enumerate(parts)
            ),
            options=BatchOptions(**options),
        ),
    )


def manifest_of(wanted: SubmitJob) -> Manifest:
    assert wanted.batch is not None
    files = tuple(
        BatchFile(part=part, file_id=f"{part}/{each}.txt", name=f"{each}.txt", size=10)
        for part, share in enumerate(wanted.batch.parts)
        for each in range(share.files)
    )
    return Manifest(job_id=wanted.job_id, tenant=wanted.tenant, files=files)


async def create(bus: Bus, wanted: SubmitJob) -> Any:
    """What the scheduler answers."""
    store = await bus.jetstream.object_store(streams.OBJ_MANIFESTS)
    await store.put(wanted.job_id, encode(manifest_of(wanted)))
    asked = CreateBatch(
        tenant=wanted.tenant, by="ada", at=utc_now(), reply_to=bus.client.new_inbox(), job=wanted
    )
    return await ask(bus, asked)


async def order(bus: Bus, wanted: SubmitJob, action: Action, *, failed_only: bool = True) -> Any:
    """What the scheduler answers to its owner."""
    asked = ControlJob(
        tenant=wanted.tenant,
        by="ada",
        at=utc_now(),
        reply_to=bus.client.new_inbox(),
        job_id=wanted.job_id,
        action=action,
        failed_only=failed_only,
    )
    return await ask(bus, asked)


class Hands:
    """Workers that do every file at once. ``done`` counts how often each was, by job and item."""

    def __init__(
        self, bus: Bus, do: Callable[[WorkItem], str | None], hold: Callable[[], Awaitable[None]]
    ) -> None:
        self._bus = bus
        self._do = do
        self._hold = hold
        self.done: Counter[tuple[str, str]] = Counter()
        self.cleared: list[str] = []
        self.in_hand: set[tuple[str, str]] = set()
        self.most = 0

    async def work(self) -> None:
        consumer = await self._bus.jetstream.pull_subscribe_bind(
            durable=streams.WORKERS_DOCUMENTS, stream=streams.WORK
        )
        while True:
            try:
                (message,) = await heeding(consumer.fetch(1, timeout=1))
            except TimeoutError:
                continue
            item: WorkItem = decode(message.data, WorkItem)
            if item.purpose is Purpose.CLEAR:
                self.cleared.append(item.job.job_id)
                await heeding(message.ack_sync())
                continue
            with contextlib.suppress(Superseded):  # it was taken away
                await self._take(item)
            self.in_hand.discard((item.job.job_id, item.item_id))
            await heeding(message.ack_sync())

    async def _take(self, item: WorkItem) -> None:
        name = (item.job.job_id, item.item_id)
        last = await last_fact(self._bus, item.job.tenant, *name)
        if not isinstance(decide(item, last, died=False, now=utc_now()), Start):
            return  # it was taken away before it was begun
        said = await say(self._bus, item, ItemStarted, after=last.sequence if last is not None else 0)
        self.in_hand.add(name)
        self.most = max(self.most, len(self.in_hand))
        await self._hold()
        problem = self._do(item)
        if problem is not None:
            of_it: dict[str, Any] = {"error": problem, "code": "x", "transient": problem.startswith("again")}
            await say(self._bus, item, ItemFailed, after=said, cleared=True, **of_it)
        else:
            said = await say(self._bus, item, ItemCommitting, after=said, result=RESULT)
            self.done[name] += 1
            await say(self._bus, item, ItemCompleted, after=said, result=RESULT)


async def _no_hold() -> None:
    await asyncio.sleep(0)


@asynccontextmanager
async def hands(
    bus: Bus,
    number: int = 2,
    do: Callable[[WorkItem], str | None] = lambda item: None,
    hold: Callable[[], Awaitable[None]] = _no_hold,
) -> AsyncIterator[Hands]:
    """*number* of them; what *do* says of a file is its error, and ``again…`` one that may pass."""
    at_work = Hands(bus, do, hold)
    tasks = [asyncio.create_task(at_work.work()) for _ in range(number)]
    try:
        yield at_work
    finally:
        await end(*tasks)
