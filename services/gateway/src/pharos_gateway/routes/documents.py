"""``/knowledge``: texts, addresses and files to make searchable; ``/ops/jobs``: what became of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec
from litestar import Request, Router, get, post
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIType, Operation, RequestBody, Schema
from litestar.params import FromPath, HeaderParameter, JSONBody, QueryParameter

from pharos_contracts.jobs.v1 import JobKind
from pharos_gateway import documents, examples, openapi
from pharos_gateway.access import Access
from pharos_gateway.audit import note_target
from pharos_gateway.authentication import caller_of
from pharos_gateway.disk import Disk
from pharos_gateway.document_ingest import DocumentIngest, check_kind
from pharos_gateway.documents import DocumentJob, DocumentQueued, DocumentRequest, TextRequest, UrlRequest
from pharos_gateway.finding import Finder, HistoryUnavailable, find
from pharos_gateway.problems import invalid, not_found, unavailable
from pharos_gateway.reachability import Unreachable, reach
from pharos_gateway.submitting import QueueUnavailable
from pharos_gateway.uploads import Uploads
from pharos_service.bus import Bus, BusError
from pharos_sources.document_kinds import SUPPORTED

FILE: Final = "file"
FIELDS: Final = frozenset(DocumentRequest.__struct_fields__)

_Key = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="The same key within 24 h returns the first answer.",
    ),
]


@dataclass
class _FormOperation(Operation):
    """The body is read as it comes, so that nothing but this says what is in it."""

    def __post_init__(self) -> None:
        text = Schema(type=OpenAPIType.STRING)
        self.request_body = RequestBody(
            required=True,
            content={
                "multipart/form-data": OpenAPIMediaType(
                    schema=Schema(
                        type=OpenAPIType.OBJECT,
                        required=[FILE],
                        properties={
                            FILE: Schema(
                                type=OpenAPIType.STRING, content_media_type="application/octet-stream"
                            ),
                            **dict.fromkeys(sorted(FIELDS), text),
                        },
                    )
                )
            },
        )


def routes(
    access: Access, disk: Disk, bus: Bus, finder: Finder, ingesting: DocumentIngest, uploads: Uploads
) -> Router:
    """The routes of this family."""
    common: dict[str, Any] = {
        "status_code": 200,
        "guards": [access.editor, disk.has_room],
        "security": list(openapi.SECURITY),
    }

    async def first(answer: DocumentQueued, tenant: str, idempotency_key: str | None) -> DocumentQueued:
        """*answer*, or with an Idempotency-Key that of whoever sent it first, whatever this one asks for."""
        if idempotency_key is None:
            return answer
        try:
            job = await finder.known(tenant, answer.job_id)
        except BusError as error:
            raise QueueUnavailable(str(error), answer.job_id) from error
        return documents.as_first(answer, None if job is None else job.document)

    @post(
        "/knowledge/ingest-text-async",
        summary="Make a text searchable",
        description="At once: `GET /ops/jobs/{job_id}` says how far it is. The same `Idempotency-Key` of "
        "another day, and without one the same text, replaces what there was of it. With `callback_url`, "
        f"{examples.CALLBACK}",
        responses={
            200: openapi.success(DocumentQueued, examples.TEXT_QUEUED, "Accepted, or found"),
            **openapi.errors(400, 401, 403, 413, 429, 503, 507, invalid=examples.EMPTY_DOCUMENT),
        },
        **common,
    )
    async def ingest_text(
        request: Request[Any, Any, Any], data: JSONBody[TextRequest], idempotency_key: _Key = None
    ) -> DocumentQueued:
        caller = caller_of(request)
        note_target(request, data.source)
        submitted = await ingesting.text(data, caller, idempotency_key)
        answer = documents.queued(submitted, kind=JobKind.TEXT, tenant=caller.tenant, source=data.source)
        return await first(answer, caller.tenant, idempotency_key)

    @post(
        "/knowledge/ingest-url-async",
        summary="Fetch a page or another document, and make it searchable",
        description="The same address again replaces what there was of it; while the first is waiting or "
        f"being read, it is answered with that job. With `callback_url`, {examples.CALLBACK}",
        responses={
            200: openapi.success(DocumentQueued, examples.URL_QUEUED, "Accepted, or found"),
            **openapi.errors(400, 401, 403, 429, 503, 507, invalid=examples.UNSAFE_URL),
        },
        **common,
    )
    async def ingest_url(
        request: Request[Any, Any, Any], data: JSONBody[UrlRequest], idempotency_key: _Key = None
    ) -> DocumentQueued:
        caller = caller_of(request)
        note_target(request, data.source)  # its address may hold a secret
        submitted = await ingesting.url(data, caller, idempotency_key)
        answer = documents.queued(
            submitted, kind=JobKind.URL, tenant=caller.tenant, source=data.source, url=data.url
        )
        return await first(answer, caller.tenant, idempotency_key)

    @post(
        "/knowledge/ingest-file-async",
        summary="Make a file searchable",
        description=f"Read here: {SUPPORTED}. A file of the same name from the same source replaces what "
        "there was of it. The fields may come in the form or in the query; the form wins. With "
        f"`callback_url`, {examples.CALLBACK}",
        operation_class=_FormOperation,
        responses={
            200: openapi.success(DocumentQueued, examples.FILE_QUEUED, "Accepted, or found"),
            **openapi.errors(400, 401, 403, 408, 413, 429, 503, 507, invalid=examples.UNSUPPORTED_DOCUMENT),
        },
        **common,
    )
    async def ingest_file(
        request: Request[Any, Any, Any],
        source: Annotated[str | None, QueryParameter(description="Where it comes from.")] = None,
        project: Annotated[str | None, QueryParameter(description="Default: `default`.")] = None,
        priority: Annotated[str | None, QueryParameter(description="Its class in the queue.")] = None,
        callback_url: Annotated[
            str | None, QueryParameter(description="Where to POST when the job has ended.")
        ] = None,
        idempotency_key: _Key = None,
    ) -> DocumentQueued:
        query = {"source": source, "project": project, "priority": priority, "callback_url": callback_url}
        given = {name: value for name, value in query.items() if value is not None}
        caller = caller_of(request)
        try:
            async with uploads.received(request, file=FILE, fields=FIELDS, check=check_kind) as upload:
                fields = _fields({**given, **upload.fields})
                note_target(request, f"{fields.source}/{upload.filename}")
                submitted = await ingesting.file(fields, upload, caller, idempotency_key)
                answer = documents.queued(
                    submitted,
                    kind=JobKind.FILE,
                    tenant=caller.tenant,
                    source=fields.source,
                    filename=upload.filename,
                )
                return await first(answer, caller.tenant, idempotency_key)
        except BusError as error:
            raise QueueUnavailable(str(error)) from error

    @get(
        "/ops/jobs/{job_id:str}",
        guards=[access.editor],
        security=list(openapi.SECURITY),
        summary="What became of a job",
        description="Of a job of any kind, as long as history keeps it. What was cancelled, or waited too "
        "long, has `failed` too.",
        responses={
            200: openapi.success(DocumentJob, examples.DOCUMENT_JOB, "As it is now"),
            **openapi.errors(401, 403, 404, 503),
        },
    )
    async def document_job(request: Request[Any, Any, Any], job_id: FromPath[str]) -> DocumentJob:
        try:
            await reach(bus)
            job = await find(finder, caller_of(request).sight, job_id)
        except HistoryUnavailable as error:
            raise unavailable("History", str(error)) from error
        except (BusError, Unreachable) as error:
            raise unavailable("Jobs", str(error)) from error
        if job is None:
            raise not_found("job")
        return documents.shown(job)

    return Router(
        "/", route_handlers=[ingest_text, ingest_url, ingest_file, document_job], tags=["documents"]
    )


def _fields(given: dict[str, str]) -> DocumentRequest:
    try:
        return msgspec.convert(given, DocumentRequest)
    except msgspec.ValidationError as error:
        raise invalid(f"Invalid request: {error}") from error
