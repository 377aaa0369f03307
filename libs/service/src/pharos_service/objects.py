"""Objects of an object store (NATS ADR-20): bytes that are too many for a message.

They are read by asking for piece after piece: unlike a subscription, that leaves nothing behind when it is
cancelled, and does not wait for ever when the bus was restarted. They are written piece by piece too, of
which one is in memory; what was begun and not finished is removed.
"""

from __future__ import annotations

import hashlib
import os
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import anyio
import msgspec
import structlog

from pharos_service.bus import Bus, BusError, Stored

log = structlog.get_logger()

PIECE_BYTES: Final = 256 * 1024
PIECE_SECONDS: Final = 5.0
REMOVE_SECONDS: Final = 3.0
SUBJECTS_MAX: Final = 100_000  # that the server names in one answer


class ObjectGone(Exception):
    """The store has no such object, or no longer all of it."""


class ObjectDamaged(Exception):
    """What the store has is not what was put there."""


class ObjectTooLarge(Exception):
    """It has more bytes than it may."""

    def __init__(self, bytes_max: int) -> None:
        super().__init__(f"more than {bytes_max} bytes")
        self.bytes_max = bytes_max


class Uploaded(msgspec.Struct, frozen=True, kw_only=True):
    """An object that is stored: its bytes, and their SHA-256 in hexadecimal."""

    size: int
    sha256: str


class _Info(msgspec.Struct):
    """The part that matters of an object's description."""

    nuid: str
    name: str = ""
    size: int = 0
    digest: str = ""
    deleted: bool = False


async def read(bus: Bus, store: str, name: str, *, bytes_max: int) -> bytes:
    """The object *name*, for what is small enough to hold. ObjectDamaged where it is larger than that.

    Otherwise as ``download``.
    """
    info = await _described(bus, store, name)
    if info.size > bytes_max:
        raise ObjectDamaged
    return b"".join([piece async for piece in _content(bus, store, info)])


async def size_of(bus: Bus, store: str, name: str) -> int:
    """How many bytes the object *name* has. ObjectGone, and the errors of the bus."""
    return (await _described(bus, store, name)).size


async def download(bus: Bus, store: str, name: str, into: Path) -> int:
    """Write the object *name* to the new file *into*; how many bytes it has.

    Raises ObjectGone, ObjectDamaged, OSError and the errors of the bus; the file is the caller's to remove.
    """
    info = await _described(bus, store, name)
    async with await anyio.open_file(into, "xb") as file:
        async for piece in _content(bus, store, info):
            await file.write(piece)
    return info.size


async def _described(bus: Bus, store: str, name: str) -> _Info:
    described = await bus.last(_stream(store), _description(store, name))
    if described is None or not described.data:
        raise ObjectGone
    info = msgspec.json.decode(described.data, type=_Info)
    if info.deleted:
        raise ObjectGone
    return info


async def _content(bus: Bus, store: str, info: _Info) -> AsyncIterator[bytes]:
    """All of an object, checked at its end."""
    digest, size, sequence = hashlib.sha256(), 0, 1
    while size < info.size:
        piece = await bus.first(_stream(store), _pieces(store, info.nuid), sequence)
        if piece is None:
            raise ObjectGone
        yield piece.data
        digest.update(piece.data)
        size += len(piece.data)
        sequence = piece.sequence + 1
    if info.digest.partition("=")[2] != urlsafe_b64encode(digest.digest()).decode():
        raise ObjectDamaged


async def upload(
    bus: Bus, store: str, name: str, content: AsyncIterator[bytes], *, bytes_max: int
) -> Uploaded:
    """Put *content*, of whatever pieces, as the new object *name*: a name is never used twice.

    Raises ObjectTooLarge, StreamFull where the store has no room, the errors of the bus and whatever
    *content* raises; nothing of it is left then, unless the bus is away: it forgets what is old by itself.
    """
    nuid = os.urandom(16).hex()
    digest, size, pieces, whole = hashlib.sha256(), 0, 0, False
    try:
        async for piece in _cut(content):
            size += len(piece)
            if size > bytes_max:
                raise ObjectTooLarge(bytes_max)
            digest.update(piece)
            await bus.publish(_pieces(store, nuid), piece, timeout=PIECE_SECONDS)
            pieces += 1
        described = {
            "name": name,
            "bucket": store,
            "nuid": nuid,
            "size": size,
            "chunks": pieces,
            "mtime": datetime.now(UTC),
            "digest": f"SHA-256={urlsafe_b64encode(digest.digest()).decode()}",
            "options": {"max_chunk_size": PIECE_BYTES},
        }
        await bus.publish(
            _description(store, name), msgspec.json.encode(described), headers={"Nats-Rollup": "sub"}
        )
        whole = True
    finally:
        if not whole:
            with anyio.CancelScope(shield=True), anyio.move_on_after(REMOVE_SECONDS):
                await _purge(bus, store, _pieces(store, nuid))
    return Uploaded(size=size, sha256=digest.hexdigest())


async def remove(bus: Bus, store: str, name: str) -> None:
    """Forget the object *name*, if there is one. Best effort: what is left the store forgets by itself."""
    try:
        described = await bus.last(_stream(store), _description(store, name))
    except BusError as error:
        log.info("object_not_removed", name=name, reason=str(error))
        return
    if described is None or not described.data:
        return
    # The description first: an object that is described is whole.
    await _purge(bus, store, _description(store, name))
    await _purge(bus, store, _pieces(store, msgspec.json.decode(described.data, type=_Info).nuid))


async def _purge(bus: Bus, store: str, subject: str) -> None:
    try:
        await bus.api(f"STREAM.PURGE.{_stream(store)}", {"filter": subject})
    except BusError as error:
        log.info("object_not_removed", subject=subject, reason=str(error))


async def _cut(content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """*content* in pieces of PIECE_BYTES, but for the last."""
    kept = bytearray()
    async for some in content:
        kept += some
        while len(kept) >= PIECE_BYTES:
            yield bytes(kept[:PIECE_BYTES])
            del kept[:PIECE_BYTES]
    if kept:
        yield bytes(kept)


def _stream(store: str) -> str:
    return f"OBJ_{store}"


def _description(store: str, name: str) -> str:
    return f"$O.{store}.M.{urlsafe_b64encode(name.encode()).decode()}"


def _pieces(store: str, nuid: str) -> str:
    return f"$O.{store}.C.{nuid}"


async def remove_forgotten(bus: Bus, store: str, wanted: Collection[str], *, before: datetime) -> int:
    """Remove what was stored *before* then and is not *wanted*, and pieces of what was never whole.

    How much that was; the errors of the bus pass through.
    """
    stream = _stream(store)
    descriptions = await _subjects(bus, stream, f"$O.{store}.M.>")
    whole: set[str] = set()
    removed = 0
    for subject in descriptions:
        found = await bus.last(stream, subject)
        if found is None or not found.data:
            continue
        described = msgspec.json.decode(found.data, type=_Info)
        whole.add(_pieces(store, described.nuid))
        if described.name not in wanted and _stored_at(found) < before:
            await remove(bus, store, described.name)
            removed += 1
    if len(descriptions) >= SUBJECTS_MAX:
        return removed  # there may be more, so that nobody knows which pieces are theirs
    for subject in await _subjects(bus, stream, f"$O.{store}.C.>"):
        last = None if subject in whole else await bus.last(stream, subject)
        if last is not None and _stored_at(last) < before:
            await _purge(bus, store, subject)
            removed += 1
    return removed


async def _subjects(bus: Bus, stream: str, pattern: str) -> Collection[str]:
    """The first subjects of *stream* under *pattern*: as many as the server names at once."""
    info = await bus.api(f"STREAM.INFO.{stream}", {"subjects_filter": pattern})
    found: dict[str, int] = info["state"].get("subjects") or {}
    return found


def _stored_at(message: Stored) -> datetime:
    return datetime.fromisoformat(message.headers["Nats-Time-Stamp"])
