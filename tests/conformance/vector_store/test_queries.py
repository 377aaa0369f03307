"""What is found: inside a selection, by words, meaning and structure, in vectors of each encoder."""

import msgspec
import pytest

from pharos_embedder import stored_graph
from pharos_embedder.bm25 import Lexicon, SparseVector
from pharos_embedder.generations import PAGE, GenerationStore
from pharos_embedder.qdrant_store import qdrant_store
from pharos_embedder.stored_graph import GraphTooLarge
from pharos_embedder.vectors import (
    DIRECTORY_DEPTH_MAX,
    STRUCTURE_DIMENSIONS,
    DatasetKey,
    Filters,
    Match,
    Searched,
    Selection,
    StoreClosed,
    StoreError,
    StoreUnavailable,
    VectorStore,
    directories,
)
from tests.support.vector_stores import (
    ATLAS,
    BORA,
    DIMENSIONS,
    FOREIGN,
    Place,
    at,
    axis,
    chunk,
    drop,
    file_graph,
    paths,
)


def test_queries_stay_inside_the_selection(store: VectorStore) -> None:
    store.upsert([chunk(f"{key.dataset}.py", dataset=key, vector=axis(0)) for key in (ATLAS, BORA, FOREIGN)])
    assert paths(store, at(1, ATLAS)) == [f"{ATLAS.dataset}.py"]
    assert paths(store, at(1, ATLAS, BORA)) == ["bora.py", f"{ATLAS.dataset}.py"]
    assert {hit.payload.dataset for hit in store.dense(axis(0), at(1, BORA, FOREIGN), 9)} == {BORA, FOREIGN}
    nothing = Selection(datasets=())
    assert store.sparse(SparseVector.of({7: 1.0}), nothing, 5) == store.dense(axis(0), nothing, 5) == []


@pytest.mark.parametrize(
    ("path", "parents"),
    [("a.py", []), ("a/b.py", ["a"]), ("a/b/c.py", ["a", "a/b"]), ("d/" * 99 + "e.py", None)],
)
def test_a_path_is_found_by_its_parents(path: str, parents: list[str] | None) -> None:
    found = directories(path)
    assert len(found) <= DIRECTORY_DEPTH_MAX
    assert parents is None or found == parents


def test_a_selection_has_a_limit_and_names_are_unambiguous() -> None:
    with pytest.raises(ValueError, match="at most 256 datasets"):
        at(1, *(DatasetKey("t", "p", str(number)) for number in range(257)))
    with pytest.raises(ValueError, match="at most 64 values"):
        Filters(languages=tuple(map(str, range(65))))
    assert DatasetKey("a", "b/c", "d").joined() != DatasetKey("a/b", "c", "d").joined()
    for names in (("", "p", "d"), ("t", "p\x1fd", "d")):
        with pytest.raises(ValueError, match="must not"):
            DatasetKey(*names)


def test_a_server_that_is_away_is_told_without_its_key() -> None:
    store = qdrant_store("http://127.0.0.1:9", dimensions=DIMENSIONS, api_key="s3cret")
    with pytest.raises(StoreUnavailable) as raised:
        store.open()
    assert "s3cret" not in str(raised.value)
    with pytest.raises(StoreClosed):
        store.count(ATLAS, 1, "chunk")


def test_datasets_of_one_query_have_their_own_generations(store: VectorStore) -> None:
    store.upsert([chunk("a.py", dataset=ATLAS, generation=3), chunk("b.py", dataset=BORA, generation=1)])
    selection = Selection(
        datasets=(
            Searched(dataset=ATLAS, generation=2, has_dense=False),
            Searched(dataset=BORA, generation=1, has_dense=False),
        )
    )
    assert paths(store, selection) == ["b.py"]


FILTERED = [
    (Filters(), ["core/deep/b.go", "core/a.py", "core2/c.py", "d.md"]),
    (Filters(languages=("python",)), ["core/a.py", "core2/c.py"]),
    (Filters(languages=("python", "go")), ["core/deep/b.go", "core/a.py", "core2/c.py"]),
    (Filters(path_prefix="core"), ["core/deep/b.go", "core/a.py"]),
    (Filters(path_prefix="./core/"), ["core/deep/b.go", "core/a.py"]),
    (Filters(path_prefix="core/deep"), ["core/deep/b.go"]),
    (Filters(path_prefix="core/a.py"), ["core/a.py"]),
    (Filters(path_prefix="cor"), []),
    (Filters(repositories=("acme/x",)), ["d.md"]),
    (Filters(symbol_kinds=("class",)), ["core2/c.py"]),
    (Filters(languages=("python",), path_prefix="core2", symbol_kinds=("class",)), ["core2/c.py"]),
    (Filters(languages=("go",), path_prefix="core2"), []),
]


@pytest.mark.parametrize(("filters", "found"), FILTERED)
def test_every_filter_filters(store: VectorStore, filters: Filters, found: list[str]) -> None:
    store.upsert(
        [
            chunk("core/a.py", language="python", repository="acme/atlas", symbol_kind="function"),
            chunk("core/deep/b.go", language="go", repository="acme/atlas", symbol_kind="function"),
            chunk("core2/c.py", language="python", repository="acme/atlas", symbol_kind="class"),
            chunk("d.md", language="markdown", repository="acme/x"),
        ]
    )
    assert paths(store, at(1, filters=filters)) == sorted(found)


def test_words_are_scored_by_the_dot_product_and_ties_are_ordered(store: VectorStore) -> None:
    store.upsert(
        [
            chunk("none.py", words={9: 5.0}),
            chunk("both.py", words={1: 1.0, 4294967295: 2.0}),
            *(chunk(f"tie{number}.py", words={1: 1.0}) for number in range(4)),
        ]
    )
    hits = store.sparse(SparseVector.of({1: 0.5, 4294967295: 1.0}), at(1), 10)
    assert [(hit.payload.path, hit.score) for hit in hits[:1]] == [("both.py", 2.5)]
    assert [hit.id for hit in hits[1:]] == sorted(hit.id for hit in hits[1:])
    assert len(hits) == 5
    assert len(store.sparse(SparseVector.of({1: 0.5}), at(1), 2)) == 2
    assert store.sparse(SparseVector.of({}), at(1), 5) == []


def test_files_have_neighbours_in_structure(store: VectorStore) -> None:
    size = STRUCTURE_DIMENSIONS
    store.upsert(
        [
            chunk("a.py", kind="file", structure=axis(0, of=size), words={}),
            chunk("b.py", kind="file", structure=axis(0, of=size, lean=0.2), words={}),
            chunk("c.py", kind="file", structure=axis(9, of=size), words={}),
            chunk("lonely.py", kind="file", words={}),
            chunk("a.py"),
        ]
    )
    vector = store.file_vector(ATLAS, 1, "a.py")
    assert vector is not None
    assert vector.shape == (size,)
    assert [hit.payload.path for hit in store.structure(vector, at(1), 2)] == ["a.py", "b.py"]
    assert store.file_vector(ATLAS, 1, "lonely.py") is None
    assert store.file_vector(ATLAS, 1, "unknown.py") is None
    assert store.file_vector(ATLAS, 0, "a.py") is None


def test_a_lexicon_belongs_to_its_generation(store: VectorStore) -> None:
    old = Lexicon.from_frequencies(2, {1: 2, 4294967295: 1})
    big = Lexicon.from_frequencies(3, dict.fromkeys(range(120_000), 1))
    assert store.lexicon(ATLAS, 1).documents == 0
    store.put_lexicon(ATLAS, 1, old)
    store.put_lexicon(ATLAS, 2, old)
    store.put_lexicon(ATLAS, 2, big)
    assert store.lexicon(ATLAS, 1) == old
    assert store.lexicon(ATLAS, 2) == big
    assert store.count(ATLAS, 2, "lexicon") == 4
    store.discard_unpublished(ATLAS, 1)
    assert store.lexicon(ATLAS, 2) == old
    store.put_lexicon(ATLAS, 2, big)
    assert store.collect(ATLAS, 2) == 2
    assert store.lexicon(FOREIGN, 2).documents == 0


def test_a_graph_belongs_to_its_generation(store: VectorStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def paths(generation: int) -> tuple[str, ...] | None:
        found = store.graph(ATLAS, generation)
        return None if found is None else found.paths

    monkeypatch.setattr(stored_graph, "PIECE_BYTES", 100)  # so that it takes several points
    many = tuple(f"{number:03d}.py" for number in range(200))
    assert paths(1) is None
    store.put_graph(ATLAS, 1, file_graph("old.py"))
    store.put_graph(ATLAS, 2, file_graph("wrong.py", "try.py"))
    store.put_graph(ATLAS, 2, file_graph(*many))
    assert (paths(1), paths(2), paths(9)) == (("old.py",), many, many)
    assert store.count(ATLAS, 2, "graph") > 2
    assert store.graph(FOREIGN, 2) is None
    store.discard_unpublished(ATLAS, 1)
    assert paths(2) == ("old.py",)
    store.put_graph(ATLAS, 2, file_graph())
    assert paths(2) == ()
    assert store.collect(ATLAS, 2) == store.count(ATLAS, 2, "graph")
    store.drop(ATLAS, 2, most=PAGE, forget=lambda _: None)
    assert paths(2) is None


def test_a_graph_that_is_too_large_leaves_none_of_an_earlier_one(
    store: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put_graph(ATLAS, 1, file_graph("old.py"))
    with monkeypatch.context() as small, pytest.raises(GraphTooLarge):
        small.setattr(stored_graph, "GRAPH_BYTES_MAX", 10)
        store.put_graph(ATLAS, 2, file_graph("new.py"))
    assert store.graph(ATLAS, 2) is None
    assert store.graph(ATLAS, 1) is not None


def test_what_is_left_of_a_graph_that_is_being_taken_away_is_not_read(
    store: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_graph, "PIECE_BYTES", 100)
    store.put_graph(ATLAS, 1, file_graph(*(f"{number:03d}.py" for number in range(200))))
    first = sorted(store.live_ids(ATLAS, 1, "graph", path="0001"))
    store.retire(ATLAS, first, 1)
    with pytest.raises(StoreError, match="being stored or taken away: ask again"):
        store.graph(ATLAS, 1)


def test_vectors_are_found_by_what_they_are_known_by(store: VectorStore) -> None:
    known = [chunk(f"{number}.py", vector=axis(number), known_by=f"{number}") for number in range(3)]
    # More points have one vector than are asked for: they hide the others.
    known += [chunk(f"{number}.md", vector=axis(3), known_by="often") for number in range(20)]
    store.upsert([*known, chunk("bare.py", known_by="bare")])
    found = store.text_vectors(["0", "2", "often", "bare", "nobody"])
    assert found.keys() == {"0", "2", "often"}
    assert [int(found[name].argmax()) for name in ("0", "2", "often")] == [0, 2, 3]
    assert store.text_vectors([]) == {}


def test_a_query_is_compared_with_vectors_of_its_own_encoder_alone(store: VectorStore) -> None:
    store.upsert([chunk("a.py", vector=axis(0), encoder="one"), chunk("b.py", vector=axis(0), encoder="two")])
    selection = at(1)
    assert {hit.payload.path for hit in store.dense(axis(0), selection, 9)} == {"a.py", "b.py"}
    (hit,) = store.dense(axis(0), msgspec.structs.replace(selection, encoder="two"), 9)
    assert hit.payload.path == "b.py"


# Another encoder


def test_what_an_encoder_of_another_length_finds_is_found_by_words_and_structure_until_it_goes(
    place: Place,
) -> None:
    if place.owner is not None:
        return  # whoever asks has the encoder of the owner
    first = place.store()
    first.open()
    first.upsert(chunk(f"{number:02d}.py", vector=axis(0)) for number in range(7))
    first.upsert([chunk("0.py", kind="file", structure=axis(3, of=STRUCTURE_DIMENSIONS))])
    first.put_lexicon(ATLAS, 1, Lexicon.of([{7: 1}]))
    first.close()

    second = place.store(dimensions=8)
    second.open()
    assert paths(second, at(1)) == [f"{number:02d}.py" for number in range(7)]
    assert second.dense(axis(0, of=8), at(1), 9) == []
    assert second.file_vector(ATLAS, 1, "0.py") is not None
    assert second.lexicon(ATLAS, 1).documents == 1
    second.upsert(chunk(f"{number:02d}.md", vector=axis(0, of=8), generation=2) for number in range(5))
    second.put_lexicon(ATLAS, 2, Lexicon.of([{7: 1}, {8: 1}]))
    ids = second.live_ids(ATLAS, 2, "chunk")
    assert len(ids) == 12
    old = second.live_ids(ATLAS, 1, "chunk")
    second.retire(ATLAS, old, 2)
    assert second.live_ids(ATLAS, 2, "chunk") == ids - old
    assert second.count(ATLAS, 1, "chunk") == 7
    assert second.contents()[0].dataset == ATLAS
    assert len(second.dense(axis(0, of=8), at(2), 9)) == 5
    second.discard_unpublished(ATLAS, 1)
    assert second.live_ids(ATLAS, 1, "chunk") == old
    second.close()

    third = place.store()
    third.open()
    assert len(third.dense(axis(0), at(1), 9)) == 7
    assert drop(third, ATLAS) == 7
    third.close()


def test_pages_of_ids_go_through_all_volumes_in_one_order(place: Place) -> None:
    if place.owner is not None:
        return  # whoever asks has the encoder of the owner
    points = [chunk(f"{number}.py") for number in range(40)]
    for length, some in ((DIMENSIONS, points[::2]), (8, points[1::2])):
        store = place.store(dimensions=length)
        store.open()
        store.upsert(some)
        store.close()
    store = place.store()
    store.open()
    assert isinstance(store, GenerationStore)
    engine, seen, after = store._engine, [], None
    while True:
        page, after = engine.ids(Match("kind", ("chunk",)), after=after, limit=7)
        seen += page
        if after is None:
            break
    assert seen == sorted(point.id for point in points)
    store.close()
