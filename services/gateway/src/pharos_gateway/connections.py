"""Connections: ways to sources of files, kept in the bucket ``connections`` with their secrets sealed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from pharos_contracts.connections.v1 import Connection, SourceType, connection_key
from pharos_contracts.identity import PROJECT_DEFAULT, InvalidName, token
from pharos_contracts.streams import KV_CONNECTIONS
from pharos_gateway.entries import READS_AT_ONCE, keys_under
from pharos_gateway.project_names import one_project
from pharos_gateway.scheduling import NO_CONTROLS
from pharos_gateway.sight import Sight
from pharos_service.buckets import Bucket, Entry
from pharos_service.bus import Bus, BusRefused, StreamFull
from pharos_sources.connections import (
    KINDS,
    Installation,
    InvalidConnection,
    LocalZipConnection,
    parse_connection,
    secret_fields,
)
from pharos_sources.connections import Connection as Parsed
from pharos_sources.keeping import keep
from pharos_sources.sealing import Sealer

MiB: Final = 1024 * 1024
CONNECTIONS_PER_TENANT_MAX: Final = 100
NAME_LENGTH_MAX: Final = 200
TEXT: Final = NO_CONTROLS.replace("+", "*")  # which may be empty
CONFIG_LENGTH_MAX: Final = 16 * 1024
TRIES_MAX: Final = 5
# For as long a deleted id is known to have been there, so that two deletes agree. Not for longer: as long as
# it is, it is counted among the ids that are looked through.
TOMBSTONE_SECONDS: Final = 60

_Name = Annotated[str, Meta(min_length=1, max_length=64)]
_Id = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=64,
        description="Letters, digits, `-` and `_`; unique within the tenant. Default: a new one.",
    ),
]
_Title = Annotated[
    str, Meta(max_length=NAME_LENGTH_MAX, pattern=TEXT, description="For people; it need not be unique.")
]


class ConnectionRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where files are, and what is needed to read them."""

    source_type: SourceType
    config: Annotated[
        dict[str, Any],
        Meta(description="The fields of its type, secret ones among them, which are never shown again."),
    ]
    id: _Id | None = None
    name: _Title = ""
    project: _Name = PROJECT_DEFAULT


class ConnectionView(msgspec.Struct, frozen=True, kw_only=True):
    """A connection, without its secrets: ``secrets`` names the fields that are set.

    ``archive_bytes`` is the size of its archive, 0 where it has none.
    """

    id: str
    tenant: str
    source_type: SourceType
    name: str
    project: str
    config: dict[str, Any]
    secrets: tuple[str, ...]
    archive_bytes: int
    created_at: datetime
    created_by: str


class ConnectionList(msgspec.Struct, frozen=True, kw_only=True):
    """By tenant and id; ``truncated`` where there are more than 1,000."""

    connections: tuple[ConnectionView, ...]
    truncated: bool


class PlaceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a connection is to be called, and where it belongs."""

    id: str | None
    name: str
    project: str


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a connection goes."""

    key: str
    connection_id: str
    tenant: str
    by: str
    name: str
    project: str


class ConnectionTaken(Exception):
    """The tenant has a connection of this id already."""

    def __init__(self, connection_id: str) -> None:
        super().__init__(f"There is a connection {connection_id!r} already: delete it, or choose another id")


class TooManyConnections(Exception):
    """There is no room for another connection; the text says of what there are too many."""


class ArchivesFull(Exception):
    """The archives of the tenant, or of all, have as many bytes as they may."""

    def __init__(self, bytes_max: int | None = None) -> None:
        super().__init__(
            "There is no room for more archives"
            if bytes_max is None
            else f"The archives of a tenant may have {bytes_max // MiB} MiB together: delete a connection"
        )


class Connections:
    """The use cases. Errors of the bus pass through."""

    def __init__(
        self,
        bus: Bus,
        bucket: Bucket[Connection],
        sealer: Sealer | None,
        installation: Installation,
        *,
        archives_bytes_max: int,
        now: Callable[[], datetime],
        new_id: Callable[[], str],
    ) -> None:
        self._bus = bus
        self._bucket = bucket
        self._sealer = sealer
        self._installation = installation
        self._archives_bytes_max = archives_bytes_max
        self._now = now
        self._new_id = new_id

    async def create(self, request: ConnectionRequest, *, tenant: str, by: str) -> ConnectionView:
        """A new connection, which nobody has tried yet.

        InvalidConnection, InvalidName, ReservedProject, NothingToSealWith, ConnectionTaken,
        TooManyConnections.
        """
        if request.source_type is SourceType.LOCAL_ZIP:
            raise InvalidConnection(
                "source_type",
                "a connection of the type local_zip is made by uploading its archive to /connections/upload",
            )
        parsed = parse_connection(request.source_type.value, request.config, installation=self._installation)
        place = await self.place(
            PlaceRequest(id=request.id, name=request.name, project=request.project), tenant=tenant, by=by
        )
        return await self._put(place, parsed, archive_bytes=0)

    async def place(self, request: PlaceRequest, *, tenant: str, by: str) -> Place:
        """Room for one more connection, which nobody else may have taken when it is used.

        InvalidName, ReservedProject, ConnectionTaken, TooManyConnections.
        """
        connection_id = self._new_id() if request.id is None else request.id
        key = connection_key(tenant, connection_id)
        one_project(request.project)
        held = await self._of_tenant(tenant)
        if any(each.connection_id == connection_id for each in held):
            raise ConnectionTaken(connection_id)
        if len(held) >= CONNECTIONS_PER_TENANT_MAX:
            raise TooManyConnections(f"A tenant has at most {CONNECTIONS_PER_TENANT_MAX} connections")
        return Place(
            key=key,
            connection_id=connection_id,
            tenant=tenant,
            by=by,
            name=request.name,
            project=request.project,
        )

    async def check_archive(self, tenant: str, size: int = 1) -> None:
        """Whether *tenant* may have an archive of *size* bytes more. ArchivesFull, TooManyConnections."""
        taken = sum(each.archive_bytes for each in await self._of_tenant(tenant))
        if taken + size > self._archives_bytes_max:
            raise ArchivesFull(self._archives_bytes_max)

    async def create_of_archive(self, place: Place, *, upload_id: str, size: int) -> ConnectionView:
        """A connection to an archive that is uploaded. ArchivesFull, ConnectionTaken, TooManyConnections.

        Uploads that end at the same moment may together have a little more than there is room for.
        """
        await self.check_archive(place.tenant, size)
        return await self._put(place, LocalZipConnection(upload_id=upload_id), archive_bytes=size)

    async def _put(self, place: Place, parsed: Parsed, *, archive_bytes: int) -> ConnectionView:
        kept = keep(parsed, self._sealer, tenant=place.tenant, connection_id=place.connection_id)
        if len(msgspec.json.encode(kept.config)) > CONFIG_LENGTH_MAX:
            raise InvalidConnection(", ".join(kept.config), "together they are too long to be kept")
        connection = Connection(
            connection_id=place.connection_id,
            tenant=place.tenant,
            user=place.by,
            source_type=SourceType(str(parsed.__struct_config__.tag)),
            name=place.name,
            project=place.project,
            config=dict(kept.config),
            sealed=kept.sealed,
            secrets=kept.secrets,
            archive_bytes=archive_bytes,
            created_at=self._now(),
        )
        try:
            revision = await self._bucket.create(place.key, connection)
        except StreamFull as error:
            raise TooManyConnections("There is no room for more connections") from error
        if revision is None:
            raise ConnectionTaken(place.connection_id)
        return view(connection)

    async def list(self, sight: Sight) -> ConnectionList:
        """Those that *sight* shows."""
        tenant = "*" if sight.tenant is None else token(sight.tenant)
        keys, truncated = await keys_under(self._bus, KV_CONNECTIONS, f"{tenant}.*")
        shown: list[ConnectionView] = []
        # What is sealed may be long: no more of it is held at once than is read at once.
        for start in range(0, len(keys), READS_AT_ONCE):
            shown += (
                view(each)
                for each in await self._read(keys[start : start + READS_AT_ONCE])
                if sight.connection(each)
            )
        return ConnectionList(connections=tuple(shown), truncated=truncated)

    async def find(self, sight: Sight, connection_id: str) -> Connection | None:
        """The one of that id in the tenant of *sight*, as it is kept, if it is shown."""
        entry = await self._entry(sight, connection_id)
        return None if entry is None else entry.value

    async def remove(self, sight: Sight, connection_id: str) -> Connection | None:
        """What was there, and is no more. Whatever reads from it at the moment reads on."""
        for _ in range(TRIES_MAX):
            entry = await self._entry(sight, connection_id)
            if entry is None:
                return None
            if await self._bucket.delete(entry.key, entry.revision, tombstone_seconds=TOMBSTONE_SECONDS):
                return entry.value
        raise BusRefused("The connection is being changed by somebody else")

    async def _entry(self, sight: Sight, connection_id: str) -> Entry[Connection] | None:
        assert sight.tenant is not None, "an id is looked for in one tenant"
        try:
            entry = await self._bucket.get(connection_key(sight.tenant, connection_id))
        except InvalidName:
            return None
        return entry if entry is not None and sight.connection(entry.value) else None

    async def _of_tenant(self, tenant: str) -> Sequence[Connection]:
        """All of them. TooManyConnections where nobody can say how many there are."""
        keys, more = await keys_under(self._bus, KV_CONNECTIONS, f"{token(tenant)}.*")
        if more:  # nearly all of these are deleted
            raise TooManyConnections(
                "More connections were deleted lately than can be counted: please try again in a minute"
            )
        return await self._read(keys)

    async def _read(self, keys: Sequence[str]) -> Sequence[Connection]:
        entries = await asyncio.gather(*(self._bucket.get(key) for key in keys))
        return [entry.value for entry in entries if entry is not None]


def view(connection: Connection) -> ConnectionView:
    """*connection* as it may be shown."""
    return ConnectionView(
        id=connection.connection_id,
        tenant=connection.tenant,
        source_type=connection.source_type,
        name=connection.name,
        project=connection.project,
        config=dict(connection.config),
        secrets=connection.secrets,
        archive_bytes=connection.archive_bytes,
        created_at=connection.created_at,
        created_by=connection.user,
    )


def fields_in_words() -> str:
    """The fields of each type, for the description of the route."""
    lines = []
    for source_type, kind in KINDS.items():
        if source_type == SourceType.LOCAL_ZIP:
            continue
        hidden = secret_fields(source_type)
        words = []
        for each in msgspec.structs.fields(kind):
            notes = [
                note
                for note, holds in (("required", each.required), ("secret", each.name in hidden))
                if holds
            ]
            words.append(f"`{each.name}`" + (f" ({', '.join(notes)})" if notes else ""))
        lines.append(f"`{source_type}`: {', '.join(words)}")
    return "; ".join(lines) + "."
