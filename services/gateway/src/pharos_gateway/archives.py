"""Uploaded archives, each for as long as its connection: the store ``archives``."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import structlog

from pharos_contracts.connections.v1 import Connection, SourceType, archive_name
from pharos_contracts.message import UnreadableMessage
from pharos_contracts.streams import KV_CONNECTIONS, OBJ_ARCHIVES
from pharos_gateway.entries import keys_under
from pharos_gateway.scratch import Scratch
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus, BusError
from pharos_service.local_copies import LocalCopies, NoRoom
from pharos_service.objects import ObjectDamaged, ObjectGone, remove, remove_forgotten
from pharos_sources.connections import Uploads
from pharos_sources.source import SourceRefused, SourceUnavailable, SourceUnreadable

log = structlog.get_logger()

# The directory of an archive takes up to 15 MB of memory; whoever comes later waits for their turn.
OPEN_MAX: Final = 2
SWEEP_SECONDS: Final = 600.0
ABANDONED_SECONDS: Final = 3_600.0  # an upload takes less
SWEPT_CONNECTIONS_MAX: Final = 50_000  # fewer than the server names at once


class Archives:
    """The store, and copies of what is looked into, of at most *copies_bytes_max* together.

    ``run`` it in a task of its own.
    """

    def __init__(
        self,
        bus: Bus,
        bucket: Bucket[Connection],
        scratch: Scratch,
        *,
        copies_bytes_max: int,
        now: Callable[[], datetime],
        sweep_seconds: float = SWEEP_SECONDS,
    ) -> None:
        self._bus = bus
        self._bucket = bucket
        self._scratch = scratch
        self._copies_bytes_max = copies_bytes_max
        self._now = now
        self._sweep_seconds = sweep_seconds
        self._copies: LocalCopies | None = None
        self._open = asyncio.Semaphore(OPEN_MAX)

    def of_tenant(self, tenant: str) -> Uploads:
        """Archives of *tenant*, by the ids of their uploads."""

        @asynccontextmanager
        async def archive(upload_id: str) -> AsyncIterator[Path]:
            copies = await self._found_copies()
            try:
                async with self._open, copies.open(archive_name(tenant, upload_id)) as path:
                    yield path
            except ObjectGone:
                raise SourceRefused("its archive is gone: make the connection anew") from None
            except ObjectDamaged:
                raise SourceUnreadable("its archive is damaged: make the connection anew") from None
            except (NoRoom, OSError):
                raise SourceUnavailable("there is no room for its archive at the moment") from None

        return archive

    async def remove(self, tenant: str, upload_id: str) -> None:
        """The archive has no connection any more. Best effort: what stays is found by ``run``."""
        name = archive_name(tenant, upload_id)
        if self._copies is not None:
            self._copies.forget(name)
        with contextlib.suppress(BusError):
            await remove(self._bus, OBJ_ARCHIVES, name)

    async def run(self) -> None:
        """For ever: what a gateway left behind that was killed between an upload and its connection."""
        while True:
            await asyncio.sleep(self._sweep_seconds)
            try:
                removed = await self.sweep()
            except BusError as error:
                log.info("archives_not_swept", reason=str(error))
                continue
            if removed:
                log.info("archives_swept", removed=removed)

    async def sweep(self) -> int:
        """Remove archives without a connection that were there an hour ago; how many. Errors of the bus."""
        before = self._now() - timedelta(seconds=ABANDONED_SECONDS)
        wanted = await self._wanted()
        if wanted is None:
            return 0
        return await remove_forgotten(self._bus, OBJ_ARCHIVES, wanted, before=before)

    async def _wanted(self) -> set[str] | None:
        """What archives of connections are called; None where not all connections are known."""
        found: set[str] = set()
        keys, more = await keys_under(self._bus, KV_CONNECTIONS, "*.*", keys_max=SWEPT_CONNECTIONS_MAX)
        if more:
            log.warning("archives_not_swept", reason="there are too many connections")
            return None
        for key in keys:
            try:
                entry = await self._bucket.get(key)
            except (
                UnreadableMessage
            ):  # a newer gateway wrote it: whether it has an archive, nobody knows here
                log.warning("archives_not_swept", reason="a connection cannot be read", key=key)
                return None
            if entry is not None and entry.value.source_type is SourceType.LOCAL_ZIP:
                found.add(archive_name(entry.value.tenant, str(entry.value.config["upload_id"])))
        return found

    async def _found_copies(self) -> LocalCopies:
        if self._copies is None:
            folder = await self._scratch.folder() / OBJ_ARCHIVES
            folder.mkdir(exist_ok=True)
            self._copies = LocalCopies(self._bus, OBJ_ARCHIVES, folder, bytes_max=self._copies_bytes_max)
        return self._copies
