"""What is swept is what no record shows and no open job may still show."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from uuid import uuid4

import anyio
import anyio.from_thread
import msgspec
import pytest

from pharos_contracts import streams
from pharos_contracts.datasets.v1 import Dataset, DatasetRecord, DeletedDataset, IndexStage
from pharos_contracts.identity import dataset_key
from pharos_contracts.jobs.v1 import Job, JobCancelled, JobCompleted, JobEvent, JobStarted, Scope
from pharos_contracts.lifecycle import JobState
from pharos_contracts.message import encode
from pharos_contracts.subjects import job_event_subject
from pharos_embedder.bounded_cache import owner_of
from pharos_embedder.dataset_locks import DatasetLocks
from pharos_embedder.edge_store import OPTIMIZE_WRITES_MIN, edge_store
from pharos_embedder.generations import GenerationStore
from pharos_embedder.kept import Kept
from pharos_embedder.parse_cache import ParseCache
from pharos_embedder.sweeping import Sweeping
from pharos_embedder.syntax import ParseOptions
from pharos_embedder.upkeep import keep_optimized, keep_swept
from pharos_embedder.vector_cache import VectorCache
from pharos_embedder.vectors import DatasetKey, Payload, Point, StoreError
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus, BusUnavailable
from pharos_sources.kept_checkouts import KeptCheckouts
from tests.support.workers import new_job

pytestmark = pytest.mark.anyio

BEGAN = datetime(2026, 6, 1, tzinfo=UTC)
NUMBER = int(BEGAN.timestamp())
LATER = BEGAN + timedelta(hours=2)


def key_of(name: str) -> DatasetKey:
    return DatasetKey("default", "default", name)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[GenerationStore]:
    opened = edge_store(tmp_path / "index", dimensions=4)
    opened.open()
    yield opened
    opened.close()


def fill(store: GenerationStore, name: str, generation: int, *, job: str = "", retired: int = 0) -> None:
    payload = Payload(
        dataset=key_of(name), kind="chunk", generation=generation, path="a.py", job=job, attempt=1
    )
    point = Point(id=str(uuid4()), payload=payload)
    store.upsert([point])
    if retired:
        store.retire(key_of(name), [point.id], retired)


async def publish(bus: Bus, name: str, generation: int, *, deleted: bool = False) -> None:
    record: DatasetRecord = Dataset(
        tenant="default", project="default", dataset=name, scope=Scope.PROJECT, repository="", clone_url="",
        branch=None, commit="", generation=generation, stage=IndexStage.FULL, job_id="", files=1, chunks=1,
        encoder="", chunker="", published_at=BEGAN,
    )  # fmt: skip
    if deleted:
        record = DeletedDataset(
            tenant="default", project="default", dataset=name, generation=generation, deleted_at=BEGAN
        )
    bucket = Bucket[DatasetRecord](bus, streams.KV_DATASETS, DatasetRecord)
    await bucket.put(dataset_key("default", "default", name), record)


async def say(bus: Bus, job: Job, kind: type[JobEvent], state: JobState) -> None:
    event = kind(event_id=str(uuid4()), at=BEGAN, job=msgspec.structs.replace(job, state=state))
    await bus.client.jetstream().publish(job_event_subject(event), encode(event))


async def sweep(bus: Bus, store: GenerationStore, *, alone: bool = True, at: datetime = LATER) -> int:
    return await Sweeping(bus, store, None, alone=alone, encoder="e").sweep(at)


async def test_what_was_begun_and_retired_goes_and_what_readers_see_stays(
    bus: Bus, store: GenerationStore
) -> None:
    await publish(bus, "atlas", NUMBER)
    fill(store, "atlas", NUMBER)
    fill(store, "atlas", NUMBER - 9, retired=NUMBER)
    fill(store, "atlas", NUMBER + 9)
    await publish(bus, "gone", NUMBER, deleted=True)
    fill(store, "gone", NUMBER)
    assert await sweep(bus, store) == 3
    assert store.generations(key_of("atlas")) == {NUMBER: 1}
    assert store.datasets() == {key_of("atlas")}
    assert await sweep(bus, store) == 0


async def test_what_a_cut_off_deletion_left_is_forgotten_by_the_machine_that_finishes_it(
    bus: Bus, store: GenerationStore, tmp_path: Path
) -> None:
    await publish(bus, "gone", NUMBER, deleted=True)
    fill(store, "gone", NUMBER)
    with (
        VectorCache(tmp_path / "vectors", limit_bytes=64 << 20, warn=unexpected) as vectors,
        ParseCache(
            tmp_path / "parsed", limit_bytes=64 << 20, warn=unexpected, options=ParseOptions()
        ) as parsed,
    ):
        checkouts = KeptCheckouts(tmp_path / "checkouts", bytes_max=1 << 20, warn=unexpected)
        kept = Kept(vectors=vectors, parsed=parsed, checkouts=checkouts)
        for name in ("gone", "here"):
            parsed.write({name.encode(): b"text"}, job=f"{name}.default")
            parsed.keep(f"{name}.default", owner_of("default", "default", name))
        assert await Sweeping(bus, store, kept, alone=True, encoder="e").sweep(LATER) == 1
        assert parsed.read([b"gone", b"here"]) == {b"here": b"text"}


def unexpected(text: str) -> None:
    raise AssertionError(text)


async def test_what_an_open_job_wrote_stays_until_it_ends(bus: Bus, store: GenerationStore) -> None:
    await publish(bus, "atlas", NUMBER)
    job = new_job("https://h.example/o/r")
    fill(store, "atlas", NUMBER + 9, job=job.job_id)
    await say(bus, job, JobStarted, JobState.RUNNING)
    assert await sweep(bus, store) == 0
    await say(bus, job, JobCancelled, JobState.CANCELLED)
    assert await sweep(bus, store, at=BEGAN) == 0  # its worker takes back what it wrote, if it lives
    assert await sweep(bus, store) == 1


async def test_what_is_published_while_it_is_swept_stays(
    bus: Bus, store: GenerationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish(bus, "atlas", NUMBER)
    job = new_job("https://h.example/o/r")
    fill(store, "atlas", NUMBER + 9, job=job.job_id)
    await say(bus, job, JobStarted, JobState.RUNNING)
    read = store.writers

    def writers(dataset: DatasetKey, generation: int) -> set[str]:
        anyio.from_thread.run(publish, bus, "atlas", NUMBER + 9)
        anyio.from_thread.run(say, bus, job, JobCompleted, JobState.COMPLETED)
        return read(dataset, generation)

    monkeypatch.setattr(store, "writers", writers)
    assert await sweep(bus, store) == 0
    assert store.count(key_of("atlas"), NUMBER + 9, "chunk") == 1


async def test_a_dataset_without_a_record_goes_where_the_store_is_of_this_bus_alone(
    bus: Bus, store: GenerationStore
) -> None:
    await publish(bus, "atlas", NUMBER)
    fill(store, "atlas", NUMBER)
    fill(store, "nobody's", NUMBER)
    assert await sweep(bus, store, alone=False) == 0
    assert await sweep(bus, store) == 1
    assert store.datasets() == {key_of("atlas")}


async def test_what_somebody_restores_stays_however_long_that_takes(bus: Bus, store: GenerationStore) -> None:
    await publish(bus, "atlas", NUMBER)
    fill(store, "atlas", NUMBER + 9)  # of no job
    async with DatasetLocks(bus, "restore").hold(key_of("atlas")):
        assert await sweep(bus, store) == 0
    assert await sweep(bus, store) == 1


async def test_on_a_server_a_dataset_without_a_record_goes_if_jobs_of_this_bus_wrote_it(
    bus: Bus, store: GenerationStore
) -> None:
    await publish(bus, "atlas", NUMBER)
    fill(store, "atlas", NUMBER)
    ours, theirs = new_job("https://h.example/o/r"), new_job("https://h.example/o/other")
    fill(store, "ours", NUMBER, job=ours.job_id)
    fill(store, "theirs", NUMBER, job=theirs.job_id)
    fill(store, "both", NUMBER, job=ours.job_id)
    fill(store, "both", NUMBER, job=theirs.job_id)
    await say(bus, ours, JobStarted, JobState.RUNNING)
    assert await sweep(bus, store, alone=False) == 0
    await say(bus, ours, JobCancelled, JobState.CANCELLED)
    assert await sweep(bus, store, alone=False) == 1
    assert store.datasets() == {key_of("atlas"), key_of("theirs"), key_of("both")}


async def test_a_store_is_swept_and_optimized_again_and_again(bus: Bus, store: GenerationStore) -> None:
    await publish(bus, "atlas", NUMBER)
    fill(store, "atlas", NUMBER)
    sweeping = Sweeping(bus, store, None, alone=True, encoder="e")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(keep_swept, sweeping, lambda: LATER, every_seconds=0.05))
        tasks.start_soon(partial(keep_optimized, store, every_seconds=0.05))
        with anyio.fail_after(60):
            for _ in range(2):
                fill(store, "atlas", NUMBER + 9)
                while NUMBER + 9 in store.generations(key_of("atlas")):
                    await anyio.sleep(0.05)
            for number in range(1, OPTIMIZE_WRITES_MIN + 1):
                fill(store, "atlas", NUMBER - number)
            while store.facts().optimized_at is None:
                await anyio.sleep(0.05)
        tasks.cancel_scope.cancel()
    assert store.count(key_of("atlas"), NUMBER, "chunk") == OPTIMIZE_WRITES_MIN + 1


async def test_what_cannot_be_swept_now_is_swept_later(
    bus: Bus, store: GenerationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish(bus, "atlas", NUMBER)
    fill(store, "atlas", NUMBER + 9)
    sweeping = Sweeping(bus, store, None, alone=True, encoder="e")
    read, failures = store.datasets, iter([StoreError("full"), BusUnavailable("away")])

    def datasets() -> set[DatasetKey]:
        for failure in failures:
            raise failure
        return read()

    monkeypatch.setattr(store, "datasets", datasets)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(keep_swept, sweeping, lambda: LATER, every_seconds=0.01))
        with anyio.fail_after(30):
            while store.size(key_of("atlas")):
                await anyio.sleep(0.02)
        tasks.cancel_scope.cancel()


async def test_of_a_bus_that_knows_no_dataset_nothing_is_believed(bus: Bus, store: GenerationStore) -> None:
    job = new_job("https://h.example/o/r")
    fill(store, "atlas", NUMBER, job=job.job_id)
    await say(bus, job, JobCompleted, JobState.COMPLETED)
    assert await sweep(bus, store) == 0
    assert await sweep(bus, store, alone=False) == 0
