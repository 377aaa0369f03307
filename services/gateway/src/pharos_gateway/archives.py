"""Uploaded archives, each for as long as its connection: the store ``archives``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pharos_contracts.connections.v1 import archive_name
from pharos_contracts.streams import OBJ_ARCHIVES
from pharos_gateway.scratch import Scratch
from pharos_service.bus import Bus
from pharos_service.local_copies import LocalCopies, NoRoom
from pharos_service.objects import ObjectDamaged, ObjectGone
from pharos_sources.connections import Uploads
from pharos_sources.source import SourceRefused, SourceUnavailable, SourceUnreadable


class Archives:
    """The store, and copies of what is looked into, of at most *copies_bytes_max* together."""

    def __init__(self, bus: Bus, scratch: Scratch, *, copies_bytes_max: int) -> None:
        self._bus = bus
        self._scratch = scratch
        self._copies_bytes_max = copies_bytes_max
        self._copies: LocalCopies | None = None

    def of_tenant(self, tenant: str) -> Uploads:
        """Archives of *tenant*, by the ids of their uploads."""

        @asynccontextmanager
        async def archive(upload_id: str) -> AsyncIterator[Path]:
            copies = await self._found_copies()
            try:
                async with copies.open(archive_name(tenant, upload_id)) as path:
                    yield path
            except ObjectGone:
                raise SourceRefused("its archive is gone: make the connection anew") from None
            except ObjectDamaged:
                raise SourceUnreadable("its archive is damaged: make the connection anew") from None
            except (NoRoom, OSError):
                raise SourceUnavailable("there is no room for its archive at the moment") from None

        return archive

    async def _found_copies(self) -> LocalCopies:
        if self._copies is None:
            folder = await self._scratch.folder() / OBJ_ARCHIVES
            folder.mkdir(exist_ok=True)
            self._copies = LocalCopies(self._bus, OBJ_ARCHIVES, folder, bytes_max=self._copies_bytes_max)
        return self._copies
