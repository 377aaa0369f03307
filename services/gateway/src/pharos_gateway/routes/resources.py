"""``/resources/ingest-repo`` and ``/ingest``: repositories, as older clients submit them."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from litestar import Request, Router, post
from litestar.params import HeaderParameter, JSONBody
from msgspec import Meta

from pharos_contracts.identity import PROJECT_DEFAULT
from pharos_gateway import openapi
from pharos_gateway.access import Access
from pharos_gateway.audit import note_target
from pharos_gateway.authentication import Caller, OtherProject, OtherUser, Role, caller_of
from pharos_gateway.disk import Disk
from pharos_gateway.quotas import subject_of
from pharos_gateway.submitting import Order, Submitted, Submitting
from pharos_sources.hosts import AllowedHosts
from pharos_sources.repository_url import parse_repository_url

_Url = Annotated[str, Meta(max_length=2_048, description="As for a submit by its path.")]
_Key = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="The same key within 24 h returns the first answer.",
    ),
]


class IngestRepoRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A repository to index."""

    git_url: _Url


class IngestRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A repository to index for ``user_id``: the key's own user, which is the default; an admin's choice."""

    repo_url: _Url
    user_id: Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+$")] | None = None


def routes(access: Access, disk: Disk, submitting: Submitting, allowed_hosts: AllowedHosts) -> Router:
    """The routes of this family."""
    common: dict[str, Any] = {
        "status_code": 202,
        "guards": [access.editor, disk.has_room],
        "security": list(openapi.SECURITY),
        "responses": {
            202: openapi.success(Submitted, openapi.SUBMITTED, "Accepted, or found"),
            **openapi.errors(400, 401, 403, 429, 503, 507, invalid=openapi.INVALID_URL),
        },
    }

    async def submit(request: Request[Any, Any, Any], url: str, user: str, key: str | None) -> Submitted:
        caller = caller_of(request)
        address = parse_repository_url(url, allowed_hosts=allowed_hosts)
        note_target(request, address.identity)
        if not caller.sight.project(PROJECT_DEFAULT):
            raise OtherProject(PROJECT_DEFAULT)
        return await submitting.submit(
            Order(
                tenant=caller.tenant,
                user=user,
                address=address,
                branch=address.branch,
                idempotency_key=key,
                quota=subject_of(caller),
            )
        )

    @post("/resources/ingest-repo", summary="Submit a repository by its URL", **common)
    async def ingest_repo(
        request: Request[Any, Any, Any], data: JSONBody[IngestRepoRequest], idempotency_key: _Key = None
    ) -> Submitted:
        return await submit(request, data.git_url, caller_of(request).user, idempotency_key)

    @post("/ingest", summary="Submit a repository for a user", **common)
    async def ingest_for_user(
        request: Request[Any, Any, Any], data: JSONBody[IngestRequest], idempotency_key: _Key = None
    ) -> Submitted:
        user = _user(caller_of(request), data.user_id)
        return await submit(request, data.repo_url, user, idempotency_key)

    return Router("/", route_handlers=[ingest_repo, ingest_for_user], tags=["ingestion"])


def _user(caller: Caller, named: str | None) -> str:
    """Whose job it is to be. OtherUser."""
    if named is not None and named != caller.user and not caller.may(Role.ADMIN):
        raise OtherUser
    return named or caller.user
