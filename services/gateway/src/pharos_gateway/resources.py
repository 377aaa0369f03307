"""Resources in the words of ``/resources``: requests, and what is told of one. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
from msgspec import Meta

from pharos_contracts.identity import fingerprint
from pharos_contracts.jobs.v1 import Job
from pharos_contracts.resources.v1 import Resource
from pharos_gateway.projects import STATUS
from pharos_gateway.scheduling import NO_CONTROLS

TITLE_LENGTH_MAX: Final = 512
URL_LENGTH_MAX: Final = 2_048
LIST_MAX: Final = 100
UNKNOWN: Final = "unknown"  # nobody remembers the job

_Type = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$(?!\n)")]


class InvalidLink(ValueError):
    """The address of a resource is none that could be shown as a link; the text says what is wrong."""


class ResourceRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A text and what is shown of it. ``url`` is not fetched; the same one again replaces the text."""

    title: Annotated[str, Meta(min_length=1, max_length=TITLE_LENGTH_MAX, pattern=NO_CONTROLS)]
    content: str
    url: Annotated[str, Meta(min_length=1, max_length=URL_LENGTH_MAX)]
    resource_type: _Type = "PRACTICE"
    callback_url: Annotated[str, Meta(description="Where to POST when its text has been read.")] | None = None


class ResourceView(msgspec.Struct, frozen=True, kw_only=True):
    """A resource. ``status`` is that of the job that read it last, ``error`` why it did not end well."""

    id: str
    title: str
    url: str
    resource_type: str
    status: str
    job_id: str
    created_at: datetime
    updated_at: datetime
    error: str | None


class ResourceList(msgspec.Struct, frozen=True, kw_only=True):
    """Newest first; ``total`` is how many there are of this type, on whatever page."""

    resources: tuple[ResourceView, ...]
    total: int
    limit: int
    offset: int
    has_more: bool


def resource_id(tenant: str, user: str, url: str) -> str:
    """The same for the same address of the same user, and so of what replaces it."""
    return str(UUID(hex=fingerprint("resource", tenant, user, url)))


def check_link(url: str) -> None:
    """InvalidLink unless *url* is an absolute http or https address without credentials."""
    if any(character <= " " or character == "\x7f" for character in url):
        raise InvalidLink("The url must not contain spaces or control characters")
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        raise InvalidLink("The url cannot be understood") from None
    if parts.scheme.lower() not in ("http", "https") or not host:
        raise InvalidLink("The url must be an absolute http or https address")
    if parts.username is not None or parts.password is not None:
        raise InvalidLink("The url must not contain credentials")


def view(resource: Resource, job: Job | None) -> ResourceView:
    """*resource*, with what became of its *job* (None: nobody remembers)."""
    return ResourceView(
        id=resource.resource_id,
        title=resource.title,
        url=resource.url,
        resource_type=resource.resource_type,
        status=UNKNOWN if job is None else STATUS[job.state],
        job_id=resource.job_id,
        created_at=resource.created_at,
        updated_at=resource.updated_at,
        error=None if job is None else job.error or job.reason,
    )
