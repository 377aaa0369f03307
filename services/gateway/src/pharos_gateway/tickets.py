"""Tickets for clients that cannot send headers: an EventSource of a browser has only an address. Pure.

A ticket says whose it is and until when, under a signature; nothing is stored, so that any gateway can read
it. It opens event streams and nothing else, for a minute: addresses end up in logs. The key is derived from
the bootstrap admin's token, which every gateway has.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import datetime, timedelta
from typing import Final

import msgspec

from pharos_contracts.keys.v1 import Role

TICKET_SECONDS: Final = 60
PARAMETER: Final = "ticket"
_PURPOSE: Final = b"pharos event ticket v1"
_LENGTH_MAX: Final = 1_024


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """Whoever holds it acts as the holder of ``key`` (None: an anonymous one), as what they were then."""

    key: str | None
    tenant: str
    role: Role
    every_tenant: bool
    until: datetime


class Tickets:
    """Issues and reads tickets."""

    def __init__(self, admin_token: str) -> None:
        self._key = hmac.new(admin_token.encode(), _PURPOSE, hashlib.sha256).digest()

    def issue(
        self, *, key: str | None, tenant: str, role: Role, every_tenant: bool, now: datetime
    ) -> tuple[str, datetime]:
        """A ticket's text, and until when it is good."""
        until = now + timedelta(seconds=TICKET_SECONDS)
        ticket = Ticket(key=key, tenant=tenant, role=role, every_tenant=every_tenant, until=until)
        body = urlsafe_b64encode(msgspec.json.encode(ticket)).rstrip(b"=")
        return f"{body.decode()}.{self._signature(body)}", until

    def read(self, text: str, now: datetime) -> Ticket | None:
        """The ticket in *text*; None where it is none, or no longer good."""
        if len(text) > _LENGTH_MAX or not text.isascii():
            return None
        body, _, signature = text.partition(".")
        if not hmac.compare_digest(signature, self._signature(body.encode())):
            return None
        ticket = msgspec.json.decode(urlsafe_b64decode(body + "=" * (-len(body) % 4)), type=Ticket)
        return ticket if now < ticket.until else None

    def _signature(self, body: bytes) -> str:
        return hmac.new(self._key, body, hashlib.sha256).hexdigest()
