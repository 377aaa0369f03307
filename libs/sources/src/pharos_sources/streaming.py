"""Bytes of a file, piece by piece and counted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Final

from anyio import to_thread

from pharos_sources.source import EntryTooLarge

PIECE_BYTES: Final = 256 * 1024


async def bounded(pieces: AsyncIterator[bytes], file_id: str, bytes_max: int) -> AsyncIterator[bytes]:
    """*pieces*, until they are more than *bytes_max* bytes together: then `EntryTooLarge`."""
    total = 0
    async for piece in pieces:
        total += len(piece)
        if total > bytes_max:
            raise EntryTooLarge(file_id, bytes_max)
        yield piece


async def read_in_thread(read: Callable[[int], bytes]) -> AsyncIterator[bytes]:
    """What *read*, which blocks, returns until it is empty; one piece at a time, in a thread."""
    while piece := await to_thread.run_sync(read, PIECE_BYTES):
        yield piece
