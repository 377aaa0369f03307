"""Batches in the words of their family of clients: what is asked for, and what is shown. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from math import ceil
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from pharos_contracts.batches.v1 import FILES_MAX, RETRIES_MAX, WORKERS_MAX, BatchOptions, BatchSource
from pharos_contracts.connections.v1 import SourceType
from pharos_contracts.control.v1 import Action
from pharos_contracts.history.v1 import BatchSummary
from pharos_contracts.jobs.v1 import Job, Priority
from pharos_contracts.lifecycle import JobState
from pharos_gateway.batch_files import Counts, Files, FileStatus
from pharos_gateway.keys import ANONYMOUS
from pharos_gateway.scheduling import NO_CONTROLS

SELECTIONS_MAX: Final = 100
LIST_MAX: Final = 100
OFFSET_MAX: Final = 1_000_000
# Where no file of a type of source has been measured yet, one is taken to need so long.
SECONDS_PER_FILE: Final = 5.0

STATUS: Final[Mapping[JobState, str]] = {
    JobState.PENDING: "pending",
    JobState.QUEUED: "queued",
    JobState.RUNNING: "running",
    JobState.COMMITTING: "running",
    JobState.PAUSED: "paused",
    JobState.RETRYING: "retrying",
    JobState.COMPLETED: "completed",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
    JobState.SKIPPED: "cancelled",  # nobody started it in time; its error says so
}
STATUSES: Final = tuple(dict.fromkeys(STATUS.values()))
ACTIVE: Final = ("queued", "running", "paused", "retrying")

Option = str | int | float | bool | None

UserId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=128,
        pattern=NO_CONTROLS,
        description="The key's own user, which is the default; an admin may name another one. Who sends no "
        "key, where that is allowed, acts as the user that they name.",
    ),
]


class FileSelection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Files of one connection. A connection that is selected twice counts once, with all of its files."""

    connection_id: Annotated[str, Meta(min_length=1, max_length=64)]
    source_type: Annotated[SourceType, Meta(description="That of the connection.")]
    file_ids: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=4_096)]],
        Meta(min_length=1, max_length=FILES_MAX, description="As `/connections/{id}/files` tells them."),
    ]


class ProcessingOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the files are treated. What this installation cannot honour is told in `warnings`."""

    use_llm_parsing: Annotated[
        bool,
        Meta(
            description="Have a language model read what a file is made of. No installation has one yet: "
            "files are parsed by rules, and a warning says so."
        ),
    ] = False
    embedding_model_preference: (
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=200,
                description="The encoder to use. An installation has one, for all that is searched "
                "together: where it is another one, it is used all the same, and a warning says so.",
            ),
        ]
        | None
    ) = None
    chunk_size: (
        Annotated[
            int,
            Meta(
                ge=100,
                le=8_000,
                description="Characters of a chunk, about. Default: that of the installation.",
            ),
        ]
        | None
    ) = None
    chunk_overlap: (
        Annotated[
            int,
            Meta(
                ge=0,
                le=4_000,
                description="Characters that a chunk shares with the one before, at most half of its size: "
                "of the installation's, where no size is given, it is cut to that. Default: that of the "
                "installation.",
            ),
        ]
        | None
    ) = None
    quality_threshold: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="A file of less quality than this is skipped, and its step says why. Quality is the "
            "share of a document that is there as readable text: pages that are pictures without text, "
            "broken characters and broken words lower it. Clean text has more than 0.95, a scan that was "
            "recognised badly 0.3 to 0.8. 0 takes everything. It says nothing of what the text is worth.",
        ),
    ] = 0.0
    retry_failed_files: Annotated[
        bool, Meta(description="Try a file again, where that may help, before it counts as failed.")
    ] = True
    max_retries: Annotated[
        int, Meta(ge=0, le=RETRIES_MAX, description="How often, with growing pauses in between.")
    ] = 3
    skip_existing: Annotated[
        bool,
        Meta(
            description="A file that is indexed already as its source has it now is skipped. Otherwise it "
            "is read again, and replaces what there was of it."
        ),
    ] = True
    preserve_structure: Annotated[
        bool,
        Meta(
            description="Cut along headings, pages, tables and definitions, and keep the headings with each "
            "chunk; otherwise by size alone, at the ends of sentences and lines."
        ),
    ] = True
    extract_math: Annotated[
        bool,
        Meta(
            description="Keep formulas, as LaTeX; otherwise leave them out of text, Markdown, notebooks, web "
            "pages and Word files. Other formats do not say what is a formula."
        ),
    ] = True
    parallel_processing: Annotated[
        bool, Meta(description="Work on several files at once; otherwise on one after the other.")
    ] = True
    max_workers: Annotated[
        int, Meta(ge=1, le=WORKERS_MAX, description="How many files of this batch at once, at most.")
    ] = 4
    timeout_seconds: Annotated[
        float,
        Meta(gt=0, le=3_600, description="How long one try at one file may take before it has failed."),
    ] = 300
    source_specific_options: Annotated[
        dict[str, dict[str, Option]],
        Meta(
            max_length=len(SourceType),
            description="By type of source. No type has options of its own yet: each may be named, with "
            "nothing in it.",
        ),
    ] = {}


class BatchRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Files of several connections, to be indexed as one job, once it is started."""

    user_id: UserId | None = None
    name: Annotated[str, Meta(min_length=1, max_length=200, pattern=NO_CONTROLS)]
    description: Annotated[str, Meta(max_length=2_000)] = ""
    priority: Annotated[
        Priority, Meta(description="Which batches start first; who waits for long moves up.")
    ] = Priority.NORMAL
    file_selections: Annotated[list[FileSelection], Meta(min_length=1, max_length=SELECTIONS_MAX)]
    processing_options: ProcessingOptions | None = None
    callback_url: (
        Annotated[str, Meta(max_length=2_048, description="Where to POST, signed, when the batch has ended.")]
        | None
    ) = None


class ControlRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to become of a batch."""

    user_id: UserId | None = None
    action: Annotated[str, Meta(min_length=1, max_length=40, description=f"One of {', '.join(Action)}.")]
    retry_failed_only: Annotated[
        bool, Meta(description="Of `retry`: only what did not succeed; otherwise every file once more.")
    ] = True


class ListRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which batches to list, newest first."""

    user_id: UserId | None = None
    status_filter: (
        Annotated[list[str], Meta(max_length=20, description=f"Some of {', '.join(STATUSES)}; default: all.")]
        | None
    ) = None
    limit: Annotated[int, Meta(ge=1, le=LIST_MAX)] = 10
    offset: Annotated[int, Meta(ge=0, le=OFFSET_MAX)] = 0


class FileMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """What the source tells of a file; ``size`` in bytes, None where it does not tell it."""

    name: str
    size: int | None
    source_type: SourceType


class FileView(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a batch, as it is now."""

    file_id: str
    status: str
    progress: int
    current_step: str
    error: str | None
    retry_count: int
    file_metadata: FileMetadata


class SourceProgress(msgspec.Struct, frozen=True, kw_only=True):
    """The files of one connection, in the order in which they were chosen."""

    source_type: SourceType
    connection_id: str
    total_files: int
    completed_files: int
    failed_files: int
    skipped_files: int
    progress_percentage: float
    files: tuple[FileView, ...]


class BatchRow(msgspec.Struct, frozen=True, kw_only=True):
    """A batch in short. Counters are of files that have ended."""

    job_id: str
    user_id: str
    name: str
    description: str
    status: str
    priority: Priority
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    total_files: int
    completed_files: int
    failed_files: int
    skipped_files: int
    progress_percentage: float
    error: str | None


class BatchView(BatchRow, frozen=True, kw_only=True):
    """A batch and its files, whose states the counters count."""

    estimated_duration_ms: int
    warnings: tuple[str, ...]
    source_progress: tuple[SourceProgress, ...]


class BatchList(msgspec.Struct, frozen=True, kw_only=True):
    """Newest first; ``total_jobs`` is how many match in all."""

    jobs: tuple[BatchRow, ...]
    total_jobs: int
    has_more: bool


class BatchStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Of all batches of a user.

    ``total_files_processed`` and ``by_source_type`` count files that ended, in whatever way; ``success_rate``
    is the share of these that did not fail, in percent; ``average_processing_time_ms`` is how long one file
    took, over the last 1,000 that completed. Active are queued, running, paused and retried batches.
    """

    total_jobs: int
    active_jobs: int
    completed_jobs: int
    failed_jobs: int
    cancelled_jobs: int
    total_files_processed: int
    average_processing_time_ms: int
    success_rate: float
    by_source_type: dict[str, int]
    by_priority: dict[str, int]
    by_status: dict[str, int]


class BatchControlled(msgspec.Struct, frozen=True, kw_only=True):
    """The action was carried out."""

    success: bool
    message: str


class InvalidBatch(ValueError):
    """A sentence that names what is wrong; ``code`` and ``named`` are for programs."""

    def __init__(self, code: str, detail: str, **named: str) -> None:
        super().__init__(detail)
        self.code = code
        self.named = named


def options_of(asked: ProcessingOptions | None) -> BatchOptions:
    """*asked* for workers. InvalidBatch."""
    if asked is None:
        return BatchOptions()
    size, overlap = asked.chunk_size, asked.chunk_overlap
    if size is not None and overlap is not None and 2 * overlap > size:
        raise InvalidBatch(
            "invalid_option",
            f"chunk_overlap is {overlap}; it can be at most half of chunk_size, which is {size}",
            field="chunk_overlap",
        )
    for source_type, options in asked.source_specific_options.items():
        if source_type not in frozenset(SourceType):
            raise InvalidBatch(
                "invalid_option",
                f"source_specific_options: there is no source_type {source_type[:40]!r}; the types are "
                f"{', '.join(SourceType)}",
                field="source_specific_options",
            )
        for name in options:
            raise InvalidBatch(
                "invalid_option",
                f"source_specific_options: {source_type} has no option {name[:40]!r}; it has none",
                field="source_specific_options",
            )
    return msgspec.convert(msgspec.structs.asdict(asked), BatchOptions)


def warnings_of(options: BatchOptions, encoders: Sequence[str]) -> tuple[str, ...]:
    """What of *options* cannot be honoured; *encoders* are those that live workers have."""
    found = []
    if options.use_llm_parsing:
        found.append(
            "use_llm_parsing: no language model is configured here, so that files are parsed by rules"
        )
    wanted = options.embedding_model_preference
    if wanted is not None and not any(_is_model(wanted, encoder) for encoder in encoders):
        used = f"{', '.join(encoders)} is used" if encoders else "this installation's encoder is used"
        found.append(f"embedding_model_preference: {wanted} is not the encoder of this installation: {used}")
    return tuple(found)


def _is_model(wanted: str, encoder: str) -> bool:
    """Whether *encoder*, a name with its version, is what a client calls *wanted*."""
    name = encoder.partition("@")[0].lower()
    return wanted.lower() in (encoder.lower(), name) or name.endswith(f"/{wanted.lower()}")


def states_of(statuses: Sequence[str] | None) -> tuple[str, ...]:
    """The states of jobs that *statuses* stand for. InvalidBatch."""
    found: list[str] = []
    for status in statuses or ():
        if status not in STATUSES:
            raise InvalidBatch(
                "unknown_status",
                f"There is no status {status[:40]!r}; the statuses are {', '.join(STATUSES)}",
                field="status_filter",
            )
        found.extend(state.value for state, word in STATUS.items() if word == status)
    return tuple(dict.fromkeys(found))


def estimate_ms(batch: BatchSource, seconds_per_file: Mapping[str, float]) -> int:
    """How long *batch* takes when workers are free, in milliseconds, by what files took of late."""
    seconds = sum(
        part.files * seconds_per_file.get(part.source_type, SECONDS_PER_FILE) for part in batch.parts
    )
    at_once = max(1, min(batch.options.files_at_once, batch.files))
    return ceil(seconds * 1_000 / at_once)


def percentage(counts: Counts, total: int) -> float:
    """The share of files that have ended; 100 only when all have."""
    if total == 0 or counts.ended >= total:
        return 100.0
    return min(99.9, round(100 * counts.ended / total, 1))


def row_of(job: Job, counts: Counts | None = None) -> BatchRow:
    """*job* with *counts*, which are those of its tally by default."""
    batch = _batch(job)
    if counts is None:
        tally = job.tally
        counts = Counts() if tally is None else Counts(tally.completed, tally.failed, tally.skipped)
    return BatchRow(**_row(job, batch, counts))


def _row(job: Job, batch: BatchSource, counts: Counts) -> dict[str, Any]:
    return {
        "job_id": job.job_id,
        "user_id": shown_user(job.submitted_by),
        "name": batch.name,
        "description": batch.description,
        "status": STATUS[job.state],
        "priority": job.priority,
        "created_at": job.submitted_at,
        "started_at": job.started_at,
        "completed_at": job.ended_at,
        "total_files": batch.files,
        "completed_files": counts.completed,
        "failed_files": counts.failed,
        "skipped_files": counts.skipped,
        "progress_percentage": percentage(counts, batch.files),
        "error": job.error or (job.reason if job.state is JobState.SKIPPED else None),
    }


def view_of(job: Job, files: Files, seconds_per_file: Mapping[str, float]) -> BatchView:
    """*job* with all of its *files*."""
    batch = _batch(job)
    sources = []
    first = 0
    for each in sources_of(job, files.counts()):
        shown = (
            file_view(files.status(item), each.source_type) for item in range(first, first + each.total_files)
        )
        sources.append(msgspec.structs.replace(each, files=tuple(shown)))
        first += each.total_files
    return BatchView(
        **_row(job, batch, files.all_counts()),
        estimated_duration_ms=estimate_ms(batch, seconds_per_file),
        warnings=batch.warnings,
        source_progress=tuple(sources),
    )


def view_without_files(job: Job, seconds_per_file: Mapping[str, float], warning: str) -> BatchView:
    """*job* by its tally alone, where its files are not known any more; *warning* says so."""
    batch, row = _batch(job), row_of(job)
    return BatchView(
        **msgspec.structs.asdict(row),
        estimated_duration_ms=estimate_ms(batch, seconds_per_file),
        warnings=(*batch.warnings, warning),
        source_progress=sources_of(job),
    )


def sources_of(job: Job, counts: Sequence[Counts] | None = None) -> tuple[SourceProgress, ...]:
    """The connections of *job* without their files, with *counts* by part or those of its tally."""
    batch = _batch(job)
    if counts is None:
        told = job.tally.parts if job.tally is not None else ()
        counts = [Counts(each.completed, each.failed, each.skipped) for each in told]
        counts += [Counts()] * (len(batch.parts) - len(counts))
    return tuple(
        SourceProgress(
            source_type=part.source_type,
            connection_id=part.connection_id,
            total_files=part.files,
            completed_files=each.completed,
            failed_files=each.failed,
            skipped_files=each.skipped,
            progress_percentage=percentage(each, part.files),
            files=(),
        )
        for part, each in zip(batch.parts, counts, strict=True)
    )


def file_view(status: FileStatus, source_type: SourceType) -> FileView:
    return FileView(
        file_id=status.file.file_id,
        status=status.word,
        progress=status.progress,
        current_step=status.step,
        error=status.error,
        retry_count=status.retries,
        file_metadata=FileMetadata(name=status.file.name, size=status.file.size, source_type=source_type),
    )


def statistics_of(summary: BatchSummary) -> BatchStatistics:
    by_status: dict[str, int] = {}
    for state, count in sorted(summary.by_state.items()):
        word = STATUS[JobState(state)]
        by_status[word] = by_status.get(word, 0) + count
    ended = {
        source: files.completed + files.failed + files.skipped
        for source, files in sorted(summary.by_source.items())
    }
    total, failed = sum(ended.values()), sum(files.failed for files in summary.by_source.values())
    return BatchStatistics(
        total_jobs=sum(summary.by_state.values()),
        active_jobs=sum(by_status.get(word, 0) for word in ACTIVE),
        completed_jobs=by_status.get("completed", 0),
        failed_jobs=by_status.get("failed", 0),
        cancelled_jobs=by_status.get("cancelled", 0),
        total_files_processed=total,
        average_processing_time_ms=round((summary.seconds_per_file or 0.0) * 1_000),
        success_rate=round(100 * (total - failed) / total, 1) if total else 0.0,
        by_source_type={source: count for source, count in ended.items() if count},
        by_priority=dict(sorted(summary.by_priority.items())),
        by_status=by_status,
    )


# What somebody without a key calls themselves is nobody's key, and shows nothing that belongs to one.
UNKEYED: Final = f"{ANONYMOUS}/"


def shown_user(owner: str) -> str:
    """The user as they call themselves, where *owner* is who a batch belongs to."""
    return owner.removeprefix(UNKEYED)


def _batch(job: Job) -> BatchSource:
    assert job.batch is not None, "only batches are shown as such"
    return job.batch
