"""Whoever writes to a dataset has it to itself, from what it builds on to what it publishes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pharos_contracts import streams
from pharos_contracts.control.v1 import Action
from pharos_contracts.datasets.v1 import Dataset, DatasetRecord, DeletedDataset, IndexStage, WriteLock
from pharos_contracts.identity import dataset_key
from pharos_contracts.jobs.v1 import (
    IndexResult,
    ItemCompleted,
    ItemFailed,
    Job,
    WorkItem,
)
from pharos_contracts.subjects import ITEM_REPOSITORY
from pharos_embedder import dataset_locks, pipeline, storing_ahead
from pharos_embedder.bounded_cache import label_of
from pharos_embedder.dataset_locks import DatasetBusy, DatasetLocks, LockLost
from pharos_embedder.ports import Failed
from pharos_embedder.published_work import PublishedWork
from pharos_embedder.publishing import Publisher, patiently
from pharos_embedder.vectors import DatasetKey, Payload, Point, StoreUnavailable, of_dataset
from pharos_embedder.worker import WorkerConfig
from pharos_service.buckets import Bucket, Entry
from pharos_service.bus import TROUBLE, Bus, FateUnknown
from pharos_service.ending import end
from pharos_sources.hosts import AllowedHosts
from pharos_sources.repository_url import parse_repository_url
from tests.support.git_server import GitServer
from tests.support.nats_server import NatsServer
from tests.support.workers import (
    DIMENSIONS,
    Machine,
    hand_out,
    names,
    new_job,
    now,
    said,
    stop,
    until,
    until_said,
    until_settled,
    working,
)

pytestmark = pytest.mark.anyio

SECONDS = 2.0
KEY = DatasetKey("default", "default", "d")
LOCK = dataset_key("default", "default", "d")
ONE = {f"one_{number}.py": f"def one_{number}():\n    return {number}\n" for number in range(12)}
OTHER = {f"other_{number}.py": f"def other_{number}():\n    return {number}\n" for number in range(8)}


@pytest.fixture(scope="module")
def git() -> Iterator[GitServer]:
    with GitServer() as server:
        server.add_repository("o/one", ONE)
        server.add_repository("o/other", OTHER)
        yield server


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with Machine(tmp_path / "home") as found:
        yield found


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storing_ahead, "WINDOW_FILES", 1)


def name_of(git: GitServer, repository: str) -> str:
    """What a job calls the dataset of *repository* where nobody named one."""
    hosts = AllowedHosts.parse(git.allowed_hosts)
    return parse_repository_url(git.url(repository), allowed_hosts=hosts).dataset_name("main")


async def has_come(git: GitServer, repository: str) -> None:
    """Until a job has fetched *repository*, and had the time for what follows."""
    await until(lambda: sum(repository in each.path for each in git.requests) >= 3)
    await asyncio.sleep(0.5)


@asynccontextmanager
async def watching(bus: Bus, machine: Machine) -> AsyncIterator[list[tuple[str, int, int]]]:
    """What was published meanwhile: whose, how many chunks it says, and how many there were at once."""
    seen: list[tuple[str, int, int]] = []

    async def watch() -> None:
        async for change in Bucket(bus, streams.KV_DATASETS, Dataset).watch():
            if isinstance(change, Entry):
                record = change.value
                key = DatasetKey(record.tenant, record.project, record.dataset)
                there = machine.store.count(key, record.generation, "chunk")
                seen.append((record.job_id, record.chunks, there))

    task = asyncio.create_task(watch())
    try:
        yield seen
    finally:
        await end(task)


async def test_two_jobs_that_find_the_same_new_dataset_are_done_one_after_the_other(
    bus: Bus, git: GitServer, machine: Machine, small_windows: None
) -> None:
    one = new_job(git.url("o/one"))
    other = new_job(git.url("o/other"), dataset=name_of(git, "o/one"))  # so the queue does not see it
    hosts = git.allowed_hosts
    async with (
        watching(bus, machine) as seen,
        working(bus, machine, allowed_hosts=hosts, name="w2"),
        working(bus, machine, allowed_hosts=hosts, name="w3"),
    ):
        machine.engine.gate.shut(after=5)
        await hand_out(bus, one)
        await until(machine.engine.gate.reached.is_set)
        await hand_out(bus, other)
        await has_come(git, "o/other")
        machine.engine.gate.open()
        for job in (one, other):
            done = await until_said(bus, job, ItemCompleted)
            assert done.attempt == 1
        await until_settled(bus)
        await until(lambda: {each[0] for each in seen} == {one.job_id, other.job_id})
    assert all(says == there for _, says, there in seen)
    assert seen[0][:2] == (one.job_id, 12) and seen[-1][:2] == (other.job_id, 8)
    assert (
        await Bucket(bus, streams.KV_LOCKS, WriteLock).get(
            dataset_key("default", "default", name_of(git, "o/one"))
        )
        is None
    )


async def test_words_are_not_shown_of_chunks_that_are_not_all_there(
    bus: Bus, git: GitServer, machine: Machine, small_windows: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = new_job(git.url("o/one"))
    key = DatasetKey("default", "default", name_of(git, "o/one"))
    store_words = pipeline.store_words

    def disturbed(*arguments: Any) -> Any:
        found = store_words(*arguments)
        if not is_whole:
            (generation,) = machine.store.generations(key)
            machine.engine.delete([min(machine.store.live_ids(key, generation, "chunk"))], of_dataset(key))
        return found

    is_whole: list[bool] = []
    monkeypatch.setattr(pipeline, "store_words", disturbed)
    async with (
        watching(bus, machine) as seen,
        working(bus, machine, allowed_hosts=git.allowed_hosts),
    ):
        await hand_out(bus, job)
        failed = await until_said(bus, job, ItemFailed)
        assert (failed.code, failed.transient) == ("publish_conflict", True) and not seen
        is_whole.append(True)
        await hand_out(bus, job, attempt=2, dispatch=2)
        await until_said(bus, job, ItemCompleted)
        await until(lambda: len(seen) == 2)
    assert all(says == there == 12 for _, says, there in seen)


async def test_a_job_that_waits_for_another_is_cancelled_at_once(
    bus: Bus, git: GitServer, machine: Machine, small_windows: None
) -> None:
    one = new_job(git.url("o/one"))
    other = new_job(git.url("o/other"), identity="h/o/other", dataset=name_of(git, "o/one"))
    hosts = git.allowed_hosts
    async with (
        working(bus, machine, allowed_hosts=hosts, name="w2"),
        working(bus, machine, allowed_hosts=hosts, name="w3"),
    ):
        machine.engine.gate.shut(after=5)
        await hand_out(bus, one)
        await until(machine.engine.gate.reached.is_set)
        await hand_out(bus, other)
        await has_come(git, "o/other")
        await stop(bus, other, Action.CANCEL)
        async with asyncio.timeout(10):
            while any(other.job_id in each.name for each in machine.workspaces.iterdir()):
                await asyncio.sleep(0.02)
        assert names(await said(bus, one)) == ["Started"]  # the other one was at the gate all the time
        machine.engine.gate.open()
        await until_said(bus, one, ItemCompleted)
    assert machine.holds_nothing_of(other)


async def test_a_job_that_waited_in_vain_says_for_what(
    bus: Bus, git: GitServer, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pharos_embedder.publishing.DatasetLocks", impatient)
    job = new_job(git.url("o/one"), dataset="d")
    async with (
        DatasetLocks(bus, "jobs").hold_for("another", KEY, stays=False),
        working(bus, machine, allowed_hosts=git.allowed_hosts),
    ):
        await hand_out(bus, job)
        failed = await until_said(bus, job, ItemFailed)
    assert (failed.code, failed.transient) == ("dataset_busy", True)
    assert failed.error == "Another job is writing to the dataset d: wait until that one has ended"


# The lock of a job


def impatient(bus: Bus, holder: str) -> DatasetLocks:
    return DatasetLocks(bus, holder, job_ttl_seconds=SECONDS, wait_seconds=0.3)


def test_who_is_cut_off_loses_the_item_before_the_lock() -> None:
    surely = streams.JOB_LOCK_TTL_SECONDS * (dataset_locks.WRITE_SHARE - dataset_locks.RENEW_SHARE)
    assert surely > WorkerConfig().lapse
    assert streams.WORK_ACK_WAIT_SECONDS + WorkerConfig().hold < streams.JOB_LOCK_TTL_SECONDS


async def test_what_a_job_has_stays_its_own_until_it_has_published(bus: Bus) -> None:
    locks = DatasetLocks(bus, "jobs", job_ttl_seconds=SECONDS)
    async with locks.hold_for("one", KEY, stays=True) as (first, kept):
        first()
        assert not kept
    with pytest.raises(LockLost):
        first()
    with pytest.raises(DatasetBusy):
        async with impatient(bus, "jobs").hold_for("another", KEY, stays=False):
            pass
    async with impatient(bus, "jobs").hold_for("one", KEY, stays=False) as (check, kept):
        check()
        assert kept
    async with impatient(bus, "jobs").hold_for("another", KEY, stays=False) as (check, kept):
        check()
        assert not kept


async def test_what_a_job_had_that_failed_or_came_back_too_late_is_anybodys(bus: Bus) -> None:
    locks = DatasetLocks(bus, "jobs", job_ttl_seconds=SECONDS)
    with pytest.raises(ZeroDivisionError):
        async with locks.hold_for("one", KEY, stays=True):
            raise ZeroDivisionError
    async with impatient(bus, "jobs").hold_for("another", KEY, stays=True):
        pass
    # Its worker died: nobody renews it, and it is given to whoever waits.
    async with locks.hold_for("one", KEY, stays=True) as (_, kept):
        assert not kept
    async with locks.hold_for("another", KEY, stays=False):
        pass
    async with locks.hold_for("one", KEY, stays=False) as (_, kept):
        assert not kept


async def test_what_is_cleared_of_a_job_is_cleared_of_its_lock(bus: Bus, machine: Machine) -> None:
    dead, other = (new_job("http://127.0.0.1:9/o/r") for _ in range(2))
    store(machine, dead)
    locks = DatasetLocks(bus, "jobs")
    async with locks.hold_for(dead.job_id, KEY, stays=True):
        pass
    for job in (other, dead):
        item = WorkItem(job=job, item_id=ITEM_REPOSITORY, attempt=1, dispatch=1)
        with pytest.raises(DatasetBusy):
            async with impatient(bus, "jobs").hold_for(other.job_id, KEY, stays=False):
                pass
        await PublishedWork(machine.store, (), publisher_on(bus)).clear(item, 1, forget=True)
    async with impatient(bus, "jobs").hold_for(other.job_id, KEY, stays=False):
        assert machine.store.size(KEY) == 0


async def test_a_bus_that_starts_again_knows_still_who_writes(bus: Bus, nats_server: NatsServer) -> None:
    locks = DatasetLocks(bus, "jobs", job_ttl_seconds=10 * SECONDS)
    async with locks.hold_for("one", KEY, stays=False) as (check, _):
        await asyncio.to_thread(nats_server.kill)
        await until(lambda: not bus.connected)
        await asyncio.to_thread(nats_server.start)
        found = await patiently(lambda: Bucket(bus, streams.KV_LOCKS, WriteLock).get(LOCK))
        assert found is not None
        with pytest.raises(DatasetBusy):
            async with impatient(bus, "jobs").hold_for("another", KEY, stays=False):
                pass
        check()


# Publishing what an earlier worker made


RESULT = IndexResult(
    dataset="d", generation=7, built_on=0, commit="c", files_processed=1, embeddings_generated=0, chunks=2
)


def store(machine: Machine, job: Job) -> None:
    """What RESULT says."""
    kinds = ("chunk", "chunk", "file")
    machine.store.upsert(
        Point(
            id=f"{number:08}-0000-0000-0000-000000000000",
            payload=Payload(dataset=KEY, kind=kind, generation=7, path="a", job=job.job_id, attempt=1),
            text_vector=np.ones(DIMENSIONS, dtype=np.float32) if kind == "chunk" else None,
        )
        for number, kind in enumerate(kinds)  # type: ignore[arg-type]
    )


def publisher_on(bus: Bus) -> Publisher:
    return Publisher(bus, encoder="e", chunker="c", now=now, on_change=lambda *_: None)


async def finish(bus: Bus, machine: Machine, job: Job) -> Dataset | None:
    item = WorkItem(job=job, item_id=ITEM_REPOSITORY, attempt=1, dispatch=1)
    try:
        await PublishedWork(machine.store, (), publisher_on(bus)).finish(item, RESULT)
    finally:
        entry = await Bucket(bus, streams.KV_DATASETS, Dataset).get(LOCK)
    return entry.value if entry is not None else None


async def test_what_is_whole_still_is_published_by_whoever_comes_late(bus: Bus, machine: Machine) -> None:
    job = new_job("http://127.0.0.1:9/o/r")
    store(machine, job)
    for _ in range(2):
        record = await finish(bus, machine, job)
        assert record is not None and record.generation == 7


async def test_what_others_took_away_before_its_publishing_is_shown_to_nobody(
    bus: Bus, machine: Machine
) -> None:
    job = new_job("http://127.0.0.1:9/o/r")
    for part in ("chunk", "file"):
        store(machine, job)
        machine.engine.delete([min(machine.store.live_ids(KEY, 7, part))], of_dataset(KEY))  # type: ignore[arg-type]
        with pytest.raises(Failed) as failed:
            await finish(bus, machine, job)
        assert failed.value.problem.code == "publish_conflict"
        assert await Bucket(bus, streams.KV_DATASETS, Dataset).get(LOCK) is None


async def test_a_job_to_be_published_comes_again_while_others_write_or_the_store_is_away(
    bus: Bus, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pharos_embedder.publishing.DatasetLocks", impatient)
    job = new_job("http://127.0.0.1:9/o/r")
    store(machine, job)
    async with DatasetLocks(bus, "jobs").hold_for("another", KEY, stays=False):
        with pytest.raises(TROUBLE):
            await finish(bus, machine, job)
    with monkeypatch.context() as patch:

        def away(*_: object) -> int:
            raise StoreUnavailable("away")

        patch.setattr(machine.engine, "count", away, raising=False)
        with pytest.raises(TROUBLE):
            await finish(bus, machine, job)
    assert await finish(bus, machine, job) is not None


async def test_of_a_dataset_that_was_deleted_meanwhile_the_caches_keep_nothing(
    bus: Bus, machine: Machine
) -> None:
    job = new_job("http://127.0.0.1:9/o/r")
    store(machine, job)
    label = label_of(job.job_id, job.tenant)
    machine.cache.put_many({bytes(32): np.ones(4, dtype=np.float32)}, job=label)
    deleted = DeletedDataset(
        tenant=KEY.tenant, project=KEY.project, dataset=KEY.dataset, generation=9, deleted_at=now()
    )
    await Bucket[DatasetRecord](bus, streams.KV_DATASETS, DatasetRecord).put(LOCK, deleted)
    item = WorkItem(job=job, item_id=ITEM_REPOSITORY, attempt=1, dispatch=1)
    with pytest.raises(Failed) as failed:
        await PublishedWork(machine.store, (machine.cache,), publisher_on(bus)).finish(item, RESULT)
    assert failed.value.problem.code == "dataset_deleted"
    assert machine.cache.count() == 0


async def test_who_searches_in_this_process_hears_of_a_publishing_whose_answer_was_lost(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    job = new_job("http://127.0.0.1:9/o/r")
    create = Bucket.create

    async def lost(self: Any, *arguments: Any, **options: Any) -> int | None:
        await create(self, *arguments, **options)
        monkeypatch.setattr(Bucket, "create", create)
        raise FateUnknown("no answer")

    def hear(_key: str, record: Dataset | None) -> None:
        assert record is not None
        told.append(record.generation)

    publisher = Publisher(bus, encoder="e", chunker="c", now=now, on_change=hear)
    monkeypatch.setattr(Bucket, "create", lost)
    await publisher.publish(job, RESULT, IndexStage.FULL)
    assert told == [7]
