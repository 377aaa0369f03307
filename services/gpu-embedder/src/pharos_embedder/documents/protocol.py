"""What the document pool and its processes say to each other: msgpack, in frames."""

from __future__ import annotations

from typing import Final

import msgspec

from pharos_embedder import frames
from pharos_embedder.documents.limits import DocumentLimits
from pharos_embedder.documents.refusals import RefusalCode
from pharos_embedder.documents.splitting import DocumentChunk
from pharos_sources.document_kinds import Kind

CHUNKS_A_FRAME: Final = 256


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One document: a file at `path`, or its bytes as `content`."""

    path: str = ""
    content: bytes = b""
    name: str
    declared_type: str
    limits: DocumentLimits
    chunk_size: int
    overlap: int
    timeout_seconds: float
    structure: bool = True
    math: bool = True


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """The first word of a process: its imports worked."""


class Summary(msgspec.Struct, frozen=True, kw_only=True, tag="summary"):
    """The last answer to a task: what there is to say of a document besides its chunks."""

    name: str
    kind: Kind
    size: int
    content_hash: str
    characters: int
    chunks: int
    quality: float
    title: str = ""
    language: str = ""
    date: str = ""
    charset: str = ""
    pages: int = 0
    pages_pictured: int = 0
    warnings: tuple[str, ...] = ()


class Chunks(msgspec.Struct, frozen=True, kw_only=True, tag="chunks"):
    """Some of the chunks of a document, in order."""

    chunks: tuple[DocumentChunk, ...]


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """The last answer to a task whose document cannot be read."""

    code: RefusalCode
    sentence: str


Answer = Ready | Chunks | Summary | Refused

_ENCODER: Final = msgspec.msgpack.Encoder()
_TASKS: Final = msgspec.msgpack.Decoder(Task)
_ANSWERS: Final = msgspec.msgpack.Decoder(Answer)


def frame(message: Task | Answer) -> bytes:
    """*message* as it goes over the pipe. Raises frames.FrameTooLarge."""
    return frames.frame(_ENCODER.encode(message))


def decode_task(body: bytes) -> Task:
    """A task from the body of a frame. Raises msgspec.DecodeError."""
    return _TASKS.decode(body)


def take_answers(buffer: bytearray) -> list[Answer]:
    """The whole frames at the start of *buffer*, decoded, and removed from it.

    Raises FrameTooLarge or msgspec.DecodeError if the bytes are no frames.
    """
    return [_ANSWERS.decode(body) for body in frames.take_bodies(buffer)]
