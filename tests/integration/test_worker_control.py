"""What owners, operators and accidents do to a job that a worker has: on a real bus, with a real store.

The encoder alone is not real: it counts what it is given. The scheduler's half is written by the tests.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import psutil
import pytest
from msgspec.structs import replace

from pharos_contracts import streams
from pharos_contracts.control.v1 import Action, DeadLetter, DeadLetterKind
from pharos_contracts.datasets.v1 import Dataset, IndexStage
from pharos_contracts.identity import dataset_key
from pharos_contracts.jobs.v1 import (
    IndexResult,
    ItemCancelled,
    ItemCompleted,
    ItemFailed,
    ItemSkipped,
    ItemStarted,
    Job,
    Progress,
    Stage,
    WorkItem,
)
from pharos_contracts.message import decode
from pharos_contracts.subjects import ITEM_REPOSITORY, dead_letters
from pharos_contracts.workers.v1 import Worker as WorkerView
from pharos_contracts.workers.v1 import WorkerState
from pharos_embedder import stages
from pharos_embedder.bm25 import Lexicon
from pharos_embedder.bounded_cache import label_of
from pharos_embedder.indexing import forget_cancelled
from pharos_embedder.items import ItemLog
from pharos_embedder.ports import Check
from pharos_embedder.publishing import Publisher
from pharos_embedder.vectors import DatasetKey, Payload, Point, StoreUnavailable
from pharos_embedder.worker import WorkerConfig
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus, connect
from pharos_service.lease import Lease
from pharos_service.pull import tail
from pharos_service.settings import ServiceSettings
from pharos_sources.hosts import AllowedHosts
from pharos_sources.repository_url import parse_repository_url
from tests.support.git_server import GitServer
from tests.support.nats_server import NatsServer
from tests.support.workers import (
    Machine,
    declared,
    hand_out,
    hand_out_clearing,
    names,
    new_job,
    now,
    said,
    stop,
    take_away,
    until,
    until_said,
    until_settled,
    worker_entry,
    working,
)

pytestmark = pytest.mark.anyio

FILES = 4
STOP_SECONDS = 2.0
NEVER = (sys.executable, "-c", "import time; time.sleep(60)")


def source(number: int) -> str:
    """A file of about ten chunks."""
    return "".join(
        f"def function_{number}_{each}(value):\n"
        + "".join(f"    line_{line} = value + {number * 1000 + each * 10 + line}\n" for line in range(10))
        + "    return value\n\n\n"
        for each in range(30)
    )


REPOSITORY = {f"src/module_{number}.py": source(number) for number in range(FILES)}


@pytest.fixture(scope="module")
def git() -> Iterator[GitServer]:
    with GitServer() as server:
        server.add_repository("o/r", REPOSITORY)
        noise = np.random.default_rng(1).bytes(2_000_000)
        server.add_repository("o/slow", {"a.bin": noise})
        server.throttle("o/slow", 20_000)
        server.add_repository("o/silent", {"a.py": "x = 1\n"})
        server.delay("o/silent", 30)
        yield server


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with Machine(tmp_path / "home") as found:
        yield found


@pytest.fixture
def job(git: GitServer) -> Job:
    return new_job(git.url("o/r"))


def endless(*arguments: Any, check: Check | None = None, **_: Any) -> Any:
    """A stage that does not end by itself. Its check comes by name, or last."""
    asked = check or arguments[-1]
    while True:
        asked()
        time.sleep(0.01)


def dataset_of(wanted: Job, git: GitServer) -> str:
    hosts = AllowedHosts.parse(git.allowed_hosts)
    return parse_repository_url(wanted.source.clone_url, allowed_hosts=hosts).dataset_name("main")


async def record_of(bus: Bus, name: str) -> Dataset | None:
    entry = await Bucket(bus, streams.KV_DATASETS, Dataset).get(dataset_key("default", "default", name))
    return entry.value if entry is not None else None


async def until_busy(bus: Bus, wanted: Job) -> None:
    async with asyncio.timeout(20):
        while (found := await worker_entry(bus, "w2")) is None or wanted.job_id not in found.job_ids:
            await asyncio.sleep(0.02)


async def until_idle(bus: Bus, *, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while (found := await worker_entry(bus, "w2")) is None or found.job_ids:
            await asyncio.sleep(0.02)


OF_GIT_SERVER = ("http-backend", "upload-pack", "pack-objects")


def git_processes() -> list[str]:
    """The fetches of this process, and not what its git server runs."""
    found = []
    for each in psutil.Process().children(recursive=True):
        try:
            command = each.cmdline()
        except psutil.Error:
            continue
        said = " ".join(command)
        if command and "git" in command[0] and not any(name in said for name in OF_GIT_SERVER):
            found.append(said)
    return found


OF_REPOSITORIES = [stage for stage in Stage if stage not in (Stage.ACCESS, Stage.CHUNK)]


async def until_at(bus: Bus, stage: Stage) -> None:
    async with asyncio.timeout(20):
        while (found := await worker_entry(bus, "w2")) is None or found.stage != stage:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("where", ["connecting", *OF_REPOSITORIES][:-1])
async def test_a_cancelled_job_stops_within_two_seconds_wherever_it_is_and_leaves_nothing(
    where: str, bus: Bus, git: GitServer, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = {"connecting": "o/silent", Stage.FETCH: "o/slow"}.get(where, "o/r")
    wanted = new_job(git.url(repository))
    already = len(git.requests)
    reached: Callable[[], bool] | None = None
    match where:
        case "connecting":
            reached = lambda: len(git.requests) > already  # noqa: E731
        case Stage.FETCH:
            reached = lambda: len(git.requests) > already + 2  # noqa: E731
        case Stage.DISCOVER:
            monkeypatch.setattr("pharos_embedder.pipeline.discover", endless)
        case Stage.LINK:
            monkeypatch.setattr(stages, "link_files", endless)
        case Stage.TRAIN:
            monkeypatch.setattr(stages, "train", endless)
        case Stage.STORE:
            machine.engine.gate.shut()
            reached = machine.engine.gate.reached.is_set
        case Stage.ENCODE:
            machine.encoder.gate.shut(after=3)
            reached = machine.encoder.gate.reached.is_set
    parse_command = NEVER if where == Stage.PARSE else ()
    async with working(bus, machine, allowed_hosts=git.allowed_hosts, parse_command=parse_command) as running:
        await hand_out(bus, wanted)
        if reached is None:
            await until_at(bus, Stage(where))
        else:
            await until(reached)
        await until_busy(bus, wanted)
        written = machine.engine.writes
        began = time.monotonic()
        await stop(bus, wanted, Action.CANCEL)
        if where in (Stage.STORE, Stage.ENCODE):
            await asyncio.sleep(0.3)  # so that what was under way ends after the stop
            machine.engine.gate.open()
            machine.encoder.gate.open()
        await until_idle(bus, seconds=STOP_SECONDS)
        assert time.monotonic() - began < STOP_SECONDS
        assert git_processes() == []
        assert machine.holds_nothing_of(wanted)
        assert machine.store.contents() == []
        assert machine.cache.count() == 0
        assert await record_of(bus, dataset_of(wanted, git)) is None
        assert isinstance((await said(bus, wanted))[-1], ItemCancelled)
        if where == Stage.STORE:
            assert machine.engine.writes <= written + 1 + 1  # the write under way, and its removal
        assert not running.died

        # The slot is free for the next one.
        late = new_job(git.url("o/r"), submitted_at=now() - timedelta(hours=1))
        await hand_out(bus, late)
        await until_said(bus, late, ItemSkipped)


async def test_a_cancelled_first_index_is_withdrawn_although_it_answered_already(
    bus: Bus, git: GitServer, machine: Machine, job: Job
) -> None:
    machine.encoder.gate.shut(after=3)
    async with working(bus, machine, allowed_hosts=git.allowed_hosts):
        await hand_out(bus, job)
        await until(machine.encoder.gate.reached.is_set)
        shown = await record_of(bus, dataset_of(job, git))
        assert shown is not None and shown.stage is IndexStage.LEXICAL
        assert machine.store.contents() != []
        await stop(bus, job, Action.CANCEL)
        machine.encoder.gate.open()
        await until_idle(bus, seconds=STOP_SECONDS)
        assert await record_of(bus, dataset_of(job, git)) is None
        assert machine.holds_nothing_of(job)
        assert machine.cache.count() == 0
    assert names(await said(bus, job)) == ["Started", "LexicalReady", "Cancelled"]


async def test_a_cancelled_index_leaves_the_live_one_as_it_was(
    bus: Bus, git: GitServer, machine: Machine
) -> None:
    git.add_repository("o/changing", REPOSITORY)
    job = new_job(git.url("o/changing"))
    async with working(bus, machine, allowed_hosts=git.allowed_hosts):
        await hand_out(bus, job)
        await until_said(bus, job, ItemCompleted)
        await until_settled(bus)
        before = await record_of(bus, dataset_of(job, git))
        assert before is not None
        held = machine.store.contents()

        changed = {"src/module_0.py": source(100), "src/module_1.py": None}
        git.add_commits("o/changing", [changed])
        again = new_job(job.source.clone_url)
        machine.engine.gate.shut(after=4)  # what is new is stored, what is gone is retired
        await hand_out(bus, again)
        await until(machine.engine.gate.reached.is_set)
        await stop(bus, again, Action.CANCEL)
        machine.engine.gate.open()
        await until_idle(bus, seconds=STOP_SECONDS)
        assert await record_of(bus, dataset_of(job, git)) == before
        assert machine.store.contents() == held
        assert machine.holds_nothing_of(again)


async def test_a_paused_job_goes_on_where_it_stopped_and_nothing_is_encoded_twice(
    bus: Bus, git: GitServer, machine: Machine, job: Job
) -> None:
    machine.encoder.gate.shut(after=5)
    told: list[float] = []

    async def follow() -> None:
        async for each in tail(bus, streams.PROGRESS, ["progress.>"], last_per_subject=True):
            if hasattr(each, "data"):
                progress: Progress = decode(each.data, Progress)
                told.append(progress.percent)

    following = asyncio.create_task(follow())
    async with working(bus, machine, allowed_hosts=git.allowed_hosts):
        await hand_out(bus, job)
        await until(machine.encoder.gate.reached.is_set)
        paused = await stop(bus, job, Action.PAUSE)
        await asyncio.sleep(0.3)
        machine.encoder.gate.open()
        await until_idle(bus, seconds=STOP_SECONDS)
        first = list(machine.encoder.given)
        assert len(first) == 12  # six batches of two
        assert machine.cache.count() == len(first)

        resumed = replace(job, facts_after=paused, resuming=True, started_at=now(), attempt=1, dispatch=1)
        await hand_out(bus, resumed, attempt=1, dispatch=2)
        done = await until_said(bus, job, ItemCompleted)
        await until_settled(bus)
    following.cancel()
    given = machine.encoder.given
    assert len(given) == len(set(given))
    assert done.attempt == 1
    encoded = len(given) - done.result.files_processed  # the path of each file is encoded, too
    assert done.result.chunks == encoded
    assert done.result.chunks_encoded == encoded - len(first)
    assert names(await said(bus, job)) == [
        "Started",
        "LexicalReady",
        "Paused",
        "Started",
        "LexicalReady",
        "Committing",
        "Completed",
    ]
    assert told == sorted(told)
    assert machine.cache.jobs() == []


async def test_an_item_that_was_taken_away_before_it_started_is_dropped(
    bus: Bus, git: GitServer, machine: Machine, job: Job
) -> None:
    for action in (Action.CANCEL, Action.PAUSE):
        wanted = new_job(job.source.clone_url)
        await take_away(bus, wanted, action)
        await hand_out(bus, wanted)
        async with working(bus, machine, allowed_hosts=git.allowed_hosts):
            await until_settled(bus)
        assert len(await said(bus, wanted)) == 1


async def test_a_stop_that_the_bucket_does_not_tell_is_found_out_at_the_next_look(
    bus: Bus, git: GitServer, machine: Machine
) -> None:
    wanted = new_job(git.url("o/silent"))
    config = WorkerConfig(hold=0.2)
    async with working(bus, machine, allowed_hosts=git.allowed_hosts, config=config):
        await hand_out(bus, wanted)
        await until_busy(bus, wanted)
        await take_away(bus, wanted, Action.CANCEL)
        await until_idle(bus, seconds=STOP_SECONDS)
        await until_settled(bus)


async def test_work_that_does_not_stop_ends_the_process(
    bus: Bus, git: GitServer, machine: Machine, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = threading.Event()

    def never_asks(*_arguments: Any, **_: Any) -> Any:
        assert deaf.wait(20)
        raise AssertionError("nobody wants this")

    monkeypatch.setattr(stages, "link_files", never_asks)
    config = WorkerConfig(stop=0.3)
    async with working(bus, machine, allowed_hosts=git.allowed_hosts, config=config) as running:
        await hand_out(bus, job)
        await until_at(bus, Stage.LINK)
        other = new_job(git.url("o/r"), submitted_at=now() - timedelta(hours=1))
        await hand_out(bus, other)
        await stop(bus, job, Action.CANCEL)
        await until(lambda: running.died)
        assert await said(bus, other) == []  # the slot is not free: the thread is still there
        deaf.set()
        await until_said(bus, other, ItemSkipped)


# What a cancelled job left


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


# Time limits


@pytest.mark.parametrize(
    ("repository", "stage", "transient"),
    [("o/silent", Stage.FETCH, True), ("o/r", Stage.TRAIN, False), ("o/r", None, False)],
)
async def test_a_stage_that_does_not_end_is_ended_and_its_owner_told_which(
    repository: str,
    stage: Stage | None,
    transient: bool,
    bus: Bus,
    git: GitServer,
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stages, "train", endless)
    wanted = new_job(git.url(repository))

    def limited(limits: stages.Limits) -> stages.Limits:
        if stage is None:
            return replace(limits, job_seconds=5)
        return replace(limits, stage_seconds={**limits.stage_seconds, stage: 0.5})

    async with working(bus, machine, allowed_hosts=git.allowed_hosts, limits=limited) as running:
        await hand_out(bus, wanted)
        failed = await until_said(bus, wanted, ItemFailed)
        assert (failed.code, failed.transient) == ("timed_out", transient)
        assert ("It" if stage is None else f"Its stage '{stage}'") in failed.error
        await until_settled(bus)
        assert not running.died
        assert list(machine.workspaces.iterdir()) == []


async def test_what_is_stored_while_files_are_parsed_is_within_the_limit_of_storing(
    bus: Bus, git: GitServer, machine: Machine
) -> None:
    def limited(limits: stages.Limits) -> stages.Limits:
        return replace(limits, stage_seconds={**limits.stage_seconds, Stage.STORE: 0.5})

    wanted = new_job(git.url("o/r"))
    async with working(bus, machine, allowed_hosts=git.allowed_hosts, limits=limited):
        machine.engine.gate.shut()
        await hand_out(bus, wanted)
        await until(machine.engine.gate.reached.is_set)
        await asyncio.sleep(0.6)
        machine.engine.gate.open()
        failed = await until_said(bus, wanted, ItemFailed)
    assert "Its stage 'store' took longer" in failed.error


def test_every_stage_of_a_repository_has_a_limit() -> None:
    assert set(stages.STAGE_SECONDS) == set(OF_REPOSITORIES)


# Who may hand out, and what cannot be read


async def lease(bus: Bus, *, term: int, adopted: int | None) -> None:
    await Bucket(bus, streams.KV_LEASE, Lease).put("scheduler", Lease(holder="s", term=term, adopted=adopted))


async def test_what_a_leader_handed_out_after_it_lost_its_lease_is_dropped(
    bus: Bus, machine: Machine
) -> None:
    early, late, current = (new_job("http://127.0.0.1:9/o/r") for _ in range(3))
    adopted = await hand_out(bus, early, term=3)
    await hand_out(bus, late, term=3)
    await hand_out(bus, current, term=5)
    await lease(bus, term=5, adopted=adopted)
    async with working(bus, machine):
        await until_settled(bus)
    assert await said(bus, late) == []
    assert names(await said(bus, early)) == names(await said(bus, current)) == ["Started", "Failed"]


async def test_an_item_of_an_old_term_waits_until_the_new_leader_has_looked(
    bus: Bus, machine: Machine
) -> None:
    wanted = new_job("http://127.0.0.1:9/o/r")
    await lease(bus, term=5, adopted=None)
    sequence = await hand_out(bus, wanted, term=3)
    async with working(bus, machine):
        await asyncio.sleep(0.5)
        assert await said(bus, wanted) == []
        await lease(bus, term=5, adopted=sequence)
        await until_said(bus, wanted, ItemFailed)


async def test_an_item_whose_new_leader_takes_long_is_put_off_and_not_lost(
    bus: Bus, machine: Machine
) -> None:
    wanted = new_job("http://127.0.0.1:9/o/r")
    await lease(bus, term=5, adopted=None)
    sequence = await hand_out(bus, wanted, term=3)
    async with working(bus, machine, config=WorkerConfig(adoption=0.2)):
        await asyncio.sleep(0.6)
        await lease(bus, term=5, adopted=sequence)
        await until_said(bus, wanted, ItemFailed)


async def test_an_item_that_another_worker_has_just_begun_is_not_kept_from_its_end(
    bus: Bus, machine: Machine
) -> None:
    wanted = new_job("http://127.0.0.1:9/o/r")
    await lease(bus, term=5, adopted=None)
    sequence = await hand_out(bus, wanted, term=3)
    lease_reads = await bus.client.subscribe(f"$JS.API.DIRECT.GET.KV_{streams.KV_LEASE}")
    async with working(bus, machine):
        for _ in range(2):  # it looks for the new leader again: that nobody had the item it has read
            await lease_reads.next_msg(timeout=10)
        other = ItemLog(
            bus,
            WorkItem(job=wanted, item_id=ITEM_REPOSITORY, attempt=1, dispatch=1),
            None,
            attempt=1,
            deaths=0,
            worker="w1",
            instance=str(uuid4()),
            now=now,
        )
        await other.say(ItemStarted)
        await other.say(ItemSkipped, reason="nothing to do")
        await lease(bus, term=5, adopted=sequence)
        async with asyncio.timeout(streams.WORK_ACK_WAIT_SECONDS / 2):
            while (await bus.api(f"STREAM.INFO.{streams.WORK}"))["state"]["messages"]:
                await asyncio.sleep(0.05)
    assert names(await said(bus, wanted)) == ["Started", "Skipped"]


async def test_without_a_leader_an_item_is_done(bus: Bus, machine: Machine) -> None:
    wanted = new_job("http://127.0.0.1:9/o/r")
    await hand_out(bus, wanted, term=3)
    async with working(bus, machine):
        await until_said(bus, wanted, ItemFailed)


@pytest.mark.parametrize(
    ("payload", "tenant"),
    [
        (b"{nothing", "default"),
        (b'{"job": {"tenant": "acme"}}', "acme"),
        (b'{"job": {"tenant": "a.b"}}', "default"),
    ],
)
async def test_a_message_that_nobody_can_read_is_kept_as_a_dead_letter(
    payload: bytes, tenant: str, bus: Bus, machine: Machine
) -> None:
    ack = await bus.publish("work.default.j.0", payload)
    async with working(bus, machine):
        await until_settled(bus)
    stored = await bus.last(streams.DEAD, dead_letters(tenant, f"WORK-{ack.seq}"))
    assert stored is not None
    letter: DeadLetter = decode(stored.data, DeadLetter)
    assert (letter.kind, letter.stream, letter.subject) == (
        DeadLetterKind.MESSAGE,
        "WORK",
        "work.default.j.0",
    )
    assert letter.payload == payload


async def test_an_item_of_which_a_newer_release_spoke_is_left_to_its_workers(
    bus: Bus, machine: Machine
) -> None:
    wanted = new_job("http://127.0.0.1:9/o/r")
    subject = f"events.item.default.{wanted.job_id}.0.started"
    await bus.publish(subject, b'{"type": "items.event.v9.started"}')
    await hand_out(bus, wanted)
    async with working(bus, machine) as running:
        async with asyncio.timeout(20):
            consumer = f"CONSUMER.INFO.{streams.WORK}.{streams.WORKERS}"
            while (await bus.api(consumer))["delivered"]["consumer_seq"] < 2:
                await asyncio.sleep(0.05)
        assert not running.serving.done()


# Holding


@pytest.fixture
async def brief_bus(bus_settings: ServiceSettings) -> AsyncIterator[Bus]:
    """A bus that gives the item of a silent worker to another after two seconds."""
    connection = await connect(bus_settings, "test")
    await declared(connection, work_ack_wait_seconds=2)
    yield connection
    await connection.client.close()


async def test_a_worker_that_the_bus_does_not_answer_stops_and_its_attempt_goes_on_later(
    brief_bus: Bus, nats_server: NatsServer, git: GitServer, machine: Machine
) -> None:
    wanted = new_job(git.url("o/silent"))
    config = WorkerConfig(hold=0.3, lapse=1.5)
    async with working(brief_bus, machine, allowed_hosts=git.allowed_hosts, config=config) as running:
        await hand_out(brief_bus, wanted)
        await until_busy(brief_bus, wanted)
        nats_server.freeze()
        try:
            await until(lambda: not running.presence.working, seconds=10)
            assert git_processes() == []
        finally:
            nats_server.thaw()
        async with asyncio.timeout(20):
            while len(await said(brief_bus, wanted)) < 2:
                await asyncio.sleep(0.1)
        again = (await said(brief_bus, wanted))[-1]
        assert isinstance(again, ItemStarted)
        assert (again.attempt, again.deaths) == (1, 0)  # nobody died


async def test_a_worker_that_is_cancelled_hands_back_unless_its_owner_took_the_item(
    bus: Bus, git: GitServer, machine: Machine
) -> None:
    wanted = new_job(git.url("o/silent"))
    async with working(bus, machine, allowed_hosts=git.allowed_hosts):
        await hand_out(bus, wanted)
        await until_busy(bus, wanted)
        await bus.api(f"STREAM.PURGE.{streams.WORK}", {})  # and no other word of it yet
    assert (await bus.api(f"STREAM.INFO.{streams.WORK}"))["state"]["messages"] == 0


async def test_a_worker_that_drains_says_so_at_once_takes_nothing_new_and_finishes(
    bus: Bus, git: GitServer, machine: Machine, job: Job
) -> None:
    machine.encoder.gate.shut(after=3)
    other = new_job(git.url("o/r"))
    async with working(bus, machine, allowed_hosts=git.allowed_hosts) as running:
        await hand_out(bus, job)
        await until(machine.encoder.gate.reached.is_set)
        await hand_out(bus, other)
        running.presence.draining()
        running.drain.begin()
        async with asyncio.timeout(1):
            while (found := await worker_entry(bus, "w2")) is None or found.state is not WorkerState.DRAINING:
                await asyncio.sleep(0.02)
        machine.encoder.gate.open()
        async with asyncio.timeout(20):
            await running.serving
        assert names(await said(bus, job))[-1] == "Completed"
        assert await said(bus, other) == []
        drained = await worker_entry(bus, "w2")
        assert drained is not None and drained.state is WorkerState.DRAINING


async def test_a_worker_that_is_hurried_hands_its_job_back_and_the_next_encodes_nothing_twice(
    bus: Bus, git: GitServer, machine: Machine, job: Job
) -> None:
    machine.encoder.gate.shut(after=5)
    async with working(bus, machine, allowed_hosts=git.allowed_hosts, name="w1") as running:
        await hand_out(bus, job)
        await until(machine.encoder.gate.reached.is_set)
        running.drain.hurry()
        machine.encoder.gate.open()
        async with asyncio.timeout(10):
            await running.serving
    async with working(bus, machine, allowed_hosts=git.allowed_hosts):
        async with asyncio.timeout(10):  # nobody waits for it to be missed
            while (await said(bus, job))[-1].dispatch != 2:
                await asyncio.sleep(0.05)
        done = await until_said(bus, job, ItemCompleted)
        await until_settled(bus)
    assert (done.attempt, done.dispatch, done.deaths) == (1, 2, 0)
    given = machine.encoder.given
    assert len(given) == len(set(given)) == done.result.chunks + done.result.files_processed


# Processes


class Process:
    """A worker in a process of its own, which writes lines until it is told that it is done."""

    def __init__(self, nats: NatsServer, folder: Path, name: str, **options: float) -> None:
        self.lines, self.done = folder / "lines", folder / "done"
        arguments = {"nats": nats.url, "name": name, "lines": self.lines, "done": self.done, **options}
        command = [sys.executable, "-m", "tests.support.worker_process"]
        command += [part for key, value in arguments.items() for part in (f"--{key}", str(value))]
        self._process = subprocess.Popen(command)
        self.name = name

    def written(self) -> int:
        try:
            return self.lines.read_text().splitlines().count(self.name)
        except FileNotFoundError:
            return 0

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    async def ended(self, *, seconds: float = 20) -> int:
        await until(lambda: self._process.poll() is not None, seconds=seconds)
        return int(self._process.returncode)


async def test_a_worker_that_was_frozen_writes_nothing_once_another_has_its_item(
    brief_bus: Bus, nats_server: NatsServer, tmp_path: Path
) -> None:
    wanted = new_job("http://127.0.0.1:9/o/r")
    with Process(nats_server, tmp_path, "w1", lapse=1.5) as frozen:
        await hand_out(brief_bus, wanted)
        await until(lambda: frozen.written() > 0)
        frozen.signal(signal.SIGSTOP)
        before = frozen.written()
        with Process(nats_server, tmp_path, "w2", lapse=1.5) as other:
            await until(lambda: other.written() > 0)
            frozen.signal(signal.SIGCONT)
            more = other.written() + 50
            await until(lambda: other.written() > more)
            assert frozen.written() <= before + 1  # the line that was under way
            other.done.touch()
            await until_said(brief_bus, wanted, ItemCompleted)
            await until_settled(brief_bus)
    events = await said(brief_bus, wanted)
    assert [event.worker for event in events] == ["w1", "w2", "w2", "w2"]


async def test_an_item_that_killed_two_workers_is_not_given_to_a_third(
    brief_bus: Bus, nats_server: NatsServer, tmp_path: Path
) -> None:
    wanted = new_job("http://127.0.0.1:9/o/r")
    await hand_out(brief_bus, wanted)
    for number in (1, 2):
        # A supervisor starts the next one under the same name.
        with Process(nats_server, tmp_path, "w") as process:
            async with asyncio.timeout(30):
                while len(await said(brief_bus, wanted)) < number:
                    await asyncio.sleep(0.05)
            process.signal(signal.SIGKILL)
            await process.ended()
    with Process(nats_server, tmp_path, "w") as third:
        failed = await until_said(brief_bus, wanted, ItemFailed, seconds=30)
        await until_settled(brief_bus)
        assert (failed.code, failed.transient, failed.deaths) == ("poison", False, 2)
        lines = third.lines.read_text().splitlines()
    events = await said(brief_bus, wanted)
    assert names(events) == ["Started", "Started", "Failed"]
    assert [(event.attempt, event.deaths) for event in events] == [(1, 0), (2, 1), (2, 2)]
    assert len({event.instance for event in events}) == 3
    assert lines[-1] == "cleared"


async def test_a_worker_that_is_asked_to_stop_finishes_its_job_within_its_time(
    bus: Bus, nats_server: NatsServer, tmp_path: Path
) -> None:
    wanted = new_job("http://127.0.0.1:9/o/r")
    with Process(nats_server, tmp_path, "w1", drain=20) as process:
        await hand_out(bus, wanted)
        await until(lambda: process.written() > 0)
        process.signal(signal.SIGTERM)
        async with asyncio.timeout(2):
            while (found := await worker_entry(bus, "w1")) is None or found.state is not WorkerState.DRAINING:
                await asyncio.sleep(0.02)
        process.done.touch()
        assert await process.ended() == 0
    assert names(await said(bus, wanted)) == ["Started", "Committing", "Completed"]
    assert await worker_entry(bus, "w1") is None


@pytest.mark.parametrize(("drain", "signals"), [(0.5, 1), (60, 2)])
async def test_a_worker_whose_time_is_over_or_that_is_asked_twice_hands_its_job_back(
    drain: float, signals: int, bus: Bus, nats_server: NatsServer, tmp_path: Path
) -> None:
    wanted = new_job("http://127.0.0.1:9/o/r")
    with Process(nats_server, tmp_path, "w1", drain=drain) as process:
        await hand_out(bus, wanted)
        await until(lambda: process.written() > 0)
        for _ in range(signals):
            process.signal(signal.SIGTERM)
            await asyncio.sleep(0.2)
        assert await process.ended(seconds=8) == 0
    with Process(nats_server, tmp_path, "w2") as following:
        await until(lambda: following.written() > 0)
        following.done.touch()
        done = await until_said(bus, wanted, ItemCompleted)
    assert (done.attempt, done.dispatch, done.deaths) == (1, 2, 0)
