"""A worker takes what another one left: on a real bus, with a store that only remembers what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

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
from pharos_embedder.discovery import DiscoveryLimits
from pharos_embedder.items import ItemLog
from pharos_embedder.presence import Presence
from pharos_embedder.publishing import Publisher
from pharos_embedder.stages import Limits, Tools
from pharos_embedder.syntax import ParseOptions
from pharos_embedder.vectors import DatasetKey
from pharos_embedder.worker import Worker, WorkerConfig
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus
from pharos_service.journal import Superseded
from pharos_sources.git import FetchLimits
from pharos_sources.hosts import AllowedHosts

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


class RememberingStore:
    """The two calls that a worker makes by itself."""

    def __init__(self) -> None:
        self.collected: list[tuple[DatasetKey, int]] = []
        self.dropped: list[DatasetKey] = []

    def collect(self, dataset: DatasetKey, oldest_kept: int) -> int:
        self.collected.append((dataset, oldest_kept))
        return 0

    def drop(self, dataset: DatasetKey) -> int:
        self.dropped.append(dataset)
        return 0


@asynccontextmanager
async def working(bus: Bus, folder: Path) -> AsyncIterator[RememberingStore]:
    store: Any = RememberingStore()
    nothing: Any = None
    presence = Presence(
        bus,
        WorkerView(
            name="w2",
            instance="i",
            pool="default",
            state=WorkerState.IDLE,
            device="cpu",
            slots=1,
            since=now(),
            seen_at=now(),
        ),
        now,
    )
    worker = Worker(
        bus,
        Tools(store=store, encoder=nothing, cache=nothing, parse_pool=nothing),
        Publisher(bus, encoder="e", chunker="1", now=now, on_change=lambda _key, _dataset: None),
        presence,
        WorkerConfig(
            workspaces=folder,
            allowed_hosts=AllowedHosts.parse("http://127.0.0.1:9"),
            github_token=None,
            job_timeout_seconds=30,
            limits=Limits(
                fetch=FetchLimits(), discovery=DiscoveryLimits(), parsing=ParseOptions(), batch_tokens=None
            ),
        ),
        now=now,
    )
    task = asyncio.create_task(worker.serve())
    try:
        yield store
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


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


async def earlier_worker_said(bus: Bus, wanted: Job, *facts: tuple[type[ItemEvent], dict[str, Any]]) -> None:
    items = ItemLog(bus, item_of(wanted), attempt=1, worker="w1", now=now)
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
    await hand_out(bus, item_of(wanted))
    async with working(bus, tmp_path) as store:
        await until_said(bus, wanted, ItemCompleted)
        await until_settled(bus)
    live = await record(bus)
    assert live is not None
    assert (live.generation, live.stage, live.job_id) == (20, IndexStage.FULL, wanted.job_id)
    assert store.collected == [(DatasetKey("default", "default", DATASET), 0)]


async def test_a_worker_that_died_after_publishing_is_only_spoken_for(bus: Bus, tmp_path: Path) -> None:
    wanted = job()
    await earlier_worker_said(bus, wanted, (ItemStarted, {}), (ItemCommitting, {"result": RESULT}))
    publisher = Publisher(bus, encoder="e", chunker="1", now=now, on_change=lambda _key, _dataset: None)
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
    publisher = Publisher(bus, encoder="e", chunker="1", now=now, on_change=lambda _key, _dataset: None)
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
    wanted = job(max_attempts=2)
    publisher = Publisher(bus, encoder="e", chunker="1", now=now, on_change=lambda _key, _dataset: None)
    await publisher.publish(wanted, RESULT, IndexStage.LEXICAL)
    await earlier_worker_said(
        bus, wanted, (ItemStarted, {}), (ItemLexicalReady, {"dataset": DATASET, "files": 1, "chunks": 2})
    )
    await hand_out(bus, item_of(wanted, attempt=3))
    async with working(bus, tmp_path) as store:
        failed = await until_said(bus, wanted, ItemFailed)
        await until_settled(bus)
    assert isinstance(failed, ItemFailed)
    assert (failed.code, failed.transient) == ("worker_lost", False)
    assert await record(bus) is None
    assert store.dropped == [DatasetKey("default", "default", DATASET)]


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
    frozen = ItemLog(bus, item_of(wanted), attempt=1, worker="w1", now=now)
    await frozen.say(ItemStarted)
    next_one = ItemLog(bus, item_of(wanted), attempt=2, worker="w2", now=now)
    await next_one.last()
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
    publisher = Publisher(bus, encoder="e", chunker="1", now=now, on_change=lambda _key, _dataset: None)
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
    await publisher.publish(job(), RESULT, IndexStage.LEXICAL)  # a repeat changes nothing
    assert await publisher.withdraw(job(), DATASET)
    assert heard[1:] == [None]
