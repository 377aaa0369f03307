"""The open jobs as the leader knows them, and the one way to write a job's state.

What is in memory is a cache: each write names the sequence that it follows, and whoever is wrong about that
reads the job again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Final

import structlog

from pharos_contracts.jobs.v1 import Job
from pharos_contracts.lifecycle import TERMINAL
from pharos_scheduler.ports import JobStore, Tracked
from pharos_service.bus import BusError
from pharos_service.journal import Superseded

log = structlog.get_logger()

REWRITES_MAX: Final = 20


class _Lock:
    """A lock that is forgotten when its last user has left."""

    def __init__(self) -> None:
        self.inner = asyncio.Lock()
        self.users = 0


class Book:
    """``on_write`` hears of every state that was written, in order for each job, under the job's lock."""

    def __init__(self, store: JobStore, on_write: Callable[[Job], Awaitable[None]]) -> None:
        self._store = store
        self._on_write = on_write
        self._jobs: dict[str, Tracked] = {}
        self._locks: dict[str, _Lock] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Job]:
        return (tracked.job for tracked in list(self._jobs.values()))

    @asynccontextmanager
    async def deciding(self, job_id: str) -> AsyncIterator[None]:
        """One at a time decides about a job, in the order of asking."""
        lock = self._locks.setdefault(job_id, _Lock())
        lock.users += 1
        try:
            async with lock.inner:
                yield
        finally:
            lock.users -= 1
            if lock.users == 0:
                self._locks.pop(job_id, None)

    def get(self, job_id: str) -> Tracked | None:
        """The job, if it is open and known."""
        return self._jobs.get(job_id)

    def recovered(self, tracked: Tracked) -> None:
        """An open job as a new leader found it."""
        self._jobs[tracked.job.job_id] = tracked

    async def find(self, tenant: str | None, job_id: str) -> Tracked | None:
        """The job, open or ended; None where there is none, or it is another tenant's."""
        tracked = self._jobs.get(job_id) or await self._store.load(tenant, job_id)
        if tracked is None or tenant not in (None, tracked.job.tenant):
            return None
        return tracked

    async def open(self, job: Job) -> Tracked:
        """The first event of *job*; the job as it is where it has had one already."""
        try:
            return await self._write(job, 0)
        except Superseded:
            loaded = await self._store.load(job.tenant, job.job_id)
            assert loaded is not None, "a superseded job has a last event"
            self._keep(loaded)
            return loaded

    async def write_over(
        self,
        tracked: Tracked,
        decide: Callable[[Job], Job | None],
        *,
        resumed: bool = False,
        advanced: bool = False,
        fresh: bool = False,
    ) -> Tracked | None:
        """Write what *decide* makes of the job; None where it makes nothing of it.

        What is in memory may be old, if another leader wrote meanwhile: the job is read again when the
        write is refused, and before *decide* is believed that there is nothing to do, unless *tracked* is
        *fresh* from the store.
        """
        for _ in range(REWRITES_MAX):
            following = decide(tracked.job)
            if following is not None:
                try:
                    return await self._write(following, tracked.sequence, resumed=resumed, advanced=advanced)
                except Superseded:
                    pass
            if following is None and fresh:
                return None
            current = await self._store.load(tracked.job.tenant, tracked.job.job_id)
            fresh = True
            assert current is not None, "a job that was written has a last event"
            if following is None and current.sequence == tracked.sequence:
                return None
            tracked = current
            self._keep(tracked)
        raise BusError(f"job {tracked.job.job_id} changed {REWRITES_MAX} times while it was written")

    async def _write(
        self, job: Job, sequence: int, *, resumed: bool = False, advanced: bool = False
    ) -> Tracked:
        tracked = await self._store.record(job, sequence, resumed=resumed, advanced=advanced)
        if not advanced:
            log.info("job_" + job.state, job_id=job.job_id, attempt=job.attempt, tenant=job.tenant)
        self._keep(tracked)
        await self._on_write(job)
        return tracked

    def _keep(self, tracked: Tracked) -> None:
        job_id = tracked.job.job_id
        if tracked.job.state not in TERMINAL:
            self._jobs[job_id] = tracked
        else:
            self._jobs.pop(job_id, None)
