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

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from hashlib import blake2b
from itertools import accumulate
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


class _Span(NamedTuple):
    first: int  # 0-based line
    after: int  # one past its last line
    nodes: Sequence[Node]
    depth: int  # of the cut before it
    level: int  # of the cuts between its children


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
    if not text.strip():
        return ()
    lines = _line_starts(text)
    starts = {one.start_line - 1 for one in definitions}
    if root is not None:
        pieces = _tree_pieces(text, lines, root, sorted(starts), size_chars)
    else:
        pieces = _line_pieces(text, lines, range(len(lines) - 1), size_chars)
    groups = partition(text, pieces, size_chars)
    naming = _Naming(definitions)
    chunks: list[Chunk] = []
    for first, after in groups:
        start, _, line, depth, whole = pieces[first]
        end = pieces[after - 1].end
        body = text[start:end]
        if not (inked := body.strip()):
            continue
        ink = start + body.index(inked[0])
        owner = naming.of(bisect_right(lines, ink), bisect_right(lines, ink + len(inked) - 1))
        at_a_seam = whole or line in starts or depth == 0
        whole_start = start == 0 or (root is not None and at_a_seam)
        context = "" if whole_start else _tail(text, start, overlap_chars)
        encoded = f"{context}\n{body}" if context else body
        chunks.append(
            Chunk(
                path=path,
                ordinal=len(chunks),
                text=body,
                context=context,
                start_line=line + 1,
                end_line=bisect_left(lines, end),
                language=language,
                content_hash=blake2b(encoded.encode(), digest_size=16).hexdigest(),
                symbol=owner.symbol if owner else "",
                kind=owner.kind if owner else "",
                docstring=owner.docstring[:_DOCSTRING_CHARS_MAX] if owner else "",
            )
        )
    return tuple(chunks)


def _line_starts(text: str) -> list[int]:
    """(L + 1,) the character at which each line starts, and the length of *text*."""
    starts = list(accumulate([len(line) + 1 for line in text.split("\n")], initial=0))
    starts.pop()
    if starts[-1] < len(text):  # the last line has no end
        starts.append(len(text))
    return starts


# ---- taking apart


def _tree_pieces(
    text: str, lines: Sequence[int], root: Node, starts: Sequence[int], size_chars: int
) -> list[Piece]:
    """The pieces of a parsed file. The walk is a stack, so depth of nesting costs no more than memory.

    *starts* are the 0-based lines on which definitions start, in order. The root is always opened.
    """
    pieces: list[Piece] = []
    small = size_chars // 4
    stack = _children(_Span(0, len(lines) - 1, (root,), 0, 0))[::-1]
    if not stack:
        return _line_pieces(text, lines, range(len(lines) - 1), size_chars)
    while stack:
        span = stack.pop()
        first, after, _, depth, _ = span
        start, end = lines[first], lines[after]
        if end - start <= size_chars:
            whole = end - start >= small and bisect_left(starts, first) < bisect_left(starts, after)
            _append(pieces, Piece(start, end, first, depth, whole), size_chars)
            continue
        if children := _children(span):
            stack.extend(reversed(children))
        else:
            opening, *rest = _line_pieces(text, lines, range(first, after), size_chars)
            pieces.append(opening._replace(depth=depth))
            pieces.extend(piece._replace(depth=max(piece.depth, _LINE_DEPTH)) for piece in rest)
    return pieces


def _append(pieces: list[Piece], piece: Piece, size_chars: int) -> None:
    """Adds *piece*, as part of the one before if that is tiny: a piece has about 1/50 of a chunk at least."""
    if pieces and not piece.whole:
        start, end, line, depth, whole = pieces[-1]
        if end - start < size_chars // 50 and piece.depth >= depth and piece.end - start <= size_chars:
            pieces[-1] = Piece(start, piece.end, line, depth, whole)
            return
    pieces.append(piece)


def _children(span: _Span) -> list[_Span]:
    """*span* opened: spans of whole lines that tile it, or nothing if no node reaches over several lines.

    Nodes that share a line are in one span, and comments with what follows them; what has one line alone is
    not looked into.
    """
    span_first, span_after, nodes, depth, level = span
    while nodes:
        firsts: list[int] = []  # the first line of each group, and its nodes of several lines
        groups: list[list[Node]] = []
        last_after = -1
        leading = False
        for node in nodes:
            body = node.child_by_field_name("body")
            for child in node.children:  # plain comparisons: these are most of what is looked at in a file
                first = child.start_point[0]
                after, end_column = child.end_point
                if end_column or after == first:
                    after += 1
                if after <= span_first or first >= span_after:
                    continue
                if first < span_first or after > span_after:
                    first, after = max(first, span_first), min(after, span_after)
                beside = first < last_after
                if not beside and not (leading and first == last_after):
                    group: list[Node] = []
                    firsts.append(first)
                    groups.append(group)
                    last_after = after
                elif after > last_after:
                    last_after = after
                if after - first > 1:
                    group.append(child)
                # A comment after something explains that.
                leading = (leading or not beside) and (child.type in _LEADING_TYPES or _precedes(child, body))
        if len(groups) > 1:
            firsts[0] = span_first
            afters = [*firsts[1:], span_after]
            depths = [depth, *[min(level, DEPTH_MAX)] * (len(groups) - 1)]
            return [
                _Span(first, after, group, depth, level + 1)
                for first, after, group, depth in zip(firsts, afters, groups, depths, strict=True)
            ]
        nodes = groups[0] if groups else ()
    return []


def _precedes(node: Node, body: Node | None) -> bool:
    """Whether *node* belongs to what follows it though it is no comment or the like: a part of what is before
    the *body* of its parent does, the last one only where a brace opens the body.
    """
    if node.type == ":":  # of `public:` in C++
        before = node.prev_sibling
        return before is not None and before.type == "access_specifier"
    if body is None or node.end_byte > body.start_byte:
        return False
    following = node.next_sibling
    opening = body.child(0) if body.child_count else None  # broken syntax leaves empty bodies
    is_last = following is None or following.end_byte > body.start_byte
    return not is_last or (opening is not None and opening.type == "{")


def _line_pieces(text: str, lines: Sequence[int], which: range, size_chars: int) -> list[Piece]:
    """Pieces of plain lines; a blank line belongs to the one before it."""
    pieces: list[Piece] = []
    after_blank = True
    for number in which:
        start, end = lines[number], lines[number + 1]
        blank = not text[start:end].strip()
        if end - start > size_chars:
            pieces.extend(_fragments(text, start, end, number, size_chars))
        elif blank and pieces and end - pieces[-1].start <= size_chars:
            last = pieces[-1]
            pieces[-1] = Piece(last.start, end, last.line, last.depth, last.whole)
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
    """Which definition a run of lines belongs to. *definitions* are in the order of their starts."""

    def __init__(self, definitions: Sequence[Definition]) -> None:
        self._definitions = definitions
        self._starts = [one.start_line for one in definitions]
        self._ends = [one.end_line for one in definitions]
        self._parents: list[int] = []
        open_now: list[int] = []
        for index, one in enumerate(definitions):
            while open_now and definitions[open_now[-1]].end_byte <= one.start_byte:
                open_now.pop()
            self._parents.append(open_now[-1] if open_now else -1)
            open_now.append(index)

    def _innermost(self, line: int) -> int:
        """The last definition that has *line*, -1 if none: what lies between one and its parent has ended."""
        index = bisect_right(self._starts, line) - 1
        while index >= 0 and self._ends[index] < line:
            index = self._parents[index]
        return index

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
        for index in range(bisect_left(self._starts, start), bisect_right(self._starts, end)):
            if self._ends[index] <= end:
                within[index] = self._parents[index] not in within
        return [index for index, outermost in within.items() if outermost]

    def _lines_of(self, index: int) -> int:
        return self._ends[index] - self._starts[index] + 1

    def _around(self, start: int, end: int) -> tuple[int, int]:
        """The innermost definition that has all of the lines, or all from its own first line on; -1 if none.

        Then also the outermost that begins before them and ends in them.
        """
        index, ended = self._innermost(start), -1
        while index >= 0 and self._ends[index] < end:
            if self._starts[index] < start:
                ended = index
            index = self._parents[index]
        if index >= 0:
            return index, ended
        reaching = self._innermost(end)
        while reaching >= 0 and self._ends[reaching] <= end:
            reaching = self._parents[reaching]
        if reaching >= 0 and self._starts[reaching] >= start:
            while (up := self._parents[reaching]) >= 0 and self._starts[up] >= start:
                reaching = up
            return reaching, ended
        return -1, ended


def _tail(text: str, start: int, overlap_chars: int) -> str:
    """The end of what lies before *start*, from the start of a line if there is one in reach."""
    floor = max(0, start - overlap_chars)
    tail = text[floor:start]
    line_end = tail.find("\n")
    if floor > 0 and text[floor - 1] != "\n" and 0 <= line_end < len(tail) - 1:
        tail = tail[line_end + 1 :]
    return tail.strip("\r\n")
