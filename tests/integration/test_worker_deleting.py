"""The process that owns the store deletes datasets: nothing of them is left, and nothing brings them back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
from msgspec.structs import replace

from pharos_contracts import streams
from pharos_contracts.datasets.v1 import (
    Dataset,
    DatasetDeleted,
    DatasetRecord,
    DeleteDataset,
    DeletedDataset,
    FindDatasets,
    FoundDatasets,
    IndexStage,
)
from pharos_contracts.identity import dataset_key
from pharos_contracts.jobs.v1 import IndexResult, ItemCompleted, ItemFailed, Job, Scope, WorkItem
from pharos_contracts.rpc import STORE
from pharos_contracts.subjects import ITEM_REPOSITORY
from pharos_embedder import deleting
from pharos_embedder.answering import StoreQuestion, answer_store
from pharos_embedder.catalogue import Catalogue
from pharos_embedder.deleting import Deleting
from pharos_embedder.kept import Kept
from pharos_embedder.ports import Failed
from pharos_embedder.published_work import PublishedWork
from pharos_embedder.publishing import Publisher
from pharos_embedder.vectors import DatasetKey, Payload, Point, generation_after
from pharos_service.asking import NobodyAnswers, ask
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus
from pharos_service.ending import end
from pharos_service.rpc import answer, make_broker
from pharos_service.settings import ServiceSettings
from tests.support.git_server import GitServer
from tests.support.workers import Machine, hand_out, new_job, now, until_said, until_settled, working

pytestmark = pytest.mark.anyio

NAME = "atlas-core"
KEY = DatasetKey("default", "default", NAME)
IDENTITY = "h.example/o/r"
REPOSITORY = {
    "a.py": "def first(value):\n    return value\n",
    "b.py": "def second(value):\n    return value\n",
}


@pytest.fixture(scope="module")
def git() -> Iterator[GitServer]:
    with GitServer() as server:
        server.add_repository("o/r", REPOSITORY)
        yield server


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with Machine(tmp_path / "home") as found:
        yield found


@asynccontextmanager
async def owning(bus: Bus, settings: ServiceSettings, machine: Machine) -> AsyncIterator[Catalogue]:
    """The process that owns the store of *machine*, as far as ``rpc.store`` is concerned."""
    catalogue = Catalogue(bus)
    following = asyncio.create_task(catalogue.follow())
    broker = make_broker(settings, "store")
    owner = Deleting(
        bus,
        machine.store,
        catalogue,
        Kept(vectors=machine.cache, parsed=machine.parse_cache, checkouts=machine.checkouts),
        encoder=machine.encoder.version,
        now=now,
    )
    answer(broker, STORE, StoreQuestion, partial(answer_store, machine.store, owner), workers=2)
    await broker.start()
    try:
        yield catalogue
    finally:
        await broker.stop()
        await end(following)


async def find(bus: Bus, *, dataset: str | None = None, repository: str | None = None) -> tuple[str, ...]:
    question = FindDatasets(tenant="default", project="default", dataset=dataset, repository=repository)
    async with asyncio.timeout(10):
        while True:
            try:
                return (await ask(bus, STORE, question, FoundDatasets, timeout=5)).datasets
            except NobodyAnswers:  # that somebody answers may be on its way to the server still
                await asyncio.sleep(0.02)


async def step(bus: Bus, generation: int = 0) -> DatasetDeleted:
    command = DeleteDataset(tenant="default", project="default", dataset=NAME, generation=generation)
    return await ask(bus, STORE, command, DatasetDeleted, timeout=5)


async def record(bus: Bus) -> DatasetRecord | None:
    bucket = Bucket[DatasetRecord](bus, streams.KV_DATASETS, DatasetRecord)
    entry = await bucket.get(dataset_key("default", "default", NAME))
    return entry.value if entry is not None else None


async def indexed(bus: Bus, git: GitServer) -> IndexResult:
    wanted = new_job(git.url("o/r"), identity=IDENTITY, dataset=NAME)
    await hand_out(bus, wanted)
    said: ItemCompleted = await until_said(bus, wanted, ItemCompleted)
    await until_settled(bus)
    return said.result


def point(generation: int, *, path: str = "a.py", job: str = "") -> Point:
    payload = Payload(
        dataset=KEY, kind="chunk", generation=generation, path=path, repository=IDENTITY, job=job, attempt=1
    )
    return Point(id=str(uuid4()), payload=payload)


def live(generation: int, job_id: str = "j") -> Dataset:
    return Dataset(
        tenant="default",
        project="default",
        dataset=NAME,
        scope=Scope.PROJECT,
        repository=IDENTITY,
        clone_url=f"https://{IDENTITY}",
        branch="main",
        commit="c",
        generation=generation,
        stage=IndexStage.FULL,
        job_id=job_id,
        files=1,
        chunks=1,
        encoder="e",
        chunker="1",
        published_at=now(),
    )


async def put(bus: Bus, found: Dataset) -> None:
    await Bucket(bus, streams.KV_DATASETS, Dataset).put(dataset_key("default", "default", NAME), found)


async def test_what_was_indexed_is_deleted_whole_and_an_index_after_that_begins_afresh(
    bus: Bus, bus_settings: ServiceSettings, git: GitServer, machine: Machine
) -> None:
    async with (
        owning(bus, bus_settings, machine) as catalogue,
        working(bus, machine, allowed_hosts=git.allowed_hosts),
    ):
        first = await indexed(bus, git)
        encoded = len(machine.encoder.given)
        assert machine.parse_cache.count() == first.files_processed + 1, "the files and their graph"
        assert machine.checkouts.path_of("default", IDENTITY).exists()
        assert await find(bus, dataset=NAME) == await find(bus, repository=IDENTITY.upper()) == (NAME,)
        deleted = await step(bus)
        assert (deleted.vectors, deleted.left) == (first.chunks, False)
        assert (machine.store.size(KEY), machine.cache.count()) == (0, 0)
        assert machine.parse_cache.count() == 0
        assert not machine.checkouts.path_of("default", IDENTITY).exists()
        assert catalogue.all() == []  # at once: a search that follows the answer finds nothing
        assert await find(bus, dataset=NAME) == await find(bus, repository=IDENTITY) == ()
        left = await record(bus)
        assert isinstance(left, DeletedDataset)
        assert left.generation == deleted.generation > first.generation

        second = await indexed(bus, git)
        assert second.generation > left.generation == second.built_on
        assert (second.chunks_encoded, second.chunks) == (first.chunks, first.chunks)
        assert len(machine.encoder.given) == 2 * encoded
        again = await record(bus)
        assert isinstance(again, Dataset)
        assert again.generation == second.generation
        assert machine.store.count(KEY, second.generation, "chunk") == first.chunks

        git.add_commits("o/r", [{"added.py": "SECRET = 'of one commit'\n"}])
        await indexed(bus, git)
        for number in range(2):  # what is gone is kept for a generation more
            git.add_commits("o/r", [{"added.py": None, "more.py": f"{number=}\n"}])
            await indexed(bus, git)
        assert not (await step(bus)).left
        assert (machine.cache.count(), machine.parse_cache.count()) == (0, 0), "of no commit"


async def test_a_worker_that_began_before_the_deletion_publishes_nothing(
    bus: Bus, bus_settings: ServiceSettings, machine: Machine
) -> None:
    publisher = Publisher(bus, encoder="e", chunker="1", now=now, on_change=lambda *_: None)
    work = PublishedWork(machine.store, (machine.cache, machine.parse_cache), publisher)
    wanted = new_job("https://h.example/o/r")
    item = WorkItem(job=wanted, item_id=ITEM_REPOSITORY, attempt=1, dispatch=1)
    for before in (0, 10):  # a first index, and one on top of another
        if before:
            await put(bus, live(before))
        target = await publisher.target(replace(wanted, dataset=NAME), NAME)
        number = int(time.time()) + 5
        result = IndexResult(
            dataset=NAME,
            generation=number,
            built_on=target.live.follows if before else 0,
            commit="c",
            files_processed=1,
            embeddings_generated=1,
            chunks=1,
        )
        machine.store.upsert([point(number, job=wanted.job_id)])
        async with owning(bus, bus_settings, machine):
            await find(bus, dataset=NAME)
            await step(bus)
        with pytest.raises(Failed) as refused:
            await work.finish(item, result)
        assert (refused.value.problem.code, refused.value.problem.transient) == ("dataset_deleted", False)
        assert isinstance(await record(bus), DeletedDataset)
        await work.clear(item, 1, forget=True)
        assert machine.holds_nothing_of(wanted)


async def test_a_number_is_never_used_again_even_where_the_clock_was_wrong(
    bus: Bus, bus_settings: ServiceSettings, git: GitServer, machine: Machine
) -> None:
    ahead = generation_after(0) + 100_000_000
    await put(bus, live(ahead))
    machine.store.upsert([point(ahead)])
    async with owning(bus, bus_settings, machine), working(bus, machine, allowed_hosts=git.allowed_hosts):
        await find(bus, dataset=NAME)
        deleted = await step(bus)
        assert (deleted.generation, deleted.vectors) == (ahead + 1, 1)
        assert (await indexed(bus, git)).generation == ahead + 2


async def test_a_deletion_that_a_crash_interrupted_is_found_and_goes_on(
    bus: Bus, bus_settings: ServiceSettings, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deleting, "STEP_SECONDS", 0.0)
    monkeypatch.setattr(deleting, "STEP_POINTS", 256)
    await put(bus, live(7))
    machine.store.upsert([point(7, path=f"{number}.py") for number in range(300)])
    async with owning(bus, bus_settings, machine):
        await find(bus, dataset=NAME)
        first = await step(bus)
        assert (first.vectors, first.left) == (256, True)
    async with owning(bus, bus_settings, machine):  # another process: it knows of nothing
        assert await find(bus, dataset=NAME) == await find(bus, repository=IDENTITY) == (NAME,)
        second = await step(bus)
        assert (second.vectors, second.left) == (44, False)
        assert second.generation > first.generation
        assert await find(bus, dataset=NAME) == ()


async def test_a_step_that_comes_late_touches_nothing_of_the_index_that_came_after(
    bus: Bus, bus_settings: ServiceSettings, git: GitServer, machine: Machine
) -> None:
    async with owning(bus, bus_settings, machine), working(bus, machine, allowed_hosts=git.allowed_hosts):
        await indexed(bus, git)
        deleted = await step(bus)
        second = await indexed(bus, git)
        late = await step(bus, deleted.generation)
        assert (late.vectors, late.left) == (0, False)
        assert isinstance(await record(bus), Dataset)
        assert machine.store.count(KEY, second.generation, "chunk") == second.chunks


async def test_nothing_is_deleted_of_another_project_or_tenant(
    bus: Bus, bus_settings: ServiceSettings, machine: Machine
) -> None:
    others = [DatasetKey("default", "other", NAME), DatasetKey("acme", "default", NAME)]
    for each in others:
        stranger = replace(point(7).payload, dataset=each)
        machine.store.upsert([Point(id=str(uuid4()), payload=stranger)])
    async with owning(bus, bus_settings, machine):
        assert await find(bus, dataset=NAME) == await find(bus, repository=IDENTITY) == ()
        assert (await step(bus)).vectors == 0
    assert [machine.store.size(each) for each in others] == [1, 1]


async def test_a_job_of_a_dataset_that_was_deleted_under_it_fails_with_a_sentence(
    bus: Bus, bus_settings: ServiceSettings, git: GitServer, machine: Machine
) -> None:
    wanted: Job = new_job(git.url("o/r"), identity=IDENTITY, dataset=NAME)
    async with owning(bus, bus_settings, machine), working(bus, machine, allowed_hosts=git.allowed_hosts):
        machine.encoder.gate.shut()
        await hand_out(bus, wanted)
        async with asyncio.timeout(20):
            while not isinstance(await record(bus), Dataset):  # found by its words already
                await asyncio.sleep(0.02)
        await step(bus)
        machine.encoder.gate.open()
        failed: ItemFailed = await until_said(bus, wanted, ItemFailed)
        # What it had stored is gone: it is tried again, and then on top of what the deletion left behind.
        assert (failed.code, failed.transient) in {("store_changed", True), ("publish_conflict", True)}
        assert isinstance(await record(bus), DeletedDataset)
