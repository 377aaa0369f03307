"""Every failure that a job can have is a sentence with a code, and says whether to try again."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from pharos_contracts.jobs.v1 import Stage
from pharos_embedder.batch_stages import FileTimedOut
from pharos_embedder.costs import JobTooCostly
from pharos_embedder.dataset_locks import DatasetBusy, LockLost
from pharos_embedder.documents.pool import DocumentPoolBroken
from pharos_embedder.documents.refusals import DocumentRefused
from pharos_embedder.encoders import EncoderBusy
from pharos_embedder.encoding import EncodingOutOfMemory
from pharos_embedder.parse_pool import ParsePoolBroken
from pharos_embedder.ports import unexpected
from pharos_embedder.problems import TABLE, problem_of
from pharos_embedder.provider.errors import ProviderRefused, ProviderUnavailable
from pharos_embedder.publishing import DeletedMeanwhile, PublishConflict
from pharos_embedder.stages import IndexIncomplete, StageTimedOut
from pharos_embedder.vectors import (
    DimensionMismatch,
    PointsMissing,
    StoreClosed,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreUnavailable,
)
from pharos_embedder.volumes import TooManyVolumes
from pharos_service.objects import ObjectDamaged, ObjectGone
from pharos_sources.git_errors import (
    FetchError,
    FetchFailed,
    FetchTimedOut,
    GitMissing,
    HostUnreachable,
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
    SourceRefused,
    SourceUnavailable,
    SourceUnreadable,
)
from pharos_sources.web_address import InvalidWebAddress
from pharos_sources.web_errors import HTTPError, WebError

URL = "https://h/o/r"
CLASSED: list[tuple[Exception, str, bool]] = [
    (RepositoryNotFound(URL), "repository_not_found", False),
    (RefNotFound(URL, "main"), "ref_not_found", False),
    (RepositoryEmpty(URL), "repository_empty", False),
    (RepositoryTooLarge(URL, "2 GiB"), "repository_too_large", False),
    (FetchTimedOut(URL, 9), "fetch_failed", True),
    (HostUnreachable("h", transient=True), "fetch_failed", True),
    (HostUnreachable("h", transient=False), "fetch_failed", False),
    (FetchFailed("the disk is full", transient=True), "fetch_failed", True),
    (FetchFailed("the host does not have a public address"), "fetch_failed", False),
    (GitMissing(), "fetch_failed", False),
    (FetchError("x"), "fetch_failed", False),
    (InvalidRepositoryUrl("not public"), "invalid_repository_url", False),
    (DocumentRefused("document_scanned", "Its pages are pictures."), "document_scanned", False),
    (DocumentPoolBroken("x"), "parsing_failed", True),
    (HTTPError(404), "fetch_failed", False),
    (HTTPError(503), "fetch_failed", True),
    (WebError("x"), "fetch_failed", False),
    (InvalidWebAddress("not public"), "invalid_url", False),
    (ObjectGone(), "upload_gone", False),
    (ObjectDamaged(), "upload_damaged", False),
    (PublishConflict("d"), "publish_conflict", True),
    (DeletedMeanwhile("d"), "dataset_deleted", False),
    (IndexIncomplete("d"), "publish_conflict", True),
    (DatasetBusy("d"), "dataset_busy", True),
    (LockLost(), "dataset_lost", True),
    (EncoderBusy("full"), "encoder_busy", True),
    (JobTooCostly(9, 8), "job_too_costly", False),
    (ProviderUnavailable("h", "it is away"), "encoder_unavailable", True),
    (ProviderRefused("h", "refuses the key", "check it"), "encoder_refused", False),
    (EncodingOutOfMemory(9), "out_of_memory", True),
    (MemoryError(), "out_of_memory", True),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out_of_memory", True),
    (OSError(errno.ENOMEM, "no memory"), "out_of_memory", True),
    (StoreUnavailable("away"), "store_unavailable", True),
    (PointsMissing(3), "store_changed", True),
    (StoreFull("full"), "disk_full", True),
    (OSError(errno.ENOSPC, "full"), "disk_full", True),
    (OSError(errno.EDQUOT, "full"), "disk_full", True),
    (DimensionMismatch("here", 3, 4), "store_mismatch", False),
    (StoreLocked("x"), "store_failed", False),
    (TooManyVolumes("x"), "store_failed", False),
    (StoreClosed("x"), "store_failed", False),
    (StoreError("x"), "store_failed", False),
    (ParsePoolBroken("x"), "parsing_failed", True),
    (EntryNotFound("a"), "file_not_found", False),
    (EntryRefused("a", "it is a link"), "file_refused", False),
    (EntryTooLarge("a", 9), "file_too_large", False),
    (SourceError("x"), "source_refused", False),
    (SourceRefused("there is no connection"), "source_refused", False),
    (SourceUnreadable("it is no archive"), "source_unreadable", False),
    (SourceUnavailable("it is busy"), "source_unavailable", True),
    *((FileTimedOut(stage, 9), "timed_out", stage in (Stage.ACCESS, Stage.FETCH)) for stage in Stage),
    (StageTimedOut(None, 60), "timed_out", False),
    *((StageTimedOut(stage, 60), "timed_out", stage in (Stage.ACCESS, Stage.FETCH)) for stage in Stage),
]


@pytest.mark.parametrize(("error", "code", "transient"), CLASSED)
def test_a_failure_is_a_sentence_with_a_code(error: Exception, code: str, transient: bool) -> None:
    problem = problem_of(error)
    assert problem is not None
    assert (problem.code, problem.transient) == (code, transient)
    assert len(problem.sentence) > 0


def derived(kind: type[Exception]) -> Iterator[type[Exception]]:
    for each in kind.__subclasses__():
        yield each
        yield from derived(each)


def test_every_row_and_every_error_of_the_fetch_and_of_the_store_is_tested_above() -> None:
    tested = {type(error) for error, _, _ in CLASSED}
    fetching = {each for each in derived(FetchError) if each.__module__ == FetchError.__module__}
    assert tested >= {*TABLE, *fetching, *derived(StoreError)}


def test_a_stage_that_took_too_long_is_named_with_its_limit() -> None:
    problem = problem_of(StageTimedOut(Stage.PARSE, 1800))
    assert problem is not None
    assert problem.sentence == "Its stage 'parse' took longer than the 1800 seconds that it may take"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "secret detail"),
        ValueError("secret detail"),
        KeyError("secret detail"),
        TimeoutError(),
    ],
)
def test_what_nobody_expects_is_not_taken_for_a_known_failure(error: Exception) -> None:
    assert problem_of(error) is None
    assert "log" in unexpected(error).sentence
    assert "secret detail" not in unexpected(error).sentence


def test_a_page_that_is_not_there_and_a_document_that_cannot_be_read_say_so_in_their_own_words() -> None:
    sentences = [
        problem.sentence
        for error in (HTTPError(404), DocumentRefused("document_empty", "The document is empty."))
        if (problem := problem_of(error)) is not None
    ]
    assert sentences == ["HTTPError: 404 Not Found", "The document is empty."]
