"""A worker takes what another one left: on a real bus, with a store that only remembers what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from msgspec.structs import replace

from pharos_contracts import streams, subjects
from pharos_contracts.datasets.v1 import Dataset, IndexStage
from pharos_contracts.identity import dataset_key
from pharos_contracts.jobs.v1 import (
    AnyItemEvent,
    IndexResult,
    ItemCommitting,
    ItemCompleted,
    ItemEvent,
    ItemFailed,
    ItemLexicalReady,
    ItemSkipped,
    ItemStarted,
    Job,
    JobKind,
    RepositorySource,
    Scope,
    WorkItem,
)
from pharos_contracts.lifecycle import JobState
from pharos_contracts.message import decode
from pharos_contracts.workers.v1 import Worker as WorkerView
from pharos_contracts.workers.v1 import WorkerState
from pharos_embedder.bm25 import Lexicon
from pharos_embedder.control import Control
from pharos_embedder.discovery import DiscoveryLimits
from pharos_embedder.draining import Drain
from pharos_embedder.indexing import Indexing, IndexingConfig
from pharos_embedder.items import ItemLog, last_fact
from pharos_embedder.presence import Memory, Presence
from pharos_embedder.publishing import Publisher
from pharos_embedder.qdrant_store import local_mode_store
from pharos_embedder.stages import Limits, Tools
from pharos_embedder.syntax import ParseOptions
from pharos_embedder.taking import Fact
from pharos_embedder.vectors import DatasetKey, Payload, Point, VectorStore
from pharos_embedder.worker import Worker
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus
from pharos_service.ending import end
from pharos_service.journal import Superseded
from pharos_sources.git import FetchLimits
from pharos_sources.hosts import AllowedHosts
from pharos_sources.kept_checkouts import KeptCheckouts
from tests.support.nats_server import NatsServer

pytestmark = pytest.mark.anyio

DATASET = "h.example/o/r@main"
RESULT = IndexResult(
    dataset=DATASET,
    generation=20,
    built_on=0,
    commit="c",
    files_processed=1,
    embeddings_generated=1,
    chunks=2,
)


def now() -> datetime:
    return datetime.now(UTC)


def job(*, age_seconds: float = 0, max_attempts: int = 4) -> Job:
    return Job(
        job_id="0199a3c4-6c00-7abc-8def-0123456789ab",
        number=1,
        tenant="default",
        key="k",
        kind=JobKind.REPOSITORY,
        state=JobState.QUEUED,
        source=RepositorySource(identity="h.example/o/r", clone_url="http://127.0.0.1:9/o/r"),
        project="default",
        submitted_at=now() - timedelta(seconds=age_seconds),
        submitted_by="u",
        ttl_seconds=60,
        max_attempts=max_attempts,
    )


INSTANCE = "5b0e4c0a-0000-4d3e-9a57-000000000002"
ENDED_INSTANCE = "5b0e4c0a-0000-4d3e-9a57-000000000001"
KEY = DatasetKey("default", "default", DATASET)


def publisher_on(bus: Bus) -> Publisher:
    return Publisher(bus, encoder="e", chunker="1", now=now, on_change=lambda _key, _dataset: None)


def put_points(
    store: VectorStore, wanted: Job, *, generation: int, attempt: int = 1, whole: bool = False
) -> None:
    """What an indexing of *wanted* would have stored before its vectors; *whole*: all of what RESULT says."""
    chunks = [
        Point(
            id=str(uuid4()),
            payload=Payload(
                dataset=KEY,
                kind="chunk",
                generation=generation,
                path=f"{line}.py",
                start_line=line,
                end_line=line,
                job=wanted.job_id,
                attempt=attempt,
            ),
            text_vector=np.ones(4, dtype=np.float32) if whole else None,
        )
        for line in (1, 2)
    ]
    store.upsert(chunks)
    if whole:
        file = replace(chunks[0].payload, kind="file")
        store.upsert([Point(id=str(uuid4()), payload=file)])
    store.put_lexicon(KEY, generation, Lexicon.of([{1: 1}]), job=wanted.job_id, attempt=attempt)


@asynccontextmanager
async def working(bus: Bus, folder: Path) -> AsyncIterator[VectorStore]:
    store = local_mode_store(None, dimensions=4)
    store.open()
    nothing: Any = None
    no_cache: Any = SimpleNamespace(keep=lambda *_: None, forget=lambda _: 0)
    no_encoder: Any = SimpleNamespace(version="e")  # a commit is compared with what is live, nothing encoded
    presence = Presence(
        bus,
        WorkerView(
            name="w2",
            instance=INSTANCE,
            pool="default",
            state=WorkerState.IDLE,
            device="cpu",
            slots=1,
            since=now(),
            seen_at=now(),
        ),
        now,
    )
    control = Control(bus)
    indexing = Indexing(
        Tools(
            store=store,
            encoder=no_encoder,
            cache=no_cache,
            parse_cache=no_cache,
            parse_pool=nothing,
            checkouts=KeptCheckouts(folder / "checkouts", bytes_max=0, warn=str),
        ),
        publisher_on(bus),
        IndexingConfig(
            workspaces=folder,
            allowed_hosts=AllowedHosts.parse("http://127.0.0.1:9"),
            github_token=None,
            limits=Limits(
                fetch=FetchLimits(), discovery=DiscoveryLimits(), parsing=ParseOptions(), batch_tokens=None
            ),
        ),
    )
    worker = Worker(bus, indexing, presence, control, Drain(), now=now)
    tasks = [asyncio.create_task(each) for each in (worker.serve(), control.follow(), presence.beat())]
    try:
        yield store
    finally:
        await end(*tasks)
        store.close()


def item_of(wanted: Job, attempt: int = 1) -> WorkItem:
    return WorkItem(job=wanted, item_id=subjects.ITEM_REPOSITORY, attempt=attempt, dispatch=1)


async def hand_out(bus: Bus, item: WorkItem) -> None:
    await bus.publish(subjects.work_subject(item), item, message_id=subjects.work_message_id(item))


async def said(bus: Bus, wanted: Job) -> list[AnyItemEvent]:
    found: list[AnyItemEvent] = []
    sequence = 1
    while True:
        scope = subjects.item_events(wanted.tenant, wanted.job_id, subjects.ITEM_REPOSITORY)
        stored = await bus.first(streams.JOBS, scope, sequence)
        if stored is None:
            return found
        found.append(decode(stored.data, AnyItemEvent))
        sequence = stored.sequence + 1


async def until_said(bus: Bus, wanted: Job, kind: type[ItemEvent]) -> AnyItemEvent:
    async with asyncio.timeout(20):
        while True:
            events = await said(bus, wanted)
            if events and isinstance(events[-1], kind):
                return events[-1]
            await asyncio.sleep(0.02)


async def until_settled(bus: Bus) -> None:
    async with asyncio.timeout(10):
        while (await bus.api(f"STREAM.INFO.{streams.WORK}"))["state"]["messages"]:
            await asyncio.sleep(0.02)


def log_of(
    bus: Bus,
    wanted: Job,
    last: Fact | None = None,
    *,
    worker: str,
    instance: str,
    attempt: int = 1,
    deaths: int = 0,
) -> ItemLog:
    return ItemLog(
        bus,
        item_of(wanted),
        last,
        attempt=attempt,
        deaths=deaths,
        worker=worker,
        instance=instance,
        now=now,
    )


async def earlier_worker_said(bus: Bus, wanted: Job, *facts: tuple[type[ItemEvent], dict[str, Any]]) -> None:
    items = log_of(bus, wanted, worker="w1", instance=ENDED_INSTANCE)
    for kind, detail in facts:
        await items.say(kind, **detail)


async def record(bus: Bus) -> Dataset | None:
    entry = await Bucket(bus, streams.KV_DATASETS, Dataset).get(dataset_key("default", "default", DATASET))
    return entry.value if entry else None


async def test_what_was_about_to_be_published_is_published_by_the_next_worker(
    bus: Bus, tmp_path: Path
) -> None:
    wanted = job()
    await earlier_worker_said(bus, wanted, (ItemStarted, {}), (ItemCommitting, {"result": RESULT}))
    async with working(bus, tmp_path) as store:
        put_points(store, wanted, generation=20, whole=True)
        await hand_out(bus, item_of(wanted))
        await until_said(bus, wanted, ItemCompleted)
        await until_settled(bus)
    live = await record(bus)
    assert live is not None
    assert (live.generation, live.stage, live.job_id) == (20, IndexStage.FULL, wanted.job_id)


async def test_a_worker_that_died_after_publishing_is_only_spoken_for(bus: Bus, tmp_path: Path) -> None:
    wanted = job()
    await earlier_worker_said(bus, wanted, (ItemStarted, {}), (ItemCommitting, {"result": RESULT}))
    publisher = publisher_on(bus)
    await publisher.publish(wanted, RESULT, IndexStage.FULL)
    before = await record(bus)
    await hand_out(bus, item_of(wanted))
    async with working(bus, tmp_path):
        await until_said(bus, wanted, ItemCompleted)
        await until_settled(bus)
    assert await record(bus) == before


async def test_a_publish_that_another_job_overtook_fails_with_a_sentence(bus: Bus, tmp_path: Path) -> None:
    wanted = job()
    await earlier_worker_said(bus, wanted, (ItemStarted, {}), (ItemCommitting, {"result": RESULT}))
    other = replace(wanted, job_id="0199a3c4-6c00-7abc-8def-000000000000")
    publisher = publisher_on(bus)
    await publisher.publish(other, replace(RESULT, generation=15), IndexStage.FULL)
    await hand_out(bus, item_of(wanted))
    async with working(bus, tmp_path):
        failed = await until_said(bus, wanted, ItemFailed)
        await until_settled(bus)
    assert isinstance(failed, ItemFailed)
    assert failed.code == "publish_conflict"
    live = await record(bus)
    assert live is not None
    assert live.job_id == other.job_id


async def test_an_item_that_ended_is_only_settled(bus: Bus, tmp_path: Path) -> None:
    wanted = job()
    await earlier_worker_said(bus, wanted, (ItemStarted, {}), (ItemFailed, {"error": "x", "code": "c"}))
    await hand_out(bus, item_of(wanted))
    async with working(bus, tmp_path):
        await until_settled(bus)
    assert len(await said(bus, wanted)) == 2


async def test_an_item_that_waited_too_long_never_runs(bus: Bus, tmp_path: Path) -> None:
    wanted = job(age_seconds=61)
    await hand_out(bus, item_of(wanted))
    async with working(bus, tmp_path):
        skipped = await until_said(bus, wanted, ItemSkipped)
        await until_settled(bus)
    assert isinstance(skipped, ItemSkipped)
    assert skipped.reason == "Task exceeded TTL"
    assert len(await said(bus, wanted)) == 1


async def test_an_item_that_killed_its_workers_fails_and_takes_back_what_it_showed(
    bus: Bus, tmp_path: Path
) -> None:
    wanted = job()
    await publisher_on(bus).publish(wanted, RESULT, IndexStage.LEXICAL)
    first = log_of(bus, wanted, worker="w0", instance=ENDED_INSTANCE, deaths=1)
    await first.say(ItemStarted)
    await first.say(ItemLexicalReady, dataset=DATASET, files=1, chunks=2)
    async with working(bus, tmp_path) as store:
        put_points(store, wanted, generation=RESULT.generation)
        await hand_out(bus, item_of(wanted))
        failed = await until_said(bus, wanted, ItemFailed)
        await until_settled(bus)
        assert isinstance(failed, ItemFailed)
        assert (failed.code, failed.transient, failed.deaths) == ("poison", False, 2)
        assert await record(bus) is None
        assert store.left_by(wanted.job_id, 9) == {}
    assert [type(event).__name__ for event in await said(bus, wanted)] == [
        "ItemStarted",
        "ItemLexicalReady",
        "ItemFailed",
    ]


async def test_a_repository_that_cannot_be_reached_fails_and_may_be_tried_again(
    bus: Bus, tmp_path: Path
) -> None:
    wanted = job()
    await hand_out(bus, item_of(wanted))
    async with working(bus, tmp_path):
        failed = await until_said(bus, wanted, ItemFailed)
        await until_settled(bus)
    assert isinstance(failed, ItemFailed)
    assert failed.transient
    assert "127.0.0.1" in failed.error
    assert not list(tmp_path.iterdir())


async def test_a_worker_that_lost_its_item_cannot_say_another_word_about_it(bus: Bus) -> None:
    wanted = job()
    frozen = log_of(bus, wanted, worker="w1", instance=ENDED_INSTANCE)
    await frozen.say(ItemStarted)
    last = await last_fact(bus, wanted.tenant, wanted.job_id, subjects.ITEM_REPOSITORY)
    next_one = log_of(bus, wanted, last, worker="w2", instance=INSTANCE, attempt=2)
    await next_one.say(ItemStarted)
    with pytest.raises(Superseded):
        await frozen.say(ItemCommitting, result=RESULT)
    await next_one.say(ItemCommitting, result=RESULT)
    assert [type(event).__name__ for event in await said(bus, wanted)] == [
        "ItemStarted",
        "ItemStarted",
        "ItemCommitting",
    ]


async def test_a_dataset_that_is_global_or_local_keeps_its_scope(bus: Bus) -> None:
    publisher = publisher_on(bus)
    await publisher.publish(replace(job(), scope=Scope.LOCAL), RESULT, IndexStage.FULL)
    live = await record(bus)
    assert live is not None
    assert live.scope is Scope.LOCAL


async def test_who_searches_in_the_same_process_hears_of_a_publishing_and_a_withdrawal_at_once(
    bus: Bus,
) -> None:
    heard: list[Dataset | None] = []
    publisher = Publisher(
        bus, encoder="e", chunker="1", now=now, on_change=lambda _key, dataset: heard.append(dataset)
    )
    await publisher.publish(job(), RESULT, IndexStage.LEXICAL)
    assert heard == [await record(bus)]
    await publisher.publish(job(), RESULT, IndexStage.LEXICAL)  # perhaps since no answer came
    assert await publisher.withdraw(job(), DATASET, {RESULT.generation}) == 0
    assert heard[1:] == [heard[0], None]


async def test_a_bus_that_is_away_for_a_moment_costs_a_publisher_no_more_than_that(
    bus: Bus, nats_server: NatsServer
) -> None:
    publisher = publisher_on(bus)
    for act in (
        lambda: publisher.target(job(), DATASET),
        lambda: publisher.publish(job(), RESULT, IndexStage.LEXICAL),
        lambda: publisher.withdraw(job(), DATASET, {RESULT.generation}),
    ):
        await asyncio.to_thread(nats_server.kill)
        async with asyncio.timeout(10):
            while bus.connected:
                await asyncio.sleep(0.01)
        acting = asyncio.create_task(act())
        await asyncio.sleep(0)
        await asyncio.to_thread(nats_server.start)
        async with asyncio.timeout(15):
            await acting
    assert await record(bus) is None


async def test_a_heartbeat_tells_of_the_memory_and_a_leaving_worker_is_gone_at_once(bus: Bus) -> None:
    view = WorkerView(
        name="w3",
        instance=INSTANCE,
        pool="default",
        state=WorkerState.IDLE,
        device="cpu",
        slots=2,
        since=now(),
        seen_at=now(),
    )
    presence = Presence(bus, view, now, lambda: Memory(3, 8))
    workers = Bucket(bus, streams.KV_WORKERS, WorkerView)
    beating = asyncio.create_task(presence.beat())
    async with asyncio.timeout(5):
        while (entry := await workers.get("w3")) is None:
            await asyncio.sleep(0.01)
    assert (entry.value.memory_used, entry.value.memory_total, entry.value.slots) == (3, 8, 2)
    await end(beating)
    assert await workers.get("w3") is None


async def test_jobs_of_a_moment_cost_few_heartbeats_and_the_last_state_is_told(bus: Bus) -> None:
    view = WorkerView(
        name="w3",
        instance=INSTANCE,
        pool="default",
        state=WorkerState.IDLE,
        device="cpu",
        slots=1,
        since=now(),
        seen_at=now(),
    )
    presence, item = Presence(bus, view, now), item_of(job())
    beating = asyncio.create_task(presence.beat())
    for number in range(100):
        presence.busy(item)
        presence.done(item, f"error {number}")
        await asyncio.sleep(0.002)
    async with asyncio.timeout(5):
        workers = Bucket(bus, streams.KV_WORKERS, WorkerView)
        while (entry := await workers.get("w3")) is None or entry.value.error != "error 99":
            await asyncio.sleep(0.01)
    await end(beating)
    written = (await bus.api("STREAM.INFO.KV_workers"))["state"]["last_seq"]
    assert written < 50
