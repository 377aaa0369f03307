"""What the worker tells of itself, and how far its jobs are, while it lives."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime
from typing import Final, NamedTuple

import anyio
import structlog
from msgspec.structs import replace

from pharos_contracts import streams
from pharos_contracts.jobs.v1 import Job, Progress, Stage, WorkItem
from pharos_contracts.message import UnreadableMessage, decode, encode
from pharos_contracts.subjects import held_name, progress_subject
from pharos_contracts.workers.v1 import Worker, WorkerState
from pharos_embedder.progress import Gauge
from pharos_service.buckets import Bucket
from pharos_service.bus import TROUBLE, Bus

log = structlog.get_logger()

HEARTBEAT_SECONDS: Final = 3.0
GATHER_SECONDS: Final = 0.1  # between two writes, so that jobs of a moment cost few
PROGRESS_SECONDS: Final = 0.25  # four times a second, whatever happens in between


class Memory(NamedTuple):
    """Bytes; both 0 where they cannot be told."""

    used: int
    total: int


def no_memory() -> Memory:
    return Memory(0, 0)


class Presence:
    """The worker's entry in the bucket ``workers``, renewed often enough that silence means death."""

    def __init__(
        self,
        bus: Bus,
        worker: Worker,
        now: Callable[[], datetime],
        memory: Callable[[], Memory] = no_memory,
    ) -> None:
        self._bucket = Bucket(bus, streams.KV_WORKERS, Worker)
        self._worker = worker
        self._now = now
        self._memory = memory
        self._draining = False
        self._changed = asyncio.Event()
        self._urgent = asyncio.Event()

    @property
    def name(self) -> str:
        return self._worker.name

    @property
    def instance(self) -> str:
        return self._worker.instance

    @property
    def working(self) -> bool:
        """Whether any slot has an item."""
        return bool(self._worker.job_ids)

    def busy(self, item: WorkItem) -> None:
        self._set(
            state=WorkerState.BUSY,
            job_ids=(*self._worker.job_ids, held_name(item.job, item.item_id)),
            tenant=item.job.tenant,
            repository=_shown(item.job),
            error=None,
            since=self._now(),
        )

    def done(self, item: WorkItem, error: str | None) -> None:
        """The item ended; an *error* stays visible until the next one begins."""
        job, name = item.job, held_name(item.job, item.item_id)
        left = tuple(each for each in self._worker.job_ids if each != name)
        state = WorkerState.BUSY if left else WorkerState.ERROR if error else WorkerState.IDLE
        self._set(
            state=state,
            job_ids=left,
            error=error,
            stage=None,
            tenant=job.tenant,
            repository=_shown(job) if left or error else None,
            since=self._now(),
        )

    def at_stage(self, stage: Stage) -> None:
        if self._worker.stage != stage:
            self._set(stage=stage.value)

    def draining(self) -> None:
        """No more jobs, from now on; told at once."""
        self._draining = True
        self._set(since=self._now())
        self._urgent.set()

    def _set(self, **changes: object) -> None:
        self._worker = replace(self._worker, **changes)
        if self._draining:
            self._worker = replace(self._worker, state=WorkerState.DRAINING)
        self._changed.set()

    async def beat(self) -> None:
        """Write the entry at every change, and every few seconds; take it away when cancelled."""
        try:
            while True:
                self._changed.clear()
                try:
                    await self._bucket.put(self._worker.name, self._entry())
                except TROUBLE as error:
                    log.debug("heartbeat_failed", reason=repr(error))
                with anyio.move_on_after(GATHER_SECONDS):
                    await self._urgent.wait()
                self._urgent.clear()
                with anyio.move_on_after(HEARTBEAT_SECONDS - GATHER_SECONDS):
                    await self._changed.wait()
        finally:
            with anyio.CancelScope(shield=True):
                await self._leave()

    def _entry(self) -> Worker:
        memory = self._memory()
        return replace(self._worker, seen_at=self._now(), memory_used=memory.used, memory_total=memory.total)

    async def _leave(self) -> None:
        """Gone at once, rather than after the bucket has forgotten it."""
        try:
            async with asyncio.timeout(1):
                entry = await self._bucket.get(self._worker.name)
                if entry is not None and entry.value.instance == self._worker.instance:
                    await self._bucket.delete(self._worker.name, entry.revision, tombstone_seconds=60)
        except TROUBLE as error:
            log.debug("farewell_failed", reason=repr(error))


def _shown(job: Job) -> str:
    """What the public status says that the worker is at: the address or name of a document tells too much."""
    return "a document" if job.source is None else job.source.identity


class ProgressFeed:
    """The progress of one attempt: reported from any thread, sent four times a second at most."""

    def __init__(
        self, bus: Bus, item: WorkItem, attempt: int, presence: Presence, now: Callable[[], datetime]
    ) -> None:
        self._bus = bus
        self._item = item
        self._attempt = attempt
        self._presence = presence
        self._now = now
        self._gauge = Gauge()
        self._latest: Progress | None = None
        self._sent: Progress | None = None

    async def take_up(self) -> None:
        """Begin where a worker that let go of this very attempt was: what is told of it never goes back.

        Best effort: progress is kept in the server's memory alone.
        """
        self.report(Stage.FETCH, 0, 0)
        assert self._latest is not None, "it was just reported"
        subject, self._latest = progress_subject(self._latest), None
        try:
            found = await self._bus.last(streams.PROGRESS, subject)
            told: Progress | None = decode(found.data, Progress) if found is not None else None
        except (*TROUBLE, UnreadableMessage) as error:
            log.debug("progress_unknown", reason=repr(error))
            return
        if told is not None and told.attempt == self._attempt:
            self._gauge = Gauge(told.percent)

    def report(
        self,
        stage: Stage,
        done: int,
        total: int,
        *,
        current_file: str | None = None,
        detail: str | None = None,
    ) -> None:
        at = self._gauge.read(
            stage, done, total, at=time.monotonic(), current_file=current_file, detail=detail
        )
        self._latest = Progress(
            tenant=self._item.job.tenant,
            job_id=self._item.job.job_id,
            item_id=self._item.item_id,
            attempt=self._attempt,
            at=self._now(),
            stage=at.stage,
            done=at.done,
            total=at.total,
            percent=at.percent,
            current_file=at.current_file,
            eta_seconds=at.eta_seconds,
            detail=at.detail,
            worker=self._presence.name,
        )

    async def send(self) -> None:
        """Send what is new, until cancelled. Nobody waits for it to be stored: the next one replaces it."""
        while True:
            latest = self._latest
            if latest is not None and latest is not self._sent:
                self._presence.at_stage(latest.stage)
                try:
                    await self._bus.client.publish(progress_subject(latest), encode(latest))
                    self._sent = latest
                except TROUBLE as error:
                    log.debug("progress_not_sent", reason=repr(error))
            await asyncio.sleep(PROGRESS_SECONDS)
