"""Which files a batch is of: those that were selected, as their sources know them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

import anyio
import msgspec

from pharos_contracts.batches.v1 import FILES_MAX, BatchFile, BatchPart
from pharos_contracts.connections.v1 import Connection, SourceType
from pharos_gateway.batches import FileSelection, InvalidBatch
from pharos_gateway.sight import Sight
from pharos_sources.source import EntryNotFound, EntryRefused, Source, SourceError, shown

STATS_AT_ONCE: Final = 16
CHECK_SECONDS: Final = 15.0


class Connections(Protocol):
    """Where connections are kept."""

    async def find(self, sight: Sight, connection_id: str) -> Connection | None: ...


class Sources(Protocol):
    """What opens them."""

    def look(self, connection: Connection) -> AbstractAsyncContextManager[Source]: ...


class Selected(msgspec.Struct, frozen=True, kw_only=True):
    """The files of a batch, and its parts. ``unchecked``: so many were not asked for in the time there is."""

    parts: tuple[BatchPart, ...]
    files: tuple[BatchFile, ...]
    project: str
    unchecked: int = 0

    @property
    def warnings(self) -> tuple[str, ...]:
        if not self.unchecked:
            return ()
        return (
            f"{self.unchecked} of {len(self.files)} files could not be looked up within "
            f"{CHECK_SECONDS:g} seconds; those that are not there will fail",
        )


class _Wanted(msgspec.Struct, frozen=True):
    """What is selected of one connection."""

    connection: Connection
    file_ids: tuple[str, ...]


class Selecting:
    """The use case: what was selected is looked up, as far as there is time for it."""

    def __init__(
        self,
        connections: Connections,
        sources: Sources,
        *,
        check_seconds: float = CHECK_SECONDS,
        at_once: int = STATS_AT_ONCE,
    ) -> None:
        self._connections = connections
        self._sources = sources
        self._check_seconds = check_seconds
        self._at_once = at_once

    async def select(self, selections: Sequence[FileSelection], sight: Sight) -> Selected:
        """The files of *selections*, whose connections *sight* shows.

        InvalidBatch, which names what is wrong, and whatever opening a source and asking it raises.
        """
        wanted = await self._wanted(selections, sight)
        projects = sorted({each.connection.project for each in wanted})
        if len(projects) > 1:
            raise InvalidBatch(
                "several_projects",
                f"The connections belong to several projects ({', '.join(projects)}); a batch is of one",
                field="file_selections",
            )
        files: list[BatchFile] = []
        unchecked = 0
        deadline = anyio.current_time() + self._check_seconds
        for part, each in enumerate(wanted):
            found, missed = await self._look_up(part, each, deadline)
            files += found
            unchecked += missed
        return Selected(
            parts=tuple(
                BatchPart(
                    connection_id=each.connection.connection_id,
                    source_type=each.connection.source_type,
                    files=len(each.file_ids),
                    user=each.connection.user,
                )
                for each in wanted
            ),
            files=tuple(files),
            project=projects[0],
            unchecked=unchecked,
        )

    async def _wanted(self, selections: Sequence[FileSelection], sight: Sight) -> list[_Wanted]:
        ids: dict[str, dict[str, None]] = {}
        types: dict[str, SourceType] = {}
        total = 0
        for selection in selections:
            chosen = ids.setdefault(selection.connection_id, {})
            for file_id in selection.file_ids:
                if file_id in chosen:
                    raise InvalidBatch(
                        "duplicate_file",
                        f"The file {shown(file_id)} of connection {selection.connection_id!r} is selected "
                        "twice",
                        connection_id=selection.connection_id,
                        file_id=file_id,
                    )
                chosen[file_id] = None
                total += 1
            if types.setdefault(selection.connection_id, selection.source_type) != selection.source_type:
                raise InvalidBatch(
                    "wrong_source_type",
                    f"Connection {selection.connection_id!r} is selected with two source types",
                    connection_id=selection.connection_id,
                )
        if total > FILES_MAX:
            raise InvalidBatch(
                "too_many_files",
                f"{total} files are selected; a batch has at most {FILES_MAX}",
                field="file_selections",
            )
        found = []
        for connection_id, chosen in ids.items():
            connection = await self._connections.find(sight, connection_id)
            if connection is None:
                raise InvalidBatch(
                    "unknown_connection",
                    f"There is no connection {connection_id!r}",
                    connection_id=connection_id,
                )
            if connection.source_type is not types[connection_id]:
                raise InvalidBatch(
                    "wrong_source_type",
                    f"Connection {connection_id!r} is of the source_type {connection.source_type}, not "
                    f"{types[connection_id]}",
                    connection_id=connection_id,
                )
            found.append(_Wanted(connection, tuple(chosen)))
        return found

    async def _look_up(self, part: int, wanted: _Wanted, deadline: float) -> tuple[list[BatchFile], int]:
        """(the files in their order; how many of them nobody was asked about)."""
        if anyio.current_time() >= deadline:
            return [_unchecked(part, file_id) for file_id in wanted.file_ids], len(wanted.file_ids)
        found: dict[str, BatchFile] = {}
        async with self._sources.look(wanted.connection) as source:
            with anyio.CancelScope(deadline=deadline):
                await self._ask(part, wanted, source, found.__setitem__)
        missed = len(wanted.file_ids) - len(found)
        return [found.get(file_id) or _unchecked(part, file_id) for file_id in wanted.file_ids], missed

    async def _ask(
        self, part: int, wanted: _Wanted, source: Source, note: Callable[[str, BatchFile], None]
    ) -> None:
        """Ask *source* for every file, several at once. The first mistake ends it."""
        left = iter(wanted.file_ids)
        mistakes: list[Exception] = []

        async def ask() -> None:
            try:
                for file_id in left:
                    note(file_id, await _file(part, wanted.connection, source, file_id))
            except (InvalidBatch, SourceError) as error:
                mistakes.append(error)
                asking.cancel_scope.cancel()

        async with anyio.create_task_group() as asking:
            for _ in range(min(self._at_once, len(wanted.file_ids))):
                asking.start_soon(ask)
        if mistakes:
            raise mistakes[0]


async def _file(part: int, connection: Connection, source: Source, file_id: str) -> BatchFile:
    try:
        entry = await source.stat(file_id)
    except (EntryNotFound, EntryRefused) as error:
        raise InvalidBatch(
            "unknown_file" if isinstance(error, EntryNotFound) else "refused_file",
            f"Connection {connection.connection_id!r}: {error}",
            connection_id=connection.connection_id,
            file_id=file_id,
        ) from error
    if entry.folder:
        raise InvalidBatch(
            "unknown_file",
            f"Connection {connection.connection_id!r}: {shown(file_id)} is a folder; select the files in it",
            connection_id=connection.connection_id,
            file_id=file_id,
        )
    return BatchFile(
        part=part,
        file_id=file_id,
        name=entry.name,
        size=entry.size,
        media_type=entry.content_type or "",
        version=entry.identity,
    )


def _unchecked(part: int, file_id: str) -> BatchFile:
    return BatchFile(part=part, file_id=file_id, name=file_id)
