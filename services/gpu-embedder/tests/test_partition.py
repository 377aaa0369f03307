"""The cheapest partition: what it may cost is cheap to say, so a slow search over all partitions agrees."""

from __future__ import annotations

import random
import zlib
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pharos_embedder.partition import DEPTH_MAX, Piece, partition

SIZE = 100
SMALL = SIZE // 4

FEW = pytest.param(250, id="few")
MANY = pytest.param(20_000, id="many", marks=pytest.mark.chaos)


def proven(examples: int) -> settings:
    return settings(max_examples=examples, derandomize=examples <= 1_000, database=None, deadline=None)


@st.composite
def pieces(draw: st.DrawFn, most: int = 30) -> tuple[str, list[Piece]]:
    """A text, and pieces of at most SIZE that tile it; what is whole is of some size."""
    made: list[Piece] = []
    at = 0
    for number in range(draw(st.integers(1, most))):
        size = draw(st.integers(1, SIZE) | st.sampled_from([1, SMALL, SMALL + 1]))
        whole = size >= SMALL and draw(st.booleans())
        made.append(Piece(at, at + size, number, draw(st.integers(0, DEPTH_MAX)), whole))
        at += size
    letters = random.Random(draw(st.integers(0, 2**32))).choices("ab\ncd ", k=at)
    return "".join(letters), made


def forced(made: list[Piece]) -> list[int]:
    """Before which pieces there is always a cut: two things of some size meet there, and one is whole."""
    return [
        number
        for number, (before, piece) in enumerate(pairwise(made), 1)
        if (piece.whole or before.whole) and min(piece.end - piece.start, before.end - before.start) >= SMALL
    ]


def cost(text: str, made: list[Piece], groups: list[tuple[int, int]]) -> float:
    """What a partition costs, written down once more and slowly."""
    total = 0.0
    seams = forced(made)
    for first, after in groups:
        size = made[after - 1].end - made[first].start
        if first:
            letter = zlib.crc32(text[made[first].start : made[first].start + SMALL].encode()) & 0xFF
            total += 0.15 * made[first].depth + 0.15 * letter / 255
        inner = [piece.depth for piece in made[first + 1 : after]]
        following = made[after].depth if after < len(made) else 0
        mixed = bool(inner) and min(inner) < max(made[first].depth, following)
        total += 1 + 0.3 * (size / SIZE) ** 2 + 0.6 * mixed
        total += 10 * sum(first < seam < after for seam in seams)
    return total


def all_partitions(made: list[Piece]) -> list[list[tuple[int, int]]]:
    count = len(made)
    found = []
    for mask in range(1 << (count - 1)):
        cuts = [0, *[at for at in range(1, count) if mask >> (at - 1) & 1], count]
        groups = list(pairwise(cuts))
        if all(made[after - 1].end - made[first].start <= SIZE for first, after in groups):
            found.append(groups)
    return found


@pytest.mark.parametrize("examples", [FEW, MANY])
def test_no_partition_is_cheaper(examples: int) -> None:
    @proven(examples)
    @given(pieces(most=9))
    def prove(given_pieces: tuple[str, list[Piece]]) -> None:
        text, made = given_pieces
        costs = [cost(text, made, groups) for groups in all_partitions(made)]
        assert cost(text, made, partition(text, made, SIZE)) == pytest.approx(min(costs), abs=1e-9)

    prove()


@pytest.mark.parametrize("examples", [FEW, MANY])
def test_a_partition_tiles_cuts_where_it_must_and_leaves_little_that_could_be_joined(examples: int) -> None:
    """Of two neighbours, both have a quarter of the size, or together they have more than the size."""

    @proven(examples)
    @given(pieces())
    def prove(given_pieces: tuple[str, list[Piece]]) -> None:
        text, made = given_pieces
        groups = partition(text, made, SIZE)
        assert groups[0][0] == 0 and groups[-1][1] == len(made)
        assert all(before[1] == after[0] for before, after in pairwise(groups))
        sizes = [made[after - 1].end - made[first].start for first, after in groups]
        assert max(sizes) <= SIZE
        assert set(forced(made)) <= {first for first, _ in groups}
        for size, following in pairwise(sizes):
            assert size + following > SIZE or min(size, following) >= SMALL

    prove()


@pytest.mark.parametrize("examples", [FEW, MANY])
def test_a_forced_cut_parts_what_comes_before_from_what_comes_after(examples: int) -> None:
    """What is put in place of all pieces before the two at such a cut changes no group after it."""

    @proven(examples)
    @given(pieces(), pieces(), st.data())
    def prove(one: tuple[str, list[Piece]], other: tuple[str, list[Piece]], data: st.DataObject) -> None:
        text, made = one
        seams = forced(made)
        if not seams:
            return
        seam = data.draw(st.sampled_from(seams))
        kept = made[seam - 1 :]  # the piece before the cut as well: that there is a cut depends on both
        shift = len(other[0]) - kept[0].start
        moved = [piece._replace(start=piece.start + shift, end=piece.end + shift) for piece in kept]
        edited_text, edited = other[0] + text[kept[0].start :], other[1] + moved
        before = [
            (made[first].start + shift, made[after - 1].end + shift)
            for first, after in partition(text, made, SIZE)
            if first >= seam
        ]
        after_edit = [
            (edited[first].start, edited[after - 1].end)
            for first, after in partition(edited_text, edited, SIZE)
            if edited[first].start >= moved[1].start
        ]
        assert before == after_edit

        kept, there = made[: seam + 1], other[1]
        moved = [
            piece._replace(start=piece.start + kept[-1].end, end=piece.end + kept[-1].end) for piece in there
        ]
        edited_text, edited = text[: kept[-1].end] + other[0], kept + moved
        before = [(first, after) for first, after in partition(text, made, SIZE) if after <= seam]
        after_edit = [
            (first, after) for first, after in partition(edited_text, edited, SIZE) if after <= seam
        ]
        assert before == after_edit

    prove()


def test_the_words_after_a_forced_cut_have_no_say_before_it() -> None:
    """What was found: a cut is drawn by the text that follows it, which reached beyond two short pieces."""
    bounds = [0, 1, 44, 45, 70, 75, 101, 126]
    made = [Piece(start, end, start, 0, end == 126) for start, end in pairwise(bounds)]
    letters = random.Random(0)
    for _ in range(300):
        text = "".join(letters.choices("ab\ncd ", k=126))
        alone, followed = (
            [(first, after) for first, after in partition(text + more, pieces_then, SIZE) if after <= 6]
            for more, pieces_then in (("", made), ("x" * 99, [*made, Piece(126, 225, 9, 0, False)]))
        )
        assert alone == followed
