"""Bytes to text in whatever character set they are, or the verdict that they are none.

By its mark, then as UTF-16 without one (every other byte of Latin text is NUL there), UTF-8, what was
declared, and last the guess of charset-normalizer among the sets that people use.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

_MARKS: Final[tuple[tuple[bytes, str], ...]] = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAMPLE_BYTES: Final = 64 * 1024
_CONTROLS: Final = bytes(set(range(32)) - {9, 10, 12, 13, 27}) + b"\x7f"
_CONTROL_SHARE_MAX: Final = 0.02
_PRINTABLE_SHARE_MIN: Final = 0.97
_SPACES: Final = re.compile("[ \n\u3000-\u3002]")  # what any text has, and chance seldom makes
_REPLACED_SHARE_MAX: Final = 0.02
_DAMAGED_SHARE_MAX: Final = 0.05

_NEVER_DECLARED: Final = (
    "idna",
    "punycode",
    "unicode_escape",
    "raw_unicode_escape",
    "utf-16",
    "utf-32",
    "utf-7",
)
"""Codecs of Python that are no set of a file, and wide ones, which almost any bytes fit and NULs tell."""

_GUESSED: Final[Sequence[str]] = (
    "cp1252", "cp1250", "cp1251", "koi8_r", "cp1253", "cp1254", "cp1255", "cp1256", "cp932", "euc_jp",
    "gb18030", "big5", "cp949", "tis_620",
)  # fmt: skip
"""Sets that bytes without a mark may be in; of two that are as likely, the first."""


class Decoded(NamedTuple):
    """`replaced` counts what was no character in the set, and is U+FFFD in the text."""

    text: str
    charset: str
    replaced: int


def decode(data: bytes, declared: str = "") -> Decoded | None:
    """The text of *data*, without its mark; None if it is binary. *declared* is what came with the file."""
    for mark, charset in _MARKS:
        if data.startswith(mark):
            return _loosely(data, charset)
    if b"\0" in data:
        wide = _wide(data)
        return None if wide is None else _loosely(data, wide)
    controls = len(data) - len(data.translate(None, _CONTROLS))
    if controls > len(data) * _CONTROL_SHARE_MAX:
        return None
    if b"\x1b$" in data or b"\x1b(" in data:
        try:
            return Decoded(data.decode("iso2022_jp"), "iso2022_jp", 0)
        except UnicodeDecodeError:
            pass
    try:
        return Decoded(data.decode("utf-8"), "utf-8", 0)
    except UnicodeDecodeError:
        pass
    if damaged := _damaged_utf8(data):
        return damaged
    if known := _known(declared):
        try:
            return Decoded(data.decode(known), known, 0)
        except UnicodeDecodeError:
            pass
    decoded = _loosely(data, _guessed(data))
    return decoded if decoded.replaced <= len(decoded.text) * _REPLACED_SHARE_MAX else None


def _loosely(data: bytes, charset: str) -> Decoded:
    text = data.decode(charset, errors="replace")
    return Decoded(text, charset.removesuffix("-sig"), text.count("\ufffd"))


def _wide(data: bytes) -> str | None:
    """UTF-16 or UTF-32 without a mark, where *data* reads like text in it."""
    sample = data[: _SAMPLE_BYTES - _SAMPLE_BYTES % 4]
    best = _PRINTABLE_SHARE_MIN
    charset: str | None = None
    for name, width in (("utf-32-le", 4), ("utf-32-be", 4), ("utf-16-le", 2), ("utf-16-be", 2)):
        if len(data) % width:
            continue
        decoder = codecs.getincrementaldecoder(name)()
        try:
            text = decoder.decode(sample)
        except UnicodeDecodeError:
            continue
        printable = sum(character.isprintable() or character in "\t\n\r\f" for character in text)
        share = printable / len(text) if text else 0.0
        if share > best and _SPACES.search(text):
            best, charset = share, name
    return charset


def _damaged_utf8(data: bytes) -> Decoded | None:
    """UTF-8 with a few wrong bytes, such as a cut in the middle of a character."""
    decoded = _loosely(data, "utf-8")
    beyond_ascii = sum(not character.isascii() for character in decoded.text) - decoded.replaced
    return decoded if decoded.replaced <= beyond_ascii * _DAMAGED_SHARE_MAX else None


def _known(declared: str) -> str | None:
    """The codec of a declared character set that is one; Latin-1 is read as the larger cp1252."""
    try:
        found = codecs.lookup(declared.strip().strip("'\"")) if declared else None
    except (LookupError, ValueError):
        return None
    if found is None or not found._is_text_encoding or found.name.startswith(_NEVER_DECLARED):
        return None
    return {"iso8859-1": "cp1252", "ascii": "cp1252", "shift_jis": "cp932", "gb2312": "gb18030"}.get(
        found.name, found.name
    )


def _guessed(data: bytes) -> str:
    from charset_normalizer import from_bytes

    sample = data[:_SAMPLE_BYTES]
    if len(data) > len(sample):
        sample = sample[: sample.rfind(b"\n") + 1] or sample
    matches = from_bytes(sample, cp_isolation=list(_GUESSED))
    best = matches.best()
    if best is None:
        return _GUESSED[0]
    likely = {
        charset
        for match in matches
        if (match.chaos, match.coherence) == (best.chaos, best.coherence)
        for charset in (match.encoding, *match.could_be_from_charset)
    }
    return next(charset for charset in _GUESSED if charset in likely)
