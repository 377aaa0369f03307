"""Objects come back as they were put, piece by piece, or not at all."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from pharos_contracts.streams import OBJ_UPLOADS
from pharos_service.bus import Bus
from pharos_service.objects import (
    PIECE_BYTES,
    ObjectDamaged,
    ObjectGone,
    ObjectTooLarge,
    Uploaded,
    download,
    remove,
    upload,
)

pytestmark = pytest.mark.anyio

CONTENT = bytes(range(256)) * 2_000  # several pieces


async def put(bus: Bus, name: str, content: bytes) -> str:
    """The subject under which its pieces lie."""
    info = await (await bus.jetstream.object_store(OBJ_UPLOADS)).put(name, content)
    return f"$O.{OBJ_UPLOADS}.C.{info.nuid}"


@pytest.mark.parametrize("content", [CONTENT, b""], ids=["several pieces", "nothing"])
async def test_an_object_comes_back_as_it_was_put(bus: Bus, tmp_path: Path, content: bytes) -> None:
    await put(bus, "other", b"something else")
    await put(bus, "ü/b.bin", content)
    assert await download(bus, OBJ_UPLOADS, "ü/b.bin", tmp_path / "x") == len(content)
    assert (tmp_path / "x").read_bytes() == content


async def test_an_object_that_is_not_there_or_not_whole_is_told_apart_from_trouble(
    bus: Bus, tmp_path: Path
) -> None:
    with pytest.raises(ObjectGone):
        await download(bus, OBJ_UPLOADS, "never", tmp_path / "never")
    pieces = await put(bus, "expired", CONTENT)
    first = await bus.first(f"OBJ_{OBJ_UPLOADS}", pieces)
    assert first is not None
    await bus.api(f"STREAM.MSG.DELETE.OBJ_{OBJ_UPLOADS}", {"seq": first.sequence})
    with pytest.raises(ObjectGone):
        await download(bus, OBJ_UPLOADS, "expired", tmp_path / "expired")
    await put(bus, "deleted", CONTENT)
    await (await bus.jetstream.object_store(OBJ_UPLOADS)).delete("deleted")
    with pytest.raises(ObjectGone):
        await download(bus, OBJ_UPLOADS, "deleted", tmp_path / "deleted")


async def test_an_object_that_is_not_what_was_put_is_refused(bus: Bus, tmp_path: Path) -> None:
    await put(bus, "a", CONTENT)
    subject = f"$O.{OBJ_UPLOADS}.M.{urlsafe_b64encode(b'a').decode()}"
    described = await bus.last(f"OBJ_{OBJ_UPLOADS}", subject)
    assert described is not None
    other = msgspec.json.decode(described.data) | {"digest": "SHA-256=AAAA"}
    await bus.publish(subject, msgspec.json.encode(other), headers={"Nats-Rollup": "sub"})
    with pytest.raises(ObjectDamaged):
        await download(bus, OBJ_UPLOADS, "a", tmp_path / "a")


async def pieces(content: bytes, size: int = 10_000) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def held(bus: Bus) -> int:
    return int((await bus.api(f"STREAM.INFO.OBJ_{OBJ_UPLOADS}"))["state"]["messages"])


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, 3 * PIECE_BYTES + 1])
async def test_what_is_uploaded_can_be_read_by_any_client_and_removed(
    bus: Bus, tmp_path: Path, size: int
) -> None:
    content = (CONTENT * 2)[:size]
    await upload(bus, OBJ_UPLOADS, "other", pieces(b"x"), bytes_max=1)
    before = await held(bus)
    stored = await upload(bus, OBJ_UPLOADS, "ü/a", pieces(content), bytes_max=size)
    assert stored == Uploaded(size=size, sha256=sha256(content).hexdigest())
    assert await held(bus) == before + 1 + -(-size // PIECE_BYTES)
    assert await download(bus, OBJ_UPLOADS, "ü/a", tmp_path / "a") == size
    assert (tmp_path / "a").read_bytes() == content
    theirs = await (await bus.jetstream.object_store(OBJ_UPLOADS)).get("ü/a")
    assert theirs.data == content
    await remove(bus, OBJ_UPLOADS, "ü/a")
    await remove(bus, OBJ_UPLOADS, "ü/a")
    assert await held(bus) == before
    with pytest.raises(ObjectGone):
        await download(bus, OBJ_UPLOADS, "ü/a", tmp_path / "b")


async def test_what_was_begun_and_not_finished_is_removed(bus: Bus) -> None:
    async def torn() -> AsyncIterator[bytes]:
        yield bytes(2 * PIECE_BYTES)
        assert await held(bus) == 2
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await upload(bus, OBJ_UPLOADS, "a", torn(), bytes_max=10 * PIECE_BYTES)
    assert await held(bus) == 0
    with pytest.raises(ObjectTooLarge):
        await upload(bus, OBJ_UPLOADS, "a", pieces(CONTENT), bytes_max=len(CONTENT) - 1)
    assert await held(bus) == 0
