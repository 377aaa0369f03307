"""Server-sent events: everything that a key may see, one job, and the public summary."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, Any, Final

import msgspec
from litestar import Request, Response, Router, get
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, QueryParameter

from pharos_contracts import subjects
from pharos_contracts.jobs.v1 import Job
from pharos_contracts.lifecycle import TERMINAL
from pharos_contracts.streams import JOBS
from pharos_gateway import openapi
from pharos_gateway.access import Access
from pharos_gateway.authentication import caller_of
from pharos_gateway.finding import Finder, HistoryUnavailable, find
from pharos_gateway.following import Wanted, follow
from pharos_gateway.live import Live
from pharos_gateway.problems import invalid, not_found, unavailable
from pharos_gateway.reachability import Unreachable, reach
from pharos_gateway.snapshots import Snapshots
from pharos_gateway.streams import MEDIA_TYPE, Streams
from pharos_service.bus import Bus, BusError

ABOUT: Final = (
    "`id` is the sequence of a state event; a client that comes back with `Last-Event-ID`, or "
    "`?last_event_id=`, gets every state event since, once and in order. Past retention it gets one `reset` "
    "with a snapshot. Progress and worker status carry no id and are sent live only. A comment every 15 s. "
    "`?ticket=` lets clients in that cannot send headers."
)
_ID = Annotated[
    str | None,
    QueryParameter(
        schema_extra={"pattern": "^[0-9]{0,19}$"},
        description="As the header `Last-Event-ID`, which wins over it.",
    ),
]


def routes(
    access: Access, bus: Bus, live: Live, finder: Finder, snapshots: Snapshots, streams: Streams
) -> Router:
    """The routes of this family."""
    responses: dict[int, ResponseSpec] = {
        200: ResponseSpec(
            data_container=Any,
            generate_examples=False,
            media_type=MEDIA_TYPE,
            description="Events, as they come",
        ),
        **openapi.errors(400, 401, 429, 503),
    }
    common: dict[str, Any] = {"description": ABOUT, "media_type": MEDIA_TYPE}
    private: dict[str, Any] = {
        **common,
        "guards": [access.streaming],
        "security": list(openapi.SECURITY),
    }

    async def all_events(request: Request[Any, Any, Any], wanted: Wanted) -> Response[bytes]:
        if wanted.after is None:
            # Whoever comes back is let in without a bus and waits inside: browsers do not try again
            # after an error status.
            try:
                await reach(bus, live.ready)
            except Unreachable as error:
                raise unavailable("Events", error.reason) from error

        async def snapshot() -> Any:
            return await snapshots.take(wanted.sight, public=wanted.public)

        def blocks() -> AsyncGenerator[bytes, None]:
            return follow(bus, live, wanted, snapshot)

        return streams.answer(caller_of(request).credential, blocks)

    @get("/api/v1/events", summary="Everything, live", responses=responses, **private)
    async def events(request: Request[Any, Any, Any], last_event_id: _ID = None) -> Response[bytes]:
        sight = caller_of(request).sight
        return await all_events(
            request,
            Wanted(
                sight=sight,
                subjects=subjects.tenant_job_events(sight.tenant),
                after=_after(request, last_event_id),
            ),
        )

    @get(
        "/api/v1/ingestion/events",
        summary="A summary, live",
        guards=[access.public],
        security=list(openapi.PUBLIC),
        responses=responses,
        **common,
    )
    async def ingestion_events(request: Request[Any, Any, Any], last_event_id: _ID = None) -> Response[bytes]:
        sight = caller_of(request).sight_in_tenant.repositories
        return await all_events(
            request,
            Wanted(
                sight=sight,
                subjects=subjects.tenant_job_events(sight.tenant),
                public=True,
                after=_after(request, last_event_id),
            ),
        )

    @get(
        "/api/v1/jobs/{job_id:str}/events",
        summary="One job, from its first event",
        responses={
            **responses,
            **openapi.errors(404),
            204: ResponseSpec(
                data_container=None,
                generate_examples=False,
                description="The job has ended, and its last event was seen: do not come back",
            ),
        },
        **private,
    )
    async def job_events(
        request: Request[Any, Any, Any], job_id: FromPath[str], last_event_id: _ID = None
    ) -> Response[Any]:
        caller = caller_of(request)
        after = _after(request, last_event_id)
        try:
            await reach(bus)
            job = await find(finder, caller.sight, job_id)
            if job is None:
                raise not_found("job")
            if after is not None and await _was_seen_to_its_end(bus, job, after):
                return Response(content=None, status_code=204)
        except HistoryUnavailable as error:
            raise unavailable("History", str(error)) from error
        except (BusError, Unreachable) as error:
            raise unavailable("Events", str(error)) from error
        tenant, name = job.tenant, job.job_id
        wanted = Wanted(
            sight=msgspec.structs.replace(caller.sight, tenant=tenant),
            job_id=name,
            subjects=(
                subjects.job_events(tenant, name),
                f"events.item.{tenant}.{name}.*.lexical_ready",
            ),
            workers=False,
            after=after,
            from_start=after is None,
            ends=True,
        )

        async def snapshot() -> Any:
            return await snapshots.of_job(tenant, name)

        def blocks() -> AsyncGenerator[bytes, None]:
            return follow(bus, live, wanted, snapshot)

        return streams.answer(caller.credential, blocks)

    return Router("/", route_handlers=[events, ingestion_events, job_events], tags=["events"])


def _after(request: Request[Any, Any, Any], query: str | None) -> int | None:
    """The id that the client saw last; None for one that begins. A Problem for one that is no id."""
    text = request.headers.get("last-event-id") or query
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise invalid("The last event id must be a number that an event carried", field="last_event_id")
    return int(text)


async def _was_seen_to_its_end(bus: Bus, job: Job, after: int) -> bool:
    if job.state not in TERMINAL:
        return False
    last = await bus.last(JOBS, subjects.job_events(job.tenant, job.job_id))
    return last is not None and last.sequence == after
