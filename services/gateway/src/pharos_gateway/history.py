"""Jobs in the words of the ingestion API's history. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from pharos_contracts.jobs.v1 import Job, Progress
from pharos_contracts.lifecycle import JobState

STATUS: Final[Mapping[JobState, str]] = {
    JobState.PENDING: "queued",
    JobState.QUEUED: "queued",
    JobState.RUNNING: "running",
    JobState.COMMITTING: "running",
    JobState.PAUSED: "paused",
    JobState.RETRYING: "retrying",
    JobState.COMPLETED: "complete",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
    JobState.SKIPPED: "skipped",
}


class HistoryRow(msgspec.Struct, frozen=True, kw_only=True):
    """One job. ``job_id`` is its number; which of the further fields there are depends on ``status``."""

    job_id: int
    repo_url: str
    status: str
    timestamp: datetime
    id: str
    duration_seconds: float | UnsetType = UNSET
    files_processed: int | UnsetType = UNSET
    embeddings_generated: int | UnsetType = UNSET
    progress: float | UnsetType = UNSET
    stage: str | UnsetType = UNSET
    attempt: int | UnsetType = UNSET
    error: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    age_seconds: int | UnsetType = UNSET


class HistoryPage(msgspec.Struct, frozen=True, kw_only=True):
    """Newest first."""

    jobs: tuple[HistoryRow, ...]


def row(job: Job, progress: Progress | None = None) -> HistoryRow:
    """*job* as the history shows it."""
    ended = job.ended_at or job.started_at or job.submitted_at
    base = HistoryRow(
        job_id=job.number,
        repo_url=job.identity,
        status=STATUS[job.state],
        timestamp=ended,
        id=job.job_id,
    )
    match job.state:
        case JobState.COMPLETED:
            result = job.result
            return msgspec.structs.replace(
                base,
                duration_seconds=_seconds(job.started_at or job.submitted_at, ended),
                files_processed=result.files_processed if result else 0,
                embeddings_generated=result.embeddings_generated if result else 0,
            )
        case JobState.FAILED:
            return msgspec.structs.replace(base, error=job.error or "unknown", attempt=job.attempt)
        case JobState.SKIPPED:
            age = job.age_seconds
            return msgspec.structs.replace(
                base,
                reason=job.reason or "unknown",
                age_seconds=age if age is not None else int(_seconds(job.submitted_at, ended)),
            )
        case JobState.RUNNING | JobState.COMMITTING:
            return msgspec.structs.replace(
                base,
                progress=round(progress.percent, 1) if progress else 0.0,
                stage=progress.stage.value if progress else UNSET,
                attempt=job.attempt,
            )
        case JobState.RETRYING:
            return msgspec.structs.replace(
                base, attempt=job.attempt, error=job.error if job.error is not None else UNSET
            )
        case _:
            return base


def _seconds(start: datetime, end: datetime) -> float:
    return max(0.0, round((end - start).total_seconds(), 3))


def merged(known: Iterable[Job], waiting: Iterable[Job], limit: int) -> tuple[Job, ...]:
    """At most *limit* jobs, newest first; what history knows of a job wins over what the queue says."""
    jobs = {job.job_id: job for job in waiting}
    jobs.update((job.job_id, job) for job in known)
    newest_first = sorted(jobs.values(), key=lambda job: (job.submitted_at, job.number), reverse=True)
    return tuple(newest_first[:limit])
