"""Who did what, version 1."""

from __future__ import annotations

from datetime import datetime

from pharos_contracts.message import Message


class Audited(Message, frozen=True, kw_only=True, tag="audit.event.v1.audited"):
    """Somebody did something, or tried to.

    ``action`` is the name of the route, ``target`` what it was done to and None where nothing was named or
    found. ``credential`` names the key and never contains it. ``status`` is that of the HTTP answer.
    ``lost`` is how many events before this one could not be kept.
    """

    event_id: str
    at: datetime
    tenant: str
    user: str
    role: str
    credential: str
    client: str
    action: str
    target: str | None = None
    status: int
    lost: int = 0
