"""What only the embedded store promises: it survives kill -9, has one owner, optimizes beside its readers."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import pytest

from pharos_embedder import edge_store as edge_module
from pharos_embedder.bm25 import SparseVector
from pharos_embedder.edge_store import (
    GIVEN_WAY_MAX,
    OPTIMIZE_WRITES_MIN,
    EdgeEngine,
    Manifest,
    edge_store,
    worth_optimizing,
)
from pharos_embedder.generations import GenerationStore
from pharos_embedder.vectors import (
    DatasetKey,
    Payload,
    Point,
    Searched,
    Selection,
    StoreError,
    StoreLocked,
    of_dataset,
    point_id,
)
from pharos_embedder.volumes import Volumes

DATASET = DatasetKey("acme", "default", "atlas")
LIVE = Selection(datasets=(Searched(dataset=DATASET, generation=1, has_dense=True),))
WORDS = SparseVector.of({7: 1.0})

WRITER = """
import sys, time
from pathlib import Path
from pharos_embedder.edge_store import edge_store
sys.path.insert(0, {tests!r})
from test_edge_store import points
store = edge_store(Path({folder!r}), dimensions=4)
store.open()
for start in range(1, 1000):
    store.upsert(points(start * 100, 100))
    print(start * 100, flush=True)
    if start == 5:
        store.retire(points(0, 1)[0].payload.dataset, [point.id for point in points(100, 100)], 2)
        print("retired", flush=True)
        time.sleep(60)
"""


def points(first: int, number: int) -> list[Point]:
    return [
        Point(
            id=point_id(
                DATASET, kind="chunk", path="a.py", start_line=line, end_line=line, content_hash="c",
                chunker_version="1", encoder_version="m",
            ),
            payload=Payload(
                dataset=DATASET, kind="chunk", generation=1, path="a.py", start_line=line, end_line=line,
            ),
            code_bm25=WORDS,
            text_vector=np.asarray([1, line % 7, line % 5, line % 3], dtype=np.float32),
        )
        for line in range(first, first + number)
    ]  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Iterator[GenerationStore]:
    store = edge_store(tmp_path / "index", dimensions=4)
    store.open()
    yield store
    store.close()


@pytest.fixture
def writer(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that has written 500 points, retired 100 of them, and has the index open."""
    program = WRITER.format(tests=str(Path(__file__).parent), folder=str(tmp_path / "index"))
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "retired":
            break
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_acknowledged_writes_survive_kill_9_and_the_lock_does_not(
    tmp_path: Path, writer: "subprocess.Popen[str]"
) -> None:
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    store = edge_store(tmp_path / "index", dimensions=4)
    store.open()
    assert store.count(DATASET, 1, "chunk") == 500
    assert store.count(DATASET, 2, "chunk") == 400
    assert len(store.dense(np.asarray([1, 0, 0, 0], dtype=np.float32), LIVE, 1000)) == 500
    store.close()


def test_a_second_process_is_refused_and_told_which_one_holds_the_index(
    tmp_path: Path, writer: "subprocess.Popen[str]"
) -> None:
    with pytest.raises(StoreLocked, match=f"open in process {writer.pid}"):
        edge_store(tmp_path / "index", dimensions=4).open()


def test_the_same_process_is_refused_a_second_open(tmp_path: Path, store: GenerationStore) -> None:
    with pytest.raises(StoreError, match="already open"):
        store.open()
    with pytest.raises(StoreLocked, match=f"open in process {os.getpid()}"):
        edge_store(tmp_path / "index", dimensions=4).open()


def test_an_index_of_an_earlier_release_gets_the_fields_that_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    today = edge_module._KEYWORDS
    monkeypatch.setattr(edge_module, "_KEYWORDS", tuple(field for field in today if field != "job"))
    old = edge_store(tmp_path / "index", dimensions=4)
    old.open()
    old.upsert(points(1, 3))
    old.close()
    monkeypatch.setattr(edge_module, "_KEYWORDS", today)
    engine = EdgeEngine(tmp_path / "index", dimensions=4)
    engine.open()
    assert set(today) <= set(engine._shard.info().payload_schema)
    assert engine.counts("kind", of_dataset(DATASET)) == {"chunk": 3}
    engine.close()


def test_an_index_of_another_format_is_refused_and_kept(tmp_path: Path, store: GenerationStore) -> None:
    store.upsert(points(1, 1))
    store.close()
    manifest = tmp_path / "index" / "index.json"
    facts = msgspec.json.decode(manifest.read_bytes())
    manifest.write_bytes(msgspec.json.encode(facts | {"format": 99}))
    with pytest.raises(StoreError, match="format 99"):
        store.open()
    manifest.write_bytes(msgspec.json.encode(facts))
    store.open()
    assert store.count(DATASET, 1, "chunk") == 1


def test_a_damaged_index_is_named_and_nothing_is_made_in_its_place(
    tmp_path: Path, store: GenerationStore
) -> None:
    store.close()
    shard = tmp_path / "index" / "shard-0"
    shard.rename(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match=f"{tmp_path}.*does not exist"):
        store.open()
    (tmp_path / "elsewhere").rename(shard)
    store.open()


def test_a_half_made_index_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "index" / "shard-0" / "segments").mkdir(parents=True)
    store = edge_store(tmp_path / "index", dimensions=4)
    store.open()
    store.upsert(points(1, 1))
    store.close()


@pytest.mark.parametrize(
    ("points", "written", "worth"),
    [
        (0, 0, False),
        (100, OPTIMIZE_WRITES_MIN - 1, False),
        (100, OPTIMIZE_WRITES_MIN, True),
        (50_000, 4_999, False),
        (50_000, 5_000, True),
    ],
)
def test_optimizing_is_worth_it_after_a_tenth_was_written(points: int, written: int, worth: bool) -> None:
    assert worth_optimizing(points, written) is worth


def test_optimizing_swaps_the_shard_and_loses_nothing(tmp_path: Path, store: GenerationStore) -> None:
    store.upsert(points(1, 2_000))
    store.retire(DATASET, [point.id for point in points(1, 800)], 2)
    store.collect(DATASET, 2)
    before = [hit.id for hit in store.sparse(WORDS, LIVE, 1000)]
    reads, stop = [], threading.Event()

    def read() -> None:
        while not stop.wait(0.02):
            reads.append(store.count(DATASET, 1, "chunk"))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert store.optimize() is True
    finally:
        stop.set()
        reader.join()
    assert set(reads) == {1_200}
    assert store.optimize() is False
    assert [folder.name for folder in (tmp_path / "index").glob("shard-*")] == ["shard-1"]
    assert len(store.sparse(WORDS, LIVE, 1000)) == len(before)
    store.upsert(points(5_000, 10))
    store.close()
    store.open()
    assert store.count(DATASET, 1, "chunk") == 1_210


def engine_of(store: GenerationStore) -> EdgeEngine:
    """That of its only volume."""
    volumes = store._engine
    assert isinstance(volumes, Volumes)
    engine = volumes._current
    assert isinstance(engine, EdgeEngine)
    return engine


def optimizing(store: GenerationStore) -> Future[bool]:
    """An optimization in a thread, whose copy is made: what is written from now on is not in it."""
    engine = engine_of(store)
    pool = ThreadPoolExecutor(1)
    outcome = pool.submit(store.optimize)
    pool.shutdown(wait=False)
    ends = time.monotonic() + 30
    while engine._meanwhile is None and not outcome.done() and time.monotonic() < ends:
        time.sleep(0.002)
    return outcome


def test_what_is_written_while_a_store_is_optimized_is_there_afterwards(
    tmp_path: Path, store: GenerationStore
) -> None:
    store.upsert(points(1, 1_500))
    outcome = optimizing(store)
    store.upsert(points(5_000, 600))
    store.retire(DATASET, [point.id for point in points(1, 100)], 2)
    store.collect(DATASET, 2)
    other_way = np.array([[0, 0, 0, -1]], dtype=np.float32)
    store.add_text_vectors([point.id for point in points(101, 1)], other_way)
    assert not outcome.done()  # all of it was written beside the copy
    assert outcome.result(60) is True
    assert [folder.name for folder in (tmp_path / "index").glob("shard-*")] == ["shard-1"]
    assert store.count(DATASET, 1, "chunk") == 2_000
    assert store.dense(other_way[0], LIVE, 1)[0].id == points(101, 1)[0].id
    store.close()
    store.open()
    assert store.count(DATASET, 1, "chunk") == 2_000


def test_more_is_written_than_can_be_repeated_and_the_store_stays_as_it_is(
    tmp_path: Path, store: GenerationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pharos_embedder.edge_store.REPEATED_POINTS_MAX", 100)
    store.upsert(points(1, 1_500))
    outcome = optimizing(store)
    store.upsert(points(5_000, 101))
    assert outcome.result(60) is False
    assert [folder.name for folder in (tmp_path / "index").glob("shard-*")] == ["shard-0"]
    assert store.count(DATASET, 1, "chunk") == 1_601
    assert store.optimize() is True


def test_a_writer_stops_the_copying_but_not_for_ever(
    tmp_path: Path, store: GenerationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(store)
    store.upsert(points(1, 1_500))
    monkeypatch.setattr(engine, "_writers_waiting", 1)
    assert [store.optimize() for _ in range(GIVEN_WAY_MAX)] == [False] * GIVEN_WAY_MAX
    assert [folder.name for folder in (tmp_path / "index").glob("shard-*")] == ["shard-0"]
    assert store.optimize() is True


def test_a_store_that_takes_long_to_copy_gives_way_again(
    store: GenerationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(store)
    monkeypatch.setattr("pharos_embedder.edge_store.COPY_SECONDS_MAX", 0)
    store.upsert(points(1, 1_500))
    monkeypatch.setattr(engine, "_writers_waiting", 1)
    assert not any(store.optimize() for _ in range(2 * GIVEN_WAY_MAX))
    monkeypatch.setattr(engine, "_writers_waiting", 0)
    assert store.optimize() is True


def test_closing_ends_an_optimization(tmp_path: Path, store: GenerationStore) -> None:
    store.upsert(points(1, 1_500))
    outcome = optimizing(store)
    store.close()
    assert outcome.result(0) is False
    assert [folder.name for folder in (tmp_path / "index").glob("shard-*")] == ["shard-0"]
    store.open()
    assert store.count(DATASET, 1, "chunk") == 1_500


def test_what_was_optimized_is_not_optimized_again_after_a_restart(store: GenerationStore) -> None:
    store.upsert(points(1, 1_500))
    assert store.optimize() is True
    store.close()
    store.open()
    assert store.optimize() is False


def test_a_store_that_is_open_does_not_say_how_much_was_written_since_it_was_optimized(
    tmp_path: Path, store: GenerationStore
) -> None:
    store.upsert(points(1, 1_500))
    assert store.optimize() is True
    store.close()
    store.open()
    manifest = msgspec.json.decode((tmp_path / "index" / "index.json").read_bytes(), type=Manifest)
    assert manifest.written is None  # whoever opens it after a kill has to look
    assert manifest.optimized_at is not None
