"""Points that nobody will see any more and that nobody else removes: which these are, and removing them.

A run begins by discarding what an unfinished one left in its dataset and ends by collecting what it retired,
and what a failed job wrote is cleared with it. So this is for datasets after which nothing comes: of a worker
that died last, of a deletion that nobody finished, of an index that is never made again.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final

import anyio.to_thread
import msgspec
import structlog

from pharos_contracts import streams, subjects
from pharos_contracts.datasets.v1 import Dataset, DatasetRecord, DeletedDataset, WriteLock
from pharos_contracts.identity import dataset_key
from pharos_contracts.jobs.v1 import AnyJobEvent
from pharos_contracts.lifecycle import TERMINAL
from pharos_contracts.message import UnreadableMessage, decode
from pharos_embedder.kept import Kept, forgetting
from pharos_embedder.vectors import MILLISECONDS_FROM, DatasetKey, VectorStore
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus, Stored

log = structlog.get_logger()

READ_SECONDS: Final = 600.0  # far above what a reader takes that began before a generation was published
SETTLED_SECONDS: Final = 3_600.0  # after it began: who ended since has taken back by now what it wrote
DROP_POINTS: Final = 1_000  # a step


class Rubbish(msgspec.Struct, frozen=True, kw_only=True):
    """What of a dataset may go.

    ``retired``: points that a generation up to this retired. ``dropped``: all that came with one up to this.
    ``unpublished``: the generations that were begun and never published, if no open job wrote them.
    """

    retired: int = 0
    dropped: int = 0
    unpublished: tuple[int, ...] = ()


def rubbish(record: DatasetRecord | None, born: Collection[int], now: datetime) -> Rubbish:
    """What may go of a dataset with points of the generations *born*, as its *record* is *now*."""
    settled = tuple(sorted(number for number in born if _age(number, now) > SETTLED_SECONDS))
    match record:
        case Dataset(generation=live, published_at=at):
            return Rubbish(
                retired=live if now - at > timedelta(seconds=READ_SECONDS) else 0,
                unpublished=tuple(number for number in settled if number > live),
            )
        case DeletedDataset(generation=deleted):
            return Rubbish(
                dropped=deleted, unpublished=tuple(number for number in settled if number > deleted)
            )
        case _:
            return Rubbish(unpublished=settled)


def _age(generation: int, now: datetime) -> float:
    """Seconds since *generation* was begun, or fewer: its number may be ahead of the clock."""
    began = generation / 1_000 if generation >= MILLISECONDS_FROM else generation
    return now.timestamp() - began


def remove(dataset: DatasetKey, found: Rubbish, store: VectorStore, kept: Kept | None, encoder: str) -> int:
    """Remove what was *found* of *dataset*; how many points went. Repeatable. Blocks.

    What is finished of a deletion is forgotten by this machine, as by the deletion itself.
    """
    before = store.size(dataset)
    forget = forgetting(kept, encoder)
    while found.dropped and store.drop(dataset, found.dropped, most=DROP_POINTS, forget=forget).left:
        pass
    if found.dropped and kept is not None:
        kept.forget_dataset(dataset)
    if found.retired:
        store.collect(dataset, found.retired)
    for generation in found.unpublished:
        store.discard(dataset, generation)
    return max(0, before - store.size(dataset))


class Sweeping:
    """Removes rubbish from *store*.

    *alone*: nobody else uses the store, so that a dataset which this bus has no record of is nobody's. On a
    server it may be that of another installation: only what jobs of this bus wrote goes. Where this process
    takes no jobs it has nothing *kept*; *encoder* is that of chunks which do not say it.
    """

    def __init__(self, bus: Bus, store: VectorStore, kept: Kept | None, *, alone: bool, encoder: str) -> None:
        self._bus = bus
        self._records = Bucket[DatasetRecord](bus, streams.KV_DATASETS, DatasetRecord)
        self._locks = Bucket(bus, streams.KV_LOCKS, WriteLock)
        self._store = store
        self._alone = alone
        self._kept = kept
        self._encoder = encoder

    async def sweep(self, now: datetime) -> int:
        """How many points went. Raises StoreError and the errors of the bus; then it is to be repeated."""
        found = await anyio.to_thread.run_sync(self._store.datasets)
        records = {key: await self._record(key) for key in sorted(found)}
        # A bus that was made anew, or has lost its records alone, knows of no dataset: then the index may be
        # all that is left, and it stays.
        knows = any(record is not None for record in records.values())
        removed = 0
        for key, record in records.items():
            if record is None and not knows:
                continue
            removed += await self._sweep(key, record, now)
        return removed

    async def _record(self, key: DatasetKey) -> DatasetRecord | None:
        entry = await self._records.get(dataset_key(key.tenant, key.project, key.dataset))
        return None if entry is None else entry.value

    async def _sweep(self, key: DatasetKey, record: DatasetRecord | None, now: datetime) -> int:
        born = await anyio.to_thread.run_sync(self._store.generations, key)
        wanted = rubbish(record, born.keys(), now).unpublished
        ended = [number for number in wanted if not await self._is_written(key, number)]
        if record is None and not self._alone:
            ended = [number for number in ended if await self._is_ours(key, number)]
        # Again, since a job may have published before it ended; from then on it publishes no more.
        found = rubbish(await self._record(key), born.keys(), now)
        found = msgspec.structs.replace(
            found, unpublished=tuple(number for number in found.unpublished if number in ended)
        )
        removed = await anyio.to_thread.run_sync(remove, key, found, self._store, self._kept, self._encoder)
        if removed > 0:
            log.info("dataset_swept", dataset=key.dataset, points=removed)
        return removed

    async def _is_written(self, key: DatasetKey, generation: int) -> bool:
        """Whether an open job has a part in *generation*, or somebody holds the dataset, as for a restore."""
        name = dataset_key(key.tenant, key.project, key.dataset)
        if await self._locks.get(name) is not None:
            return True
        for job in await anyio.to_thread.run_sync(self._store.writers, key, generation):
            if await self._is_open(key.tenant, job):
                return True
        return False

    async def _is_ours(self, key: DatasetKey, generation: int) -> bool:
        """Whether this bus knows every job that had a part in *generation*."""
        jobs = await anyio.to_thread.run_sync(self._store.writers, key, generation)
        known = [await self._last(key.tenant, job) is not None for job in jobs]
        return bool(known) and all(known)

    async def _is_open(self, tenant: str, job_id: str) -> bool:
        """Whether the job may still write or publish. One that nothing is known of ended long ago."""
        if not job_id:
            return False
        last = await self._last(tenant, job_id)
        if last is None:
            return False
        try:
            event: AnyJobEvent = decode(last.data, AnyJobEvent)
        except UnreadableMessage:
            return True  # of another release, which will know
        return event.job.state not in TERMINAL

    async def _last(self, tenant: str, job_id: str) -> Stored | None:
        """The last event of the job, if this bus has any."""
        last = await self._bus.last(streams.JOBS, subjects.job_events(tenant, job_id))
        return last or await self._bus.last(streams.LEDGER, subjects.ledger_job(tenant, job_id))
