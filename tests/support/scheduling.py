"""A scheduler in this process, and what a gateway and a worker would write, by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import replace

from pharos_contracts import streams, subjects
from pharos_contracts.control.v1 import Action, AnyCommand, ControlJob, Controlled, Purged, Scheduled
from pharos_contracts.identity import documents_dataset, uuid7
from pharos_contracts.jobs.v1 import (
    ActiveJob,
    AnyItemEvent,
    AnyJobEvent,
    DocumentSource,
    IndexResult,
    ItemEvent,
    ItemStarted,
    Job,
    JobKind,
    RepositorySource,
    SubmitJob,
    WorkItem,
)
from pharos_contracts.lifecycle import TERMINAL, JobState
from pharos_contracts.message import decode
from pharos_contracts.rpc import Refused
from pharos_contracts.workers.v1 import Worker, WorkerState
from pharos_scheduler.app import lead_term, utc_now
from pharos_scheduler.settings import Settings
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus
from pharos_service.ending import end
from pharos_service.journal import Journal
from pharos_service.lease import Held

RESULT = IndexResult(
    dataset="d", generation=1, commit="c", files_processed=1, embeddings_generated=1, chunks=1
)


def command(number: int, *, ttl_seconds: int = 3600, age_seconds: float = 0) -> SubmitJob:
    at = datetime.now(UTC) - timedelta(seconds=age_seconds)
    return SubmitJob(
        job_id=str(uuid7(int(at.timestamp() * 1000), number.to_bytes(10, "big"))),
        tenant="default",
        key=f"{number:032x}",
        source=RepositorySource(
            identity=f"github.com/o/r{number}", clone_url=f"https://github.com/o/r{number}"
        ),
        project="default",
        submitted_at=at,
        submitted_by="test",
        ttl_seconds=ttl_seconds,
    )


def document_command(number: int, label: str = "notes", **more: Any) -> SubmitJob:
    """The job of a note that lies in the object store."""
    wanted = command(number, **more)
    return replace(
        wanted,
        kind=JobKind.TEXT,
        source=None,
        document=DocumentSource(label=label, identity=f"note-{number}", object_name=f"o-{number}"),
        dataset=documents_dataset(label),
    )


async def submit(bus: Bus, wanted: SubmitJob) -> int:
    active = Bucket(bus, streams.KV_ACTIVE, ActiveJob)
    await active.create(
        subjects.active_key(wanted.tenant, wanted.key),
        ActiveJob(command=wanted, created_at=wanted.submitted_at),
    )
    ack = await bus.publish(
        subjects.submit_subject(wanted),
        wanted,
        message_id=wanted.job_id,
        ttl_seconds=None if wanted.document else wanted.ttl_seconds,
        expect_last=0,
        expect_scope=subjects.same_work_filter(wanted),
    )
    return ack.seq


async def events_of(bus: Bus, wanted: SubmitJob) -> list[AnyJobEvent]:
    found: list[AnyJobEvent] = []
    sequence = 1
    while True:
        stored = await bus.first(streams.JOBS, subjects.job_events(wanted.tenant, wanted.job_id), sequence)
        if stored is None:
            return found
        found.append(decode(stored.data, AnyJobEvent))
        sequence = stored.sequence + 1


async def job_when(bus: Bus, wanted: SubmitJob, holds: Callable[[Job], bool], seconds: float = 20) -> Job:
    async with asyncio.timeout(seconds):
        while True:
            events = await events_of(bus, wanted)
            if events and holds(events[-1].job):
                return events[-1].job
            await asyncio.sleep(0.02)


def ended(job: Job) -> bool:
    return job.state in TERMINAL


async def is_released(bus: Bus, wanted: SubmitJob) -> None:
    active = Bucket(bus, streams.KV_ACTIVE, ActiveJob)
    async with asyncio.timeout(5):
        while await active.get(subjects.active_key(wanted.tenant, wanted.key)) is not None:
            await asyncio.sleep(0.02)


async def announce(bus: Bus, slots: int = 1, *, document_slots: int = 0) -> None:
    now = utc_now()
    await Bucket(bus, streams.KV_WORKERS, Worker).put(
        "w1",
        Worker(
            name="w1",
            instance="i",
            pool="default",
            state=WorkerState.IDLE,
            device="cpu",
            slots=slots,
            document_slots=document_slots,
            since=now,
            seen_at=now,
        ),
    )


async def take(bus: Bus, seconds: float = 10, *, consumer: str = streams.WORKERS) -> tuple[WorkItem, Any]:
    """The next item, as a worker would get it."""
    subscription = await bus.jetstream.pull_subscribe_bind(durable=consumer, stream=streams.WORK)
    (message,) = await subscription.fetch(1, timeout=seconds)
    item: WorkItem = decode(message.data, WorkItem)
    return item, message


async def ask(bus: Bus, command: AnyCommand, seconds: float = 10) -> Any:
    """Put *command* on CONTROL; the answer."""
    inbox = await bus.client.subscribe(command.reply_to)
    try:
        await bus.publish(subjects.control_subject(command), command)
        answer = await inbox.next_msg(timeout=seconds)
    finally:
        await inbox.unsubscribe()
    union: Any = Controlled | Purged | Scheduled | Refused
    return decode(answer.data, union)


async def control(bus: Bus, job_id: str, action: Action, *, tenant: str | None = "default") -> Any:
    """What the scheduler answers to an owner."""
    return await ask(
        bus,
        ControlJob(
            tenant=tenant,
            by="ada",
            at=utc_now(),
            reply_to=bus.client.new_inbox(),
            job_id=job_id,
            action=action,
        ),
    )


async def facts_of(bus: Bus, wanted: SubmitJob) -> list[AnyItemEvent]:
    """Everything that was said of the job's item."""
    found: list[AnyItemEvent] = []
    scope, sequence = subjects.item_events(wanted.tenant, wanted.job_id, "0"), 1
    while (stored := await bus.first(streams.JOBS, scope, sequence)) is not None:
        found.append(decode(stored.data, AnyItemEvent))
        sequence = stored.sequence + 1
    return found


async def messages_in(bus: Bus, stream: str, subject: str = ">") -> int:
    info = await bus.api(f"STREAM.INFO.{stream}", {"subjects_filter": subject})
    return sum((info["state"].get("subjects") or {}).values())


async def say(
    bus: Bus,
    item: WorkItem,
    kind: type[ItemEvent],
    attempt: int | None = None,
    *,
    after: int | None = None,
    **facts: Any,
) -> int:
    """A fact, as the worker w1 would write it; its sequence. Superseded where the last one is not *after*."""
    scope = subjects.item_events(item.job.tenant, item.job.job_id, item.item_id)
    if after is None:
        last = await bus.last(streams.JOBS, scope)
        after = last.sequence if last else 0
    event = kind(
        event_id=f"{item.job.job_id}.{item.item_id}{kind.__name__}{after}",
        at=utc_now(),
        tenant=item.job.tenant,
        job_id=item.job.job_id,
        item_id=item.item_id,
        attempt=attempt or item.attempt,
        dispatch=item.dispatch,
        worker="w1",
        **facts,
    )
    return await Journal(bus, streams.JOBS).append(
        subjects.item_event_subject(event),
        event,
        message_id=event.event_id,
        scope=scope,
        expect_last=after,
    )


async def until_holds(bus: Bus, stream: str, count: int, subject: str = ">") -> None:
    """Until *stream* has *count* messages: what was acknowledged leaves it a moment later."""
    async with asyncio.timeout(10):
        while await messages_in(bus, stream, subject) != count:
            await asyncio.sleep(0.02)


@asynccontextmanager
async def leading(bus: Bus, *, term: int = 1, **settings: Any) -> AsyncIterator[None]:
    """One that leads for a minute, whoever else does."""
    held = Held(term, 60, asyncio.get_running_loop().time())
    task = asyncio.create_task(lead_term(bus, Settings(**settings), held))
    try:
        yield
    finally:
        await end(task)


def is_in(state: JobState) -> Callable[[Job], bool]:
    """Whether a job is in *state*, for `job_when`."""
    return lambda job: job.state is state


async def running(bus: Bus, wanted: SubmitJob) -> tuple[WorkItem, Any, int]:
    """A job with a worker: its item, the message of it, and the sequence of the fact that says so."""
    await announce(bus)
    await submit(bus, wanted)
    item, message = await take(bus)
    started = await say(bus, item, ItemStarted)
    await job_when(bus, wanted, is_in(JobState.RUNNING))
    return item, message, started
