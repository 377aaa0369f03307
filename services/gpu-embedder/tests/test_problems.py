"""Every failure that a job can have is a sentence with a code, and says whether to try again."""

from __future__ import annotations

import errno

import pytest

from pharos_embedder.encoding import EncoderBusy, EncodingOutOfMemory
from pharos_embedder.parse_pool import ParsePoolBroken
from pharos_embedder.problems import problem_of, unexpected
from pharos_embedder.publishing import PublishConflict
from pharos_embedder.vectors import DimensionMismatch, PointsMissing, StoreError, StoreUnavailable
from pharos_sources.git_errors import (
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

URL = "https://h/o/r"


@pytest.mark.parametrize(
    ("error", "code", "transient"),
    [
        (RepositoryNotFound(URL), "repository_not_found", False),
        (RefNotFound(URL, "main"), "ref_not_found", False),
        (RepositoryEmpty(URL), "repository_empty", False),
        (RepositoryTooLarge(URL, "2 GiB"), "repository_too_large", False),
        (FetchTimedOut(URL, 9), "fetch_failed", FetchTimedOut.transient),
        (HostUnreachable("h", transient=True), "fetch_failed", True),
        (FetchFailed("x", transient=False), "fetch_failed", False),
        (GitMissing(), "fetch_failed", GitMissing.transient),
        (InvalidRepositoryUrl("not public"), "invalid_repository_url", False),
        (PublishConflict("d"), "publish_conflict", True),
        (EncoderBusy("full"), "encoder_busy", True),
        (EncodingOutOfMemory(9), "out_of_memory", False),
        (StoreUnavailable("away"), "store_failed", True),
        (PointsMissing(3), "store_failed", True),
        (DimensionMismatch("here", 3, 4), "store_mismatch", False),
        (StoreError("x"), "store_failed", False),
        (ParsePoolBroken("x"), "parsing_failed", True),
        (TimeoutError(), "timed_out", False),
        (OSError(errno.ENOSPC, "full"), "disk_full", True),
    ],
)
def test_a_failure_is_a_sentence_with_a_code(error: Exception, code: str, transient: bool) -> None:
    problem = problem_of(error)
    assert problem is not None
    assert (problem.code, problem.transient) == (code, transient)
    assert len(problem.sentence) > 0


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "secret detail"), ValueError("secret detail"), KeyError("secret detail")]
)
def test_what_nobody_expects_is_not_taken_for_a_known_failure(error: Exception) -> None:
    assert problem_of(error) is None
    assert "log" in unexpected(error).sentence
    assert "secret detail" not in unexpected(error).sentence
