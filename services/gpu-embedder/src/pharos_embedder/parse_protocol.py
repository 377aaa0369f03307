"""What the parse pool and its workers say to each other: msgpack frames with a length before each."""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from pharos_embedder.syntax import ParsedFile, ParseFailure, ParseOptions

FRAME_BYTES_MAX: Final = 64 * 1024 * 1024
_LENGTH: Final = struct.Struct(">I")


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
    """The answer to one task."""

    index: int
    file: ParsedFile | None = None
    failure: ParseFailure | None = None


_ENCODER: Final = msgspec.msgpack.Encoder()
_BATCHES: Final = msgspec.msgpack.Decoder(Batch)
_ANSWERS: Final = msgspec.msgpack.Decoder(Ready | Parsed)


class FrameTooLarge(ValueError):
    """A message is over FRAME_BYTES_MAX."""


def frame(message: Batch | Ready | Parsed) -> bytes:
    """*message* as it goes over the pipe. Raises FrameTooLarge."""
    body = _ENCODER.encode(message)
    if len(body) > FRAME_BYTES_MAX:
        raise FrameTooLarge(len(body))
    return _LENGTH.pack(len(body)) + body


def frame_length(head: bytes) -> int:
    """The length of the body that follows the four bytes *head*. Raises FrameTooLarge."""
    (length,) = _LENGTH.unpack(head)
    if length > FRAME_BYTES_MAX:
        raise FrameTooLarge(length)
    return int(length)


def take_answers(buffer: bytearray) -> list[Ready | Parsed]:
    """The whole frames at the start of *buffer*, decoded, and removed from it.

    Raises FrameTooLarge or msgspec.DecodeError if the bytes are no frames.
    """
    answers: list[Ready | Parsed] = []
    at = 0
    while len(buffer) - at >= _LENGTH.size:
        end = at + _LENGTH.size + frame_length(bytes(buffer[at : at + _LENGTH.size]))
        if len(buffer) < end:
            break
        answers.append(_ANSWERS.decode(bytes(buffer[at + _LENGTH.size : end])))
        at = end
    del buffer[:at]
    return answers


def decode_batch(body: bytes) -> Batch:
    """A batch from the body of a frame. Raises msgspec.DecodeError."""
    return _BATCHES.decode(body)
