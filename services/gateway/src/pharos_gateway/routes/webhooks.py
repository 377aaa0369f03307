"""``/api/v1/webhooks``: which repositories are watched; ``/webhooks/github``: what GitHub tells of them."""

from __future__ import annotations

from typing import Any, Final

from litestar import Request, Router, delete, get, post
from litestar.params import FromPath, JSONBody

from pharos_contracts.identity import InvalidName
from pharos_gateway import examples, github, openapi
from pharos_gateway.access import Access
from pharos_gateway.audit import note_target
from pharos_gateway.authentication import OtherProject, caller_of
from pharos_gateway.problems import invalid, not_found, unavailable
from pharos_gateway.pushing import Pushing, Received, UnknownSignature
from pharos_gateway.quotas import subject_of
from pharos_gateway.reachability import Unreachable, reach
from pharos_gateway.watching import PATH as GITHUB
from pharos_gateway.watching import CreatedWatch, Watching, WatchList, WatchRequest, WatchView
from pharos_service.bus import Bus, BusError

PATH: Final = "/api/v1/webhooks"


def routes(access: Access, bus: Bus, watching: Watching, pushing: Pushing) -> Router:
    """The routes of this family."""
    editor: dict[str, Any] = {"guards": [access.editor], "security": list(openapi.SECURITY)}
    viewer: dict[str, Any] = {"guards": [access.viewer], "security": list(openapi.SECURITY)}

    @post(
        PATH,
        status_code=201,
        summary="Index a repository whenever somebody pushes to it",
        description="Add a webhook to the repository at GitHub, with `path` at this gateway as its payload "
        "URL, with `secret`, and for the push event. The secret is shown this once.",
        responses={
            201: openapi.success(CreatedWatch, examples.CREATED_WEBHOOK, "Give `secret` to GitHub"),
            **openapi.errors(400, 401, 403, 409, 503, invalid=examples.INVALID_URL),
        },
        **editor,
    )
    async def create_webhook(request: Request[Any, Any, Any], data: JSONBody[WatchRequest]) -> CreatedWatch:
        caller = caller_of(request)
        if not caller.sight.project(data.project):
            raise OtherProject(data.project)
        await reach(bus)
        try:
            created = await watching.create(
                data, tenant=caller.tenant, by=caller.user, quota=subject_of(caller)
            )
        except InvalidName as error:
            raise invalid(str(error), field="project") from error
        note_target(request, created.id)
        return created

    @get(
        PATH,
        summary="What is indexed when somebody pushes",
        responses={
            200: openapi.success(WatchList, examples.WEBHOOKS, "By tenant and id"),
            **openapi.errors(401, 503),
        },
        **viewer,
    )
    async def list_webhooks(request: Request[Any, Any, Any]) -> WatchList:
        try:
            await reach(bus)
            return await watching.list(caller_of(request).sight)
        except (BusError, Unreachable) as error:
            raise unavailable("Webhooks", str(error)) from error

    @get(
        f"{PATH}/{{watch_id:str}}",
        summary="One webhook",
        responses={
            200: openapi.success(WatchView, examples.WEBHOOK, "As it stands"),
            **openapi.errors(401, 404, 503),
        },
        **viewer,
    )
    async def one_webhook(request: Request[Any, Any, Any], watch_id: FromPath[str]) -> WatchView:
        try:
            await reach(bus)
            found = await watching.one(caller_of(request).sight_in_tenant, watch_id)
        except (BusError, Unreachable) as error:
            raise unavailable("Webhooks", str(error)) from error
        if found is None:
            raise not_found("webhook")
        return found

    @delete(
        f"{PATH}/{{watch_id:str}}",
        summary="Take no more pushes",
        description="A job that one has started goes on, and so does one that rests.",
        responses=openapi.errors(401, 403, 404, 503),
        **editor,
    )
    async def remove_webhook(request: Request[Any, Any, Any], watch_id: FromPath[str]) -> None:
        await reach(bus)
        if not await watching.remove(caller_of(request).sight_in_tenant, watch_id):
            raise not_found("webhook")

    @post(
        GITHUB,
        status_code=202,
        guards=[access.signed],
        security=[{"signature": []}],
        summary="For GitHub: something happened to a repository",
        description="Signed by `X-Hub-Signature-256` with the secret of a webhook of that repository; any "
        "other signature is answered with 401, and so is a repository that nobody watches. A push to a "
        "watched branch becomes a job as soon as the pushes to that branch rest. Anything else is ignored, "
        "and the answer says why: other events, other branches, tags, deleted branches, a push that was "
        "taken already or is older than a day.",
        responses={
            202: openapi.success(Received, examples.PUSHED, "It is signed, and this follows"),
            **openapi.errors(400, 401, 413, 503, 507, invalid=examples.UNREADABLE_DELIVERY),
        },
    )
    async def receive_github(request: Request[Any, Any, Any]) -> Received:
        try:
            return await pushing.receive(
                await request.body(),
                signature=request.headers.get(github.SIGNATURE),
                event=request.headers.get(github.EVENT),
                content_type=request.headers.get("content-type"),
            )
        except UnknownSignature:
            access.not_signed(request)
            raise

    return Router(
        "/",
        route_handlers=[create_webhook, list_webhooks, one_webhook, remove_webhook, receive_github],
        tags=["webhooks"],
    )
