"""What can go wrong with a job, as one table: a code, whether to try again, a sentence for its owner.

A row stands for an error and for those derived from it that have no row of their own.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from pharos_contracts.jobs.v1 import Stage
from pharos_embedder.costs import JobTooCostly
from pharos_embedder.dataset_locks import DatasetBusy, LockLost
from pharos_embedder.devices import is_out_of_memory
from pharos_embedder.documents.pool import DocumentPoolBroken
from pharos_embedder.documents.refusals import DocumentRefused
from pharos_embedder.encoders import EncoderBusy
from pharos_embedder.encoding import EncodingOutOfMemory
from pharos_embedder.parse_pool import ParsePoolBroken
from pharos_embedder.pipeline import OUT_OF_MEMORY
from pharos_embedder.ports import Problem
from pharos_embedder.provider.errors import ProviderRefused, ProviderUnavailable
from pharos_embedder.publishing import DeletedMeanwhile, PublishConflict
from pharos_embedder.stages import IndexIncomplete, StageTimedOut
from pharos_embedder.vectors import (
    DimensionMismatch,
    PointsMissing,
    StoreError,
    StoreFull,
    StoreUnavailable,
)
from pharos_service.objects import ObjectDamaged, ObjectGone
from pharos_sources.git_errors import (
    FetchError,
    RefNotFound,
    RepositoryEmpty,
    RepositoryNotFound,
    RepositoryTooLarge,
)
from pharos_sources.repository_url import InvalidRepositoryUrl
from pharos_sources.source import (
    EntryNotFound,
    EntryRefused,
    EntryTooLarge,
    SourceError,
    SourceUnavailable,
    SourceUnreadable,
)
from pharos_sources.web_address import InvalidWebAddress
from pharos_sources.web_errors import WebError


class Row(NamedTuple):
    """What is not fixed depends on the error."""

    code: str | Callable[[Any], str]
    transient: bool | Callable[[Any], bool]
    sentence: str | Callable[[Any], str] = str


DISK_FULL: Final = Row(
    "disk_full", True, "The worker's disk is full; it is tried again when some space may be free"
)
MEMORY: Final = Row(
    OUT_OF_MEMORY, True, "The worker ran out of memory; it is tried again with smaller batches"
)

TABLE: Final[Mapping[type[Exception], Row]] = {
    RepositoryNotFound: Row("repository_not_found", False),
    RefNotFound: Row("ref_not_found", False),
    RepositoryEmpty: Row("repository_empty", False),
    RepositoryTooLarge: Row("repository_too_large", False),
    FetchError: Row("fetch_failed", lambda error: error.transient),
    InvalidRepositoryUrl: Row(
        "invalid_repository_url", False, lambda error: f"This repository may not be fetched: {error.reason}"
    ),
    DocumentRefused: Row(lambda error: error.code, False, lambda error: error.sentence),
    DocumentPoolBroken: Row("parsing_failed", True),
    WebError: Row("fetch_failed", lambda error: error.transient),
    InvalidWebAddress: Row(
        "invalid_url", False, lambda error: f"This address may not be fetched: {error.reason}"
    ),
    ObjectGone: Row("upload_gone", False, "What was uploaded is no longer kept; send the document again"),
    ObjectDamaged: Row("upload_damaged", False, "What was uploaded is damaged; send the document again"),
    PublishConflict: Row("publish_conflict", True),
    DeletedMeanwhile: Row("dataset_deleted", False),
    IndexIncomplete: Row("publish_conflict", True),
    DatasetBusy: Row("dataset_busy", True),
    LockLost: Row("dataset_lost", True),
    EncoderBusy: Row("encoder_busy", True),
    EncodingOutOfMemory: MEMORY,
    JobTooCostly: Row("job_too_costly", False),
    ProviderUnavailable: Row("encoder_unavailable", True),
    ProviderRefused: Row("encoder_refused", False),
    MemoryError: MEMORY,
    StoreUnavailable: Row("store_unavailable", True),
    PointsMissing: Row("store_changed", True),
    StoreFull: DISK_FULL,
    DimensionMismatch: Row("store_mismatch", False),
    StoreError: Row("store_failed", False),
    ParsePoolBroken: Row("parsing_failed", True),
    # A slow network may be faster next time; a stage that computes takes as long again.
    StageTimedOut: Row("timed_out", lambda error: error.stage in (Stage.ACCESS, Stage.FETCH)),
    EntryNotFound: Row("file_not_found", False),
    EntryRefused: Row("file_refused", False),
    EntryTooLarge: Row("file_too_large", False),
    SourceUnavailable: Row("source_unavailable", True),
    SourceUnreadable: Row("source_unreadable", False),
    SourceError: Row("source_refused", lambda error: error.transient),
}
NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def problem_of(error: Exception) -> Problem | None:
    """The problem that *error* stands for; None where it is not one that a job is expected to have."""
    row = _row_of(error)
    if row is None:
        return None
    return Problem(
        sentence=row.sentence if isinstance(row.sentence, str) else row.sentence(error),
        code=row.code if isinstance(row.code, str) else row.code(error),
        transient=row.transient if isinstance(row.transient, bool) else row.transient(error),
        diagnostic=error.diagnostic if isinstance(error, FetchError) else "",
    )


def _row_of(error: Exception) -> Row | None:
    for kind in type(error).__mro__:
        if issubclass(kind, Exception) and kind in TABLE:
            return TABLE[kind]
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        return DISK_FULL
    if is_out_of_memory(error) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return MEMORY
    return None
