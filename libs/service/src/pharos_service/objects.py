"""Objects of an object store (NATS ADR-20): bytes that are too many for a message.

They are read by asking for piece after piece: unlike a subscription, that leaves nothing behind when it is
cancelled, and does not wait for ever when the bus was restarted.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
import msgspec

from pharos_service.bus import Bus


class ObjectGone(Exception):
    """The store has no such object, or no longer all of it."""


class ObjectDamaged(Exception):
    """What the store has is not what was put there."""


class _Info(msgspec.Struct):
    """The part that matters of an object's description."""

    nuid: str
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
    return b"".join([piece async for piece in _pieces(bus, store, info)])


async def size_of(bus: Bus, store: str, name: str) -> int:
    """How many bytes the object *name* has. ObjectGone, and the errors of the bus."""
    return (await _described(bus, store, name)).size


async def download(bus: Bus, store: str, name: str, into: Path) -> int:
    """Write the object *name* to the new file *into*; how many bytes it has.

    Raises ObjectGone, ObjectDamaged, OSError and the errors of the bus; the file is the caller's to remove.
    """
    info = await _described(bus, store, name)
    async with await anyio.open_file(into, "xb") as file:
        async for piece in _pieces(bus, store, info):
            await file.write(piece)
    return info.size


async def _described(bus: Bus, store: str, name: str) -> _Info:
    described = await bus.last(f"OBJ_{store}", f"$O.{store}.M.{urlsafe_b64encode(name.encode()).decode()}")
    if described is None or not described.data:
        raise ObjectGone
    info = msgspec.json.decode(described.data, type=_Info)
    if info.deleted:
        raise ObjectGone
    return info


async def _pieces(bus: Bus, store: str, info: _Info) -> AsyncGenerator[bytes, None]:
    """All of an object, checked at its end."""
    digest, size, sequence = hashlib.sha256(), 0, 1
    while size < info.size:
        piece = await bus.first(f"OBJ_{store}", f"$O.{store}.C.{info.nuid}", sequence)
        if piece is None:
            raise ObjectGone
        yield piece.data
        digest.update(piece.data)
        size += len(piece.data)
        sequence = piece.sequence + 1
    if info.digest.partition("=")[2] != urlsafe_b64encode(digest.digest()).decode():
        raise ObjectDamaged
