"""Who writes to a dataset that several workers write to: one at a time, and only while it says so.

The lock is an entry that expires. Its holder renews it, and stops well before it could have expired by its
own clock; a holder that dies is replaced when its entry is gone. What a holder that was frozen has on its way
still finds that the record of the dataset moved on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from uuid import uuid4

import anyio
import structlog

from pharos_contracts.datasets.v1 import WriteLock
from pharos_contracts.identity import dataset_key
from pharos_contracts.streams import KV_LOCKS, LOCK_TTL_SECONDS
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
    """The dataset may be another worker's by now: nothing more is to be written to it."""


class DatasetLocks:
    """The bucket ``locks``, as the worker *holder* uses it."""

    def __init__(self, bus: Bus, holder: str, *, ttl_seconds: float = LOCK_TTL_SECONDS) -> None:
        self._bucket = Bucket(bus, KV_LOCKS, WriteLock)
        self._holder = holder
        self._ttl_seconds = ttl_seconds

    @asynccontextmanager
    async def hold(self, dataset: DatasetKey) -> AsyncIterator[Check]:
        """While the block lasts nobody else writes to *dataset*, as long as the check says nothing.

        The check raises LockLost, and may be called from any thread. TimeoutError where others have the
        dataset for too long; errors of the bus pass through.
        """
        key = dataset_key(dataset.tenant, dataset.project, dataset.dataset)
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            held = await self._acquire(key)
        renewing = asyncio.create_task(self._renew(key, held))
        try:
            yield held.check
        finally:
            held.lost = True  # for whoever still has the check
            with anyio.CancelScope(shield=True), anyio.move_on_after(FAREWELL_SECONDS):
                await end(renewing)
                await self._give_back(key, held)

    async def _acquire(self, key: str) -> _Held:
        pause = POLL_SECONDS
        while True:
            # A name for each try: one whose answer was lost is another's, and gone when its time is over.
            name, asked_at = f"{self._holder}:{uuid4().hex}", clock()
            try:
                revision = await self._bucket.create(key, WriteLock(holder=name))
            except FateUnknown as error:
                log.debug("lock_not_answered", reason=str(error))
                revision = None
            if revision is not None:
                return _Held(name, revision, asked_at, self._ttl_seconds * WRITE_SHARE)
            await asyncio.sleep(pause)
            pause = min(2 * pause, POLL_SECONDS_MAX)

    async def _renew(self, key: str, held: _Held) -> None:
        while not held.lost:
            await asyncio.sleep(self._ttl_seconds * RENEW_SHARE)
            asked_at = clock()
            try:
                revision = await self._bucket.update(key, WriteLock(holder=held.name), held.revision)
                if revision is None:
                    # Unless it was an earlier renewal, whose answer was lost.
                    entry = await self._bucket.get(key)
                    held.lost = entry is None or entry.value.holder != held.name
                    held.revision = held.revision if entry is None else entry.revision
                else:
                    held.revision, held.renewed_at = revision, asked_at
            except BusError as error:
                log.debug("lock_not_renewed", reason=str(error))
                await asyncio.sleep(RENEWAL_RETRY_SECONDS)
        log.warning("lock_lost")

    async def _give_back(self, key: str, held: _Held) -> None:
        """So that the next one need not wait until it expires."""
        try:
            await self._bucket.delete(key, held.revision)
        except BusError as error:
            log.debug("lock_not_given_back", reason=str(error))


class _Held:
    """A lock, as its holder sees it."""

    def __init__(self, name: str, revision: int, taken_at: float, write_seconds: float) -> None:
        self.name = name
        self.revision = revision
        self.renewed_at = taken_at
        self.lost = False
        self._write_seconds = write_seconds

    def check(self) -> None:
        if self.lost or clock() - self.renewed_at >= self._write_seconds:
            raise LockLost
