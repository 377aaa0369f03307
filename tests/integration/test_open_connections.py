"""Connections stay open while they are used, as they are kept now, and no longer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pharos_contracts.connections.v1 import Connection, SourceType, connection_key
from pharos_contracts.streams import KV_CONNECTIONS
from pharos_embedder.connecting import ConnectionGone
from pharos_embedder.open_connections import OpenConnections
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus
from pharos_sources.connections import Installation
from pharos_sources.local_directory import LocalDirectory
from pharos_sources.source import Source, SourceUnavailable
from tests.support.batch_machine import keep_connection
from tests.support.workers import until

pytestmark = pytest.mark.anyio


class Opener:
    """Counts what it opens and closes; it can be slow, and fail."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.opened: list[str] = []
        self.closed: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.fails = False

    @asynccontextmanager
    async def open(self, tenant: str, connection_id: str) -> AsyncIterator[Source]:
        self.opened.append(connection_id)
        await self.gate.wait()
        if self.fails:
            raise SourceUnavailable("it is busy")
        try:
            yield LocalDirectory(self.folder, ())
        finally:
            self.closed.append(connection_id)


@pytest.fixture
def opener(tmp_path: Path) -> Opener:
    return Opener(tmp_path)


async def kept(bus: Bus, tmp_path: Path, *names: str) -> None:
    for name in names:
        await keep_connection(
            bus, name, SourceType.LOCAL_DIRECTORY, Installation(roots=(tmp_path.parent,)), path=str(tmp_path)
        )


async def test_many_files_at_once_open_it_once_and_it_closes_when_nobody_comes(
    bus: Bus, opener: Opener, tmp_path: Path
) -> None:
    await kept(bus, tmp_path, "a")
    opener.gate.clear()
    async with OpenConnections(bus, opener, idle_seconds=0.2) as connections:

        async def use() -> Source:
            async with connections.use("default", "a") as source:
                await asyncio.sleep(0.01)
                return source

        using = [asyncio.create_task(use()) for _ in range(5)]
        await until(lambda: opener.opened)
        opener.gate.set()
        assert len({id(each) for each in await asyncio.gather(*using)}) == 1
        await use()
        assert (opener.opened, opener.closed) == (["a"], [])
        await until(lambda: opener.closed, seconds=5)
        await until(lambda: connections.count() == 0)
        await use()
        assert opener.opened == ["a", "a"]
    assert opener.closed == ["a", "a"]


async def test_one_that_was_changed_is_opened_anew_and_one_that_was_deleted_is_gone(
    bus: Bus, opener: Opener, tmp_path: Path
) -> None:
    await kept(bus, tmp_path, "a")
    async with OpenConnections(bus, opener) as connections:
        async with connections.use("default", "a") as first:
            await kept(bus, tmp_path, "a")
            async with connections.use("default", "a") as second:
                assert first is not second and opener.closed == []  # whoever has it keeps it
        await until(lambda: opener.closed == ["a"])
        bucket = Bucket(bus, KV_CONNECTIONS, Connection)
        entry = await bucket.get(connection_key("default", "a"))
        assert entry is not None
        await bucket.delete(entry.key, entry.revision)
        for name in ("a", "never", "*"):
            with pytest.raises(ConnectionGone):
                async with connections.use("default", name):
                    pytest.fail("it is not there")
        await until(lambda: opener.closed == ["a", "a"])


async def test_one_that_somebody_else_made_under_the_same_id_is_another_one(
    bus: Bus, opener: Opener, tmp_path: Path
) -> None:
    await kept(bus, tmp_path, "a")  # by ada, in the project default
    async with OpenConnections(bus, opener) as connections:
        async with connections.use("default", "a", user="ada", project="default"):
            pass
        for others in ({"user": "mallory"}, {"user": "ada", "project": "secret"}):
            with pytest.raises(ConnectionGone):
                async with connections.use("default", "a", **others):
                    pytest.fail("it is not the one that was meant")
    assert opener.opened == ["a"]


async def test_one_that_is_changed_while_it_is_opened_is_not_taken_for_what_it_was(
    bus: Bus, opener: Opener, tmp_path: Path
) -> None:
    await kept(bus, tmp_path, "a")
    opener.gate.clear()
    async with OpenConnections(bus, opener) as connections:

        async def use() -> None:
            async with connections.use("default", "a", user="ada"):
                pytest.fail("it is not the one that was meant")

        using = asyncio.create_task(use())
        await until(lambda: opener.opened)
        await kept(bus, tmp_path, "a")
        opener.gate.set()
        with pytest.raises(SourceUnavailable):
            await using
    assert opener.closed == ["a"]


async def test_what_is_wrong_with_one_is_told_to_all_and_the_next_tries_again(
    bus: Bus, opener: Opener, tmp_path: Path
) -> None:
    await kept(bus, tmp_path, "a")
    opener.fails = True
    opener.gate.clear()
    async with OpenConnections(bus, opener) as connections:

        async def use() -> None:
            async with connections.use("default", "a"):
                pass

        using = [asyncio.create_task(use()) for _ in range(3)]
        await until(lambda: opener.opened)
        using[0].cancel()  # one that is cancelled takes nobody with it
        opener.gate.set()
        outcomes = await asyncio.gather(*using, return_exceptions=True)
        assert [type(each) for each in outcomes] == [
            asyncio.CancelledError,
            SourceUnavailable,
            SourceUnavailable,
        ]
        opener.fails = False
        await use()


async def test_of_many_those_that_were_used_longest_ago_are_closed(
    bus: Bus, opener: Opener, tmp_path: Path
) -> None:
    await kept(bus, tmp_path, "a", "b", "c")
    async with OpenConnections(bus, opener, open_max=2) as connections, connections.use("default", "a"):
        for name in "bc":
            async with connections.use("default", name):
                pass
        await until(lambda: opener.closed == ["b"])
    assert sorted(opener.closed) == ["a", "b", "c"]
