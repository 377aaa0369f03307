"""What a scheduler and workers say of a batch, by hand; and a history that hears it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from msgspec.structs import replace

from pharos_contracts import subjects
from pharos_contracts.batches.v1 import PartTally, Tally
from pharos_contracts.history.v1 import FindJob, JobPage
from pharos_contracts.jobs.v1 import (
    EVENT_OF_STATE,
    IndexResult,
    ItemCommitting,
    ItemCompleted,
    ItemFailed,
    ItemSkipped,
    ItemStarted,
    Job,
    JobAdvanced,
    Progress,
    Stage,
)
from pharos_contracts.lifecycle import JobState
from pharos_contracts.rpc import HISTORY
from pharos_history.app import serve
from pharos_history.settings import HistorySettings
from pharos_service.asking import NobodyAnswers, QuestionRefused, ask
from pharos_service.bus import Bus
from pharos_service.ending import end
from tests.support.gateway import now

RESULT = IndexResult(
    dataset="connections/papers", generation=1, commit="", files_processed=1, embeddings_generated=4, chunks=4
)


@asynccontextmanager
async def history(bus: Bus, nats_url: str, home: Path) -> AsyncIterator[None]:
    """The history service, in this process."""
    running = asyncio.create_task(serve(HistorySettings(nats_url=nats_url, home=str(home))))
    try:
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(NobodyAnswers, QuestionRefused):
                    await ask(bus, HISTORY, FindJob(tenant="default", job_id="none"), JobPage, timeout=0.5)
                    break
                await asyncio.sleep(0.05)
        yield
    finally:
        await end(running)


class Told:
    """A batch, as those who write its facts keep it. ``job`` is as of the last one."""

    def __init__(self, bus: Bus, job: Job) -> None:
        assert job.batch is not None
        self._bus = bus
        self.job = job
        self.last = 0
        self._counts = [[0, 0, 0] for _ in job.batch.parts]

    async def become(self, state: JobState, **changes: Any) -> int:
        self.job = replace(self.job, state=state, tally=self.tally(), **changes)
        event = EVENT_OF_STATE[state](event_id=str(uuid4()), at=now(), job=self.job)
        self.last = (await self._bus.publish(subjects.job_event_subject(event), event)).seq
        return self.last

    async def advance(self) -> None:
        self.job = replace(self.job, tally=self.tally())
        event = JobAdvanced(event_id=str(uuid4()), at=now(), job=self.job)
        self.last = (await self._bus.publish(subjects.job_event_subject(event), event)).seq

    def tally(self) -> Tally:
        since = self.job.tally.since if self.job.tally is not None else 0
        return Tally(
            parts=tuple(PartTally(completed=c, failed=f, skipped=s) for c, f, s in self._counts), since=since
        )

    def _part(self, item: int) -> int:
        assert self.job.batch is not None
        for place, part in enumerate(self.job.batch.parts):
            if item < part.files:
                return place
            item -= part.files
        raise AssertionError("the batch has fewer files")

    async def say(self, kind: type[Any], item: int, attempt: int = 1, **more: Any) -> int:
        event = kind(
            event_id=str(uuid4()),
            at=now(),
            tenant=self.job.tenant,
            job_id=self.job.job_id,
            item_id=str(item),
            attempt=attempt,
            dispatch=1,
            worker="w1",
            **more,
        )
        self.last = (await self._bus.publish(subjects.item_event_subject(event), event)).seq
        return self.last

    async def start(self, item: int, attempt: int = 1) -> None:
        await self.say(ItemStarted, item, attempt)

    async def complete(self, item: int, attempt: int = 1) -> None:
        await self.say(ItemCommitting, item, attempt, result=RESULT)
        await self.say(ItemCompleted, item, attempt, result=RESULT)
        self._counts[self._part(item)][0] += 1

    async def fail(self, item: int, attempt: int = 1, *, transient: bool = False) -> None:
        await self.say(ItemFailed, item, attempt, error="It cannot be read", code="x", transient=transient)
        if not transient:
            self._counts[self._part(item)][1] += 1

    async def skip(self, item: int) -> None:
        await self.say(ItemSkipped, item, reason="This version of the file is already indexed")
        self._counts[self._part(item)][2] += 1

    def forget_failures(self) -> None:
        for counts in self._counts:
            counts[1] = 0

    async def progress(self, item: int, stage: Stage, attempt: int = 1) -> None:
        progress = Progress(
            tenant=self.job.tenant,
            job_id=self.job.job_id,
            item_id=str(item),
            attempt=attempt,
            at=now(),
            stage=stage,
            done=1,
            total=2,
            percent=50,
        )
        await self._bus.publish(subjects.progress_subject(progress), progress)
