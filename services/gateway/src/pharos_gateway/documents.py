"""Documents in the words of ``/knowledge`` and ``/ops/jobs``: the shapes, and what a job reads like. Pure.

This family has ways of its own: times without a zone, four states, and what did not end well has failed.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import replace

from pharos_contracts.identity import PROJECT_DEFAULT
from pharos_contracts.jobs.v1 import DocumentSource, IndexResult, Job, JobKind, Priority
from pharos_contracts.lifecycle import JobState
from pharos_gateway.scheduling import NO_CONTROLS
from pharos_gateway.submitting import Submitted

SOURCE_DEFAULT: Final = "default"
SOURCE_LENGTH_MAX: Final = 255
TIME: Final = "%Y-%m-%d %H:%M:%S"

STATUS: Final[Mapping[JobState, str]] = {
    JobState.PENDING: "queued",
    JobState.QUEUED: "queued",
    JobState.PAUSED: "queued",
    JobState.RUNNING: "started",
    JobState.COMMITTING: "started",
    JobState.RETRYING: "started",
    JobState.COMPLETED: "finished",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "failed",
    JobState.SKIPPED: "failed",
}

Source = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=SOURCE_LENGTH_MAX,
        pattern=NO_CONTROLS,
        description="Where it comes from: documents of one source are one dataset, `documents/<source>`. "
        "`resources` is for `/resources`.",
    ),
]
_CallbackUrl = Annotated[str, Meta(description="Where to POST when the job has ended.")]


class DocumentRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all documents may be given; beside a file, as fields of the form or in the query."""

    source: Source = SOURCE_DEFAULT
    project: str = PROJECT_DEFAULT
    priority: Priority = Priority.NORMAL
    callback_url: _CallbackUrl | None = None


class TextRequest(DocumentRequest, frozen=True, kw_only=True):
    """A text to make searchable. With an Idempotency-Key, the text of the next day with it replaces it."""

    text: str


class UrlRequest(DocumentRequest, frozen=True, kw_only=True):
    """A page, or another document on the web, to fetch and make searchable."""

    url: Annotated[str, Meta(description="https, public, no credentials; at most 2,048 characters.")]


class DocumentQueued(msgspec.Struct, frozen=True, kw_only=True):
    """A document waits to be read. ``deduplicated``: an earlier job for the same does that already."""

    ok: bool = True
    job_id: str
    queued: bool = True
    type: str
    tenant: str
    source: str
    url: str | UnsetType = UNSET
    filename: str | UnsetType = UNSET
    deduplicated: bool = False


class DocumentResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the document. ``lang`` is its natural language (ISO 639-1), where that could be told."""

    ok: bool = True
    ingested_chunks: int
    tenant: str
    source: str
    latency_ms: float
    title: str | UnsetType = UNSET
    lang: str | UnsetType = UNSET
    filename: str | UnsetType = UNSET
    url: str | UnsetType = UNSET


class DocumentJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job. ``result`` comes with ``finished``, ``error`` with ``failed``; times are UTC."""

    id: str
    status: str
    enqueued_at: str
    started_at: str | None
    ended_at: str | None
    result: DocumentResult | UnsetType = UNSET
    error: str | UnsetType = UNSET


def queued(
    submitted: Submitted,
    *,
    kind: JobKind,
    tenant: str,
    source: str,
    url: str | None = None,
    filename: str | None = None,
) -> DocumentQueued:
    """The answer to a submit."""
    return DocumentQueued(
        job_id=submitted.id,
        type=kind.value,
        tenant=tenant,
        source=source,
        url=_told(url),
        filename=_told(filename),
        deduplicated=submitted.deduplicated,
    )


def as_first(answer: DocumentQueued, document: DocumentSource | None) -> DocumentQueued:
    """*answer* as it was given to whoever asked first for the job that reads *document*."""
    if document is None:
        return answer
    return replace(answer, source=document.label, url=_told(document.url), filename=_told(document.filename))


def shown(job: Job) -> DocumentJob:
    """*job*, of whatever kind, in the words of this family."""
    status = STATUS[job.state]
    return DocumentJob(
        id=job.job_id,
        status=status,
        enqueued_at=_time(job.submitted_at),
        started_at=None if job.started_at is None else _time(job.started_at),
        ended_at=None if job.ended_at is None else _time(job.ended_at),
        result=_result(job, job.result) if status == "finished" and job.result is not None else UNSET,
        error=_error(job) if status == "failed" else UNSET,
    )


def _result(job: Job, result: IndexResult) -> DocumentResult:
    document = job.document
    begun, ended = job.started_at or job.submitted_at, job.ended_at or job.submitted_at
    return DocumentResult(
        ingested_chunks=result.chunks,
        tenant=job.tenant,
        source=job.identity if document is None else document.label,
        latency_ms=round(max(0.0, (ended - begun).total_seconds() * 1000), 1),
        title=_told(result.title),
        lang=_told(result.natural_language),
        filename=UNSET if document is None else _told(document.filename),
        url=UNSET if document is None else _told(document.url),
    )


def _told(text: str | None) -> str | UnsetType:
    return text or UNSET


def _error(job: Job) -> str:
    if job.state is JobState.CANCELLED:
        return job.reason or "The job was cancelled"
    return job.error or job.reason or "unknown"


def _time(at: datetime) -> str:
    return at.astimezone(UTC).strftime(TIME)
