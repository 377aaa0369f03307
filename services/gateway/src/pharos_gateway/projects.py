"""Projects in their family's words: its requests, and jobs as its history and its jobs show them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Final

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from pharos_contracts.history.v1 import JobLog
from pharos_contracts.identity import fingerprint
from pharos_contracts.jobs.v1 import Job, JobKind, Priority, Progress, Scope, Stage
from pharos_contracts.lifecycle import TERMINAL, JobState
from pharos_gateway.datasets import DatasetView
from pharos_gateway.deleting import Deleted, Wanted
from pharos_gateway.job_view import current_progress, level
from pharos_gateway.scheduling import JITTER_SECONDS_MAX, NO_CONTROLS, ScheduleRequest, ScheduleView
from pharos_gateway.submitting import Order

GITHUB: Final = "github"
QUEUED: Final = "GitHub ingest job queued"
OPEN_DURATION: Final = "⏳ running"
FINISHED_PERCENT: Final = 100

# What is paused, or waits for its next attempt, is not being worked on: this family has no word of its own.
STATUS: Final[Mapping[JobState, str]] = {
    JobState.PENDING: "queued",
    JobState.QUEUED: "queued",
    JobState.RUNNING: "running",
    JobState.COMMITTING: "running",
    JobState.PAUSED: "queued",
    JobState.RETRYING: "queued",
    JobState.COMPLETED: "completed",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
    JobState.SKIPPED: "skipped",
}
PHASE: Final[Mapping[Stage, str]] = {
    Stage.FETCH: "Cloning repository...",
    Stage.DISCOVER: "Listing files...",
    Stage.PARSE: "Parsing files...",
    Stage.LINK: "Linking files...",
    Stage.TRAIN: "Training graph...",
    Stage.STORE: "Storing chunks...",
    Stage.ENCODE: "Indexing repository...",
    Stage.PUBLISH: "Publishing...",
}

_Repository = Annotated[
    str, Meta(max_length=2_048, description="As for a submit; `owner/name` alone is one of github.com.")
]
_Branch = Annotated[str, Meta(max_length=255, description="Default: the remote's HEAD.")]
_Dataset = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=512,
        pattern=NO_CONTROLS,
        description="Default: called after the repository and its branch.",
    ),
]


class GithubIngestRequest(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True
):
    """What to index, and where. ``sha`` is what is checked out; ``callback_url`` as for a submit."""

    repo: _Repository
    dataset: _Dataset | None = None
    branch: _Branch | None = None
    sha: Annotated[str, Meta(max_length=64, description="A full commit id.")] | None = None
    scope: Scope = Scope.PROJECT
    force: bool = False
    priority: Priority = Priority.NORMAL
    callback_url: str | None = msgspec.field(default=None, name="callback_url")


class GithubIngested(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The job that was queued, that does the same already, or that indexed this commit before.

    ``repository`` is without its host. ``dataset`` and ``branch`` are null where nobody named them: the
    worker finds out.
    """

    job_id: str
    status: str
    message: str
    project: str
    dataset: str | None
    repository: str
    branch: str | None
    scope: Scope
    sha: str | None


class GithubDeleteRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to delete: the dataset of that name, or every dataset of a repository."""

    dataset: _Dataset | None = None
    repo: _Repository | None = None


class GithubDeleted(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What is gone. ``deletedVectors`` counts chunks.

    ``dataset`` is the first of ``datasets`` by name, ``datasetId`` its id; ids are opaque, and the same for
    the same name. ``cancelledJobs`` were open, and would have made it again.
    """

    project: str
    dataset: str
    project_id: str
    dataset_id: str
    deleted_vectors: int
    status: str
    message: str
    datasets: tuple[str, ...]
    cancelled_jobs: tuple[str, ...]


class IngestRow(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A job. ``startedAt`` is the time of day (UTC) of its start, or of its submit until it has started.

    ``progress`` is in percent; ``state`` is the word of the native API, which knows more of them. ``commit``
    and ``filesProcessed`` are those of a job that completed, ``reason`` is that of one that was skipped.
    """

    id: str
    source: str
    project: str
    dataset: str | None
    scope: Scope
    status: str
    started_at: str
    duration: str
    summary: str
    progress: int
    error: str | None
    started_at_iso: datetime
    duration_seconds: float | None
    state: JobState
    number: int
    repository: str
    branch: str | None
    sha: str | None
    commit: str | None
    reason: str | None
    phase: str | None
    current_file: str | None
    attempt: int
    files_processed: int | None


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to a job; ``level`` is ``info`` or ``error``."""

    timestamp: datetime
    level: str
    message: str


class IngestLog(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Oldest first; ``cursor`` continues, null ends."""

    job_id: str
    logs: tuple[LogLine, ...]
    cursor: int | None


class OpenJobs(msgspec.Struct, frozen=True, kw_only=True):
    """How many jobs have not ended yet; ``truncated`` where there are more than these."""

    queued: int
    running: int
    truncated: bool


class ProjectStats(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What can be searched in a project, and what is being done there.

    ``truncated`` where there are more than 1,000 datasets: then these are counted.
    """

    project: str
    datasets: int
    repositories: int
    files: int
    chunks: int
    last_indexed_at: datetime | None
    jobs: OpenJobs
    truncated: bool


class ProjectScheduleRequest(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True
):
    """What to index, and when."""

    repo: _Repository
    cron: Annotated[str, Meta(max_length=256, description="Five fields, as in `0 3 * * *`.")]
    dataset: _Dataset | None = None
    branch: _Branch | None = None
    scope: Scope = Scope.PROJECT
    timezone: Annotated[str, Meta(max_length=64, description="An IANA name; `cron` is read in it.")] = "UTC"
    jitter_seconds: Annotated[int, Meta(ge=0, le=JITTER_SECONDS_MAX)] = 0
    priority: Priority = Priority.NORMAL
    skip_unchanged: bool = True
    id: Annotated[str, Meta(min_length=1, max_length=64)] | None = None


class ProjectSchedule(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A schedule as it stands."""

    id: str
    project: str
    repository: str
    branch: str | None
    dataset: str | None
    scope: Scope
    cron: str
    timezone: str
    jitter_seconds: int
    priority: Priority
    skip_unchanged: bool
    created_at: datetime
    next_run_at: datetime | None


def repository_text(repo: str) -> str:
    """*repo* with its host: the endpoint is GitHub's, so that ``owner/name`` alone is a repository there."""
    owner, slash, name = repo.strip("/").partition("/")
    bare = slash and owner and name and "/" not in name and not any(mark in owner for mark in ".:@%")
    return f"{GITHUB}.com/{owner}/{name}" if bare else repo


def accepted(order: Order, job_id: str) -> GithubIngested:
    """The answer that *order* was queued as *job_id*."""
    return GithubIngested(
        job_id=job_id,
        status=STATUS[JobState.QUEUED],
        message=QUEUED,
        project=order.project,
        dataset=_dataset_name(order.dataset, order.address.identity, order.branch),
        repository=_path(order.address.identity),
        branch=order.branch,
        scope=order.scope,
        sha=order.sha,
    )


def accepted_as(job: Job) -> GithubIngested:
    """The answer that *job* was queued, as it was given then."""
    branch = job.source.branch if job.source else None
    return replace(
        ingested(job),
        status=STATUS[JobState.QUEUED],
        message=QUEUED,
        dataset=_dataset_name(job.dataset, job.identity, branch),
    )


def ingested(job: Job) -> GithubIngested:
    """The answer that *job* does the same already."""
    status = STATUS[job.state]
    return GithubIngested(
        job_id=job.job_id,
        status=status,
        message=f"GitHub ingest job already {status}",
        project=job.project,
        dataset=_dataset(job),
        repository=_shown(job),
        branch=job.source.branch if job.source else None,
        scope=job.scope,
        sha=job.source.sha if job.source else None,
    )


def already_indexed(dataset: DatasetView, sha: str) -> GithubIngested:
    """The answer where *dataset* is at *sha* already."""
    return GithubIngested(
        job_id=dataset.job_id,
        status=STATUS[JobState.SKIPPED],
        message="This commit is indexed already",
        project=dataset.project,
        dataset=dataset.dataset,
        repository=_path(dataset.repository),
        branch=dataset.branch,
        scope=dataset.scope,
        sha=sha,
    )


def deleted(wanted: Wanted, gone: Deleted) -> GithubDeleted:
    """The answer that what was *wanted* is *gone*."""
    first = gone.datasets[0] if gone.datasets else wanted.dataset or wanted.repository or ""
    count = len(gone.datasets)
    named = f"Dataset {first!r}" if count <= 1 else f"{count} datasets"
    return GithubDeleted(
        project=wanted.project,
        dataset=first,
        project_id=fingerprint(wanted.tenant, wanted.project),
        dataset_id=fingerprint(wanted.tenant, wanted.project, first),
        deleted_vectors=gone.vectors,
        status="deleted",
        message=f"{named} deleted, with {gone.vectors} {'vector' if gone.vectors == 1 else 'vectors'}",
        datasets=gone.datasets,
        cancelled_jobs=gone.jobs,
    )


def row(job: Job, latest: Progress | None) -> IngestRow:
    """*job*, with what was told last of its progress."""
    progress = current_progress(job, latest)
    began = job.started_at or job.submitted_at
    seconds = None
    if job.ended_at is not None:
        seconds = max(0.0, round((job.ended_at - (job.started_at or job.ended_at)).total_seconds(), 3))
    result = job.result
    return IngestRow(
        id=job.job_id,
        source=GITHUB if job.kind is JobKind.REPOSITORY else job.kind.value,
        project=job.project,
        dataset=_dataset(job),
        scope=job.scope,
        status=STATUS[job.state],
        started_at=clock_time(began),
        duration=OPEN_DURATION if seconds is None else duration(seconds),
        summary=_summary(job),
        progress=percent(job, progress),
        error=job.error,
        started_at_iso=began,
        duration_seconds=seconds,
        state=job.state,
        number=job.number,
        repository=job.identity,
        branch=_branch(job),
        sha=job.source.sha if job.source else None,
        commit=result.commit if result else None,
        reason=job.reason,
        phase=PHASE[progress.stage] if progress else None,
        current_file=progress.current_file if progress else None,
        attempt=job.attempt,
        files_processed=result.files_processed if result else None,
    )


def percent(job: Job, progress: Progress | None) -> int:
    """Whole percents, never rounded up: 100 is said of what has ended well."""
    if job.state is JobState.COMPLETED:
        return FINISHED_PERCENT
    return min(int(progress.percent), FINISHED_PERCENT) if progress else 0


def clock_time(at: datetime) -> str:
    """``10:30 AM``, whatever the locale."""
    return f"{at.hour % 12 or 12}:{at.minute:02} {'AM' if at.hour < 12 else 'PM'}"


def duration(seconds: float) -> str:
    """``2m 7s``."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m {rest}s"


def log_of(job: Job, log: JobLog) -> IngestLog:
    """*log* as this family shows it."""
    return IngestLog(
        job_id=job.job_id,
        logs=tuple(
            LogLine(
                timestamp=entry.at,
                level=level(entry),
                message=entry.text,
            )
            for entry in log.entries
        ),
        cursor=log.cursor,
    )


def stats(
    project: str, datasets: Sequence[DatasetView], jobs: Iterable[Job], *, truncated: bool, more_jobs: bool
) -> ProjectStats:
    """What there is in *project*; *more_jobs*: there are more open ones than *jobs*."""
    words = [STATUS[job.state] for job in jobs if job.state not in TERMINAL]
    return ProjectStats(
        project=project,
        datasets=len(datasets),
        # Documents belong to no repository.
        repositories=len({(each.tenant, each.repository) for each in datasets if each.repository}),
        files=sum(dataset.files for dataset in datasets),
        chunks=sum(dataset.chunks for dataset in datasets),
        last_indexed_at=max((dataset.published_at for dataset in datasets), default=None),
        jobs=OpenJobs(queued=words.count("queued"), running=words.count("running"), truncated=more_jobs),
        truncated=truncated,
    )


def schedule_request(request: ProjectScheduleRequest, project: str) -> ScheduleRequest:
    """*request* in the words of the native API."""
    return ScheduleRequest(
        repo_url=repository_text(request.repo),
        cron=request.cron,
        branch=request.branch,
        timezone=request.timezone,
        jitter_seconds=request.jitter_seconds,
        priority=request.priority,
        project=project,
        dataset=request.dataset,
        scope=request.scope,
        skip_unchanged=request.skip_unchanged,
        id=request.id,
    )


def schedule(view: ScheduleView) -> ProjectSchedule:
    """*view* in the words of this family."""
    return msgspec.convert(view, ProjectSchedule, from_attributes=True)


def _dataset(job: Job) -> str | None:
    if job.result is not None:
        return job.result.dataset
    return _dataset_name(job.dataset, job.identity, job.source.branch if job.source else None)


def _dataset_name(named: str | None, identity: str, branch: str | None) -> str | None:
    """As the worker calls it; None where only it can tell."""
    return named if named is not None or branch is None else f"{identity}@{branch}"


def _branch(job: Job) -> str | None:
    asked = job.source.branch if job.source else None
    return asked or (job.result.branch if job.result else None)


def _summary(job: Job) -> str:
    named = _branch(job) or ((job.source.sha if job.source else None) or "")[:12]
    return f"{_shown(job)} ({named})" if named else _shown(job)


def _shown(job: Job) -> str:
    """What it is about: ``owner/name`` of a repository, a document as it is called."""
    return _path(job.identity) if job.source else job.identity


def _path(identity: str) -> str:
    return identity.partition("/")[2]
