"""What is stored while other files are parsed is what would be stored afterwards, and it always ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pharos_embedder import storing_ahead
from pharos_embedder.edge_store import edge_store
from pharos_embedder.linking import FileEdge, FileGraph, LinkStats
from pharos_embedder.packed_files import PackedFile, pack
from pharos_embedder.parsing import parse
from pharos_embedder.points import Origin
from pharos_embedder.ports import Stopped, unchecked
from pharos_embedder.spool import Spool
from pharos_embedder.storing import store_stage, store_structure, store_words
from pharos_embedder.storing_ahead import StoringAhead
from pharos_embedder.syntax import ParseOptions
from pharos_embedder.vectors import DatasetKey, Point, StoreError, VectorStore

SOURCES = Path(__file__).parent.parent / "src" / "pharos_embedder"
ORIGIN = Origin(
    dataset=DatasetKey("acme", "default", "d"),
    generation=7,
    scope="project",
    repository="h/o/r",
    encoder="fake@1",
)
SECONDS_MAX = 20.0


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storing_ahead, "WINDOW_CHUNKS", 8)
    monkeypatch.setattr(storing_ahead, "WINDOW_FILES", 2)


@pytest.fixture(scope="module")
def files() -> list[PackedFile]:
    options = ParseOptions(size_chars=400, overlap_chars=40)
    names = ("app.py", "languages.py", "ports.py", "py.typed", "__main__.py", "linking.py")
    found = [pack(parse(name, "python", (SOURCES / name).read_bytes(), options)) for name in names]
    minified = ("var a=1;" * 60 + "\n").encode() * 3  # one line in pieces, of which some are the same
    return [*found, pack(parse("min.js", "javascript", minified, options))]


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[tuple[VectorStore, VectorStore]]:
    made = [edge_store(tmp_path / name, dimensions=4) for name in ("ahead", "after")]
    for store in made:
        store.open()
    yield made[0], made[1]
    for store in made:
        store.close()


def finish(files: Sequence[PackedFile], path: Path, store: VectorStore, *, has_chunks: bool) -> int:
    """Store the rest of the index of *files*, or all of it; how many chunks it has."""

    def silent(*_: Any, **__: Any) -> None:
        """Nobody asked."""

    with Spool(path) as spool:
        for file in files:
            spool.add(file)
        spool.finish(10_000)
        edges = [FileEdge(source=0, target=1, kind="imports", weight=1.0)]
        stats = LinkStats(imports_resolved=1, imports_external=0, imports_missing=0)
        graph = FileGraph.of(spool.paths, edges, stats)
        structure = np.eye(len(spool.paths), 64, dtype=np.float32)
        if not has_chunks:
            return len(store_stage(spool, graph, structure, 0, ORIGIN, store, silent, unchecked).chunks)
        chunks = store_words(spool, ORIGIN, store, unchecked)
        assert store_structure(spool, graph, structure, ORIGIN, store, unchecked) == ()
        return len(chunks)


def stored(store: VectorStore) -> dict[str, tuple[object, ...]]:
    found: dict[str, Point] = {}
    for kind in ("chunk", "file"):
        for page in store.points(ORIGIN.dataset, ORIGIN.generation, kind):  # type: ignore[arg-type]
            found |= {point.id: point for point in page}
    return {name: (point.payload, point.code_bm25) for name, point in found.items()}


def test_the_same_is_stored_ahead_as_afterwards(
    files: list[PackedFile], stores: tuple[VectorStore, VectorStore], tmp_path: Path
) -> None:
    ahead, after = stores
    with StoringAhead(ORIGIN, ahead, unchecked, chunks_max=10_000) as storing:
        for file in files:
            storing.add(file)
    number = finish(files, tmp_path / "1", ahead, has_chunks=True)
    assert number == finish(files, tmp_path / "2", after, has_chunks=False) > 40
    assert stored(ahead) == stored(after)
    assert ahead.count(ORIGIN.dataset, ORIGIN.generation, "chunk") == number
    assert ahead.lexicon(ORIGIN.dataset, 7) == after.lexicon(ORIGIN.dataset, 7)
    graphs = [store.graph(ORIGIN.dataset, 7) for store in stores]
    assert graphs[0] is not None and graphs[1] is not None
    assert graphs[0].paths == graphs[1].paths


def test_what_an_unfinished_run_left_is_discarded_first(
    files: list[PackedFile], stores: tuple[VectorStore, VectorStore]
) -> None:
    for part in (files, files[:1]):
        with StoringAhead(ORIGIN, stores[0], unchecked, chunks_max=10_000) as storing:
            for file in part:
                storing.add(file)
    found = stores[0].payloads(ORIGIN.dataset, stores[0].live_ids(ORIGIN.dataset, 7, "chunk"))
    assert {each.path for each in found} == {files[0].path}


def test_no_more_chunks_are_stored_than_may_be(
    files: list[PackedFile], stores: tuple[VectorStore, VectorStore]
) -> None:
    most = 20
    with StoringAhead(ORIGIN, stores[0], unchecked, chunks_max=most) as storing:
        give(storing, files, times=3)
    assert (
        stores[0].count(ORIGIN.dataset, ORIGIN.generation, "chunk")
        <= most
        < sum(len(file.chunks()) for file in files)
    )


class Waiting:
    """A store that waits before it takes anything, and may fail then."""

    def __init__(self, error: Exception | None = None) -> None:
        self.go_on = threading.Event()
        self.taken = 0
        self._error = error
        self._check = unchecked

    def guarded(self, check: Any) -> Waiting:
        self._check = check
        return self

    def discard_unpublished(self, dataset: DatasetKey, live: int) -> None:
        """Nothing is left."""

    def upsert(self, points: Iterator[Point]) -> None:
        while not self.go_on.wait(0.01):
            self._check()
        if self._error is not None:
            raise self._error
        self.taken += len(list(points))


def give(storing: StoringAhead, files: Sequence[PackedFile], *, times: int = 20) -> None:
    for _ in range(times):
        for file in files:
            storing.add(file)


def ended() -> bool:
    return not any(each.name == "storing-ahead" for each in threading.enumerate())


def test_who_parses_waits_for_the_store_and_hears_of_its_error(files: list[PackedFile]) -> None:
    waiting: Any = Waiting(StoreError("the disk is full"))
    given: list[int] = []
    threading.Timer(0.3, waiting.go_on.set).start()
    with (
        pytest.raises(StoreError, match="the disk is full"),
        StoringAhead(ORIGIN, waiting, unchecked, chunks_max=10_000) as storing,
    ):
        for number in range(1_000):
            storing.add(files[0])
            given.append(number)
    assert ended() and len(given) < 2 * (storing_ahead.WINDOWS_WAITING_MAX + 2)


def test_who_parses_says_when_it_waits_for_the_store(files: list[PackedFile]) -> None:
    waiting: Any = Waiting()
    times: list[str] = []

    @contextmanager
    def waits() -> Iterator[None]:
        times.append("waits")
        if len(times) > 1:  # the first is what was left to discard
            waiting.go_on.set()
        yield
        times.append("goes on")

    with StoringAhead(ORIGIN, waiting, unchecked, chunks_max=10_000, waiting=waits) as storing:
        assert times == ["waits", "goes on"]
        give(storing, files[:1], times=10 * storing_ahead.WINDOWS_WAITING_MAX)
        before = len(times)
        assert before >= 4
    assert times[before:] == ["waits", "goes on"] and times[0::2] == ["waits"] * (len(times) // 2)


def test_an_error_of_the_last_chunks_is_heard_too(files: list[PackedFile]) -> None:
    waiting: Any = Waiting(StoreError("the disk is full"))
    waiting.go_on.set()
    with pytest.raises(StoreError), StoringAhead(ORIGIN, waiting, unchecked, chunks_max=10_000) as storing:
        storing.add(files[3])
    assert ended()


def test_a_parser_that_fails_ends_the_storing(files: list[PackedFile]) -> None:
    waiting: Any = Waiting()
    with (
        pytest.raises(ZeroDivisionError),
        StoringAhead(ORIGIN, waiting, unchecked, chunks_max=10_000) as storing,
    ):
        give(storing, files[:1], times=storing_ahead.WINDOWS_WAITING_MAX)
        raise ZeroDivisionError
    assert ended() and waiting.taken == 0


def test_whoever_is_to_stop_stops_while_it_waits(files: list[PackedFile]) -> None:
    waiting: Any = Waiting()
    stop = threading.Event()

    def check() -> None:
        if stop.is_set():
            raise Stopped("asked to")

    threading.Timer(0.2, stop.set).start()
    with pytest.raises(Stopped), StoringAhead(ORIGIN, waiting, check, chunks_max=10_000) as storing:
        give(storing, files[:1], times=1_000)
    assert ended() and waiting.taken == 0
