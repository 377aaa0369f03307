"""What the routes that delete datasets have in common."""

from __future__ import annotations

from typing import Any

from litestar import Request

from pharos_gateway.audit import note_target
from pharos_gateway.authentication import caller_of
from pharos_gateway.deleting import Deleted, Deleting, Wanted
from pharos_gateway.problems import not_found
from pharos_gateway.reachability import reach
from pharos_service.bus import Bus


async def delete_wanted(
    request: Request[Any, Any, Any], bus: Bus, deleting: Deleting, wanted: Wanted
) -> Deleted:
    """What is gone; 404 where there is nothing of it, or its project is not shown to the caller."""
    caller = caller_of(request)
    if not caller.sight.project(wanted.project):
        raise not_found("dataset")
    await reach(bus)
    target = f"{wanted.project}/{wanted.dataset or wanted.repository}"
    try:
        gone = await deleting.delete(wanted, by=caller.user)
    except Exception:
        note_target(request, target)  # some of it may be gone
        raise
    if gone is None:
        raise not_found("dataset")
    note_target(request, target)
    return gone
