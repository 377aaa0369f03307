"""``/api/v1/audit``: who did what. For admins."""

from __future__ import annotations

from typing import Annotated, Any, Final

from litestar import Request, Router, get
from litestar.params import QueryParameter

from pharos_contracts.identity import InvalidName
from pharos_gateway import auditing, examples, openapi
from pharos_gateway.access import Access
from pharos_gateway.auditing import AuditPage
from pharos_gateway.authentication import caller_of
from pharos_gateway.problems import invalid
from pharos_gateway.reachability import reach
from pharos_service.bus import Bus

PATH: Final = "/api/v1/audit"


def routes(access: Access, bus: Bus) -> Router:
    """The routes of this family. An admin who names a tenant by ``x-tenant`` sees what was done in it."""

    @get(
        "/",
        guards=[access.admin],
        security=list(openapi.SECURITY),
        summary="Who did what, to what, from where",
        description="Each request that changes something, whatever became of it. Kept for a year.",
        responses={
            200: openapi.success(AuditPage, examples.AUDIT, "Newest first"),
            **openapi.errors(400, 401, 403, 503),
        },
    )
    async def list_audit(
        request: Request[Any, Any, Any],
        action: Annotated[
            str | None,
            QueryParameter(schema_extra=openapi.NAME, description="Only this, as in `action` of an event."),
        ] = None,
        limit: Annotated[int, QueryParameter(ge=1, le=100, description="How many, 1 to 100.")] = 20,
        before: openapi.Cursor = None,
    ) -> AuditPage:
        await reach(bus)
        try:
            return await auditing.page(
                bus, caller_of(request).sees, action=action, limit=limit, before=before
            )
        except InvalidName as error:
            raise invalid(str(error), field="action") from error

    return Router(PATH, route_handlers=[list_audit], tags=["keys"])
