"""A job in the words of the native API. Pure."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

import msgspec

from pharos_contracts.batches.v1 import BatchPart, Tally
from pharos_contracts.control.v1 import Place
from pharos_contracts.history.v1 import JobLog, LogEntry
from pharos_contracts.jobs.v1 import (
    DocumentSource,
    IndexResult,
    Job,
    JobKind,
    Priority,
    Progress,
    RepositorySource,
    Scope,
    Stage,
    Trigger,
)
from pharos_contracts.lifecycle import TERMINAL, JobState


class JobProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a running job is; ``percent`` never falls within an attempt."""

    stage: Stage
    percent: float
    done: int
    total: int
    current_file: str | None
    eta_seconds: float | None
    detail: str | None
    at: datetime


class BatchInBrief(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch is of: how many files of which connections."""

    name: str
    parts: tuple[BatchPart, ...]


class BatchTally(msgspec.Struct, frozen=True, kw_only=True):
    """How many of the files of a batch have ended, and how."""

    total: int
    completed: int
    failed: int
    skipped: int


def tally_of(job: Job) -> BatchTally | None:
    """None of what is no batch."""
    if job.batch is None:
        return None
    tally = job.tally or Tally(parts=())
    return BatchTally(
        total=job.batch.files, completed=tally.completed, failed=tally.failed, skipped=tally.skipped
    )


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """A job as it is now, of a repository (``source``), of a document or of a batch.

    ``job_id`` is a UUID, ``number`` what the queue of repositories gave it, 0 for anything else. ``tally``
    counts the files of a batch that have ended; ``/batch/jobs/{job_id}`` shows them.

    ``queue_position`` is told of one queued job at a time, not in lists: 1 is the next one, 0 is being handed
    out, None is not known since no scheduler answers. ``estimated_start_at`` comes with it, unless nobody can
    tell. ``controlled_by`` is who last paused, resumed, cancelled or retried it.
    """

    job_id: str
    number: int
    state: JobState
    kind: JobKind
    tenant: str
    source: RepositorySource | None
    document: DocumentSource | None
    batch: BatchInBrief | None
    tally: BatchTally | None
    project: str
    dataset: str | None
    scope: Scope
    priority: Priority
    trigger: Trigger
    force: bool
    submitted_at: datetime
    submitted_by: str
    started_at: datetime | None
    ended_at: datetime | None
    paused_at: datetime | None
    controlled_by: str | None
    next_attempt_at: datetime | None
    queue_position: int | None
    estimated_start_at: datetime | None
    attempt: int
    max_attempts: int
    worker: str | None
    error: str | None
    code: str | None
    reason: str | None
    age_seconds: int | None
    result: IndexResult | None
    progress: JobProgress | None
    waiting_for_worker: bool


class JobList(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs, newest first; ``cursor`` continues, None ends."""

    jobs: tuple[JobView, ...]
    cursor: int | None


class JobLogLine(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to a job; ``level`` is ``info`` or ``error``."""

    at: datetime
    level: str
    text: str


class JobLogView(msgspec.Struct, frozen=True, kw_only=True):
    """Oldest first; ``cursor`` continues, None ends."""

    job_id: str
    lines: tuple[JobLogLine, ...]
    cursor: int | None


def log_view(job: Job, log: JobLog) -> JobLogView:
    """The *log* of *job* in the words of the native API."""
    lines = (JobLogLine(at=entry.at, level=level(entry), text=entry.text) for entry in log.entries)
    return JobLogView(job_id=job.job_id, lines=tuple(lines), cursor=log.cursor)


def level(entry: LogEntry) -> str:
    """How bad it is what *entry* tells: ``info`` or ``error``."""
    return "error" if entry.event.endswith(".failed") else "info"


def view(
    job: Job, progress: Progress | None, *, workers: Collection[str] | None, place: Place | None = None
) -> JobView:
    """*job* with its latest *progress*, which counts only while it runs and for this attempt.

    *workers* are the names of those that live, None where that is not looked at; *place* counts only while
    it is queued.
    """
    current = current_progress(job, progress)
    queued = job.state is JobState.QUEUED
    return JobView(
        job_id=job.job_id,
        number=job.number,
        state=job.state,
        kind=job.kind,
        tenant=job.tenant,
        source=job.source,
        document=job.document,
        batch=None if job.batch is None else BatchInBrief(name=job.batch.name, parts=job.batch.parts),
        tally=tally_of(job),
        project=job.project,
        dataset=job.dataset,
        scope=job.scope,
        priority=job.priority,
        trigger=job.trigger,
        force=job.force,
        submitted_at=job.submitted_at,
        submitted_by=job.submitted_by,
        started_at=job.started_at,
        ended_at=job.ended_at,
        paused_at=job.paused_at,
        controlled_by=job.controlled_by,
        next_attempt_at=job.next_attempt_at,
        queue_position=place.position if queued and place is not None else None,
        estimated_start_at=place.estimated_start_at if queued and place is not None else None,
        attempt=job.attempt,
        max_attempts=job.max_attempts,
        worker=job.worker,
        error=job.error,
        code=job.code,
        reason=job.reason,
        age_seconds=job.age_seconds,
        result=job.result,
        progress=None if current is None else _progress(current),
        waiting_for_worker=workers is not None and _waits(job, workers),
    )


def _waits(job: Job, workers: Collection[str]) -> bool:
    """Whether nobody alive works on *job* although it is due: none lives, or the one that had it died."""
    match job.state:
        case JobState.QUEUED:
            return not workers
        case JobState.RUNNING | JobState.COMMITTING if job.batch is not None:
            return not workers  # its files may be with any of them
        case JobState.RUNNING | JobState.COMMITTING:
            return job.worker not in workers
        case _:
            return False


def current_progress(job: Job, progress: Progress | None) -> Progress | None:
    """*progress* where it still says something of *job*: it is open, begun, and in that attempt.

    Of a batch it never does: it is about one of its files.
    """
    if progress is None or job.batch is not None or job.state in TERMINAL or job.state is JobState.QUEUED:
        return None
    return progress if progress.attempt >= job.attempt else None


def _progress(progress: Progress) -> JobProgress:
    return JobProgress(
        stage=progress.stage,
        percent=progress.percent,
        done=progress.done,
        total=progress.total,
        current_file=progress.current_file,
        eta_seconds=progress.eta_seconds,
        detail=progress.detail,
        at=progress.at,
    )
