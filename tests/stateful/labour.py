"""Work that costs nothing but a moment, and ends as the history says. It keeps to the port of real work.

It writes beside what is live, asks before every write whether it may, shows a first index before the rest is
in, publishes by compare-and-set, and takes back what it wrote. A day of work may also be the worker's last.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Final

import anyio

from pharos_contracts import streams
from pharos_contracts.datasets.v1 import Dataset, IndexStage
from pharos_contracts.identity import dataset_key
from pharos_contracts.jobs.v1 import IndexResult, Job, Stage, WorkItem
from pharos_embedder.ports import Failed, Held, NothingToDo, Problem
from pharos_service.buckets import Bucket, Entry
from pharos_service.bus import Bus, BusUnavailable
from tests.stateful.processes import Process
from tests.stateful.shelf import BEGAN, CLEARED, DIED, PUBLISHED, DatasetName, Row, Shelf

WRITES: Final = 24
PAUSE_SECONDS: Final = 0.004
LONG_PAUSE_SECONDS: Final = 0.1
SHOWN_AFTER: Final = 1
BROKEN_AFTER: Final = 2


class Day(StrEnum):
    """How one run of a job goes."""

    QUICK = "quick"
    LONG = "long"
    TRANSIENT = "transient"
    PERMANENT = "permanent"
    NOTHING = "nothing"  # there is nothing to do, if the dataset is there already
    BUG = "bug"
    TROUBLE = "trouble"  # the bus does not answer the work itself
    DIE = "die"
    DIE_PUBLISHING = "die_publishing"  # committing was said, and the record is not written
    DIE_PUBLISHED = "die_published"  # the record is written, and completed is not said
    DIE_ENDED = "die_ended"  # completed was said, and the item is not settled


class PublishConflict(Exception):
    """Another job published the dataset meanwhile."""


class Labour:
    """The ``ports.Work`` of one worker process; *day* says how the n-th run of a job goes, from 0."""

    def __init__(
        self, bus: Bus, shelf: Shelf, process: Process, instance: str, day: Callable[[str, int], Day]
    ) -> None:
        self._datasets = Bucket(bus, streams.KV_DATASETS, Dataset)
        self._shelf = shelf
        self._process = process
        self._instance = instance
        self._day = day

    async def run(self, held: Held) -> IndexResult:
        job, run = held.job, secrets.token_hex(4)
        self._shelf.note(BEGAN, job.job_id, held.attempt, run, self._instance)
        day = self._day_of(job, run)
        name, live = _name(job), await self._live(job)
        full = live is not None and live.value.stage is IndexStage.FULL
        if day is Day.NOTHING and full:
            raise NothingToDo("Nothing has changed since")
        built_on = live.value.generation if live is not None else 0
        result = IndexResult(
            dataset=name[2],
            generation=max(built_on + 1, int(time.time())),
            built_on=built_on,
            commit=run,
            files_processed=1,
            embeddings_generated=WRITES,
            chunks=WRITES,
        )
        self._may_write(held)
        self._shelf.discard_unpublished(name, built_on)
        for number in range(WRITES):
            long = self._day_of(job, run) is Day.LONG  # until everything is healed
            await asyncio.sleep(LONG_PAUSE_SECONDS if long else PAUSE_SECONDS)
            self._may_write(held)
            self._shelf.put(Row(name, result.generation, job.job_id, held.attempt, run), by=self._instance)
            held.report(Stage.ENCODE, number + 1, WRITES)
            if number == SHOWN_AFTER and not full:
                with anyio.CancelScope(shield=True):  # not left half done
                    await self._publish(job, result, IndexStage.LEXICAL)
                await held.lexical_ready(result.dataset, 1, WRITES)
            if number == BROKEN_AFTER:
                await self._break_off(day, job, run)
        return result

    async def finish(self, item: WorkItem, result: IndexResult) -> IndexResult:
        job = item.job
        await self._last_day(Day.DIE_PUBLISHING, job, result.commit)
        try:
            await self._publish(job, result, IndexStage.FULL)
        except PublishConflict as conflict:
            raise Failed(Problem(sentence="It was overtaken", code="publish_conflict")) from conflict
        self._shelf.note(PUBLISHED, job.job_id, job.attempt, result.commit, self._instance)
        await self._last_day(Day.DIE_PUBLISHED, job, result.commit)
        return result

    async def tidy(self, item: WorkItem, result: IndexResult) -> None:
        job = item.job
        await self._last_day(Day.DIE_ENDED, job, result.commit)
        self._shelf.collect(_name(job), result.built_on)

    async def clear(self, item: WorkItem, attempts: int, *, forget: bool) -> None:
        job = item.job
        live = await self._withdraw(job)
        self._may_live()
        self._shelf.undo(_name(job), job.job_id, attempts, live)
        self._shelf.note(CLEARED, job.job_id, attempts, "", self._instance)

    def _day_of(self, job: Job, run: str) -> Day:
        return self._day(job.job_id, self._shelf.number_of(job.job_id, run))

    async def _break_off(self, day: Day, job: Job, run: str) -> None:
        """What comes in the middle of a run that does not get to its end."""
        match day:
            case Day.TRANSIENT:
                raise Failed(Problem(sentence="The host did not answer", code="fetch_failed", transient=True))
            case Day.PERMANENT:
                raise Failed(Problem(sentence="Repository not found", code="repository_not_found"))
            case Day.BUG:
                raise ZeroDivisionError
            case Day.TROUBLE:
                raise BusUnavailable("The work itself lost the bus")
        await self._last_day(Day.DIE, job, run)

    async def _last_day(self, way: Day, job: Job, run: str) -> None:
        """Die here, if the run is to end this *way* and has not yet."""
        if self._day_of(job, run) is not way or any(deed.run == run for deed in self._shelf.done(DIED)):
            return
        self._shelf.note(DIED, job.job_id, job.attempt, run, self._instance)
        self._process.kill()
        await asyncio.Event().wait()

    def _may_live(self) -> None:
        """What stands for a dead process does nothing more."""
        if self._process.dead:
            raise asyncio.CancelledError

    def _may_write(self, held: Held) -> None:
        self._may_live()
        held.check()

    # The record of the dataset, as pharos_embedder.publishing keeps it; that module loads torch.

    async def _live(self, job: Job) -> Entry[Dataset] | None:
        return await self._datasets.get(dataset_key(*_name(job)))

    async def _publish(self, job: Job, result: IndexResult, stage: IndexStage) -> None:
        """Make *result* what readers see; PublishConflict where another job got there first. Repeatable."""
        while True:
            entry = await self._live(job)
            now = entry.value if entry else None
            if _is_published(now, job, result, stage):
                return
            if not _may_follow(now, job, result):
                raise PublishConflict
            record = self._record(job, result, stage)
            key = dataset_key(*_name(job))
            if entry is None:
                written = await self._datasets.create(key, record)
            else:
                written = await self._datasets.update(key, record, entry.revision)
            if written is not None:
                return

    def _record(self, job: Job, result: IndexResult, stage: IndexStage) -> Dataset:
        return Dataset(
            tenant=job.tenant,
            project=job.project,
            dataset=result.dataset,
            scope=job.scope,
            repository=job.source.identity,
            clone_url=job.source.clone_url,
            branch=result.branch,
            commit=result.commit,
            generation=result.generation,
            stage=stage,
            job_id=job.job_id,
            files=result.files_processed,
            chunks=result.chunks,
            encoder="e",
            chunker="c",
            published_at=self._process.clock.now(),
        )

    async def _withdraw(self, job: Job) -> int:
        """Take back what the job showed before it was done; the generation that is live then, 0: none."""
        entry = await self._live(job)
        if entry is None:
            return 0
        record = entry.value
        if record.job_id != job.job_id or record.stage is not IndexStage.LEXICAL:
            return record.generation
        if not await self._datasets.delete(entry.key, entry.revision):
            raise PublishConflict
        return 0


def _name(job: Job) -> DatasetName:
    return job.tenant, job.project, f"{job.source.identity}@{job.source.branch or 'main'}"


def _is_published(record: Dataset | None, job: Job, result: IndexResult, stage: IndexStage) -> bool:
    return (
        record is not None
        and record.job_id == job.job_id
        and record.generation >= result.generation
        and (record.stage is stage or record.stage is IndexStage.FULL)
    )


def _may_follow(record: Dataset | None, job: Job, result: IndexResult) -> bool:
    if record is None:
        return result.built_on == 0
    if record.generation == result.generation:
        return record.job_id == job.job_id and record.stage is IndexStage.LEXICAL
    return record.generation == result.built_on
