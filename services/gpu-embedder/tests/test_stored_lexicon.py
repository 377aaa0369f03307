"""A lexicon is stored as parts, each of which says what a generation changed."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pharos_embedder import stored_lexicon
from pharos_embedder.bm25 import EMPTY_LEXICON, LEXICON_TERMS_MAX, Lexicon, Totals
from pharos_embedder.stored_lexicon import (
    HEAD,
    PARTS_MAX,
    Head,
    LexiconPiecesMissing,
    Part,
    PartFacts,
    Piece,
    lexicon_of,
    split,
    to_shards,
    to_text,
)

counts = st.dictionaries(st.integers(0, 2**32 - 1), st.integers(-5, 5).filter(bool), max_size=20)


def pieces_of(generation: int, part: Part) -> list[Piece]:
    return [Piece(generation=generation, name=name, text=text) for name, text in to_shards(part)]


def head_piece(generation: int, head: Head) -> Piece:
    return Piece(generation=generation, name=HEAD, text=to_text(head))


@given(st.lists(counts, min_size=1, max_size=5))
def test_a_sum_of_parts_counts_each_term_as_they_do_together(changes: list[dict[int, int]]) -> None:
    summed = Part.sum([Part.of(change) for change in changes])
    wanted = {
        term: total
        for term in sorted(set().union(*changes))
        if (total := sum(change.get(term, 0) for change in changes))
    }
    assert dict(zip(summed.terms.tolist(), summed.counts.tolist(), strict=True)) == wanted
    assert summed.terms.tolist() == list(wanted)


@given(st.lists(st.integers(0, 5_000), max_size=200))
def test_there_are_few_parts_and_each_is_more_than_twice_the_next(sizes: list[int]) -> None:
    parts: tuple[PartFacts, ...] = ()
    for generation, size in enumerate(sizes, 1):
        kept, taken = split(parts, size)
        assert (*kept, *taken) == parts
        parts = (*kept, PartFacts(generation, size + sum(part.terms for part in taken)))
        assert all(older.terms > 2 * newer.terms for older, newer in pairwise(parts))
    assert len(parts) <= sum(sizes).bit_length() + 1


def test_the_largest_lexicon_has_fewer_parts_than_are_read() -> None:
    assert LEXICON_TERMS_MAX.bit_length() < PARTS_MAX


def test_a_change_of_few_terms_leaves_the_large_part_alone() -> None:
    base = PartFacts(1, 50_000)
    assert split([base], 100) == ((base,), ())
    assert split([base], 30_000) == ((), (base,))


def test_a_long_series_of_small_changes_writes_a_term_few_times() -> None:
    parts, written, changes = (PartFacts(1, 50_000),), 0, 1_000
    for generation in range(2, changes + 2):
        kept, taken = split(parts, 20)
        parts = (*kept, PartFacts(generation, 20 + sum(part.terms for part in taken)))
        written += parts[-1].terms
    assert written < 20 * changes * 12


def test_a_whole_part_has_no_counts_below_one_and_the_most_frequent_terms(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stored_lexicon, "LEXICON_TERMS_MAX", 2)
    whole = Part.of({5: 1, 4: 3, 3: -2, 2: 1, 1: 7}).whole()
    assert (whole.terms.tolist(), whole.counts.tolist()) == ([1, 4], [7, 3])


def test_a_lexicon_comes_back_in_shards_and_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_lexicon, "SHARD_TERMS", 2)
    base, change = Part.of({1: 4, 2: 1, 2**32 - 1: 9}), Part.of({2: -1, 7: 2})
    head = Head(totals=Totals(9), parts=(PartFacts(3, 3), PartFacts(5, 2)))
    pieces = [*pieces_of(5, change), head_piece(5, head), *pieces_of(3, base)]
    assert len(pieces) == 4
    assert lexicon_of(pieces) == Lexicon.from_frequencies(9, {1: 4, 7: 2, 2**32 - 1: 9})
    assert lexicon_of([]) == EMPTY_LEXICON


@pytest.mark.parametrize("missing", range(4))
def test_a_lexicon_of_which_something_is_gone_is_none(monkeypatch: pytest.MonkeyPatch, missing: int) -> None:
    monkeypatch.setattr(stored_lexicon, "SHARD_TERMS", 2)
    base, change = Part.of({1: 4, 2: 1, 3: 9}), Part.of({2: -1})
    head = Head(totals=Totals(9), parts=(PartFacts(3, 3), PartFacts(5, 1)))
    pieces = [*pieces_of(3, base), *pieces_of(5, change), head_piece(5, head)]
    del pieces[missing]
    with pytest.raises(LexiconPiecesMissing):
        lexicon_of(pieces)


def test_what_an_earlier_release_stored_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_lexicon, "SHARD_TERMS", 2)
    texts = (
        '{"documents":3,"total_length":12,"terms":"AQAAAAIAAAA=","counts":"AwAAAAEAAAA="}',
        '{"documents":3,"total_length":12,"terms":"/////w==","counts":"AgAAAA=="}',
    )
    pieces = [Piece(generation=4, name=f"{n:04d}", text=text) for n, text in enumerate(texts)]
    assert lexicon_of(pieces) == Lexicon.from_frequencies(3, {1: 3, 2: 1, 2**32 - 1: 2})
    head, _ = stored_lexicon.read(pieces)
    assert head == Head(totals=Totals(3), parts=(PartFacts(4, 3),))
