"""What the parse pool and its workers say to each other: msgpack, in frames."""

from __future__ import annotations

from typing import Final

import msgspec

from pharos_embedder import frames
from pharos_embedder.packed_files import PackedFile
from pharos_embedder.syntax import ParseFailure, ParseOptions


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One file to parse; `plain` asks for lines instead of a tree."""

    index: int
    path: str
    language: str
    plain: bool = False


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Files of one tree, and how to read them."""

    root: str
    options: ParseOptions
    tasks: tuple[Task, ...]


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """The first word of a worker: its imports worked."""


class Parsed(msgspec.Struct, frozen=True, kw_only=True, tag="parsed"):
    """The answer to one task, and the seconds of the processor that it took."""

    index: int
    seconds: float = 0.0
    file: PackedFile | None = None
    failure: ParseFailure | None = None


_ENCODER: Final = msgspec.msgpack.Encoder()
_BATCHES: Final = msgspec.msgpack.Decoder(Batch)
_ANSWERS: Final = msgspec.msgpack.Decoder(Ready | Parsed)


def frame(message: Batch | Ready | Parsed) -> bytes:
    """*message* as it goes over the pipe. Raises FrameTooLarge."""
    return frames.frame(_ENCODER.encode(message))


def take_answers(buffer: bytearray) -> list[Ready | Parsed]:
    """The whole frames at the start of *buffer*, decoded, and removed from it.

    Raises FrameTooLarge or msgspec.DecodeError if the bytes are no frames.
    """
    return [_ANSWERS.decode(body) for body in frames.take_bodies(buffer)]


def decode_batch(body: bytes) -> Batch:
    """A batch from the body of a frame. Raises msgspec.DecodeError."""
    return _BATCHES.decode(body)
