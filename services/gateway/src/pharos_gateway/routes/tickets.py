"""``/api/v1/events/ticket``: for clients that cannot send headers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec
from litestar import Request, Router, post

from pharos_gateway import examples, openapi
from pharos_gateway.access import Access
from pharos_gateway.audit import READS
from pharos_gateway.authentication import caller_of
from pharos_gateway.tickets import TICKET_SECONDS, Tickets


class IssuedTicket(msgspec.Struct, frozen=True, kw_only=True):
    """To be sent as ``?ticket=``, until ``expires_at``."""

    ticket: str
    expires_at: datetime
    expires_in_seconds: int = TICKET_SECONDS


def routes(access: Access, tickets: Tickets, now: Callable[[], datetime]) -> Router:
    """The routes of this family."""

    @post(
        "/api/v1/events/ticket",
        status_code=200,
        guards=[access.viewer],
        security=list(openapi.SECURITY),
        opt=READS,
        summary="A ticket for an event stream",
        description="For a minute, whoever sends it as `?ticket=` to an event stream is taken for the "
        "caller. A stream that was opened goes on after that.",
        responses={
            200: openapi.success(IssuedTicket, examples.TICKET, "For one minute"),
            **openapi.errors(401),
        },
    )
    async def issue_ticket(request: Request[Any, Any, Any]) -> IssuedTicket:
        caller = caller_of(request)
        text, until = tickets.issue(
            key=caller.key,
            tenant=caller.tenant,
            role=caller.role,
            every_tenant=caller.every_tenant,
            now=now(),
        )
        return IssuedTicket(ticket=text, expires_at=until)

    return Router("/", route_handlers=[issue_ticket], tags=["events"])
