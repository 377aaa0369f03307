"""Snapshots are restored as they were taken, and a migrated store is what the old one was."""

from __future__ import annotations

import errno
import os
import zlib
from base64 import b64encode
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from pharos_contracts.control.v1 import GraphState
from pharos_contracts.datasets.v1 import Dataset, DatasetRecord, DeletedDataset, IndexStage
from pharos_contracts.jobs.v1 import Scope
from pharos_embedder.bm25 import Lexicon, LexiconChange, SparseVector
from pharos_embedder.dataset_locks import LockLost
from pharos_embedder.edge_store import edge_store, edge_volumes
from pharos_embedder.linking import FileGraph, LinkStats
from pharos_embedder.migration import migrate
from pharos_embedder.ports import Check, unchecked
from pharos_embedder.qdrant_store import local_mode_store
from pharos_embedder.snapshot_file import (
    BadSnapshot,
    DatasetClosing,
    DatasetOpening,
    Frame,
    GraphPiece,
    Opening,
    Points,
    SnapshotWriter,
    Words,
)
from pharos_embedder.snapshots import CannotCopy, restore, take
from pharos_embedder.store_protocol import to_wire
from pharos_embedder.stored_graph import StoredGraph
from pharos_embedder.sweeping import Rubbish, rubbish
from pharos_embedder.vectors import DatasetKey, Kind, Payload, Point, VectorStore, point_id
from pharos_service.buckets import Entry
from pharos_service.bus import FateUnknown
from tests.support.asked_stores import AskedStores

NOW = datetime(2026, 6, 1, tzinfo=UTC)
LATER = datetime(2026, 6, 2, tzinfo=UTC)
KINDS: tuple[Kind, ...] = ("chunk", "file", "lexicon", "graph")
ATLAS = DatasetKey("acme", "default", "atlas")
BORA = DatasetKey("acme", "default", "bora")


class Shelf:
    """The records, in memory."""

    def __init__(self) -> None:
        self.entries: dict[DatasetKey, Entry[DatasetRecord]] = {}
        self.revision = 0

    def get(self, key: DatasetKey) -> Entry[DatasetRecord] | None:
        return self.entries.get(key)

    def set(self, key: DatasetKey, record: DatasetRecord, after: Entry[DatasetRecord] | None) -> bool:
        if self.entries.get(key) != after:
            return False
        self.revision += 1
        self.entries[key] = Entry(key.dataset, record, self.revision)
        return True

    def live(self, key: DatasetKey) -> Dataset:
        found = self.entries[key].value
        assert isinstance(found, Dataset)
        return found


def record_of(key: DatasetKey, generation: int) -> Dataset:
    return Dataset(
        tenant=key.tenant, project=key.project, dataset=key.dataset, scope=Scope.PROJECT, repository="h/o/r",
        clone_url="https://h/o/r", branch="main", commit="c", generation=generation, stage=IndexStage.FULL,
        job_id="j", files=1, chunks=1, encoder="e", chunker="c", published_at=NOW,
    )  # fmt: skip


def point(key: DatasetKey, number: int, generation: int, kind: Kind = "chunk") -> Point:
    vector = np.random.default_rng(number).standard_normal(4).astype(np.float32)
    structure = np.random.default_rng(number).standard_normal(64).astype(np.float32)
    payload = Payload(
        dataset=key, kind=kind, generation=generation, path=f"{number}.py", text=f"text {number} ü" * 20,
        symbol="a.b", start_line=1, end_line=number + 1, job="j", attempt=1, links=("x.py",),
    )  # fmt: skip
    identifier = point_id(
        key, kind=kind, path=f"{number}.py", start_line=1, end_line=1, content_hash="", chunker_version="",
        encoder_version="",
    )  # fmt: skip
    return Point(
        id=identifier, payload=payload,
        code_bm25=SparseVector.of({7 + number: 1.5, 3: 0.5}) if kind == "chunk" else None,
        text_vector=vector if kind == "chunk" and number % 3 else None,
        structure=structure if kind == "file" else None,
    )  # fmt: skip


def fill(store: VectorStore, key: DatasetKey, shelf: Shelf, *, chunks: int = 300) -> None:
    """A dataset of two generations, of which the second is live and has retired one chunk."""
    store.upsert(point(key, number, 5) for number in range(chunks + 1))
    store.upsert(point(key, number, 5, "file") for number in range(3))
    store.put_lexicon(key, 5, Lexicon.of([{number: 1} for number in range(chunks + 1)]))
    files = np.arange(3, dtype=np.int32)
    graph = StoredGraph(
        paths=("0.py", "1.py", "2.py"), languages=("python",) * 3, symbols=("f", "g", ""), lines=files,
        places=np.zeros((3, 2), dtype=np.float32), sources=files[1:], targets=0 * files[1:],
        kinds=np.zeros(2, dtype=np.uint8), weights=np.ones(2, dtype=np.float32),
    )  # fmt: skip
    store.put_graph(key, 5, graph)
    store.change_lexicon(key, 6, LexiconChange.of(removed=[{chunks: 1}]), on=5)
    store.retire(key, [point(key, chunks, 5).id], 6)
    assert shelf.set(key, record_of(key, 6), None)


class _Numbers:
    """A vector, or none, that equals one that is very near."""

    def __init__(self, vector: Any) -> None:
        self.vector = vector

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, _Numbers)
        if self.vector is None or other.vector is None:
            return self.vector is other.vector
        return bool(np.allclose(self.vector, other.vector, atol=1e-5))

    __hash__ = None  # type: ignore[assignment]


def seen(store: VectorStore, key: DatasetKey, generation: int) -> dict[str, Any]:
    """What readers of *generation* see of a dataset, whatever store and generation it is in.

    Vectors are normalised again by each engine that they come to.
    """
    found: dict[str, Any] = {}
    for kind in KINDS[:2]:
        for page in store.points(key, generation, kind):
            for each in page:
                found[each.id] = (
                    msgspec.structs.replace(each.payload, generation=0, until=0, job="", attempt=0),
                    each.code_bm25,
                    _Numbers(each.text_vector),
                    _Numbers(each.structure),
                )
    lexicon, graph = store.lexicon(key, generation), store.graph(key, generation)
    assert graph is not None
    return found | {
        "lexicon": lexicon,
        "graph": (graph.paths, graph.sources.tolist(), graph.weights.tolist()),
    }


@pytest.fixture(params=["embedded", "asked"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VectorStore]:
    if request.param == "asked":
        with AskedStores(tmp_path / "index", dimensions=4) as owner:
            asking = owner.store()
            asking.open()
            yield asking
        return
    yield from opened(tmp_path / "index")


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[VectorStore]:
    yield from opened(tmp_path / "other")


@pytest.fixture
def another(tmp_path: Path) -> Iterator[VectorStore]:
    yield from opened(tmp_path / "another")


def opened(folder: Path) -> Iterator[VectorStore]:
    made = edge_store(folder, dimensions=4)
    made.open()
    yield made
    made.close()


NO_EDGES = FileGraph.of([], [], LinkStats(imports_resolved=0, imports_external=0, imports_missing=0))


def alone(_key: DatasetKey) -> AbstractContextManager[Check]:
    """Nobody else is there."""
    return nullcontext(unchecked)


def restored(path: Path, store: VectorStore, shelf: Shelf, **options: Any) -> None:
    restore(path, store, shelf, **{"hold": alone, "now": lambda: LATER, **options})


def test_a_snapshot_is_restored_as_it_was_taken(
    tmp_path: Path, store: VectorStore, empty: VectorStore
) -> None:
    here, there, path = Shelf(), Shelf(), tmp_path / "snapshot"
    fill(store, ATLAS, here)
    fill(store, BORA, here, chunks=2)
    take(path, [ATLAS, BORA], store, here, dimensions=4)
    assert not path.with_name("snapshot.part").exists() and path.stat().st_mode & 0o777 == 0o600
    restored(path, empty, there)
    for key in (ATLAS, BORA):
        record = there.live(key)
        assert seen(empty, key, record.generation) == seen(store, key, 6)
        assert (record.published_at, record.commit, record.job_id) == (LATER, "c", "")
        assert empty.size(key) == sum(empty.count(key, record.generation, kind) for kind in KINDS)


def test_what_is_live_is_replaced_only_when_told_to(tmp_path: Path, empty: VectorStore) -> None:
    shelf, path = Shelf(), tmp_path / "snapshot"
    fill(empty, ATLAS, shelf)
    before = seen(empty, ATLAS, 6)
    take(path, [ATLAS], empty, shelf, dimensions=4)
    empty.upsert([point(ATLAS, 900, 7)])
    empty.change_lexicon(ATLAS, 7, LexiconChange.of(added=[{900: 1}]), on=6)
    empty.retire(ATLAS, [point(ATLAS, 0, 5).id], 7)
    assert shelf.set(ATLAS, record_of(ATLAS, 7), shelf.get(ATLAS))
    with pytest.raises(CannotCopy, match="is live here; delete it first, or say --replace"):
        restored(path, empty, shelf)
    assert shelf.live(ATLAS).generation == 7
    restored(path, empty, shelf, replace=True)
    assert seen(empty, ATLAS, shelf.live(ATLAS).generation) == before
    assert len(empty.live_ids(ATLAS, 7, "chunk")) == 300  # readers of what was live see that


def test_a_graph_that_was_too_large_is_left_out_where_it_is_restored_too(
    tmp_path: Path, store: VectorStore
) -> None:
    shelf, path = Shelf(), tmp_path / "snapshot"
    fill(store, ATLAS, shelf, chunks=2)
    graph = store.graph(ATLAS, 6)
    store.put_graph(ATLAS, 6, None)
    take(path, [ATLAS], store, shelf, dimensions=4)
    store.put_graph(ATLAS, 6, graph)  # of what is replaced
    restored(path, store, shelf, replace=True)
    assert store.inspect(ATLAS, shelf.live(ATLAS).generation).graph is GraphState.LEFT_OUT
    assert store.graph(ATLAS, shelf.live(ATLAS).generation) is None


def test_over_a_first_index_without_vectors_nothing_is_restored(tmp_path: Path, empty: VectorStore) -> None:
    shelf, path = Shelf(), tmp_path / "snapshot"
    fill(empty, ATLAS, shelf, chunks=2)
    take(path, [ATLAS], empty, shelf, dimensions=4)
    first = msgspec.structs.replace(record_of(ATLAS, 6), stage=IndexStage.LEXICAL)
    shelf.set(ATLAS, first, shelf.get(ATLAS))
    with pytest.raises(CannotCopy, match="has no vectors yet: let its job end, or delete the dataset"):
        restored(path, empty, shelf, replace=True)
    assert shelf.live(ATLAS) == first


def test_what_was_deleted_comes_back_above_its_deletion(tmp_path: Path, empty: VectorStore) -> None:
    shelf, path = Shelf(), tmp_path / "snapshot"
    fill(empty, ATLAS, shelf)
    take(path, [ATLAS], empty, shelf, dimensions=4)
    empty.drop(ATLAS, 10**11, most=10**6, forget=lambda chunks: None)
    deleted = DeletedDataset(
        tenant="acme", project="default", dataset="atlas", generation=10**11, deleted_at=NOW
    )
    assert shelf.set(ATLAS, deleted, shelf.get(ATLAS))
    restored(path, empty, shelf)
    found = shelf.live(ATLAS).generation
    assert found > 10**11
    assert rubbish(None, [found], datetime.now(UTC)) == Rubbish(), "nobody takes it for one begun long ago"


@pytest.mark.parametrize("end", [0.2, 0.7, 0.99])
def test_of_a_file_that_is_cut_off_nothing_half_is_restored(
    tmp_path: Path, empty: VectorStore, end: float
) -> None:
    here, there, path = Shelf(), Shelf(), tmp_path / "snapshot"
    fill(empty, ATLAS, here)
    take(path, [ATLAS], empty, here, dimensions=4)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * end)])
    empty.drop(ATLAS, 6, most=10**6, forget=lambda chunks: None)
    with pytest.raises(BadSnapshot, match="cut off"):
        restored(path, empty, there)
    assert not there.entries and empty.size(ATLAS) == 0


def test_a_file_that_was_changed_is_refused(tmp_path: Path, empty: VectorStore) -> None:
    here, path = Shelf(), tmp_path / "snapshot"
    fill(empty, ATLAS, here)
    take(path, [ATLAS], empty, here, dimensions=4)
    data = bytearray(path.read_bytes())
    for place in range(60, len(data), len(data) // 7):
        changed = bytearray(data)
        changed[place] ^= 0xFF
        path.write_bytes(changed)
        there = Shelf()
        with pytest.raises(BadSnapshot):
            restored(path, empty, there, replace=True)
        assert not there.entries
    path.write_bytes(b"something else")
    with pytest.raises(BadSnapshot, match="is no snapshot of Pharos"):
        restored(path, empty, Shelf())


@pytest.mark.parametrize("through", ["embedded", "asked"])
def test_vectors_of_another_length_are_copied_and_restored_as_they_are(tmp_path: Path, through: str) -> None:
    """Another encoder was set, and not every dataset was indexed again since."""
    folder, here, there, path = tmp_path / "index", Shelf(), Shelf(), tmp_path / "snapshot"
    for before in opened(folder):
        fill(before, ATLAS, here, chunks=2)
    with ExitStack() as stack:

        def store_in(place: Path) -> VectorStore:
            if through == "asked":
                engine = edge_volumes(place, dimensions=6)
                found = stack.enter_context(AskedStores(place, dimensions=6, engine=engine)).store()
            else:
                found = edge_store(place, dimensions=6)
                stack.callback(found.close)
            found.open()
            return found

        store = store_in(folder)
        longer = np.arange(1, 7, dtype=np.float32)
        store.upsert([msgspec.structs.replace(point(BORA, 1, 5), text_vector=longer)])
        store.put_lexicon(BORA, 5, Lexicon.of([{1: 1}]))
        store.put_graph(
            BORA,
            5,
            StoredGraph.of(
                NO_EDGES, np.zeros((0, 64)), languages=[], lines=np.zeros(0, np.int32), symbols=[]
            ),
        )
        assert here.set(BORA, record_of(BORA, 5), None)
        take(path, [ATLAS, BORA], store, here, dimensions=6)
        another = store_in(tmp_path / "other")
        restored(path, another, there)
        target = local_mode_store(None, dimensions=6)
        target.open()
        stack.callback(target.close)
        for key, generation in ((ATLAS, 6), (BORA, 5)):
            wanted = seen(store, key, generation)
            assert seen(another, key, there.live(key).generation) == wanted
            first = migrate(here.live(key), store, target)
            assert seen(target, key, generation) == wanted
            assert migrate(here.live(key), store, target) == msgspec.structs.replace(first, sent=0)
        # Again, over what is live: nothing is there twice.
        restored(path, another, there, replace=True)
        for key, generation in ((ATLAS, 6), (BORA, 5)):
            assert seen(another, key, there.live(key).generation) == seen(store, key, generation)
            number = there.live(key).generation
            assert another.collect(key, number) >= 0
            assert another.size(key) == sum(another.count(key, number, kind) for kind in KINDS)


def wire(key: DatasetKey) -> Points:
    return Points(points=[to_wire(point(key, 1, 5))])


BOMB = b64encode(zlib.compress(b"\0" * (80 << 20))).decode()
END = DatasetClosing(chunks=1, files=0)


@pytest.mark.parametrize(
    ("record", "frames"),
    [
        (BORA, [wire(BORA), END]),  # live here, and not in the list of what the file holds
        (ATLAS, [wire(BORA), END]),  # a point of another dataset
        (ATLAS, [Points(points=[to_wire(point(ATLAS, 1, 5, "lexicon"))]), END]),
        (ATLAS, [Points(points=[msgspec.structs.replace(wire(ATLAS).points[0], text=b"123")]), END]),
        (ATLAS, [wire(ATLAS), Words(documents=1, terms=b"1", counts=b""), END]),
        (ATLAS, [wire(ATLAS), GraphPiece(text="?"), END]),
        (ATLAS, [wire(ATLAS), GraphPiece(text=BOMB), END]),
        (ATLAS, [wire(ATLAS), *[GraphPiece(text="")] * 300, END]),
    ],
)
def test_a_file_that_says_what_nobody_wrote_changes_nothing(
    tmp_path: Path, empty: VectorStore, record: DatasetKey, frames: list[Frame]
) -> None:
    shelf, path = Shelf(), tmp_path / "snapshot"
    fill(empty, BORA, shelf, chunks=2)
    before, size = seen(empty, BORA, 6), empty.size(BORA)
    with SnapshotWriter(path) as writer:
        names = ((ATLAS.tenant, ATLAS.project, ATLAS.dataset),)
        writer.write(Opening(format=1, text_dimensions=4, structure_dimensions=64, datasets=names))
        writer.write(DatasetOpening(record=record_of(record, 5)))
        for frame in frames:
            writer.write(frame)
    with pytest.raises(BadSnapshot):
        restored(path, empty, shelf)
    assert (shelf.live(BORA).generation, seen(empty, BORA, 6), empty.size(BORA)) == (6, before, size)
    assert shelf.entries.keys() == {BORA} and empty.size(ATLAS) == 0


def test_a_file_of_another_beside_a_snapshot_does_not_become_it(tmp_path: Path, empty: VectorStore) -> None:
    shelf, path = Shelf(), tmp_path / "snapshot"
    fill(empty, ATLAS, shelf, chunks=1)
    seen_by_all, elsewhere = path.with_name("snapshot.part"), tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    seen_by_all.symlink_to(elsewhere)
    take(path, [ATLAS], empty, shelf, dimensions=4)
    assert not path.is_symlink() and elsewhere.read_text() == "mine"
    seen_by_all.write_text("left")
    seen_by_all.chmod(0o666)
    take(path, [ATLAS], empty, shelf, dimensions=4)
    assert path.stat().st_mode & 0o777 == 0o600


def test_of_a_snapshot_that_cannot_be_written_to_its_end_nothing_is_left(
    tmp_path: Path, empty: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = Shelf()
    fill(empty, ATLAS, shelf, chunks=1)

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        take(tmp_path / "snapshot", [ATLAS], empty, shelf, dimensions=4)
    assert not list(tmp_path.glob("*snapshot*")) and not list(tmp_path.glob("*.part"))


def test_a_place_where_no_snapshot_can_be_is_named_as_it_was_given(
    tmp_path: Path, empty: VectorStore
) -> None:
    for path, told in ((tmp_path, tmp_path), (tmp_path / "no" / "snapshot", tmp_path / "no")):
        with pytest.raises(OSError) as raised:
            take(path, [ATLAS], empty, Shelf(), dimensions=4)
        assert raised.value.filename == str(told)
    assert not list(tmp_path.glob("*snapshot*")) and not list(tmp_path.glob("*.part"))


def test_a_dataset_that_is_replaced_while_it_is_read_is_read_again(
    tmp_path: Path, empty: VectorStore, another: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there, path = Shelf(), Shelf(), tmp_path / "snapshot"
    fill(empty, ATLAS, here)
    read = empty.points

    def points(key: DatasetKey, generation: int, kind: Kind) -> Iterator[list[Point]]:
        if here.live(ATLAS).generation == 6:
            advance(empty, here)
        return read(key, generation, kind)

    with monkeypatch.context() as patch:
        patch.setattr(empty, "points", points)
        assert take(path, [ATLAS], empty, here, dimensions=4)[ATLAS].chunks == 290
    restored(path, another, there)
    assert seen(another, ATLAS, there.live(ATLAS).generation) == seen(empty, ATLAS, 7)
    assert another.generations(ATLAS).keys() == {there.live(ATLAS).generation}


def advance(store: VectorStore, shelf: Shelf) -> None:
    """Another generation, and what the one before saw alone is collected at once."""
    store.retire(ATLAS, [point(ATLAS, number, 5).id for number in range(10)], 7)
    store.change_lexicon(ATLAS, 7, LexiconChange.of(removed=[{n: 1} for n in range(10)]), on=6)
    shelf.entries[ATLAS] = Entry("atlas", record_of(ATLAS, 7), 99)
    store.collect(ATLAS, 7)


def test_a_restore_over_which_somebody_published_leaves_nothing(
    tmp_path: Path, empty: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there, path = Shelf(), Shelf(), tmp_path / "snapshot"
    fill(empty, ATLAS, here)
    take(path, [ATLAS], empty, here, dimensions=4)
    empty.drop(ATLAS, 6, most=10**6, forget=lambda chunks: None)
    monkeypatch.setattr(there, "set", lambda *_: False)
    with pytest.raises(CannotCopy, match="was changed meanwhile; restore it again"):
        restored(path, empty, there)
    assert empty.size(ATLAS) == 0


def test_a_restore_of_which_nobody_knows_whether_it_is_live_is_not_taken_away(
    tmp_path: Path, empty: VectorStore
) -> None:
    class Lost(Shelf):
        """Its answer to a write is lost."""

        def set(self, key: DatasetKey, record: DatasetRecord, after: Entry[DatasetRecord] | None) -> bool:
            super().set(key, record, after)
            raise FateUnknown("no answer")

    here, there, path = Shelf(), Lost(), tmp_path / "snapshot"
    fill(empty, ATLAS, here, chunks=2)
    take(path, [ATLAS], empty, here, dimensions=4)
    empty.drop(ATLAS, 6, most=10**6, forget=lambda chunks: None)
    with pytest.raises(FateUnknown):
        restored(path, empty, there)
    assert empty.count(ATLAS, there.live(ATLAS).generation, "chunk") == 2


def test_a_restore_that_loses_its_hold_on_the_dataset_publishes_nothing(
    tmp_path: Path, empty: VectorStore
) -> None:
    here, there, path = Shelf(), Shelf(), tmp_path / "snapshot"
    fill(empty, ATLAS, here, chunks=2)
    take(path, [ATLAS], empty, here, dimensions=4)
    empty.drop(ATLAS, 6, most=10**6, forget=lambda chunks: None)
    uses = 0

    def check() -> None:
        nonlocal uses
        uses += 1
        if uses > 5:
            raise LockLost

    @contextmanager
    def hold(key: DatasetKey) -> Iterator[Check]:
        assert key == ATLAS
        yield check

    with pytest.raises(LockLost):
        restored(path, empty, there, hold=hold)
    assert not there.entries


def test_a_migrated_dataset_is_the_same_there_and_is_not_sent_twice(
    tmp_path: Path, store: VectorStore
) -> None:
    shelf = Shelf()
    fill(store, ATLAS, shelf)
    target = local_mode_store(None, dimensions=4)
    target.open()
    first = migrate(shelf.live(ATLAS), store, target)
    assert seen(target, ATLAS, 6) == seen(store, ATLAS, 6)
    assert target.size(ATLAS) == first.points == first.sent
    assert migrate(shelf.live(ATLAS), store, target) == msgspec.structs.replace(first, sent=0)
    # What was interrupted goes on, and what is no longer here goes.
    target.retire(ATLAS, [point(ATLAS, 1, 5).id], 6)
    target.collect(ATLAS, 6)
    target.upsert([point(ATLAS, 999, 5)])
    assert migrate(shelf.live(ATLAS), store, target) == msgspec.structs.replace(first, sent=1)
    assert target.size(ATLAS) == first.points
    target.close()


def test_a_point_that_is_another_there_is_noticed(empty: VectorStore) -> None:
    shelf = Shelf()
    fill(empty, ATLAS, shelf, chunks=9)
    target = local_mode_store(None, dimensions=4)
    target.open()
    migrate(shelf.live(ATLAS), empty, target)
    target.add_text_vectors([point(ATLAS, 1, 5).id], np.array([[9, 0, 0, 0]], dtype=np.float32))
    with pytest.raises(CannotCopy, match="is not there what it is here"):
        migrate(shelf.live(ATLAS), empty, target)
    target.close()


def test_a_dataset_that_is_gone_is_said_by_name(tmp_path: Path, empty: VectorStore) -> None:
    with pytest.raises(CannotCopy, match="There is no dataset atlas"):
        take(tmp_path / "snapshot", [ATLAS], empty, Shelf(), dimensions=4)
    assert list(tmp_path.glob("snapshot*")) == []
