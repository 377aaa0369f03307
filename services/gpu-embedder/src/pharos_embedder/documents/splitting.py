"""A document into chunks, along its structure. Pure.

Source code that has a grammar is cut by it (`chunking`). Everything else is taken apart by its blocks: a
paragraph that fits is one piece, a longer one is taken by sentences and then by words, code by its lines, a
table by its rows, and a heading stays with what follows it. `partition` puts neighbouring pieces together
again. Two sections of some size are never joined, so an edit in one changes no chunk of another.

Nothing but white space lies between chunks. What an encoder is to know besides is in `context`: the title and
the headings, the names of a table's columns, and the end of the chunk before where the cut went through
something.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import msgspec

from pharos_embedder.documents.blocks import CELL_SEPARATOR, Block, BlockKind, Document
from pharos_embedder.partition import DEPTH_MAX, Piece, partition

SPLITTER_VERSION: Final = "2"
"""Part of the key of every stored vector of a document: raise it when the same text may give other chunks."""

CHUNK_SIZE_MIN: Final = 100
CHUNK_SIZE_MAX: Final = 20_000

_TITLE_CHARACTERS_MAX: Final = 80
_HEADINGS_CHARACTERS_MAX: Final = 120
_HEADER_CHARACTERS_MAX: Final = 200
_HEADING_SEPARATOR: Final = " › "

_BLOCK_DEPTH: Final = 3
_LINE_DEPTH: Final = 4
_HEADING_DEPTH_MAX: Final = 2
_PIECE_CHARACTERS_MIN: Final = 16

_SENTENCE_END: Final = re.compile(r"[.!?…][\"'”’»)\]]*\s+|[。！？]|\n\s*")
"""After which a sentence may be cut off: a full stop and white space, or a line end."""


class DocumentChunk(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a document, as it is stored, shown and encoded: `text == document.text[start:end]`.

    `headings`, `kind` and `language` are those of the block that most of the chunk is of; lines are of the
    document's text, from 1. `page` is where it starts and `page_end` where it ends, None where there are no
    pages. `context` is put before the text for encoding only, and `content_hash` is the blake2b-16 hex digest
    of both. `symbol` is the definition that a chunk of source code belongs to.
    """

    ordinal: int
    start: int
    end: int
    text: str
    context: str
    content_hash: str
    start_line: int
    end_line: int
    kind: BlockKind
    headings: tuple[str, ...] = ()
    page: int | None = None
    page_end: int | None = None
    language: str = ""
    symbol: str = ""

    @property
    def encoded_text(self) -> str:
        """What the encoder reads."""
        return f"{self.context}\n{self.text}" if self.context else self.text


class _Cut(NamedTuple):
    """A piece, and the block that it is of."""

    piece: Piece
    block: int
    opens: bool  # a section: it starts with a heading


def split_document(document: Document, chunk_size: int = 1000, overlap: int = 100) -> list[DocumentChunk]:
    """The chunks of *document*, in order, none longer than *chunk_size* characters, context aside.

    *overlap* is how much of the end of the chunk before an encoder is shown at most.
    """
    if not CHUNK_SIZE_MIN <= chunk_size <= CHUNK_SIZE_MAX:
        raise ValueError(
            f"chunk_size must be between {CHUNK_SIZE_MIN} and {CHUNK_SIZE_MAX}, not {chunk_size}"
        )
    if not 0 <= overlap <= chunk_size // 2:
        raise ValueError(
            f"overlap must be between 0 and half of chunk_size ({chunk_size // 2}), not {overlap}"
        )
    if document.kind == "source":
        return list(_source_chunks(document, chunk_size, overlap))
    cuts = _cuts(document, chunk_size)
    naming = _Naming(document, overlap)
    for section in _sections(cuts, chunk_size):
        for first, after in partition(document.text, [cut.piece for cut in section], chunk_size):
            naming.add(section[first:after], section[0].piece.start)
    return naming.chunks


def flat(document: Document) -> Document:
    """*document* for cutting by size alone: no headings, no tables or code, and no title before each chunk.

    Pages stay, since they say where a chunk is; only what is on one page is joined.
    """
    blocks: list[Block] = []
    for block in document.blocks:
        if blocks and blocks[-1].page == block.page:
            blocks[-1] = msgspec.structs.replace(blocks[-1], end=block.end)
        else:
            blocks.append(Block(kind="prose", start=block.start, end=block.end, page=block.page))
    kind = "text" if document.kind == "source" else document.kind
    return msgspec.structs.replace(document, kind=kind, title="", blocks=tuple(blocks))


# ---- taking apart


def _cuts(document: Document, chunk_size: int) -> list[_Cut]:
    """The pieces of all blocks, in order; white space between blocks is in none."""
    text, blocks = document.text, document.blocks
    cuts: list[_Cut] = []
    for number, block in enumerate(blocks):
        for piece in _pieces(text, block, chunk_size):
            starts = piece.start == block.start
            if (
                starts
                and cuts
                and _stays_with(blocks[cuts[-1].block], block)
                and _fits(cuts[-1], piece, chunk_size)
            ):
                last = cuts.pop()
                cuts.append(last._replace(piece=last.piece._replace(end=piece.end), block=number))
            else:
                _append(cuts, _Cut(piece, number, starts and block.kind == "heading"), chunk_size)
    return cuts


def _stays_with(heading: Block, block: Block) -> bool:
    """Whether *heading* is one, and *block*, which follows it, is below it."""
    return heading.kind == "heading" and (
        block.kind != "heading" or len(block.headings) > len(heading.headings)
    )


def _fits(last: _Cut, piece: Piece, chunk_size: int) -> bool:
    return piece.end - last.piece.start <= chunk_size


def _append(cuts: list[_Cut], cut: _Cut, chunk_size: int) -> None:
    """Adds *cut*, as part of the one before if that is tiny: there are no more than some 25 a chunk."""
    last = cuts[-1] if cuts else None
    if (
        last is not None
        and (last.opens or not cut.opens)
        and cut.piece.depth >= last.piece.depth
        and last.piece.end - last.piece.start < max(_PIECE_CHARACTERS_MIN, chunk_size // 25)
        and _fits(last, cut.piece, chunk_size)
    ):
        cuts[-1] = last._replace(piece=last.piece._replace(end=cut.piece.end))
    else:
        cuts.append(cut)


def _pieces(text: str, block: Block, chunk_size: int) -> Iterator[Piece]:
    """The pieces of one block; they tile it."""
    depth = _BLOCK_DEPTH
    if block.kind == "heading":
        depth = min(max(len(block.headings) - 1, 0), _HEADING_DEPTH_MAX)
    if block.end - block.start <= chunk_size and block.kind != "table":
        yield Piece(block.start, block.end, 0, depth, False)
        return
    cut_up = _lines if block.kind in ("code", "table") else _sentences
    for start, stop, inner_depth in cut_up(text, block.start, block.end):
        at = start
        while at < stop:
            end = stop if stop - at <= chunk_size else _seam(text, at, at + chunk_size)
            outer = depth if at == block.start else inner_depth if at == start else DEPTH_MAX
            yield Piece(at, end, 0, outer, False)
            at = end


def _sentences(text: str, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(start, end, depth of the cut before) of each sentence or line; they tile the text."""
    at = start
    for found in _SENTENCE_END.finditer(text, start, end):
        yield at, found.end(), _LINE_DEPTH
        at = found.end()
    if at < end:
        yield at, end, _LINE_DEPTH


def _lines(text: str, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Likewise the lines; a cut is cheaper before one that starts at the margin."""
    at = start
    while at < end:
        found = text.find("\n", at, end)
        stop = found + 1 if found >= 0 else end
        while stop < end and text[stop] == "\n":
            stop += 1
        yield at, stop, _BLOCK_DEPTH + 1 if text[at] not in " \t})]" else DEPTH_MAX
        at = stop


def _seam(text: str, start: int, stop: int) -> int:
    """Where to cut a run of *start* to *stop* that has no seams: at a space or comma in its last fifth."""
    floor = stop - (stop - start) // 5
    for mark in (CELL_SEPARATOR, " ", ",", ";"):
        if (cut := text.rfind(mark, floor, stop)) > floor and cut + len(mark) <= stop:
            return cut + len(mark)
    return stop


def _sections(cuts: list[_Cut], chunk_size: int) -> Iterator[list[_Cut]]:
    """*cuts* in runs that are put together each by itself: there is a border where two sections meet that are
    both of some size. What lies between two headings decides, and nothing else does.
    """
    opening = [number for number, cut in enumerate(cuts) if cut.opens and number]
    bounds = [0, *opening, len(cuts)]
    sizes = {
        first: cuts[after - 1].piece.end - cuts[first].piece.start
        for first, after in pairwise(bounds)
        if after > first
    }
    begin = 0
    for before, first in pairwise(bounds[:-1]):
        if min(sizes[before], sizes[first]) >= chunk_size // 4:
            yield cuts[begin:first]
            begin = first
    yield cuts[begin:]


# ---- naming


class _Naming:
    """Makes the chunks of one document, one after the other."""

    def __init__(self, document: Document, overlap: int) -> None:
        self.chunks: list[DocumentChunk] = []
        self._document = document
        self._overlap = overlap
        self._line = 1
        self._counted = 0  # characters whose lines are in _line
        self._block = 0  # the first that may reach into the next chunk

    def add(self, cuts: Sequence[_Cut], floor: int) -> None:
        """The chunk of *cuts*; an overlap does not reach back beyond *floor*."""
        document = self._document
        start, end = _trimmed(document.text, cuts[0].piece.start, cuts[-1].piece.end)
        if start == end:
            return
        text = document.text[start:end]
        within = self._blocks_within(start, end)
        main = max(within, key=lambda block: min(block.end, end) - max(block.start, start))
        first, last = within[0], within[-1]
        parts = [self._heads(first, start)]
        if first.kind == "table" and first.header and start > first.start:
            parts.append(first.header[:_HEADER_CHARACTERS_MAX])
        elif not (first.start == start and first.kind == "heading"):
            parts.append(_tail(document.text, max(floor, start - self._overlap), floor, start))
        context = "\n".join(part for part in parts if part)
        encoded = f"{context}\n{text}" if context else text
        self._line += document.text.count("\n", self._counted, start)
        self._counted = start
        self.chunks.append(
            DocumentChunk(
                ordinal=len(self.chunks),
                start=start,
                end=end,
                text=text,
                context=context,
                content_hash=hash_of(encoded),
                start_line=self._line,
                end_line=self._line + text.count("\n"),
                kind=main.kind,
                headings=main.headings,
                page=first.page,
                page_end=last.page,
                language=main.language,
            )
        )

    def _blocks_within(self, start: int, end: int) -> list[Block]:
        blocks = self._document.blocks
        while blocks[self._block].end <= start:
            self._block += 1
        after = self._block
        while after < len(blocks) and blocks[after].start < end:
            after += 1
        return list(blocks[self._block : after])

    def _heads(self, first: Block, start: int) -> str:
        """The title and the headings above a chunk; not a heading that it shows itself."""
        title = self._document.title
        shown = first.kind == "heading" and first.start == start
        headings = [heading for heading in first.headings[: -1 if shown else None] if heading != title]
        path = _HEADING_SEPARATOR.join(headings)
        if len(path) > _HEADINGS_CHARACTERS_MAX:
            path = "…" + path[1 - _HEADINGS_CHARACTERS_MAX :]
        return ": ".join(part for part in (title[:_TITLE_CHARACTERS_MAX], path) if part)


def hash_of(encoded: str) -> str:
    """What a chunk is known by: the blake2b-16 hex digest of what is encoded."""
    return hashlib.blake2b(encoded.encode("utf-8"), digest_size=16).hexdigest()


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """Without white space at the end and blank lines at the start; the indentation of a line is kept."""
    body = text[start:end]
    stop = start + len(body.rstrip())
    if stop == start:
        return start, start
    skipped = len(body) - len(body.lstrip())
    return start + body.rfind("\n", 0, skipped) + 1, stop


def _tail(text: str, start: int, floor: int, end: int) -> str:
    """The end of what lies before a chunk, from the start of a word if there is one in reach."""
    tail = text[start:end]
    if start > floor and start > 0 and not text[start - 1].isspace():
        space = re.search(r"\s", tail)
        tail = tail[space.end() :] if space is not None else tail
    return tail.strip()


# ---- source code


def _source_chunks(document: Document, chunk_size: int, overlap: int) -> Iterator[DocumentChunk]:
    """As a file of a repository is cut, with the places found again: chunks are in order, and only white
    space is left out between them.
    """
    from pharos_embedder.parsing import parse
    from pharos_embedder.syntax import ParseOptions

    options = ParseOptions(size_chars=chunk_size, overlap_chars=overlap)
    language = document.blocks[0].language
    at = 0
    for chunk in parse(document.name, language, document.text.encode("utf-8"), options).chunks:
        start = document.text.index(chunk.text, at)
        at = start + len(chunk.text)
        yield DocumentChunk(
            ordinal=chunk.ordinal,
            start=start,
            end=at,
            text=chunk.text,
            context=chunk.context,
            content_hash=chunk.content_hash,
            start_line=chunk.start_line,
            end_line=chunk.end_line,
            kind="code",
            language=language,
            symbol=chunk.symbol,
        )
