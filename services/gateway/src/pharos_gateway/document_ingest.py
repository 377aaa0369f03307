"""Submitting a document: its bytes into the object store, where it has any, then its job."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from pharos_contracts.identity import fingerprint
from pharos_contracts.jobs.v1 import DocumentSource, JobKind
from pharos_contracts.resources.v1 import RESOURCES_LABEL
from pharos_gateway.authentication import Caller, OtherProject
from pharos_gateway.callback_url import CallbackAddress
from pharos_gateway.documents import DocumentRequest, TextRequest, UrlRequest
from pharos_gateway.project_names import one_project
from pharos_gateway.quotas import subject_of
from pharos_gateway.submitting import DocumentOrder, HostRefused, QueueUnavailable, Submitted, Submitting
from pharos_gateway.uploads import Upload, Uploads
from pharos_service.bus import BusError
from pharos_sources.document_kinds import is_text_name, named_kind
from pharos_sources.hosts import AllowedHosts
from pharos_sources.web_address import InvalidWebAddress, WebAddress, parse_web_address

TEXT_TYPE: Final = "text/plain; charset=utf-8"


class ReservedSource(ValueError):
    """It is the one that resources are in, which belong to their users."""

    def __init__(self) -> None:
        super().__init__(f"The source {RESOURCES_LABEL!r} is for what is sent to /resources; name another")


class EmptyDocument(ValueError):
    """There is nothing in it but space."""

    def __init__(self) -> None:
        super().__init__("The text is empty")


def check_kind(filename: str, media_type: str) -> None:
    """UnsupportedDocument for a file that is known by its name or type, and not read."""
    named_kind(filename, media_type, is_source=is_text_name)


class DocumentIngest:
    """The use case. One object serves every request of a process."""

    def __init__(
        self,
        submitting: Submitting,
        uploads: Uploads,
        *,
        allowed_hosts: AllowedHosts,
        callback_of: Callable[[str], CallbackAddress],
    ) -> None:
        self._submitting = submitting
        self._uploads = uploads
        self._allowed_hosts = allowed_hosts
        self._callback_of = callback_of

    async def text(self, request: TextRequest, caller: Caller, idempotency_key: str | None) -> Submitted:
        """EmptyDocument, ReservedSource, UploadsFull, OtherProject, InvalidCallbackUrl, and of ``submit``."""
        if not request.text.strip():
            raise EmptyDocument
        # A key is its user's own: what another one calls so is another text.
        parts = (request.text,) if idempotency_key is None else (caller.user, idempotency_key)
        name = f"text-{fingerprint(*parts)}"
        wanted = self._order(JobKind.TEXT, request, caller, idempotency_key)
        content = request.text.encode(errors="replace")
        try:
            async with self._uploads.stored(content, filename="", media_type=TEXT_TYPE) as upload:
                return await self._begin(wanted(document=_uploaded(request.source, name, upload)), upload)
        except BusError as error:
            raise QueueUnavailable(str(error)) from error

    async def url(self, request: UrlRequest, caller: Caller, idempotency_key: str | None) -> Submitted:
        """InvalidWebAddress, ReservedSource, OtherProject, InvalidCallbackUrl, and what ``submit`` raises."""
        address = parse_web_address(request.url, allowed_hosts=self._allowed_hosts)
        wanted = self._order(JobKind.URL, request, caller, idempotency_key, address=address)
        document = DocumentSource(label=request.source, identity=address.url, url=request.url)
        try:
            return await self._submitting.submit(wanted(document=document))
        except HostRefused as error:
            raise InvalidWebAddress(error.reason) from error

    async def file(
        self, request: DocumentRequest, upload: Upload, caller: Caller, idempotency_key: str | None
    ) -> Submitted:
        """ReservedSource, OtherProject, InvalidCallbackUrl, what ``submit`` raises.

        *upload* is kept if a job reads it.
        """
        wanted = self._order(JobKind.FILE, request, caller, idempotency_key)
        document = _uploaded(request.source, upload.filename, upload)
        return await self._begin(wanted(document=document), upload)

    def _order(
        self,
        kind: JobKind,
        request: DocumentRequest,
        caller: Caller,
        idempotency_key: str | None,
        address: WebAddress | None = None,
    ) -> Callable[..., DocumentOrder]:
        """Makes an order of a ``document``: all else of it, checked.

        ReservedSource, OtherProject, InvalidCallbackUrl.
        """
        if request.source == RESOURCES_LABEL:
            raise ReservedSource
        project = one_project(request.project)
        if not caller.sight.project(project):
            raise OtherProject(project)
        url = request.callback_url
        return partial(
            DocumentOrder,
            tenant=caller.tenant,
            user=caller.user,
            kind=kind,
            address=address,
            priority=request.priority,
            idempotency_key=idempotency_key,
            callback=None if url is None else self._callback_of(url),
            quota=subject_of(caller),
            project=project,
        )

    async def _begin(self, order: DocumentOrder, upload: Upload) -> Submitted:
        upload.kept = True  # from here on a job may name it, whatever becomes of this request
        try:
            submitted, upload.kept = await self._submitting.begin(order)
        except Exception as error:
            # With an id, its fate is unknown: there may be a job that reads it.
            upload.kept = isinstance(error, QueueUnavailable) and error.job_id is not None
            raise
        return submitted


def _uploaded(label: str, name: str, upload: Upload) -> DocumentSource:
    """*upload* as the document that is called *name* among those of *label*."""
    return DocumentSource(
        label=label,
        identity=f"{label}/{name}",
        filename=upload.filename or None,
        media_type=upload.media_type,
        object_name=upload.object_name,
        size=upload.size,
        sha256=upload.sha256,
    )
