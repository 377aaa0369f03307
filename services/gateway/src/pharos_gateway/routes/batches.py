"""``/batch``: files of several connections as one job, its control, its numbers."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Annotated, Any, Final, TypeVar

from litestar import Request, Router, get, post
from litestar.params import FromPath, HeaderParameter, JSONBody, QueryParameter

from pharos_gateway import examples, openapi
from pharos_gateway.access import Access
from pharos_gateway.acting import acting
from pharos_gateway.audit import READS, note_target
from pharos_gateway.authentication import caller_of
from pharos_gateway.batches import (
    BatchControlled,
    BatchList,
    BatchRequest,
    BatchStatistics,
    BatchView,
    ControlRequest,
    ListRequest,
)
from pharos_gateway.batching import Batching, Order
from pharos_gateway.controlling import Controlling, parse_action
from pharos_gateway.disk import Disk
from pharos_gateway.finding import HistoryUnavailable
from pharos_gateway.problems import not_found, unavailable
from pharos_gateway.quotas import subject_of
from pharos_gateway.reachability import Unreachable, reach
from pharos_gateway.scheduling import NO_CONTROLS
from pharos_service.bus import Bus, BusError

PATH: Final = "/batch"
OWNER: Final = "A batch belongs to the user who made it: others of the tenant, but admins, do not see it."

T = TypeVar("T")

_User = Annotated[
    str | None,
    QueryParameter(
        name="user_id",
        min_length=1,
        max_length=128,
        pattern=NO_CONTROLS,
        description="As in the body of a batch.",
    ),
]


def routes(access: Access, disk: Disk, bus: Bus, batching: Batching, controlling: Controlling) -> Router:
    """The routes of this family, but for the WebSocket."""
    viewer: dict[str, Any] = {"guards": [access.viewer], "security": list(openapi.SECURITY)}
    editor: dict[str, Any] = {"guards": [access.editor], "security": list(openapi.SECURITY)}

    async def read(answer: Awaitable[T]) -> T:
        """*answer*, or the Problem that the bus or the history service is away."""
        try:
            await reach(bus)
            return await answer
        except HistoryUnavailable as error:
            raise unavailable("History", str(error)) from error
        except (BusError, Unreachable) as error:
            raise unavailable("Jobs", str(error)) from error

    @post(
        "/jobs",
        status_code=200,
        guards=[access.editor, disk.has_room],
        security=list(openapi.SECURITY),
        summary="Create a batch",
        description=f"It waits to be started, for a week at most. {OWNER} Every file is looked up in its "
        "source first; what could not be in the time there is, `warnings` counts. "
        "`estimated_duration_ms` is by how long files of each type of source took of late, 5 seconds where "
        "none has been measured, divided by how many are worked on at once. Files of a connection become "
        "searchable in the dataset `connections/<connection_id>` of the connection's project. With "
        f"`callback_url`, {examples.CALLBACK}",
        responses={
            200: openapi.success(BatchView, examples.BATCH_CREATED, "It waits to be started"),
            **openapi.errors(400, 401, 403, 409, 413, 429, 503, 504, 507, invalid=examples.UNKNOWN_FILE),
        },
    )
    async def create_batch(
        request: Request[Any, Any, Any],
        data: JSONBody[BatchRequest],
        idempotency_key: Annotated[
            str | None,
            HeaderParameter(
                name="Idempotency-Key",
                min_length=1,
                max_length=255,
                description="The same key within 24 h returns the first answer.",
            ),
        ] = None,
    ) -> BatchView:
        caller = caller_of(request)
        whom = acting(caller, data.user_id)
        created = await read(
            batching.create(
                Order(
                    tenant=caller.tenant,
                    owner=whom.owner,
                    by=caller.user,
                    sight=caller.sight_in_tenant,
                    request=data,
                    idempotency_key=idempotency_key,
                    quota=subject_of(caller),
                )
            )
        )
        note_target(request, created.job_id)
        return created

    @get(
        "/jobs/{job_id:str}",
        summary="One batch, with all of its files",
        description=OWNER,
        responses={
            200: openapi.success(BatchView, examples.BATCH, "As it is now"),
            **openapi.errors(400, 401, 403, 404, 503),
        },
        **viewer,
    )
    async def one_batch(
        request: Request[Any, Any, Any], job_id: FromPath[str], user_id: _User = None
    ) -> BatchView:
        found = await read(batching.read(acting(caller_of(request), user_id).sight, job_id))
        if found is None:
            raise not_found("job")
        return found

    @post(
        "/jobs/{job_id:str}/control",
        status_code=200,
        summary="Start, pause, resume, cancel or retry a batch",
        description="Paused, no new file starts, and those that are being worked on end. Cancelled, they "
        "stop, and what was stored of unfinished files goes. A batch that failed, was cancelled or completed "
        "with failures can be tried again. A command that was stored is carried out even where no scheduler "
        "answers in time.",
        responses={
            200: openapi.success(BatchControlled, examples.BATCH_CONTROLLED, "It was carried out"),
            **openapi.errors(400, 401, 403, 404, 409, 503, invalid=examples.UNKNOWN_ACTION),
        },
        **editor,
    )
    async def control_batch(
        request: Request[Any, Any, Any], job_id: FromPath[str], data: JSONBody[ControlRequest]
    ) -> BatchControlled:
        caller = caller_of(request)
        sight = acting(caller, data.user_id).sight
        action = parse_action(data.action)
        job = await read(batching.find(sight, job_id))
        if job is not None:
            job = await read(
                controlling.control(
                    sight, job.job_id, action, by=caller.user, failed_only=data.retry_failed_only
                )
            )
        if job is None:
            raise not_found("job")
        return BatchControlled(success=True, message=f"Job {action} successful")

    @post(
        "/jobs/list",
        status_code=200,
        summary="The batches of a user, newest first",
        opt=READS,
        responses={
            200: openapi.success(BatchList, examples.BATCHES, "A page of them"),
            **openapi.errors(400, 401, 403, 503),
        },
        **viewer,
    )
    async def list_batches(request: Request[Any, Any, Any], data: JSONBody[ListRequest]) -> BatchList:
        caller = caller_of(request)
        whom = acting(caller, data.user_id)
        return await read(batching.list(whom.within(caller.tenant), whom.owner, data))

    @get(
        "/statistics",
        summary="What became of the batches of a user",
        responses={
            200: openapi.success(BatchStatistics, examples.BATCH_STATISTICS, "Of all of them"),
            **openapi.errors(400, 401, 403, 503),
        },
        **viewer,
    )
    async def batch_statistics(request: Request[Any, Any, Any], user_id: _User = None) -> BatchStatistics:
        caller = caller_of(request)
        whom = acting(caller, user_id)
        return await read(batching.statistics(whom.within(caller.tenant), whom.owner))

    return Router(
        PATH,
        route_handlers=[create_batch, one_batch, control_batch, list_batches, batch_statistics],
        tags=["batches"],
    )
