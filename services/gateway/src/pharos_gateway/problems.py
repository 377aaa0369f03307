"""Our errors to ``{"detail", "code"}``: the one place where an exception becomes an HTTP answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, SerializationException, ValidationException
from litestar.types import ExceptionHandlersMap

from pharos_contracts.identity import InvalidName
from pharos_gateway.access import KeysUnknown, RateExceeded, TooManyGuesses
from pharos_gateway.addressing import ReservedDataset
from pharos_gateway.authentication import (
    Forbidden,
    InvalidIdentity,
    OtherProject,
    OtherUser,
    Unauthenticated,
    address_of,
)
from pharos_gateway.batches import InvalidBatch
from pharos_gateway.batching import BatchUndecided
from pharos_gateway.callback_url import InvalidCallbackUrl
from pharos_gateway.commanding import CommandUnsent, SchedulerSilent
from pharos_gateway.connections import ArchivesFull, ConnectionTaken, TooManyConnections
from pharos_gateway.controlling import InvalidTransition, UnknownAction
from pharos_gateway.deleting import DeletionUnfinished, StoreUnavailable
from pharos_gateway.disk import DiskNearlyFull
from pharos_gateway.document_ingest import EmptyDocument, ReservedSource
from pharos_gateway.github import UnreadableDelivery
from pharos_gateway.issuing import TooManyKeys
from pharos_gateway.job_requests import WrongRoute
from pharos_gateway.keys import InvalidKeyRequest, KeyNotLive
from pharos_gateway.project_names import ReservedProject
from pharos_gateway.pushing import UnknownSignature
from pharos_gateway.quotas import TooManyJobs
from pharos_gateway.reachability import Unreachable
from pharos_gateway.resource_keeping import (
    DeletionFailed,
    DeletionWaits,
    KeySpent,
    NobodyDeletes,
    ResourcesUnknown,
    TooManyResources,
)
from pharos_gateway.resources import InvalidLink
from pharos_gateway.scheduling import NO_CONTROLS, ScheduleTaken
from pharos_gateway.sources import SourceSlow, TooManyLooks
from pharos_gateway.submitting import HostRefused, QueueFull, QueueUnavailable, TenantQueueFull
from pharos_gateway.uploads import (
    ClientGone,
    InvalidUpload,
    TooManyUploads,
    UploadsFull,
    UploadTooLarge,
    UploadTooSlow,
)
from pharos_gateway.watching import InvalidWatch, TooManyWatches, WebhooksDisabled
from pharos_service.asking import NobodyAnswers, QuestionRefused
from pharos_service.bus import BusError
from pharos_sources.connections import InvalidConnection
from pharos_sources.document_kinds import UnsupportedDocument
from pharos_sources.keeping import NothingToSealWith
from pharos_sources.repository_url import InvalidRef, InvalidRepositoryUrl
from pharos_sources.source import EntryNotFound, InvalidCursor, SourceError
from pharos_sources.web_address import InvalidWebAddress

log = structlog.get_logger()

UNAUTHENTICATED: Final = "Invalid or missing authentication token"

_BY_STATUS: Final[Mapping[int, tuple[str, str]]] = {
    404: ("not_found", "There is nothing at this address"),
    405: ("method_not_allowed", "This address does not answer this method"),
    413: ("body_too_large", "The body of the request is larger than 1 MiB"),
    415: ("unsupported_media_type", "The body of the request is of a type that is not understood"),
}

# How the text of an error begins to tell the pattern that is in the way, which says nothing to a reader.
INVISIBLE: Final = repr(NO_CONTROLS.rpartition("]")[0])[1:-1]

# 422 is not a status of this API: whatever cannot be understood is 400.
_REFUSAL_STATUS: Final[Mapping[int, int]] = {400: 400, 404: 404, 409: 409, 422: 400, 429: 429}


class Problem(Exception):
    """An answer other than the one hoped for. ``extra`` joins ``detail`` and ``code`` in the body."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})


def unavailable(what: str, reason: str) -> Problem:
    """*what* cannot be had at the moment."""
    return Problem(503, "unavailable", f"{what} unavailable: {reason}", headers={"Retry-After": "1"})


def not_found(what: str) -> Problem:
    """The same for what does not exist and for what the caller may not know of."""
    return Problem(404, "not_found", f"There is no such {what}")


def invalid(detail: str, *, field: str | None = None) -> Problem:
    """Something in the request cannot be understood; *field* names it."""
    return Problem(400, "invalid_request", detail, extra={"field": field} if field else None)


def _slow_down(code: str, detail: str, seconds: int) -> Problem:
    return Problem(429, code, detail, headers={"Retry-After": str(seconds)})


def callbacks_disabled() -> Problem:
    """Nothing could sign a callback here."""
    return Problem(
        400,
        "callbacks_disabled",
        "Callbacks need the setting PHAROS_SECRET_KEY, which this installation does not have",
    )


def problem_of(error: Exception) -> Problem:  # one case for each kind of error
    """The answer that *error* stands for."""
    match error:
        case Problem():
            return error
        case UnknownSignature():
            return Problem(
                401,
                "unknown_signature",
                "Nobody here watches this repository with a secret that makes this signature",
                headers={"WWW-Authenticate": "X-Hub-Signature-256"},
            )
        case Unauthenticated():
            return Problem(401, "unauthenticated", UNAUTHENTICATED, headers={"WWW-Authenticate": "Bearer"})
        case Forbidden():
            return Problem(403, "forbidden", str(error), extra={"needed": error.needed})
        case OtherProject():
            return Problem(403, "other_project", str(error))
        case OtherUser():
            return Problem(403, "other_user", str(error))
        case TooManyGuesses():
            return _slow_down("too_many_guesses", str(error), error.retry_seconds)
        case RateExceeded():
            return _slow_down("rate_exceeded", str(error), error.retry_seconds)
        case TooManyJobs():
            return _slow_down("too_many_jobs", str(error), error.retry_seconds)
        case KeysUnknown():
            return unavailable("Keys", "the bus has not told them yet")
        case DiskNearlyFull():
            return Problem(
                507,
                "disk_nearly_full",
                str(error),
                extra={"free_mb": error.free_mb, "min_mb": error.min_mb},
            )
        case InvalidIdentity() | InvalidName():
            return invalid(str(error))
        case ReservedProject():
            return invalid(str(error), field="project")
        case InvalidKeyRequest():
            return invalid(error.detail, field=error.field)
        case KeyNotLive():
            return Problem(409, "key_not_live", str(error))
        case InvalidBatch():
            return Problem(400, error.code, str(error), extra=error.named)
        case BatchUndecided():
            return Problem(
                503, "fate_unknown", str(error), headers={"Retry-After": "5"}, extra={"job_id": error.job_id}
            )
        case ScheduleTaken():
            return Problem(409, "schedule_taken", str(error))
        case TooManyWatches():
            return Problem(409, "too_many_webhooks", str(error))
        case WebhooksDisabled():
            return Problem(400, "webhooks_disabled", str(error))
        case InvalidWatch():
            return invalid(error.detail, field=error.field)
        case UnreadableDelivery():
            return invalid(str(error))
        case ConnectionTaken():
            return Problem(409, "connection_taken", str(error))
        case TooManyConnections():
            return Problem(409, "too_many_connections", str(error))
        case ArchivesFull():
            return Problem(409, "archives_full", str(error))
        case InvalidConnection():
            return Problem(400, "invalid_connection", str(error), extra={"field": error.field})
        case NothingToSealWith():
            return Problem(400, "secrets_disabled", str(error))
        case TooManyLooks():
            return _slow_down("too_many_looks", str(error), error.retry_seconds)
        case SourceSlow():
            return Problem(504, "source_slow", str(error))
        case InvalidCursor():
            return invalid(str(error), field="cursor")
        case EntryNotFound():
            return Problem(404, "no_such_file", str(error))
        case SourceError() if error.transient:
            return Problem(503, "source_unavailable", str(error), headers={"Retry-After": "5"})
        case SourceError():
            return Problem(409, "source_refused", str(error))
        case TooManyKeys():
            return Problem(409, "too_many_keys", str(error))
        case InvalidRepositoryUrl() | HostRefused():
            return Problem(
                400, "invalid_repository_url", "Invalid repository URL", extra={"reason": error.reason}
            )
        case InvalidRef():
            return Problem(400, "invalid_ref", "Invalid branch or commit", extra={"reason": error.reason})
        case InvalidWebAddress():
            return Problem(400, "invalid_url", "Invalid URL", extra={"reason": error.reason})
        case ReservedDataset():
            return invalid(str(error), field="dataset")
        case ReservedSource():
            return invalid(str(error), field="source")
        case EmptyDocument():
            return Problem(400, "document_empty", str(error))
        case WrongRoute():
            return Problem(400, "wrong_route", str(error))
        case UnsupportedDocument():
            return Problem(400, "document_unsupported", str(error))
        case InvalidUpload():
            return invalid(error.detail, field=error.field)
        case ClientGone():
            return invalid("The body ended before the upload did")
        case UploadTooLarge():
            return Problem(413, "upload_too_large", str(error), extra={"max_bytes": error.bytes_max})
        case UploadTooSlow():
            return Problem(408, "upload_too_slow", str(error))
        case UploadsFull():
            return Problem(507, "uploads_full", str(error), headers={"Retry-After": "60"})
        case TooManyUploads():
            return _slow_down("too_many_uploads", str(error), error.retry_seconds)
        case InvalidCallbackUrl():
            return Problem(
                400, "invalid_callback_url", "Invalid callback URL", extra={"reason": error.reason}
            )
        case UnknownAction():
            return Problem(400, "unknown_action", str(error))
        case InvalidTransition():
            return Problem(409, "invalid_transition", error.detail, extra={"status": error.state})
        case TenantQueueFull():
            return Problem(
                429,
                "tenant_queue_full",
                f"Your queue is full ({error.size} pending tasks). Please try again later.",
                headers={"Retry-After": str(error.retry_after_seconds)},
                extra={"queue_size": error.size, "max_queue_size": error.capacity},
            )
        case QueueFull():
            return Problem(
                429,
                "queue_full",
                f"Queue is full ({error.size} pending tasks). Please try again later.",
                headers={"Retry-After": str(error.retry_after_seconds)},
                extra={"queue_size": error.size, "max_queue_size": error.capacity},
            )
        case QueueUnavailable():
            return Problem(
                503,
                "queue_unavailable" if error.job_id is None else "fate_unknown",
                f"Queue unavailable: {error.reason}",
                headers={"Retry-After": "1"},
                extra=None if error.job_id is None else {"job_id": error.job_id},
            )
        case CommandUnsent():
            fate = "; it may have been stored all the same" if error.fate_unknown else ""
            return Problem(
                503,
                "fate_unknown" if error.fate_unknown else "unavailable",
                f"The command could not be sent: {error.reason}{fate}",
                headers={"Retry-After": "1"},
            )
        case SchedulerSilent():
            return Problem(
                503,
                "scheduler_silent",
                "No scheduler has answered yet; the command is stored and will be carried out",
                headers={"Retry-After": "5"},
            )
        case InvalidLink():
            return invalid(str(error), field="url")
        case KeySpent():
            return Problem(409, "idempotency_key_spent", str(error))
        case TooManyResources():
            return Problem(409, "too_many_resources", str(error))
        case ResourcesUnknown():
            return unavailable("Resources", "the bus has not told them yet")
        case NobodyDeletes():
            return unavailable("Index", str(error))
        case DeletionWaits():
            return Problem(
                503,
                "deletion_waits",
                str(error),
                headers={"Retry-After": "5"},
                extra={"job_id": error.job_id},
            )
        case DeletionFailed():
            return Problem(503, "deletion_failed", str(error), headers={"Retry-After": "5"})
        case StoreUnavailable():
            return unavailable("Index", str(error))
        case DeletionUnfinished():
            return Problem(
                503,
                "deletion_unfinished",
                "It is being deleted, and nobody finds it any more; ask again to have the rest deleted",
                headers={"Retry-After": "1"},
            )
        case QuestionRefused():
            refusal = error.refusal
            # Only what the client can do something about keeps its status; the rest is ours.
            status = _REFUSAL_STATUS.get(refusal.status, 503)
            return Problem(status, refusal.code, refusal.detail)
        case NobodyAnswers():
            return unavailable("Service", str(error))
        case BusError() | Unreachable():
            return unavailable("Bus", str(error))
        case UnicodeDecodeError():
            return invalid("The body of the request is not valid UTF-8")
        case RecursionError():
            return invalid("The body of the request is nested too deeply")
        case ValidationException():
            return _validation(error)
        case HTTPException() if isinstance(error.__cause__, SerializationException):
            return invalid("The body of the request is not valid JSON")
        case HTTPException() if error.status_code < 500:
            code, detail = _BY_STATUS.get(
                error.status_code, ("invalid_request", "The request could not be understood")
            )
            return Problem(
                error.status_code if error.status_code in _BY_STATUS else 400,
                code,
                detail,
                headers=dict(error.headers or {}),
            )
        case _:
            return Problem(
                500, "internal_error", "Something went wrong here; the log of the gateway says what"
            )


def readable(message: str) -> str:
    """What msgspec says of a value, without the pattern of NO_CONTROLS."""
    if INVISIBLE in message:
        return "it has control characters, or others that nobody sees; leave them out"
    return message


def _validation(error: ValidationException) -> Problem:
    """Litestar's list of what does not fit, as one sentence that names the first."""
    found = error.extra if isinstance(error.extra, list) else []
    first = found[0] if found and isinstance(found[0], dict) else {}
    message = str(first.get("message", "")).strip().rstrip(".")
    field = str(first.get("key", "")) or None
    if field == "data" and message == repr("data"):  # how Litestar says that there was none
        return invalid("The request has no body")
    if not message:
        return invalid("The request could not be understood")
    message = readable(message)
    where = f"'{field}': " if field is not None and field != "data" else ""
    return invalid(f"Invalid request: {where}{message}", field=None if field == "data" else field)


def body_of(problem: Problem) -> dict[str, Any]:
    return {"detail": problem.detail, "code": problem.code, **problem.extra}


def answer(request: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
    """Every error of every route comes by here."""
    problem = problem_of(error)
    if problem.status == 401:
        # The path is left out: somebody may have put a credential into the address of a repository.
        log.warning("authentication_failed", client=address_of(request), method=request.method)
    elif problem.status == 500:
        log.error("request_failed", method=request.method, exc_info=error)
    return Response(
        body_of(problem),
        status_code=problem.status,
        headers=problem.headers,
        media_type="application/json",
    )


HANDLERS: Final[ExceptionHandlersMap] = {HTTPException: answer, Exception: answer}
