"""Connections to sources, version 1."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from pharos_contracts.identity import PROJECT_DEFAULT, token
from pharos_contracts.message import Message


class SourceType(StrEnum):
    """Where the files of a connection come from."""

    LOCAL_DIRECTORY = "local_directory"
    LOCAL_ZIP = "local_zip"
    GOOGLE_DRIVE = "google_drive"
    S3 = "s3"
    HTTP = "http"
    GIT = "git"


class Connection(Message, frozen=True, kw_only=True, tag="connections.view.v1.connection"):
    """A way to a source, as the bucket ``connections`` keeps it.

    ``config`` may be shown to its owner. ``sealed`` is everything that may not: it opens only with the
    installation's secret key and only for this tenant and connection; None where there is nothing to hide.
    ``secrets`` names the fields that it holds. ``archive_bytes`` is the size of the archive that was uploaded
    for it, which is called ``archive_name`` in the store ``archives`` and lives as long as it does.
    """

    connection_id: str
    tenant: str
    user: str
    source_type: SourceType
    name: str = ""
    config: dict[str, str | int | float | bool | list[str] | None] = msgspec.field(default_factory=dict)
    sealed: str | None = None
    created_at: datetime
    updated_at: datetime | None = None
    project: str = PROJECT_DEFAULT
    secrets: tuple[str, ...] = ()
    archive_bytes: int = 0


def connection_key(tenant: str, connection_id: str) -> str:
    """The key of a connection in the bucket ``connections``. InvalidName."""
    return f"{token(tenant)}.{token(connection_id)}"


def archive_name(tenant: str, upload_id: str) -> str:
    """What an uploaded archive is called in the store ``archives``. InvalidName."""
    return f"{token(tenant)}/{upload_id}"
