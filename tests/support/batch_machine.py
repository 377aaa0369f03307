"""Batches as a worker meets them: connections on the bus, files handed out, and slots that do them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec

from pharos_contracts import streams, subjects
from pharos_contracts.batches.v1 import BatchFile, BatchOptions, BatchPart, BatchSource, connection_dataset
from pharos_contracts.connections.v1 import Connection, SourceType, connection_key
from pharos_contracts.control.v1 import Action, StopItem
from pharos_contracts.datasets.v1 import Dataset
from pharos_contracts.identity import dataset_key
from pharos_contracts.jobs.v1 import (
    AnyItemEvent,
    ItemCancelled,
    ItemCompleted,
    ItemFailed,
    ItemPaused,
    ItemSkipped,
    Job,
    JobKind,
    Purpose,
    WorkItem,
)
from pharos_contracts.lifecycle import JobState
from pharos_contracts.message import tag_of
from pharos_contracts.streams import OBJ_ARCHIVES
from pharos_contracts.workers.v1 import Worker as WorkerView
from pharos_contracts.workers.v1 import WorkerState
from pharos_embedder.batch_work import BatchConfig, BatchTools, BatchWork
from pharos_embedder.bm25 import query_vector
from pharos_embedder.connecting import Connecting
from pharos_embedder.control import Control
from pharos_embedder.dataset_locks import DatasetLocks
from pharos_embedder.documents.limits import DocumentLimits
from pharos_embedder.documents.pool import DocumentPool
from pharos_embedder.draining import Drain
from pharos_embedder.encoding import EncoderService
from pharos_embedder.group_commit import GroupCommit
from pharos_embedder.items import last_fact
from pharos_embedder.open_connections import OpenConnections
from pharos_embedder.presence import Presence
from pharos_embedder.publishing import Publisher
from pharos_embedder.vectors import DatasetKey, Payload, Searched, Selection
from pharos_embedder.worker import Worker, WorkerConfig
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus
from pharos_service.ending import end
from pharos_service.journal import Journal
from pharos_service.local_copies import LocalCopies
from pharos_sources.connections import Installation, parse_connection
from pharos_sources.keeping import keep
from pharos_sources.sealing import Sealer
from tests.support.workers import Machine, new_job, now

SEALER = Sealer(("k" * 32,))
ENDED = (ItemCompleted, ItemFailed, ItemSkipped, ItemCancelled)


async def keep_connection(
    bus: Bus, connection_id: str, source_type: SourceType, installation: Installation, **fields: Any
) -> None:
    """A connection of the tenant `default`."""
    connection = parse_connection(source_type.value, fields, installation=installation)
    parts = keep(connection, SEALER, tenant="default", connection_id=connection_id)
    entry = Connection(
        connection_id=connection_id,
        tenant="default",
        user="ada",
        source_type=source_type,
        config=dict(parts.config),
        sealed=parts.sealed,
        created_at=now(),
    )
    await Bucket(bus, streams.KV_CONNECTIONS, Connection).put(connection_key("default", connection_id), entry)


def batch(parts: Mapping[str, SourceType], files: int, **options: Any) -> Job:
    """A running batch of *files* from each of *parts*."""
    source = BatchSource(
        name="papers",
        manifest="m",
        parts=tuple(
            BatchPart(connection_id=connection_id, source_type=kind, files=files)
            for connection_id, kind in parts.items()
        ),
        options=BatchOptions(**options),
    )
    return new_job(
        "", kind=JobKind.BATCH, source=None, batch=source, state=JobState.RUNNING, started_at=now()
    )


def key_of(connection_id: str) -> DatasetKey:
    return DatasetKey("default", "default", connection_dataset(connection_id))


def item_of(
    job: Job, number: int, file_id: str, *, part: int = 0, name: str = "", attempt: int = 1, **of: Any
) -> WorkItem:
    return WorkItem(
        job=job,
        item_id=str(number),
        attempt=attempt,
        dispatch=of.pop("dispatch", attempt),
        file=BatchFile(part=part, file_id=file_id, name=name or file_id),
        **of,
    )


async def hand_out(bus: Bus, *items: WorkItem) -> None:
    for item in items:
        await bus.publish(
            subjects.work_subject(item), item, message_id=subjects.work_message_id(item), timeout=5
        )


async def hand_out_clearing(bus: Bus, job: Job) -> None:
    await hand_out(
        bus,
        WorkItem(job=job, item_id=subjects.ITEM_CLEAR, attempt=1, dispatch=1, purpose=Purpose.CLEAR),
    )


async def last_said(bus: Bus, item: WorkItem) -> AnyItemEvent | None:
    found = await last_fact(bus, item.job.tenant, item.job.job_id, item.item_id)
    return None if found is None else found.event


async def until_ended(bus: Bus, *items: WorkItem, seconds: float = 60) -> list[AnyItemEvent]:
    """What was said of each item at its end."""
    found: list[AnyItemEvent] = []
    async with asyncio.timeout(seconds):
        for item in items:
            while not isinstance(event := await last_said(bus, item), ENDED):
                await asyncio.sleep(0.02)
            found.append(event)
    return found


async def stop(bus: Bus, item: WorkItem, action: Action) -> None:
    """What the scheduler does to an item that is with a worker."""
    kind = ItemCancelled if action is Action.CANCEL else ItemPaused
    job = item.job
    last = await last_fact(bus, job.tenant, job.job_id, item.item_id)
    sequence = last.sequence if last else 0
    event = kind(
        event_id=f"{job.job_id}.{item.item_id}:{sequence}:{tag_of(kind)}",
        at=now(),
        tenant=job.tenant,
        job_id=job.job_id,
        item_id=item.item_id,
        attempt=item.attempt,
        dispatch=item.dispatch,
        worker="scheduler",
    )
    fact = await Journal(bus, streams.JOBS).append(
        subjects.item_event_subject(event),
        event,
        message_id=event.event_id,
        scope=subjects.item_events(job.tenant, job.job_id, item.item_id),
        expect_last=sequence,
    )
    message = StopItem(job_id=job.job_id, item_id=item.item_id, action=action, fact=fact, at=now())
    await Bucket(bus, streams.KV_CONTROL, StopItem).put(subjects.held_name(job, item.item_id), message)
    await bus.api(f"STREAM.PURGE.{streams.WORK}", {"filter": subjects.work_item(job.job_id, item.item_id)})


async def record(bus: Bus, connection_id: str) -> Dataset | None:
    key = key_of(connection_id)
    entry = await Bucket(bus, streams.KV_DATASETS, Dataset).get(
        dataset_key(key.tenant, key.project, key.dataset)
    )
    return entry.value if entry is not None else None


async def published(bus: Bus) -> int:
    """How often any dataset was published."""
    return int((await bus.api(f"STREAM.INFO.KV_{streams.KV_DATASETS}"))["state"]["last_seq"])


def texts(machine: Machine, connection_id: str, live: Dataset | None) -> dict[str, list[str]]:
    """What readers see of a dataset: the texts of each file."""
    if live is None:
        return {}
    key = key_of(connection_id)
    ids = machine.store.live_ids(key, live.generation, "chunk")
    found: dict[str, list[str]] = {}
    for payload in machine.store.payloads(key, ids):
        found.setdefault(payload.path, []).append(payload.text)
    return found


def passages_with(machine: Machine, connection_id: str, words: str, live: Dataset | None) -> list[Payload]:
    """The passages with any of *words* in what readers see."""
    assert live is not None
    key = key_of(connection_id)
    vector = query_vector(words, [machine.store.lexicon(key, live.generation)])
    where = Selection(datasets=(Searched(dataset=key, generation=live.generation, has_dense=True),))
    return [hit.payload for hit in machine.store.sparse(vector, where, 50)]


class Slots(msgspec.Struct, frozen=True):
    """Slots at work."""

    presence: Presence
    drain: Drain
    connections: OpenConnections
    serving: Sequence[asyncio.Task[None]]


@asynccontextmanager
async def doing(
    bus: Bus,
    machine: Machine,
    pool: DocumentPool,
    installation: Installation,
    *,
    slots: int = 3,
    name: str = "w2",
    config: WorkerConfig | None = None,
    idle_seconds: float = 60,
    lock_ttl_seconds: float = streams.LOCK_TTL_SECONDS,
    on_change: Callable[[str, Dataset | None], None] = lambda *_: None,
) -> AsyncIterator[Slots]:
    """A worker process with *slots* for files."""
    settings = BatchConfig(workspaces=machine.workspaces, limits=DocumentLimits(bytes_max=2_000_000))
    publisher = Publisher(
        bus, encoder=machine.encoder.version, chunker="document", now=now, on_change=on_change
    )
    view = WorkerView(
        name=name,
        instance=str(uuid4()),
        pool="default",
        state=WorkerState.IDLE,
        device="cpu",
        slots=0,
        document_slots=slots,
        since=now(),
        seen_at=now(),
    )
    presence, control, drain = Presence(bus, view, now), Control(bus), Drain()
    archives = machine.home / f"archives-{uuid4().hex}"
    archives.mkdir()
    copies = LocalCopies(bus, OBJ_ARCHIVES, archives, bytes_max=50_000_000)
    async with (
        OpenConnections(
            bus, Connecting(bus, copies, SEALER, installation), idle_seconds=idle_seconds
        ) as connections,
        GroupCommit(
            machine.store,
            publisher,
            DatasetLocks(bus, view.instance, ttl_seconds=lock_ttl_seconds),
            encoder=machine.encoder.version,
        ) as commits,
    ):
        tools = BatchTools(
            connections=connections,
            commits=commits,
            pool=pool,
            store=machine.store,
            encoder=EncoderService(machine.encoder),
            cache=machine.cache,
        )
        workers = [
            Worker(
                bus,
                BatchWork(tools, publisher, settings),
                presence,
                control,
                drain,
                now=now,
                consumer=streams.WORKERS_DOCUMENTS,
                config=config,
            )
            for _ in range(slots)
        ]
        serving = [asyncio.create_task(worker.serve()) for worker in workers]
        others = [asyncio.create_task(each) for each in (control.follow(), presence.beat())]
        try:
            yield Slots(presence, drain, connections, serving)
        finally:
            for gate in (machine.encoder.gate, machine.engine.gate):
                gate.open()
            await end(*serving, *others)


def write_files(folder: Path, files: Mapping[str, str | bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
