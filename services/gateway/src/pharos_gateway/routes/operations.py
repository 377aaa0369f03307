"""``/ops``: the queue and the dead letters, for whoever operates it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from litestar import Request, Response, Router, delete, get, post
from litestar.params import FromPath, QueryParameter

from pharos_gateway import examples, openapi
from pharos_gateway.access import Access
from pharos_gateway.authentication import Role, caller_of
from pharos_gateway.dead_letters import DeadLetterList, DeadLetters, DeadLetterView
from pharos_gateway.job_view import JobView
from pharos_gateway.problems import not_found
from pharos_gateway.queueing import Queue, QueueReport, report
from pharos_gateway.reachability import reach
from pharos_gateway.showing import Showing
from pharos_service.bus import Bus

PATH: Final = "/ops"


class Resent(msgspec.Struct, frozen=True, kw_only=True):
    """A message was sent again as it was; what becomes of it cannot be told."""

    dead_letter: str
    status: str = "resent"


class PurgedCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many were forgotten."""

    purged: int


def routes(
    access: Access,
    bus: Bus,
    queue: Queue,
    documents: Queue,
    letters: DeadLetters,
    showing: Showing,
    now: Callable[[], datetime],
) -> Router:
    """The routes of this family. An admin sees every tenant's, an editor those of its own.

    Not for keys that are restricted to projects: a message that nobody could read belongs to none.
    """
    common: dict[str, Any] = {"guards": [access.tenant_editor], "security": list(openapi.SECURITY)}

    @get(
        "/queue",
        summary="What waits in the queues of repositories and of documents",
        responses={
            200: openapi.success(QueueReport, examples.QUEUE, "Now"),
            **openapi.errors(401, 403, 503),
        },
        **common,
    )
    async def queue_report(request: Request[Any, Any, Any]) -> QueueReport:
        caller = caller_of(request)
        await reach(bus)
        return await report(queue, documents, caller.sees, now=now(), by_tenant=caller.may(Role.ADMIN))

    @get(
        "/dead-letters",
        summary="What will not be tried again by itself",
        responses={
            200: openapi.success(DeadLetterList, examples.DEAD_LETTERS, "Newest first"),
            **openapi.errors(400, 401, 403, 503),
        },
        **common,
    )
    async def list_dead_letters(
        request: Request[Any, Any, Any],
        limit: Annotated[int, QueryParameter(ge=1, le=100, description="How many, 1 to 100.")] = 20,
        before: openapi.Cursor = None,
    ) -> DeadLetterList:
        await reach(bus)
        return await letters.page(caller_of(request).sight, limit=limit, before=before)

    @get(
        "/dead-letters/{letter_id:str}",
        summary="One dead letter",
        responses={
            200: openapi.success(DeadLetterView, examples.DEAD_LETTER, "What is known of it"),
            **openapi.errors(401, 403, 404, 503),
        },
        **common,
    )
    async def one_dead_letter(request: Request[Any, Any, Any], letter_id: FromPath[str]) -> DeadLetterView:
        caller = caller_of(request)
        await reach(bus)
        found = await letters.one(caller.sight, letter_id, payload=caller.may(Role.ADMIN))
        if found is None:
            raise not_found("dead letter")
        return found

    @post(
        "/dead-letters/{letter_id:str}/replay",
        status_code=200,
        summary="Try it once more, and forget the letter",
        responses={
            200: openapi.success(JobView, examples.JOB, "The job, which is tried again"),
            202: openapi.success(Resent, examples.RESENT, "It was a message, and is sent again as it was"),
            **openapi.errors(401, 403, 404, 409, 503),
        },
        **common,
    )
    async def replay_dead_letter(
        request: Request[Any, Any, Any], letter_id: FromPath[str]
    ) -> Response[JobView | Resent]:
        caller = caller_of(request)
        await reach(bus)
        found, job = await letters.replay(caller.sight, letter_id, by=caller.user)
        if not found:
            raise not_found("dead letter")
        if job is None:
            return Response(Resent(dead_letter=letter_id), status_code=202)
        return Response(await showing.whole(job), status_code=200)

    @delete(
        "/dead-letters/{letter_id:str}",
        summary="Forget it",
        responses=openapi.errors(401, 403, 404, 503),
        **common,
    )
    async def purge_dead_letter(request: Request[Any, Any, Any], letter_id: FromPath[str]) -> None:
        caller = caller_of(request)
        await reach(bus)
        if not await letters.purge(caller.sight, letter_id, by=caller.user):
            raise not_found("dead letter")

    @delete(
        "/dead-letters",
        status_code=200,
        summary="Forget them all",
        responses={
            200: openapi.success(PurgedCount, {"purged": 3}, "All that the caller may see"),
            **openapi.errors(401, 403, 503),
        },
        **common,
    )
    async def purge_dead_letters(request: Request[Any, Any, Any]) -> PurgedCount:
        caller = caller_of(request)
        await reach(bus)
        return PurgedCount(purged=await letters.purge_all(caller.sight, by=caller.user))

    return Router(
        PATH,
        route_handlers=[
            queue_report,
            list_dead_letters,
            one_dead_letter,
            replay_dead_letter,
            purge_dead_letter,
            purge_dead_letters,
        ],
        tags=["operation"],
    )
