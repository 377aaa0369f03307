"""What the routes that delete datasets have in common."""

from __future__ import annotations

from typing import Any, Final

from litestar import Request

from pharos_contracts.identity import documents_dataset
from pharos_contracts.resources.v1 import RESOURCES_LABEL
from pharos_gateway.audit import note_target
from pharos_gateway.authentication import Forbidden, Role, caller_of
from pharos_gateway.deleting import Deleted, Deleting, Wanted
from pharos_gateway.problems import not_found
from pharos_gateway.reachability import reach
from pharos_service.bus import Bus

RESOURCES: Final = documents_dataset(RESOURCES_LABEL)


async def delete_wanted(
    request: Request[Any, Any, Any], bus: Bus, deleting: Deleting, wanted: Wanted
) -> Deleted:
    """What is gone; 404 where there is nothing of it, or its project is not shown to the caller.

    The dataset of resources has those of every user, who deletes their own one by one: it is for admins.
    """
    caller = caller_of(request)
    if not caller.sight.project(wanted.project):
        raise not_found("dataset")
    if wanted.dataset == RESOURCES and not caller.may(Role.ADMIN):
        raise Forbidden(Role.ADMIN)
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
