"""Undoing the compression of an answer without being flooded by it. Pure; the standard library only.

Only gzip is ever asked for. A few kilobytes of any compression can stand for gigabytes, so what comes out is
cut into small pieces, counted, and refused when it grows out of proportion.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

ACCEPTED: Final = "gzip"
PIECE_BYTES: Final = 64 * 1024
MEMBERS_MAX: Final = 1_000
_GZIP: Final = frozenset({"gzip", "x-gzip"})
_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS  # 16: a header and a checksum of gzip around it
_HARMLESS_BYTES: Final = 1024 * 1024  # so little may be as dense as it likes


class Undecodable(ValueError):
    """The compression cannot be undone; `reason` is a clause. `transient`: the end of it is missing."""

    def __init__(self, reason: str, *, transient: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.transient = transient


def is_gzip(content_encoding: str) -> bool:
    """Whether the header says gzip, once; False for none at all. Raises `Undecodable` for everything else."""
    codings = [coding.strip().lower() for coding in content_encoding.split(",")]
    codings = [coding for coding in codings if coding not in {"", "identity"}]
    if not codings:
        return False
    if len(codings) > 1:
        raise Undecodable("it is compressed more than once")
    if codings[0] not in _GZIP:
        raise Undecodable("it is compressed in a way that was not asked for")
    return True


class Gunzip:
    """Decompresses gzip piece by piece, of one or more members.

    `ratio_max` bounds decoded bytes per byte received, once a mebibyte has come out.
    """

    def __init__(self, *, ratio_max: int) -> None:
        self._ratio_max = ratio_max
        self._inflating = zlib.decompressobj(_GZIP_WINDOW)
        self._members = 1
        self._received = 0
        self._decoded = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What *data* adds, in pieces of at most 64 KiB. Raises `Undecodable`."""
        self._received += len(data)
        more = bool(data)
        while more:
            if self._inflating.eof:
                self._next_member()
            try:
                piece = self._inflating.decompress(data, PIECE_BYTES)
            except zlib.error:
                raise Undecodable("its compression is broken") from None
            ended = self._inflating.eof
            data = self._inflating.unused_data if ended else self._inflating.unconsumed_tail
            # A full piece may not be all: zlib keeps what did not fit after it has taken the last byte.
            more = bool(data) or (len(piece) == PIECE_BYTES and not ended)
            if piece:
                self._count(len(piece))
                yield piece

    def finish(self) -> None:
        """Raises `Undecodable` when the end is missing. No bytes at all are no bytes compressed."""
        if self._received and not self._inflating.eof:
            raise Undecodable("its compression ends too early", transient=True)

    def _next_member(self) -> None:
        self._members += 1
        if self._members > MEMBERS_MAX:
            raise Undecodable("its compression is broken")
        self._inflating = zlib.decompressobj(_GZIP_WINDOW)

    def _count(self, size: int) -> None:
        self._decoded += size
        if self._decoded > max(_HARMLESS_BYTES, self._ratio_max * self._received):
            raise Undecodable(f"it grows more than {self._ratio_max}-fold when it is decompressed")
