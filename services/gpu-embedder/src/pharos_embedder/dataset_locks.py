"""Who writes to a dataset: one at a time, and only while it says so.

The lock is an entry that expires. Its holder renews it, and stops well before it could have expired by its
own clock; a holder that dies is replaced when its entry is gone. What a holder that was frozen has on its way
still finds that the record of the dataset moved on.

What a job has is the job's, whoever works on it: from what is live when it begins to write to what it
publishes, and over the death of its worker in between, as long as its item comes to another in time. Whoever
has the item is told by the facts about it, not by the lock.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, NamedTuple
from uuid import uuid4

import anyio
import structlog

from pharos_contracts.datasets.v1 import WriteLock
from pharos_contracts.identity import dataset_key
from pharos_contracts.streams import JOB_LOCK_TTL_SECONDS, KV_LOCKS, LOCK_TTL_SECONDS
from pharos_embedder.holding import clock
from pharos_embedder.ports import Check
from pharos_embedder.vectors import DatasetKey
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus, BusError, FateUnknown
from pharos_service.ending import end

log = structlog.get_logger()

WRITE_SHARE: Final = 0.6  # of the time to live: the last step before it must end before the lock is another's
RENEW_SHARE: Final = 0.2
WAIT_SECONDS_MAX: Final = 120.0
POLL_SECONDS: Final = 0.02
POLL_SECONDS_MAX: Final = 0.2
RENEWAL_RETRY_SECONDS: Final = 0.2
FAREWELL_SECONDS: Final = 1.0


class LockLost(Exception):
    """The dataset may be another's by now: nothing more is to be written to it."""

    def __init__(self) -> None:
        super().__init__("It is not certain any more that nobody else writes to the dataset")


class DatasetBusy(Exception):
    """Another job writes to the dataset, and did not end for as long as one waits for it."""

    def __init__(self, dataset: str) -> None:
        super().__init__(f"Another job is writing to the dataset {dataset}: wait until that one has ended")


class Claim(NamedTuple):
    """What a job has of a dataset; ``kept``: it had it before as well, and nobody wrote in between."""

    check: Check
    kept: bool


class DatasetLocks:
    """The bucket ``dataset_locks``, as the worker *holder* uses it. Times are seconds.

    ``ttl``: that of a lock of the worker's own. ``job_ttl``: that of a job's. ``wait``: for others.
    """

    def __init__(
        self,
        bus: Bus,
        holder: str,
        *,
        ttl_seconds: float = LOCK_TTL_SECONDS,
        job_ttl_seconds: float = JOB_LOCK_TTL_SECONDS,
        wait_seconds: float = WAIT_SECONDS_MAX,
    ) -> None:
        self._bucket = Bucket(bus, KV_LOCKS, WriteLock)
        self._holder = holder
        self._ttl_seconds = ttl_seconds
        self._job_ttl_seconds = job_ttl_seconds
        self._wait_seconds = wait_seconds

    @asynccontextmanager
    async def hold(self, dataset: DatasetKey) -> AsyncIterator[Check]:
        """While the block lasts nobody else writes to *dataset*, as long as the check says nothing.

        The check raises LockLost, and may be called from any thread. TimeoutError where others have the
        dataset for too long; errors of the bus pass through.
        """
        async with asyncio.timeout(self._wait_seconds):
            held = await self._acquire(_key_of(dataset), self._holder, self._ttl_seconds)
        async with self._renewed(held):
            try:
                yield held.check
            finally:
                await self._give_back(held)

    @asynccontextmanager
    async def hold_for(self, job: str, dataset: DatasetKey, *, stays: bool) -> AsyncIterator[Claim]:
        """As `hold`, for *job*, which may have the dataset since an earlier block.

        *stays*: the job has it still when the block has come to its end, for as long as an entry lives; not
        where it failed. DatasetBusy where others have it for too long.
        """
        try:
            async with asyncio.timeout(self._wait_seconds):
                held = await self._acquire(_key_of(dataset), _name_of(job), self._job_ttl_seconds, again=True)
        except TimeoutError as error:
            raise DatasetBusy(dataset.dataset) from error
        async with self._renewed(held):
            try:
                yield Claim(held.check, held.kept)
            except BaseException:
                await self._give_back(held)
                raise
            if not stays:
                await self._give_back(held)

    async def give_back(self, job: str, dataset: DatasetKey) -> None:
        """Where *job* has *dataset* still, of which nobody works on it: let others have it."""
        found = await self._bucket.get(_key_of(dataset))
        if found is not None and _holder_of(found.value) == _name_of(job):
            await self._bucket.delete(found.key, found.revision)

    async def _acquire(self, key: str, holder: str, ttl_seconds: float, *, again: bool = False) -> _Held:
        """*again*: also where *holder* has it already."""
        pause = POLL_SECONDS
        tried = set[str]()
        while True:
            # A name for each try: one whose answer was lost is another's, and gone when its time is over.
            held = _Held(key, f"{holder}:{uuid4().hex}", ttl_seconds)
            tried.add(held.entry.holder)
            try:
                revision = await self._bucket.create(key, held.entry, ttl_seconds=held.ttl_seconds)
                if revision is None and again:
                    found = await self._bucket.get(key)
                    if found is not None and _holder_of(found.value) == holder:
                        revision = await self._bucket.update(
                            key, held.entry, found.revision, ttl_seconds=held.ttl_seconds
                        )
                        held.kept = found.value.holder not in tried
            except FateUnknown as error:
                log.debug("lock_not_answered", reason=str(error))
                revision = None
            if revision is not None:
                held.revision = revision
                return held
            await asyncio.sleep(pause)
            pause = min(2 * pause, POLL_SECONDS_MAX)

    @asynccontextmanager
    async def _renewed(self, held: _Held) -> AsyncIterator[None]:
        """Behind the block nobody may write any more who still has its check."""
        held.renewing = asyncio.create_task(self._renew(held))
        try:
            yield
        finally:
            held.lost = True
            with anyio.CancelScope(shield=True), anyio.move_on_after(FAREWELL_SECONDS):
                await end(held.renewing)

    async def _renew(self, held: _Held) -> None:
        key = held.key
        while not held.lost:
            await asyncio.sleep(held.ttl_seconds * RENEW_SHARE)
            asked_at = clock()
            try:
                revision = await self._bucket.update(
                    key, held.entry, held.revision, ttl_seconds=held.ttl_seconds
                )
                if revision is None:
                    # Unless it was an earlier renewal, whose answer was lost.
                    entry = await self._bucket.get(key)
                    held.lost = entry is None or entry.value != held.entry
                    held.revision = held.revision if entry is None else entry.revision
                else:
                    held.revision, held.renewed_at = revision, asked_at
            except BusError as error:
                log.debug("lock_not_renewed", reason=str(error))
                await asyncio.sleep(RENEWAL_RETRY_SECONDS)
        log.warning("lock_lost")

    async def _give_back(self, held: _Held) -> None:
        """So that the next one need not wait until it expires."""
        held.lost = True
        with anyio.CancelScope(shield=True), anyio.move_on_after(FAREWELL_SECONDS):
            await end(held.renewing)  # first: it changes the revision
            try:
                await self._bucket.delete(held.key, held.revision)
            except BusError as error:
                log.debug("lock_not_given_back", reason=str(error))


class _Held:
    """A lock, as its holder sees it."""

    renewing: asyncio.Task[None]

    def __init__(self, key: str, name: str, ttl_seconds: float) -> None:
        self.key = key
        self.entry = WriteLock(holder=name)
        self.revision = 0
        self.ttl_seconds = max(1, int(ttl_seconds))  # the bus knows whole ones
        self.renewed_at = clock()
        self.lost = False
        self.kept = False

    def check(self) -> None:
        if self.lost or clock() - self.renewed_at >= self.ttl_seconds * WRITE_SHARE:
            raise LockLost


def _name_of(job: str) -> str:
    return f"job {job}"


def _holder_of(lock: WriteLock) -> str:
    """Whose *lock* is, whichever of its tries took it."""
    return lock.holder.rpartition(":")[0]


def _key_of(dataset: DatasetKey) -> str:
    return dataset_key(dataset.tenant, dataset.project, dataset.dataset)
