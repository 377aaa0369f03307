"""What always holds, checked over one snapshot of everything that Pharos keeps. Pure.

A snapshot is read part by part while the world moves on, so that on its own it may show what never was at one
moment. Two things keep that apart from what is wrong: whatever changed less than ``grace_seconds`` ago is
left alone, and who reads twice, some seconds apart, believes only what is wrong both times (``lasting``).
Times are the server's, so that no other clock is believed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec

from pharos_contracts.control.v1 import GraphState, InspectedDataset, LiveGeneration, StoredGeneration
from pharos_contracts.datasets.v1 import Dataset, IndexStage
from pharos_contracts.identity import dataset_key
from pharos_contracts.jobs.v1 import Job
from pharos_contracts.lifecycle import JobState
from pharos_contracts.schedules.v1 import Schedule
from pharos_contracts.streams import WORK, Q
from pharos_contracts.subjects import ITEM_CLEAR, POOLS, Due, DueKind, active_key
from pharos_contracts.tracing import ItemTrace, JobTrace, Lane, cut
from pharos_contracts.violations import (
    ClaimLeft,
    ClaimWithoutJob,
    ClearedWhileRunning,
    CommandIgnored,
    DatasetDiffers,
    EntryWithoutLedger,
    FactWithoutJob,
    GenerationWentBack,
    HeldForNothing,
    HeldTwice,
    HistoryBehind,
    HistoryDiffers,
    HistoryInvents,
    HistoryLacks,
    LedgerDiffers,
    NoNextRun,
    NotHandedOut,
    OpenWithoutClaim,
    Ownerless,
    PointsLeft,
    PointsNotSwept,
    QueueOverCap,
    RecordWithoutPoints,
    ShownByEndedJob,
    StaleQueueEntry,
    StaleWorkItem,
    Violation,
)
from pharos_contracts.workers.v1 import Worker, WorkerState, slots_of

# Longer than what a dead process had in hand takes to come back to another one (30 s at most).
GRACE_SECONDS: Final = 45.0
# History forgets ended jobs after some days, at least one: until then it must know them.
REMEMBERED: Final = timedelta(days=1)
# Twice what the store is swept after: half an hour, once the generation has been live for ten minutes.
SWEPT_AFTER: Final = timedelta(minutes=80)

_WORKING: Final = frozenset({JobState.RUNNING, JobState.COMMITTING})
_UNDONE: Final = frozenset({JobState.CANCELLED, JobState.FAILED, JobState.SKIPPED})


class Waiting(msgspec.Struct, frozen=True):
    """A command in Q, or in DOCS."""

    job_id: str
    sequence: int
    at: datetime
    stream: str = Q


class HandedOut(msgspec.Struct, frozen=True):
    """An item in WORK."""

    job_id: str
    item_id: str
    sequence: int
    at: datetime


class Asked(msgspec.Struct, frozen=True):
    """A command on CONTROL that its consumer has not acknowledged."""

    subject: str
    sequence: int
    at: datetime


class Claim(msgspec.Struct, frozen=True):
    """An entry of the bucket ``active``."""

    key: str
    job_id: str
    at: datetime


class Record(msgspec.Struct, frozen=True):
    """An entry of the bucket ``datasets``."""

    dataset: Dataset
    at: datetime


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A job as history tells it, in a few words; ``sequence`` is that of the last event that it has seen."""

    state: JobState
    attempt: int
    number: int
    error: str | None
    has_result: bool
    sequence: int
    changed_at: datetime


class History(msgspec.Struct, frozen=True, kw_only=True):
    """What history tells, and how far it has read JOBS."""

    sequence: int
    jobs: Mapping[str, Told] = {}


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that Pharos keeps, in a few words.

    ``jobs`` and ``items`` are as their last events on JOBS tell them, and as the ledger does where JOBS has
    forgotten them; ``found`` is what must not be in the order of the events. ``ledger`` maps a subject to the
    digest of its last event. ``later`` is what SCHED will send or has sent to nobody yet. ``history`` and
    ``index`` are None where they were not asked. ``inspected`` is what the index has of each of ``records``,
    and ``locked`` are the keys of the datasets that somebody is writing to.
    """

    taken_at: datetime
    jobs_created_at: datetime
    last_sequence: int = 0
    events: int = 0
    jobs: Mapping[str, JobTrace] = {}
    items: Mapping[tuple[str, str], ItemTrace] = {}
    found: tuple[Violation, ...] = ()
    ledger: Mapping[str, str] = {}
    queue: tuple[Waiting, ...] = ()
    queue_max: int
    work: tuple[HandedOut, ...] = ()
    commands: tuple[Asked, ...] = ()
    later: frozenset[Due] = frozenset()
    claims: tuple[Claim, ...] = ()
    records: tuple[Record, ...] = ()
    workers: tuple[Worker, ...] = ()
    schedules: tuple[Schedule, ...] = ()
    history: History | None = None
    index: tuple[StoredGeneration, ...] | None = None
    inspected: tuple[InspectedDataset, ...] = ()
    locked: frozenset[str] = frozenset()


def live_of(record: Record) -> LiveGeneration:
    """What *record* says is live."""
    shown = record.dataset
    return LiveGeneration(shown.tenant, shown.project, shown.dataset, shown.generation)


def told(job: Job, sequence: int, changed_at: datetime) -> Told:
    """What history says of *job*, in a few words."""
    return Told(
        state=job.state,
        attempt=job.attempt,
        number=job.number,
        error=cut(job.error),
        has_result=job.result is not None,
        sequence=sequence,
        changed_at=changed_at,
    )


def violations(snapshot: Snapshot, *, grace_seconds: float = GRACE_SECONDS) -> list[Violation]:
    """Everything in *snapshot* that must not be, what changed less than *grace_seconds* ago left alone."""
    view = _View(snapshot, grace_seconds)
    return [
        *snapshot.found,
        *_facts_without_job(view),
        *_owners(view),
        *_workers(view),
        *_queue(view),
        *_work(view),
        *_commands(view),
        *_schedules(view),
        *_claims(view),
        *_ledger(view),
        *_history(view),
        *_index(view),
    ]


def lasting(first: Iterable[Violation], second: Iterable[Violation]) -> list[Violation]:
    """What of *second* was wrong in *first* already."""
    before = {violation.identity() for violation in first}
    return [violation for violation in second if violation.identity() in before]


class _View:
    """A snapshot with what the rules look up in it."""

    def __init__(self, snapshot: Snapshot, grace_seconds: float) -> None:
        self.snapshot = snapshot
        self._before = snapshot.taken_at - timedelta(seconds=grace_seconds)
        self.work: dict[str, list[HandedOut]] = {}
        for item in snapshot.work:
            self.work.setdefault(item.job_id, []).append(item)
        self.holders: dict[str, list[str]] = {}
        for worker in snapshot.workers:
            for job_id in dict.fromkeys(name.partition(".")[0] for name in worker.job_ids):
                self.holders.setdefault(job_id, []).append(worker.name)
        self.last_fact_at: dict[str, datetime] = {}
        for trace in snapshot.items.values():
            known = self.last_fact_at.get(trace.job_id, trace.at)
            self.last_fact_at[trace.job_id] = max(known, trace.at)

    def is_old(self, *times: datetime) -> bool:
        """Whether nothing has changed for as long as the grace."""
        return all(time <= self._before for time in times)

    def has_rested(self, job: JobTrace) -> bool:
        """Whether nothing was said of *job* for as long as the grace."""
        return self.is_old(job.at, self.last_fact_at.get(job.job_id, job.at))

    def is_cleared(self, job_id: str) -> bool:
        """Whether an item that removes what the job left is with the workers."""
        return any(item.item_id == ITEM_CLEAR for item in self.work.get(job_id, ()))

    def is_handed_out(self, job_id: str) -> bool:
        return any(item.item_id != ITEM_CLEAR for item in self.work.get(job_id, ()))


def _facts_without_job(view: _View) -> Iterator[Violation]:
    for (job_id, item_id), item in view.snapshot.items.items():
        if job_id not in view.snapshot.jobs and view.is_old(item.at):
            yield FactWithoutJob(job_id=job_id, item_id=item_id, sequence=item.sequence)


def _owners(view: _View) -> Iterator[Violation]:
    """Every open job has somebody who goes on with it: its owner, a worker, the scheduler, or the time."""
    snapshot = view.snapshot
    queued = {entry.job_id for entry in snapshot.queue}
    free = {pool for pool in POOLS if _has_free_slot(view, pool)}
    taken = _taken_lanes(view)
    for job in snapshot.jobs.values():
        if not job.is_open or not view.has_rested(job):
            continue
        match job.state:
            case _ if job.is_batch:
                owned = True  # the leader has it in hand, and its files are items of many workers
            case JobState.QUEUED:
                known = job.subject in snapshot.ledger
                owned = known or job.job_id in queued or view.is_handed_out(job.job_id)
            case JobState.RUNNING | JobState.COMMITTING:
                owned = job.job_id in view.holders or view.is_handed_out(job.job_id)
            case JobState.RETRYING:
                comes = job.next_attempt_at is not None and not view.is_old(job.next_attempt_at)
                owned = comes or Due(DueKind.RETRY, job.tenant, job.job_id) in snapshot.later
            case _:  # pending and paused jobs are their owner's
                owned = True
        if not owned:
            yield Ownerless(job_id=job.job_id, state=job.state, sequence=job.sequence)
        elif job.state is JobState.QUEUED and not job.is_batch and job.pool in free and job.lane not in taken:
            yield NotHandedOut(job_id=job.job_id, sequence=job.sequence)


def _has_free_slot(view: _View, pool: str) -> bool:
    """Whether a slot of *pool* has been free for as long as the grace."""
    taking = [worker for worker in view.snapshot.workers if worker.state is not WorkerState.DRAINING]
    if not any(not worker.job_ids and view.is_old(worker.since) for worker in taking):
        return False
    jobs = view.snapshot.jobs
    taken = sum(job_id not in jobs or jobs[job_id].pool == pool for job_id in view.work)
    return sum(slots_of(worker, pool) for worker in taking) > taken


def _taken_lanes(view: _View) -> set[Lane]:
    """The lanes of what is with workers."""
    snapshot = view.snapshot
    return {job.lane for job in snapshot.jobs.values() if job.state in _WORKING or job.job_id in view.work}


def _workers(view: _View) -> Iterator[Violation]:
    jobs = view.snapshot.jobs
    for job_id, names in view.holders.items():
        if view.is_cleared(job_id):
            continue  # whoever clears it away says that it has the job, too
        job = jobs.get(job_id)
        if len(names) > 1 and not (job is not None and job.is_batch):
            yield HeldTwice(job_id=job_id, workers=tuple(sorted(names)))
        if job is not None and view.has_rested(job) and not (job.is_open and _may_be_held(job)):
            for name in names:
                yield HeldForNothing(job_id=job_id, worker=name, state=job.state)


def _may_be_held(job: JobTrace) -> bool:
    """Whether a worker may have the open *job*; a worker tells of a start before the scheduler does."""
    # When a batch is paused, the files in flight are finished.
    finishing = job.is_batch and job.state is JobState.PAUSED
    return job.state in _WORKING or job.state is JobState.QUEUED or finishing


def _queue(view: _View) -> Iterator[Violation]:
    snapshot = view.snapshot
    pending = sum(entry.stream == Q for entry in snapshot.queue)
    if pending > snapshot.queue_max:
        yield QueueOverCap(pending=pending, cap=snapshot.queue_max)
    for entry in snapshot.queue:
        job = snapshot.jobs.get(entry.job_id)
        if job is None:
            if view.is_old(entry.at):
                yield EntryWithoutLedger(stream=entry.stream, sequence=entry.sequence, job_id=entry.job_id)
        elif job.state is not JobState.QUEUED and view.is_old(entry.at, job.at):
            yield StaleQueueEntry(
                stream=entry.stream, sequence=entry.sequence, job_id=job.job_id, state=job.state
            )


def _work(view: _View) -> Iterator[Violation]:
    for item in view.snapshot.work:
        job = view.snapshot.jobs.get(item.job_id)
        if job is None:
            if view.is_old(item.at):
                yield EntryWithoutLedger(stream=WORK, sequence=item.sequence, job_id=item.job_id)
        elif not view.is_old(item.at) or not view.has_rested(job):
            continue
        elif item.item_id == ITEM_CLEAR:
            if job.state in _WORKING:
                yield ClearedWhileRunning(sequence=item.sequence, job_id=job.job_id)
        elif not (job.is_open and _may_be_held(job)):
            yield StaleWorkItem(
                sequence=item.sequence, job_id=job.job_id, item_id=item.item_id, state=job.state
            )


def _commands(view: _View) -> Iterator[Violation]:
    for command in view.snapshot.commands:
        if view.is_old(command.at):
            yield CommandIgnored(sequence=command.sequence, subject=command.subject)


def _schedules(view: _View) -> Iterator[Violation]:
    for schedule in view.snapshot.schedules:
        due = schedule.next_run_at
        waits = Due(DueKind.CRON, schedule.tenant, schedule.schedule_id) in view.snapshot.later
        if due is not None and view.is_old(due) and not waits:
            yield NoNextRun(schedule_id=schedule.schedule_id)


def _claims(view: _View) -> Iterator[Violation]:
    snapshot = view.snapshot
    waiting = {entry.job_id for entry in snapshot.queue}
    holders = {claim.key: claim.job_id for claim in snapshot.claims}
    for claim in snapshot.claims:
        job = snapshot.jobs.get(claim.job_id)
        if job is None:
            if claim.job_id not in waiting and view.is_old(claim.at):
                yield ClaimWithoutJob(key=claim.key, job_id=claim.job_id)
        elif not job.is_open and view.is_old(claim.at, job.at):
            yield ClaimLeft(key=claim.key, job_id=job.job_id, state=job.state)
    for job in snapshot.jobs.values():
        key = active_key(job.tenant, job.key)
        if job.is_open and not job.is_batch and holders.get(key) != job.job_id and view.is_old(job.at):
            yield OpenWithoutClaim(job_id=job.job_id, key=key, holder=holders.get(key))


def _ledger(view: _View) -> Iterator[Violation]:
    ledger = view.snapshot.ledger
    traces: Iterable[JobTrace | ItemTrace] = (*view.snapshot.jobs.values(), *view.snapshot.items.values())
    for trace in traces:
        if trace.sequence and ledger.get(trace.subject) != trace.digest and view.is_old(trace.at):
            yield LedgerDiffers(
                subject=trace.subject,
                job_id=trace.job_id,
                sequence=trace.sequence,
                missing=trace.subject not in ledger,
            )


def _history(view: _View) -> Iterator[Violation]:
    """History is compared as far as it has read; how far that is, is judged by itself."""
    snapshot, history = view.snapshot, view.snapshot.history
    if history is None:
        return
    unread = [trace for trace in snapshot.jobs.values() if trace.sequence > history.sequence]
    if any(view.is_old(job.at) for job in unread):
        yield HistoryBehind(sequence=history.sequence, last=snapshot.last_sequence)
    forgotten_before = _forgotten_before(snapshot, history)
    for job in snapshot.jobs.values():
        if job.sequence > history.sequence:
            continue
        known = history.jobs.get(job.job_id)
        if known is None:
            if view.is_old(job.at) and (job.is_open or job.at > forgotten_before):
                yield HistoryLacks(job_id=job.job_id, sequence=job.sequence)
        elif known.sequence <= snapshot.last_sequence and (fields := _different(job, known)):
            yield HistoryDiffers(job_id=job.job_id, sequence=job.sequence, fields=fields)
    for job_id, known in history.jobs.items():
        if job_id in snapshot.jobs or known.sequence > snapshot.last_sequence:
            continue
        # What is older than the stream was told by the one before it, which is gone.
        if known.changed_at > snapshot.jobs_created_at:
            yield HistoryInvents(job_id=job_id)


def _forgotten_before(snapshot: Snapshot, history: History) -> datetime:
    """A job that ended before this may have been forgotten by history, as it forgets the oldest first."""
    recently = snapshot.taken_at - REMEMBERED
    ended = [job.changed_at for job in history.jobs.values() if _has_ended(job)]
    return min([recently, *ended])


def _has_ended(job: Told) -> bool:
    return job.state in _UNDONE or job.state is JobState.COMPLETED


def _different(job: JobTrace, known: Told) -> tuple[str, ...]:
    """In what *job* and what history knows of it differ."""
    pairs: Sequence[tuple[str, object, object]] = (
        ("sequence", job.sequence or known.sequence, known.sequence),
        ("state", job.state, known.state),
        ("attempt", job.attempt, known.attempt),
        ("number", job.number, known.number),
        ("error", job.error, known.error),
        ("result", job.published is not None, known.has_result),
    )
    return tuple(name for name, ours, theirs in pairs if ours != theirs)


DatasetName = tuple[str, str, str]


def _index(view: _View) -> Iterator[Violation]:
    snapshot = view.snapshot
    published = _published(snapshot)
    for record in snapshot.records:
        yield from _shown_by_ended_job(view, record)
        yield from _went_back(view, record, published)
    if snapshot.index is None:
        return
    inspected = {each.live: each for each in snapshot.inspected}
    for record in snapshot.records:
        found = inspected.get(live_of(record))
        if not view.is_old(record.at) or found is None:
            continue
        yield from _differs(record.dataset, found)
        yield from _not_swept(view, record.dataset, found)
    live = {_name(record.dataset): record.dataset.generation for record in snapshot.records}
    for stored in snapshot.index:
        # What is not above the live generation is seen, or retired: it was counted above.
        if stored.generation > live.get(_name(stored), 0) and stored.points + stored.others > 0:
            yield from _points_left(view, stored)


def _name(of: Dataset | StoredGeneration) -> DatasetName:
    return of.tenant, of.project, of.dataset


def _shown_by_ended_job(view: _View, record: Record) -> Iterator[Violation]:
    live = record.dataset
    job = view.snapshot.jobs.get(live.job_id)
    if job is not None and job.is_batch:
        return  # the files that it published stay, however it ended
    if job is not None and job.state in _UNDONE and view.has_rested(job) and not view.is_cleared(job.job_id):
        yield ShownByEndedJob(
            tenant=live.tenant,
            project=live.project,
            dataset=live.dataset,
            stage=live.stage,
            job_id=job.job_id,
            state=job.state,
        )


def _differs(live: Dataset, found: InspectedDataset) -> Iterator[Violation]:
    if live.files > 0 and found.chunks + found.files == 0:
        yield RecordWithoutPoints(
            tenant=live.tenant,
            project=live.project,
            dataset=live.dataset,
            generation=live.generation,
            files=live.files,
        )
    elif differing := tuple(differences(live, found)):
        yield DatasetDiffers(
            tenant=live.tenant,
            project=live.project,
            dataset=live.dataset,
            generation=live.generation,
            differences=differing,
        )


def differences(live: Dataset, found: InspectedDataset) -> Iterator[str]:
    """In what a dataset is not what its record says. Documents are no files, and have no graph.

    Of a first index that has no vectors yet, files and graph are being stored under its readers.
    """
    if found.chunks != live.chunks:
        yield f"it has {found.chunks} chunks, not {live.chunks}"
    if found.without_vector and live.stage is IndexStage.FULL:
        yield f"{found.without_vector} chunks have no vector"
    if found.documents is None:
        yield "a part of its lexicon is missing"
    elif found.documents != found.chunks:
        yield f"its lexicon is of {found.documents} chunks"
    if found.lexicon_unused:
        yield f"{found.lexicon_unused} pieces belong to no lexicon"
    if live.stage is not IndexStage.FULL:
        return
    if found.graph is GraphState.BROKEN:
        yield "a part of its graph is missing"
    if live.repository:
        if found.files != live.files:
            yield f"it has {found.files} files, not {live.files}"
        if found.graph is GraphState.NONE:
            yield "it has no graph"
        elif found.graph is GraphState.WHOLE and found.graph_files != found.files:
            yield f"its graph is of {found.graph_files} files"


def _not_swept(view: _View, live: Dataset, found: InspectedDataset) -> Iterator[Violation]:
    if found.retired and live.published_at <= view.snapshot.taken_at - SWEPT_AFTER:
        yield PointsNotSwept(
            tenant=live.tenant,
            project=live.project,
            dataset=live.dataset,
            generation=live.generation,
            points=found.retired,
        )


def _went_back(view: _View, record: Record, published: Mapping[DatasetName, set[int]]) -> Iterator[Violation]:
    live = record.dataset
    newest = max(published.get(_name(live), {0}))
    if newest > live.generation and view.is_old(record.at):
        yield GenerationWentBack(
            tenant=live.tenant,
            project=live.project,
            dataset=live.dataset,
            generation=live.generation,
            published=newest,
        )


def _published(snapshot: Snapshot) -> dict[DatasetName, set[int]]:
    """The generations of each dataset that jobs have published."""
    found: dict[DatasetName, set[int]] = {}
    for job in snapshot.jobs.values():
        if job.published is not None and job.state is JobState.COMPLETED:
            dataset, generation = job.published
            found.setdefault((job.tenant, job.project, dataset), set()).add(generation)
    return found


def _points_left(view: _View, stored: StoredGeneration) -> Iterator[Violation]:
    if dataset_key(*_name(stored)) in view.snapshot.locked:
        return  # somebody writes to it, as a restore does, which is no job
    last: JobTrace | None = None
    for job in view.snapshot.jobs.values():
        if not _writes(job, stored):
            continue
        if job.is_open or not view.has_rested(job) or job.job_id in view.work:
            return  # what it makes is not published yet, or is about to be removed
        if last is None or job.at > last.at:
            last = job
    yield PointsLeft(
        tenant=stored.tenant,
        project=stored.project,
        dataset=stored.dataset,
        generation=stored.generation,
        points=stored.points + stored.others,
        job_id=None if last is None else last.job_id,
        state=None if last is None else last.state,
    )


def _writes(job: JobTrace, stored: StoredGeneration) -> bool:
    """Whether *stored* may be of *job*, which writes the dataset that it names, or one of its repository."""
    if (job.tenant, job.project) != (stored.tenant, stored.project):
        return False
    if job.dataset is not None:
        return job.dataset == stored.dataset
    return stored.dataset.startswith(f"{job.repository}@")
