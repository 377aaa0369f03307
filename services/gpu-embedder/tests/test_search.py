"""Queries against a store that answers from a list."""

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from pharos_embedder.bm25 import Lexicon, SparseVector, document_terms, document_vector
from pharos_embedder.search import (
    QUERY_CHARACTERS_MAX,
    InvalidQuery,
    LineSpan,
    Mode,
    NoGraph,
    SearchEngine,
    SearchQuery,
    UnknownFile,
    lexicon_cache,
)
from pharos_embedder.stored_graph import StoredGraph
from pharos_embedder.vectors import DatasetKey, Floats, Hit, Payload, Searched, Selection

ATLAS = DatasetKey("acme", "default", "atlas")
NEW = DatasetKey("acme", "default", "new")

TEXTS = {
    "retry.py": [
        "def retry_policy(): backoff after failure",
        "class Backoff: delays grow",
        "retry retry limits",
    ],
    "queue.py": ["def enqueue(job): put the job in line"],
    "style.css": ["body colour margin"],
}
MEANING = {"retry.py": 0.9, "queue.py": 0.5, "style.css": 0.1}


class ListedStore:
    """Datasets of TEXTS; a point's dense score is MEANING of its file, a little less for later chunks."""

    def __init__(self, *datasets: DatasetKey) -> None:
        self.lexicon_reads: list[DatasetKey] = []
        self.hits = [
            Hit(
                id=f"{dataset.dataset}/{path}/{number}",
                score=0.0,
                payload=Payload(
                    dataset=dataset, kind="chunk", generation=1, path=path, text=text, symbol=f"s{number}",
                    symbol_kind="function", language="python", repository="acme/atlas",
                    start_line=number * 10 + 1, end_line=number * 10 + 9,
                ),
            )
            for dataset in datasets
            for path, texts in TEXTS.items()
            for number, text in enumerate(texts)
        ]  # fmt: skip

    def _of(self, selection: Selection) -> list[Hit]:
        wanted = {searched.dataset for searched in selection.datasets}
        return [hit for hit in self.hits if hit.payload.dataset in wanted]

    def lexicon(self, dataset: DatasetKey, generation: int) -> Lexicon:
        self.lexicon_reads.append(dataset)
        if generation == 0:
            return Lexicon.of([])
        return Lexicon.of(document_terms(text) for texts in TEXTS.values() for text in texts)

    def dense(self, vector: Floats, selection: Selection, limit: int) -> list[Hit]:
        assert selection.datasets
        return scored(
            [(hit, MEANING[hit.payload.path] - hit.payload.start_line / 1e4) for hit in self._of(selection)],
            limit,
        )

    def sparse(self, vector: SparseVector, selection: Selection, limit: int) -> list[Hit]:
        query = dict(zip(vector.indices, vector.values, strict=True))
        found = []
        for hit in self._of(selection):
            document = document_vector(document_terms(hit.payload.text))
            score = sum(query.get(t, 0) * v for t, v in zip(document.indices, document.values, strict=True))
            if score:
                found.append((hit, score))
        return scored(found, limit)

    def structure(self, vector: Floats, selection: Selection, limit: int) -> list[Hit]:
        files = {hit.payload.path: hit for hit in self._of(selection)}
        return scored([(hit, 1.0 if path == "retry.py" else 0.4) for path, hit in files.items()], limit)

    def graph(self, dataset: DatasetKey, generation: int) -> StoredGraph | None:
        if generation == 0:
            return None
        return StoredGraph(
            paths=("queue.py", "retry.py", "style.css"),
            languages=("python", "python", "css"),
            symbols=("enqueue\nQueue.job\ntwice", "Backoff\ntwice", "backoff"),
            lines=np.array([3, 3, 3], dtype=np.int32),
            places=np.zeros((3, 2), dtype=np.float32),
            sources=np.array([1], dtype=np.int32),
            targets=np.array([2], dtype=np.int32),
            kinds=np.array([0], dtype=np.uint8),
            weights=np.array([0.5], dtype=np.float32),
        )

    def file_vector(self, dataset: DatasetKey, generation: int, path: str) -> Floats | None:
        return np.ones(64, dtype=np.float32) if path in TEXTS else None


def scored(hits: Sequence[tuple[Hit, float]], limit: int) -> list[Hit]:
    named = [msgspec.structs.replace(hit, score=score) for hit, score in hits]
    return sorted(named, key=lambda hit: (-hit.score, hit.id))[:limit]


def encode(texts: Sequence[str]) -> Floats:
    assert texts
    assert all(text.strip() for text in texts)
    return np.ones((len(texts), 4), dtype=np.float32)


def never(texts: Sequence[str]) -> Floats:
    raise AssertionError("nothing was to be encoded")


def live(*datasets: DatasetKey, dense: bool = True) -> Selection:
    return Selection(datasets=tuple(Searched(dataset=d, generation=1, has_dense=dense) for d in datasets))


def paths(text: str, *, mode: Mode = "hybrid", k: int = 10, threshold: float = 0.0) -> list[str]:
    engine = SearchEngine(ListedStore(ATLAS), never if mode == "lexical" else encode)
    query = SearchQuery(text=text, selection=live(ATLAS), k=k, mode=mode, threshold=threshold)
    return [result.path for result in engine.search(query).results]


def test_a_result_shows_the_best_chunk_of_a_file_and_why() -> None:
    answer = SearchEngine(ListedStore(ATLAS), encode).search(
        SearchQuery(text="Backoff, after failures?", selection=live(ATLAS), k=1)
    )
    (result,) = answer.results
    assert (result.path, result.start_line, result.end_line) == ("retry.py", 1, 9)
    assert (result.symbol, result.kind, result.language) == ("s0", "function", "python")
    assert (result.repository, result.dataset, result.id) == ("acme/atlas", ATLAS, "atlas/retry.py/0")
    assert result.text == TEXTS["retry.py"][0]
    assert result.highlights == ("Backoff", "failures")
    assert result.other_chunks == (LineSpan(start=11, end=19), LineSpan(start=21, end=29))
    assert result.scores.dense == pytest.approx(0.8999)
    assert result.scores.sparse is not None
    assert result.scores.sparse > 0
    assert result.scores.structural is None
    assert result.scores.final == pytest.approx(1.0)
    assert {(reason.channel, reason.by, reason.rank) for reason in result.reasons} == {
        ("dense", "best", 1),
        ("dense", "mean", 1),
        ("sparse", "best", 1),
        ("sparse", "mean", 1),
    }


def test_each_mode_uses_its_channels() -> None:
    assert paths("enqueue job", mode="lexical") == ["queue.py"]
    assert paths("enqueue job", mode="dense") == ["retry.py", "queue.py", "style.css"]
    assert paths("enqueue job", mode="hybrid") == ["queue.py", "retry.py", "style.css"]


def test_k_and_threshold_limit_the_answer() -> None:
    assert paths("enqueue job", k=2) == ["queue.py", "retry.py"]
    assert paths("enqueue job", threshold=0.6) == ["queue.py"]


@pytest.mark.parametrize("mode", ["hybrid", "dense"])
def test_a_dataset_without_vectors_is_searched_by_words_and_the_answer_says_so(mode: Mode) -> None:
    query = SearchQuery(text="enqueue job", selection=live(NEW, dense=False), mode=mode)
    answer = SearchEngine(ListedStore(NEW), never).search(query)
    assert [result.path for result in answer.results] == ["queue.py"]
    assert answer.metadata.lexical_only == (NEW,)
    assert (answer.metadata.dense_candidates, answer.metadata.sparse_candidates) == (0, 1)


def test_datasets_with_and_without_vectors_are_searched_together() -> None:
    selection = Selection(
        datasets=(
            Searched(dataset=ATLAS, generation=1, has_dense=True),
            Searched(dataset=NEW, generation=1, has_dense=False),
        )
    )
    answer = SearchEngine(ListedStore(ATLAS, NEW), encode).search(
        SearchQuery(text="job", selection=selection)
    )
    assert {(r.dataset, r.path) for r in answer.results if r.dataset == NEW} == {(NEW, "queue.py")}
    assert answer.results[0].dataset == ATLAS
    assert answer.metadata.lexical_only == (NEW,)


def test_a_query_of_stop_words_is_answered_by_meaning_alone() -> None:
    answer = SearchEngine(ListedStore(ATLAS), encode).search(
        SearchQuery(text="what is this", selection=live(ATLAS))
    )
    assert answer.metadata.words_searched == 0
    assert [result.path for result in answer.results] == ["retry.py", "queue.py", "style.css"]
    assert answer.results[0].highlights == ()
    assert paths("what is this", mode="lexical") == []


def test_a_huge_query_is_cut_and_the_answer_says_so() -> None:
    seen: list[str] = []

    def remember(texts: Sequence[str]) -> Floats:
        seen.extend(texts)
        return encode(texts)

    engine = SearchEngine(ListedStore(ATLAS), remember)
    answer = engine.search(SearchQuery(text="enqueue " * 100_000, selection=live(ATLAS)))
    assert answer.metadata.query_cut
    assert answer.results[0].path == "queue.py"
    assert len(seen[0]) == QUERY_CHARACTERS_MAX


def test_queries_of_a_batch_are_encoded_together_and_answered_as_if_each_were_alone() -> None:
    calls: list[list[str]] = []

    def remember(texts: Sequence[str]) -> Floats:
        calls.append(list(texts))
        return encode(texts)

    engine = SearchEngine(ListedStore(ATLAS), remember)
    queries = [
        SearchQuery(text="backoff", selection=live(ATLAS), k=1),
        SearchQuery(text="enqueue", selection=live(ATLAS), mode="lexical"),
        SearchQuery(text=" backoff", selection=live(ATLAS)),
        SearchQuery(text="margin", selection=live(ATLAS), mode="dense"),
        SearchQuery(text="margin", selection=live()),
    ]
    together = engine.search_all(queries)
    assert calls == [["backoff", "margin"]]
    assert together == [engine.search(query) for query in queries]
    assert engine.search_all([]) == []


def test_no_datasets_are_no_results() -> None:
    answer = SearchEngine(ListedStore(ATLAS), never).search(SearchQuery(text="job", selection=live()))
    assert answer.results == ()
    assert answer.metadata.datasets == 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"text": ""}, "empty"),
        ({"text": " \n\x00\u200b "}, "empty"),
        ({"k": 0}, "from 1 to 100"),
        ({"k": 101}, "from 1 to 100"),
        ({"mode": "fuzzy"}, "hybrid, dense or lexical"),
        ({"threshold": -0.1}, "from 0 to 1"),
        ({"threshold": float("nan")}, "from 0 to 1"),
    ],
)
def test_a_wrong_query_is_refused_with_a_sentence(wrong: dict[str, object], message: str) -> None:
    right: dict[str, object] = {"text": "job", "selection": live(ATLAS)}
    with pytest.raises(InvalidQuery, match=message):
        SearchQuery(**(right | wrong))  # type: ignore[arg-type]


def related(path: str | None, symbol: str | None = None, k: int = 5) -> tuple[str, list[str]]:
    (searched,) = live(ATLAS).datasets
    meant, found = SearchEngine(ListedStore(ATLAS), never).related(searched, path, symbol, k)
    return meant, [file.path for file in found]


def test_related_files_are_near_in_structure_or_joined_by_an_edge_and_never_the_file_itself() -> None:
    assert related("retry.py") == ("retry.py", ["style.css", "queue.py"])
    assert related("retry.py", k=1) == ("retry.py", ["style.css"])
    for path, symbol in (("missing.py", None), (None, "missing"), ("queue.py", "Backoff")):
        with pytest.raises(UnknownFile):
            related(path, symbol)
    for wrong in (0, 101):
        with pytest.raises(InvalidQuery, match="from 1 to 100"):
            related("retry.py", k=wrong)
    with pytest.raises(InvalidQuery, match="say which file"):
        related(None)


def test_of_a_symbol_the_files_that_mention_it_as_it_is_written_are_related() -> None:
    assert (
        related(None, "enqueue") == related("queue.py", "enqueue") == ("queue.py", ["retry.py", "style.css"])
    )
    (searched,) = live(ATLAS).datasets
    engine = SearchEngine(ListedStore(ATLAS), never)
    _, found = engine.related(searched, None, "Queue.job", 5)
    assert all(file.mentions is None for file in found)  # "job" is in queue.py alone, which is not among them
    _, found = engine.related(searched, "style.css", "backoff", 5)
    assert (found[0].path, found[0].mentions is not None) == ("retry.py", True)


def test_a_symbol_that_several_files_define_needs_a_path() -> None:
    with pytest.raises(
        InvalidQuery, match=r"2 files define 'twice'; say which one with path: queue\.py, retry\.py"
    ):
        related(None, "twice")
    assert related("retry.py", "twice")[0] == "retry.py"


def test_an_index_without_a_graph_is_told_so() -> None:
    searched = Searched(dataset=ATLAS, generation=0, has_dense=True)
    with pytest.raises(NoGraph, match="Index the repository again"):
        SearchEngine(ListedStore(ATLAS), never).related(searched, "retry.py", None)


def test_lexicons_are_read_once_and_the_least_used_goes_first() -> None:
    store = ListedStore()
    a, b, c = (DatasetKey("t", "p", name) for name in "abc")
    cache = lexicon_cache(store, number_max=2)
    for key in (a, b, a, c, a, b):
        cache.of(key, 1)
    assert store.lexicon_reads == [a, b, c, b]
    assert len(cache) == 2


def test_the_cache_is_bounded_by_terms_and_does_not_keep_empty_lexicons() -> None:
    store = ListedStore()
    size = len(store.lexicon(ATLAS, 1).terms)
    cache = lexicon_cache(store, terms_max=2 * size)
    for generation in (1, 2, 3, 4):
        cache.of(ATLAS, generation)
    assert len(cache) == 2
    cache.of(ATLAS, 0)
    cache.of(ATLAS, 0)
    assert len(cache) == 2
    assert len(store.lexicon_reads) == 7
