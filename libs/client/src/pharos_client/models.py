"""What the gateway answers, typed. Unknown fields are ignored: the gateway may say more than this knows."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec

ENDED: Final = frozenset({"completed", "complete", "failed", "cancelled", "skipped"})


class Submitted(msgspec.Struct, frozen=True, kw_only=True):
    """A job was accepted, or the one that does the same already was (``deduplicated``)."""

    status: str
    job_id: int | str
    queue_position: int | None = None
    target: str | None = None
    queue_size: int | None = None
    max_queue_size: int | None = None
    deduplicated: bool = False


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """One worker process."""

    name: str
    status: str
    device: str | None = None
    job_id: int | str | None = None
    since: datetime | None = None
    last_seen: datetime | None = None
    stage: str | None = None
    memory_used: int | None = None
    memory_total: int | None = None


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """``Idle``, ``Training Graph on …``, ``Error: …`` or ``Offline``; and each worker."""

    status: str
    workers: tuple[Worker, ...] = ()

    @property
    def offline(self) -> bool:
        return self.status == "Offline"


class HistoryEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A job as the public history of ingestion shows it."""

    job_id: int | str
    repo_url: str
    status: str
    timestamp: datetime | None = None
    duration_seconds: float | None = None
    files_processed: int | None = None
    embeddings_generated: int | None = None
    progress: Any = None
    error: str | None = None
    reason: str | None = None
    age_seconds: int | None = None


class History(msgspec.Struct, frozen=True, kw_only=True):
    """Newest first."""

    jobs: tuple[HistoryEntry, ...]


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """Something to know of a job that went on all the same."""

    message: str
    path: str | None = None


class IndexResult(msgspec.Struct, frozen=True, kw_only=True):
    """What an indexing made. ``left_out`` counts files by reason; of each, examples name a few."""

    dataset: str | None = None
    commit: str | None = None
    branch: str | None = None
    files_processed: int = 0
    embeddings_generated: int = 0
    chunks: int = 0
    chunks_encoded: int = 0
    chunks_reused: int = 0
    edges: int = 0
    left_out: dict[str, int] = msgspec.field(default_factory=dict)
    left_out_examples: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    languages: dict[str, int] = msgspec.field(default_factory=dict)
    stage_seconds: dict[str, float] = msgspec.field(default_factory=dict)
    warnings: tuple[Notice, ...] = ()
    warnings_total: int = 0
    summary: str = ""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a running job is; ``percent`` never falls within an attempt."""

    stage: str = ""
    percent: float = 0.0
    done: int = 0
    total: int = 0
    current_file: str | None = None
    eta_seconds: float | None = None
    detail: str | None = None


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Which repository a job indexes, and what of it."""

    identity: str
    clone_url: str | None = None
    branch: str | None = None
    sha: str | None = None


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """Which document a job indexes."""

    label: str
    identity: str
    url: str | None = None
    filename: str | None = None
    title: str = ""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job as it is now, of a repository (``source``) or of a document."""

    job_id: str
    state: str
    number: int | None = None
    kind: str = "repository"
    source: Source | None = None
    document: Document | None = None
    project: str | None = None
    dataset: str | None = None
    priority: str | None = None
    trigger: str | None = None
    submitted_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    paused_at: datetime | None = None
    controlled_by: str | None = None
    next_attempt_at: datetime | None = None
    queue_position: int | None = None
    estimated_start_at: datetime | None = None
    attempt: int = 0
    max_attempts: int | None = None
    worker: str | None = None
    error: str | None = None
    code: str | None = None
    reason: str | None = None
    age_seconds: int | None = None
    result: IndexResult | None = None
    progress: Progress | None = None
    waiting_for_worker: bool = False

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def is_done(self) -> bool:
        """Whether what was asked for is there now: indexed by this job, or before it."""
        return self.state == "completed" or (self.state == "skipped" and self.age_seconds is None)

    @property
    def repository(self) -> str:
        """What it indexes; a document's identity where it is about one."""
        what = self.source or self.document
        return "" if what is None else what.identity

    @property
    def seconds(self) -> float | None:
        """From its start to its end; None until both are known."""
        if self.started_at is None or self.ended_at is None:
            return None
        return (self.ended_at - self.started_at).total_seconds()


class JobPage(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs, newest first; ``cursor`` continues, None ends."""

    jobs: tuple[Job, ...]
    cursor: int | str | None = None


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """What waits in the queues of repositories and of documents. ``by_tenant`` is told to an admin."""

    depth: int
    capacity: int
    documents_capacity: int = 0
    oldest_age_seconds: float | None = None
    by_priority: dict[str, int] = msgspec.field(default_factory=dict)
    by_kind: dict[str, int] = msgspec.field(default_factory=dict)
    by_tenant: dict[str, int] = msgspec.field(default_factory=dict)


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """Something that will not be tried again by itself: a job that killed its workers, or a message.

    ``payload`` is a message's bytes in Base64, shown to an admin who asks for that one letter.
    """

    id: str
    kind: str
    reason: str
    code: str
    tenant: str | None = None
    at: datetime | None = None
    job: Job | None = None
    deaths: int = 0
    workers: tuple[str, ...] = ()
    stream: str | None = None
    subject: str | None = None
    payload_bytes: int = 0
    payload: str | None = None


class DeadLetterPage(msgspec.Struct, frozen=True, kw_only=True):
    """Newest first; ``cursor`` continues, None ends."""

    dead_letters: tuple[DeadLetter, ...]
    cursor: int | None = None


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """A repository that is indexed whenever ``cron`` says, in ``timezone``."""

    id: str
    repository: str
    cron: str
    timezone: str = "UTC"
    tenant: str | None = None
    branch: str | None = None
    project: str | None = None
    dataset: str | None = None
    priority: str | None = None
    jitter_seconds: int = 0
    skip_unchanged: bool = True
    created_at: datetime | None = None
    created_by: str | None = None
    next_run_at: datetime | None = None
    last_run_at: datetime | None = None
    last_job_id: str | None = None
    last_outcome: str | None = None


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A key. ``key`` is its text, which is told once, when it is created or rotated."""

    id: str
    tenant: str
    user: str
    role: str
    state: str
    projects: tuple[str, ...] | None = None
    name: str = ""
    created_at: datetime | None = None
    created_by: str | None = None
    expires_at: datetime | None = None
    rotated_at: datetime | None = None
    previous_until: datetime | None = None
    disabled_at: datetime | None = None
    disabled_by: str | None = None
    key: str | None = None

    def __repr__(self) -> str:
        return f"Key(id={self.id!r}, tenant={self.tenant!r}, user={self.user!r}, role={self.role!r})"


class CallbackSecret(msgspec.Struct, frozen=True, kw_only=True):
    """The key of the HMAC-SHA256 that signs the callbacks of a tenant: the bytes of this text."""

    tenant: str
    secret: str

    def __repr__(self) -> str:
        return f"CallbackSecret(tenant={self.tenant!r}, secret=***)"


class LineSpan(msgspec.Struct, frozen=True, kw_only=True):
    """Lines of a file, from 1, both ends included."""

    start: int
    end: int


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    """What each channel gave; None where it did not find the file. ``final`` orders."""

    final: float
    dense: float | None = None
    sparse: float | None = None
    structural: float | None = None
    rerank: float | None = None


class FoundDocument(msgspec.Struct, frozen=True, kw_only=True):
    """Where in a document a chunk is: under which headings, outermost first, and on which pages, from 1."""

    kind: str
    title: str | None = None
    headings: tuple[str, ...] = ()
    page: int | None = None
    page_end: int | None = None
    language: str | None = None
    filename: str | None = None
    date: str | None = None


class SearchResult(msgspec.Struct, frozen=True, kw_only=True):
    """A file and its best chunk; of a document, ``document`` says where in it."""

    id: str
    chunk: str
    file: str
    line_span: LineSpan = msgspec.field(name="lineSpan")
    scores: Scores
    symbol: str | None = None
    kind: str | None = None
    language: str | None = None
    project: str | None = None
    dataset: str | None = None
    repository: str | None = None
    commit: str | None = None
    url: str | None = None
    reasons: tuple[str, ...] = ()
    highlights: tuple[str, ...] = ()
    also: tuple[LineSpan, ...] = ()
    document: FoundDocument | None = None


class SearchAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The results, best first."""

    results: tuple[SearchResult, ...]
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    latency_ms: float = 0.0
    request_id: str | None = None


class Dataset(msgspec.Struct, frozen=True, kw_only=True):
    """A searchable dataset: one branch of one repository, unless it was named."""

    dataset: str
    project: str | None = None
    repository: str | None = None
    branch: str | None = None
    commit: str | None = None
    stage: str | None = None
    files: int | None = None
    chunks: int | None = None
    encoder: str | None = None
    published_at: datetime | None = None


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """``healthy``, or ``degraded`` with what is wrong. ``ready`` is whether a submit would succeed."""

    status: str
    service: str | None = None
    detail: str | None = None
    dependencies: dict[str, Any] = msgspec.field(default_factory=dict)


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened. ``id`` orders state events; progress has none."""

    name: str
    data: dict[str, Any]
    id: str | None = None

    @property
    def ends_job(self) -> bool:
        """The job that it tells of has ended."""
        return self.name.startswith("job.") and self.name.removeprefix("job.") in ENDED
