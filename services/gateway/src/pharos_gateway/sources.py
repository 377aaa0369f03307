"""The sources behind connections, as the gateway looks into them: never for long, never many at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import datetime
from time import monotonic
from typing import Final

import msgspec

from pharos_contracts.connections.v1 import Connection
from pharos_gateway.archives import Archives
from pharos_gateway.scratch import Scratch
from pharos_sources.asking import Patience
from pharos_sources.connections import Installation, InvalidConnection, open_source
from pharos_sources.git import FetchLimits
from pharos_sources.keeping import kept_connection
from pharos_sources.sealing import Sealer, Unopenable
from pharos_sources.source import Page, Source, SourceError, SourceRefused, SourceUnavailable

LOOKS_MAX: Final = 8
LOOKS_PER_TENANT_MAX: Final = 4
RETRY_SECONDS: Final = 5
MiB: Final = 1024 * 1024
# A person waits: a service that is busy is asked twice, and a repository must be a small one.
PATIENCE: Final = Patience(tries_max=2, first_seconds=0.5, wait_seconds_max=2.0, seconds_max=4.0)
CHECKOUT: Final = FetchLimits(bytes_max=64 * MiB, files_max=50_000)


class FileView(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a source. ``identity`` changes when its content does; null where the source tells nothing."""

    file_id: str
    name: str
    size: int | None
    modified: datetime | None
    content_type: str | None
    identity: str | None


class FilePage(msgspec.Struct, frozen=True, kw_only=True):
    """Some files; ``cursor`` continues, null ends. ``left_out`` counts by reason what is not read."""

    files: tuple[FileView, ...]
    cursor: str | None
    left_out: dict[str, int]


class Tested(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the source can be listed now; if not, why, and whether trying again may help."""

    ok: bool
    detail: str | None
    transient: bool | None
    latency_ms: float


class TooManyLooks(Exception):
    """Sources are looked into by as many requests as may do so at once."""

    def __init__(self) -> None:
        super().__init__("Too many requests look into sources at this moment. Please try again later.")
        self.retry_seconds = RETRY_SECONDS


class SourceSlow(Exception):
    """The source did not answer in time."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"The source did not answer within {seconds:g} seconds")


class Sources:
    """Opens the sources of connections. One object serves every request of a process."""

    def __init__(
        self,
        archives: Archives,
        scratch: Scratch,
        sealer: Sealer | None,
        installation: Installation,
        *,
        look_seconds: float,
        looks_max: int = LOOKS_MAX,
        looks_per_tenant_max: int = LOOKS_PER_TENANT_MAX,
    ) -> None:
        self._archives = archives
        self._scratch = scratch
        self._sealer = sealer
        self._installation = replace(installation, patience=PATIENCE, checkout=CHECKOUT)
        self._look_seconds = look_seconds
        self._looks_max = looks_max
        self._looks_per_tenant_max = looks_per_tenant_max
        self._looks: Counter[str] = Counter()

    async def files(
        self, connection: Connection, *, path: str | None, cursor: str | None, limit: int
    ) -> FilePage:
        """A page of the files below the folder *path*. TooManyLooks, SourceSlow, SourceError."""
        async with self.look(connection) as source:
            return _page(await source.list(under=path, cursor=cursor, limit=limit))

    async def test(self, connection: Connection) -> Tested:
        """Whether it works. TooManyLooks."""
        began = monotonic()
        detail, transient = None, None
        try:
            async with self.look(connection) as source:
                await source.check()
        except SourceError as error:
            detail, transient = str(error), error.transient
        except SourceSlow as error:
            detail, transient = str(error), True
        return Tested(
            ok=detail is None,
            detail=detail,
            transient=transient,
            latency_ms=round((monotonic() - began) * 1000, 1),
        )

    @asynccontextmanager
    async def look(self, connection: Connection) -> AsyncIterator[Source]:
        """The source of *connection* while the block lasts, which it may not for long.

        TooManyLooks, SourceSlow, SourceError; errors of the bus pass through.
        """
        with self._counted(connection.tenant):
            try:
                async with asyncio.timeout(self._look_seconds), self._opened(connection) as source:
                    yield source
            except TimeoutError:
                raise SourceSlow(self._look_seconds) from None

    @asynccontextmanager
    async def _opened(self, connection: Connection) -> AsyncIterator[Source]:
        try:
            work = await self._scratch.folder()
        except OSError:
            raise SourceUnavailable("this gateway has no folder for its files") from None
        installation = replace(
            self._installation, uploads=self._archives.of_tenant(connection.tenant), work=work
        )
        try:
            parsed = kept_connection(
                connection.source_type.value,
                connection.config,
                connection.sealed,
                self._sealer,
                tenant=connection.tenant,
                connection_id=connection.connection_id,
                installation=installation,
            )
        except (Unopenable, InvalidConnection) as error:
            raise SourceRefused(str(error)) from None
        async with open_source(parsed, installation) as source:
            yield source

    @contextmanager
    def _counted(self, tenant: str) -> Iterator[None]:
        if self._looks.total() >= self._looks_max or self._looks[tenant] >= self._looks_per_tenant_max:
            raise TooManyLooks
        self._looks[tenant] += 1
        try:
            yield
        finally:
            self._looks[tenant] -= 1
            if not self._looks[tenant]:
                del self._looks[tenant]


def _page(page: Page) -> FilePage:
    return FilePage(
        files=tuple(
            FileView(
                file_id=entry.id,
                name=entry.name,
                size=entry.size,
                modified=entry.modified,
                content_type=entry.content_type,
                identity=entry.identity,
            )
            for entry in page.entries
        ),
        cursor=page.cursor,
        left_out=dict(page.left_out),
    )
