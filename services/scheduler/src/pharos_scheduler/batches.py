"""Batches during one term of leadership: which of them run, and handing out their files.

A batch runs as a whole: while it does, its files are handed out one after the other, some at once, as workers
have room for them. What becomes of each file is told by its worker, on the log of its item; the batch's own
log has the moves of the batch, and from time to time how many files have ended.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable
from datetime import datetime
from itertools import islice
from typing import Final

import structlog
from msgspec.structs import replace

from pharos_contracts.control.v1 import Action, ControlJob, Controlled, CreateBatch
from pharos_contracts.jobs.v1 import AnyItemEvent, ItemCancelled, ItemPaused, Job, Purpose, WorkItem
from pharos_contracts.lifecycle import TERMINAL, IllegalTransition, JobState, Signal
from pharos_contracts.rpc import Refused
from pharos_contracts.subjects import ITEM_CLEAR, POOL_DOCUMENTS
from pharos_scheduler import batch_deciding as deciding
from pharos_scheduler.batch_files import Files, FileState, HandOut
from pharos_scheduler.book import Book
from pharos_scheduler.placement import Turns, Waiting, in_order
from pharos_scheduler.ports import Clock, Dispatcher, Fact, Handed, Items, Manifests, Tracked
from pharos_service.bus import StreamFull
from pharos_service.journal import Superseded

log = structlog.get_logger()

OPEN_MAX: Final = 1_000
# Beside those that are worked on, so that a worker that is done with one file finds the next.
HANDED_PER_SLOT: Final = 2
PUBLISHING_SECONDS: Final = 5.0
PUBLISHING_POLL_SECONDS: Final = 0.1
# A worker settles an item behind its last word, so one that is nowhere was taken by nobody.
LOST_SECONDS: Final = 3.0
TRIES_MAX: Final = 20
SERVED_MAX: Final = 2_000
ATTEMPTS_ANY: Final = 1_000_000

NO_MANIFEST: Final = Refused(
    code="files_forgotten",
    detail="The list of its files is not kept any more; create the batch again",
    status=409,
)
TOO_MANY: Final = Refused(
    code="too_many_batches",
    detail=f"There are {OPEN_MAX} batches that have not ended; start, cancel or wait for some of them",
    status=429,
)


class Batches:
    """``running_max`` batches run at once, and no two of them that read from the same connection.

    *clear* has a worker remove what a job left behind.
    """

    def __init__(
        self,
        book: Book,
        dispatcher: Dispatcher,
        items: Items,
        manifests: Manifests,
        changed: asyncio.Event,
        clear: Callable[[Job], Awaitable[None]],
        *,
        now: Clock,
        running_max: int,
        ageing_seconds: float,
        term: int,
    ) -> None:
        self._book = book
        self._dispatcher = dispatcher
        self._items = items
        self._manifests = manifests
        self._changed = changed
        self._clear = clear
        self._now = now
        self._running_max = running_max
        self._ageing_seconds = ageing_seconds
        self._term = term
        self._queued = Waiting()
        self._files: dict[str, Files] = {}
        self._untold: set[str] = set()
        self._stopping: set[str] = set()  # nobody else waits for the lock of one of these
        self._lost_since: dict[tuple[str, int], datetime] = {}
        self._served: dict[str, int] = {}
        self._turn = 0

    # What happens to batches

    async def recovered(self, tracked: Tracked, handed: Handed) -> None:
        """An open batch as a new leader finds it."""
        job = tracked.job
        if job.state is JobState.QUEUED:
            self._queued.add(job)
        elif job.state is JobState.RETRYING:
            job = (await self._requeue(tracked)).job
        runs = job.state is JobState.RUNNING
        # Of one that waits files may be in flight, too: it was paused, and is to go on.
        if (runs or handed.of(job.job_id)) and await self._load(job, handed) is None and runs:
            await self._end_forgotten(tracked)

    async def note(self, job: Job) -> None:
        """Follow the state that was just written."""
        if job.state is JobState.QUEUED:
            self._queued.add(job)
        else:
            self._queued.discard(job.job_id)
        if job.state in TERMINAL or job.state is JobState.RETRYING:
            self._forget(job.job_id)
        elif job.state is JobState.PAUSED:
            self._untold.add(job.job_id)
        self._changed.set()

    async def follow(self, tracked: Tracked, event: AnyItemEvent, sequence: int) -> None:
        """A worker said something of a file."""
        job = tracked.job
        if job.state in TERMINAL or event.item_id == ITEM_CLEAR:
            return
        files = self._files.get(job.job_id) or await self._load(job, await self._dispatcher.handed())
        if files is None:
            return
        if files.take(event.item_id, Fact(event, sequence), self._now()) or files.all_ended:
            await self._after_news(tracked, files)

    def is_stopping(self, job_id: str) -> bool:
        """Whether a cancel waits for files of that batch, and lets nobody else decide about it."""
        return job_id in self._stopping

    async def _after_news(self, tracked: Tracked, files: Files) -> None:
        self._untold.add(tracked.job.job_id)
        self._changed.set()
        if files.all_ended:
            await self._end(tracked, files)

    async def _end(self, tracked: Tracked, files: Files) -> None:
        """Every file has ended; a paused batch ends when it is resumed."""
        now = self._now()
        await self._book.write_over(
            tracked,
            lambda job: deciding.ended(job, files, now) if job.state is JobState.RUNNING else None,
        )

    async def _end_forgotten(self, tracked: Tracked) -> None:
        """Nobody knows any more which files it is about."""
        now = self._now()
        await self._book.write_over(
            tracked,
            lambda job: (
                deciding.forgotten(job, now) if job.state in (JobState.QUEUED, JobState.RUNNING) else None
            ),
        )

    async def give_up(self, item: WorkItem, reason: str) -> None:
        """The server will not deliver an item again: that file has failed."""
        tracked = await self._book.find(item.job.tenant, item.job.job_id)
        if tracked is None or item.purpose is Purpose.CLEAR or tracked.job.state in TERMINAL:
            return
        files = self._files.get(item.job.job_id)
        if files is not None and item.item_id.isdigit() and int(item.item_id) in files.in_flight:
            try:
                fact = await self._items.fail(item, reason, await self._items.last(item.job, item.item_id))
            except Superseded:
                return  # its worker has spoken at last
            if files.take(item.item_id, fact, self._now()):
                await self._after_news(tracked, files)

    async def tell(self) -> None:
        """Write how many files have ended, where that has changed."""
        untold, self._untold = self._untold - self._stopping, self._untold & self._stopping
        for job_id in untold:
            async with self._book.deciding(job_id):
                tracked, files = self._book.get(job_id), self._files.get(job_id)
                if tracked is not None and files is not None:
                    tally = files.tally()
                    await self._book.write_over(
                        tracked,
                        lambda job, tally=tally: (  # type: ignore[misc]
                            None if job.state in TERMINAL else deciding.counted(job, tally)
                        ),
                        advanced=True,
                    )
                    if not files.flying and tracked.job.state is not JobState.RUNNING:
                        self._forget(job_id)  # it is read again when it goes on

    # What the leader does by itself

    async def hand_out(self, slots: int, taken: int, clearing: Collection[str]) -> None:
        """Start batches, and give their files to workers.

        *slots* are for documents and files alike, of which *taken* are with documents; what is *clearing* is
        not started.
        """
        if slots == 0:
            return
        await self._start_some(clearing)
        room = HANDED_PER_SLOT * slots - taken - sum(files.flying for files in self._files.values())
        while room > 0:
            offers = sorted(
                (files.flying, job.submitted_at, job.job_id)
                for job, files in self._running()
                if files.flying < _at_once(job) and job.job_id not in self._stopping
            )
            for _, _, job_id in offers:
                if await self._hand_out_one(job_id):
                    room -= 1
                    break
            else:
                return

    async def _hand_out_one(self, job_id: str) -> bool:
        """Whether a file of that batch was ready for it."""
        async with self._book.deciding(job_id):
            tracked, files = self._book.get(job_id), self._files.get(job_id)
            if tracked is None or files is None or tracked.job.state is not JobState.RUNNING:
                return False
            for offer in files.ready(1, self._now()):
                try:
                    await self._dispatch(tracked.job, offer)
                except StreamFull:
                    files.lost(offer.item)
                    log.warning("work_stream_full")
                    return False
                return True
        return False

    async def _dispatch(self, job: Job, offer: HandOut) -> None:
        of_file = replace(
            job,
            attempt=offer.attempt,
            max_attempts=offer.attempts_max,
            facts_after=offer.past,
            dispatch=offer.dispatch,
            tally=None,
        )
        await self._dispatcher.dispatch(
            WorkItem(
                job=of_file,
                item_id=str(offer.item),
                attempt=offer.attempt,
                dispatch=offer.dispatch,
                term=self._term,
                file=offer.file,
            )
        )

    def _running(self) -> list[tuple[Job, Files]]:
        found = []
        for job_id, files in self._files.items():
            tracked = self._book.get(job_id)
            if tracked is not None and tracked.job.state is JobState.RUNNING:
                found.append((tracked.job, files))
        return found

    async def _start_some(self, clearing: Collection[str]) -> None:
        """Start queued batches in their order, while fewer run than may."""
        running = [job for job, _ in self._running()]
        taken = {name: job.job_id for job in self._writing() for name in _connections(job)}

        def may_run(job: Job) -> bool:
            free = all(taken.get(name, job.job_id) == job.job_id for name in _connections(job))
            return free and job.job_id not in clearing and job.job_id not in self._stopping

        turns = Turns(Counter(job.tenant for job in running), self._served)
        order = in_order(self._queued, turns, self._now(), self._ageing_seconds, may_run, POOL_DOCUMENTS)
        for job in list(islice(order, max(0, self._running_max - len(running)))):
            if may_run(job):  # one that was chosen before it may read from the same connection
                taken |= dict.fromkeys(_connections(job), job.job_id)
                await self._start(job.job_id)

    def _writing(self) -> list[Job]:
        """The batches of which files may be with workers, a paused one too."""
        found = []
        for job_id, files in self._files.items():
            tracked = self._book.get(job_id)
            if tracked is not None and (tracked.job.state is JobState.RUNNING or files.flying):
                found.append(tracked.job)
        return found

    async def _start(self, job_id: str) -> None:
        async with self._book.deciding(job_id):
            tracked = self._book.get(job_id)
            if tracked is None or tracked.job.state is not JobState.QUEUED:
                return
            files = await self._load(tracked.job, await self._dispatcher.handed())
            now = self._now()
            if files is None:
                await self._end_forgotten(tracked)
                return
            started = await self._book.write_over(
                tracked,
                lambda job: deciding.started(job, files, now) if job.state is JobState.QUEUED else None,
            )
            if started is not None:
                self._turn += 1
                self._served[started.job.tenant] = self._turn
                if files.all_ended:
                    await self._end(started, files)

    async def sweep(self, handed: Handed) -> None:
        """Look for what no message will tell: what was never started, files that were lost."""
        now = self._now()
        for job in [job for job in self._book if job.batch is not None]:
            if deciding.is_expired(job, now) or job.state is JobState.RETRYING:
                async with self._book.deciding(job.job_id):
                    tracked = self._book.get(job.job_id)
                    if tracked is not None:
                        await self._book.write_over(
                            tracked,
                            lambda job: deciding.expired(job, now) if deciding.is_expired(job, now) else None,
                        )
                        await self._requeue(tracked)
        lost_since: dict[tuple[str, int], datetime] = {}
        for job_id, files in list(self._files.items()):
            known = handed.of(job_id)
            for item in files.in_flight:
                if str(item) not in known:
                    lost_since[job_id, item] = self._lost_since.get((job_id, item), now)
        self._lost_since = lost_since
        for (job_id, item), since in lost_since.items():
            if (now - since).total_seconds() >= LOST_SECONDS:
                await self._look_for(job_id, item)
        if len(self._served) > SERVED_MAX:
            self._served.clear()
        self._changed.set()  # a file's next try may be due

    async def _look_for(self, job_id: str, item: int) -> None:
        """A file that is in flight, and that the workers have not: it may have ended unheard."""
        async with self._book.deciding(job_id):
            tracked, files = self._book.get(job_id), self._files.get(job_id)
            if tracked is None or files is None or item not in files.in_flight:
                return
            await self._catch_up(tracked.job, files, [item])
            if item in files.in_flight:
                log.warning("file_lost", job_id=job_id, item_id=item)
                files.lost(item)
            await self._after_news(tracked, files)

    async def _catch_up(self, job: Job, files: Files, items: Iterable[int]) -> None:
        """Read what was said of *items* last."""
        for item in items:
            last = await self._items.last(job, str(item))
            if last is not None:
                files.take(str(item), last, self._now())

    async def _requeue(self, tracked: Tracked) -> Tracked:
        """What its owner asks for again waits for nothing but its turn."""
        written = await self._book.write_over(
            tracked, lambda job: deciding.due(job) if job.state is JobState.RETRYING else None
        )
        return written or tracked

    async def _load(self, job: Job, handed: Handed) -> Files | None:
        """The files of *job* as the facts about them tell; None where nobody knows which they are."""
        files = await self._read(job)
        if files is None:
            return None
        for item_id in handed.of(job.job_id):
            files.was_handed(item_id)
        self._files[job.job_id] = files
        self._untold.add(job.job_id)
        log.info("batch_read", job_id=job.job_id, files=len(files), in_flight=files.flying)
        return files

    async def _read(self, job: Job) -> Files | None:
        assert job.batch is not None, "only batches have files"
        manifest = await self._manifests.load(job)
        if manifest is None:
            log.error("manifest_gone", job_id=job.job_id)
            return None
        facts = await self._items.of_batch(job)
        return Files(
            job.batch,
            manifest,
            facts,
            tally=job.tally,
            facts_after=job.facts_after,
            asked=job.attempt,
            now=self._now(),
        )

    def _forget(self, job_id: str) -> None:
        self._files.pop(job_id, None)
        self._untold.discard(job_id)

    # What owners ask

    async def create(self, command: CreateBatch) -> Controlled | Refused:
        """Keep the batch, which waits to be started. Repeatable."""
        others = (job for job in self._book if job.batch is not None and job.job_id != command.job.job_id)
        if sum(job.tenant == command.job.tenant for job in others) >= OPEN_MAX:
            return TOO_MANY
        async with self._book.deciding(command.job.job_id):
            return Controlled(job=(await self._book.open(deciding.created(command.job))).job)

    async def control(self, command: ControlJob, tracked: Tracked, sequence: int) -> Controlled | Refused:
        """Do what *command*, number *sequence* on CONTROL, asks; IllegalTransition."""
        match command.action:
            case Action.START:
                return await self._write(
                    tracked, lambda job: deciding.enqueued(job, by=command.by, control=sequence)
                )
            case Action.RESUME:
                now = self._now()
                return await self._write(
                    tracked,
                    lambda job: deciding.resumed(job, now=now, by=command.by, control=sequence),
                    resumed=True,
                )
            case Action.PAUSE | Action.CANCEL:
                return await self._stop(command, tracked, sequence)
            case Action.RETRY:
                return await self._retry(command, tracked, sequence)

    async def go_on(self, tracked: Tracked) -> Tracked:
        """Do what must follow a command that was written already."""
        await self._take_effect(tracked.job)
        return await self._requeue(tracked)

    async def _write(
        self, tracked: Tracked, decide: Callable[[Job], Job], *, resumed: bool = False
    ) -> Controlled:
        written = await self._book.write_over(tracked, decide, resumed=resumed)
        assert written is not None, "a decision that never declines is written"
        return Controlled(job=written.job)

    async def _stop(self, command: ControlJob, tracked: Tracked, sequence: int) -> Controlled:
        """Take away what may be taken away, then say so of the batch."""
        pausing = command.action is Action.PAUSE
        now = self._now()
        # Whether it may be done is asked first, before anything is taken away.
        if pausing:
            deciding.paused(tracked.job, None, now=now, by=command.by, control=sequence)
        else:
            deciding.cancelled(tracked.job, None, now=now, by=command.by, control=sequence)
        files = self._files.get(tracked.job.job_id)
        if files is not None:
            if pausing:
                await self._take_away(tracked.job, files, ItemPaused, (FileState.HANDED,))
            else:
                self._stopping.add(tracked.job.job_id)
                try:
                    await self._take_away(
                        tracked.job, files, ItemCancelled, (FileState.HANDED, FileState.BEGUN)
                    )
                    await self._until_published(tracked.job, files)
                finally:
                    self._stopping.discard(tracked.job.job_id)
        decide = deciding.paused if pausing else deciding.cancelled
        answer = await self._write(
            tracked, lambda job: decide(job, files, now=self._now(), by=command.by, control=sequence)
        )
        await self._take_effect(answer.job)
        return answer

    async def _take_away(
        self,
        job: Job,
        files: Files,
        kind: type[ItemPaused | ItemCancelled],
        states: tuple[FileState, ...],
    ) -> None:
        """Take away the files that are in one of *states*, unless their workers are quicker."""
        for item in files.in_state(states):
            for _ in range(TRIES_MAX):
                if files[item].state not in states:
                    break
                last = await self._items.last(job, str(item))
                if last is not None and files.take(str(item), last, self._now()):
                    continue
                try:
                    fact = await self._items.take_away_file(job, str(item), kind, last, files[item].attempt)
                except Superseded:
                    continue
                files.take(str(item), fact, self._now())
                action = Action.PAUSE if kind is ItemPaused else Action.CANCEL
                await self._dispatcher.withdraw(job, action, fact.sequence, item_id=str(item))

    async def _until_published(self, job: Job, files: Files) -> None:
        """Wait for the files that are being published: they are finished, and counted."""
        deadline = asyncio.get_running_loop().time() + PUBLISHING_SECONDS
        while publishing := files.in_state((FileState.PUBLISHING,)):
            if asyncio.get_running_loop().time() > deadline:
                return
            await asyncio.sleep(PUBLISHING_POLL_SECONDS)
            await self._catch_up(job, files, publishing)

    async def _take_effect(self, job: Job) -> None:
        """What must follow a stop that was written: nothing of it queued, worked on or left. Repeatable."""
        if job.state is JobState.CANCELLED:
            for item_id in (await self._dispatcher.handed()).of(job.job_id):
                last = await self._items.last(job, item_id)
                if last is not None and isinstance(last.event, ItemCancelled):
                    await self._dispatcher.withdraw(job, Action.CANCEL, last.sequence, item_id=item_id)
            if job.started_at is not None:
                # Whatever the attempts at its files were: none of them is begun again before this is done.
                await self._clear(replace(job, attempt=ATTEMPTS_ANY, tally=None))

    async def _retry(self, command: ControlJob, tracked: Tracked, sequence: int) -> Controlled | Refused:
        if tracked.job.state not in deciding.RETRIED:
            raise IllegalTransition(tracked.job.state, Signal.RETRY)
        files = await self._read(tracked.job)
        if files is None:
            return NO_MANIFEST
        now = self._now()
        written = await self._book.write_over(
            tracked,
            lambda job: deciding.retried(
                job, files, now=now, by=command.by, control=sequence, failed_only=command.failed_only
            ),
        )
        assert written is not None, "a decision that never declines is written"
        return Controlled(job=(await self._requeue(written)).job)


def _connections(job: Job) -> frozenset[tuple[str, str]]:
    """What only one running batch may write to."""
    assert job.batch is not None, "only batches read from connections"
    return frozenset((job.tenant, part.connection_id) for part in job.batch.parts)


def _at_once(job: Job) -> int:
    assert job.batch is not None, "only batches have files"
    return job.batch.options.files_at_once
