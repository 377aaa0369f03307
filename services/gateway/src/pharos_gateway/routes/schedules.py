"""``/api/v1/schedules``: repositories that are indexed again and again."""

from __future__ import annotations

from typing import Any, Final

from litestar import Request, Router, delete, get, post
from litestar.params import FromPath, JSONBody

from pharos_contracts.identity import InvalidName
from pharos_gateway import examples, openapi
from pharos_gateway.access import Access
from pharos_gateway.authentication import OtherProject, caller_of
from pharos_gateway.problems import invalid, not_found, unavailable
from pharos_gateway.reachability import Unreachable, reach
from pharos_gateway.scheduling import ScheduleList, ScheduleRequest, ScheduleView, Scheduling
from pharos_service.bus import Bus, BusError

PATH: Final = "/api/v1/schedules"
OF_A_TENANT: Final = (
    "An id is unique within its tenant: an admin names another one than `default` by `x-tenant`."
)


def routes(access: Access, bus: Bus, scheduling: Scheduling) -> Router:
    """The routes of this family."""
    editor: dict[str, Any] = {"guards": [access.editor], "security": list(openapi.SECURITY)}

    @post(
        "/",
        status_code=201,
        summary="Index a repository again and again",
        description="A run that was missed while nothing ran happens once, late. One schedule of the same id "
        f"is replaced. {OF_A_TENANT}",
        responses={
            201: openapi.success(ScheduleView, examples.SCHEDULE, "It stands"),
            **openapi.errors(400, 401, 403, 409, 503, invalid=examples.INVALID_CRON),
        },
        **editor,
    )
    async def put_schedule(request: Request[Any, Any, Any], data: JSONBody[ScheduleRequest]) -> ScheduleView:
        caller = caller_of(request)
        await reach(bus)
        try:
            if not caller.sight.project(data.project):
                raise OtherProject(data.project)
            return await scheduling.put(data, sight=caller.sight_in_tenant, by=caller.user)
        except InvalidName as error:
            raise invalid(str(error)) from error

    @get(
        "/",
        guards=[access.viewer],
        security=list(openapi.SECURITY),
        summary="What is indexed again and again",
        responses={
            200: openapi.success(ScheduleList, examples.SCHEDULES, "By tenant and id"),
            **openapi.errors(401, 503),
        },
    )
    async def list_schedules(request: Request[Any, Any, Any]) -> ScheduleList:
        try:
            await reach(bus)
            return await scheduling.list(caller_of(request).sight)
        except (BusError, Unreachable) as error:
            raise unavailable("Schedules", str(error)) from error

    @get(
        "/{schedule_id:str}",
        guards=[access.viewer],
        security=list(openapi.SECURITY),
        summary="One schedule",
        description=OF_A_TENANT,
        responses={
            200: openapi.success(ScheduleView, examples.SCHEDULE, "As it stands"),
            **openapi.errors(401, 404, 503),
        },
    )
    async def one_schedule(request: Request[Any, Any, Any], schedule_id: FromPath[str]) -> ScheduleView:
        try:
            await reach(bus)
            found = await scheduling.one(caller_of(request).sight_in_tenant, schedule_id)
        except (BusError, Unreachable) as error:
            raise unavailable("Schedules", str(error)) from error
        if found is None:
            raise not_found("schedule")
        return found

    @delete(
        "/{schedule_id:str}",
        summary="Index it no more by itself",
        description=f"A job that it has started goes on. {OF_A_TENANT}",
        responses=openapi.errors(401, 403, 404, 503),
        **editor,
    )
    async def remove_schedule(request: Request[Any, Any, Any], schedule_id: FromPath[str]) -> None:
        caller = caller_of(request)
        await reach(bus)
        if not await scheduling.remove(caller.sight_in_tenant, schedule_id, by=caller.user):
            raise not_found("schedule")

    return Router(
        PATH,
        route_handlers=[put_schedule, list_schedules, one_schedule, remove_schedule],
        tags=["schedules"],
    )
