"""Reading the audit trail, newest first."""

from __future__ import annotations

from datetime import datetime

import msgspec
import structlog

from pharos_contracts import subjects
from pharos_contracts.audit.v1 import Audited
from pharos_contracts.keys.v1 import Role
from pharos_contracts.message import UnreadableMessage, decode
from pharos_contracts.streams import AUDIT
from pharos_gateway.newest import newest
from pharos_service.bus import Bus, Stored

log = structlog.get_logger()


class AuditView(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody did something, or tried to: ``status`` is that of the answer.

    ``action`` is the name of the operation, ``target`` what it was done to. ``credential`` names the key.
    ``lost`` is how many events before this one could not be kept.
    """

    id: str
    at: datetime
    tenant: str
    user: str
    role: Role
    credential: str
    client: str
    action: str
    target: str | None
    status: int
    lost: int


class AuditPage(msgspec.Struct, frozen=True, kw_only=True):
    """Newest first; ``cursor`` continues, None ends."""

    events: tuple[AuditView, ...]
    cursor: int | None


async def page(
    bus: Bus, tenant: str | None, *, action: str | None, limit: int, before: int | None
) -> AuditPage:
    """At most *limit* events of *tenant* (None: all), older than the *cursor* of the page before.

    InvalidName, and errors of the bus.
    """
    found = await newest(bus, AUDIT, subjects.audit_events(tenant, action), limit + 1, before)
    shown = found[:limit]
    events = (_read(stored) for stored in shown)
    return AuditPage(
        events=tuple(_view(event) for event in events if event is not None),
        cursor=shown[-1].sequence if len(found) > limit else None,
    )


def _read(stored: Stored) -> Audited | None:
    try:
        return decode(stored.data, Audited)
    except UnreadableMessage as error:
        log.warning("audit_unreadable", sequence=stored.sequence, error=error.reason)
        return None


def _view(event: Audited) -> AuditView:
    return AuditView(
        id=event.event_id,
        at=event.at,
        tenant=event.tenant,
        user=event.user,
        role=Role(event.role),
        credential=event.credential,
        client=event.client,
        action=event.action,
        target=event.target,
        status=event.status,
        lost=event.lost,
    )
