"""``pharos-store`` with the process that owns the index, and without one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec
import pytest

from pharos_contracts import streams
from pharos_contracts.datasets.v1 import Dataset, DatasetRecord, IndexStage, WriteLock
from pharos_contracts.identity import dataset_key
from pharos_contracts.jobs.v1 import Scope
from pharos_embedder import store_admin
from pharos_embedder.bm25 import Lexicon
from pharos_embedder.dataset_locks import DatasetLocks
from pharos_embedder.edge_store import EdgeEngine
from pharos_embedder.generations import GenerationStore
from pharos_embedder.settings import Settings
from pharos_embedder.snapshots import CannotCopy, opening_of
from pharos_embedder.store_admin import Disagreement, _act, _check_target, _parser, _told
from pharos_embedder.store_owner import StoreOwner
from pharos_embedder.vectors import DatasetKey, Payload, Point, StoreError, point_id
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus
from pharos_service.ending import end
from pharos_service.settings import InvalidSettings, Secret

pytestmark = pytest.mark.anyio

KEY = DatasetKey("acme", "default", "atlas")
NAME = dataset_key("acme", "default", "atlas")
RECORD = Dataset(
    tenant="acme", project="default", dataset="atlas", scope=Scope.PROJECT, repository="", clone_url="",
    branch=None, commit="", generation=5, stage=IndexStage.FULL, job_id="", files=1, chunks=3, encoder="",
    chunker="", published_at=datetime(2026, 6, 1, tzinfo=UTC),
)  # fmt: skip


def fill(home: Path) -> None:
    engine = EdgeEngine(home / "index", dimensions=4)
    store = GenerationStore(engine, dimensions=4)
    store.open()
    for number in range(4):
        identifier = point_id(
            KEY, kind="chunk", path=str(number), start_line=1, end_line=1, content_hash="",
            chunker_version="", encoder_version="",
        )  # fmt: skip
        payload = Payload(dataset=KEY, kind="chunk", generation=5, path=str(number), text="alpha")
        store.upsert([Point(id=identifier, payload=payload)])
    store.put_lexicon(KEY, 5, Lexicon.of([{1: 1}] * 3))
    store.retire(KEY, [identifier], 5)
    store.close()


def bucket(bus: Bus) -> Bucket[DatasetRecord]:
    return Bucket[DatasetRecord](bus, streams.KV_DATASETS, DatasetRecord)


async def command(bus: Bus, home: Path, *words: str) -> str:
    return await _act(bus, _parser().parse_args(words), Settings(home=str(home)))


@asynccontextmanager
async def owned(bus: Bus, home: Path) -> AsyncIterator[None]:
    """The index of *home* in the hands of a process that answers for it."""
    engine = EdgeEngine(home / "index", dimensions=4)
    engine.open()
    answering = asyncio.create_task(StoreOwner(engine, dimensions=4).serve(bus))
    await asyncio.sleep(0)
    try:
        yield
    finally:
        await end(answering)
        engine.close()


@pytest.mark.parametrize("who", ["owner", "nobody"])
async def test_a_snapshot_of_what_runs_or_rests_is_restored_to_another_home(
    bus: Bus, tmp_path: Path, who: str
) -> None:
    home, other, path = tmp_path / "home", tmp_path / "other", str(tmp_path / "file")
    fill(home)
    await bucket(bus).put(NAME, RECORD)
    if who == "owner":
        async with owned(bus, home):
            told = await command(bus, home, "stats")
            assert "1 datasets, 3 chunks" in await command(bus, home, "snapshot", path)
    else:
        told = await command(bus, home, "stats")
        assert "1 datasets, 3 chunks" in await command(bus, home, "snapshot", path)
    # chunks, files, points, of them not live, generations
    assert told.splitlines()[1].split() == ["acme/default/atlas", "3", "0", "6", "1", "1"]
    with pytest.raises(CannotCopy, match="is live here"):
        await command(bus, other, "restore", path)
    entry = await bucket(bus).get(NAME)
    assert entry is not None and await bucket(bus).delete(NAME, entry.revision)
    assert await command(bus, other, "restore", path) == "atlas: 3 chunks, 0 files"
    restored = await bucket(bus).get(NAME)
    assert restored is not None and isinstance(restored.value, Dataset) and restored.value.generation > 5
    told = await command(bus, other, "stats")
    assert told.splitlines()[1].split()[1:] == ["3", "0", "5", "0", "1"]
    assert "5 points in all, " in told and "optimized: never, and 5 points written since" in told


async def test_a_store_that_has_not_what_the_records_say_is_told_by_dataset(bus: Bus, tmp_path: Path) -> None:
    fill(tmp_path)
    await bucket(bus).put(NAME, msgspec.structs.replace(RECORD, stage=IndexStage.LEXICAL))
    assert (
        await command(bus, tmp_path, "check") == "1 datasets, 3 chunks: the store has what the records say."
    )
    await bucket(bus).put(NAME, msgspec.structs.replace(RECORD, chunks=4))
    await bucket(bus).put(
        dataset_key("acme", "default", "lost"), msgspec.structs.replace(RECORD, dataset="lost")
    )
    with pytest.raises(Disagreement) as told:
        await command(bus, tmp_path, "check")
    assert str(told.value).splitlines() == [
        "acme/default/atlas: it has 3 chunks, not 4",
        "acme/default/atlas: 3 chunks have no vector",
        "acme/default/lost: it has 0 chunks, not 3",
    ]
    entry = await bucket(bus).get(NAME)
    assert entry is not None and await bucket(bus).delete(NAME, entry.revision)
    with pytest.raises(Disagreement, match="atlas: 6 points, and no record"):
        await command(bus, tmp_path, "check")


async def test_where_there_is_no_index_it_is_said(bus: Bus, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"There is no index at .* and no process that owns one answers"):
        await command(bus, tmp_path / "home", "stats")
    assert not (tmp_path / "home").exists()


async def test_while_it_is_restored_a_dataset_is_held(
    bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "file")
    fill(tmp_path / "home")
    await bucket(bus).put(NAME, RECORD)
    await command(bus, tmp_path / "home", "snapshot", path)
    locks = Bucket(bus, streams.KV_LOCKS, WriteLock)
    revision = await locks.create(NAME, WriteLock(holder="somebody"))
    assert revision is not None
    with monkeypatch.context() as patch, pytest.raises(CannotCopy, match="Others write to the dataset atlas"):
        patch.setattr(store_admin, "DatasetLocks", partial(DatasetLocks, wait_seconds=0.2))
        await command(bus, tmp_path / "home", "restore", path, "--replace")
    await locks.delete(NAME, revision)
    await command(bus, tmp_path / "home", "restore", path, "--replace")
    assert await locks.get(NAME) is None


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("https://ada:s3cret@qdrant.example.org", "credentials do not belong into it"),
        ("https://qdrant.example.org?api_key=s3cret", "credentials do not belong into it"),
        ("qdrant.example.org:6333", "it must begin with https:// or http://"),
    ],
)
async def test_an_address_with_credentials_is_refused_and_not_repeated(
    bus: Bus, tmp_path: Path, address: str, reason: str
) -> None:
    with pytest.raises(CannotCopy, match=reason) as told:
        await command(bus, tmp_path, "migrate", "--to", address)
    assert "s3cret" not in str(told.value)
    with pytest.raises(InvalidSettings, match="PHAROS_QDRANT_URL is not valid") as refused:
        Settings(qdrant_url=address)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("host", "told"),
    [("qdrant.example.org", True), ("127.0.0.1:1", False), ("my_qdrant:6333", False)],
)
def test_of_a_key_that_would_go_unencrypted_to_anywhere_it_is_said(
    host: str, told: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    _check_target(f"http://{host}", Settings(qdrant_api_key=Secret("s3cret")))
    assert ("sent unencrypted: use https" in capsys.readouterr().err) is told


def test_a_file_that_is_not_there_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(OSError) as raised:
        opening_of(tmp_path / "nothing")
    assert _told(raised.value) == f"{tmp_path / 'nothing'}: No such file or directory"


def test_the_help_is_plain_text() -> None:
    assert "`" not in _parser().format_help()


async def test_a_dataset_that_is_not_there_is_said_by_name(bus: Bus, tmp_path: Path) -> None:
    fill(tmp_path / "home")
    with pytest.raises(CannotCopy, match="There is no dataset nothing"):
        await command(bus, tmp_path / "home", "snapshot", str(tmp_path / "file"), "--dataset", "nothing")
