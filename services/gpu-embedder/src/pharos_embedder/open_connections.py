"""Connections that stay open while files come from them, so that a batch signs in once and not for each file.

Each is opened and closed by a task of its own: what is open belongs to the task that opened it, and files
come and go.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Final, Protocol, Self

import structlog

from pharos_contracts.connections.v1 import Connection, connection_key
from pharos_contracts.identity import InvalidName
from pharos_contracts.streams import KV_CONNECTIONS
from pharos_embedder.connecting import ConnectionGone
from pharos_embedder.holding import clock
from pharos_service.buckets import Bucket, Entry
from pharos_service.bus import Bus
from pharos_service.ending import end
from pharos_sources.source import Source, SourceUnavailable

log = structlog.get_logger()

OPEN_MAX: Final = 16  # more only while they are in use, and then no more than there are slots
IDLE_SECONDS: Final = 60.0
OPENING_SECONDS_MAX: Final = 900.0  # an archive is downloaded then
SWEEP_SECONDS: Final = 5.0


class Opens(Protocol):
    """What opens a connection: ``connecting.Connecting``."""

    def open(self, tenant: str, connection_id: str) -> AbstractAsyncContextManager[Source]: ...


class OpenConnections:
    """The connections that are open in this process. A context manager; all of them close at its end."""

    def __init__(
        self, bus: Bus, opener: Opens, *, open_max: int = OPEN_MAX, idle_seconds: float = IDLE_SECONDS
    ) -> None:
        self._bucket = Bucket(bus, KV_CONNECTIONS, Connection)
        self._opener = opener
        self._open_max = open_max
        self._idle_seconds = idle_seconds
        self._open: dict[tuple[str, str], _Open] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweeping: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._sweeping = asyncio.create_task(self._sweep())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._sweeping is not None, "it was entered"
        await end(self._sweeping, *self._tasks)

    @asynccontextmanager
    async def use(
        self, tenant: str, connection_id: str, *, user: str | None = None, project: str | None = None
    ) -> AsyncIterator[Source]:
        """The source of a connection as it is kept now, while the block lasts.

        One that belongs to another *user* or *project* than it is to (None: to any) is another connection,
        which took the id of one that was deleted.

        SourceError, of which ConnectionGone is one; errors of the bus pass through.
        """
        key = (tenant, connection_id)
        kept = await self._kept(tenant, connection_id)
        revision = None if kept is None else kept.revision
        one = self._open.get(key)
        if one is not None and one.revision != revision:
            self._close(key, one)  # it was changed, or deleted
            one = None
        if revision is None:
            raise ConnectionGone(connection_id)
        assert kept is not None, "it has a revision"
        if user not in (None, kept.value.user) or project not in (None, kept.value.project):
            raise ConnectionGone(connection_id)
        if one is None:
            one = self._begin(key, revision)
        one.users += 1
        try:
            yield await one.source()
        finally:
            one.users -= 1
            one.idle_since = clock()
            one.end_if_unused()

    def count(self) -> int:
        """How many are open, or being opened or closed."""
        return len(self._tasks)

    async def _kept(self, tenant: str, connection_id: str) -> Entry[Connection] | None:
        try:
            return await self._bucket.get(connection_key(tenant, connection_id))
        except InvalidName:
            return None

    def _begin(self, key: tuple[str, str], revision: int) -> _Open:
        idle = sorted((each.idle_since, name) for name, each in self._open.items() if not each.users)
        for _, name in idle[: max(0, len(self._open) + 1 - self._open_max)]:
            self._close(name, self._open[name])
        one = self._open[key] = _Open(revision)
        task = asyncio.create_task(self._keep(key, one))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return one

    def _close(self, key: tuple[str, str], one: _Open) -> None:
        """As soon as nobody uses it; whoever comes now opens it anew."""
        if self._open.get(key) is one:
            del self._open[key]
        one.leaving = True
        one.end_if_unused()

    async def _keep(self, key: tuple[str, str], one: _Open) -> None:
        """Open it, and close it when it is to end."""
        try:
            async with asyncio.timeout(OPENING_SECONDS_MAX) as opening:
                async with self._opener.open(*key) as source:
                    opening.reschedule(None)
                    kept = await self._kept(*key)
                    if kept is None or kept.revision != one.revision:
                        raise SourceUnavailable("the connection was changed just now")
                    one.opened.set_result(source)
                    await one.ending.wait()
        except Exception as error:
            if one.opened.done():
                log.warning("connection_not_closed", error=repr(error))
            else:
                one.opened.set_exception(error)
                one.opened.exception()  # nobody need be waiting for it any more
        finally:
            one.opened.cancel()  # of nothing but what was cancelled itself
            self._close(key, one)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(min(SWEEP_SECONDS, self._idle_seconds / 2))
            before = clock() - self._idle_seconds
            for key, one in list(self._open.items()):
                if not one.users and one.idle_since < before:
                    self._close(key, one)


class _Open:
    """One connection, as its users see it."""

    def __init__(self, revision: int) -> None:
        self.revision = revision
        self.users = 0
        self.idle_since = clock()
        self.leaving = False
        self.opened: asyncio.Future[Source] = asyncio.get_running_loop().create_future()
        self.ending = asyncio.Event()

    async def source(self) -> Source:
        return await asyncio.shield(self.opened)

    def end_if_unused(self) -> None:
        if self.leaving and not self.users:
            self.ending.set()
