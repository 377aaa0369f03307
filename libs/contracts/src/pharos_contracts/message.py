"""The base of everything that crosses the bus, and how it becomes bytes.

Messages are tagged ``source.category.vN.name`` (NATS ADR-2). Within a version only defaulted fields are
added; a changed meaning is a new version beside the old one. ``tests/golden`` keeps one committed message
of every type, which today's code must decode.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of everything that crosses the bus."""


class UnreadableMessage(Exception):
    """The bytes are not a message of the expected type."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


M = TypeVar("M")

_encoder = msgspec.json.Encoder()


def encode(message: msgspec.Struct) -> bytes:
    """*message* as JSON bytes."""
    return _encoder.encode(message)


def decode(payload: bytes, expected: type[M] | Any) -> M:
    """The message in *payload*; UnreadableMessage where it is not an *expected* one (a struct or a union)."""
    try:
        decoded: M = msgspec.json.decode(payload, type=expected)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise UnreadableMessage(str(error)) from error
    return decoded


def tag_of(message: type[Message] | Message) -> str:
    """The tag that *message* carries in its ``type`` field."""
    tag = message.__struct_config__.tag
    assert isinstance(tag, str), "every message is tagged"
    return tag
