"""The lexicon of a dataset as it is stored: parts that generations add, and a head that names them. Pure.

A generation that changes few documents must not cost the words of all of them. So it stores a part, in which
stands by how much each term's count changed, and the lexicon of a generation is the sum of the parts that it
sees. To keep these few, a new part takes in the newest ones before it as long as they are not more than twice
its size: then each is more than twice the size of the next newer one, there are no more of them than the
number of terms has bits, and a term is written about as often. (The logarithmic method of Bentley and Saxe,
"Decomposable Searching Problems I", Journal of Algorithms 1, 1980; log-structured merge trees do the same.)
"""

from __future__ import annotations

from array import array
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Self

import msgspec
import numpy as np
import numpy.typing as npt

from pharos_embedder.bm25 import EMPTY_LEXICON, LEXICON_TERMS_MAX, Lexicon, Totals

SHARD_TERMS: Final = 50_000  # 8 bytes a term, 530 kB of base64 a point
PARTS_MAX: Final = 32  # more than the bits of LEXICON_TERMS_MAX
# The oldest part has as many terms as a lexicon at most, and the others together fewer than that.
POINTS_MAX: Final = 2 * LEXICON_TERMS_MAX // SHARD_TERMS + PARTS_MAX + 1
HEAD: Final = "head"
"""What a head is called among the points of a generation; shards are called by their number."""


class LexiconPiecesMissing(Exception):
    """Not all of a lexicon is there: it is being taken away."""


class PartFacts(msgspec.Struct, frozen=True, array_like=True):
    """The part that came with ``generation``, and how many terms it has."""

    generation: int
    terms: int


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The totals of a dataset and the parts of its lexicon, the oldest first. JSON in the text of a point."""

    totals: Totals
    parts: tuple[PartFacts, ...]


NO_HEAD: Final = Head(totals=Totals(), parts=())


class Part(msgspec.Struct, frozen=True, eq=False):
    """By how much counts change: (N,) ascending terms and (N,) counts, none of them 0."""

    terms: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, frequencies: Mapping[int, int]) -> Self:
        number = len(frequencies)
        terms = np.fromiter(frequencies.keys(), dtype=np.int64, count=number)
        counts = np.fromiter(frequencies.values(), dtype=np.int64, count=number)
        order = np.argsort(terms)
        return cls(terms[order], counts[order])

    @classmethod
    def of_lexicon(cls, lexicon: Lexicon) -> Self:
        return cls(np.asarray(lexicon.terms, dtype=np.int64), np.asarray(lexicon.counts, dtype=np.int64))

    @classmethod
    def sum(cls, parts: Sequence[Part]) -> Self:
        """One part that does what *parts* do together."""
        terms = np.concatenate([part.terms for part in parts])
        counts = np.concatenate([part.counts for part in parts])
        if not len(terms):
            return cls(terms, counts)
        order = np.argsort(terms, kind="stable")
        terms = terms[order]
        first = np.flatnonzero(np.diff(terms, prepend=-1))
        sums = np.add.reduceat(counts[order], first)
        there = sums != 0
        return cls(terms[first][there], sums[there])

    def whole(self) -> Self:
        """A part before which there is none: a count below 1 is none, and beyond LEXICON_TERMS_MAX the
        rarest terms go. What had gone earlier may be taken away later, hence counts below 0.
        """
        there = np.flatnonzero(self.counts > 0)
        if len(there) > LEXICON_TERMS_MAX:
            rarest_last = np.lexsort((self.terms[there], -self.counts[there]))
            there = np.sort(there[rarest_last[:LEXICON_TERMS_MAX]])
        return type(self)(self.terms[there], self.counts[there])


def split(parts: Sequence[PartFacts], terms: int) -> tuple[tuple[PartFacts, ...], tuple[PartFacts, ...]]:
    """(those of *parts* that stay, the newest ones, which a new part of that many *terms* takes in)."""
    kept, size = len(parts), max(terms, 1)
    while kept and parts[kept - 1].terms <= 2 * size:
        kept -= 1
        size += parts[kept].terms
    return tuple(parts[:kept]), tuple(parts[kept:])


def to_shards(part: Part) -> Iterator[tuple[str, str]]:
    """(name, text) of each of the points in which *part* is stored, at least one."""
    for number, start in enumerate(range(0, max(1, len(part.terms)), SHARD_TERMS)):
        shard = slice(start, start + SHARD_TERMS)
        stored = _Shard(terms=_packed(part.terms[shard], "<u4"), counts=_packed(part.counts[shard], "<i4"))
        yield f"{number:04d}", msgspec.json.encode(stored).decode()


def to_text(head: Head) -> str:
    return msgspec.json.encode(head).decode()


def head_of(text: str) -> Head:
    return msgspec.json.decode(text, type=Head)


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """A point of a lexicon: with which generation it came, what it is called there, and its text."""

    generation: int
    name: str
    text: str


def shards_of(head: Head) -> int:
    """In how many points the parts of a lexicon are stored."""
    return sum(_shards(each) for each in head.parts)


def _shards(part: PartFacts) -> int:
    return max(1, -(-part.terms // SHARD_TERMS))


def lexicon_of(pieces: Iterable[Piece]) -> Lexicon:
    """The lexicon of a generation, of all the *pieces* that it sees. Raises LexiconPiecesMissing."""
    head, parts = read(pieces)
    if not parts:
        return EMPTY_LEXICON
    part = Part.sum(parts).whole()
    return Lexicon(
        documents=head.totals.documents,
        terms=_array(part.terms),
        counts=_array(part.counts),
    )


def read(pieces: Iterable[Piece]) -> tuple[Head, list[Part]]:
    """The head that a generation sees, and its parts, the oldest first. Raises LexiconPiecesMissing."""
    heads: list[Piece] = []
    shards: list[Piece] = []
    for piece in pieces:
        (heads if piece.name == HEAD else shards).append(piece)
    if heads:
        head = head_of(heads[0].text)
    elif shards:
        head = _head_of_shards(shards)
    else:
        head = NO_HEAD
    return head, parts_of(head.parts, shards)


def parts_of(facts: Sequence[PartFacts], pieces: Iterable[Piece]) -> list[Part]:
    """The parts that *facts* name, in their order, of those *pieces*. Raises LexiconPiecesMissing."""
    texts: dict[int, dict[str, str]] = {}
    for piece in pieces:
        texts.setdefault(piece.generation, {})[piece.name] = piece.text
    found = []
    for fact in facts:
        names = (f"{number:04d}" for number in range(_shards(fact)))
        try:
            found.append(_part([_shard(texts[fact.generation][name]) for name in names]))
        except KeyError as error:
            raise LexiconPiecesMissing from error
    return found


class _Shard(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A piece of a part, as JSON in the text of a point; the two lists are little-endian 32-bit integers.

    A release that knew no parts stored the whole lexicon without a head, and the totals in each shard.
    """

    terms: str  # base64
    counts: str
    documents: int | None = None


def _shard(text: str) -> _Shard:
    return msgspec.json.decode(text, type=_Shard)


def _part(shards: Sequence[_Shard]) -> Part:
    return Part(
        np.concatenate([_unpacked(shard.terms, "<u4") for shard in shards]),
        np.concatenate([_unpacked(shard.counts, "<i4") for shard in shards]),
    )


def _head_of_shards(pieces: Sequence[Piece]) -> Head:
    """The head of what an earlier release stored, in one generation."""
    shards = [_shard(piece.text) for piece in pieces]
    documents = shards[0].documents
    if documents is None:
        raise LexiconPiecesMissing  # of newer parts the head is gone
    return Head(
        totals=Totals(documents),
        parts=(PartFacts(pieces[0].generation, sum(len(_unpacked(each.terms, "<u4")) for each in shards)),),
    )


def _packed(values: npt.NDArray[np.int64], form: str) -> str:
    return b64encode(values.astype(form).tobytes()).decode()


def _unpacked(text: str, form: str) -> npt.NDArray[np.int64]:
    return np.frombuffer(b64decode(text), dtype=form).astype(np.int64)


def _array(values: npt.NDArray[np.int64]) -> array[int]:
    found = array("I")
    found.frombytes(values.astype(np.uint32).tobytes())
    return found
