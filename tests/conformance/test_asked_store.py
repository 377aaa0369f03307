"""What only a store that is asked over the bus promises: no write is lost, or done behind one's back."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from pharos_contracts.rpc import POINTS
from pharos_embedder import store_protocol as protocol
from pharos_embedder.asked_store import AskingTimes
from pharos_embedder.bm25 import SparseVector
from pharos_embedder.edge_store import EdgeEngine, edge_store
from pharos_embedder.generations import PAGE, WRITE_BATCH
from pharos_embedder.store_owner import StoreOwner
from pharos_embedder.store_protocol import (
    Answer,
    Count,
    Counted,
    CountedBy,
    Declined,
    Delete,
    Done,
    FindNearest,
    Full,
    Greet,
    Late,
    Put,
    Question,
    SetText,
    WirePoint,
    decode_answer,
    encode_question,
    enveloped,
    puts,
)
from pharos_embedder.vectors import (
    AllOf,
    Condition,
    DatasetKey,
    Match,
    Payload,
    Point,
    StoreClosed,
    StoreError,
    StoreFull,
    StoreUnavailable,
    point_id,
)
from tests.support.asked_stores import AskedStores

DATASET = DatasetKey("acme", "default", "atlas")
ANY = Match("kind", ("chunk",))

OWNER = """
import asyncio, sys
from pathlib import Path
from pharos_embedder.edge_store import EdgeEngine
from pharos_embedder.store_owner import StoreOwner
from pharos_service.bus import connect
from pharos_service.settings import ServiceSettings

async def main():
    engine = EdgeEngine(Path(sys.argv[1]), dimensions=4)
    engine.open()
    bus = await connect(ServiceSettings(nats_url=sys.argv[2]), "owner")
    await StoreOwner(engine, dimensions=4).serve(bus)

asyncio.run(main())
"""


def points(first: int, number: int, *, text: str = "", vector: bool = False) -> list[Point]:
    return [
        Point(
            id=point_id(
                DATASET, kind="chunk", path="a.py", start_line=line, end_line=line, content_hash="c",
                chunker_version="1", encoder_version="m",
            ),
            payload=Payload(
                dataset=DATASET, kind="chunk", generation=1, path="a.py", start_line=line, end_line=line,
                text=text,
            ),
            code_bm25=SparseVector.of({7: 1.0}),
            text_vector=np.asarray([1, line, 0, 0], dtype=np.float32) if vector else None,
        )
        for line in range(first, first + number)
    ]  # fmt: skip


class WatchedEngine(EdgeEngine):
    """An engine that notes what it writes, and can be held up before it does."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, dimensions=4)
        self.written: list[str] = []
        self.read: list[int] = []
        self.may_write = threading.Event()
        self.may_write.set()
        self.error: Exception | None = None

    def put(self, points: Sequence[Point]) -> None:
        self.written.append("put")
        self.may_write.wait(20)
        if self.error is not None:
            raise self.error
        super().put(points)

    def payloads(self, condition: Condition, *, limit: int) -> list[Payload]:
        found = super().payloads(condition, limit=limit)
        self.read.append(len(found))
        return found

    def delete(self, ids: Sequence[str], condition: Condition) -> None:
        self.written.append("delete")
        super().delete(ids, condition)


@pytest.fixture
def engine(tmp_path: Path) -> WatchedEngine:
    return WatchedEngine(tmp_path / "index")


@pytest.fixture
def asked(tmp_path: Path, engine: WatchedEngine) -> Iterator[AskedStores]:
    with AskedStores(tmp_path / "index", dimensions=4, engine=engine) as stores:
        yield stores
        engine.may_write.set()


def later(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_points_go_in_parts_that_the_bus_takes_and_come_back_in_as_many(
    asked: AskedStores, engine: WatchedEngine
) -> None:
    store = asked.store()
    store.open()
    large = points(1, 40, text="x" * 60_000)  # 2.4 MB, three times what one message may have
    assert store.upsert(large) == 40
    read = store.payloads(DATASET, [point.id for point in large])
    assert sorted(read, key=lambda each: each.start_line) == [point.payload for point in large]
    assert engine.read == [40, 10, 10, 10, 10]  # once in vain, and then no more often than needed


def test_a_part_that_is_still_too_large_is_cut_again(asked: AskedStores) -> None:
    store = asked.store()
    store.open()
    sizes = [700_000, 700_000, 10, 10, 10, 10, 10, 10]
    uneven = [points(line, 1, text="x" * size)[0] for line, size in enumerate(sizes, start=1)]
    store.upsert(uneven)
    read = store.payloads(DATASET, [point.id for point in uneven])
    assert sorted(len(each.text) for each in read) == sorted(sizes)


def test_a_point_that_no_message_holds_is_refused_and_nothing_of_it_is_sent(
    asked: AskedStores, engine: WatchedEngine
) -> None:
    store = asked.store()
    store.open()
    with pytest.raises(StoreError, match="larger than the 768 KiB"):
        store.upsert(points(1, 1, text="x" * protocol.MESSAGE_BYTES_MAX))
    assert engine.written == []


def test_no_question_of_many_points_is_larger_than_a_part_and_its_largest_point() -> None:
    sizes = [100, 50_000, 200_000, 500_000, 10] * 4
    many = [points(line, 1, text="x" * size)[0] for line, size in enumerate(sizes, start=1)]
    parts = list(puts(many))
    assert all(len(part) < protocol.PART_BYTES + 2_000 or len(part) < 502_000 for part in parts)
    decoded = [msgspec.msgpack.decode(part, type=Put) for part in parts]
    assert [point.id for part in decoded for point in part.points] == [point.id for point in many]
    assert max(len(part.points) for part in decoded) <= WRITE_BATCH


def test_an_owner_that_restarts_is_waited_for_and_no_write_is_lost(asked: AskedStores) -> None:
    store = asked.store()
    store.open()
    store.upsert(points(1, 100))
    asked.disown()
    writing = later(lambda: store.upsert(points(101, 100)))
    time.sleep(0.2)  # it knocks meanwhile; without this the test would pass as well
    asked.own()
    writing.join(10)
    assert store.count(DATASET, 1, "chunk") == 200


def test_an_owner_that_stays_away_is_told_within_the_bound(asked: AskedStores) -> None:
    store = asked.store(times=AskingTimes(answer=0.5, away=0.5, pause=0.02))
    store.open()
    asked.disown()
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="owns the store does not answer"):
        store.upsert(points(1, 1))
    assert 0.5 <= time.monotonic() - began < 5
    with pytest.raises(StoreUnavailable):
        asked.store().open()  # who opens decides itself how long it waits
    asked.own()


def test_a_bus_that_restarts_is_waited_for_and_no_write_is_lost(asked: AskedStores) -> None:
    store = asked.store(times=AskingTimes(answer=1, away=20, pause=0.05))
    store.open()
    asked.server.kill()
    writing = later(lambda: store.upsert(points(1, 300)))
    asked.server.start()
    writing.join(20)
    assert store.count(DATASET, 1, "chunk") == 300


def test_a_question_that_is_answered_too_late_is_done_before_whatever_is_asked_next(
    asked: AskedStores, engine: WatchedEngine
) -> None:
    """The engine hangs in a write: it is asked for again, and what follows finds both behind it."""
    store = asked.store(times=AskingTimes(answer=0.3, away=0.5, pause=0.02))
    store.open()
    engine.may_write.clear()
    with pytest.raises(StoreUnavailable):
        store.upsert(points(1, 10))
    engine.may_write.set()
    following = asked.store()
    following.open()
    following.drop(DATASET, 1, most=PAGE, forget=lambda _: None)
    # What was not begun in its time is not begun at all; what was, is over before it is dropped.
    assert engine.written == ["put", "delete"]
    assert following.count(DATASET, 1, "chunk") == 0


def test_a_check_that_raises_ends_the_wait_for_an_owner(asked: AskedStores) -> None:
    class Lost(Exception):
        pass

    store = asked.store(times=AskingTimes(answer=1, away=60, pause=0.02))
    store.open()
    held = threading.Event()
    held.set()

    def check() -> None:
        if not held.is_set():
            raise Lost

    asked.disown()
    raised: list[str] = []

    def write() -> None:
        try:
            store.guarded(check).upsert(points(1, 1))
        except Lost:
            raised.append("lost")

    writing = later(write)
    held.clear()
    writing.join(10)
    assert raised == ["lost"]
    asked.own()
    assert store.count(DATASET, 1, "chunk") == 0


def test_what_the_owner_reports_is_what_the_asker_raises(asked: AskedStores, engine: WatchedEngine) -> None:
    store = asked.store()
    store.open()
    for told, raised, words in (
        (StoreFull("The disk has 1 MiB left"), StoreFull, "1 MiB left"),
        (StoreError("The index failed"), StoreError, "The index failed"),
        (ZeroDivisionError(), StoreError, "ZeroDivisionError"),
    ):
        engine.error = told
        with pytest.raises(raised, match=words):
            store.upsert(points(1, 1))
    engine.error = None
    store.upsert(points(1, 1))
    assert store.count(DATASET, 1, "chunk") == 1


def test_an_index_that_its_owner_closed_is_waited_for(asked: AskedStores, engine: WatchedEngine) -> None:
    store = asked.store()
    store.open()
    engine.close()
    writing = later(lambda: store.upsert(points(1, 1)))
    time.sleep(0.1)  # it is told that the owner is ending; without this the test would pass as well
    engine.open()
    writing.join(10)
    assert store.count(DATASET, 1, "chunk") == 1


def test_a_bus_that_takes_too_little_says_what_to_set(asked: AskedStores) -> None:
    asked.asking.client._max_payload = 65_536
    with pytest.raises(StoreError, match="set max_payload"):
        asked.store().open()


def test_rubbish_is_answered_with_a_sentence_and_the_owner_goes_on(asked: AskedStores) -> None:
    for rubbish in (b"", b"\xff\xff", b'{"type":"store.query.v1.describe"}', os.urandom(1_000)):
        reply = asked.run(asked.asking.request(POINTS, rubbish, 5))
        answer = decode_answer(reply.data)
        assert isinstance(answer, Declined)
        assert answer.sentence.startswith("The owner of the store could not read the question")
    store = asked.store()
    store.open()
    assert store.count(DATASET, 1, "chunk") == 0


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeEngine]:
    engine = EdgeEngine(tmp_path_factory.mktemp("shared") / "index", dimensions=4)
    engine.open()
    yield engine
    engine.close()


@pytest.fixture
def owner(shared: EdgeEngine) -> Iterator[StoreOwner]:
    yield StoreOwner(shared, dimensions=4, now=lambda: 1_000.0)
    shared.delete([A_POINT.id], ANY)


def told(owner: StoreOwner, question: Question | bytes, *, begin_by: float = 1_000.0) -> Answer:
    encoded = question if isinstance(question, bytes) else encode_question(question)
    return decode_answer(owner.answer(enveloped(encoded, begin_by)))


def nested(depth: int) -> Condition:
    condition: Condition = ANY
    for _ in range(depth):
        condition = AllOf((condition,))
    return condition


A_POINT = points(1, 1)[0]
VECTOR = np.ones(4, dtype="<f4").tobytes()
NAN = np.full(4, np.nan, dtype="<f4").tobytes()


@pytest.mark.parametrize(
    ("question", "words"),
    [
        (Put(points=()), "length >= 1"),
        (
            Put(points=(WirePoint(id=A_POINT.id, payload=A_POINT.payload, text=VECTOR[:8]),)),
            "expected dim: 4",
        ),
        (Put(points=(WirePoint(id=A_POINT.id, payload=A_POINT.payload, text=b""),)), "from 1 to 65536"),
        (
            Put(points=(WirePoint(id=A_POINT.id, payload=A_POINT.payload, text=VECTOR[:7]),)),
            "number of bytes",
        ),
        (Put(points=(WirePoint(id=A_POINT.id, payload=A_POINT.payload, text=NAN),)), "NaN"),
        (Put(points=(WirePoint(id="short", payload=A_POINT.payload),)), "length >= 36"),
        (
            Put(points=(WirePoint(id=A_POINT.id, payload=A_POINT.payload),) * (WRITE_BATCH + 1)),
            f"length <= {WRITE_BATCH}",
        ),
        (SetText(ids=(A_POINT.id,), vectors=VECTOR * 2), "another number of bytes"),
        (Delete(ids=(A_POINT.id,) * (PAGE + 1), condition=ANY), f"length <= {PAGE}"),
        (Delete(ids=(A_POINT.id,), condition=AllOf((ANY,) * 5_000)), "at most 4096 parts"),
        (Count(condition=nested(20)), "at most 8 deep"),
        (Count(condition=AllOf((ANY,) * 5_000)), "at most 4096 parts"),
        (FindNearest(name="text", vector=VECTOR, condition=ANY, limit=10_000), "<= 1000"),
        (FindNearest(name="code_bm25", vector=VECTOR, condition=ANY, limit=1), "by a sparse vector"),
        (FindNearest(name="structure", vector=VECTOR, condition=ANY, limit=1), "of 64 numbers"),
    ],
    ids=lambda value: value.replace(" ", "_") if isinstance(value, str) else type(value).__name__,
)
def test_a_question_beyond_a_limit_is_declined(owner: StoreOwner, question: Question, words: str) -> None:
    answer = told(owner, question)
    assert isinstance(answer, Declined)
    assert words in answer.sentence
    assert told(owner, Count(condition=ANY)) == Counted(number=0)


def test_a_question_that_is_nested_without_end_is_declined(owner: StoreOwner) -> None:
    level = b"\x82\xa4type\xa5AllOf\xaaconditions\x91"
    endless = b"\x82\xa4type\xa5count\xa9condition" + level * 20_000 + msgspec.msgpack.encode(ANY)
    assert isinstance(told(owner, endless), Declined)


def test_a_question_that_comes_after_its_time_is_not_begun(owner: StoreOwner) -> None:
    (put,) = puts([A_POINT])
    assert told(owner, put, begin_by=997.5) == Late(seconds=2.5)
    assert told(owner, Count(condition=ANY)) == Counted(number=0)
    assert told(owner, put) == Done()
    assert told(owner, put) == Done()
    assert told(owner, protocol.CountBy(field="kind", condition=ANY)) == CountedBy(numbers={"chunk": 1})


def test_an_owner_of_another_release_says_so_and_does_nothing(owner: StoreOwner) -> None:
    greeting = msgspec.Raw(encode_question(Greet(dimensions=4)))
    asked = protocol.Asked(format=protocol.FORMAT + 1, begin_by=1_000.0, question=greeting)
    answer = decode_answer(owner.answer(msgspec.msgpack.encode(asked)))
    assert answer == Declined(
        sentence="The process that owns the store is of another release; run the same everywhere",
        other_release=True,
    )


def test_a_full_disk_is_told_as_one(owner: StoreOwner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pharos_embedder.edge_store.DISK_FREE_BYTES_MIN", 1 << 62)
    (put,) = puts([A_POINT])
    assert isinstance(told(owner, put), Full)


def test_acknowledged_writes_survive_kill_9_of_the_owner(tmp_path: Path, asked: AskedStores) -> None:
    asked.disown()
    process = subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path / "index"), asked.server.url])
    try:
        store = asked.store(times=AskingTimes(answer=1, away=1, pause=0.02))
        deadline = time.monotonic() + 30
        while True:
            try:
                store.open()
                break
            except StoreUnavailable:
                assert time.monotonic() < deadline
        written = 0
        killing = threading.Timer(0.3, process.send_signal, (signal.SIGKILL,))
        killing.start()
        with pytest.raises(StoreUnavailable):
            while True:
                store.upsert(points(written + 1, 50, vector=True))
                written += 50
        killing.join()
    finally:
        process.kill()
        process.wait()
    assert written > 0
    index = edge_store(tmp_path / "index", dimensions=4)
    index.open()
    # A write whose answer died with the owner may be there; one that was answered must be.
    assert index.live_ids(DATASET, 1, "chunk") >= {point.id for point in points(1, written)}
    index.close()
    asked.own()


def test_a_store_that_was_not_opened_or_was_closed_says_so(asked: AskedStores) -> None:
    store = asked.store()
    with pytest.raises(StoreClosed):
        store.count(DATASET, 1, "chunk")
    store.open()
    guarded = store.guarded(lambda: None)
    store.close()
    with pytest.raises(StoreClosed):
        guarded.upsert(points(1, 1))
