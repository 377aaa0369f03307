"""Bytes to text: UTF-8, UTF-16 with its mark, or Latin-1 where the bytes read like text; otherwise binary."""

from __future__ import annotations

import codecs
from typing import Final

_UTF16_MARKS: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_UTF32_MARKS: Final = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)

_CONTROLS: Final = bytes(set(range(32)) - {9, 10, 12, 13, 27}) + bytes(range(0x7F, 0xA0))
"""Bytes that printable Latin-1 text does not have."""

_CONTROL_SHARE_MAX: Final = 0.02


def decode(source: bytes, *, truncated: bool = False) -> str | None:
    """The text of *source* without a byte order mark, or None if it is binary.

    *truncated* says that *source* is the head of something longer, so a character may be cut at its end.
    Line ends are left as they are. A wrong byte in UTF-16 text becomes U+FFFD.
    """
    if source.startswith(_UTF32_MARKS):
        return source.decode("utf-32", errors="replace").replace("\0", "\ufffd")
    if source.startswith(_UTF16_MARKS):
        return source.decode("utf-16", errors="replace").replace("\0", "\ufffd")
    if b"\0" in source:
        return None
    if codecs.BOM_UTF8.startswith(source):  # the mark or less of it, and nothing else
        return ""
    try:
        return codecs.utf_8_decode(source.removeprefix(codecs.BOM_UTF8), "strict", not truncated)[0]
    except UnicodeDecodeError:
        pass
    controls = len(source) - len(source.translate(None, _CONTROLS))
    if controls > len(source) * _CONTROL_SHARE_MAX:
        return None
    return source.decode("latin-1")
