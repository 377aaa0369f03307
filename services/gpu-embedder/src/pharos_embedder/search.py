"""Search over published datasets: a query in, files with their best chunks and reasons out.

Nothing here writes, and nothing knows which generations are live: the selection says so.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, Literal

import msgspec
import numpy as np

from pharos_contracts.search.v1 import LineSpan
from pharos_embedder.bm25 import Lexicon, SparseVector, matched_words, query_vector
from pharos_embedder.fusion import Channel, FoundFile, Reason, fuse
from pharos_embedder.vectors import (
    HITS_MAX,
    DatasetKey,
    DocumentFacts,
    Floats,
    Hit,
    Searched,
    Selection,
    VectorReader,
)

QUERY_CHARACTERS_MAX: Final = 4_000  # the rest is cut off, and the answer says so
RESULTS_MAX: Final = 100
CANDIDATES_MIN: Final = 100  # chunks a channel, so that a file's best three are among them
CANDIDATES_PER_RESULT: Final = 10
OTHER_CHUNKS_MAX: Final = 2
LEXICONS_MAX: Final = 512
LEXICON_CACHE_TERMS: Final = 8_000_000  # 64 MB

Mode = Literal["hybrid", "dense", "lexical"]


class InvalidQuery(ValueError):
    """The query cannot be answered as it stands; the text says what to change."""


class UnknownFile(LookupError):
    """The file is not in the dataset, or has no structural vector."""


class SearchQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What to look for and where. `threshold` leaves out results whose final score is below it.

    `dense` and `lexical` use one channel; a dataset without dense vectors is searched by words in every mode.
    """

    text: str
    selection: Selection
    k: int = 10
    mode: Mode = "hybrid"
    threshold: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.k <= RESULTS_MAX:
            raise InvalidQuery(f"k must be from 1 to {RESULTS_MAX}, not {self.k}")
        if self.mode not in ("hybrid", "dense", "lexical"):
            raise InvalidQuery(f"mode must be hybrid, dense or lexical, not {self.mode!r}")
        if not 0 <= self.threshold <= 1:
            raise InvalidQuery(f"threshold must be from 0 to 1, not {self.threshold}")
        if not cleaned(self.text):
            raise InvalidQuery("the query is empty")


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    """`dense` and `structural` are cosines, `sparse` a BM25 sum; None where that channel did not find it.

    `final` is in (0, 1]: 1 for a file that is first in every ranking. It orders results of one answer and is
    not to be compared between answers. Of `related` it is the cosine.
    """

    dense: float | None = None
    sparse: float | None = None
    structural: float | None = None
    final: float


class SearchResult(msgspec.Struct, frozen=True, kw_only=True):
    """One file, shown by its best chunk. Lines count from 1 and are inclusive."""

    id: str
    dataset: DatasetKey
    path: str
    text: str
    start_line: int
    end_line: int
    symbol: str
    kind: str  # of the symbol: function, class, ...
    language: str
    repository: str
    scores: Scores
    highlights: tuple[str, ...] = ()  # the words of the query that the chunk holds, as typed
    other_chunks: tuple[LineSpan, ...] = ()  # at most OTHER_CHUNKS_MAX more of this file
    reasons: tuple[Reason, ...] = ()
    document: DocumentFacts | None = None


class SearchMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """What was done: asked and answered may differ, and this is where it shows."""

    mode: Mode
    datasets: int
    lexical_only: tuple[DatasetKey, ...] = ()  # not yet searchable by meaning
    query_cut: bool = False
    words_searched: int = 0  # 0: nothing but stop words, so the words found nothing
    dense_candidates: int = 0
    sparse_candidates: int = 0


class SearchAnswer(msgspec.Struct, frozen=True, kw_only=True):
    results: tuple[SearchResult, ...]
    metadata: SearchMetadata


class RelatedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file near another one in the graph of references and imports."""

    dataset: DatasetKey
    path: str
    language: str
    repository: str
    scores: Scores


class LexiconCache:
    """The lexicons used last. A published generation's lexicon never changes, so nothing is invalidated."""

    def __init__(
        self, store: VectorReader, *, lexicons_max: int = LEXICONS_MAX, terms_max: int = LEXICON_CACHE_TERMS
    ) -> None:
        self._store = store
        self._lexicons_max = lexicons_max
        self._terms_max = terms_max
        self._kept: OrderedDict[tuple[DatasetKey, int], Lexicon] = OrderedDict()
        self._terms = 0
        self._lock = threading.Lock()

    def of(self, dataset: DatasetKey, generation: int) -> Lexicon:
        key = (dataset, generation)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        lexicon = self._store.lexicon(dataset, generation)  # unlocked: two threads may read it twice, no harm
        if lexicon.documents:  # an empty one may be a dataset whose words are still being stored
            self._keep(key, lexicon)
        return lexicon

    def _keep(self, key: tuple[DatasetKey, int], lexicon: Lexicon) -> None:
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = lexicon
            self._terms += len(lexicon.terms)
            while len(self._kept) > 1 and (
                len(self._kept) > self._lexicons_max or self._terms > self._terms_max
            ):
                _, oldest = self._kept.popitem(last=False)
                self._terms -= len(oldest.terms)

    def __len__(self) -> int:
        return len(self._kept)


class SearchEngine:
    """Search and related files. Blocking and thread-safe, as far as *encode_query* is."""

    def __init__(
        self,
        store: VectorReader,
        encode_query: Callable[[str], Floats],
        *,
        lexicons: LexiconCache | None = None,
    ) -> None:
        """*encode_query* gives the vector (D,) of a text; what it raises, `search` raises."""
        self._store = store
        self._encode_query = encode_query
        self._lexicons = lexicons or LexiconCache(store)

    def search(self, query: SearchQuery) -> SearchAnswer:
        text = cleaned(query.text)
        cut, text = len(text) > QUERY_CHARACTERS_MAX, text[:QUERY_CHARACTERS_MAX]
        candidates = min(HITS_MAX, max(CANDIDATES_MIN, CANDIDATES_PER_RESULT * query.k))
        by_meaning, by_words = channels_of(query)

        words = self._words(text, by_words)
        channels: dict[Channel, list[Hit]] = {"dense": [], "sparse": []}
        if words:
            channels["sparse"] = self._store.sparse(words, by_words, candidates)
        if by_meaning.datasets:
            vector = np.asarray(self._encode_query(text), dtype=np.float32)
            channels["dense"] = self._store.dense(vector, by_meaning, candidates)

        files = [file for file in fuse(channels)[: query.k] if file.score >= query.threshold]
        return SearchAnswer(
            results=tuple(_result(file, text) for file in files),
            metadata=SearchMetadata(
                mode=query.mode,
                datasets=len(query.selection.datasets),
                lexical_only=tuple(d.dataset for d in query.selection.datasets if not d.has_dense),
                query_cut=cut,
                words_searched=len(words),
                dense_candidates=len(channels["dense"]),
                sparse_candidates=len(channels["sparse"]),
            ),
        )

    def _words(self, text: str, selection: Selection) -> SparseVector:
        lexicons = [self._lexicons.of(d.dataset, d.generation) for d in selection.datasets]
        return query_vector(text, lexicons)

    def related(self, dataset: Searched, path: str, k: int = 10) -> tuple[RelatedFile, ...]:
        """The *k* files of the dataset nearest to *path* in the graph, without itself; raises UnknownFile."""
        if not 1 <= k <= RESULTS_MAX:
            raise InvalidQuery(f"k must be from 1 to {RESULTS_MAX}, not {k}")
        vector = self._store.file_vector(dataset.dataset, dataset.generation, path)
        if vector is None:
            raise UnknownFile(f"{path!r} has no place in the graph of this dataset")
        hits = self._store.structure(vector, Selection(datasets=(dataset,)), k + 1)
        others = [hit for hit in hits if hit.payload.path != path]
        return tuple(
            RelatedFile(
                dataset=hit.payload.dataset,
                path=hit.payload.path,
                language=hit.payload.language,
                repository=hit.payload.repository,
                scores=Scores(structural=hit.score, final=max(0.0, min(1.0, hit.score))),
            )
            for hit in others[:k]
        )


def cleaned(text: str) -> str:
    """*text* with control characters as spaces and without space around it."""
    return "".join(letter if letter.isprintable() else " " for letter in text).strip()


def channels_of(query: SearchQuery) -> tuple[Selection, Selection]:
    """Which datasets to search by meaning and which by words."""
    selection = query.selection
    nothing = msgspec.structs.replace(selection, datasets=())
    match query.mode:
        case "lexical":
            return nothing, selection
        case "hybrid":
            return selection.with_dense(), selection
        case "dense":
            wordy = tuple(d for d in selection.datasets if not d.has_dense)
            return selection.with_dense(), msgspec.structs.replace(selection, datasets=wordy)


def _result(file: FoundFile, query: str) -> SearchResult:
    best = file.chunks[0]
    payload = best.hit.payload
    return SearchResult(
        id=best.hit.id,
        dataset=file.dataset,
        path=file.path,
        text=payload.text,
        start_line=payload.start_line,
        end_line=payload.end_line,
        symbol=payload.symbol,
        kind=payload.symbol_kind,
        language=payload.language,
        repository=payload.repository,
        scores=Scores(dense=best.scores.get("dense"), sparse=best.scores.get("sparse"), final=file.score),
        highlights=matched_words(query, payload.text),
        other_chunks=_spans([chunk.hit for chunk in file.chunks[1 : 1 + OTHER_CHUNKS_MAX]]),
        reasons=file.reasons,
        document=payload.document,
    )


def _spans(hits: Sequence[Hit]) -> tuple[LineSpan, ...]:
    return tuple(LineSpan(start=hit.payload.start_line, end=hit.payload.end_line) for hit in hits)
