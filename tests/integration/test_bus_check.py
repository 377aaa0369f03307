"""``pharos-bus check`` over a real bus, a real history and somebody who answers for the index."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from pharos_contracts import streams
from pharos_contracts.control.v1 import (
    INSPECTED_MAX,
    Action,
    ControlJob,
    DescribeStore,
    GraphState,
    InspectDatasets,
    InspectedDataset,
    InspectedDatasets,
    LiveGeneration,
    StoreContents,
    StoredGeneration,
)
from pharos_contracts.datasets.v1 import Dataset, IndexStage, WriteLock
from pharos_contracts.history.v1 import JobPage, ListJobs
from pharos_contracts.identity import dataset_key
from pharos_contracts.invariants import Snapshot, violations
from pharos_contracts.jobs.v1 import (
    ActiveJob,
    AnyEvent,
    ItemCancelled,
    ItemStarted,
    Job,
    Scope,
    WorkItem,
    command_of,
)
from pharos_contracts.lifecycle import JobState
from pharos_contracts.message import Message, decode, encode
from pharos_contracts.rpc import HISTORY, STORE
from pharos_contracts.schedules.v1 import Schedule
from pharos_contracts.subjects import (
    ITEM_REPOSITORY,
    Due,
    DueKind,
    active_key,
    control_subject,
    due_subject,
    later_subject,
    ledger_job,
    submit_subject,
    work_subject,
)
from pharos_contracts.violations import name_of
from pharos_contracts.workers.v1 import Worker, WorkerState
from pharos_service import bus_check
from pharos_service.asking import NobodyAnswers, QuestionRefused, ask
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus
from pharos_service.bus_check import Unanswered, check, take_snapshot
from tests.support.history import History
from tests.support.job_events import life, make_event, make_item_event, make_job, subject_of
from tests.support.nats_server import NatsServer

pytestmark = pytest.mark.anyio

DEADLINE_SECONDS = 25.0
NOTHING: dict[str, Any] = {
    "chunks": 0, "files": 0, "without_vector": 0, "documents": 0, "lexicon_unused": 0,
    "graph": GraphState.WHOLE, "graph_files": 0, "retired": 0, "later": 0,
}  # fmt: skip
LEFT = StoredGeneration(tenant="acme", project="default", dataset="host/o/gone@main", generation=3, points=8)


@pytest.fixture
def history(tmp_path: Path, nats_server: NatsServer) -> Iterator[History]:
    history = History(tmp_path, nats_server.url)
    yield history
    if history.process is not None and history.process.poll() is None:
        history.kill()


async def eventually(found: Callable[[], Awaitable[bool]], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not await found():
        assert time.monotonic() < deadline, f"not in {DEADLINE_SECONDS} s: {what}"
        await asyncio.sleep(0.05)


async def publish(bus: Bus, *events: AnyEvent) -> None:
    """Store *events*, and wait until the ledger has them as well."""
    for event in events:
        await bus.publish(subject_of(event), event)

    async def level() -> bool:
        jobs, ledger = [await bus.api(f"STREAM.INFO.{stream}") for stream in (streams.JOBS, streams.LEDGER)]
        return int(ledger["state"]["last_seq"]) >= int(jobs["state"]["last_seq"])

    await eventually(level, "the ledger has copied everything")


async def read_by_history(bus: Bus) -> None:
    last = int((await bus.api(f"STREAM.INFO.{streams.JOBS}"))["state"]["last_seq"])

    async def reached() -> bool:
        try:
            page = await ask(bus, HISTORY, ListJobs(tenant=None), JobPage, timeout=2)
        except (NobodyAnswers, QuestionRefused):
            return False
        return page.sequence >= last

    await eventually(reached, f"history has read through {last}")


@asynccontextmanager
async def index_of(bus: Bus, *generations: StoredGeneration, **more: Any) -> AsyncIterator[None]:
    """Somebody who says that this is all there is in the index, and *more* of what is live."""

    def inspected(live: LiveGeneration) -> InspectedDataset:
        seen = sum(each.points for each in generations if each.generation <= live.generation)
        values = {"chunks": 7, "files": 3, "documents": 7, "graph_files": 3} if seen else {}
        return InspectedDataset(**(dict(NOTHING, live=live) | values | more))

    async def respond(message: Any) -> None:
        question: DescribeStore | InspectDatasets = decode(message.data, DescribeStore | InspectDatasets)
        answer: Message = StoreContents(generations=generations)
        if isinstance(question, InspectDatasets):
            answer = InspectedDatasets(datasets=tuple(map(inspected, question.datasets)))
        await message.respond(encode(answer))

    subscription = await bus.client.subscribe(STORE, cb=respond)
    yield
    await subscription.unsubscribe()


def names(snapshot: Snapshot) -> list[str]:
    return [name_of(each) for each in violations(snapshot, grace_seconds=0)]


async def seen(bus: Bus) -> list[str]:
    """What is wrong with what is on the bus."""
    return names(await take_snapshot(bus, history=False, index=False))


def claim(job: Job) -> tuple[str, ActiveJob]:
    return active_key(job.tenant, job.key), ActiveJob(command=command_of(job), created_at=job.submitted_at)


async def waiting(bus: Bus, number: int, **more: Any) -> Job:
    """A job that waits as it should: accepted, and claimed."""
    job = make_job(number, key=f"k{number}", **more)
    await Bucket(bus, streams.KV_ACTIVE, ActiveJob).put(*claim(job))
    await publish(bus, make_event(number, key=f"k{number}", **more))
    return job


async def test_everything_agrees_on_an_empty_bus(bus: Bus) -> None:
    snapshot = await take_snapshot(bus, history=False, index=False)
    assert (snapshot.events, snapshot.jobs, snapshot.history, snapshot.index) == (0, {}, None, None)
    assert names(snapshot) == []


async def test_everything_agrees_on_a_bus_that_is_used_and_a_check_is_quick(
    bus: Bus, history: History
) -> None:
    history.start()
    await publish(bus, *(event for number in range(5) for event in life(number)))
    await waiting(bus, 7)
    await read_by_history(bus)
    live = StoredGeneration(tenant="acme", project="default", dataset="d", generation=1, points=9)
    await Bucket(bus, streams.KV_DATASETS, Dataset).put(dataset_key("acme", "default", "d"), record("d"))
    async with index_of(bus, live):
        seconds = []
        for _ in range(5):
            began = time.perf_counter()
            snapshot = await take_snapshot(bus)
            found = names(snapshot)
            seconds.append(time.perf_counter() - began)
            assert found == []
    assert snapshot.events == 51
    assert snapshot.history is not None and len(snapshot.history.jobs) == len(snapshot.jobs) == 6
    assert snapshot.index == (live,)
    assert min(seconds) < 0.1


def record(dataset: str, **more: Any) -> Dataset:
    values: dict[str, Any] = {
        "tenant": "acme",
        "project": "default",
        "dataset": dataset,
        "scope": Scope.PROJECT,
        "repository": "host/o/r",
        "clone_url": "https://host/o/r",
        "branch": "main",
        "commit": "c" * 40,
        "generation": 1,
        "stage": IndexStage.FULL,
        "job_id": "job-000001",
        "files": 3,
        "chunks": 7,
        "encoder": "e",
        "chunker": "c",
        "published_at": datetime.now(UTC),
    }
    return Dataset(**(values | more))


async def test_a_command_that_no_scheduler_takes_is_found(bus: Bus) -> None:
    job = make_job(3)
    await bus.publish(submit_subject(command_of(job)), command_of(job))
    await Bucket(bus, streams.KV_ACTIVE, ActiveJob).put(*claim(job))
    assert await seen(bus) == ["entry_without_ledger"]
    await publish(bus, make_event(3))
    assert await seen(bus) == []


async def test_a_command_of_a_job_that_ended_is_found(bus: Bus) -> None:
    job = make_job(3)
    await bus.publish(submit_subject(command_of(job)), command_of(job))
    await publish(bus, make_event(3), make_event(3, JobState.SKIPPED, reason="old"))
    assert await seen(bus) == ["stale_queue_entry"]


async def test_an_item_of_a_cancelled_job_is_found_and_one_that_clears_it_away_is_not(bus: Bus) -> None:
    await publish(
        bus,
        make_event(3),
        make_item_event(ItemCancelled, 3),
        cancelled := make_event(3, JobState.CANCELLED, facts_after=2),
    )
    item = WorkItem(job=cancelled.job, item_id="clear", attempt=1, dispatch=1)
    await bus.publish(work_subject(item), item)
    assert await seen(bus) == []
    item = replace(item, item_id=ITEM_REPOSITORY)
    await bus.publish(work_subject(item), item)
    assert await seen(bus) == ["stale_work_item"]


async def test_a_running_job_belongs_to_a_live_worker_or_to_the_queue(bus: Bus) -> None:
    job = await waiting(bus, 3)
    running = make_event(3, JobState.RUNNING, key="k3", attempt=1, worker="w1")
    await publish(bus, make_item_event(ItemStarted, 3), running)
    assert await seen(bus) == ["ownerless"]
    workers = Bucket(bus, streams.KV_WORKERS, Worker)
    revision = await workers.put("w1", worker("w1", job.job_id))
    assert await seen(bus) == []
    await workers.delete("w1", revision)
    assert await seen(bus) == ["ownerless"]
    item = WorkItem(job=running.job, item_id=ITEM_REPOSITORY, attempt=1, dispatch=1)
    await bus.publish(work_subject(item), item)
    assert await seen(bus) == []
    await workers.put("w1", worker("w1", job.job_id))
    await workers.put("w2", worker("w2", job.job_id))
    assert await seen(bus) == ["held_twice"]


def worker(name: str, *job_ids: str) -> Worker:
    return Worker(
        name=name,
        instance="i1",
        pool="default",
        state=WorkerState.BUSY,
        device="cpu",
        slots=1,
        job_ids=job_ids,
        since=datetime.now(UTC),
        seen_at=datetime.now(UTC),
    )


async def test_a_retrying_job_belongs_to_what_will_bring_it_back(bus: Bus) -> None:
    await waiting(bus, 3)
    running = make_event(3, JobState.RUNNING, key="k3", attempt=1)
    await publish(
        bus, running, make_event(3, JobState.RETRYING, key="k3", attempt=1, next_attempt_at=running.at)
    )
    assert await seen(bus) == ["ownerless"]
    due = Due(DueKind.RETRY, "acme", "job-000003")
    at = f"{datetime.now(UTC) + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"
    headers = {"Nats-Schedule": f"@at {at}", "Nats-Schedule-Target": due_subject(due)}
    await bus.publish(later_subject(due), b"1", headers=headers)
    assert await seen(bus) == []


async def test_what_is_due_belongs_to_the_scheduler_until_that_has_acknowledged_it(bus: Bus) -> None:
    await waiting(bus, 3)
    running = make_event(3, JobState.RUNNING, key="k3", attempt=1)
    await publish(
        bus, running, make_event(3, JobState.RETRYING, key="k3", attempt=1, next_attempt_at=running.at)
    )
    due = Due(DueKind.RETRY, "acme", "job-000003")
    at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    headers = {"Nats-Schedule": f"@at {at}", "Nats-Schedule-Target": due_subject(due)}
    await bus.publish(later_subject(due), b"1", headers=headers)
    subscription = await bus.jetstream.pull_subscribe_bind(streams.SCHEDULER_DUE, stream=streams.SCHED)
    [message] = await subscription.fetch(1, timeout=10)
    assert message.subject == due_subject(due)
    assert await seen(bus) == []
    await message.ack_sync()
    assert await seen(bus) == ["ownerless"]


async def test_a_schedule_that_nothing_starts_is_found(bus: Bus) -> None:
    schedule = Schedule(
        schedule_id="nightly",
        tenant="acme",
        source=make_job(1).source,
        project="default",
        cron="0 3 * * *",
        ttl_seconds=60,
        created_at=datetime.now(UTC),
        created_by="ann",
        next_run_at=datetime.now(UTC) - timedelta(minutes=1),
    )
    await Bucket(bus, streams.KV_SCHEDULES, Schedule).put("acme.nightly", schedule)
    assert await seen(bus) == ["no_next_run"]


async def test_a_command_is_ignored_until_it_is_acknowledged(bus: Bus) -> None:
    command = ControlJob(
        tenant="acme", by="ann", at=datetime.now(UTC), reply_to="x", job_id="job-000003", action=Action.CANCEL
    )
    await bus.publish(control_subject(command), command)
    assert await seen(bus) == ["command_ignored"]
    subscription = await bus.jetstream.pull_subscribe_bind(streams.SCHEDULER_CONTROL, stream=streams.CONTROL)
    [message] = await subscription.fetch(1, timeout=10)
    await message.ack_sync()
    assert await seen(bus) == []


async def test_a_claim_belongs_to_an_open_job_and_an_open_job_to_its_claim(bus: Bus) -> None:
    active = Bucket(bus, streams.KV_ACTIVE, ActiveJob)
    job = await waiting(bus, 3)
    key, value = claim(job)
    kept_for_expiry = claim(make_job(9))[1]
    await active.put(active_key("acme", "job-000009"), kept_for_expiry)
    assert await seen(bus) == []
    entry = await active.get(key)
    assert entry is not None
    await active.delete(key, entry.revision)
    assert await seen(bus) == ["open_without_claim"]
    await active.put(key, value)
    await publish(bus, make_event(3, JobState.CANCELLED, key="k3"))
    assert await seen(bus) == ["claim_left"]
    await active.put(active_key("acme", "other"), claim(make_job(8, key="other"))[1])
    assert await seen(bus) == ["claim_left", "claim_without_job"]


async def test_a_ledger_that_lost_an_entry_is_found(bus: Bus) -> None:
    await waiting(bus, 3)
    await bus.api(f"STREAM.PURGE.{streams.LEDGER}", {"filter": ledger_job("acme", "job-000003")})
    assert await seen(bus) == ["ownerless", "ledger_differs"]


async def test_a_job_that_jobs_has_forgotten_is_read_from_the_ledger(bus: Bus) -> None:
    await waiting(bus, 3)
    await publish(bus, make_event(3, JobState.RUNNING, key="k3", attempt=1))
    await bus.api(f"STREAM.PURGE.{streams.JOBS}")
    snapshot = await take_snapshot(bus, history=False, index=False)
    assert snapshot.jobs["job-000003"].state is JobState.RUNNING
    assert names(snapshot) == ["ownerless"]


async def test_what_cannot_be_read_is_found(bus: Bus) -> None:
    await bus.publish("events.job.acme.x.queued", b"\xff")
    await bus.publish(f"$KV.{streams.KV_ACTIVE}.acme.k", b"{}")
    await publish(bus)
    found = violations(await take_snapshot(bus, history=False, index=False), grace_seconds=0)
    assert [each.sentence() for each in found] == [
        "Message 1 of JOBS (events.job.acme.x.queued) cannot be read.",
        "Message 1 of LEDGER (ledger.job.acme.x) cannot be read.",
        "Message 1 of KV_active ($KV.active.acme.k) cannot be read.",
    ]


async def test_many_batches_are_read_whole_and_over_gaps(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_check, "BATCH", 7)
    await publish(bus, *(event for number in range(10) for event in life(number)))
    for sequence in (8, 14, 15, 100):
        await bus.api(f"STREAM.MSG.DELETE.{streams.JOBS}", {"seq": sequence})
    snapshot = await take_snapshot(bus, history=False, index=False)
    assert (snapshot.events, len(snapshot.jobs), snapshot.last_sequence) == (96, 10, 100)


async def test_points_that_nobody_will_publish_are_found(bus: Bus) -> None:
    async with index_of(bus, LEFT):
        snapshot = await take_snapshot(bus, history=False)
        assert names(snapshot) == ["points_left"]
    await waiting(bus, 3, dataset=LEFT.dataset)
    async with index_of(bus, LEFT):
        assert names(await take_snapshot(bus, history=False)) == []


async def test_a_dataset_that_shows_what_a_cancelled_job_made_is_found(bus: Bus) -> None:
    await publish(bus, make_event(1), make_event(1, JobState.CANCELLED))
    shown = record("d", stage=IndexStage.LEXICAL)
    await Bucket(bus, streams.KV_DATASETS, Dataset).put(dataset_key("acme", "default", "d"), shown)
    async with index_of(bus):
        assert names(await take_snapshot(bus, history=False)) == [
            "shown_by_ended_job",
            "record_without_points",
        ]


async def test_what_the_index_has_of_a_dataset_is_compared_with_its_record(bus: Bus) -> None:
    live = StoredGeneration(tenant="acme", project="default", dataset="d", generation=1, points=9)
    for number in range(INSPECTED_MAX + 1):
        name = f"d{number}" if number else "d"
        await Bucket(bus, streams.KV_DATASETS, Dataset).put(
            dataset_key("acme", "default", name), record(name)
        )
    async with index_of(bus, live, chunks=6):
        found = names(await take_snapshot(bus, history=False))
        assert found == ["dataset_differs"] * (INSPECTED_MAX + 1)


async def test_who_writes_to_a_dataset_is_not_disturbed(bus: Bus) -> None:
    locks = Bucket(bus, streams.KV_LOCKS, WriteLock)
    key = dataset_key(LEFT.tenant, LEFT.project, LEFT.dataset)
    revision = await locks.create(key, WriteLock(holder="restore"))
    assert revision is not None
    async with index_of(bus, LEFT):
        assert names(await take_snapshot(bus, history=False)) == []
        await locks.delete(key, revision)
        assert names(await take_snapshot(bus, history=False)) == ["points_left"]
        # It is in memory: after a crash of the server it is made anew by whoever declares the streams.
        await bus.api(f"STREAM.DELETE.KV_{streams.KV_LOCKS}")
        assert names(await take_snapshot(bus, history=False)) == ["points_left"]


async def test_a_history_that_was_changed_by_hand_is_found(bus: Bus, history: History) -> None:
    history.start()
    await publish(bus, *life(1), *life(2), make_event(3, JobState.QUEUED, key="k3"))
    await Bucket(bus, streams.KV_ACTIVE, ActiveJob).put(*claim(make_job(3, key="k3")))
    await read_by_history(bus)

    async def told() -> list[str]:
        return [
            each.sentence() for each in violations(await take_snapshot(bus, index=False), grace_seconds=0)
        ]

    assert await told() == []
    with closing(sqlite3.connect(history.home / "history.sqlite3")) as connection:
        connection.executescript(
            'UPDATE jobs SET document = replace(document, \'"state":"completed"\', \'"state":"failed"\') '
            "WHERE number = 1; DELETE FROM jobs WHERE number = 3;"
        )
    assert await told() == [
        "Of job job-000001, history and event 10 differ in state.",
        "History does not know job job-000003.",
    ]
    await asyncio.to_thread(history.rebuild)
    assert await told() == []


async def test_a_history_that_stands_still_is_behind_and_nothing_else(bus: Bus, history: History) -> None:
    history.start()
    await publish(bus, *life(1))
    await read_by_history(bus)
    assert history.process is not None
    with closing(sqlite3.connect(history.home / "history.sqlite3", isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")  # nobody else writes while this lasts
        await publish(bus, *life(2))
        snapshot = await take_snapshot(bus, index=False)
        assert names(snapshot) == ["history_behind"]
        connection.execute("ROLLBACK")
    await read_by_history(bus)
    assert names(await take_snapshot(bus, index=False)) == []


async def test_who_does_not_answer_is_named(bus: Bus, history: History) -> None:
    with pytest.raises(Unanswered, match="history could not be read: Nobody answers"):
        await take_snapshot(bus, index=False)
    with pytest.raises(Unanswered, match="the index could not be read: Nobody answers"):
        await take_snapshot(bus, history=False)
    await bus.api(f"STREAM.DELETE.{streams.SCHED}")
    with pytest.raises(Unanswered, match=r"SCHED/scheduler-due could not be read: .*pharos-bus apply"):
        await take_snapshot(bus, history=False, index=False)


async def test_a_check_says_only_what_is_wrong_twice(bus: Bus) -> None:
    async with index_of(bus, LEFT):

        async def repaired() -> None:
            await asyncio.sleep(0.1)
            await waiting(bus, 3, dataset=LEFT.dataset)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(repaired())
            findings = await check(bus, settle_seconds=1, grace_seconds=0, history=False)
        assert findings.violations == ()
        assert (findings.jobs, findings.events) == (1, 1)
    async with index_of(bus, replace(LEFT, dataset="host/o/other@main")):
        findings = await check(bus, settle_seconds=0.2, grace_seconds=0, history=False)
        assert [name_of(each) for each in findings.violations] == ["points_left"]
        assert findings == await check(bus, settle_seconds=0, grace_seconds=0, history=False)


class Command:
    """``pharos-bus check`` as people run it."""

    def __init__(self, nats_url: str) -> None:
        self._environment = os.environ | {"PHAROS_NATS_URL": nats_url}

    async def run(self, *arguments: str) -> tuple[int, str, str]:
        """Exit status, output, errors."""
        return await self._run(str(Path(sys.executable).parent / "pharos-bus"), "check", *arguments)

    async def run_impatiently(self) -> tuple[int, str, str]:
        """The same, where it is soon given up that there is a bus."""
        code = "from pharos_service import bus_admin; bus_admin.CONNECT_SECONDS = 1; bus_admin.main()"
        return await self._run(sys.executable, "-c", code, "check")

    async def _run(self, *command: str) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            *command,
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
        assert process.returncode is not None
        return process.returncode, output.decode(), errors.decode()


@pytest.fixture
def command(nats_server: NatsServer) -> Command:
    return Command(nats_server.url)


NOW: Sequence[str] = ("--settle-seconds", "0.1", "--grace-seconds", "0")


async def test_the_command_says_that_everything_agrees(bus: Bus, history: History, command: Command) -> None:
    history.start()
    await publish(bus, *life(1))
    await read_by_history(bus)
    async with index_of(bus):
        assert await command.run(*NOW) == (0, "Everything agrees. Jobs: 1. Events: 10.\n", "")
        status, output, errors = await command.run("--json", *NOW)
        assert (status, json.loads(output), errors) == (0, {"violations": [], "jobs": 1, "events": 10}, "")


async def test_the_command_says_what_is_wrong_and_what_to_do(bus: Bus, command: Command) -> None:
    await publish(bus, *life(1), make_event(1, JobState.FAILED, attempt=1, error="no"))
    arguments = ("--without-history", "--without-index", *NOW)
    status, output, errors = await command.run(*arguments)
    assert (status, errors) == (1, "")
    assert "Violations: 1. Jobs: 1. Events: 11." in output
    sentence = "Job job-000001 had ended as completed and ended again as failed (event 11)."
    assert f"second_end: {sentence}\n" in output
    status, output, _ = await command.run("--json", *arguments)
    assert status == 1
    [violation] = json.loads(output)["violations"]
    remedy = violation.pop("remedy")
    assert remedy.endswith(".") and remedy in (await command.run(*arguments))[1]
    assert violation == {
        "violation": "second_end",
        "job_id": "job-000001",
        "sequence": 11,
        "was": "completed",
        "became": "failed",
        "sentence": sentence,
    }


async def test_the_command_says_what_it_could_not_read(
    bus: Bus, command: Command, nats_server: NatsServer
) -> None:
    status, output, errors = await command.run("--without-index")
    assert (status, output) == (2, "")
    assert errors == "history could not be read: Nobody answers this question at the moment\n"
    status, output, errors = await command.run("--without-history")
    assert (status, output) == (2, "")
    assert errors == "the index could not be read: Nobody answers this question at the moment\n"
    await bus.api(f"STREAM.DELETE.{streams.JOBS}")
    status, output, errors = await command.run("--without-history", "--without-index")
    assert (status, output) == (2, "")
    assert errors.startswith("JOBS could not be read: ") and "pharos-bus apply" in errors
    await asyncio.to_thread(nats_server.kill)
    assert await command.run_impatiently() == (
        2,
        "",
        f"No NATS server answers at {nats_server.url} within 1 s. Start it, "
        "or set PHAROS_NATS_URL (and PHAROS_NATS_USER, PHAROS_NATS_PASSWORD).\n",
    )
