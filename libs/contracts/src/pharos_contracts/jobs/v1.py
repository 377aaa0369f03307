"""Commands that ask for jobs, events that tell of them, version 1."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Final, assert_never

import msgspec

from pharos_contracts.batches.v1 import BatchFile, BatchSource, Tally
from pharos_contracts.lifecycle import JobState
from pharos_contracts.message import Message


class JobKind(StrEnum):
    REPOSITORY = "repository"
    TEXT = "text"
    URL = "url"
    FILE = "file"
    RESOURCE = "resource"
    BATCH = "batch"
    DELETE = "delete"


DOCUMENT_KINDS: Final = frozenset({JobKind.TEXT, JobKind.URL, JobKind.FILE, JobKind.RESOURCE, JobKind.DELETE})
"""Jobs of one document each; ``delete`` removes it. They wait in DOCS."""


class Priority(StrEnum):
    URGENT = "urgent"
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class Trigger(StrEnum):
    """What asked for a job: somebody who waits for it, a push to a repository, or a schedule."""

    INTERACTIVE = "interactive"
    WEBHOOK = "webhook"
    SCHEDULED = "scheduled"


class Scope(StrEnum):
    """Who finds a dataset: its project's searches, only searches that name it, or every project's."""

    PROJECT = "project"
    LOCAL = "local"
    GLOBAL = "global"


class RepositorySource(msgspec.Struct, frozen=True, kw_only=True):
    """Which repository, and what of it.

    ``identity`` is ``host/owner/name``; ``clone_url`` is where git finds it. Neither carries a credential.
    ``branch`` None is the remote's default branch; ``sha`` wins over ``branch``.
    """

    identity: str
    clone_url: str
    branch: str | None = None
    sha: str | None = None


class DocumentSource(msgspec.Struct, frozen=True, kw_only=True):
    """Which document, and where its bytes are. What comes from one ``label`` is one dataset.

    ``identity`` is what makes it the same document in its dataset when it comes again: the address of a page,
    ``<label>/<filename>`` of a file, and of a text ``<label>/text-`` and the fingerprint of the
    Idempotency-Key that it came with, or else of itself. A page is fetched from ``url``, which is as it was
    written; anything else lies in ``uploads`` as ``object_name``, ``size`` bytes with the hexadecimal
    ``sha256``. One that is to be deleted has neither. ``media_type`` is what its sender called it, and may be
    empty. ``link`` is an address that is shown and not fetched: that of a resource.
    """

    label: str
    identity: str
    url: str | None = None
    filename: str | None = None
    media_type: str = ""
    title: str = ""
    link: str | None = None
    object_name: str | None = None
    size: int | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        if self.url is not None and self.object_name is not None:
            raise ValueError("a document is at an address or in the object store")


class SubmitJob(Message, frozen=True, kw_only=True, tag="ingest.command.v1.submit"):
    """Please index this repository, this document or this batch: exactly one of the three is given."""

    job_id: str
    tenant: str
    key: str
    kind: JobKind = JobKind.REPOSITORY
    source: RepositorySource | None = None
    document: DocumentSource | None = None
    batch: BatchSource | None = None
    project: str
    dataset: str | None = None
    scope: Scope = Scope.PROJECT
    priority: Priority = Priority.NORMAL
    force: bool = False
    submitted_at: datetime
    submitted_by: str
    ttl_seconds: int
    trigger: Trigger = Trigger.INTERACTIVE
    callback_url: str | None = None

    def __post_init__(self) -> None:
        _check_source(self)

    @property
    def identity(self) -> str:
        """What is to be indexed, in a word."""
        return _identity(self)


class ActiveJob(Message, frozen=True, kw_only=True, tag="jobs.view.v1.active"):
    """The pending or running job for one tenant, repository and ref, as the bucket ``active`` keeps it.

    It holds the whole command: a command that expires while no scheduler runs leaves only its subject
    behind, and its job must still end with a name. ``number`` is None until Q has given one.
    """

    command: SubmitJob
    created_at: datetime
    number: int | None = None


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """Something to know of a job that went on all the same; ``path`` where it concerns a file."""

    message: str
    path: str | None = None


class IndexResult(msgspec.Struct, frozen=True, kw_only=True):
    """What an indexing made. Times are seconds; ``stage_seconds`` maps a stage to its share.

    ``built_on`` is the generation that was live when it began, or the one that a deletion of the dataset
    left behind, 0 for none: only that one may it replace.
    ``dataset_files`` and ``dataset_chunks`` are what the dataset then has, where the job made only a part of
    it, such as one document; ``title``, ``natural_language`` (ISO 639-1) and ``quality`` (0 to 1) are that
    document's, as far as they are known, and ``sha256`` is that of a file of a batch, in hexadecimal. A
    document has no commit.
    """

    dataset: str
    generation: int
    built_on: int = 0
    commit: str
    branch: str | None = None
    files_processed: int
    embeddings_generated: int
    chunks: int
    chunks_encoded: int = 0
    chunks_reused: int = 0
    edges: int = 0
    left_out: dict[str, int] = msgspec.field(default_factory=dict)
    left_out_examples: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    languages: dict[str, int] = msgspec.field(default_factory=dict)
    losses: tuple[float, ...] = ()
    stage_seconds: dict[str, float] = msgspec.field(default_factory=dict)
    warnings: tuple[Notice, ...] = ()
    warnings_total: int = 0
    summary: str = ""
    dataset_files: int = 0
    dataset_chunks: int = 0
    title: str = ""
    natural_language: str = ""
    quality: float | None = None
    sha256: str = ""


NO_NUMBER: Final = 0


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job as of its last event: each event carries it whole, so that the last one is enough to go on.

    ``number`` is the sequence that Q gave its command; what did not come by Q has NO_NUMBER.
    ``max_attempts`` grows with each retry that its owner asks for, so that attempts never begin again at 1.
    ``paused_seconds`` is how long it stood still without a start: its time to live does not run then.
    ``control`` is the sequence of the last command of its owner that was acted upon, ``facts_after`` that of
    the fact on JOBS that ended what its workers may still say: older ones are past. ``resuming``: its next
    hand-out goes on with the attempt that was paused. ``tally`` is a batch's: what has become of its files.
    """

    job_id: str
    number: int
    tenant: str
    key: str
    kind: JobKind
    state: JobState
    source: RepositorySource | None = None
    document: DocumentSource | None = None
    batch: BatchSource | None = None
    project: str
    dataset: str | None = None
    scope: Scope = Scope.PROJECT
    priority: Priority = Priority.NORMAL
    force: bool = False
    submitted_at: datetime
    submitted_by: str
    ttl_seconds: int
    attempt: int = 0
    max_attempts: int = 4
    dispatch: int = 0
    worker: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    next_attempt_at: datetime | None = None
    error: str | None = None
    code: str | None = None
    reason: str | None = None
    age_seconds: int | None = None
    result: IndexResult | None = None
    trigger: Trigger = Trigger.INTERACTIVE
    callback_url: str | None = None
    paused_at: datetime | None = None
    paused_seconds: float = 0.0
    resuming: bool = False
    controlled_by: str | None = None
    control: int = 0
    facts_after: int = 0
    tally: Tally | None = None

    def __post_init__(self) -> None:
        _check_source(self)

    @property
    def identity(self) -> str:
        """What it indexes, in a word: ``host/owner/name``, a document's identity, or the name of a batch."""
        return _identity(self)


def _check_source(asked: SubmitJob | Job) -> None:
    if [asked.source, asked.document, asked.batch].count(None) != 2:
        raise ValueError("a job is about a repository, a document or a batch, and about one of them only")
    if (asked.document is not None) != (asked.kind in DOCUMENT_KINDS):
        raise ValueError(f"a job of the kind {asked.kind} is not about that")
    document = asked.document
    if document is not None:
        nowhere = document.url is None and document.object_name is None
        if nowhere != (asked.kind is JobKind.DELETE):
            raise ValueError("a document is at an address or in the object store, unless it is to be deleted")
    if (asked.batch is not None) != (asked.kind is JobKind.BATCH):
        raise ValueError(f"a job of the kind {asked.kind} is not about that")


def _identity(asked: SubmitJob | Job) -> str:
    if asked.document is not None:
        return asked.document.identity
    if asked.batch is not None:
        return asked.batch.name
    assert asked.source is not None, "it was checked when it was made"
    return asked.source.identity


def waited_seconds(job: Job, now: datetime) -> float:
    """How long *job* has waited for its first start, pauses left out."""
    until = job.paused_at or now
    return max(0.0, (until - job.submitted_at).total_seconds() - job.paused_seconds)


def is_expired(job: Job, now: datetime) -> bool:
    """Whether *job* waited for too long. The time to live ends at the first start."""
    return job.started_at is None and waited_seconds(job, now) > job.ttl_seconds


class JobEvent(Message, frozen=True, kw_only=True):
    """Base of the facts that only the scheduler writes."""

    event_id: str
    at: datetime
    job: Job


class JobCreated(JobEvent, frozen=True, kw_only=True, tag="jobs.event.v1.created"):
    """It is there and waits for its owner to start it; a batch begins so."""


class JobQueued(JobEvent, frozen=True, kw_only=True, tag="jobs.event.v1.queued"):
    """It is accepted and waits for a worker."""


class JobStarted(JobEvent, frozen=True, kw_only=True, tag="jobs.event.v1.started"):
    """A worker has it; ``job.attempt`` above 1 says that an earlier worker lost it."""


class JobAdvanced(JobEvent, frozen=True, kw_only=True, tag="jobs.event.v1.advanced"):
    """Files of a batch have ended: ``job.tally`` counts them. Its state is as it was."""


class JobPaused(JobEvent, frozen=True, kw_only=True, tag="jobs.event.v1.paused"):
    """Its owner paused it."""


class JobResumed(JobEvent, frozen=True, kw_only=True, tag="jobs.event.v1.resumed"):
    """Its owner resumed it."""


class JobRetrying(JobEvent, frozen=True, kw_only=True, tag="jobs.event.v1.retrying"):
    """Another attempt will follow."""


class JobCommitting(JobEvent, frozen=True, kw_only=True, tag="jobs.event.v1.committing"):
    """Its worker is publishing."""


class JobCompleted(JobEvent, frozen=True, kw_only=True, tag="jobs.event.v1.completed"):
    """It ended well; ``job.result`` says what it made."""


class JobFailed(JobEvent, frozen=True, kw_only=True, tag="jobs.event.v1.failed"):
    """It ended without a result; ``job.error`` says why."""


class JobCancelled(JobEvent, frozen=True, kw_only=True, tag="jobs.event.v1.cancelled"):
    """Its owner ended it."""


class JobSkipped(JobEvent, frozen=True, kw_only=True, tag="jobs.event.v1.skipped"):
    """It never ran, or found nothing to do; ``job.reason`` says which."""


def job_of(command: SubmitJob, number: int) -> Job:
    """The job that *command* asks for, when Q has taken it as its *number*-th, or DOCS (NO_NUMBER)."""
    return Job(
        job_id=command.job_id,
        number=number,
        tenant=command.tenant,
        key=command.key,
        kind=command.kind,
        state=JobState.QUEUED,
        source=command.source,
        document=command.document,
        batch=command.batch,
        project=command.project,
        dataset=command.dataset,
        scope=command.scope,
        priority=command.priority,
        force=command.force,
        submitted_at=command.submitted_at,
        submitted_by=command.submitted_by,
        ttl_seconds=command.ttl_seconds,
        trigger=command.trigger,
        callback_url=command.callback_url,
    )


def command_of(job: Job) -> SubmitJob:
    """The command that asked for *job*."""
    return SubmitJob(
        job_id=job.job_id,
        tenant=job.tenant,
        key=job.key,
        kind=job.kind,
        source=job.source,
        document=job.document,
        batch=job.batch,
        project=job.project,
        dataset=job.dataset,
        scope=job.scope,
        priority=job.priority,
        force=job.force,
        submitted_at=job.submitted_at,
        submitted_by=job.submitted_by,
        ttl_seconds=job.ttl_seconds,
        trigger=job.trigger,
        callback_url=job.callback_url,
    )


AnyJobEvent = (
    JobCreated
    | JobQueued
    | JobStarted
    | JobAdvanced
    | JobPaused
    | JobResumed
    | JobRetrying
    | JobCommitting
    | JobCompleted
    | JobFailed
    | JobCancelled
    | JobSkipped
)

EVENT_OF_STATE: Final[dict[JobState, type[JobEvent]]] = {
    JobState.PENDING: JobCreated,
    JobState.QUEUED: JobQueued,
    JobState.RUNNING: JobStarted,
    JobState.PAUSED: JobPaused,
    JobState.RETRYING: JobRetrying,
    JobState.COMMITTING: JobCommitting,
    JobState.COMPLETED: JobCompleted,
    JobState.FAILED: JobFailed,
    JobState.CANCELLED: JobCancelled,
    JobState.SKIPPED: JobSkipped,
}


class Purpose(StrEnum):
    """What a worker is to do with an item."""

    INDEX = "index"
    CLEAR = "clear"


class WorkItem(Message, frozen=True, kw_only=True, tag="work.command.v1.item"):
    """Please do this item: one try (``attempt``), handed out for the ``dispatch``-th time.

    ``purpose`` clear: remove what the job has left behind, since it was cancelled. ``term`` is that of the
    leader that handed it out: what a leader hands out after another one took over is not done.

    Of a batch it is one ``file``. The job then is the batch as far as that file goes: its attempts and its
    ``facts_after`` are those of the file.
    """

    job: Job
    item_id: str
    attempt: int
    dispatch: int
    purpose: Purpose = Purpose.INDEX
    term: int = 0
    file: BatchFile | None = None


class ItemEvent(Message, frozen=True, kw_only=True):
    """Base of the facts about an item, written by the worker that holds it or by the scheduler.

    ``instance`` is that of the worker process, ``deaths`` how many processes have died with the item in hand
    since its last attempt that ended by itself.
    """

    event_id: str
    at: datetime
    tenant: str
    job_id: str
    item_id: str
    attempt: int
    dispatch: int
    worker: str
    instance: str = ""
    deaths: int = 0


class ItemStarted(ItemEvent, frozen=True, kw_only=True, tag="items.event.v1.started"):
    """A worker has taken the item; whoever held it before holds it no more."""


class ItemLexicalReady(ItemEvent, frozen=True, kw_only=True, tag="items.event.v1.lexical_ready"):
    """The dataset's first index answers searches by words; its structure and its vectors follow."""

    dataset: str
    files: int
    chunks: int


class ItemCommitting(ItemEvent, frozen=True, kw_only=True, tag="items.event.v1.committing"):
    """All is stored; what remains is to publish ``result``. From here on it is finished, never undone."""

    result: IndexResult


class ItemCompleted(ItemEvent, frozen=True, kw_only=True, tag="items.event.v1.completed"):
    """Published."""

    result: IndexResult


class ItemFailed(ItemEvent, frozen=True, kw_only=True, tag="items.event.v1.failed"):
    """The try failed; ``transient`` says whether another one may fare better.

    ``cleared``: what it had left in the index is removed already.
    """

    error: str
    code: str
    transient: bool = False
    cleared: bool = False


class ItemSkipped(ItemEvent, frozen=True, kw_only=True, tag="items.event.v1.skipped"):
    """There was nothing to do."""

    reason: str


class ItemCancelled(ItemEvent, frozen=True, kw_only=True, tag="items.event.v1.cancelled"):
    """The scheduler took the item away for good, from a worker or before one had it."""


class ItemPaused(ItemEvent, frozen=True, kw_only=True, tag="items.event.v1.paused"):
    """The scheduler took the item away for now; what was done is kept, and another dispatch goes on."""


AnyItemEvent = (
    ItemStarted
    | ItemLexicalReady
    | ItemCommitting
    | ItemCompleted
    | ItemFailed
    | ItemSkipped
    | ItemCancelled
    | ItemPaused
)

AnyEvent = AnyJobEvent | AnyItemEvent


def item_state(event: AnyItemEvent, before: JobState | None) -> JobState:
    """The state of an item after *event*; *before* is None where nothing was said of it."""
    match event:
        case ItemStarted():
            return JobState.RUNNING
        case ItemLexicalReady():
            return before or JobState.RUNNING
        case ItemCommitting():
            return JobState.COMMITTING
        case ItemCompleted():
            return JobState.COMPLETED
        case ItemFailed():
            return JobState.FAILED
        case ItemSkipped():
            return JobState.SKIPPED
        case ItemCancelled():
            return JobState.CANCELLED
        case ItemPaused():
            return JobState.PAUSED
        case _:
            assert_never(event)


class Stage(StrEnum):
    """Where a worker is, in the order of the pipeline."""

    ACCESS = "access"
    FETCH = "fetch"
    DISCOVER = "discover"
    PARSE = "parse"
    CHUNK = "chunk"
    LINK = "link"
    TRAIN = "train"
    STORE = "store"
    ENCODE = "encode"
    PUBLISH = "publish"


class Progress(Message, frozen=True, kw_only=True, tag="items.event.v1.progress"):
    """How far a worker is: ``percent`` never falls within an attempt; ``eta_seconds`` is None until known."""

    tenant: str
    job_id: str
    item_id: str
    attempt: int
    at: datetime
    stage: Stage
    done: int
    total: int
    percent: float
    current_file: str | None = None
    eta_seconds: float | None = None
    detail: str | None = None
    worker: str = ""
