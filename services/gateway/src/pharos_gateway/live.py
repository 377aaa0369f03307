"""What is going on now: one tail each of JOBS, PROGRESS and the workers, shared by every client.

The tails reconnect by themselves and lose nothing of JOBS. ``sequence`` says how far JOBS has been read;
a client that joins catches up to there by itself and drops what is not newer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from datetime import UTC, datetime
from time import monotonic
from typing import Final, Protocol

import anyio
import msgspec
import structlog

from pharos_contracts.batches.v1 import WORKERS_MAX
from pharos_contracts.jobs.v1 import NO_NUMBER, Job, Progress
from pharos_contracts.lifecycle import TERMINAL, JobState
from pharos_contracts.message import UnreadableMessage, decode
from pharos_contracts.streams import JOBS, PROGRESS, WORKER_TTL_SECONDS
from pharos_contracts.subjects import POOLS, pool_of, tenant_job_events
from pharos_contracts.workers.v1 import Worker
from pharos_gateway import statuses
from pharos_gateway.happenings import Happening, progress_block, read, worker_block
from pharos_gateway.sight import Sight
from pharos_gateway.subscriptions import EVENTS_MAX, STOPPING, Subscription
from pharos_service.buckets import Bucket, Entry, Gone
from pharos_service.bus import Bus, BusError
from pharos_service.pull import CaughtUp, tail

log = structlog.get_logger()

TICK_SECONDS: Final = 0.25  # progress of a job is sent at most four times a second
RETRY_SECONDS: Final = 0.25
PRIME_SECONDS: Final = 1.0
RECENT_MAX: Final = 2_000
ITEMS_MAX: Final = 2 * WORKERS_MAX  # of one batch, whose files are with that many workers at most
PRIMED_EVENTS: Final = 1_000
DURATIONS_MAX: Final = 20
WORKER_GRACE_SECONDS: Final = WORKER_TTL_SECONDS + 1


class _Seen(msgspec.Struct, frozen=True):
    worker: Worker
    at: float  # monotonic seconds


class Listener(Protocol):
    """Whoever is told of jobs as they are, not of events in their order. It must not wait."""

    def happened(self, job: Job) -> None: ...
    def progressed(self, progress: Progress, job: Job | None) -> None: ...
    def close(self) -> None: ...


class Live:
    """The shared tails and their readers. ``run`` them in a task of their own."""

    def __init__(
        self, bus: Bus, workers: Bucket[Worker], *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._bus = bus
        self._bucket = workers
        self._now = now
        self._workers: dict[str, _Seen] = {}
        self._recent: OrderedDict[str, Job] = OrderedDict()
        self._by_number: dict[int, str] = {}
        self._progress: OrderedDict[str, OrderedDict[str, Progress]] = OrderedDict()  # by job, by item
        self._unsent: dict[tuple[str, str], Progress] = {}
        self._durations: dict[str, deque[float]] = {pool: deque(maxlen=DURATIONS_MAX) for pool in POOLS}
        self._subscriptions: set[Subscription] = set()
        self._listeners: set[Listener] = set()
        self.sequence = 0
        self.ready = asyncio.Event()  # JOBS is being followed
        self.workers_known = asyncio.Event()
        self.stopping = False

    # What is known

    def workers(self) -> list[Worker]:
        """The live ones, by name."""
        return [self._workers[name].worker for name in sorted(self._workers)]

    def progress(self, job_id: str) -> Progress | None:
        """What was told last of whichever item of the job."""
        items = self._progress.get(job_id)
        return next(reversed(items.values())) if items else None

    def item_progress(self, job_id: str, item_id: str) -> Progress | None:
        items = self._progress.get(job_id)
        return None if items is None else items.get(item_id)

    def recent_job(self, number: int) -> tuple[str, str] | None:
        """(tenant, job id) of a job that was seen lately."""
        job_id = self._by_number.get(number)
        return None if job_id is None else (self._recent[job_id].tenant, job_id)

    async def primed(self) -> None:
        """Wait, a second at most, until the last events before this process began are known."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PRIME_SECONDS):
                await self.ready.wait()

    def recent(self, job_id: str) -> Job | None:
        """A job that was seen lately, as of its last event."""
        return self._recent.get(job_id)

    def recent_jobs(self) -> list[Job]:
        return list(self._recent.values())

    def recent_durations_seconds(self, pool: str) -> Sequence[float]:
        """How long the last jobs of *pool* ran that went well."""
        return tuple(self._durations[pool])

    # Readers

    @contextmanager
    def subscribed(
        self,
        *,
        sight: Sight,
        job_id: str | None = None,
        public: bool = False,
        workers: bool = True,
        events_max: int = EVENTS_MAX,
    ) -> Iterator[Subscription]:
        """A subscription to what comes after ``sequence``."""
        subscription = Subscription(
            sight=sight, job_id=job_id, public=public, workers=workers, events_max=events_max
        )
        if self.stopping:
            subscription.close(STOPPING)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    @contextmanager
    def heard_by(self, listener: Listener) -> Iterator[None]:
        """*listener* is told of what happens from now on."""
        if self.stopping:
            listener.close()
        self._listeners.add(listener)
        try:
            yield
        finally:
            self._listeners.discard(listener)

    def close(self) -> None:
        """Send every reader away, in good order: the process stops."""
        self.stopping = True
        self._send_away()

    def _send_away(self) -> None:
        for subscription in self._subscriptions:
            subscription.close(STOPPING)
        for listener in self._listeners:
            listener.close()

    # The tails

    async def run(self) -> None:
        """For ever."""
        # Not asyncio's group, which cancels once: ``wait_for`` of Python 3.11 forgets a cancellation that
        # comes together with a message, and a tail that lost it would never end.
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._follow_jobs)
            tasks.start_soon(self._follow_progress)
            tasks.start_soon(self._follow_workers)
            tasks.start_soon(self._tick)

    async def _follow_jobs(self) -> None:
        first, last = await self._bounds()
        self.sequence = last
        # A little of the past, so that the numbers of jobs that run now are known; readers see only news.
        after = max(first - 1, last - PRIMED_EVENTS, 0)
        seen = after
        async with aclosing(tail(self._bus, JOBS, tenant_job_events(None), after=after)) as events:
            async for event in events:
                if isinstance(event, CaughtUp):
                    self.ready.set()
                    continue
                if event.sequence <= seen:
                    # The stream was made anew: ids that readers hold mean nothing, and they must begin again.
                    log.warning("jobs_restarted", sequence=event.sequence, seen=seen)
                    self.sequence = 0
                    self._send_away()
                seen = event.sequence
                try:
                    happening = read(event.sequence, event.data, self._recent.get)
                except UnreadableMessage as error:
                    log.warning("event_unreadable", sequence=event.sequence, error=error.reason)
                    continue
                if happening is not None:
                    self._note(happening)
                    if event.sequence > self.sequence:
                        self.sequence = event.sequence
                        for subscription in self._subscriptions:
                            subscription.offer(happening)
                        if happening.job is not None:
                            for listener in tuple(self._listeners):
                                listener.happened(happening.job)

    async def _bounds(self) -> tuple[int, int]:
        """First and last sequence of JOBS, as soon as the bus can say."""
        while True:
            try:
                state = (await self._bus.api(f"STREAM.INFO.{JOBS}"))["state"]
                return int(state["first_seq"]), int(state["last_seq"])
            except BusError as error:
                log.debug("jobs_unreachable", reason=str(error))
            await asyncio.sleep(RETRY_SECONDS)

    def _note(self, happening: Happening) -> None:
        job = happening.job
        if job is None:
            return
        self._recent[job.job_id] = job
        self._recent.move_to_end(job.job_id)
        if job.number != NO_NUMBER:
            self._by_number[job.number] = job.job_id
        while len(self._recent) > RECENT_MAX:
            _, oldest = self._recent.popitem(last=False)
            self._by_number.pop(oldest.number, None)
        if job.state in TERMINAL:
            for item_id in self._progress.pop(job.job_id, ()):
                self._unsent.pop((job.job_id, item_id), None)
        # A batch lasts as long as its files do, and says nothing of how long one document waits.
        if job.state is JobState.COMPLETED and job.batch is None and job.started_at and job.ended_at:
            seconds = (job.ended_at - job.started_at).total_seconds()
            self._durations[pool_of(job.kind)].append(seconds)

    async def _follow_progress(self) -> None:
        async with aclosing(tail(self._bus, PROGRESS, ["progress.>"], last_per_subject=True)) as events:
            async for event in events:
                if isinstance(event, CaughtUp):
                    continue
                try:
                    progress: Progress = decode(event.data, Progress)
                except UnreadableMessage as error:
                    log.warning("progress_unreadable", error=error.reason)
                    continue
                self._note_progress(progress)

    def _note_progress(self, progress: Progress) -> None:
        known = self._recent.get(progress.job_id)
        if known is not None and known.state in TERMINAL:
            return  # it overtook, or outlived, the end of its job
        items = self._progress.setdefault(progress.job_id, OrderedDict())
        items[progress.item_id] = progress
        items.move_to_end(progress.item_id)
        if len(items) > ITEMS_MAX:
            items.popitem(last=False)
        self._progress.move_to_end(progress.job_id)
        while len(self._progress) > RECENT_MAX:
            self._progress.popitem(last=False)
        self._unsent[progress.job_id, progress.item_id] = progress
        while len(self._unsent) > RECENT_MAX:
            self._unsent.pop(next(iter(self._unsent)))

    async def _follow_workers(self) -> None:
        async with aclosing(self._bucket.watch()) as events:
            async for event in events:
                match event:
                    case CaughtUp():
                        self.workers_known.set()
                    case Gone(key=name):
                        self._lose(name)
                    case Entry(key=name, value=worker):
                        self._meet(name, worker)

    def _meet(self, name: str, worker: Worker) -> None:
        before = self._workers.get(name)
        self._workers[name] = _Seen(worker, monotonic())
        if before is None or _told(before.worker) != _told(worker):
            self._tell(worker, None)

    def _lose(self, name: str) -> None:
        gone = self._workers.pop(name, None)
        if gone is not None:
            self._tell(gone.worker, "Offline")

    def _tell(self, worker: Worker, status: str | None) -> None:
        for subscription in self._subscriptions:
            if subscription.workers:
                said = status or statuses.words(worker, subscription.sight.workers)
                subscription.offer_latest(
                    f"worker {worker.name}", worker_block(worker.name, said, worker.device, self._now())
                )

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self._forget_silent_workers()
            self._send_progress()

    def _forget_silent_workers(self) -> None:
        """The bucket forgets them too; but its word may not reach a gateway whose connection was down."""
        connected = self._bus.connected
        now = monotonic()
        if not connected:
            for name, seen in self._workers.items():  # nobody can be heard now: judge nobody
                self._workers[name] = _Seen(seen.worker, now)
            return
        for name, seen in list(self._workers.items()):
            if now - seen.at > WORKER_GRACE_SECONDS:
                self._lose(name)

    def _send_progress(self) -> None:
        unsent, self._unsent = self._unsent, {}
        for progress in unsent.values():
            job = self.recent(progress.job_id)
            number = None if job is None else job.number
            for listener in self._listeners:
                listener.progressed(progress, job)
            if job is not None and job.batch is not None:
                continue  # how far one of its files is says nothing of the batch, which counts them
            blocks: dict[bool, bytes] = {}
            for subscription in self._subscriptions:
                if not subscription.wants(progress.tenant, progress.job_id, job):
                    continue
                if subscription.public and number is None:
                    continue  # the public words know a job by its number, which its next event will tell
                if subscription.public not in blocks:
                    blocks[subscription.public] = progress_block(progress, number, public=subscription.public)
                subscription.offer_latest(progress.job_id, blocks[subscription.public])


def _told(worker: Worker) -> tuple[object, ...]:
    """What a change of is news."""
    return worker.state, worker.job_ids, worker.repository, worker.error, worker.instance
