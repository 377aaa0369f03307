"""Submitting a document: its bytes into the object store, where it has any, then its job."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from pharos_contracts.identity import fingerprint
from pharos_contracts.jobs.v1 import DocumentSource, JobKind
from pharos_gateway import documents
from pharos_gateway.authentication import Caller
from pharos_gateway.callback_url import CallbackAddress
from pharos_gateway.documents import DocumentQueued, FileFields, TextRequest, UrlRequest
from pharos_gateway.quotas import subject_of
from pharos_gateway.submitting import DocumentOrder, HostRefused, QueueUnavailable, Submitting
from pharos_gateway.uploads import Upload, Uploads
from pharos_service.bus import BusError
from pharos_sources.document_kinds import is_text_name, named_kind
from pharos_sources.hosts import AllowedHosts
from pharos_sources.web_address import InvalidWebAddress, parse_web_address

TEXT_TYPE: Final = "text/plain; charset=utf-8"


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

    async def text(self, request: TextRequest, caller: Caller, idempotency_key: str | None) -> DocumentQueued:
        """EmptyDocument, UploadsFull, InvalidCallbackUrl, and what ``Submitting.submit`` raises."""
        if not request.text.strip():
            raise EmptyDocument
        name = f"text-{fingerprint(idempotency_key or request.text)}"
        common = self._common(request, caller, idempotency_key)
        content = request.text.encode(errors="replace")
        try:
            async with self._uploads.stored(content, filename="", media_type=TEXT_TYPE) as upload:
                document = _uploaded(request.source, name, upload)
                return await self._begin(
                    DocumentOrder(kind=JobKind.TEXT, document=document, **common), upload
                )
        except BusError as error:
            raise QueueUnavailable(str(error)) from error

    async def url(self, request: UrlRequest, caller: Caller, idempotency_key: str | None) -> DocumentQueued:
        """InvalidWebAddress, InvalidCallbackUrl, and what ``Submitting.submit`` raises."""
        address = parse_web_address(request.url, allowed_hosts=self._allowed_hosts)
        common = self._common(request, caller, idempotency_key)
        document = DocumentSource(label=request.source, identity=address.url, url=request.url)
        order = DocumentOrder(kind=JobKind.URL, document=document, address=address, **common)
        try:
            return documents.queued(order, await self._submitting.submit(order))
        except HostRefused as error:
            raise InvalidWebAddress(error.reason) from error

    async def file(
        self, fields: FileFields, upload: Upload, caller: Caller, idempotency_key: str | None
    ) -> DocumentQueued:
        """InvalidCallbackUrl, and what ``Submitting.submit`` raises. *upload* is kept if a job reads it."""
        document = _uploaded(fields.source, upload.filename, upload)
        common = self._common(fields, caller, idempotency_key)
        return await self._begin(DocumentOrder(kind=JobKind.FILE, document=document, **common), upload)

    def _common(
        self, request: TextRequest | UrlRequest | FileFields, caller: Caller, idempotency_key: str | None
    ) -> dict[str, Any]:
        """What orders of all kinds share."""
        url = request.callback_url
        return {
            "tenant": caller.tenant,
            "user": caller.user,
            "priority": request.priority,
            "idempotency_key": idempotency_key,
            "callback": None if url is None else self._callback_of(url),
            "quota": subject_of(caller),
        }

    async def _begin(self, order: DocumentOrder, upload: Upload) -> DocumentQueued:
        upload.kept = True  # from here on a job may name it, whatever becomes of this request
        try:
            submitted, upload.kept = await self._submitting.begin(order)
        except Exception as error:
            # With an id, its fate is unknown: there may be a job that reads it.
            upload.kept = isinstance(error, QueueUnavailable) and error.job_id is not None
            raise
        return documents.queued(order, submitted)


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
