"""What holds of the chunks of any text, in any language, at any size: made-up texts, and real files that were
damaged. `make chaos` tries many more of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tree_sitter import Node

from pharos_embedder.languages import PARSED_LANGUAGES, grammar_of
from pharos_embedder.parsing import parse
from pharos_embedder.syntax import Chunk, Definition, ParsedFile, ParseOptions
from pharos_embedder.text_encoding import decode
from tests.support.chunking_texts import Case, cases, edited, files, functions, places

FEW = pytest.param(250, id="few")
MANY = pytest.param(2_000, id="many", marks=[pytest.mark.chaos, pytest.mark.timeout(1_800)])


class Cut(NamedTuple):
    """A case that was cut: `text` is what was read of it, `places` are the offsets of its chunks."""

    source: bytes
    text: str
    options: ParseOptions
    parsed: ParsedFile
    places: list[tuple[int, int]]

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        return self.parsed.chunks


def cut(case: Case) -> Cut:
    source = case.text.encode()
    text = decode(source)
    if text is None:  # so odd that it is taken for binary
        return cut(case._replace(text=""))
    parsed = parse("some/folder/file", case.language, source, case.options)
    return Cut(source, text, case.options, parsed, places(text, parsed.chunks))


def line_starts(text: str) -> list[int]:
    """Where each line starts, and where one after the last would."""
    lines = text.split("\n")
    return [0, *accumulate(len(line) + 1 for line in lines)]


def holds(examples: int, of: Callable[[Cut], None]) -> None:
    """*of* is checked for many cases; the few of every run are the same few each time."""

    @settings(
        max_examples=examples,
        derandomize=examples <= 1_000,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(cases())
    def prove(case: Case) -> None:
        of(cut(case))

    prove()


@pytest.mark.parametrize("examples", [FEW, MANY])
def test_every_line_is_in_exactly_one_chunk_and_chunks_are_the_lines_that_they_name(examples: int) -> None:
    """A line longer than a chunk is in several; white space between chunks is in none."""

    def check(one: Cut) -> None:
        starts = line_starts(one.text)
        limit = one.options.size_chars
        for number, (chunk, (start, end)) in enumerate(zip(one.chunks, one.places, strict=True)):
            assert chunk.ordinal == number and chunk.text.strip()
            assert starts[chunk.start_line - 1] <= start < starts[chunk.start_line]
            assert starts[chunk.end_line - 1] < end <= starts[chunk.end_line]
            for line, bound in ((chunk.start_line, start), (chunk.end_line, end)):
                first, after = starts[line - 1], min(starts[line], len(one.text))
                whole = bound in (first, after)
                assert whole or after - first > limit, "only a line that is too long is cut"

    holds(examples, check)


@pytest.mark.parametrize("examples", [FEW, MANY])
def test_no_chunk_is_above_its_size_and_few_are_small(examples: int) -> None:
    """Of two neighbours each has a quarter of the size, or together they have more than the size.

    So no two small ones are neighbours, and chunks have a quarter of the size on average at least.
    """

    def check(one: Cut) -> None:
        size = one.options.size_chars
        assert all(len(chunk.text) <= size for chunk in one.chunks)
        for (start, middle), (again, end) in pairwise(one.places):
            if middle == again:
                assert min(middle - start, end - again) >= size // 4 or end - start > size

    holds(examples, check)


@pytest.mark.parametrize("examples", [FEW, MANY])
def test_what_is_encoded_is_the_text_after_no_more_of_what_is_before_it_than_the_overlap(
    examples: int,
) -> None:
    def check(one: Cut) -> None:
        for chunk, (start, _) in zip(one.chunks, one.places, strict=True):
            assert len(chunk.context) <= one.options.overlap_chars
            assert one.text[:start].rstrip("\r\n").endswith(chunk.context)
            encoded = f"{chunk.context}\n{chunk.text}" if chunk.context else chunk.text
            assert chunk.encoded_text == encoded
            assert chunk.content_hash == hashlib.blake2b(encoded.encode(), digest_size=16).hexdigest()

    holds(examples, check)


@pytest.mark.parametrize("examples", [FEW, MANY])
def test_the_same_text_gives_the_same_chunks_wherever_it_lies(examples: int) -> None:
    def check(one: Cut) -> None:
        again = parse("other/name", one.parsed.language, one.source, one.options)
        assert [msgspec.structs.replace(chunk, path=one.parsed.path) for chunk in again.chunks] == list(
            one.chunks
        ), "and the same hashes, so a file that is moved keeps its vectors"

    holds(examples, check)


@pytest.mark.parametrize("examples", [FEW, MANY])
def test_a_chunk_has_the_symbol_that_a_slow_search_finds(examples: int) -> None:
    def check(one: Cut) -> None:
        definitions = one.parsed.definitions
        for chunk in one.chunks:
            blank = chunk.text[: len(chunk.text) - len(chunk.text.lstrip())].count("\n")
            first = chunk.start_line + blank
            last = first + chunk.text.strip().count("\n")
            owner = slow_owner(definitions, first, last)
            assert (chunk.symbol, chunk.kind) == ((owner.symbol, owner.kind) if owner else ("", ""))
            sharing = [each for each in definitions if each.start_line <= last and each.end_line >= first]
            assert (owner in sharing) if sharing else owner is None
            assert owner is None or owner.docstring.startswith(chunk.docstring)

    holds(examples, check)


def slow_owner(definitions: Sequence[Definition], first: int, last: int) -> Definition | None:
    """Whose the lines *first* to *last* are, by looking at every definition.

    That which is around all of them; or else the outermost that begins in them and goes on after them. But
    one that lies within them has the name if it is the only one, or the most of the lines, or there is
    nothing around. Where all that is left is the end of one, that.
    """

    def parent(one: Definition) -> Definition | None:
        before = definitions[: definitions.index(one)]
        return next((each for each in reversed(before) if each.end_byte > one.start_byte), None)

    def length(one: Definition) -> int:
        return one.end_line - one.start_line + 1

    around = [one for one in definitions if one.start_line <= first and one.end_line >= last]
    begun = [one for one in definitions if first <= one.start_line <= last < one.end_line]
    within = [one for one in definitions if one.start_line >= first and one.end_line <= last]
    outermost = [one for one in within if parent(one) not in within]
    outer = around[-1] if around else None
    if outer is not None and outer.start_line == first:
        return outer
    if outer is None and begun:
        return begun[0]
    if outermost:
        largest = max(outermost, key=length)
        if outer is None or len(outermost) == 1 or 2 * length(largest) > last - first + 1:
            return largest
    ended = [one for one in definitions if one.start_line < first <= one.end_line < last]
    return outer or (ended[0] if ended else None)


@pytest.mark.parametrize("examples", [FEW, MANY])
def test_comments_go_with_the_definition_on_the_next_line(examples: int) -> None:
    """Where both fit a chunk, and nothing else is on their lines."""
    telling = 0

    def check(one: Cut) -> None:
        nonlocal telling
        if one.parsed.has_errors:
            return
        source = one.text.encode()
        at = characters_at(source)
        inner = [(each.start_byte, each.end_byte) for each in one.parsed.definitions]
        for start, end in commented(one, inner):
            first = one.text.rfind("\n", 0, at[start]) + 1
            after = (one.text.find("\n", at[end]) + 1) or len(one.text)
            alone = not one.text[first : at[start]].strip() and not one.text[at[end] : after].strip()
            if alone and after - first <= one.options.size_chars:
                assert any(begin <= first and at[end] <= stop for begin, stop in one.places)
                telling += 1

    holds(examples, check)
    assert telling > examples // 20


def commented(one: Cut, definitions: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Bytes from the first of the comments just above a definition to its end."""
    found: list[tuple[int, int]] = []
    root = tree(one) if one.parsed.language in PARSED_LANGUAGES else None
    for start, end in definitions if root is not None else ():
        node = root.descendant_for_byte_range(start, end)
        while node is not None and node.parent is not None and node.parent.byte_range == node.byte_range:
            node = node.parent
        before = node
        while (
            before is not None
            and (comment := before.prev_sibling) is not None
            and "comment" in comment.type
            and last_row(comment) + 1 == before.start_point.row
        ):
            before = comment
        if node is not None and before is not None and before is not node:
            found.append((before.start_byte, end))
    return found


def last_row(node: Node) -> int:
    row, column = node.end_point
    return row - (column == 0 and row > node.start_point.row)


def tree(one: Cut) -> Node:
    """The root of its syntax tree."""
    parser = grammar_of(one.parsed.language).parser
    parser.reset()
    return parser.parse(one.text.encode()).root_node


@pytest.mark.parametrize("examples", [FEW, MANY])
def test_an_edit_changes_no_chunk_beyond_two_whole_definitions(examples: int) -> None:
    """Two definitions of at least a quarter of the size and at most the size, with nothing between them but
    blank lines, that the syntax tree of the edited file has as before: no chunk that begins with the second
    of them or later is another for an edit before them, and none that ends with the first of them or earlier
    for an edit after them.
    """
    telling = 0

    @settings(
        max_examples=examples,
        derandomize=examples <= 1_000,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given((functions() | files()).flatmap(lambda case: st.tuples(st.just(case), edited(case.text))))
    def prove(edit: tuple[Case, str]) -> None:
        nonlocal telling
        case, text = edit
        before, after = cut(case), cut(case._replace(text=text))
        seams = whole_pairs(before)
        same_first, same_last = unchanged(before, after)
        moved = len(after.text) - len(before.text)
        for seam in [seam for seam in seams if seam[0] >= len(before.text) - same_last][:1]:
            assert hashes(before, seam[1], len(before.text)) == hashes(
                after, seam[1] + moved, len(after.text)
            )
            telling += 1
        for seam in [seam for seam in seams if seam[2] <= same_first][-1:]:
            assert hashes(before, 0, seam[1]) == hashes(after, 0, seam[1])
            telling += 1

    prove()
    assert telling > examples // 4


def hashes(one: Cut, start: int, end: int) -> list[str]:
    """Of the chunks between two offsets; no chunk lies across one of them."""
    found = []
    for chunk, (first, after) in zip(one.chunks, one.places, strict=True):
        assert after <= start or first >= start, "there is a cut"
        assert after <= end or first >= end, "there is a cut"
        if start <= first and after <= end:
            found.append(chunk.content_hash)
    return found


def unchanged(before: Cut, after: Cut) -> tuple[int, int]:
    """How many characters at the start and at the end of both lie in equal children of the trees' roots."""
    ours, theirs = children(before), children(after)
    first = 0
    for (start, end, what), other in zip(ours, theirs, strict=False):
        if (start, end, what) != other or before.text[start:end] != after.text[start:end]:
            break
        first = end
    last = len(before.text)
    moved = len(after.text) - len(before.text)
    for (start, end, what), (there, until, other) in zip(ours[::-1], theirs[::-1], strict=False):
        same = before.text[start:] == after.text[there:]
        if not same or what != other or (start + moved, end + moved) != (there, until):
            break
        last = start
    return first, len(before.text) - last


def children(one: Cut) -> list[tuple[int, int, str]]:
    """Offsets and structure of each child of the root."""
    at = characters_at(one.text.encode())
    return [(at[node.start_byte], at[node.end_byte], str(node)) for node in tree(one).children]


def characters_at(source: bytes) -> list[int]:
    """How many characters start before each byte."""
    return [0, *accumulate(int(byte & 0xC0 != 0x80) for byte in source)]


def whole_pairs(one: Cut) -> list[tuple[int, int, int]]:
    """(start of the first, start of the second, end of the second) of definitions as the test above names
    them, each a child of the root."""
    small, large = one.options.size_chars // 4, one.options.size_chars
    at = characters_at(one.text.encode())
    top = {(start, end) for start, end, _ in children(one)}
    spans = [
        (at[each.start_byte], at[each.end_byte])
        for each in one.parsed.definitions
        if (at[each.start_byte], at[each.end_byte]) in top
    ]
    bounds = [(0, 0), *spans, (len(one.text), len(one.text))]
    whole = [
        end - start >= small and following - ended <= large
        for (_, ended), (start, end), (following, _) in zip(bounds, bounds[1:], bounds[2:], strict=False)
    ]
    return [
        (first[0], second[0], second[1])
        for number, (first, second) in enumerate(pairwise(spans))
        if whole[number] and whole[number + 1]
        if "\n" in (between := one.text[first[1] : second[0]]) and not between.strip()
    ]
