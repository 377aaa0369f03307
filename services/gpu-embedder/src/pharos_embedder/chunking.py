"""A file's text into chunks: along the syntax tree where there is one, along its lines otherwise.

The text is first taken apart into *pieces*: a definition or statement that fits is one piece, a larger one
is opened and its children are pieces, and what has no children left is taken by lines (and a line that is
too long by characters). Then neighbouring pieces are put together again (`partition`): two definitions of
some size are never joined, which makes most cuts independent of each other, so an edit changes the chunks
around it and no others.

The pieces tile the text, so every line lies in exactly one chunk; a chunk of nothing but white space is
dropped.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from tree_sitter import Node

from pharos_embedder.partition import DEPTH_MAX, Piece, partition
from pharos_embedder.syntax import Chunk, Definition

CHUNKER_VERSION: Final = "4"
"""Part of the key of every stored vector: raise it when the same text may give other chunks."""

_DOCSTRING_CHARS_MAX: Final = 300
_LINE_DEPTH: Final = 4
_FRAGMENT_DEPTH: Final = 5

_LEADING_TYPES: Final = frozenset(
    {
        "comment", "line_comment", "block_comment", "decorator", "modifiers", "annotation",
        "attribute_item", "inner_attribute_item", "attribute_list", "attribute_declaration",
        "template", "template_parameter_list", "access_specifier",
    }
)  # fmt: skip
"""Nodes that belong to what follows them on the next line."""

_HEADING: Final = re.compile(r"#{1,6}\s|\[[^\]]+\]\s*$")


class _Line(NamedTuple):
    start: int  # character offset
    end: int  # after its line end


class _Span(NamedTuple):
    first: int  # 0-based line
    after: int  # one past its last line
    nodes: tuple[Node, ...]
    depth: int  # of the cut before it
    level: int  # of the cuts between its children


class _Row(NamedTuple):
    first: int  # 0-based line
    after: int  # one past its last line
    node: Node
    leads: bool  # to what follows on the next line


def split(
    text: str,
    *,
    path: str,
    language: str,
    root: Node | None = None,
    definitions: Sequence[Definition] = (),
    size_chars: int = 1000,
    overlap_chars: int = 100,
) -> tuple[Chunk, ...]:
    """The chunks of *text*, in order; none is longer than *size_chars* characters, context aside.

    *root* is the syntax tree of the same text, or None to cut by lines; *definitions* give the chunks their
    symbols.
    """
    lines = _lines(text)
    if not lines or not text.strip():
        return ()
    starts = {one.start_line - 1 for one in definitions}
    if root is not None:
        pieces = _tree_pieces(text, lines, root, starts, size_chars)
    else:
        pieces = _line_pieces(text, lines, range(len(lines)), size_chars)
    groups = partition(text, pieces, size_chars)
    naming = _Naming(definitions, len(lines))
    chunks: list[Chunk] = []
    for first, after in groups:
        start, end = pieces[first].start, pieces[after - 1].end
        body = text[start:end]
        if not body.strip():
            continue
        start_line = pieces[first].line + 1
        end_line = start_line + body.count("\n") - body.endswith("\n")
        owner = naming.of(*_not_blank(body, start_line))
        at_a_seam = pieces[first].whole or pieces[first].line in starts or pieces[first].depth == 0
        whole_start = start == 0 or (root is not None and at_a_seam)
        context = "" if whole_start else _tail(text, start, overlap_chars)
        encoded = f"{context}\n{body}" if context else body
        chunks.append(
            Chunk(
                path=path,
                ordinal=len(chunks),
                text=body,
                context=context,
                start_line=start_line,
                end_line=end_line,
                language=language,
                content_hash=hashlib.blake2b(encoded.encode("utf-8"), digest_size=16).hexdigest(),
                symbol=owner.symbol if owner else "",
                kind=owner.kind if owner else "",
                docstring=owner.docstring[:_DOCSTRING_CHARS_MAX] if owner else "",
            )
        )
    return tuple(chunks)


def _lines(text: str) -> list[_Line]:
    made: list[_Line] = []
    start = 0
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        made.append(_Line(start, end))
        start = end
    return made


# ---- taking apart


def _tree_pieces(
    text: str, lines: Sequence[_Line], root: Node, starts: set[int], size_chars: int
) -> list[Piece]:
    """The pieces of a parsed file. The walk is a stack, so depth of nesting costs no more than memory.

    *starts* are the 0-based lines on which definitions start. The root is always opened.
    """
    pieces: list[Piece] = []
    stack = _children(_Span(0, len(lines), (root,), 0, 0))[::-1]
    if not stack:
        return _line_pieces(text, lines, range(len(lines)), size_chars)
    while stack:
        span = stack.pop()
        start, end = lines[span.first].start, lines[span.after - 1].end
        if end - start <= size_chars:
            whole = end - start >= size_chars // 4 and any(
                line in starts for line in range(span.first, span.after)
            )
            _append(pieces, Piece(start, end, span.first, span.depth, whole), size_chars)
            continue
        if children := _children(span):
            stack.extend(reversed(children))
        else:
            first, *rest = _line_pieces(text, lines, range(span.first, span.after), size_chars)
            pieces.append(first._replace(depth=span.depth))
            pieces.extend(piece._replace(depth=max(piece.depth, _LINE_DEPTH)) for piece in rest)
    return pieces


def _append(pieces: list[Piece], piece: Piece, size_chars: int) -> None:
    """Adds *piece*, as part of the one before if that is tiny: a piece has about 1/50 of a chunk at least."""
    last = pieces[-1] if pieces else None
    if (
        last is not None
        and not piece.whole
        and piece.depth >= last.depth
        and last.end - last.start < size_chars // 50
        and piece.end - last.start <= size_chars
    ):
        pieces[-1] = last._replace(end=piece.end)
    else:
        pieces.append(piece)


def _children(span: _Span) -> list[_Span]:
    """*span* opened: spans of whole lines that tile it, or nothing if no node reaches over several lines."""
    nodes: tuple[Node, ...] = span.nodes
    while nodes:
        rows: list[_Row] = []
        for node in nodes:
            body = node.child_by_field_name("body")
            for child in node.children:
                first, after = _rows(child)
                if after > span.first and first < span.after:
                    leads = _leads(child, body)
                    rows.append(_Row(max(first, span.first), min(after, span.after), child, leads))
        groups = _rows_joined(rows)
        if len(groups) > 1:
            firsts = [span.first, *(first for first, _, _ in groups[1:])]
            afters = [*firsts[1:], span.after]
            depths = [span.depth, *[min(span.level, DEPTH_MAX)] * (len(groups) - 1)]
            return [
                _Span(first, after, inner, depth, span.level + 1)
                for first, after, depth, (_, _, inner) in zip(firsts, afters, depths, groups, strict=True)
            ]
        nodes = groups[0][2] if groups else ()
    return []


def _rows(node: Node) -> tuple[int, int]:
    end_row, end_column = node.end_point
    first = node.start_point[0]
    return first, max(end_row + (end_column > 0), first + 1)


def _leads(node: Node, body: Node | None) -> bool:
    """Whether *node* belongs to what follows it: it is a comment or the like, or a part of what is before the
    *body* of its parent, the last one only where a brace opens the body.
    """
    if node.type in _LEADING_TYPES:
        return True
    if node.type == ":":  # of `public:` in C++
        before = node.prev_sibling
        return before is not None and before.type == "access_specifier"
    if body is None or node.end_byte > body.start_byte:
        return False
    following = node.next_sibling
    opening = body.child(0) if body.child_count else None  # broken syntax leaves empty bodies
    is_last = following is None or following.end_byte > body.start_byte
    return not is_last or (opening is not None and opening.type == "{")


def _rows_joined(rows: list[_Row]) -> list[tuple[int, int, tuple[Node, ...]]]:
    """Nodes that share a line, and comments with what follows them, as one; nodes of one line are dropped."""
    groups: list[tuple[int, int, list[Node]]] = []
    leading = False
    for first, after, node, leads in rows:
        inner = [node] if after - first > 1 else []
        beside = bool(groups) and first < groups[-1][1]
        if groups and (beside or (leading and first == groups[-1][1])):
            last_first, last_after, kept = groups[-1]
            groups[-1] = (last_first, max(last_after, after), kept + inner)
        else:
            groups.append((first, after, inner))
        leading = leads and (leading or not beside)  # a comment after something explains that
    return [(first, after, tuple(inner)) for first, after, inner in groups]


def _line_pieces(text: str, lines: Sequence[_Line], which: range, size_chars: int) -> list[Piece]:
    """Pieces of plain lines; a blank line belongs to the one before it."""
    pieces: list[Piece] = []
    after_blank = True
    for number in which:
        start, end = lines[number]
        blank = not text[start:end].strip()
        if end - start > size_chars:
            pieces.extend(_fragments(text, start, end, number, size_chars))
        elif blank and pieces and end - pieces[-1].start <= size_chars:
            pieces[-1] = pieces[-1]._replace(end=end)
        else:
            depth = _line_depth(text[start : min(end, start + 80)], blank=blank, after_blank=after_blank)
            if depth < _LINE_DEPTH:
                pieces.append(Piece(start, end, number, depth, False))
            else:
                _append(pieces, Piece(start, end, number, depth, False), size_chars)
        after_blank = blank
    return pieces


def _line_depth(line: str, *, blank: bool, after_blank: bool) -> int:
    if blank:
        return DEPTH_MAX
    if _HEADING.match(line):
        return 0
    if after_blank:
        return 2 if line[0] in " \t" else 1
    return _LINE_DEPTH


def _fragments(text: str, start: int, end: int, number: int, size_chars: int) -> list[Piece]:
    """One long line by characters, at a space or comma in the last fifth of a fragment if there is one."""
    made: list[Piece] = []
    while start < end:
        stop = min(start + size_chars, end)
        if stop < end:
            floor = stop - size_chars // 5
            cut = max(text.rfind(mark, floor, stop) for mark in " ,;")
            stop = cut + 1 if cut > floor else stop
            if text[stop - 1 : stop + 1] == "\r\n":  # never between the two characters of a line end
                stop -= 1
        made.append(Piece(start, stop, number, _FRAGMENT_DEPTH if made else _LINE_DEPTH, False))
        start = stop
    return made


# ---- naming


class _Naming:
    """Which definition a run of lines belongs to."""

    def __init__(self, definitions: Sequence[Definition], line_count: int) -> None:
        self._innermost: list[int] = [-1] * (line_count + 2)
        self._parents: list[int] = []
        self._starting: dict[int, list[int]] = {}
        self._definitions = definitions
        open_now: list[int] = []
        for index, one in enumerate(definitions):
            while open_now and definitions[open_now[-1]].end_byte <= one.start_byte:
                open_now.pop()
            self._parents.append(open_now[-1] if open_now else -1)
            open_now.append(index)
            self._starting.setdefault(one.start_line, []).append(index)
        if definitions:
            self._fill()

    def _fill(self) -> None:
        """The innermost definition of every line, by one sweep over starts and ends."""
        stack: list[int] = []
        for line in range(1, len(self._innermost)):
            while stack and self._definitions[stack[-1]].end_line < line:
                stack.pop()
            stack.extend(self._starting.get(line, ()))
            while stack and self._definitions[stack[-1]].end_line < line:
                stack.pop()
            self._innermost[line] = stack[-1] if stack else -1

    def of(self, start: int, end: int) -> Definition | None:
        """The definition that names the lines.

        That which is around all of them does, or else the outermost that begins in them and goes on after
        them; but one that lies within them does, if it is the only one, or most of the lines, or nothing is
        around. Where all that is left is the end of a definition, that does.
        """
        around, ended = self._around(start, end)
        outer = self._definitions[around] if around >= 0 else None
        if outer is not None and outer.start_line >= start:
            return outer
        within = self._outermost_within(start, end)
        if not within:
            return outer or (self._definitions[ended] if ended >= 0 else None)
        largest = max(within, key=lambda index: (self._lines_of(index), -index))
        if outer is None or len(within) == 1 or 2 * self._lines_of(largest) > end - start + 1:
            return self._definitions[largest]
        return outer

    def _outermost_within(self, start: int, end: int) -> list[int]:
        """The definitions that lie within the lines, but for those inside others of them."""
        within: dict[int, bool] = {}  # and whether it is an outermost one
        for line in range(start, end + 1):
            for index in self._starting.get(line, ()):
                if self._definitions[index].end_line <= end:
                    within[index] = self._parents[index] not in within
        return [index for index, outermost in within.items() if outermost]

    def _lines_of(self, index: int) -> int:
        return self._definitions[index].end_line - self._definitions[index].start_line + 1

    def _around(self, start: int, end: int) -> tuple[int, int]:
        """The innermost definition that has all of the lines, or all from its own first line on; -1 if none.

        Then also the outermost that begins before them and ends in them.
        """
        index, ended = self._innermost[start], -1
        while index >= 0 and self._definitions[index].end_line < end:
            if self._definitions[index].start_line < start:
                ended = index
            index = self._parents[index]
        if index >= 0:
            return index, ended
        reaching = self._innermost[end]
        while reaching >= 0 and self._definitions[reaching].end_line <= end:
            reaching = self._parents[reaching]
        if reaching >= 0 and self._definitions[reaching].start_line >= start:
            while (up := self._parents[reaching]) >= 0 and self._definitions[up].start_line >= start:
                reaching = up
            return reaching, ended
        return -1, ended


def _not_blank(body: str, start_line: int) -> tuple[int, int]:
    """The lines of *body* from the first to the last that is not blank, where it starts on *start_line*."""
    skipped = body[: len(body) - len(body.lstrip())].count("\n")
    kept = body.strip().count("\n")
    return start_line + skipped, start_line + skipped + kept


def _tail(text: str, start: int, overlap_chars: int) -> str:
    """The end of what lies before *start*, from the start of a line if there is one in reach."""
    floor = max(0, start - overlap_chars)
    tail = text[floor:start]
    line_end = tail.find("\n")
    if floor > 0 and text[floor - 1] != "\n" and 0 <= line_end < len(tail) - 1:
        tail = tail[line_end + 1 :]
    return tail.strip("\r\n")
