"""The file that a snapshot of datasets is: frames of msgpack, each behind length and digest, compressed.

A digest covers all frames up to its own, so that one that is missing, changed or in another order is noticed
when the next is read. What was read up to there may be believed.
"""

from __future__ import annotations

import errno
import gzip
import os
import struct
import zlib
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from pharos_contracts.datasets.v1 import Dataset
from pharos_embedder.store_protocol import WirePoint

FORMAT: Final = 1
FRAME_BYTES_MAX: Final = 64 << 20  # the largest lexicon takes 16
_BEGINNING: Final = b"pharos snapshot\n"
_HEAD: Final = struct.Struct("<I16s")
_COMPRESSION: Final = 1  # vectors hardly become smaller, and text does at once


class BadSnapshot(Exception):
    """The file is no snapshot that this release can read whole."""


class Opening(msgspec.Struct, frozen=True, kw_only=True, tag="opening"):
    """What is in the file. ``datasets`` are tenant, project and name of each."""

    format: int
    text_dimensions: int
    structure_dimensions: int
    datasets: tuple[tuple[str, str, str], ...]


class DatasetOpening(msgspec.Struct, frozen=True, kw_only=True, tag="dataset"):
    """What follows, up to a DatasetClosing, is of this dataset as it was live."""

    record: Dataset


class Points(msgspec.Struct, frozen=True, kw_only=True, tag="points"):
    points: list[WirePoint]


class Words(msgspec.Struct, frozen=True, kw_only=True, tag="words"):
    """A Lexicon; terms and counts are little-endian 32-bit integers."""

    documents: int
    terms: bytes
    counts: bytes


class GraphPiece(msgspec.Struct, frozen=True, kw_only=True, tag="graph"):
    """A piece of a StoredGraph; they follow one another."""

    text: str


class DatasetClosing(msgspec.Struct, frozen=True, kw_only=True, tag="end"):
    """The dataset is whole, and has so many points of each of these kinds."""

    chunks: int
    files: int


class DatasetAbandoned(msgspec.Struct, frozen=True, kw_only=True, tag="abandoned"):
    """The dataset changed while it was read: what came of it is not whole, and comes again."""


class Closing(msgspec.Struct, frozen=True, kw_only=True, tag="closing"):
    """The snapshot is whole."""


Frame = Opening | DatasetOpening | Points | Words | GraphPiece | DatasetClosing | DatasetAbandoned | Closing

_ENCODER: Final = msgspec.msgpack.Encoder()
_FRAMES: Final[msgspec.msgpack.Decoder[Frame]] = msgspec.msgpack.Decoder(Frame)


class SnapshotWriter:
    """Writes a snapshot to *path*, which is there once it is whole and not before. A context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(f"{path.name}.part")
        self._digest = b""

    def __enter__(self) -> Self:
        folder = self._path.parent
        if self._path.is_dir() or not folder.is_dir():  # said before anything is read for it
            reason = errno.EISDIR if self._path.is_dir() else errno.ENOENT
            raise OSError(reason, os.strerror(reason), str(self._path if self._path.is_dir() else folder))
        # It has the texts of everything: nobody else's to read, so the file is our own, wherever it is.
        self._partial.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        self._file = os.fdopen(os.open(self._partial, flags, 0o600), "wb")
        self._stream = gzip.GzipFile("", "wb", _COMPRESSION, self._file, mtime=0)
        self._stream.write(_BEGINNING)
        return self

    def write(self, frame: Frame) -> None:
        encoded = _ENCODER.encode(frame)
        if len(encoded) > FRAME_BYTES_MAX:
            raise ValueError(f"a frame of {len(encoded)} bytes is larger than {FRAME_BYTES_MAX}")
        self._digest = _next(self._digest, encoded)
        self._stream.write(_HEAD.pack(len(encoded), self._digest))
        self._stream.write(encoded)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        whole = False
        try:
            with self._file:
                if error is None:
                    self.write(Closing())
                self._stream.close()
                self._file.flush()
                os.fsync(self._file.fileno())
            if error is None:
                self._partial.replace(self._path)
                whole = True
        finally:  # also where the disk is full
            if not whole:
                self._partial.unlink(missing_ok=True)


def read_frames(path: Path) -> Iterator[Frame]:
    """The frames of the snapshot at *path*, one at a time, up to the last. Raises BadSnapshot and OSError."""
    with path.open("rb") as file, gzip.GzipFile(fileobj=file, mode="rb") as stream:
        try:
            if stream.read(len(_BEGINNING)) != _BEGINNING:
                raise BadSnapshot(f"{path} is no snapshot of Pharos")
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise BadSnapshot(f"{path} is no snapshot of Pharos") from error
        try:
            yield from _frames(path, stream)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise BadSnapshot(f"{path} is damaged or cut off: {error}") from error


def _frames(path: Path, stream: gzip.GzipFile) -> Iterator[Frame]:
    digest = b""
    while True:
        head = stream.read(_HEAD.size)
        if len(head) < _HEAD.size:
            raise BadSnapshot(f"{path} is cut off")
        length, wanted = _HEAD.unpack(head)
        if length > FRAME_BYTES_MAX:
            raise BadSnapshot(f"{path} is damaged: a frame of {length} bytes")
        encoded = stream.read(length)
        digest = _next(digest, encoded)
        if len(encoded) < length or digest != wanted:
            raise BadSnapshot(f"{path} is damaged: a frame is not what was written")
        try:
            frame = _FRAMES.decode(encoded)
        except (msgspec.DecodeError, RecursionError) as error:
            raise BadSnapshot(f"{path} was written by another release: {error}") from error
        yield frame
        if isinstance(frame, Closing):
            return


def _next(digest: bytes, encoded: bytes) -> bytes:
    return blake2b(digest + encoded, digest_size=16).digest()
