"""The leader's use cases: accept, hand out, follow, expire. One writer of every job's state.

The leader holds the commands of Q unacknowledged until it hands them out, so that what waits counts
against the cap. What it holds in memory is a cache: each write names the sequence that it follows, and
whoever is wrong about that reads the job again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Final

import structlog
from msgspec.structs import replace

from pharos_contracts.jobs.v1 import AnyItemEvent, Job, SubmitJob, WorkItem, job_of
from pharos_contracts.lifecycle import TERMINAL, JobState, Signal, advance
from pharos_contracts.subjects import ITEM_REPOSITORY, QueuedCommand
from pharos_contracts.workers.v1 import Worker
from pharos_scheduler import deciding
from pharos_scheduler.placement import plan
from pharos_scheduler.ports import Command, Dispatcher, JobStore, Tracked
from pharos_service.bus import TROUBLE, BusError, StreamFull
from pharos_service.journal import Superseded

log = structlog.get_logger()

REWRITES_MAX: Final = 20
# A command that is neither held nor in Q nor with a worker was lost to an operator's purge, or a crash
# between two writes; it is handed out from the ledger after this long.
ORPHAN_SECONDS: Final = 20.0


class Scheduler:
    """The state of one term of leadership."""

    def __init__(
        self,
        store: JobStore,
        dispatcher: Dispatcher,
        *,
        now: Callable[[], datetime],
        max_attempts: int,
    ) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._now = now
        self._max_attempts = max_attempts
        self._jobs: dict[str, Tracked] = {}
        self._held: dict[str, Command] = {}
        self._in_flight: set[str] = set()
        self._workers: dict[str, Worker] = {}
        self._orphaned_since: dict[str, datetime] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self.changed = asyncio.Event()

    async def recover(self) -> None:
        """Take up where the last leader stopped."""
        async for tracked in self._store.open_jobs():
            self._jobs[tracked.job.job_id] = tracked
        self._in_flight = await self._dispatcher.dispatched()
        log.info("jobs_recovered", open=len(self._jobs), with_workers=len(self._in_flight))
        self.changed.set()

    # What happens to jobs

    async def accept(self, command: SubmitJob, number: int, message: Command) -> None:
        """A command arrived, for the first time or again."""
        async with self._lock(command.job_id):
            tracked = await self._known(command.tenant, command.job_id)
            if tracked is None:
                new = replace(job_of(command, number), max_attempts=self._max_attempts)
                tracked = await self._write(new, 0)
            if tracked.job.state is not JobState.QUEUED or command.job_id in self._in_flight:
                await message.ack_sync()  # handed out before a crash, or ended
                return
            if deciding.is_expired(tracked.job, self._now()):
                await self._expire(tracked)
                await message.ack_sync()
                return
            self._held[command.job_id] = message
            self.changed.set()

    async def lapse(self, timer: QueuedCommand) -> None:
        """The time to live of a command has passed."""
        async with self._lock(timer.job_id):
            tracked = await self._known(timer.tenant, timer.job_id)
            if tracked is None:
                # It came and went while no scheduler ran; the gateway's entry still says what it was.
                active = await self._store.active(timer.tenant, timer.key)
                if active is None or active.command.job_id != timer.job_id:
                    # The same work was submitted again since; the gateway kept what the entry said before.
                    active = await self._store.active(timer.tenant, timer.job_id)
                if active is None or active.command.job_id != timer.job_id:
                    return  # its submit was never answered with success
                tracked = await self._write(job_of(active.command, active.number or 0), 0)
            if tracked.job.state is JobState.QUEUED and timer.job_id not in self._in_flight:
                await self._expire(tracked)

    async def follow(self, event: AnyItemEvent) -> None:
        """A worker said something of an item."""
        async with self._lock(event.job_id):
            tracked = await self._known(event.tenant, event.job_id)
            if tracked is None:
                log.warning("item_without_job", job_id=event.job_id)
                return
            while tracked is not None:
                if tracked.job.state in TERMINAL:
                    await self._end(tracked.job)  # a crash may have come between the end and its release
                    return
                tracked = await self._write_over(tracked, lambda job: deciding.after(job, event))

    async def give_up(self, item: WorkItem, reason: str) -> None:
        """The server will not deliver an item again."""
        async with self._lock(item.job.job_id):
            tracked = await self._known(item.job.tenant, item.job.job_id)
            if tracked is not None and tracked.job.state not in TERMINAL:
                await self._write_over(
                    tracked,
                    lambda job: (
                        None
                        if job.state in TERMINAL
                        else deciding.failed(job, error=reason, code="worker_lost", at=self._now())
                    ),
                )

    def meet(self, worker: Worker) -> None:
        self._workers[worker.name] = worker
        self.changed.set()

    def miss(self, name: str) -> None:
        if self._workers.pop(name, None) is not None:
            log.warning("worker_gone", worker=name)
        self.changed.set()

    # What the leader does by itself

    async def hand_out(self) -> None:
        """Give waiting jobs to free slots."""
        waiting = [self._jobs[job_id].job for job_id in self._waiting()]
        in_flight = [self._jobs[job_id].job for job_id in self._in_flight if job_id in self._jobs]
        for job in plan(waiting, in_flight, list(self._workers.values())):
            async with self._lock(job.job_id):
                if job.job_id not in self._waiting():
                    continue  # it ended while the ones before it were handed out
                try:
                    await self._dispatch(job)
                except StreamFull:
                    log.warning("work_stream_full")
                    return

    async def _dispatch(self, job: Job) -> None:
        # A hand-out that was lost must not be taken for a repetition of itself.
        dispatch = int(self._now().timestamp()) if job.job_id in self._orphaned_since else job.dispatch + 1
        item = WorkItem(job=job, item_id=ITEM_REPOSITORY, attempt=job.attempt + 1, dispatch=dispatch)
        await self._dispatcher.dispatch(item)
        self._in_flight.add(job.job_id)
        self._orphaned_since.pop(job.job_id, None)
        message = self._held.pop(job.job_id, None)
        if message is not None:
            # A crash before this line brings the command back, and its second dispatch is a duplicate.
            await message.ack_sync()
        log.info("job_dispatched", job_id=job.job_id, attempt=item.attempt)

    async def renew(self) -> None:
        """Keep the held commands from being delivered to somebody else."""
        for job_id, message in list(self._held.items()):
            try:
                await message.in_progress()
            except TROUBLE as error:  # the command will come again
                log.debug("renewal_failed", job_id=job_id, error=repr(error))

    async def sweep(self) -> None:
        """Look for what no message will tell: ages, backoffs that have passed, orphans."""
        now = self._now()
        dispatched = await self._dispatcher.dispatched()
        for job_id in list(self._jobs):
            async with self._lock(job_id):
                current = self._jobs.get(job_id)
                if current is None:
                    continue
                await self._sweep_one(current, now, dispatched)
        if self._orphaned_since:
            self.changed.set()

    async def _sweep_one(self, tracked: Tracked, now: datetime, dispatched: set[str]) -> None:
        job = tracked.job
        if job.state is JobState.RETRYING and job.next_attempt_at and now >= job.next_attempt_at:
            await self._write(replace(job, state=advance(job.state, Signal.RETRY)), tracked.sequence)
            self._orphaned_since[job.job_id] = datetime.min.replace(tzinfo=now.tzinfo)
            self.changed.set()
        elif job.state is JobState.QUEUED and job.job_id not in self._in_flight:
            if deciding.is_expired(job, now):
                await self._expire(tracked)
            elif await self._is_lost(job):
                self._orphaned_since.setdefault(job.job_id, now)
        elif job.state is JobState.QUEUED and job.job_id not in dispatched:
            self._in_flight.discard(job.job_id)

    async def _is_lost(self, job: Job) -> bool:
        return job.job_id not in self._held and not await self._dispatcher.is_queued(job.job_id)

    def _waiting(self) -> list[str]:
        now = self._now()
        orphans = [
            job_id
            for job_id, since in self._orphaned_since.items()
            if (now - since).total_seconds() >= ORPHAN_SECONDS
        ]
        return [
            job_id
            for job_id in dict.fromkeys([*self._held, *orphans])
            if job_id in self._jobs
            and job_id not in self._in_flight
            and self._jobs[job_id].job.state is JobState.QUEUED
        ]

    # Writing

    def _lock(self, job_id: str) -> asyncio.Lock:
        return self._locks.setdefault(job_id, asyncio.Lock())

    async def _known(self, tenant: str, job_id: str) -> Tracked | None:
        return self._jobs.get(job_id) or await self._store.load(tenant, job_id)

    async def _expire(self, tracked: Tracked) -> None:
        now = self._now()
        await self._write_over(
            tracked, lambda job: deciding.expired(job, now) if job.state is JobState.QUEUED else None
        )

    async def _write_over(self, tracked: Tracked, decide: Callable[[Job], Job | None]) -> Tracked | None:
        """Write what *decide* makes of the job; None where it makes nothing of it.

        What is in memory may be old, if another leader wrote meanwhile: the job is read again when the
        write is refused, and before *decide* is believed that there is nothing to do.
        """
        for _ in range(REWRITES_MAX):
            following = decide(tracked.job)
            if following is not None:
                try:
                    return await self._write(following, tracked.sequence)
                except Superseded:
                    pass
            current = await self._store.load(tracked.job.tenant, tracked.job.job_id)
            assert current is not None, "a job that was written has a last event"
            if following is None and current.sequence == tracked.sequence:
                return None
            tracked = current
            if tracked.job.state not in TERMINAL:
                self._jobs[tracked.job.job_id] = tracked
        raise BusError(f"job {tracked.job.job_id} changed {REWRITES_MAX} times while it was written")

    async def _write(self, job: Job, sequence: int) -> Tracked:
        try:
            tracked = await self._store.record(job, sequence)
        except Superseded:
            if sequence != 0:
                raise
            loaded = await self._store.load(job.tenant, job.job_id)
            assert loaded is not None, "a superseded job has a last event"
            tracked = loaded
        log.info("job_" + tracked.job.state, job_id=job.job_id, attempt=job.attempt, tenant=job.tenant)
        if tracked.job.state in TERMINAL:
            await self._end(tracked.job)
        else:
            self._jobs[job.job_id] = tracked
            if tracked.job.state is JobState.RETRYING:
                self._in_flight.discard(job.job_id)
                self.changed.set()
        return tracked

    async def _end(self, job: Job) -> None:
        self._jobs.pop(job.job_id, None)
        self._in_flight.discard(job.job_id)
        self._orphaned_since.pop(job.job_id, None)
        held = self._held.pop(job.job_id, None)
        if held is not None:
            await held.ack_sync()
        await self._store.release(job)
        self._locks.pop(job.job_id, None)
        self.changed.set()
