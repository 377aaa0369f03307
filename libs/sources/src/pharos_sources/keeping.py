"""A connection as it is kept: what may be shown in clear, everything else sealed. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from pharos_sources.connections import (
    Connection,
    Installation,
    InvalidConnection,
    config_of,
    parse_connection,
    secrets_of,
)
from pharos_sources.sealing import Sealer, Unopenable

SEALED_LENGTH_MAX = 128 * 1024
"""Characters of what is sealed: an entry of the bus has room for it."""


class NothingToSealWith(Exception):
    """The connection has secrets, and the installation has no key."""

    def __init__(self) -> None:
        super().__init__(
            "A connection with secrets needs the setting PHAROS_SECRET_KEY, which this installation does "
            "not have"
        )


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """The two parts of a connection, and which of its secret fields are set."""

    config: dict[str, str | bool | None]
    sealed: str | None
    secrets: tuple[str, ...]


def keep(connection: Connection, sealer: Sealer | None, *, tenant: str, connection_id: str) -> Kept:
    """*connection* in its two parts, for this tenant and this id only.

    NothingToSealWith; InvalidConnection where there is more to seal than an entry holds.
    """
    secrets = secrets_of(connection)
    sealed = None
    if secrets:
        if sealer is None:
            raise NothingToSealWith
        sealed = sealer.seal(msgspec.json.encode(secrets), tenant=tenant, connection_id=connection_id)
        if len(sealed) > SEALED_LENGTH_MAX:
            raise InvalidConnection(", ".join(secrets), "together they are too long to be kept")
    return Kept(config=config_of(connection), sealed=sealed, secrets=tuple(secrets))


def kept_connection(
    source_type: str,
    config: Mapping[str, object],
    sealed: str | None,
    sealer: Sealer | None,
    *,
    tenant: str,
    connection_id: str,
    installation: Installation,
) -> Connection:
    """The connection that `keep` took apart.

    Unopenable; InvalidConnection where the installation no longer admits what it did.
    """
    secrets: dict[str, object] = {}
    if sealed is not None:
        if sealer is None:
            raise Unopenable
        opened = sealer.open(sealed, tenant=tenant, connection_id=connection_id)
        secrets = msgspec.json.decode(opened, type=dict[str, object])
    return parse_connection(source_type, {**config, **secrets}, installation=installation)
