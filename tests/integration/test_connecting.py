"""Archives come to a machine once and leave it again; a worker opens what a connection says, and no more."""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import anyio
import pytest

from pharos_contracts.connections.v1 import Connection, SourceType, archive_name, connection_key
from pharos_contracts.streams import KV_CONNECTIONS, OBJ_ARCHIVES
from pharos_embedder.connecting import Connecting, ConnectionGone
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus
from pharos_service.local_copies import LocalCopies, NoRoom
from pharos_service.objects import ObjectGone
from pharos_sources.connections import Installation, parse_connection
from pharos_sources.keeping import keep
from pharos_sources.sealing import Sealer
from pharos_sources.source import SourceRefused, SourceUnavailable, every_file
from tests.support.gateway import now

pytestmark = pytest.mark.anyio

SEALER = Sealer(("k" * 32,))


def copies(bus: Bus, folder: Path, *, bytes_max: int = 1_000_000) -> LocalCopies:
    return LocalCopies(bus, OBJ_ARCHIVES, folder, bytes_max=bytes_max)


async def put(bus: Bus, name: str, content: bytes) -> None:
    await (await bus.jetstream.object_store(OBJ_ARCHIVES)).put(name, content)


async def test_an_object_is_downloaded_once_however_many_want_it(bus: Bus, tmp_path: Path) -> None:
    await put(bus, "a", b"a" * 300_000)
    here = copies(bus, tmp_path)
    seen: list[Path] = []

    async def look() -> None:
        async with here.open("a") as path:
            assert path.read_bytes() == b"a" * 300_000
            seen.append(path)

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(look)
    await (await bus.jetstream.object_store(OBJ_ARCHIVES)).delete("a")
    await look()  # from the copy
    assert len(set(seen)) == 1 and len(list(tmp_path.iterdir())) == 1
    here.forget("a")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ObjectGone):
        await look()
    assert list(tmp_path.iterdir()) == []


async def test_what_was_used_longest_ago_makes_room_and_what_is_in_use_does_not(
    bus: Bus, tmp_path: Path
) -> None:
    for name in "abcd":
        await put(bus, name, name.encode() * 400)
    here = copies(bus, tmp_path, bytes_max=1_000)
    for name in "ab":
        async with here.open(name):
            pass
    async with here.open("a") as used:
        async with here.open("c") as other:  # in the place of b
            assert len(list(tmp_path.iterdir())) == 2
            with pytest.raises(NoRoom):
                async with here.open("d"):
                    pytest.fail("there is no room")
            here.forget("a")
            assert used.read_bytes() == b"a" * 400
            assert other.read_bytes() == b"c" * 400
        assert used.exists()
    assert not used.exists()
    async with here.open("d") as path:
        assert path.read_bytes() == b"d" * 400


async def kept(bus: Bus, connection_id: str, source_type: str, fields: dict[str, Any], **of: Any) -> None:
    tenant = of.get("tenant", "acme")
    connection = parse_connection(source_type, fields, installation=of.get("installation", Installation()))
    parts = keep(connection, SEALER, tenant=tenant, connection_id=connection_id)
    entry = Connection(
        connection_id=connection_id,
        tenant=tenant,
        user="ada",
        source_type=SourceType(source_type),
        config=dict(parts.config),
        sealed=parts.sealed,
        created_at=now(),
    )
    await Bucket(bus, KV_CONNECTIONS, Connection).put(connection_key(tenant, connection_id), entry)


async def names(connecting: Connecting, tenant: str, connection_id: str) -> list[str]:
    async with connecting.open(tenant, connection_id) as source:
        return [entry.id async for entry in every_file(source, files_max=100)]


async def test_a_worker_opens_what_was_kept(bus: Bus, tmp_path: Path) -> None:
    folder, archives = tmp_path / "papers", tmp_path / "archives"
    folder.mkdir()
    archives.mkdir()
    (folder / "a.txt").write_text("a")
    installation = Installation(roots=(tmp_path,))
    connecting = Connecting(bus, copies(bus, archives), SEALER, installation)
    await kept(bus, "local", "local_directory", {"path": str(folder)}, installation=installation)
    assert await names(connecting, "acme", "local") == ["a.txt"]

    packed = BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("paper1.pdf", b"%PDF-")
    await put(bus, archive_name("acme", "u1"), packed.getvalue())
    await kept(bus, "zip", "local_zip", {"upload_id": "u1"})
    assert await names(connecting, "acme", "zip") == ["paper1.pdf"]
    for tenant, connection_id in (("other", "zip"), ("acme", "none"), ("acme", "a.b"), ("*", "zip")):
        with pytest.raises(ConnectionGone):
            await names(connecting, tenant, connection_id)

    # An upload is found in its own tenant only, whoever writes its id into a connection.
    await kept(bus, "zip", "local_zip", {"upload_id": "u1"}, tenant="other")
    with pytest.raises(SourceRefused, match="archive is gone"):
        await names(connecting, "other", "zip")
    small = tmp_path / "small"
    small.mkdir()
    with pytest.raises(SourceUnavailable, match="no room"):
        await names(Connecting(bus, copies(bus, small, bytes_max=9), SEALER, installation), "acme", "zip")


async def test_secrets_need_the_key_that_sealed_them(bus: Bus, tmp_path: Path) -> None:
    fields = {"url": "https://git.example.com/o/r", "token": "canary"}
    await kept(bus, "git", "git", fields)
    for sealer in (None, Sealer(("x" * 32,))):
        with pytest.raises(SourceRefused, match="PHAROS_SECRET_KEY") as refused:
            await names(Connecting(bus, copies(bus, tmp_path), sealer, Installation()), "acme", "git")
        assert "canary" not in str(refused.value)
    # What is sealed for one connection is of no use in another.
    bucket = Bucket(bus, KV_CONNECTIONS, Connection)
    entry = await bucket.get("acme.git")
    assert entry is not None and "canary" not in str(entry)
    await bucket.put("acme.copy", entry.value)
    with pytest.raises(SourceRefused, match="cannot be opened"):
        await names(Connecting(bus, copies(bus, tmp_path), SEALER, Installation()), "acme", "copy")
