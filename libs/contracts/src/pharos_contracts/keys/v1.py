"""Issued keys, version 1."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pharos_contracts.message import Message


class Role(StrEnum):
    """What a caller may do; each role may do what the ones before it may."""

    VIEWER = "viewer"
    EDITOR = "editor"
    ADMIN = "admin"


class Key(Message, frozen=True, kw_only=True, tag="keys.view.v1.key"):
    """A key as it is stored: whose it is and what it may, and never the text that proves it.

    ``hash`` is the SHA-256 of the secret, in hexadecimal digits. ``previous_hash`` is that of the secret
    before the last rotation, which is good until ``previous_until``. ``projects`` None is every project of
    the tenant.
    """

    key_id: str
    tenant: str
    user: str
    role: Role
    hash: str
    name: str = ""
    projects: tuple[str, ...] | None = None
    created_at: datetime
    created_by: str
    expires_at: datetime | None = None
    rotated_at: datetime | None = None
    previous_hash: str | None = None
    previous_until: datetime | None = None
    disabled_at: datetime | None = None
    disabled_by: str | None = None
