"""What can go wrong with a job: a sentence for its owner, and whether trying again may help."""

from __future__ import annotations

import errno

import msgspec

from pharos_embedder.encoding import EncoderBusy, EncodingOutOfMemory
from pharos_embedder.parse_pool import ParsePoolBroken
from pharos_embedder.publishing import PublishConflict
from pharos_embedder.vectors import DimensionMismatch, PointsMissing, StoreError, StoreUnavailable
from pharos_sources.git_errors import (
    FetchError,
    RefNotFound,
    RepositoryEmpty,
    RepositoryNotFound,
    RepositoryTooLarge,
)
from pharos_sources.repository_url import InvalidRepositoryUrl

CODES: dict[type[Exception], str] = {
    RepositoryNotFound: "repository_not_found",
    RefNotFound: "ref_not_found",
    RepositoryEmpty: "repository_empty",
    RepositoryTooLarge: "repository_too_large",
    FetchError: "fetch_failed",
    InvalidRepositoryUrl: "invalid_repository_url",
    PublishConflict: "publish_conflict",
    EncodingOutOfMemory: "out_of_memory",
    EncoderBusy: "encoder_busy",
    DimensionMismatch: "store_mismatch",
    StoreError: "store_failed",
    ParsePoolBroken: "parsing_failed",
    TimeoutError: "timed_out",
}


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """A failure with its sentence. ``diagnostic`` is for the log alone."""

    sentence: str
    code: str
    transient: bool = False
    diagnostic: str = ""


def problem_of(error: Exception) -> Problem | None:
    """The problem that *error* stands for; None where it is not one that a job is expected to have."""
    match error:
        case FetchError():
            return Problem(
                sentence=str(error),
                code=_code(error),
                transient=error.transient,
                diagnostic=error.diagnostic,
            )
        case InvalidRepositoryUrl():
            return Problem(sentence=f"This repository may not be fetched: {error.reason}", code=_code(error))
        case PublishConflict() | EncoderBusy() | StoreUnavailable() | PointsMissing() | ParsePoolBroken():
            return Problem(sentence=str(error), code=_code(error), transient=True)
        case EncodingOutOfMemory() | StoreError():
            return Problem(sentence=str(error), code=_code(error))
        case TimeoutError():
            return Problem(
                sentence="It took longer than a job may (PHAROS_JOB_TIMEOUT_SECONDS)", code="timed_out"
            )
        case OSError() if error.errno == errno.ENOSPC:
            return Problem(
                sentence="The worker's disk is full; free some space and try again",
                code="disk_full",
                transient=True,
            )
    return None


def unexpected(error: Exception) -> Problem:
    """A bug of ours: the job fails with a sentence rather than come back for ever; the log has the rest."""
    return Problem(
        sentence=f"Something unexpected went wrong ({type(error).__name__}); the worker's log says what",
        code="internal_error",
    )


def _code(error: Exception) -> str:
    return next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)
