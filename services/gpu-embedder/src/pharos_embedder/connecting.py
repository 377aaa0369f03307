"""The sources of connections, as a worker opens them: the entry of the bus, its secrets, its archive."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from pharos_contracts.connections.v1 import Connection, archive_name, connection_key
from pharos_contracts.identity import InvalidName
from pharos_contracts.streams import KV_CONNECTIONS
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus
from pharos_service.local_copies import LocalCopies, NoRoom
from pharos_service.objects import ObjectDamaged, ObjectGone
from pharos_sources.connections import Installation, InvalidConnection, Uploads, open_source
from pharos_sources.keeping import kept_connection
from pharos_sources.sealing import Sealer, Unopenable
from pharos_sources.source import Source, SourceRefused, SourceUnavailable, SourceUnreadable


class ConnectionGone(SourceRefused):
    """There is no such connection: it was deleted, perhaps while its batch ran."""

    def __init__(self, connection_id: str) -> None:
        super().__init__(f"there is no connection {connection_id!r}")


class Connecting:
    """Opens connections. One object serves every item of a worker."""

    def __init__(
        self, bus: Bus, archives: LocalCopies, sealer: Sealer | None, installation: Installation
    ) -> None:
        self._bucket = Bucket(bus, KV_CONNECTIONS, Connection)
        self._archives = archives
        self._sealer = sealer
        self._installation = installation

    @asynccontextmanager
    async def open(self, tenant: str, connection_id: str) -> AsyncIterator[Source]:
        """The source of a connection while the block lasts.

        SourceError, of which ConnectionGone is one; errors of the bus pass through.
        """
        try:
            entry = await self._bucket.get(connection_key(tenant, connection_id))
        except InvalidName:
            entry = None
        if entry is None:
            raise ConnectionGone(connection_id)
        kept = entry.value
        installation = replace(self._installation, uploads=_uploads(self._archives, tenant))
        try:
            connection = kept_connection(
                kept.source_type.value,
                kept.config,
                kept.sealed,
                self._sealer,
                tenant=tenant,
                connection_id=connection_id,
                installation=installation,
            )
        except (Unopenable, InvalidConnection) as error:
            raise SourceRefused(str(error)) from None
        async with open_source(connection, installation) as source:
            yield source


def _uploads(archives: LocalCopies, tenant: str) -> Uploads:
    """Archives of *tenant*, by the ids of their uploads."""

    @asynccontextmanager
    async def archive(upload_id: str) -> AsyncIterator[Path]:
        try:
            async with archives.open(archive_name(tenant, upload_id)) as path:
                yield path
        except ObjectGone:
            raise SourceRefused("its archive is gone: make the connection anew") from None
        except ObjectDamaged:
            raise SourceUnreadable("its archive is damaged: make the connection anew") from None
        except (NoRoom, OSError):
            raise SourceUnavailable("there is no room for its archive at the moment") from None

    return archive
