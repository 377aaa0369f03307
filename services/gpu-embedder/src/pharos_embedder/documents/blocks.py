"""What every format becomes: a text, and blocks over it that say what each part of it is.

Offsets count characters of `Document.text`. Blocks are in order and do not overlap; between them is white
space only. Line ends are "\\n", whatever the file has; what is no character (NUL, half a surrogate pair) is
U+FFFD.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple

import msgspec

from pharos_embedder.documents.limits import DocumentLimits
from pharos_sources.document_kinds import Kind

BlockKind = Literal["heading", "prose", "code", "table"]

CELL_SEPARATOR: Final = " | "
TITLE_CHARACTERS_MAX: Final = 300
HEADING_CHARACTERS_MAX: Final = 200
HEADING_LEVEL_MAX: Final = 6
WARNINGS_MAX: Final = 20
_HEADER_CHARACTERS_MAX: Final = 500
_NOT_CHARACTERS: Final = re.compile("[\0\ud800-\udfff]")


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a document. A line of a table is one row, its cells with CELL_SEPARATOR between them.

    `headings` are those above it, outermost first, and in a heading's own block the heading itself. `page` is
    the page or slide that it starts on, from 1, or None where there are none. `header` is the first row of a
    table that names its columns. `language` is the programming language of code.
    """

    kind: BlockKind
    start: int
    end: int
    headings: tuple[str, ...] = ()
    page: int | None = None
    header: str = ""
    language: str = ""


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A document as it was read. `date` is ISO 8601, `language` ISO 639-1; empty where they are not known.

    `pages` counts pages or slides, 0 where there are none, and `pages_pictured` those that show something but
    have no text. `replaced` counts the bytes that were no text in the document's character set.
    """

    name: str
    kind: Kind
    size: int
    content_hash: str
    text: str
    blocks: tuple[Block, ...]
    title: str = ""
    language: str = ""
    date: str = ""
    charset: str = ""
    pages: int = 0
    pages_pictured: int = 0
    replaced: int = 0
    warnings: tuple[str, ...] = ()


class Facts(msgspec.Struct, kw_only=True):
    """What a format knows of a document besides its text."""

    title: str = ""
    language: str = ""
    date: str = ""
    pages: int = 0
    pages_pictured: int = 0
    replaced: int = 0
    charset: str = ""


class Part(NamedTuple):
    """A block of a text that is taken as it is: offsets into that text. `level` is a heading's."""

    kind: BlockKind
    start: int
    end: int
    level: int = 0
    heading: str = ""
    language: str = ""
    header: str = ""


class TextFull(Exception):
    """The limit of characters is reached; what was taken till then is the document."""


class Assembly:
    """A document in the making: a format gives it headings, paragraphs and tables in their order.

    Raises TextFull when there is no more room, so that no format has to count.
    """

    def __init__(self, limits: DocumentLimits, *, math: bool = True) -> None:
        self.limits = limits
        self.math = math
        self.facts = Facts()
        self.page: int | None = None
        self._texts: list[str] = []
        self._length = 0
        self._blocks: list[Block] = []
        self._headings: list[tuple[int, str]] = []
        self._warnings: dict[str, None] = {}

    @property
    def text(self) -> str:
        return "".join(self._texts)

    @property
    def length(self) -> int:
        """Characters so far."""
        return self._length

    @property
    def blocks(self) -> tuple[Block, ...]:
        return tuple(self._blocks)

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(self._warnings)

    def warn(self, sentence: str) -> None:
        if len(self._warnings) < WARNINGS_MAX:
            self._warnings[sentence] = None

    def heading(self, level: int, text: str) -> None:
        """A heading; *level* 1 is the outermost. One without words is left out."""
        if text := one_line(text):
            self._add(text, [Part("heading", 0, len(text), level, text)])

    def prose(self, text: str) -> None:
        self._add_plain("prose", text.strip())

    def code(self, text: str, language: str = "") -> None:
        self._add_plain("code", text.strip("\r\n").rstrip(), language)

    def table(self, rows: Iterable[Sequence[str]], *, header: bool | None = None) -> int:
        """Rows of cells, the first of which names the columns (None: where it looks like it). Empty rows are
        left out. Returns how many were taken; those beyond the limit are not.
        """
        lines: list[str] = []
        first: Sequence[str] = ()
        names = ""
        over = False
        for row in rows:
            cells = [one_line(cell, self.limits.cell_characters_max) for cell in row]
            if any(len(cell) > self.limits.cell_characters_max for cell in row):
                most = self.limits.cell_characters_max
                self.warn(f"Of long cells only the first {most} characters were read.")
            while cells and not cells[-1]:
                cells.pop()
            if len(cells) > self.limits.columns_max:
                del cells[self.limits.columns_max :]
                self.warn(f"Of wide tables only the first {self.limits.columns_max} columns were read.")
            if not any(cells):
                continue
            if len(lines) == self.limits.rows_max:
                over = True
                break
            if not lines:
                first = cells
            lines.append(CELL_SEPARATOR.join(cells))
        if over:
            self.warn(f"Of long tables only the first {self.limits.rows_max} rows were read.")
        if len(lines) > 1 and (_names_columns(first) if header is None else header):
            names = lines[0][:_HEADER_CHARACTERS_MAX]
        if lines:
            text = "\n".join(lines)
            self._add(text, [Part("table", 0, len(text), header=names)])
        return len(lines)

    def close_headings(self, level: int = 1) -> None:
        """What follows is under no heading of *level* or deeper."""
        while self._headings and self._headings[-1][0] >= level:
            self._headings.pop()

    def verbatim(self, text: str, parts: Iterable[Part]) -> None:
        """*text* as it is, and what its parts are."""
        self._add(text, parts)

    def _add_plain(self, kind: BlockKind, text: str, language: str = "") -> None:
        if text.strip():
            self._add(text, [Part(kind, 0, len(text), language=language)])

    def _add(self, text: str, parts: Iterable[Part]) -> None:
        text = clean(text)
        if self._texts:
            self._texts.append("\n\n")
            self._length += 2
        base = self._length
        room = max(0, self.limits.characters_max - base)
        full = len(text) > room
        if full:
            text = text[:room]
            self.warn(f"Only the first {self.limits.characters_max} characters of its text were read.")
        self._texts.append(text)
        self._length += len(text)
        for part in parts:
            start, end = part.start, min(part.end, len(text))
            if start >= end or not text[start:end].strip():
                continue
            if part.kind == "heading":
                level = min(max(part.level, 1), HEADING_LEVEL_MAX)
                self.close_headings(level)
                if words := one_line(part.heading, HEADING_CHARACTERS_MAX):
                    self._headings.append((level, words))
            self._blocks.append(
                Block(
                    kind=part.kind,
                    start=base + start,
                    end=base + end,
                    headings=tuple(words for _, words in self._headings),
                    page=self.page,
                    header=part.header,
                    language=part.language,
                )
            )
        if full:
            raise TextFull


def clean(text: str) -> str:
    """*text* with "\\n" for line ends and U+FFFD for what is no character."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _NOT_CHARACTERS.sub("\ufffd", text)


def one_line(text: str, characters_max: int = HEADING_CHARACTERS_MAX) -> str:
    """*text* without line ends or runs of white space, cut where it is longer than *characters_max*."""
    if len(text) > 4 * characters_max:
        text = text[: 4 * characters_max]
    text = " ".join(clean(text).split())
    return text if len(text) <= characters_max else text[: characters_max - 1] + "…"


def _names_columns(row: Sequence[str]) -> bool:
    """Whether *row* looks like names: several cells, all different, none empty or a number."""
    filled = [cell for cell in row if cell]
    if len(filled) < 2 or len(filled) < len(row) or len(set(filled)) < len(filled):
        return False
    return not any(cell.lstrip("+-").replace(".", "").replace(",", "").isdigit() for cell in filled)
