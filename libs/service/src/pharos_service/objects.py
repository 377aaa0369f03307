"""Objects of an object store (NATS ADR-20): bytes that are too many for a message.

They are read by asking for piece after piece: unlike a subscription, that leaves nothing behind when it is
cancelled, and does not wait for ever when the bus was restarted.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
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


async def size_of(bus: Bus, store: str, name: str) -> int:
    """How many bytes the object *name* has. ObjectGone, and the errors of the bus."""
    return (await _described(bus, store, name)).size


async def download(bus: Bus, store: str, name: str, into: Path) -> int:
    """Write the object *name* to the new file *into*; how many bytes it has.

    Raises ObjectGone, ObjectDamaged, OSError and the errors of the bus; the file is the caller's to remove.
    """
    stream = f"OBJ_{store}"
    info = await _described(bus, store, name)
    digest, size, sequence = hashlib.sha256(), 0, 1
    async with await anyio.open_file(into, "xb") as file:
        while size < info.size:
            piece = await bus.first(stream, f"$O.{store}.C.{info.nuid}", sequence)
            if piece is None:
                raise ObjectGone
            await file.write(piece.data)
            digest.update(piece.data)
            size += len(piece.data)
            sequence = piece.sequence + 1
    if info.digest.partition("=")[2] != urlsafe_b64encode(digest.digest()).decode():
        raise ObjectDamaged
    return size


async def _described(bus: Bus, store: str, name: str) -> _Info:
    """The description of the object *name*. ObjectGone."""
    subject = f"$O.{store}.M.{urlsafe_b64encode(name.encode()).decode()}"
    found = await bus.last(f"OBJ_{store}", subject)
    if found is None or not found.data:
        raise ObjectGone
    info = msgspec.json.decode(found.data, type=_Info)
    if info.deleted:
        raise ObjectGone
    return info
