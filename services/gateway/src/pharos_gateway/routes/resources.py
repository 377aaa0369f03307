"""``/resources``: texts with an address; and repositories, as older clients submit them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from litestar import Request, Router, delete, get, post
from litestar.params import FromPath, HeaderParameter, JSONBody, QueryParameter
from msgspec import Meta

from pharos_contracts.identity import PROJECT_DEFAULT
from pharos_gateway import examples, openapi
from pharos_gateway.access import Access
from pharos_gateway.audit import note_target
from pharos_gateway.authentication import Caller, OtherProject, OtherUser, Role, caller_of
from pharos_gateway.callback_url import CallbackAddress
from pharos_gateway.disk import Disk
from pharos_gateway.problems import not_found
from pharos_gateway.quotas import subject_of
from pharos_gateway.reachability import reach
from pharos_gateway.resource_keeping import ResourceKeeping
from pharos_gateway.resources import LIST_MAX, ResourceList, ResourceRequest, ResourceView
from pharos_gateway.scheduling import NO_CONTROLS
from pharos_gateway.submitting import Order, Submitted, Submitting
from pharos_service.bus import Bus
from pharos_sources.hosts import AllowedHosts
from pharos_sources.repository_url import parse_repository_url

_Url = Annotated[str, Meta(max_length=2_048, description="As for a submit by its path.")]
_CallbackUrl = Annotated[str, Meta(description="Where to POST when the job has ended.")]
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
    callback_url: _CallbackUrl | None = None


class IngestRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A repository to index for ``user_id``: the key's own user, which is the default; an admin's choice."""

    repo_url: _Url
    user_id: Annotated[str, Meta(min_length=1, max_length=128, pattern=NO_CONTROLS)] | None = None
    callback_url: _CallbackUrl | None = None


def routes(
    access: Access,
    disk: Disk,
    bus: Bus,
    submitting: Submitting,
    keeping: ResourceKeeping,
    allowed_hosts: AllowedHosts,
    callback_of: Callable[[str], CallbackAddress],
) -> Router:
    """The routes of this family."""
    common: dict[str, Any] = {
        "status_code": 202,
        "description": f"With `callback_url`, {examples.CALLBACK}",
        "guards": [access.editor, disk.has_room],
        "security": list(openapi.SECURITY),
        "responses": {
            202: openapi.success(Submitted, examples.SUBMITTED, "Accepted, or found"),
            **openapi.errors(400, 401, 403, 429, 503, 507, invalid=examples.INVALID_URL),
        },
    }

    async def submit(
        request: Request[Any, Any, Any], url: str, user: str, callback_url: str | None, key: str | None
    ) -> Submitted:
        caller = caller_of(request)
        address = parse_repository_url(url, allowed_hosts=allowed_hosts)
        callback = None if callback_url is None else callback_of(callback_url)
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
                callback=callback,
                quota=subject_of(caller),
            )
        )

    @post("/resources/ingest-repo", summary="Submit a repository by its URL", **common)
    async def ingest_repo(
        request: Request[Any, Any, Any], data: JSONBody[IngestRepoRequest], idempotency_key: _Key = None
    ) -> Submitted:
        return await submit(
            request, data.git_url, caller_of(request).user, data.callback_url, idempotency_key
        )

    @post("/ingest", summary="Submit a repository for a user", **common)
    async def ingest_for_user(
        request: Request[Any, Any, Any], data: JSONBody[IngestRequest], idempotency_key: _Key = None
    ) -> Submitted:
        user = _user(caller_of(request), data.user_id)
        return await submit(request, data.repo_url, user, data.callback_url, idempotency_key)

    repositories = Router("/", route_handlers=[ingest_repo, ingest_for_user], tags=["ingestion"])

    @post(
        "/resources",
        status_code=201,
        guards=[access.editor, disk.has_room],
        security=list(openapi.SECURITY),
        summary="Make a text searchable, and keep it as a resource",
        description="`url` is where it can be read, and is not fetched. The same `url` again replaces the "
        "text and keeps the id. A resource is its user's own; its text is found by searches of its project. "
        f"With `callback_url`, {examples.CALLBACK}",
        responses={
            201: openapi.success(ResourceView, examples.CREATED_RESOURCE, "Its text waits to be read"),
            **openapi.errors(400, 401, 403, 409, 413, 429, 503, 507, invalid=examples.INVALID_LINK),
        },
    )
    async def create_resource(
        request: Request[Any, Any, Any], data: JSONBody[ResourceRequest], idempotency_key: _Key = None
    ) -> ResourceView:
        caller = caller_of(request)
        if not caller.sight.project(PROJECT_DEFAULT):
            raise OtherProject(PROJECT_DEFAULT)
        await reach(bus)
        created = await keeping.put(data, caller, idempotency_key)
        note_target(request, created.id)
        return created

    viewer: dict[str, Any] = {"guards": [access.viewer], "security": list(openapi.SECURITY)}

    @get(
        "/resources",
        summary="Resources, newest first",
        responses={
            200: openapi.success(ResourceList, examples.RESOURCES, "Newest first"),
            **openapi.errors(400, 401, 503),
        },
        **viewer,
    )
    async def list_resources(
        request: Request[Any, Any, Any],
        limit: Annotated[int, QueryParameter(ge=1, le=LIST_MAX, description="How many, 1 to 100.")] = 20,
        offset: Annotated[int, QueryParameter(ge=0, le=2**31 - 1, description="How many to pass over.")] = 0,
        named: Annotated[
            str | None, QueryParameter(name="type", max_length=64, description="Only those of this type.")
        ] = None,
    ) -> ResourceList:
        await reach(bus)
        sight = caller_of(request).sight
        return await keeping.list(sight, resource_type=named, limit=limit, offset=offset)

    @get(
        "/resources/{resource_id:str}",
        summary="One resource",
        responses={
            200: openapi.success(ResourceView, examples.RESOURCE, "As it is now"),
            **openapi.errors(401, 404, 503),
        },
        **viewer,
    )
    async def one_resource(request: Request[Any, Any, Any], resource_id: FromPath[str]) -> ResourceView:
        await reach(bus)
        found = await keeping.one(caller_of(request).sight_in_tenant, resource_id)
        if found is None:
            raise not_found("resource")
        return found

    @delete(
        "/resources/{resource_id:str}",
        guards=[access.editor],
        security=list(openapi.SECURITY),
        summary="Delete a resource and its vectors",
        description="Answered when they are gone. Where no worker gets to it in time the answer is 503; "
        "it is deleted all the same, and asking again says so.",
        responses=openapi.errors(401, 403, 404, 429, 503),
    )
    async def delete_resource(request: Request[Any, Any, Any], resource_id: FromPath[str]) -> None:
        caller = caller_of(request)
        await reach(bus)
        if not await keeping.remove(caller.sight_in_tenant, resource_id, by=caller.user):
            raise not_found("resource")
        note_target(request, resource_id)

    own = Router(
        "/",
        route_handlers=[create_resource, list_resources, one_resource, delete_resource],
        tags=["resources"],
    )
    return Router("/", route_handlers=[repositories, own])


def _user(caller: Caller, named: str | None) -> str:
    """Whose job it is to be. OtherUser."""
    if named is not None and named != caller.user and not caller.may(Role.ADMIN):
        raise OtherUser
    return named or caller.user
