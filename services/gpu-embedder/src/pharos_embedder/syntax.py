"""What is known of one file after it was read: the values that parsing makes and linking and encoding take.

Lines are 1-based and inclusive, and are counted by "\\n" alone (so "\\r\\n" is one line end, and a form feed
or U+2028 is none). Byte offsets are into the UTF-8 text without its byte order mark.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

DECLARATION: Final = "declaration"
"""The kind of a definition that is no more than a prototype: what it names has its body elsewhere."""


class Definition(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Something with a name and a body: a function, a class, a constant; or what of such a thing stands in a
    header, which is of the kind `declaration`.

    `symbol` is the path of names down to it (`Outer.Inner.method`), `docstring` its documentation (at most
    1,000 characters, empty if it has none).
    """

    name: str
    symbol: str
    kind: str
    start_line: int
    end_line: int
    start_byte: int
    end_byte: int
    docstring: str = ""


class Reference(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A name that the file calls or uses as a type: its first line, and how often in all."""

    name: str
    line: int
    count: int


class ImportedName(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One name of an import, and what this file calls it (empty: the same)."""

    name: str
    alias: str = ""


class Import(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One import as written: the module's text, the names taken from it, and its place.

    `level` counts the leading dots of a relative Python import, and is 0 elsewhere. A wildcard is the name
    `*`; in Java there follow the names that the file uses and may have from there. For Rust, `module` is the
    whole path (`crate::a::b`), and `mod x;` is the kind `module` (its `alias` the file that a `#[path]`
    names). An `#include` is of the kind `include` with quotes, `system` with angle brackets.
    """

    module: str
    names: tuple[ImportedName, ...] = ()
    alias: str = ""
    level: int = 0
    line: int = 1
    kind: str = "import"


class Chunk(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A run of whole lines of one file (or a part of one very long line), as it is stored, shown and encoded.

    `text` is the exact source text. `context` is put before it for encoding only: the end of the chunk
    before, where the cut went through something. `content_hash` is the blake2b-16 hex digest of
    `encoded_text`, which no path is in: what is moved keeps its vectors.
    """

    path: str
    ordinal: int
    text: str
    context: str
    start_line: int
    end_line: int
    language: str
    content_hash: str
    symbol: str = ""
    kind: str = ""
    docstring: str = ""

    @property
    def encoded_text(self) -> str:
        """What the encoder reads: the context, a line end, the text."""
        return f"{self.context}\n{self.text}" if self.context else self.text

    @property
    def identity(self) -> str:
        """A digest (32 hexadecimal digits) of what of it is encoded or shown, but for its place."""
        # What stands around a chunk gives it its context, its symbol and its docstring: they may change while
        # its text and its place do not.
        facts = (self.content_hash, self.symbol, self.kind, self.language, self.docstring)
        return hashlib.blake2b("\0".join(facts).encode(), digest_size=16).hexdigest()


class ParsedFile(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One file, read and cut.

    `content_hash` is the blake2b-16 hex digest of the bytes on disk. `package` is what a package clause says,
    or the one namespace around a whole file. `warning` is a sentence where something was not as it should be
    (broken syntax, a parser that was killed); such a file is chunked all the same.
    """

    path: str
    language: str
    size: int
    line_count: int
    content_hash: str
    package: str = ""
    definitions: tuple[Definition, ...] = ()
    references: tuple[Reference, ...] = ()
    imports: tuple[Import, ...] = ()
    chunks: tuple[Chunk, ...] = ()
    has_errors: bool = False
    warning: str | None = None


class ParseFailure(msgspec.Struct, frozen=True, kw_only=True):
    """A file of which nothing could be had, and why: a warning on the job, never its end."""

    path: str
    reason: str


class ParseOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How files are read and cut. `plain` leaves the syntax tree out and cuts by lines."""

    size_chars: int = 1000
    overlap_chars: int = 100
    file_bytes_max: int = 100 * 1024 * 1024
    plain: bool = False

    def __post_init__(self) -> None:
        if not 100 <= self.size_chars <= 20_000:
            raise ValueError(f"size_chars must be between 100 and 20000, not {self.size_chars}")
        if not 0 <= self.overlap_chars <= self.size_chars // 2:
            raise ValueError(
                f"overlap_chars must be between 0 and half of size_chars ({self.size_chars // 2}), "
                f"not {self.overlap_chars}"
            )
        if self.file_bytes_max < 1:
            raise ValueError(f"file_bytes_max must be at least 1, not {self.file_bytes_max}")
