"""Words of code and prose as sparse vectors, scored by BM25.

A document's vector holds the term-frequency part and a query's vector the inverse document frequency of the
datasets that are searched, so their dot product is BM25 and neither a foreign dataset nor an unpublished
point changes a score. A length is compared with LENGTH_TYPICAL and not with the average of the dataset: so a
document's vector follows from the document alone, and is the same whatever was indexed before it. Formulas:
Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009, with the IDF of
Lucene, which is never negative.
"""

import math
import re
import unicodedata
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import pairwise
from typing import Final, Self

import msgspec

K1: Final = 1.2
B: Final = 0.75
LENGTH_TYPICAL: Final = 160.0  # terms; a chunk of 1,000 characters of code has about this many
DOCUMENT_CHARACTERS_MAX: Final = 200_000  # what lies beyond is not indexed by words
TERM_CHARACTERS_MAX: Final = 64  # longer runs are keys, hashes and base64, which nobody types
LEXICON_TERMS_MAX: Final = 2_000_000  # 16 MB; beyond, the rarest terms go: an unknown term counts as rarest

# fmt: off
STOP_WORDS: Final = frozenset((
    "a", "about", "above", "after", "again", "all", "also", "am", "an", "and", "any", "are", "as", "at", "be",
    "because", "been", "before", "being", "below", "between", "both", "but", "by", "can", "cannot", "could",
    "did", "do", "does", "doing", "down", "during", "each", "few", "for", "from", "further", "had", "has",
    "have", "having", "he", "her", "here", "hers", "him", "his", "how", "i", "if", "in", "into", "is", "it",
    "its", "itself", "just", "me", "more", "most", "my", "no", "nor", "not", "now", "of", "off", "on", "once",
    "only", "or", "other", "our", "ours", "out", "over", "own", "same", "she", "should", "so", "some", "such",
    "than", "that", "the", "their", "theirs", "them", "then", "there", "these", "they", "this", "those",
    "through", "to", "too", "under", "until", "up", "us", "very", "was", "we", "were", "what", "when",
    "where", "which", "while", "who", "whom", "why", "will", "with", "would", "you", "your", "yours",
))
# fmt: on

_WORD = re.compile(r"[^\W_]+(?:[_-]+[^\W_]+)*")  # foo, foo_bar, foo-bar; a dot or slash ends a word
_JOINER = re.compile(r"[_-]+")
_BETWEEN_WORDS: Final = bytes(
    code if chr(code).isalnum() or chr(code) in "_-" else ord(" ") for code in range(128)
) + bytes(128)
"""ASCII with a space for what is in no word: to split there is four times as fast as to look for _WORD."""
_WORDS_KEPT_MAX: Final = 65_536
_KEPT_BYTES_MAX: Final = 256
_PART = re.compile(
    r"[A-Z]{2,}s(?![a-z])"  # URLs
    r"|[A-Z]+(?![a-z])"  # HTTP of HTTPServer: capitals up to, not including, the one that starts a word
    r"|[A-Z]?[a-z]+"  # Server, server
    r"|\d+"
)
_UNSPACED = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"  # kana and ideographs: no spaces between words
_SCRIPT_RUN = re.compile(f"[{_UNSPACED}]+|[^{_UNSPACED}]+")
_IDEOGRAPHS = re.compile(f"[{_UNSPACED}]{{2,}}")
_VOWEL = re.compile(r"[aeiouy]")
_NOT_INFLECTED = frozenset(
    ("alias", "atlas", "bias", "canvas", "embed", "lens")
)  # end like an inflected word


class SparseVector(msgspec.Struct, frozen=True, kw_only=True):
    """Weights by term; `indices` are distinct 32-bit hashes in ascending order."""

    indices: tuple[int, ...]
    values: tuple[float, ...]

    @classmethod
    def of(cls, weights: Mapping[int, float]) -> Self:
        ordered = sorted(weights.items())
        return cls(indices=tuple(term for term, _ in ordered), values=tuple(value for _, value in ordered))

    def __len__(self) -> int:
        return len(self.indices)


def sorted_vector(indices: Sequence[int], values: Sequence[float]) -> SparseVector:
    """The vector of these pairs, in whatever order an engine has them."""
    return SparseVector.of(dict(zip(indices, values, strict=True)))


class Totals(msgspec.Struct, frozen=True):
    """How many documents a dataset has. An earlier release also kept how long they are together."""

    documents: int = 0

    def changed(self, change: "LexiconChange") -> "Totals":
        return Totals(max(0, self.documents + change.documents))


class LexiconChange(msgspec.Struct, frozen=True, kw_only=True):
    """What some documents more and some less change in a lexicon.

    `documents` is how many the change adds, and may be negative; `frequencies` says of each term whose count
    changes by how much.
    """

    documents: int
    frequencies: Mapping[int, int]

    @classmethod
    def of(
        cls, *, added: Iterable[Mapping[int, int]] = (), removed: Iterable[Mapping[int, int]] = ()
    ) -> Self:
        """Documents as `document_terms` gives them; those *removed* were counted in the lexicon."""
        frequencies: Counter[int] = Counter()
        number = 0
        for document in added:
            number += 1
            frequencies.update(document.keys())
        for document in removed:
            number -= 1
            frequencies.subtract(document.keys())
        changed = {term: count for term, count in frequencies.items() if count}
        return cls(documents=number, frequencies=changed)


class Lexicon(msgspec.Struct, frozen=True, kw_only=True):
    """In how many documents of a dataset each term occurs.

    `terms` ascends and `counts` lies parallel to it; eight bytes a term, so that a search process can keep
    many. Two terms with one hash are one term here and in the vectors: at 100,000 distinct terms about one
    pair is expected, and it costs that pair some precision.
    """

    documents: int
    terms: "array[int]"
    counts: "array[int]"

    @classmethod
    def of(cls, documents: Iterable[Mapping[int, int]]) -> Self:
        """The lexicon of *documents*, as `document_terms` gives them; it may be a generator."""
        frequencies: Counter[int] = Counter()
        number = 0
        for document in documents:
            number += 1
            frequencies.update(document.keys())
        return cls.from_frequencies(number, frequencies)

    @classmethod
    def from_frequencies(cls, documents: int, frequencies: Mapping[int, int]) -> Self:
        ordered = sorted(frequencies.items())
        return cls.from_columns(
            documents,
            array("I", (term for term, _ in ordered)),
            array("I", (count for _, count in ordered)),
        )

    @classmethod
    def from_columns(cls, documents: int, terms: "array[int]", counts: "array[int]") -> Self:
        """*terms*, ascending, and in how many documents each is; of more than are kept, the commonest."""
        if len(terms) > LEXICON_TERMS_MAX:
            entries = zip(terms, counts, strict=True)
            kept = sorted(sorted(entries, key=lambda entry: (-entry[1], entry[0]))[:LEXICON_TERMS_MAX])
            terms = array("I", (term for term, _ in kept))
            counts = array("I", (count for _, count in kept))
        return cls(documents=documents, terms=terms, counts=counts)

    @classmethod
    def merged(cls, lexicons: Sequence[Self], *, only: Iterable[int] | None = None) -> Self:
        """One lexicon of several datasets; with *only*, of those terms alone, which is all a query needs."""
        frequencies: Counter[int] = Counter()
        wanted = None if only is None else tuple(only)
        for lexicon in lexicons:
            if wanted is None:
                frequencies.update(dict(lexicon.items()))
            else:
                frequencies.update({term: n for term in wanted if (n := lexicon.frequency(term))})
        return cls.from_frequencies(
            sum(lexicon.documents for lexicon in lexicons),
            frequencies,
        )

    def frequency(self, term: int) -> int:
        """Documents that hold *term*; 0 where it is unknown."""
        at = bisect_left(self.terms, term)
        return self.counts[at] if at < len(self.terms) and self.terms[at] == term else 0

    def items(self) -> Iterator[tuple[int, int]]:
        return zip(self.terms, self.counts, strict=True)

    def idf(self, term: int) -> float:
        """How much *term* tells documents apart, above 0. An unknown term counts as one that occurs once."""
        frequency = min(max(self.frequency(term), 1), max(self.documents, 1))
        return math.log(1 + (self.documents - frequency + 0.5) / (frequency + 0.5)) if self.documents else 1.0


EMPTY_LEXICON: Final = Lexicon(documents=0, terms=array("I"), counts=array("I"))


def tokens(text: str) -> Iterator[str]:
    """The terms of *text* in order: identifiers whole and in parts, words by their stem, no stop words.

    `HTTPServer`, `http_server` and `http-server` all give `httpserver`, `http`, `server`.
    """
    for word in _words(text):
        yield from _of_word(word)


def _words(text: str) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFKC", text[:DOCUMENT_CHARACTERS_MAX]))


class _KnownWords(dict[bytes, bytes]):
    """The hashes of the terms of a word, which may have joiners around it; bounded."""

    def __missing__(self, word: bytes) -> bytes:
        terms = _of_word(word.decode())
        hashes = array("I", map(term_hash, terms)).tobytes()
        if len(word) <= _KEPT_BYTES_MAX:  # a longer one is a key, and comes once
            if len(self) >= _WORDS_KEPT_MAX:
                self.clear()
            self[word] = hashes
        return hashes


_KNOWN_WORDS: Final = _KnownWords()


def _hashed_tokens(text: str) -> bytes:
    """The hash of each of ``tokens(text)``, in order, as numbers of this machine, (T,) u4."""
    if text.isascii():
        words = text[:DOCUMENT_CHARACTERS_MAX].encode().translate(_BETWEEN_WORDS).split()
    else:
        words = [word.encode() for word in _words(text)]
    return b"".join(map(_KNOWN_WORDS.__getitem__, words))


@lru_cache(maxsize=65_536)
def _of_word(word: str) -> tuple[str, ...]:
    if word.isascii():
        parts = _PART.findall(word)
        whole = word.replace("_", "").replace("-", "").lower() if len(parts) > 1 else ""
    else:
        parts = [part for piece in _JOINER.split(word) for part in _parts(piece)]
        whole = ""
    stems = [known for known in map(_telling_stem, parts) if known]
    return tuple(dict.fromkeys([whole, *stems] if 0 < len(whole) <= TERM_CHARACTERS_MAX else stems))


@lru_cache(maxsize=32_768)
def _telling_stem(part: str) -> str:
    """The stem of *part* in lower case; empty where it says nothing alone."""
    folded = part.casefold()
    return stem(folded) if _tells(folded) else ""


def _tells(part: str) -> bool:
    """Whether *part* alone says something; one Latin letter or digit does not, one ideograph does."""
    return (
        len(part) <= TERM_CHARACTERS_MAX and (len(part) > 1 or not part.isascii()) and part not in STOP_WORDS
    )


def _parts(piece: str) -> Iterator[str]:
    """The words inside one identifier; of a script without spaces, its overlapping pairs of letters."""
    if piece.isascii():
        yield from _PART.findall(piece)
        return
    for run in _SCRIPT_RUN.findall(piece):
        if _IDEOGRAPHS.fullmatch(run):
            yield from (first + second for first, second in pairwise(run))
        else:
            yield run


def stem(word: str) -> str:
    """*word* without a plural, -ed or -ing ending, the same for all forms of a regular verb or noun.

    Much lighter than Porter's stemmer, whose -ation and -er rules join words that code keeps apart
    (`parser` and `parse`, `iteration` and `iterator`). The result need not be a word: `cache`, `caches` and
    `caching` are `cach`.
    """
    if not word.isascii() or not word.isalpha():
        return word
    if len(word) > 4 and word.endswith(("ies", "ied")):
        return word[:-3] + "y"
    if word in _NOT_INFLECTED:
        return word
    if len(word) > 2 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    if word in _NOT_INFLECTED:
        return word
    for ending in ("ing", "ed"):
        rest = word.removesuffix(ending)
        if rest != word and len(rest) > 2 and not word.endswith("eed") and _VOWEL.search(rest):
            word = rest
            if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "lsz":
                word = word[:-1]  # running and run, but calling and call
            break
    if len(word) > 4 and word.endswith("ll"):  # cancelled and cancel
        word = word[:-1]
    return word[:-1] if len(word) > 3 and word.endswith("e") else word


@lru_cache(maxsize=262_144)
def term_hash(term: str) -> int:
    """The 32-bit index of *term*: the same in every process, on every machine and in every release."""
    return int.from_bytes(blake2b(term.encode(), digest_size=4).digest(), "big")


def document_terms(text: str, *, path: str = "", symbol: str = "") -> Counter[int]:
    """How often each hashed term occurs in a chunk, the words of its path and symbol among them."""
    hashed = b"".join(map(_hashed_tokens, (text, path, symbol)))
    return Counter(memoryview(hashed).cast("I"))  # counted by the interpreter itself, without a loop here


def document_vector(terms: Mapping[int, int]) -> SparseVector:
    """BM25's term-frequency part of a document of *terms*: each below k1 + 1, less the longer it is."""
    norm = K1 * (1 - B + B * sum(terms.values()) / LENGTH_TYPICAL)
    return SparseVector.of({term: n * (K1 + 1) / (n + norm) for term, n in terms.items()})


def query_vector(query: str, lexicons: Sequence[Lexicon], *, terms_max: int = 64) -> SparseVector:
    """The weight of each term of *query* over the searched datasets; of more than *terms_max*, the rarest.

    Terms that no dataset holds find nothing, or little beyond LEXICON_TERMS_MAX, so they go first. Empty for
    a query of nothing but stop words and punctuation.
    """
    wanted = {term_hash(term) for term in tokens(query)}
    pooled = Lexicon.merged(lexicons, only=wanted)
    rarest = sorted(wanted, key=lambda term: (not pooled.frequency(term), -pooled.idf(term), term))[
        :terms_max
    ]
    return SparseVector.of({term: pooled.idf(term) for term in rarest})


def matched_words(query: str, text: str) -> tuple[str, ...]:
    """The words of *query*, as typed, of which a term occurs in *text*."""
    present = set(tokens(text))
    words = dict.fromkeys(_WORD.findall(unicodedata.normalize("NFKC", query)))
    return tuple(word for word in words if present.intersection(_of_word(word)))
