from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, cast

import anyio
import pytest

from pharos_contracts.batches.v1 import FILES_MAX
from pharos_contracts.connections.v1 import Connection, SourceType
from pharos_gateway.batches import FileSelection, InvalidBatch
from pharos_gateway.selecting import Selecting
from pharos_gateway.sight import Sight
from pharos_sources.source import Entry, EntryNotFound, Source, SourceUnavailable

pytestmark = pytest.mark.anyio

SIGHT = Sight(tenant="t")


class Kept:
    """Connections, each of the project that is given."""

    def __init__(self, **projects: str) -> None:
        self._projects = projects

    async def find(self, _: Sight, connection_id: str) -> Connection | None:
        if connection_id not in self._projects:
            return None
        return Connection(
            connection_id=connection_id,
            tenant="t",
            user="u",
            source_type=SourceType.S3,
            project=self._projects[connection_id],
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
        )


class Held:
    """Sources that have every file but those called ``gone``; each look-up takes ``seconds``."""

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds
        self.asked = 0
        self.open = 0
        self.most = 0

    @asynccontextmanager
    async def look(self, _: Connection) -> AsyncIterator[Source]:
        yield cast("Source", self)

    async def stat(self, file_id: str) -> Entry:
        self.asked += 1
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            await anyio.sleep(self._seconds)
        finally:
            self.open -= 1
        if file_id.startswith("gone"):
            raise EntryNotFound(file_id)
        if file_id == "away":
            raise SourceUnavailable("it sleeps")
        return Entry(id=file_id, name=f"name of {file_id}", size=7, identity="v1")


def selection(connection: str, *files: str, source_type: SourceType = SourceType.S3) -> FileSelection:
    return FileSelection(connection_id=connection, source_type=source_type, file_ids=list(files))


async def test_files_are_looked_up_several_at_once_and_stay_in_their_order() -> None:
    held = Held(0.01)
    names = [f"f{number}" for number in range(50)]
    found = await Selecting(Kept(a="p", b="p"), held, at_once=8).select(
        [selection("a", *names), selection("b", "x"), selection("a", "last")], SIGHT
    )
    assert [each.file_id for each in found.files] == [*names, "last", "x"]
    assert [(each.part, each.name, each.size, each.version) for each in found.files[-2:]] == [
        (0, "name of last", 7, "v1"),
        (1, "name of x", 7, "v1"),
    ]
    assert [(part.connection_id, part.files, part.user) for part in found.parts] == [
        ("a", 51, "u"),
        ("b", 1, "u"),
    ]
    assert (held.most, held.asked, found.project, found.warnings) == (8, 52, "p", ())


async def test_the_first_file_that_is_not_there_ends_it() -> None:
    held = Held(0.01)
    with pytest.raises(InvalidBatch) as refused:
        await Selecting(Kept(a="p"), held, at_once=4).select(
            [selection("a", "gone", *(f"f{number}" for number in range(500)))], SIGHT
        )
    assert refused.value.named == {"connection_id": "a", "file_id": "gone"}
    assert held.asked < 50
    assert held.open == 0


async def test_what_there_is_no_time_for_is_taken_unseen_and_said() -> None:
    names = [f"f{number}" for number in range(100)]
    found = await Selecting(Kept(a="p", b="p"), Held(0.05), at_once=2, check_seconds=0.3).select(
        [selection("a", *names), selection("b", "x")], SIGHT
    )
    assert [each.file_id for each in found.files] == [*names, "x"]
    assert 80 < found.unchecked < 101
    assert found.files[-1].size is None
    assert str(found.unchecked) in found.warnings[0]


async def test_a_source_that_is_away_is_no_mistake_of_the_batch() -> None:
    with pytest.raises(SourceUnavailable):
        await Selecting(Kept(a="p"), Held()).select([selection("a", "away")], SIGHT)


@pytest.mark.parametrize(
    ("selections", "code"),
    [
        ([selection("nowhere", "x")], "unknown_connection"),
        ([selection("a", "x", source_type=SourceType.GIT)], "wrong_source_type"),
        ([selection("a", "x"), selection("a", "y", source_type=SourceType.GIT)], "wrong_source_type"),
        ([selection("a", "x"), selection("a", "x")], "duplicate_file"),
        ([selection("a", "x"), selection("other", "x")], "several_projects"),
        (
            [selection("a", *map(str, range(FILES_MAX))), selection("b", "x")],
            "too_many_files",
        ),
    ],
)
async def test_a_mistake_is_found_before_any_source_is_asked(selections: Any, code: str) -> None:
    held = Held()
    with pytest.raises(InvalidBatch) as refused:
        await Selecting(Kept(a="p", b="p", other="q"), held).select(selections, SIGHT)
    assert (refused.value.code, held.asked) == (code, 0)
