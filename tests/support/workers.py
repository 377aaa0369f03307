"""A worker with everything real but the encoder, and the scheduler's half of the conversation with it."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from pharos_contracts import streams, subjects
from pharos_contracts.control.v1 import Action, StopItem
from pharos_contracts.identity import uuid7
from pharos_contracts.jobs.v1 import (
    AnyItemEvent,
    ItemCancelled,
    ItemEvent,
    ItemPaused,
    Job,
    JobKind,
    Purpose,
    RepositorySource,
    WorkItem,
)
from pharos_contracts.lifecycle import JobState
from pharos_contracts.message import decode, tag_of
from pharos_contracts.streams import BusLimits, declare
from pharos_contracts.subjects import ITEM_CLEAR, ITEM_REPOSITORY
from pharos_contracts.workers.v1 import Worker as WorkerView
from pharos_contracts.workers.v1 import WorkerState
from pharos_embedder.bounded_cache import LIMIT_BYTES_MIN
from pharos_embedder.control import Control
from pharos_embedder.discovery import DiscoveryLimits
from pharos_embedder.draining import Drain
from pharos_embedder.edge_store import EdgeEngine
from pharos_embedder.encoding import EncoderService
from pharos_embedder.generations import Engine, GenerationStore
from pharos_embedder.indexing import Indexing, IndexingConfig
from pharos_embedder.items import last_fact
from pharos_embedder.model import Pending
from pharos_embedder.parse_cache import ParseCache
from pharos_embedder.parse_pool import ParsePool
from pharos_embedder.ports import Check, unchecked
from pharos_embedder.presence import Presence
from pharos_embedder.publishing import Publisher
from pharos_embedder.stages import Limits, Tools
from pharos_embedder.syntax import ParseOptions
from pharos_embedder.vector_cache import VectorCache
from pharos_embedder.vectors import Condition, Floats, Point, VectorStore
from pharos_embedder.worker import Worker, WorkerConfig
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus
from pharos_service.bus_admin import apply
from pharos_service.ending import end
from pharos_service.journal import Journal
from pharos_sources.git import FetchLimits
from pharos_sources.hosts import AllowedHosts
from pharos_sources.kept_checkouts import KeptCheckouts

DIMENSIONS = 8
TOKENS_MAX = 16


def now() -> datetime:
    return datetime.now(UTC)


def new_job(clone_url: str, *, identity: str = "h.example/o/r", **facts: Any) -> Job:
    made = now()
    return Job(
        **{
            "job_id": str(uuid7(int(made.timestamp() * 1000), uuid4().bytes[:10])),
            "number": 1,
            "tenant": "default",
            "key": "k",
            "kind": JobKind.REPOSITORY,
            "state": JobState.QUEUED,
            "source": RepositorySource(identity=identity, clone_url=clone_url),
            "project": "default",
            "submitted_at": made,
            "submitted_by": "u",
            "ttl_seconds": 600,
            **facts,
        }
    )


# The scheduler's half


async def declared(
    bus: Bus,
    *,
    work_ack_wait_seconds: float = streams.WORK_ACK_WAIT_SECONDS,
    lock_ttl_seconds: float = streams.LOCK_TTL_SECONDS,
) -> None:
    """The streams as they are, but for the time after which an item of a silent worker comes again, and that
    after which the lock of one is gone.
    """
    whole = declare(BusLimits())
    consumers = tuple(
        replace(each, ack_wait_seconds=work_ack_wait_seconds)
        if each.name in (streams.WORKERS, streams.WORKERS_DOCUMENTS)
        else each
        for each in whole.consumers
    )
    kept = tuple(
        replace(each, max_age_seconds=lock_ttl_seconds, duplicate_window_seconds=lock_ttl_seconds)
        if each.name == f"KV_{streams.KV_LOCKS}"
        else each
        for each in whole.streams
    )
    await apply(bus, replace(whole, consumers=consumers, streams=kept), 1)


async def hand_out(bus: Bus, job: Job, *, attempt: int = 1, dispatch: int = 1, term: int = 0) -> int:
    """Hand the repository of *job* out; its sequence on WORK."""
    item = WorkItem(job=job, item_id=ITEM_REPOSITORY, attempt=attempt, dispatch=dispatch, term=term)
    return await _publish(bus, item)


async def hand_out_clearing(bus: Bus, job: Job, *, attempt: int = 1) -> int:
    item = WorkItem(job=job, item_id=ITEM_CLEAR, attempt=attempt, dispatch=1, purpose=Purpose.CLEAR)
    return await _publish(bus, item)


async def _publish(bus: Bus, item: WorkItem) -> int:
    ack = await bus.publish(subjects.work_subject(item), item, message_id=subjects.work_message_id(item))
    return ack.seq


async def take_away(bus: Bus, job: Job, action: Action) -> int:
    """Say that the item is taken away; the sequence of that fact. Superseded where a worker said more."""
    kind = ItemCancelled if action is Action.CANCEL else ItemPaused
    last = await last_fact(bus, job.tenant, job.job_id, ITEM_REPOSITORY)
    event = kind(
        event_id=f"{job.job_id}:{last.sequence if last else 0}:{tag_of(kind)}",
        at=now(),
        tenant=job.tenant,
        job_id=job.job_id,
        item_id=ITEM_REPOSITORY,
        attempt=last.event.attempt if last else 0,
        dispatch=last.event.dispatch if last else 0,
        worker="scheduler",
        deaths=last.event.deaths if last else 0,
    )
    return await Journal(bus, streams.JOBS).append(
        subjects.item_event_subject(event),
        event,
        message_id=event.event_id,
        scope=subjects.item_events(job.tenant, job.job_id, ITEM_REPOSITORY),
        expect_last=last.sequence if last else 0,
    )


async def stop(bus: Bus, job: Job, action: Action) -> int:
    """What the scheduler does to stop a job that is with a worker; the sequence of the fact."""
    fact = await take_away(bus, job, action)
    message = StopItem(job_id=job.job_id, item_id=ITEM_REPOSITORY, action=action, fact=fact, at=now())
    await Bucket(bus, streams.KV_CONTROL, StopItem).put(job.job_id, message)
    await bus.api(f"STREAM.PURGE.{streams.WORK}", {"filter": subjects.work_item(job.job_id, ITEM_REPOSITORY)})
    return fact


async def said(bus: Bus, job: Job) -> list[AnyItemEvent]:
    """Everything that was said of the item, in order."""
    found: list[AnyItemEvent] = []
    sequence = 1
    scope = subjects.item_events(job.tenant, job.job_id, ITEM_REPOSITORY)
    while (stored := await bus.first(streams.JOBS, scope, sequence)) is not None:
        found.append(decode(stored.data, AnyItemEvent))
        sequence = stored.sequence + 1
    return found


def names(events: Sequence[AnyItemEvent]) -> list[str]:
    return [type(event).__name__.removeprefix("Item") for event in events]


async def until_said(bus: Bus, job: Job, kind: type[ItemEvent], *, seconds: float = 40) -> Any:
    async with asyncio.timeout(seconds):
        while True:
            events = await said(bus, job)
            if events and isinstance(events[-1], kind):
                return events[-1]
            await asyncio.sleep(0.02)


async def until_settled(bus: Bus, *, seconds: float = 40) -> None:
    """Until nothing is in WORK."""
    async with asyncio.timeout(seconds):
        while (await bus.api(f"STREAM.INFO.{streams.WORK}"))["state"]["messages"]:
            await asyncio.sleep(0.02)


async def until(read: Callable[[], Any], *, seconds: float = 40) -> None:
    async with asyncio.timeout(seconds):
        while not read():
            await asyncio.sleep(0.01)


async def worker_entry(bus: Bus, name: str) -> WorkerView | None:
    entry = await Bucket(bus, streams.KV_WORKERS, WorkerView).get(name)
    return entry.value if entry is not None else None


# The worker


class Gate:
    """A place in the work where a thread waits, once shut, until the test lets it go on."""

    def __init__(self) -> None:
        self.passes = 0
        self.passing: Callable[[], None] = lambda: None
        self.reached = threading.Event()
        self._shut_after: int | None = None
        self._opened = threading.Event()

    def shut(self, *, after: int = 0) -> None:
        """Whoever comes after *after* more passes waits."""
        self.reached.clear()
        self._opened.clear()
        self._shut_after = self.passes + after

    def open(self) -> None:
        self._shut_after = None
        self._opened.set()

    def __call__(self) -> None:
        self.passes += 1
        self.passing()
        if self._shut_after is not None and self.passes > self._shut_after:
            self.reached.set()
            assert self._opened.wait(30), "the test did not open the gate"


class CountingEncoder:
    """Tells apart what it is given, and remembers it. One batch is two texts."""

    version = "counting@1"
    dimensions = DIMENSIONS
    max_tokens = TOKENS_MAX
    token_budget = 2 * TOKENS_MAX
    window_texts = 512
    query_prompt = ""
    document_prompt = ""

    def __init__(self) -> None:
        self.given: list[int] = []
        self.gate = Gate()
        self.fails_with: Callable[[], Exception] | None = None

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        digests = [hashlib.blake2b(text.encode(), digest_size=6).digest() for text in texts]
        return [[int.from_bytes(each, "big"), *([1] * (TOKENS_MAX - 1))] for each in digests]

    def launch(self, batch: Sequence[Sequence[int]], midway: Check = unchecked) -> Pending:
        self.gate()
        if self.fails_with is not None:
            raise self.fails_with()
        self.given += [ids[0] for ids in batch]
        made = np.stack([np.random.default_rng(ids[0]).standard_normal(DIMENSIONS) for ids in batch])
        vectors: NDArray[np.float32] = (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)
        return lambda: vectors


class GatedEngine:
    """An engine whose writes are counted, and wait at a gate; *broken* is raised in their place."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.gate = Gate()
        self.writes = 0
        self.broken: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def _write(self) -> None:
        self.gate()
        if self.broken is not None:
            raise self.broken
        self.writes += 1

    def put(self, points: Sequence[Point]) -> None:
        self._write()
        self._engine.put(points)

    def set_text(self, ids: Sequence[str], vectors: Floats) -> None:
        self._write()
        self._engine.set_text(ids, vectors)

    def set_until(self, ids: Sequence[str], generation: int, condition: Condition) -> None:
        self._write()
        self._engine.set_until(ids, generation, condition)

    def delete(self, ids: Sequence[str], condition: Condition) -> None:
        self._write()
        self._engine.delete(ids, condition)


class Machine:
    """A home with a store, a cache and an encoder; workers come and go on it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.encoder = CountingEncoder()
        self.engine = GatedEngine(EdgeEngine(home / "index", dimensions=DIMENSIONS))
        self.store: VectorStore = GenerationStore(self.engine, dimensions=DIMENSIONS)  # type: ignore[arg-type]
        self.cache = VectorCache(home / "vectors", limit_bytes=LIMIT_BYTES_MIN, warn=self._warned)
        self.parse_cache = ParseCache(
            home / "parsed", limit_bytes=LIMIT_BYTES_MIN, warn=self._warned, options=ParseOptions()
        )
        self.checkouts = KeptCheckouts(home / "checkouts", bytes_max=1 << 30, warn=self._warned)
        self.workspaces = home / "workspaces"
        self.workspaces.mkdir(parents=True, exist_ok=True)

    def _warned(self, text: str) -> None:
        raise AssertionError(text)

    def __enter__(self) -> Machine:
        self.store.open()
        return self

    def __exit__(self, *_: object) -> None:
        for gate in (self.encoder.gate, self.engine.gate):
            gate.open()
        self.cache.close()
        self.parse_cache.close()
        self.store.close()

    def holds_nothing_of(self, job: Job) -> bool:
        """Whether nothing of *job* is in the index, in the cache or on disk."""
        return (
            self.store.left_by(job.job_id, 999) == {}
            and not any(job.job_id in label for label in (*self.cache.jobs(), *self.parse_cache.jobs()))
            and not any(job.job_id in each.name for each in self.workspaces.iterdir())
            and (job.source is None or not self.checkouts.path_of(job.tenant, job.source.identity).exists())
        )


class Running(msgspec.Struct, frozen=True):
    """A worker on a machine."""

    presence: Presence
    drain: Drain
    died: list[bool]
    serving: asyncio.Task[None]


@asynccontextmanager
async def working(
    bus: Bus,
    machine: Machine,
    *,
    allowed_hosts: str = "http://127.0.0.1:9",
    name: str = "w2",
    config: WorkerConfig | None = None,
    parse_command: Sequence[str] = (),
    limits: Callable[[Limits], Limits] = lambda limits: limits,
) -> AsyncIterator[Running]:
    """One slot that indexes what *allowed_hosts* serve, on *machine*."""
    pool = ParsePool(1, command=parse_command) if parse_command else ParsePool(1)
    usual = Limits(
        fetch=FetchLimits(), discovery=DiscoveryLimits(), parsing=ParseOptions(), batch_tokens=None
    )
    publisher = Publisher(
        bus, encoder=machine.encoder.version, chunker=usual.chunker, now=now, on_change=lambda *_: None
    )
    tools = Tools(
        store=machine.store,
        encoder=EncoderService(machine.encoder),
        cache=machine.cache,
        parse_cache=machine.parse_cache,
        parse_pool=pool,
        checkouts=machine.checkouts,
    )
    indexing = Indexing(
        tools,
        publisher,
        IndexingConfig(
            workspaces=machine.workspaces,
            allowed_hosts=AllowedHosts.parse(allowed_hosts),
            github_token=None,
            limits=limits(usual),
        ),
    )
    view = WorkerView(
        name=name,
        instance=str(uuid4()),
        pool="default",
        state=WorkerState.IDLE,
        device="cpu",
        slots=1,
        since=now(),
        seen_at=now(),
    )
    presence, control, drain = Presence(bus, view, now), Control(bus), Drain()
    died: list[bool] = []
    worker = Worker(
        bus,
        indexing,
        presence,
        control,
        drain,
        now=now,
        config=config,
        die=lambda: died.append(True),
    )
    following = [asyncio.create_task(each) for each in (control.follow(), presence.beat())]
    serving = asyncio.create_task(worker.serve())
    try:
        yield Running(presence, drain, died, serving)
    finally:
        for gate in (machine.encoder.gate, machine.engine.gate):
            gate.open()
        await end(serving, *following)
        pool.close()
