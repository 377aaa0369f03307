"""What a job leaves when it is cancelled, fails or dies is cleared away, and nothing else."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from msgspec.structs import replace

from pharos_contracts import streams
from pharos_contracts.control.v1 import Action
from pharos_contracts.datasets.v1 import IndexStage
from pharos_contracts.jobs.v1 import IndexResult, ItemFailed, ItemStarted, Job, WorkItem
from pharos_contracts.subjects import ITEM_REPOSITORY
from pharos_contracts.workers.v1 import Worker as WorkerView
from pharos_contracts.workers.v1 import WorkerState
from pharos_embedder.bm25 import Lexicon
from pharos_embedder.bounded_cache import label_of
from pharos_embedder.indexing import forget_cancelled
from pharos_embedder.items import ItemLog
from pharos_embedder.publishing import Publisher
from pharos_embedder.vectors import DatasetKey, Payload, Point, StoreUnavailable
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus
from tests.support.git_server import GitServer
from tests.support.long_jobs import dataset_of, record_of
from tests.support.workers import (
    Machine,
    hand_out,
    hand_out_clearing,
    new_job,
    now,
    said,
    take_away,
    until,
    until_said,
    until_settled,
    working,
)

pytestmark = pytest.mark.anyio


def leave(machine: Machine, wanted: Job, *, dataset: str, generation: int, attempt: int = 1) -> DatasetKey:
    """What a worker that died had written of *wanted*."""
    key = DatasetKey("default", "default", dataset)
    facts: dict[str, Any] = {
        "dataset": key,
        "generation": generation,
        "job": wanted.job_id,
        "attempt": attempt,
    }
    machine.store.upsert(
        [
            Point(id=str(uuid4()), payload=Payload(kind="chunk", path="a.py", **facts)),
            Point(id=str(uuid4()), payload=Payload(kind="file", path="a.py", **facts)),
        ]
    )
    machine.store.put_lexicon(key, generation, Lexicon.of([{1: 1}]), job=wanted.job_id, attempt=attempt)
    vector = np.ones(8, dtype=np.float32)
    machine.cache.put_many(
        {f"{wanted.job_id[-8:]}{attempt:024}".encode(): vector}, job=label_of(wanted.job_id, wanted.tenant)
    )
    return key


def result_of(dataset: str, generation: int, built_on: int = 0) -> IndexResult:
    return IndexResult(
        dataset=dataset,
        generation=generation,
        built_on=built_on,
        commit="c",
        files_processed=1,
        embeddings_generated=1,
        chunks=1,
    )


async def publish(bus: Bus, wanted: Job, result: IndexResult, stage: IndexStage) -> None:
    publisher = Publisher(bus, encoder="e", chunker="1", now=now, on_change=lambda *_: None)
    await publisher.publish(wanted, result, stage)


async def test_clearing_removes_what_a_dead_worker_left_and_nothing_of_others(
    bus: Bus, machine: Machine
) -> None:
    wanted, other, published = (new_job("http://127.0.0.1:9/o/r") for _ in range(3))
    await publish(bus, published, result_of("d1", 5), IndexStage.FULL)
    leave(machine, published, dataset="d1", generation=5)
    leave(machine, wanted, dataset="d1", generation=8)
    leave(machine, other, dataset="d1", generation=9)  # it runs on the same dataset
    leave(machine, wanted, dataset="d2", generation=8)
    await publish(bus, wanted, result_of("d2", 8), IndexStage.LEXICAL)
    async with working(bus, machine):
        await hand_out_clearing(bus, wanted)
        await until_settled(bus)
    assert machine.holds_nothing_of(wanted)
    assert await record_of(bus, "d2") is None
    live = await record_of(bus, "d1")
    assert live is not None and live.job_id == published.job_id
    assert {(each.dataset.dataset, each.number) for each in machine.store.contents()} == {
        ("d1", 5),
        ("d1", 9),
    }
    assert machine.cache.count() == 2
    assert await said(bus, wanted) == []


async def test_clearing_that_comes_late_touches_nothing_of_the_attempt_that_was_retried_since(
    bus: Bus, machine: Machine
) -> None:
    wanted = new_job("http://127.0.0.1:9/o/r")
    leave(machine, wanted, dataset="d1", generation=8, attempt=1)
    key = leave(machine, wanted, dataset="d1", generation=9, attempt=2)
    shown = leave(machine, wanted, dataset="d2", generation=9, attempt=2)
    await publish(bus, wanted, result_of("d2", 9), IndexStage.LEXICAL)
    async with working(bus, machine):
        await hand_out_clearing(bus, wanted, attempt=1)
        await until_settled(bus)
    assert machine.store.left_by(wanted.job_id, 9) == {key: {9}, shown: {9}}
    assert await record_of(bus, "d2") is not None


async def test_clearing_that_fails_is_done_again(bus: Bus, machine: Machine) -> None:
    wanted = new_job("http://127.0.0.1:9/o/r")
    leave(machine, wanted, dataset="d1", generation=8)
    machine.engine.broken = StoreUnavailable("it is away")
    async with working(bus, machine):
        sequence = await hand_out_clearing(bus, wanted)
        machine.engine.gate.shut()
        machine.engine.gate.open()
        await until(lambda: machine.engine.gate.passes > 0)
        machine.engine.broken = None
        await until_settled(bus)
    assert machine.holds_nothing_of(wanted)
    assert sequence == 1


async def test_clearing_waits_for_the_worker_that_still_has_the_job(bus: Bus, machine: Machine) -> None:
    wanted = new_job("http://127.0.0.1:9/o/r")
    leave(machine, wanted, dataset="d1", generation=8)
    workers = Bucket(bus, streams.KV_WORKERS, WorkerView)
    holder = WorkerView(
        name="w1",
        instance="i",
        pool="default",
        state=WorkerState.BUSY,
        device="cpu",
        slots=1,
        job_ids=(wanted.job_id,),
        since=now(),
        seen_at=now(),
    )
    await workers.put("w1", holder)
    async with working(bus, machine):
        await hand_out_clearing(bus, wanted)
        await asyncio.sleep(1)
        assert not machine.holds_nothing_of(wanted)
        await workers.put("w1", replace(holder, job_ids=()))
        await until_settled(bus)
    assert machine.holds_nothing_of(wanted)


async def begun_by_another(bus: Bus, wanted: Job) -> int:
    """A live worker has the job, and has said so; the revision of its entry."""
    entry = WorkerView(
        name="w1",
        instance="i1",
        pool="default",
        state=WorkerState.BUSY,
        device="cpu",
        slots=1,
        job_ids=(wanted.job_id,),
        since=now(),
        seen_at=now(),
    )
    revision = await Bucket(bus, streams.KV_WORKERS, WorkerView).put("w1", entry)
    item = WorkItem(job=wanted, item_id=ITEM_REPOSITORY, attempt=1, dispatch=1)
    its_log = ItemLog(bus, item, None, attempt=1, deaths=0, worker="w1", instance="i1", now=now)
    await its_log.say(ItemStarted)
    return revision


async def test_a_job_that_a_live_worker_has_is_left_to_it_however_long_it_takes(
    bus: Bus, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pharos_embedder.worker.HOLDERS_SECONDS_MAX", 0.2)
    wanted = new_job("http://127.0.0.1:9/o/r")
    await begun_by_another(bus, wanted)
    await hand_out(bus, wanted)
    async with working(bus, machine) as running:
        await asyncio.sleep(1)  # five times as long as a cleaning waits
        assert len(await said(bus, wanted)) == 1
        running.drain.begin()
        await until(running.serving.done, seconds=5)
    assert len(await said(bus, wanted)) == 1
    assert (await bus.api(f"STREAM.INFO.{streams.WORK}"))["state"]["messages"] == 1  # for somebody else


async def test_a_worker_that_dies_while_the_next_one_waits_for_it_has_died(
    bus: Bus, git: GitServer, machine: Machine
) -> None:
    wanted = new_job(git.url("o/silent"))
    workers = Bucket(bus, streams.KV_WORKERS, WorkerView)
    revision = await begun_by_another(bus, wanted)
    await hand_out(bus, wanted)
    async with working(bus, machine, allowed_hosts=git.allowed_hosts):
        await asyncio.sleep(0.7)
        assert len(await said(bus, wanted)) == 1
        await workers.delete("w1", revision)
        async with asyncio.timeout(20):
            while len(events := await said(bus, wanted)) < 2:
                await asyncio.sleep(0.05)
    assert (events[1].attempt, events[1].deaths) == (2, 1)


async def test_a_machine_that_was_away_forgets_the_vectors_of_cancelled_jobs_when_it_starts(
    bus: Bus, machine: Machine
) -> None:
    cancelled, running = (new_job("http://127.0.0.1:9/o/r") for _ in range(2))
    leave(machine, cancelled, dataset="d1", generation=8)
    leave(machine, running, dataset="d2", generation=8)
    await take_away(bus, cancelled, Action.CANCEL)
    await forget_cancelled(bus, machine.cache)
    assert machine.cache.jobs() == [label_of(running.job_id, "default")]
    assert machine.cache.count() == 1


async def test_a_job_that_fails_for_good_leaves_nothing_but_the_vectors_that_a_retry_can_use(
    bus: Bus, git: GitServer, machine: Machine, job: Job
) -> None:
    machine.encoder.gate.shut(after=5)
    async with working(bus, machine, allowed_hosts=git.allowed_hosts):
        await hand_out(bus, job)
        await until(machine.encoder.gate.reached.is_set)
        machine.encoder.fails_with = lambda: ValueError("a bug")
        machine.encoder.gate.open()
        failed = await until_said(bus, job, ItemFailed)
        assert (failed.code, failed.transient) == ("internal_error", False)
        assert machine.store.contents() == []
        assert machine.store.left_by(job.job_id, 9) == {}
        assert await record_of(bus, dataset_of(job, git)) is None
        assert machine.cache.count() == 10


async def test_the_last_attempt_leaves_nothing_though_its_failure_might_pass(
    bus: Bus, git: GitServer, machine: Machine, job: Job
) -> None:
    machine.encoder.fails_with = MemoryError
    async with working(bus, machine, allowed_hosts=git.allowed_hosts):
        await hand_out(bus, job)
        first = await until_said(bus, job, ItemFailed)
        assert (first.code, first.transient) == ("out_of_memory", True)
        assert machine.store.left_by(job.job_id, 9) != {}
        await hand_out(bus, replace(job, code="out_of_memory"), attempt=4, dispatch=2)
        async with asyncio.timeout(20):
            while (last := (await said(bus, job))[-1]).attempt != 4 or not isinstance(last, ItemFailed):
                await asyncio.sleep(0.02)
        assert machine.store.left_by(job.job_id, 9) == {}
