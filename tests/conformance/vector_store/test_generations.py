"""Points live in generations: written beside what is live, retired, taken back, collected, deleted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import numpy as np
import pytest

from pharos_contracts.control.v1 import GraphState, LiveGeneration
from pharos_embedder import stored_graph
from pharos_embedder.bm25 import Lexicon, LexiconChange, SparseVector
from pharos_embedder.generations import PAGE, WRITE_BATCH, GenerationStore
from pharos_embedder.stored_graph import GraphTooLarge
from pharos_embedder.vectors import (
    ALIVE,
    Condition,
    DatasetKey,
    DimensionMismatch,
    DocumentFacts,
    Dropped,
    Floats,
    Generation,
    PointsMissing,
    StoreClosed,
    VectorStore,
)
from tests.support.asked_stores import AskedStores
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


def test_a_point_comes_back_as_it_was_given(store: VectorStore) -> None:
    point = chunk(
        "src/a.py", line=3, language="python", symbol="run", symbol_kind="function", docstring="Runs.",
        repository="acme/atlas", scope="global",
    )  # fmt: skip
    assert store.upsert([point]) == 1
    (hit,) = store.sparse(SparseVector.of({7: 2.0}), at(1), 10)
    assert (hit.id, hit.payload) == (point.id, point.payload)
    assert hit.score == pytest.approx(2.0)


def test_a_new_generation_is_invisible_until_readers_ask_for_it(store: VectorStore) -> None:
    kept, gone, born = chunk("kept.py"), chunk("gone.py"), chunk("born.py", generation=2)
    store.upsert([kept, gone])
    store.upsert([born])
    store.retire(ATLAS, [gone.id], 2)
    assert paths(store, at(1)) == ["gone.py", "kept.py"]
    assert paths(store, at(2)) == ["born.py", "kept.py"]
    assert store.live_ids(ATLAS, 1, "chunk") == {kept.id, gone.id}
    assert store.live_ids(ATLAS, 2, "chunk") == {kept.id, born.id}
    assert [store.count(ATLAS, generation, "chunk") for generation in (0, 1, 2, 3)] == [0, 2, 2, 2]


def test_a_chunk_of_a_document_comes_back_with_what_is_known_of_it(store: VectorStore) -> None:
    facts = DocumentFacts(
        ordinal=3, kind="pdf", title="Guide", headings=("Setup", "Linux"), page=2, page_end=3,
        natural_language="en", date="2026-01-15", filename="guide.pdf",
    )  # fmt: skip
    plain = DocumentFacts(ordinal=0, kind="text")
    store.upsert([chunk("docs/guide.pdf", document=facts), chunk("note", document=plain), chunk("a.py")])
    hits = store.sparse(SparseVector.of({7: 1.0}), at(1), 10)
    assert {hit.payload.path: hit.payload.document for hit in hits} == {
        "docs/guide.pdf": facts,
        "note": plain,
        "a.py": None,
    }


def test_one_file_of_a_generation_is_listed_and_read(store: VectorStore) -> None:
    many = [chunk("a.md", line=line) for line in range(1, PAGE + 3)]
    old, other = chunk("b.md"), chunk("a.md.txt")
    foreign = chunk("a.md", dataset=FOREIGN)
    store.upsert([*many, old, other, foreign])
    store.retire(ATLAS, [old.id], 2)
    listed = store.live_ids(ATLAS, 2, "chunk", path="a.md")
    assert listed == {point.id for point in many}
    assert store.live_ids(ATLAS, 1, "chunk", path="b.md") == {old.id}
    assert store.live_ids(ATLAS, 2, "chunk", path="b.md") == set()
    assert store.live_ids(ATLAS, 2, "file", path="a.md") == set()
    read = store.payloads(ATLAS, [*sorted(listed), foreign.id, str(uuid4())])
    assert sorted(read, key=lambda each: each.start_line) == [point.payload for point in many]
    assert store.payloads(ATLAS, []) == []


def test_discarding_undoes_an_unfinished_run_however_often_it_is_called(store: VectorStore) -> None:
    kept, gone, born = chunk("kept.py"), chunk("gone.py"), chunk("born.py", generation=2)
    store.upsert([kept, gone, born, chunk("foreign.py", dataset=FOREIGN, generation=2)])
    store.retire(ATLAS, [gone.id], 2)
    for _ in range(2):
        store.discard_unpublished(ATLAS, 1)
        assert store.live_ids(ATLAS, 1, "chunk") == store.live_ids(ATLAS, 9, "chunk") == {kept.id, gone.id}
    assert store.count(FOREIGN, 2, "chunk") == 1


def test_discarding_before_the_first_publish_leaves_nothing(store: VectorStore) -> None:
    store.upsert([chunk("a.py"), chunk("b.py", kind="file")])
    store.discard_unpublished(ATLAS, 0)
    assert drop(store, ATLAS) == 0


def test_discarding_keeps_what_was_retired_by_a_published_run(store: VectorStore) -> None:
    gone = chunk("gone.py")
    store.upsert([gone, chunk("kept.py")])
    store.retire(ATLAS, [gone.id], 2)
    store.discard_unpublished(ATLAS, 2)
    assert paths(store, at(2)) == ["kept.py"]


def test_collecting_deletes_what_no_kept_generation_sees(store: VectorStore) -> None:
    first, second, kept = chunk("first.py"), chunk("second.py"), chunk("kept.py")
    store.upsert([first, second, kept])
    store.retire(ATLAS, [first.id], 2)
    store.retire(ATLAS, [second.id], 3)
    assert store.collect(ATLAS, 2) == 1
    assert paths(store, at(2)) == ["kept.py", "second.py"]
    assert store.collect(ATLAS, 3) == 1
    assert store.collect(ATLAS, 3) == 0
    assert drop(store, ATLAS) == 1


class Meanwhile:
    """The engine of *store*, where somebody does something behind the first look for points."""

    def __init__(self, store: VectorStore, then: Callable[[], None]) -> None:
        self._engine = store._engine  # type: ignore[attr-defined]
        self._then: Callable[[], None] | None = then

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def ids(self, condition: Condition, *, after: str | None, limit: int) -> tuple[list[str], str | None]:
        found: tuple[list[str], str | None] = self._engine.ids(condition, after=after, limit=limit)
        if found[0] and self._then is not None:
            then, self._then = self._then, None
            then()
        return found


def meanwhile(store: VectorStore, then: Callable[[], None]) -> VectorStore:
    return GenerationStore(Meanwhile(store, then), dimensions=DIMENSIONS)  # type: ignore[arg-type]


def test_what_another_job_writes_anew_is_not_collected(store: VectorStore) -> None:
    point = chunk("a.py")
    store.upsert([point])
    store.retire(ATLAS, [point.id], 2)
    again = chunk("a.py", generation=3, job="new")
    meanwhile(store, lambda: store.upsert([again]) and None).collect(ATLAS, 2)
    assert store.live_ids(ATLAS, 3, "chunk") == {again.id}


def test_what_another_job_writes_anew_is_not_taken_back_or_dropped(store: VectorStore) -> None:
    again = chunk("a.py", generation=3, job="new", attempt=1)

    def begin() -> None:
        store.discard_unpublished(ATLAS, 0)
        store.upsert([again])

    for remove in (
        lambda found: found.undo(ATLAS, "old", 1, 0),
        lambda found: found.discard(ATLAS, 2),
        lambda found: found.drop(ATLAS, 2, most=PAGE, forget=lambda _: None),
    ):
        drop(store, ATLAS)
        store.upsert([chunk("a.py", generation=2, job="old", attempt=1)])
        remove(meanwhile(store, begin))
        assert store.live_ids(ATLAS, 3, "chunk") == {again.id}


def test_what_another_job_retires_does_not_live_again(store: VectorStore) -> None:
    gone = chunk("gone.py")
    store.upsert([gone, chunk("old.py", generation=2, job="old", attempt=1)])
    store.retire(ATLAS, [gone.id], 2)

    def begin() -> None:
        store.discard_unpublished(ATLAS, 1)
        store.retire(ATLAS, [gone.id], 3)

    meanwhile(store, begin).undo(ATLAS, "old", 1, 1)
    assert store.live_ids(ATLAS, 2, "chunk") == {gone.id}
    assert store.live_ids(ATLAS, 3, "chunk") == set()


def test_a_living_point_is_not_overwritten_and_keeps_its_vectors(store: VectorStore) -> None:
    store.upsert([chunk("a.py", vector=axis(0))])
    store.upsert([chunk("a.py", generation=2), chunk("b.py", generation=2)])
    assert store.count(ATLAS, 1, "chunk") == 1
    assert store.count(ATLAS, 2, "chunk") == 2
    assert [hit.payload.path for hit in store.dense(axis(0), at(1), 5)] == ["a.py"]


def test_content_that_returns_after_it_was_retired_lives_again(store: VectorStore) -> None:
    point = chunk("a.py")
    store.upsert([point])
    store.retire(ATLAS, [point.id], 2)
    store.upsert([chunk("a.py", generation=3)])
    assert [store.count(ATLAS, generation, "chunk") for generation in (2, 3)] == [0, 1]


def test_retiring_ignores_the_points_of_other_datasets(store: VectorStore) -> None:
    foreign = chunk("a.py", dataset=FOREIGN)
    store.upsert([foreign])
    store.retire(ATLAS, [foreign.id, str(uuid4())], 2)
    assert store.count(FOREIGN, 2, "chunk") == 1


def test_dropping_deletes_one_dataset_and_counts_its_chunks(store: VectorStore) -> None:
    store.upsert([chunk("a.py"), chunk("b.py", generation=2), chunk("a.py", kind="file")])
    store.upsert([chunk("a.py", dataset=FOREIGN)])
    store.put_lexicon(ATLAS, 1, Lexicon.from_frequencies(1, {7: 1}))
    assert drop(store, ATLAS) == 2
    assert drop(store, ATLAS) == 0
    assert [store.count(ATLAS, 1, kind) for kind in ("chunk", "file", "lexicon")] == [0, 0, 0]
    assert store.count(FOREIGN, 1, "chunk") == 1


def test_a_dataset_is_deleted_in_steps_that_say_what_they_deleted_and_whether_more_is_left(
    store: VectorStore,
) -> None:
    many = [chunk("a.py", line=line) for line in range(1, 2 * WRITE_BATCH + 11)]
    retired, later = chunk("old.py"), chunk("new.py", generation=3)
    store.upsert([*many, retired, later, chunk("a.py", kind="file")])
    store.retire(ATLAS, [retired.id], 2)
    told: list[str] = []
    steps = []
    while not steps or steps[-1].left:
        present = store.size(ATLAS)
        step = store.drop(ATLAS, 2, most=WRITE_BATCH, forget=lambda gone: told.extend(p.path for p in gone))
        assert store.size(ATLAS) < present
        steps.append(step)
    assert sum(step.chunks for step in steps) == len(many) + 1
    assert len(told) == len(many) + 2, "the file is told of, too"
    assert len(steps) > 2
    assert sorted(told)[-1] == "old.py"
    # What came with a later generation is not meant.
    assert store.live_ids(ATLAS, 3, "chunk") == {later.id}
    assert store.drop(ATLAS, 2, most=PAGE, forget=lambda _: None) == Dropped(chunks=0, left=False)


def test_chunks_that_could_not_be_forgotten_are_deleted_by_the_next_step(store: VectorStore) -> None:
    store.upsert([chunk("a.py"), chunk("b.py")])

    def forget(_: object) -> None:
        raise StoppedHere

    with pytest.raises(StoppedHere):
        store.drop(ATLAS, 1, most=PAGE, forget=forget)
    assert drop(store, ATLAS) == 2


def test_the_datasets_of_a_repository_are_those_that_have_points_of_it(store: VectorStore) -> None:
    store.upsert(
        [
            chunk("a.py", repository="github.com/acme/atlas"),
            chunk("a.py", repository="github.com/acme/atlas", dataset=FOREIGN),
            chunk("a.py", repository="github.com/acme/bora", dataset=BORA),
        ]
    )
    store.retire(ATLAS, store.live_ids(ATLAS, 1, "chunk"), 2)
    assert store.of_repository("github.com/acme/atlas") == {ATLAS, FOREIGN}
    assert store.of_repository("github.com/acme") == set()
    assert [store.size(dataset) for dataset in (ATLAS, BORA)] == [1, 1]


def test_more_points_than_a_page_are_listed_discarded_collected_and_dropped(store: VectorStore) -> None:
    number = PAGE + 300
    points = [chunk("a.py", line=line) for line in range(1, number + 1)]
    store.upsert(iter(points))
    assert store.live_ids(ATLAS, 1, "chunk") == {point.id for point in points}
    assert sorted(store.iterate_ids(ATLAS, 1, "chunk")) == sorted(point.id for point in points)
    store.retire(ATLAS, [point.id for point in points], 2)
    store.discard_unpublished(ATLAS, 1)
    assert store.count(ATLAS, 2, "chunk") == number
    store.retire(ATLAS, [point.id for point in points[:-1]], 2)
    assert store.collect(ATLAS, 2) == number - 1
    assert drop(store, ATLAS) == 1


def test_meaning_comes_in_a_second_step(store: VectorStore) -> None:
    points = [chunk("a.py"), chunk("b.py"), chunk("c.py")]
    store.upsert([*points, chunk("a.py", kind="file")])
    assert store.dense(axis(0), at(1), 5) == []
    assert store.ids_without_text(ATLAS, 1) == {point.id for point in points}
    vectors = np.stack([axis(0), axis(0, lean=0.5)])
    store.add_text_vectors([point.id for point in points[:2]], vectors)
    assert store.ids_without_text(ATLAS, 1) == {points[2].id}
    assert list(store.iterate_ids(ATLAS, 1, "chunk", without_text=True)) == [points[2].id]
    assert len(list(store.iterate_ids(ATLAS, 1, "file"))) == 1
    hits = store.dense(axis(0), at(1), 5)
    assert [(hit.payload.path, round(hit.score, 3)) for hit in hits] == [("a.py", 1.0), ("b.py", 0.894)]
    assert paths(store, at(1)) == ["a.py", "b.py", "c.py"]


def test_vectors_for_points_that_are_gone_are_refused(store: VectorStore) -> None:
    point = chunk("a.py")
    store.upsert([point])
    with pytest.raises(PointsMissing, match="1 of the points"):
        store.add_text_vectors([point.id, str(uuid4())], np.stack([axis(0), axis(1)]))


@pytest.mark.parametrize(
    "vectors",
    [
        np.zeros((2, DIMENSIONS), np.float32),
        np.zeros((1, 3), np.float32),
        np.full((1, 4), np.nan, np.float32),
    ],
    ids=["too many", "too short", "not a number"],
)
def test_vectors_that_do_not_fit_are_refused(store: VectorStore, vectors: Floats) -> None:
    point = chunk("a.py")
    store.upsert([point])
    with pytest.raises(ValueError):
        store.add_text_vectors([point.id], vectors)


def test_what_was_stored_is_there_after_closing_and_opening(place: Place) -> None:
    store = place.store()
    store.open()
    store.upsert([chunk("a.py", vector=axis(0))])
    store.flush()
    store.optimize()
    store.close()
    store.close()
    with pytest.raises(StoreClosed):
        store.count(ATLAS, 1, "chunk")
    again = place.store()
    again.open()
    assert paths(again, at(1)) == ["a.py"]
    again.close()


def test_a_store_whose_owner_has_another_encoder_says_what_to_do(tmp_path: Path) -> None:
    with AskedStores(tmp_path / "index", dimensions=DIMENSIONS) as owner:
        other = owner.store(8)
        with pytest.raises(DimensionMismatch, match=r"of 4 .* makes 8.*PHAROS_ENCODER"):
            other.open()


def run_of(
    job: str, attempt: int, store: VectorStore, *, generation: int, dataset: DatasetKey = ATLAS
) -> None:
    """What one attempt at a job writes: a chunk, a file, and a lexicon of a part and a head."""
    path = f"{job}-{attempt}.py"
    facts: dict[str, Any] = {"dataset": dataset, "generation": generation, "job": job, "attempt": attempt}
    store.upsert([chunk(path, **facts), chunk(path, kind="file", **facts)])
    store.put_lexicon(dataset, generation, Lexicon.of([{7: 1}]), job=job, attempt=attempt)


def test_a_store_knows_what_the_attempts_at_a_job_left(store: VectorStore) -> None:
    assert store.left_by("job-1", 9) == {}
    run_of("job-1", 1, store, generation=5)
    run_of("job-1", 2, store, generation=6)
    run_of("job-1", 2, store, generation=8, dataset=BORA)
    run_of("job-2", 1, store, generation=7)
    assert store.left_by("job-1", 9) == {ATLAS: {5, 6}, BORA: {8}}
    assert store.left_by("job-1", 1) == {ATLAS: {5}}
    assert store.left_by("job-2", 1) == {ATLAS: {7}}


def test_undoing_a_job_leaves_nothing_of_it_however_often_it_is_called(store: VectorStore) -> None:
    kept, gone = chunk("kept.py"), chunk("gone.py")
    store.upsert([kept, gone])
    store.put_lexicon(ATLAS, 1, Lexicon.of([{7: 1}]))
    run_of("job-1", 1, store, generation=5)
    store.retire(ATLAS, [gone.id], 5)
    for removed in (4, 0):
        assert store.undo(ATLAS, "job-1", 1, 1) == removed
        assert store.live_ids(ATLAS, 9, "chunk") == {kept.id, gone.id}
        assert store.left_by("job-1", 9) == {}
    assert store.lexicon(ATLAS, 9).documents == 1


def test_undoing_a_job_touches_neither_later_attempts_nor_other_jobs(store: VectorStore) -> None:
    run_of("job-1", 1, store, generation=5)
    run_of("job-1", 2, store, generation=6)
    run_of("job-2", 1, store, generation=7)
    run_of("job-1", 1, store, generation=5, dataset=FOREIGN)
    assert store.undo(ATLAS, "job-1", 1, 0) == 4
    assert store.left_by("job-1", 9) == {ATLAS: {6}, FOREIGN: {5}}
    assert store.left_by("job-2", 9) == {ATLAS: {7}}


def test_undoing_a_job_keeps_what_is_live_of_it(store: VectorStore) -> None:
    run_of("job-1", 1, store, generation=5)
    run_of("job-1", 2, store, generation=6)
    assert store.undo(ATLAS, "job-1", 2, 5) == 4
    assert store.count(ATLAS, 5, "chunk") == 1
    assert store.left_by("job-1", 2) == {ATLAS: {5}}


def test_the_contents_are_what_there_is_by_dataset_and_generation(store: VectorStore) -> None:
    gone = chunk("gone.py")
    store.upsert([gone, chunk("kept.py"), chunk("kept.py", kind="file")])
    run_of("job-1", 1, store, generation=5)
    run_of("job-2", 1, store, generation=5, dataset=FOREIGN)
    store.retire(ATLAS, [gone.id], 5)
    assert store.contents() == [
        Generation(ATLAS, 1, 2, others=1),
        Generation(ATLAS, 5, 2, others=2),
        Generation(FOREIGN, 5, 2, others=2),
    ]


def test_a_dataset_is_inspected_as_readers_of_a_generation_see_it(
    store: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(generation: int = 2) -> dict[str, Any]:
        found = msgspec.structs.asdict(store.inspect(ATLAS, generation))
        assert found.pop("live") == LiveGeneration("acme", "default", ATLAS.dataset, generation)
        return found

    monkeypatch.setattr(stored_graph, "PIECE_BYTES", 100)
    gone = chunk("gone.py", vector=axis(0))
    store.upsert([gone, chunk("a.py", vector=axis(0)), chunk("b.py"), chunk("a.py", kind="file")])
    store.put_lexicon(ATLAS, 1, Lexicon.of([{1: 1}] * 3))
    store.put_graph(ATLAS, 1, file_graph(*(f"{number:03d}.py" for number in range(200))))
    store.change_lexicon(ATLAS, 2, LexiconChange.of(removed=[{1: 1}]), on=1)
    store.retire(ATLAS, [gone.id], 2)
    store.upsert([chunk("later.py", generation=3)])
    whole = {
        "chunks": 2, "files": 1, "without_vector": 1, "documents": 2, "lexicon_unused": 0,
        "graph": GraphState.WHOLE, "graph_files": 200, "retired": told()["retired"], "later": 1,
    }  # fmt: skip
    assert told() == whole and whole["retired"] >= 1
    # A part of an earlier generation that no head names, and what is left of a graph.
    orphan = [point for page in store.points(ATLAS, 1, "lexicon") for point in page][:1]
    renamed = msgspec.structs.replace(orphan[0].payload, path="9999", until=ALIVE)
    store.upsert([msgspec.structs.replace(orphan[0], id=str(uuid4()), payload=renamed)])
    store.retire(ATLAS, store.live_ids(ATLAS, 2, "graph", path="0001"), 2)
    assert told() == whole | {
        "lexicon_unused": 1, "graph": GraphState.BROKEN, "graph_files": 0, "retired": whole["retired"] + 1,
    }  # fmt: skip
    with pytest.raises(GraphTooLarge):
        monkeypatch.setattr(stored_graph, "GRAPH_BYTES_MAX", 10)
        store.put_graph(ATLAS, 2, file_graph("a.py"))
    store.retire(ATLAS, store.live_ids(ATLAS, 2, "lexicon", path="0000"), 2)
    found = told()
    assert (found["graph"], found["documents"]) == (GraphState.LEFT_OUT, None)
    nothing = store.inspect(BORA, 1)
    assert (nothing.graph, nothing.documents, nothing.chunks) == (GraphState.NONE, 0, 0)


def test_what_came_with_which_generation_and_who_wrote_it(store: VectorStore) -> None:
    gone = chunk("gone.py")
    store.upsert([gone])
    run_of("job-1", 1, store, generation=5)
    run_of("job-2", 1, store, generation=5)
    run_of("job-3", 1, store, generation=7, dataset=FOREIGN)
    store.retire(ATLAS, [gone.id], 5)
    assert store.datasets() == {ATLAS, FOREIGN}
    assert store.generations(ATLAS).keys() == {1, 5} and store.generations(ATLAS)[1] == 1
    assert store.generations(FOREIGN).keys() == {7} and store.generations(BORA) == {}
    assert {"job-1", "job-2"} >= store.writers(ATLAS, 5) >= {"job-2"}
    assert store.writers(FOREIGN, 7) == {"job-3"} and store.writers(ATLAS, 7) == set()


def test_a_generation_that_is_discarded_leaves_the_others_as_they_were(store: VectorStore) -> None:
    kept, gone, later = chunk("kept.py"), chunk("gone.py"), chunk("later.py")
    store.upsert([kept, gone, later])
    run_of("job-1", 1, store, generation=5)
    store.retire(ATLAS, [gone.id], 5)
    store.retire(ATLAS, [later.id], 6)
    for _ in range(2):
        store.discard(ATLAS, 5)
        assert store.generations(ATLAS) == {1: 3}
        assert store.live_ids(ATLAS, 5, "chunk") == {kept.id, gone.id, later.id}
        assert store.live_ids(ATLAS, 6, "chunk") == {kept.id, gone.id}


class StoppedHere(Exception):
    """What a check raises in these tests."""


def test_a_guarded_store_writes_nothing_once_its_check_raises(store: VectorStore) -> None:
    allowed = [True]

    def check() -> None:
        if not allowed[0]:
            raise StoppedHere

    guarded = store.guarded(check)
    point = chunk("a.py")
    guarded.upsert([point])
    allowed[0] = False
    for write in (
        lambda: guarded.upsert([chunk("b.py")]),
        lambda: guarded.add_text_vectors([point.id], np.stack([axis(0)])),
        lambda: guarded.retire(ATLAS, [point.id], 2),
        lambda: guarded.put_lexicon(ATLAS, 2, Lexicon.of([{7: 1}])),
        lambda: guarded.put_graph(ATLAS, 2, file_graph("a.py")),
        lambda: guarded.discard_unpublished(ATLAS, 0),
        lambda: guarded.collect(ATLAS, 9),
        lambda: guarded.discard(ATLAS, 1),
        lambda: guarded.undo(ATLAS, "job-1", 1, 0),
        lambda: drop(guarded, ATLAS),
        guarded.flush,
    ):
        with pytest.raises(StoppedHere):
            write()
    assert store.live_ids(ATLAS, 9, "chunk") == {point.id} == store.ids_without_text(ATLAS, 9)
    assert store.count(ATLAS, 9, "lexicon") == store.count(ATLAS, 9, "graph") == 0


def test_a_guarded_store_stops_between_two_of_its_small_writes(store: VectorStore) -> None:
    calls = iter(range(2))

    def check() -> None:
        if next(calls, None) is None:
            raise StoppedHere

    points = [chunk("a.py", line=line) for line in range(1, 3 * WRITE_BATCH)]
    with pytest.raises(StoppedHere):
        store.guarded(check).upsert(points)
    assert store.count(ATLAS, 1, "chunk") == 2 * WRITE_BATCH
