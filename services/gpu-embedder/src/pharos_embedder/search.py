"""Search over published datasets: a query in, files with their best chunks and reasons out.

Nothing here writes, and nothing knows which generations are live: the selection says so.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

import msgspec
import numpy as np

from pharos_contracts.search.v1 import LineSpan
from pharos_embedder.bm25 import Lexicon, SparseVector, matched_words, query_vector
from pharos_embedder.fusion import Channel, FoundFile, Reason, fuse
from pharos_embedder.generation_cache import GenerationCache
from pharos_embedder.relating import RelatedFile, relate
from pharos_embedder.stored_graph import StoredGraph
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
GRAPHS_MAX: Final = 64
GRAPH_CACHE_BYTES: Final = 128 << 20
DEFINING_SHOWN_MAX: Final = 5
SHOWN_CHARACTERS: Final = 200  # of what was asked, in an error

Mode = Literal["hybrid", "dense", "lexical"]


class InvalidQuery(ValueError):
    """The query cannot be answered as it stands; the text says what to change."""


class UnknownFile(LookupError):
    """The file, or one that defines the symbol, is not in the dataset."""


class NoGraph(LookupError):
    """The generation was stored without its graph."""

    def __init__(self) -> None:
        super().__init__(
            "This index has no graph: an earlier release made it, or the graph is too large to be kept. "
            "Index the repository again, with force"
        )


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
    not to be compared between answers.
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


def lexicon_cache(
    store: VectorReader, *, number_max: int = LEXICONS_MAX, terms_max: int = LEXICON_CACHE_TERMS
) -> GenerationCache[Lexicon]:
    """The lexicons used last."""
    return GenerationCache(
        store.lexicon, lambda lexicon: len(lexicon.terms), number_max=number_max, size_max=terms_max
    )


class SearchEngine:
    """Search and related files. Blocking and thread-safe, as far as *encode_queries* is."""

    def __init__(
        self,
        store: VectorReader,
        encode_queries: Callable[[Sequence[str]], Floats],
        *,
        encoder: str = "",
        lexicons: GenerationCache[Lexicon] | None = None,
    ) -> None:
        """*encode_queries* gives the vectors (N, D) of texts; what it raises, `search` raises.

        *encoder* is the version of what makes them: see ``Selection``.
        """
        self._store = store
        self._encode_queries = encode_queries
        self._encoder = encoder
        self._lexicons = lexicons or lexicon_cache(store)
        self._graphs = GenerationCache[StoredGraph | None](
            store.graph,
            lambda graph: 0 if graph is None else graph.size,
            number_max=GRAPHS_MAX,
            size_max=GRAPH_CACHE_BYTES,
        )

    def search(self, query: SearchQuery) -> SearchAnswer:
        return self.search_all([query])[0]

    def search_all(self, queries: Sequence[SearchQuery]) -> list[SearchAnswer]:
        """The answers in the order of *queries*, whose texts are encoded together."""
        meant = {cleaned(query.text)[:QUERY_CHARACTERS_MAX]: None for query in queries if is_meant(query)}
        vectors = np.asarray(self._encode_queries(list(meant)), dtype=np.float32) if meant else ()
        vector_of = dict(zip(meant, vectors, strict=True))
        return [self._search(query, vector_of) for query in queries]

    def _search(self, query: SearchQuery, vector_of: Mapping[str, Floats]) -> SearchAnswer:
        text = cleaned(query.text)
        cut, text = len(text) > QUERY_CHARACTERS_MAX, text[:QUERY_CHARACTERS_MAX]
        candidates = min(HITS_MAX, max(CANDIDATES_MIN, CANDIDATES_PER_RESULT * query.k))
        by_meaning, by_words = channels_of(query)

        words = self._words(text, by_words)
        channels: dict[Channel, list[Hit]] = {"dense": [], "sparse": []}
        if words:
            channels["sparse"] = self._store.sparse(words, by_words, candidates)
        if by_meaning.datasets:
            ours = msgspec.structs.replace(by_meaning, encoder=self._encoder)
            channels["dense"] = self._store.dense(vector_of[text], ours, candidates)

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

    def graph(self, dataset: Searched) -> StoredGraph:
        """The file graph; raises NoGraph."""
        found = self._graphs.of(dataset.dataset, dataset.generation)
        if found is None:
            raise NoGraph
        return found

    def related(
        self, dataset: Searched, path: str | None, symbol: str | None, k: int = 10
    ) -> tuple[str, tuple[RelatedFile, ...]]:
        """(the file that was meant, the *k* that have most to do with it).

        Meant is the file at *path*, or the one that defines *symbol*; both together must agree. Of a symbol
        the files that mention it count too. Raises InvalidQuery, UnknownFile, NoGraph.
        """
        if not 1 <= k <= RESULTS_MAX:
            raise InvalidQuery(f"k must be from 1 to {RESULTS_MAX}, not {k}")
        graph = self.graph(dataset)
        file = _meant(graph, path, symbol)
        limit = max(CANDIDATES_MIN, CANDIDATES_PER_RESULT * k)
        here = Selection(datasets=(dataset,))
        vector = self._store.file_vector(dataset.dataset, dataset.generation, graph.paths[file])
        near = [] if vector is None else self._store.structure(vector, here, limit)
        name = "" if symbol is None else symbol.rpartition(".")[2]
        return graph.paths[file], relate(
            graph,
            file,
            near={hit.payload.path: hit.score for hit in near},
            mentions=self._mentions(name, here, limit) if name else {},
            symbol=name,
            k=k,
        )

    def _mentions(self, name: str, here: Selection, limit: int) -> dict[str, float]:
        """By path, the BM25 sum of the best chunk that has *name* in it as it is written."""
        words = self._words(name, here)
        whole = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)")
        found: dict[str, float] = {}
        for hit in self._store.sparse(words, here, limit) if words else ():
            if whole.search(hit.payload.text):
                found.setdefault(hit.payload.path, hit.score)  # best first
        return found


def _meant(graph: StoredGraph, path: str | None, symbol: str | None) -> int:
    """The place of the file that *path*, *symbol* or both name."""
    if not path and not symbol:
        raise InvalidQuery("say which file, with path, or which symbol")
    defining = graph.defining(symbol) if symbol else []
    if path:
        file = graph.number(path)
        if file is None:
            raise UnknownFile(f"There is no file {path[:SHOWN_CHARACTERS]!r} in this index")
        if symbol and file not in defining:
            raise UnknownFile(f"The file does not define {symbol[:SHOWN_CHARACTERS]!r}")
        return file
    assert symbol
    if not defining:
        reason = f"No file in this index defines {symbol[:SHOWN_CHARACTERS]!r}"
        if graph.symbols_dropped:
            reason += f", or it is one of the {graph.symbols_dropped:,} symbols left out here: say which file"
        raise UnknownFile(reason)
    if len(defining) > 1:
        shown = ", ".join(graph.paths[each] for each in defining[:DEFINING_SHOWN_MAX])
        more = len(defining) - DEFINING_SHOWN_MAX
        raise InvalidQuery(
            f"{len(defining)} files define {symbol[:SHOWN_CHARACTERS]!r}; say which one with path: {shown}"
            + (f" and {more} more" if more > 0 else "")
        )
    return defining[0]


def cleaned(text: str) -> str:
    """*text* with control characters as spaces and without space around it."""
    return "".join(letter if letter.isprintable() else " " for letter in text).strip()


def is_meant(query: SearchQuery) -> bool:
    """Whether the meaning of its text is asked for, and not its words alone."""
    by_meaning, _ = channels_of(query)
    return bool(by_meaning.datasets)


def by_words(query: SearchQuery) -> SearchQuery:
    """*query* where nothing can be searched by meaning."""
    datasets = tuple(msgspec.structs.replace(each, has_dense=False) for each in query.selection.datasets)
    return msgspec.structs.replace(
        query, selection=msgspec.structs.replace(query.selection, datasets=datasets)
    )


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
