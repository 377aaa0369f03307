"""Cursors of listings: a value made into text that says nothing to its holder and fits in a URL. Pure."""

from __future__ import annotations

import base64
from typing import Final, TypeVar

import msgspec

from pharos_sources.source import InvalidCursor, SourceUnreadable

LENGTH_MAX: Final = 16_000

T = TypeVar("T")


def encode(value: object) -> str:
    """*value*, which msgspec can write as JSON, as letters, digits, `-` and `_`.

    Raises `SourceUnreadable` where it becomes longer than `decode` takes.
    """
    cursor = base64.urlsafe_b64encode(msgspec.json.encode(value)).decode("ascii").rstrip("=")
    if len(cursor) > LENGTH_MAX:
        raise SourceUnreadable("its folders are too deep or their names too long to be listed in parts")
    return cursor


def decode(cursor: str, kind: type[T]) -> T:
    """The value that `encode` was given. Raises `InvalidCursor` where it is not a *kind*."""
    if len(cursor) > LENGTH_MAX:
        raise InvalidCursor
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        return msgspec.json.decode(base64.b64decode(padded, altchars=b"-_", validate=True), type=kind)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        raise InvalidCursor from None
