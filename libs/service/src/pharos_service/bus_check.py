"""``pharos-bus check``: whether everything that Pharos keeps agrees.

It reads the streams, the buckets, history and the index into one snapshot, and leaves what that means to the
rules in contracts. Nothing is written anywhere, and no consumer is made: messages are read by direct gets.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, suppress
from datetime import datetime
from hashlib import blake2b
from types import UnionType
from typing import Any, Final, TypeVar

import msgspec
import nats.errors

from pharos_contracts import invariants, streams
from pharos_contracts.control.v1 import (
    INSPECTED_MAX,
    DescribeStore,
    InspectDatasets,
    InspectedDataset,
    InspectedDatasets,
    StoreContents,
    StoredGeneration,
)
from pharos_contracts.datasets.v1 import Dataset, DatasetRecord, WriteLock
from pharos_contracts.history.v1 import JobPage, ListJobs
from pharos_contracts.invariants import Asked, Claim, HandedOut, History, Record, Snapshot, Told, Waiting
from pharos_contracts.jobs.v1 import ActiveJob, AnyEvent, AnyJobEvent
from pharos_contracts.message import Message, UnreadableMessage, decode
from pharos_contracts.rpc import HISTORY, STORE
from pharos_contracts.schedules.v1 import Schedule
from pharos_contracts.subjects import Due, MalformedSubject, parse_due
from pharos_contracts.tracing import Fold, JobTrace, trace_job
from pharos_contracts.violations import Unreadable, Violation, name_of
from pharos_contracts.workers.v1 import Worker
from pharos_service.asking import NobodyAnswers, QuestionRefused, ask
from pharos_service.bus import Bus, BusError, NotFound, Stored

BATCH: Final = 1000
BATCH_BYTES: Final = 16 * streams.MiB
PAGE: Final = 1000
PATIENCE_SECONDS: Final = 10.0
INSPECTING_SECONDS: Final = 60.0  # whoever has the index reads lexicon and graph of each dataset
SETTLE_SECONDS: Final = 5.0

M = TypeVar("M", bound=Message)
V = TypeVar("V")


class Unanswered(Exception):
    """A part could not be read, so nothing is known of it; the message says which, and why."""

    def __init__(self, part: str, reason: object) -> None:
        super().__init__(f"{part} could not be read: {reason}")
        self.part = part


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What a check came to."""

    violations: tuple[Violation, ...]
    jobs: int
    events: int


async def check(
    bus: Bus,
    *,
    settle_seconds: float = SETTLE_SECONDS,
    grace_seconds: float = invariants.GRACE_SECONDS,
    history: bool = True,
    index: bool = True,
) -> Findings:
    """What is wrong now and still is *settle_seconds* later. Unanswered.

    Where nothing is wrong there is no second look.
    """
    snapshot = await take_snapshot(bus, history=history, index=index)
    found = invariants.violations(snapshot, grace_seconds=grace_seconds)
    if found and settle_seconds > 0:
        await asyncio.sleep(settle_seconds)
        snapshot = await take_snapshot(bus, history=history, index=index)
        found = invariants.lasting(found, invariants.violations(snapshot, grace_seconds=grace_seconds))
    return Findings(violations=tuple(found), jobs=len(snapshot.jobs), events=snapshot.events)


def report(findings: Findings, *, as_json: bool) -> str:
    """*findings* for people, or for programs: each violation with its name, its facts and what to do."""
    found = findings.violations
    if as_json:
        told = [
            msgspec.to_builtins(each) | {"sentence": each.sentence(), "remedy": each.remedy} for each in found
        ]
        whole = {"violations": told, "jobs": findings.jobs, "events": findings.events}
        return msgspec.json.format(msgspec.json.encode(whole), indent=2).decode()
    looked = f"Jobs: {findings.jobs}. Events: {findings.events}."
    if not found:
        return f"Everything agrees. {looked}"
    lines = [f"Violations: {len(found)}. {looked}"]
    for each in found:
        lines.append(f"\n{name_of(each)}: {each.sentence()}\n  {each.remedy}")
    return "\n".join(lines)


async def take_snapshot(bus: Bus, *, history: bool = True, index: bool = True) -> Snapshot:
    """Everything as it is now, part by part; without *history* or *index*, that part is None. Unanswered.

    JOBS comes first, and what follows from its events later: a part is then rather ahead of them than behind.
    """
    jobs_info = await _info(bus, f"STREAM.INFO.{streams.JOBS}", streams.JOBS)
    queue_info = await _info(bus, f"STREAM.INFO.{streams.Q}", streams.Q)
    last_sequence = int(jobs_info["state"]["last_seq"])
    fold = Fold(whole=int(jobs_info["state"]["first_seq"]) <= 1)
    unreadable: list[Unreadable] = []
    await _fold_events(bus, fold, last_sequence, unreadable)
    ledger, older = await _ledger(bus, fold, unreadable)
    stored = await _index(bus) if index else None
    records = tuple([Record(dataset, at) async for dataset, at in _datasets(bus, unreadable)])
    return Snapshot(
        taken_at=datetime.fromisoformat(jobs_info["ts"]),
        jobs_created_at=datetime.fromisoformat(jobs_info["created"]),
        last_sequence=last_sequence,
        events=fold.events,
        jobs=fold.jobs | older,
        items=fold.items,
        ledger=ledger,
        queue=tuple(
            [
                Waiting(_token(each, 5), each.sequence, _at(each), stream)
                for stream in (streams.Q, streams.DOCS)
                async for each in _all(bus, stream)
            ]
        ),
        queue_max=int(queue_info["config"]["max_msgs"]),
        work=tuple(
            [
                HandedOut(_token(each, 2), _token(each, 3), each.sequence, _at(each))
                async for each in _all(bus, streams.WORK)
            ]
        ),
        later=await _later(bus),
        commands=await _commands(bus),
        claims=await _claims(bus, unreadable),
        workers=tuple([each async for _, each, _ in _entries(bus, streams.KV_WORKERS, Worker, unreadable)]),
        schedules=tuple(
            [each async for _, each, _ in _entries(bus, streams.KV_SCHEDULES, Schedule, unreadable)]
        ),
        index=stored,
        records=records,
        inspected=await _inspected(bus, records) if index else (),
        locked=await _locked(bus, unreadable),
        history=await _history(bus) if history else None,
        found=(*fold.found, *unreadable),
    )


async def _fold_events(bus: Bus, fold: Fold, through: int, unreadable: list[Unreadable]) -> None:
    async with aclosing(_all(bus, streams.JOBS)) as stored:
        async for each in stored:
            if each.sequence > through:
                return
            try:
                event: AnyEvent = decode(each.data, AnyEvent)
            except UnreadableMessage:
                unreadable.append(_unreadable(streams.JOBS, each))
                continue
            fold.take(event, sequence=each.sequence, at=_at(each), digest=_digest(each))


async def _ledger(
    bus: Bus, fold: Fold, unreadable: list[Unreadable]
) -> tuple[dict[str, str], dict[str, JobTrace]]:
    """The digest of each entry by its subject; and the jobs that JOBS has forgotten."""
    digests: dict[str, str] = {}
    older: dict[str, JobTrace] = {}
    async for each in _all(bus, streams.LEDGER):
        digests[each.subject] = _digest(each)
        if _token(each, 1) != "job" or _token(each, 3) in fold.jobs:
            continue
        try:
            event: AnyJobEvent = decode(each.data, AnyJobEvent)
        except UnreadableMessage:
            unreadable.append(_unreadable(streams.LEDGER, each))
            continue
        older[event.job.job_id] = trace_job(event.job, sequence=0, at=_at(each), digest=_digest(each))
    return digests, older


async def _later(bus: Bus) -> frozenset[Due]:
    """What SCHED will send, and what it has sent and nobody has acknowledged."""
    seen = await _acknowledged(bus, streams.SCHED, streams.SCHEDULER_DUE)
    found: set[Due] = set()
    async for each in _all(bus, streams.SCHED):
        if each.subject.startswith("sched.") or each.sequence > seen:
            with suppress(MalformedSubject):
                found.add(parse_due(f"due.{each.subject.partition('.')[2]}"))
    return frozenset(found)


async def _commands(bus: Bus) -> tuple[Asked, ...]:
    seen = await _acknowledged(bus, streams.CONTROL, streams.SCHEDULER_CONTROL)
    return tuple(
        [
            Asked(each.subject, each.sequence, _at(each))
            async for each in _all(bus, streams.CONTROL, after=seen)
        ]
    )


async def _claims(bus: Bus, unreadable: list[Unreadable]) -> tuple[Claim, ...]:
    """Those of jobs that may be waiting or running; what a gateway keeps under a job's own name is none."""
    return tuple(
        [
            Claim(key, active.command.job_id, at)
            async for key, active, at in _entries(bus, streams.KV_ACTIVE, ActiveJob, unreadable)
            if not key.endswith(f".{active.command.job_id}")
        ]
    )


async def _locked(bus: Bus, unreadable: list[Unreadable]) -> frozenset[str]:
    """The datasets that somebody holds; none on a bus that was never told of the bucket."""
    try:
        await bus.api(f"STREAM.INFO.KV_{streams.KV_LOCKS}")
    except NotFound:
        return frozenset()
    except BusError as error:
        raise Unanswered(streams.KV_LOCKS, error) from error
    return frozenset([key async for key, _, _ in _entries(bus, streams.KV_LOCKS, WriteLock, unreadable)])


async def _history(bus: Bus) -> History:
    """All pages. What changes meanwhile is newer than the first of them, and known by that."""
    jobs: dict[str, Told] = {}
    sequence: int | None = None
    cursor: int | None = None
    while True:
        page = await _ask(bus, "history", HISTORY, ListJobs(tenant=None, limit=PAGE, before=cursor), JobPage)
        sequence = page.sequence if sequence is None else sequence
        for view in page.jobs:
            jobs[view.job.job_id] = invariants.told(view.job, view.sequence, view.changed_at)
        if page.cursor is None:
            return History(sequence=sequence, jobs=jobs)
        cursor = page.cursor


async def _index(bus: Bus) -> tuple[StoredGeneration, ...]:
    return (await _ask(bus, "the index", STORE, DescribeStore(), StoreContents)).generations


async def _inspected(bus: Bus, records: Sequence[Record]) -> tuple[InspectedDataset, ...]:
    """What the index has of each dataset that is live."""
    found: list[InspectedDataset] = []
    for start in range(0, len(records), INSPECTED_MAX):
        asked = tuple(invariants.live_of(each) for each in records[start : start + INSPECTED_MAX])
        question = InspectDatasets(datasets=asked)
        told = await _ask(
            bus, "the index", STORE, question, InspectedDatasets, patience_seconds=INSPECTING_SECONDS
        )
        if tuple(each.live for each in told.datasets) != asked:
            raise Unanswered("the index", "the answer is of other datasets than were asked for")
        found += told.datasets
    return tuple(found)


async def _ask(
    bus: Bus,
    part: str,
    subject: str,
    question: Message,
    expected: type[M],
    *,
    patience_seconds: float = PATIENCE_SECONDS,
) -> M:
    try:
        return await ask(bus, subject, question, expected, timeout=patience_seconds)
    except (QuestionRefused, NobodyAnswers, BusError) as error:
        raise Unanswered(part, error) from error


async def _info(bus: Bus, subject: str, part: str) -> dict[str, Any]:
    try:
        return await bus.api(subject)
    except NotFound as error:
        raise Unanswered(part, f"{error}: run `pharos-bus apply`") from error
    except BusError as error:
        raise Unanswered(part, error) from error


async def _acknowledged(bus: Bus, stream: str, consumer: str) -> int:
    """Up to where the *consumer* of *stream* has acknowledged everything."""
    info = await _info(bus, f"CONSUMER.INFO.{stream}.{consumer}", f"{stream}/{consumer}")
    return int(info["ack_floor"]["stream_seq"])


async def _datasets(bus: Bus, unreadable: list[Unreadable]) -> AsyncIterator[tuple[Dataset, datetime]]:
    """The datasets that were not deleted."""
    entries: AsyncIterator[tuple[str, DatasetRecord, datetime]]
    entries = _entries(bus, streams.KV_DATASETS, DatasetRecord, unreadable)
    async for _, record, at in entries:
        if isinstance(record, Dataset):
            yield record, at


async def _entries(
    bus: Bus, bucket: str, value_type: type[V] | UnionType, unreadable: list[Unreadable]
) -> AsyncIterator[tuple[str, V, datetime]]:
    """Key, value and time of every entry of *bucket*."""
    stream = f"KV_{bucket}"
    async for each in _all(bus, stream):
        if "KV-Operation" in each.headers or "Nats-Marker-Reason" in each.headers:
            continue  # deleted, or expired
        try:
            value: V = decode(each.data, value_type)
        except UnreadableMessage:
            unreadable.append(_unreadable(stream, each))
            continue
        yield each.subject.removeprefix(f"$KV.{bucket}."), value, _at(each)


async def _all(bus: Bus, stream: str, *, after: int = 0) -> AsyncGenerator[Stored, None]:
    """Every message that *stream* holds behind sequence *after*, in order. Unanswered."""
    seen = after
    while True:
        inbox = bus.client.new_inbox()
        request = {"batch": BATCH, "max_bytes": BATCH_BYTES, "next_by_subj": ">", "seq": seen + 1}
        try:
            subscription = await bus.client.subscribe(inbox)
            try:
                await bus.client.publish(
                    f"$JS.API.DIRECT.GET.{stream}", json.dumps(request).encode(), reply=inbox
                )
                before = 0  # the server says behind which one each message came
                while True:
                    message = await subscription.next_msg(timeout=PATIENCE_SECONDS)
                    headers: Mapping[str, str] = message.headers or {}
                    status = headers.get("Status")
                    if status is not None:
                        break
                    if int(headers["Nats-Last-Sequence"]) != before:
                        raise Unanswered(stream, "a message was lost on the way")
                    seen = before = int(headers["Nats-Sequence"])
                    yield Stored(headers["Nats-Subject"], message.data, seen, dict(headers))
            finally:
                await subscription.unsubscribe()
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise Unanswered(stream, repr(error)) from error
        if status == "404" or (status == "204" and headers.get("Nats-Num-Pending") == "0"):
            return
        if status != "204":
            raise Unanswered(stream, f"the server answers with status {status}")


def _token(stored: Stored, number: int) -> str:
    """One part of the subject, counted from 0."""
    return stored.subject.split(".")[number]


def _at(stored: Stored) -> datetime:
    return datetime.fromisoformat(stored.headers["Nats-Time-Stamp"])


def _digest(stored: Stored) -> str:
    return blake2b(stored.data, digest_size=16).hexdigest()


def _unreadable(stream: str, stored: Stored) -> Unreadable:
    return Unreadable(stream=stream, sequence=stored.sequence, subject=stored.subject)
