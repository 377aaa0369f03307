"""The leader's use cases: accept, hand out, follow, expire. One writer of every job's state.

A command stays in Q, or a document's in DOCS, until its job is handed out, so that what waits counts against
the cap; the ledger says what to do with it, whether its message is held here or was held by a leader that is
gone. Jobs that were tried, resumed or retried wait beside them, outside Q.
"""

from __future__ import annotations

from asyncio import Event
from collections import Counter, deque
from datetime import datetime, timedelta
from statistics import median
from typing import Final

import structlog
from anyio import move_on_after
from msgspec.structs import replace

from pharos_contracts.control.v1 import DeadLetter, DeadLetterKind, Place
from pharos_contracts.jobs.v1 import (
    AnyItemEvent,
    ItemFailed,
    Job,
    JobKind,
    Purpose,
    SubmitJob,
    WorkItem,
    is_expired,
    job_of,
)
from pharos_contracts.lifecycle import TERMINAL, JobState
from pharos_contracts.subjects import (
    ITEM_CLEAR,
    ITEM_REPOSITORY,
    POOL_DOCUMENTS,
    POOLS,
    QueuedCommand,
    pool_of,
)
from pharos_contracts.workers.v1 import Worker
from pharos_scheduler import deciding
from pharos_scheduler.batches import Batches
from pharos_scheduler.book import Book
from pharos_scheduler.placement import Turns, Waiting, ahead, lane, plan, slots, start_in_seconds
from pharos_scheduler.ports import (
    Backoffs,
    Clock,
    Command,
    DeadLetters,
    Dispatcher,
    Handed,
    Items,
    JobStore,
    Manifests,
    Tracked,
)
from pharos_service.bus import StreamFull

log = structlog.get_logger()

# An item of which nobody has said how it ended, and that is not with the workers, was lost to an operator's
# purge; it is handed out again after this long.
LOST_SECONDS: Final = 20.0
# SCHED tells when a backoff is over; if it does not, the leader's own clock does.
OVERDUE_SECONDS: Final = 5.0
# Much longer than a gateway takes from a claim to its publish, or gives up in between.
ORPHAN_SECONDS: Final = 30.0
DURATIONS_MAX: Final = 20
PLACES_MAX: Final = 2_000
ARRIVAL_SECONDS: Final = 0.2
WITH_WORKERS: Final = frozenset({JobState.QUEUED, JobState.RUNNING, JobState.COMMITTING})
BURIED: Final = frozenset({deciding.POISON, deciding.WORKER_LOST})


class Scheduler:
    """The state of one term of leadership."""

    def __init__(
        self,
        store: JobStore,
        dispatcher: Dispatcher,
        items: Items,
        backoffs: Backoffs,
        letters: DeadLetters,
        manifests: Manifests,
        *,
        now: Clock,
        max_attempts: int,
        ageing_seconds: float,
        batches_max: int,
        term: int,
    ) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._items = items
        self._backoffs = backoffs
        self._letters = letters
        self._now = now
        self._max_attempts = max_attempts
        self._ageing_seconds = ageing_seconds
        self._term = term
        self.book = Book(store, self._note)
        self._waiting = Waiting()
        self._arriving: dict[str, Job] = {}
        self._arrived_up_to = 0
        self._arrival = Event()
        self._held: dict[str, Command] = {}
        self._unheld: set[str] = set()  # whose commands were delivered to a leader before this one
        self._in_flight: set[str] = set()
        self._unread: set[str] = set()  # of what workers may have said before this term nothing was read
        self._clearing: dict[str, Job] = {}
        self._workers: dict[str, Worker] = {}
        self._lost_since: dict[str, datetime] = {}
        self._left_since: dict[str, datetime] = {}
        self._dispatches: Counter[str] = Counter()
        self._served: dict[str, int] = {}
        self._turn = 0
        self._durations = {pool: deque[float](maxlen=DURATIONS_MAX) for pool in POOLS}
        self.changed = Event()
        self.batches = Batches(
            self.book,
            dispatcher,
            items,
            manifests,
            self.changed,
            self.clear,
            now=now,
            running_max=batches_max,
            ageing_seconds=ageing_seconds,
            term=term,
        )

    async def recover(self) -> None:
        """Take up where the last leader stopped."""
        handed = await self._dispatcher.handed()
        async for tracked in self._store.open_jobs():
            job = tracked.job
            self.book.recovered(tracked)
            if job.kind is JobKind.BATCH:
                await self.batches.recovered(tracked, handed)
                continue
            self._arrived_up_to = max(self._arrived_up_to, job.number)
            if job.job_id in handed.jobs and job.state in WITH_WORKERS:
                self._in_flight.add(job.job_id)
            elif job.state is JobState.QUEUED:
                self._waiting.add(job)
                self._unread.add(job.job_id)
            if job.state is JobState.RETRYING:
                await self._backoffs.put(job)
        await self._note_clearing(handed, frozenset())
        await self.take_over_commands()
        log.info("jobs_recovered", open=len(self.book), with_workers=len(self._in_flight))
        self.changed.set()

    async def take_over_commands(self) -> None:
        """Commands that were delivered to a leader before this one would come again, but late."""
        for job_id in await self._dispatcher.commands() - self._held.keys() - self._unheld:
            self._unheld.add(job_id)
            if job_id not in self._waiting and (queued := await self._dispatcher.queued(job_id)):
                await self.accept(*queued, None)

    # What happens to jobs

    def arrive(self, command: SubmitJob, number: int) -> None:
        """A command is about to be accepted: whoever asks is told of it."""
        self._arriving[command.job_id] = job_of(command, number)
        self._arrived_up_to = max(self._arrived_up_to, number)
        self._arrival.set()
        self._arrival = Event()

    async def accept(self, command: SubmitJob, number: int, message: Command | None) -> None:
        """A command arrived, for the first time or again; without its *message* it was found in Q."""
        try:
            await self._accept(command, number, message)
        finally:
            self._arriving.pop(command.job_id, None)

    async def _accept(self, command: SubmitJob, number: int, message: Command | None) -> None:
        async with self.book.deciding(command.job_id):
            tracked = self.book.get(command.job_id) or await self.admit(command, number)
            job = tracked.job
            if message is not None:
                self._held[job.job_id] = message
            if (
                job.state is not JobState.QUEUED
                or deciding.waits_outside(job)
                or job.job_id in self._in_flight
            ):
                await self._let_go(job)  # handed out before a crash, taken back by its owner, or ended
            elif is_expired(job, self._now()):
                await self._expire(tracked)
            else:
                self._waiting.add(job)
                self.changed.set()

    async def admit(self, command: SubmitJob, number: int) -> Tracked:
        """The job that *command* asks for, in the ledger."""
        return await self.book.open(replace(job_of(command, number), max_attempts=self._max_attempts))

    async def lapse(self, timer: QueuedCommand) -> None:
        """The time to live of a command has passed, by the server's clock."""
        async with self.book.deciding(timer.job_id):
            await self.lapsed(timer)

    async def lapsed(self, timer: QueuedCommand) -> Tracked | None:
        """``lapse``, for whoever decides about the job already; the job, if there was one."""
        tracked = await self.book.find(timer.tenant, timer.job_id)
        if tracked is None:
            # It came and went while no scheduler ran; the gateway's entry still says what it was.
            active = await self._store.active(timer.tenant, timer.key)
            if active is None or active.command.job_id != timer.job_id:
                # The same work was submitted again since; the gateway kept what the entry said before.
                active = await self._store.active(timer.tenant, timer.job_id)
            if active is None or active.command.job_id != timer.job_id:
                return None  # its submit was never answered with success
            tracked = await self.book.open(job_of(active.command, active.number or 0))
        job = tracked.job
        stood_still = job.paused_seconds > 0
        if (
            job.state is JobState.QUEUED
            and job.started_at is None
            and job.job_id not in self._in_flight
            and (not stood_still or is_expired(job, self._now()))
        ):
            return await self._expire(tracked)
        return tracked

    async def follow(self, event: AnyItemEvent, sequence: int) -> None:
        """A worker said something of an item; *sequence* is where, on JOBS."""
        if self.batches.is_stopping(event.job_id):
            return  # whoever stops it reads what becomes of its files
        async with self.book.deciding(event.job_id):
            tracked = await self.book.find(event.tenant, event.job_id)
            if tracked is None:
                log.warning("item_without_job", job_id=event.job_id)
                return
            if tracked.job.kind is JobKind.BATCH:
                await self.batches.follow(tracked, event, sequence)
                return
            if sequence <= tracked.job.facts_after:
                return  # it was taken away from that worker since
            if tracked.job.state in TERMINAL:
                await self._end(tracked.job)  # a crash may have come between the end and its release
            await self.follow_up(tracked, event)

    async def follow_up(self, tracked: Tracked, event: AnyItemEvent) -> Tracked:
        """Write all that *event* implies; the job as it is then."""
        following: Tracked | None = tracked
        fresh = False
        while following is not None and (tracked := following).job.state not in TERMINAL:
            following = await self.book.write_over(
                tracked, lambda job: deciding.after(job, event, self._now()), fresh=fresh
            )
            fresh = True
        await self._bury(tracked.job, event)
        if tracked.job.state is JobState.FAILED and not (isinstance(event, ItemFailed) and event.cleared):
            await self._clear_what_was_begun(tracked.job)
        return self.book.get(event.job_id) or tracked

    async def give_up(self, item: WorkItem, reason: str) -> None:
        """The server will not deliver an item again."""
        async with self.book.deciding(item.job.job_id):
            if item.file is not None:
                await self.batches.give_up(item, reason)
                return
            tracked = await self.book.find(item.job.tenant, item.job.job_id)
            if item.purpose is Purpose.CLEAR or tracked is None or tracked.job.state in TERMINAL:
                return
            now = self._now()

            def decide(job: Job) -> Job | None:
                if job.state not in (JobState.QUEUED, JobState.RUNNING, JobState.COMMITTING):
                    return None
                return deciding.failed(job, error=reason, code=deciding.WORKER_LOST, at=now)

            written = await self.book.write_over(tracked, decide)
            if written is not None:
                await self._letters.put(await self._letter(written.job, 0))
                await self._clear_what_was_begun(written.job)

    async def due(self, tenant: str, job_id: str, attempt: int) -> None:
        """The backoff after *attempt* is over, by the server's clock."""
        async with self.book.deciding(job_id):
            tracked = await self.book.find(tenant, job_id)
            if tracked is not None:
                await self._requeue(tracked, attempt)

    def take_up(self, tracked: Tracked) -> None:
        """A queued job that another leader may have had go on after this one had looked."""
        job = tracked.job
        if job.job_id not in self._in_flight and deciding.waits_outside(job):
            self.book.recovered(tracked)
            self._waiting.add(job)
            self._unread.add(job.job_id)
            self.changed.set()

    def meet(self, worker: Worker) -> None:
        self._workers[worker.name] = worker
        self.changed.set()

    def miss(self, name: str) -> None:
        if self._workers.pop(name, None) is not None:
            log.warning("worker_gone", worker=name)
        self.changed.set()

    # What was decided elsewhere

    async def _note(self, job: Job) -> None:
        """Follow the state that was just written."""
        if job.kind is JobKind.BATCH:
            await self.batches.note(job)
            return
        job_id = job.job_id
        if job.state is JobState.QUEUED and deciding.waits_outside(job):
            self._in_flight.discard(job_id)
            self._waiting.add(job)
        elif job.state is not JobState.QUEUED:
            self._waiting.discard(job_id)
        if job.state in (JobState.PAUSED, JobState.RETRYING):
            self._in_flight.discard(job_id)
            await self._let_go(job)
        if job.state is JobState.RETRYING:
            await self._backoffs.put(job)
        if job.state in TERMINAL:
            if job.state is JobState.COMPLETED and job.started_at and job.ended_at:
                seconds = (job.ended_at - job.started_at).total_seconds()
                self._durations[pool_of(job.kind)].append(seconds)
            await self._end(job)
        self.changed.set()

    async def _end(self, job: Job) -> None:
        self._waiting.discard(job.job_id)
        self._unread.discard(job.job_id)
        self._in_flight.discard(job.job_id)
        self._lost_since.pop(job.job_id, None)
        self._dispatches.pop(job.job_id, None)
        self.changed.set()  # its slot is free, whatever is still to be tidied
        await self._let_go(job)
        await self._store.release(job)

    async def _let_go(self, job: Job) -> None:
        """Take the command out of Q: its place is free."""
        held = self._held.pop(job.job_id, None)
        if held is not None:
            await held.ack()
        elif job.job_id in self._unheld:
            await self._dispatcher.remove_command(job)
        self._unheld.discard(job.job_id)

    async def _bury(self, job: Job, event: AnyItemEvent) -> None:
        if isinstance(event, ItemFailed) and event.code in BURIED and job.state is JobState.FAILED:
            await self._letters.put(await self._letter(job, event.deaths))

    async def _letter(self, job: Job, deaths: int) -> DeadLetter:
        return DeadLetter(
            letter_id=job.job_id,
            kind=DeadLetterKind.JOB,
            tenant=job.tenant,
            at=self._now(),
            reason=job.error or "",
            code=job.code or "",
            job=job,
            deaths=deaths,
            workers=await self._items.workers(job),
        )

    async def _clear_what_was_begun(self, job: Job) -> None:
        if job.started_at is not None:
            await self.clear(job)

    async def clear(self, job: Job) -> None:
        """Have a worker remove what a job that ended without a result left behind; repeatable."""
        self._clearing[job.job_id] = job
        await self._dispatcher.dispatch(
            WorkItem(
                job=job,
                item_id=ITEM_CLEAR,
                attempt=job.attempt,
                dispatch=job.facts_after,
                purpose=Purpose.CLEAR,
                term=self._term,
            )
        )

    # What the leader does by itself

    async def hand_out(self) -> None:
        """Give waiting jobs to free slots."""
        in_flight = self._running()
        chosen = plan(
            self._waiting,
            in_flight,
            list(self._workers.values()),
            self._turns(in_flight),
            self._now(),
            self._ageing_seconds,
            busy=[lane(job) for job in self._clearing.values()],
        )
        for job in chosen:
            async with self.book.deciding(job.job_id):
                tracked = self.book.get(job.job_id)
                if tracked is None or job.job_id not in self._waiting:
                    continue  # it ended while the ones before it were handed out
                if await self._was_begun(tracked):
                    continue
                try:
                    await self._dispatch(tracked.job)
                except StreamFull:
                    log.warning("work_stream_full")
                    return
        documents = sum(pool_of(job.kind) == POOL_DOCUMENTS for job in self._running())
        room = slots(self._workers.values(), POOL_DOCUMENTS)
        await self.batches.hand_out(room, documents, self._clearing)

    async def _was_begun(self, tracked: Tracked) -> bool:
        """Whether a worker has had the job since the last leader wrote of it, and may even be done."""
        if tracked.job.job_id not in self._unread:
            return False
        self._unread.discard(tracked.job.job_id)
        return await self._catch_up(tracked)

    async def _catch_up(self, tracked: Tracked) -> bool:
        """Follow what was said of the job's item last; whether that was news."""
        last = await self._items.last(tracked.job)
        if last is None or last.sequence <= tracked.job.facts_after:
            return False
        return (await self.follow_up(tracked, last.event)).sequence != tracked.sequence

    async def _dispatch(self, job: Job) -> None:
        number = max(self._dispatches[job.job_id], job.dispatch) + 1
        item = WorkItem(
            job=job,
            item_id=ITEM_REPOSITORY,
            attempt=deciding.next_attempt(job),
            dispatch=number,
            term=self._term,
        )
        await self._dispatcher.dispatch(item)
        self._dispatches[job.job_id] = number
        self._in_flight.add(job.job_id)
        self._waiting.discard(job.job_id)
        self._lost_since.pop(job.job_id, None)
        self._turn += 1
        self._served[job.tenant] = self._turn
        # A crash before this line brings the command back, and finds the item with the workers.
        await self._let_go(job)
        log.info("job_dispatched", job_id=job.job_id, attempt=item.attempt)

    def _running(self) -> list[Job]:
        found = []
        for job_id in self._in_flight:
            tracked = self.book.get(job_id)
            if tracked is not None:
                found.append(tracked.job)
        return found

    def _turns(self, in_flight: list[Job]) -> Turns:
        return Turns(Counter(job.tenant for job in in_flight), self._served)

    async def sweep(self) -> None:
        """Look for what no message will tell: ages, backoffs that nobody ended, what was lost."""
        now = self._now()
        clearing = frozenset(self._clearing)
        handed = await self._dispatcher.handed()
        await self._note_clearing(handed, clearing)
        await self._remove_left_over(handed, now)
        await self.batches.sweep(handed)
        for job in [job for job in self.book if self._needs_a_look(job, now, handed.jobs)]:
            async with self.book.deciding(job.job_id):
                current = self.book.get(job.job_id)
                if current is not None and self._needs_a_look(current.job, now, handed.jobs):
                    await self._look_at(current, now)
        if self._served and len(self._served) > PLACES_MAX:
            self._served.clear()

    async def _remove_left_over(self, handed: Handed, now: datetime) -> None:
        """Items of jobs that have ended: a bus that crashed may have forgotten that they were settled.

        Nobody is given them any more, because that they were delivered it remembers.
        """
        left = {
            job_id: self._left_since.get(job_id, now)
            for job_id in handed.jobs
            if self.book.get(job_id) is None
        }
        for job_id, since in tuple(left.items()):
            if (now - since).total_seconds() >= LOST_SECONDS:
                async with self.book.deciding(job_id):
                    if self.book.get(job_id) is None:
                        log.warning("item_left_over", job_id=job_id)
                        for item_id in handed.of(job_id):
                            await self._dispatcher.remove_item(job_id, item_id)
                del left[job_id]
        self._left_since = left

    async def release_orphans(self) -> None:
        """Let go of claims that no open job has any more.

        Of a gateway that died before it published, or was told that it was too late; of a leader that died
        between the last event of a job and the release of its claim.
        """
        for claim in await self._store.claims(self._now() - timedelta(seconds=ORPHAN_SECONDS)):
            command = claim.command
            if self.book.get(command.job_id) is not None:
                continue
            async with self.book.deciding(command.job_id):
                known = await self.book.find(command.tenant, command.job_id)
                if known is not None and known.job.state in TERMINAL:
                    await self._store.release(known.job)
                elif known is None and await self._dispatcher.queued(command.job_id) is None:
                    timer = await self._dispatcher.lapsed(command.job_id)
                    if timer is not None and await self.lapsed(timer) is not None:
                        continue  # it was accepted, and its time passed: that it is told of comes first
                    log.info("claim_abandoned", job_id=command.job_id)
                    await self._store.abandon(claim)

    def _needs_a_look(self, job: Job, now: datetime, handed: frozenset[str]) -> bool:
        if job.kind is JobKind.BATCH:
            return False
        if job.state is JobState.RETRYING:
            overdue = timedelta(seconds=OVERDUE_SECONDS)
            return job.next_attempt_at is not None and now >= job.next_attempt_at + overdue
        if job.state is JobState.QUEUED and job.job_id in self._waiting:
            return is_expired(job, now)
        known = job.state is JobState.PAUSED or job.job_id in handed
        if known:
            self._lost_since.pop(job.job_id, None)
        return not known

    async def _look_at(self, tracked: Tracked, now: datetime) -> None:
        job = tracked.job
        if job.state is JobState.RETRYING:
            await self._requeue(tracked, job.attempt)
        elif job.state is JobState.QUEUED and job.job_id not in self._in_flight and is_expired(job, now):
            await self._expire(tracked)
        elif self._is_lost(job, now) and not await self._catch_up(tracked):
            # Its item is gone and nobody has said how it ended: whoever still works on it loses it.
            if job.state is JobState.QUEUED:
                self._in_flight.discard(job.job_id)
                self._waiting.add(job)
                self.changed.set()
            else:
                await self._dispatch(job)

    def _is_lost(self, job: Job, now: datetime) -> bool:
        """Whether *job* has been nowhere for so long that nobody can still be on the way with it."""
        since = self._lost_since.setdefault(job.job_id, now)
        return (now - since).total_seconds() >= LOST_SECONDS

    async def _note_clearing(self, handed: Handed, known: frozenset[str]) -> None:
        """Lanes in which something is cleared away are not used; *known* is what was, when it was asked."""
        for job_id in handed.clearing - self._clearing.keys():
            tracked = await self._store.load(None, job_id)
            if tracked is not None:
                self._clearing[job_id] = tracked.job
        for job_id in known - handed.clearing:
            self._clearing.pop(job_id, None)
            self.changed.set()

    async def _requeue(self, tracked: Tracked, attempt: int) -> None:
        await self.book.write_over(
            tracked,
            lambda job: (
                deciding.due(job) if job.state is JobState.RETRYING and job.attempt == attempt else None
            ),
        )

    async def _expire(self, tracked: Tracked) -> Tracked:
        last = await self._items.last(tracked.job)
        if last is not None and last.sequence > tracked.job.facts_after:
            return await self.follow_up(tracked, last.event)  # a worker has begun it already
        now = self._now()
        expired = await self.book.write_over(
            tracked, lambda job: deciding.expired(job, now) if job.state is JobState.QUEUED else None
        )
        return expired or tracked

    # What people ask

    async def place(self, job: Job) -> Place:
        """Where *job* stands. It may still be on its way here, behind all that came before it."""
        with move_on_after(ARRIVAL_SECONDS):
            while job.number > self._arrived_up_to:
                await self._arrival.wait()
        tracked = self.book.get(job.job_id)
        current = tracked.job if tracked is not None else job
        pool = pool_of(job.kind)
        waiting = self._waiting.count(pool)
        if current.state is not JobState.QUEUED or job.job_id in self._in_flight:
            return Place(position=0, waiting=waiting)
        if waiting > PLACES_MAX:
            waiting += len(self._arriving)
            start_at = self._estimate(waiting - 1, pool)
            return Place(position=waiting, waiting=waiting, estimated_start_at=start_at)
        with self._waiting.joined_by([*self._arriving.values(), current]) as everybody:
            now = self._now()
            in_flight = self._running()
            ending = sorted(
                (job for job in in_flight if pool_of(job.kind) == pool), key=lambda job: job.started_at or now
            )
            before = ahead(
                current,
                everybody,
                self._turns(in_flight),
                now,
                self._ageing_seconds,
                slots=slots(self._workers.values(), pool),
                ending=[job.tenant for job in ending],
            )
            waiting = everybody.count(pool)
        return Place(position=before + 1, waiting=waiting, estimated_start_at=self._estimate(before, pool))

    def _estimate(self, ahead: int, pool: str) -> datetime | None:
        """When a job of *pool* that *ahead* others precede may start; None with nothing to judge by."""
        total = slots(self._workers.values(), pool)
        if total == 0 or not self._durations[pool]:
            return None
        now = self._now()
        typical = median(self._durations[pool])
        running = [job for job in self._running() if pool_of(job.kind) == pool]
        busy = [typical - (now - (job.started_at or now)).total_seconds() for job in running[:total]]
        seconds = start_in_seconds(ahead, busy, total - len(busy), typical)
        return now + timedelta(seconds=seconds)
