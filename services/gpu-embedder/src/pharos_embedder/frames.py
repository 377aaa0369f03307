"""Messages over a pipe: a length in four bytes, then the body. What the body means is for others to say."""

from __future__ import annotations

import struct
from typing import Final

FRAME_BYTES_MAX: Final = 64 * 1024 * 1024
LENGTH_BYTES: Final = 4
_LENGTH: Final = struct.Struct(">I")


class FrameTooLarge(ValueError):
    """A message is over FRAME_BYTES_MAX."""


def frame(body: bytes) -> bytes:
    """*body* as it goes over the pipe. Raises FrameTooLarge."""
    if len(body) > FRAME_BYTES_MAX:
        raise FrameTooLarge(len(body))
    return _LENGTH.pack(len(body)) + body


def frame_length(head: bytes) -> int:
    """The length of the body that follows the four bytes *head*. Raises FrameTooLarge."""
    (length,) = _LENGTH.unpack(head)
    if length > FRAME_BYTES_MAX:
        raise FrameTooLarge(length)
    return int(length)


def take_bodies(buffer: bytearray) -> list[bytes]:
    """The bodies of the whole frames at the start of *buffer*, which are removed from it.

    Raises FrameTooLarge.
    """
    bodies: list[bytes] = []
    at = 0
    while len(buffer) - at >= LENGTH_BYTES:
        end = at + LENGTH_BYTES + frame_length(bytes(buffer[at : at + LENGTH_BYTES]))
        if len(buffer) < end:
            break
        bodies.append(bytes(buffer[at + LENGTH_BYTES : end]))
        at = end
    del buffer[:at]
    return bodies
