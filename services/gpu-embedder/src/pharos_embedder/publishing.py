"""Publishing a generation: one compare-and-set of the dataset's record, finished even after a crash."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from datetime import datetime
from time import monotonic as clock
from typing import Final, TypeVar

import structlog

from pharos_contracts import streams
from pharos_contracts.datasets.v1 import Dataset, DatasetRecord, DeletedDataset, IndexStage
from pharos_contracts.identity import dataset_key
from pharos_contracts.jobs.v1 import IndexResult, Job, JobKind
from pharos_embedder.dataset_locks import DatasetLocks
from pharos_embedder.pipeline import Target
from pharos_embedder.ports import Check, unchecked
from pharos_embedder.stages import Live
from pharos_embedder.vectors import DatasetKey
from pharos_service.buckets import Bucket, Entry
from pharos_service.bus import Bus, BusUnavailable, FateUnknown

log = structlog.get_logger()

T = TypeVar("T")

PATIENCE_SECONDS: Final = 20.0
RETRY_SECONDS: Final = 0.2


async def patiently(act: Callable[[], Awaitable[T]]) -> T:
    """What *act* returns, done again while the bus is away; it must be repeatable."""
    deadline = clock() + PATIENCE_SECONDS
    while True:
        try:
            return await act()
        except (BusUnavailable, FateUnknown) as error:
            if clock() >= deadline:
                raise
            log.debug("bus_waited_for", reason=str(error))
        await asyncio.sleep(RETRY_SECONDS)


class PublishConflict(Exception):
    """Another job published the dataset meanwhile; this one has to be done again on top of it."""

    def __init__(self, dataset: str) -> None:
        super().__init__(f"The dataset {dataset} was published by another job meanwhile")


class DeletedMeanwhile(Exception):
    """The dataset was deleted since the job began; it would come back if this were published."""

    def __init__(self, dataset: str) -> None:
        super().__init__(
            f"The dataset {dataset} was deleted while this job worked on it; submit it again to have it back"
        )


def is_published(record: DatasetRecord | None, job: Job, result: IndexResult, stage: IndexStage) -> bool:
    """Whether *record* already says what publishing *result* would make it say, or more.

    A batch publishes one generation after the other, and none of them stands for an earlier one.
    """
    if not isinstance(record, Dataset) or record.job_id != job.job_id:
        return False
    if job.kind is JobKind.BATCH:
        return record.generation == result.generation
    return record.generation >= result.generation and (
        record.stage is stage or record.stage is IndexStage.FULL
    )


def may_follow(record: DatasetRecord | None, job: Job, result: IndexResult) -> bool:
    """Whether *result* was built on what *record* says is live, or on what a deletion left behind."""
    if record is None:
        return result.built_on == 0
    if isinstance(record, DeletedDataset):
        return record.generation == result.built_on
    if record.generation == result.generation:
        return record.job_id == job.job_id and record.stage is IndexStage.LEXICAL
    return record.generation == result.built_on


async def nothing() -> None:
    """What is looked at before a publishing where there is nothing to look at."""


class Publisher:
    """The bucket ``datasets``, as a worker uses it, and in ``locks`` who may write for it.

    What it is asked is repeatable, so a bus that is away for a moment costs that moment and not the work so
    far; away for longer than ``PATIENCE_SECONDS``, its error is raised.
    """

    def __init__(
        self,
        bus: Bus,
        *,
        encoder: str,
        chunker: str,
        now: Callable[[], datetime],
        on_change: Callable[[str, Dataset | None], None],
    ) -> None:
        """*on_change* hears of every record that this process wrote, or took away, at once.

        Who searches in the same process must not wait for the bus to tell it what it has just told the bus:
        a client that saw its job complete finds what it made.
        """
        self._bucket = Bucket[DatasetRecord](bus, streams.KV_DATASETS, DatasetRecord)
        self.locks: Final = DatasetLocks(bus, "jobs")
        self._encoder = encoder
        self._chunker = chunker
        self._now = now
        self._on_change = on_change

    async def target(self, job: Job, name: str) -> Target:
        """Where an index of *job* under the dataset's *name* goes, and what is live there."""
        entry = await patiently(lambda: self._entry(job, name))
        live = Live()
        record = entry.value if entry is not None else None
        if isinstance(record, DeletedDataset):
            live = Live(deleted=record.generation)
        elif record is not None:
            live = Live(
                generation=record.generation,
                full=record.stage is IndexStage.FULL,
                files=record.files,
                repository=record.repository,
                scope=record.scope,
                commit=record.commit,
                encoder=record.encoder,
                chunker=record.chunker,
            )
        return Target(dataset=DatasetKey(job.tenant, job.project, name), live=live)

    async def publish(
        self,
        job: Job,
        result: IndexResult,
        stage: IndexStage,
        *,
        check: Check = unchecked,
        look: Callable[[], Awaitable[None]] = nothing,
    ) -> None:
        """Make *result* what readers see. Repeatable.

        PublishConflict when another job got there first, DeletedMeanwhile when its dataset was deleted.
        *look* and then *check* are called before anything is written; what they raise ends this.
        """
        await patiently(lambda: self._publish(job, result, stage, check, look))

    async def _publish(
        self,
        job: Job,
        result: IndexResult,
        stage: IndexStage,
        check: Check,
        look: Callable[[], Awaitable[None]],
    ) -> None:
        key = dataset_key(job.tenant, job.project, result.dataset)
        entry = await self._entry(job, result.dataset)
        current = entry.value if entry else None
        if is_published(current, job, result, stage):
            if isinstance(current, Dataset):  # perhaps by this process, whose answer was lost
                self._on_change(key, current)
            return
        if not may_follow(current, job, result):
            if isinstance(current, DeletedDataset):
                raise DeletedMeanwhile(result.dataset)
            raise PublishConflict(result.dataset)
        await look()
        record = Dataset(
            tenant=job.tenant,
            project=job.project,
            dataset=result.dataset,
            scope=job.scope,
            repository=job.source.identity if job.source else "",
            clone_url=job.source.clone_url if job.source else "",
            branch=result.branch,
            commit=result.commit,
            generation=result.generation,
            stage=stage,
            job_id=job.job_id,
            files=result.dataset_files or result.files_processed,
            chunks=result.dataset_chunks or result.chunks,
            encoder=self._encoder,
            chunker=self._chunker,
            published_at=self._now(),
        )
        check()
        if entry is None:
            written = await self._bucket.create(key, record)
        else:
            written = await self._bucket.update(key, record, entry.revision)
        if written is None:
            raise PublishConflict(result.dataset)
        self._on_change(key, record)
        log.info("dataset_published", dataset=result.dataset, generation=result.generation, stage=stage)

    async def withdraw(self, job: Job, name: str, generations: Collection[int]) -> int:
        """Take back what *job* showed of *generations* before its vectors were in; what is live then.

        0 is nothing. PublishConflict where somebody else published meanwhile.
        """
        return await patiently(lambda: self._withdraw(job, name, generations))

    async def _withdraw(self, job: Job, name: str, generations: Collection[int]) -> int:
        entry = await self._entry(job, name)
        if entry is None:
            return 0
        record = entry.value
        if isinstance(record, DeletedDataset):
            return 0
        shown = record.job_id == job.job_id and record.stage is IndexStage.LEXICAL
        if not shown or record.generation not in generations:
            return record.generation
        if not await self._bucket.delete(entry.key, entry.revision):
            raise PublishConflict(name)
        self._on_change(entry.key, None)
        return 0

    async def _entry(self, job: Job, name: str) -> Entry[DatasetRecord] | None:
        return await self._bucket.get(dataset_key(job.tenant, job.project, name))
