"""Files that are ready become generations of their dataset, whoever else writes to it, and whoever dies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from pharos_contracts import streams
from pharos_contracts.connections.v1 import SourceType
from pharos_contracts.datasets.v1 import IndexStage, WriteLock
from pharos_contracts.identity import dataset_key
from pharos_contracts.jobs.v1 import IndexResult, Job
from pharos_embedder import dataset_locks
from pharos_embedder.batch_stages import ReadyFile, live_facts, made_by, write_files
from pharos_embedder.bm25 import Lexicon
from pharos_embedder.dataset_locks import DatasetLocks, LockLost
from pharos_embedder.document_points import passages, terms_of
from pharos_embedder.documents.pool import ReadDocument
from pharos_embedder.documents.protocol import Summary
from pharos_embedder.documents.reading import read_document
from pharos_embedder.documents.splitting import split_document
from pharos_embedder.group_commit import GROUP_FILES_MAX, GroupCommit
from pharos_embedder.points import Origin
from pharos_embedder.ports import Check, unchecked
from pharos_embedder.publishing import Publisher
from pharos_embedder.stages import Live
from pharos_embedder.vectors import DatasetKey, StoreFull
from pharos_service.buckets import Bucket
from pharos_service.bus import TROUBLE, Bus
from tests.support.batch_machine import batch, key_of, published, record, texts
from tests.support.nats_server import NatsServer
from tests.support.workers import DIMENSIONS, Machine, declared, now, until

pytestmark = pytest.mark.anyio

LOCK_SECONDS = 2.0
KEY = key_of("here")
LOCK = dataset_key(KEY.tenant, KEY.project, KEY.dataset)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with Machine(tmp_path / "home") as found:
        yield found


@pytest.fixture
def job() -> Job:
    return batch({"here": SourceType.LOCAL_DIRECTORY}, 1)


@pytest.fixture
async def quick_locks(bus: Bus) -> None:
    await declared(bus, lock_ttl_seconds=LOCK_SECONDS)


@asynccontextmanager
async def committing(
    bus: Bus, machine: Machine, holder: str = "one", ttl_seconds: float = streams.LOCK_TTL_SECONDS
) -> AsyncIterator[GroupCommit]:
    """What one process has of it."""
    publisher = Publisher(
        bus, encoder=machine.encoder.version, chunker="document", now=now, on_change=lambda *_: None
    )
    locks = DatasetLocks(bus, holder, ttl_seconds=ttl_seconds)
    async with GroupCommit(machine.store, publisher, locks, encoder=machine.encoder.version) as found:
        yield found


def origin(job: Job, generation: int = 0, dataset: DatasetKey = KEY) -> Origin:
    return Origin(
        dataset=dataset,
        generation=generation,
        scope="project",
        repository="",
        encoder="counting@1",
        job=job.job_id,
        attempt=1,
    )


def ready(job: Job, identity: str, text: str, *, dataset: DatasetKey = KEY) -> ReadyFile:
    document = read_document(text.encode(), identity)
    chunks = tuple(split_document(document))
    summary = Summary(
        name=identity,
        kind=document.kind,
        size=document.size,
        content_hash=document.content_hash,
        characters=len(document.text),
        chunks=len(chunks),
        quality=1.0,
    )
    found = passages(
        ReadDocument(summary, chunks),
        identity,
        origin(job, dataset=dataset),
        title="",
        url="",
        filename=identity,
        sha256=document.content_hash,
        made_by=made_by("c", "e"),
    )
    vectors = np.full((len(found), DIMENSIONS), DIMENSIONS**-0.5, dtype=np.float16)
    return ReadyFile(
        job=job, attempt=1, dataset=dataset, identity=identity, passages=tuple(found), vectors=vectors
    )


async def lexicon_is_whole(bus: Bus, machine: Machine) -> bool:
    live = await record(bus, "here")
    assert live is not None
    alive = machine.store.payloads(KEY, machine.store.live_ids(KEY, live.generation, "chunk"))
    return machine.store.lexicon(KEY, live.generation) == Lexicon.of(map(terms_of, alive))


async def test_a_thousand_files_are_a_few_generations(bus: Bus, machine: Machine, job: Job) -> None:
    files = [ready(job, f"{number}.txt", f"Page {number} of the book.") for number in range(1000)]
    async with committing(bus, machine) as commits:
        written = await asyncio.gather(*(commits.commit(file) for file in files))
    live = await record(bus, "here")
    assert live is not None and (live.files, live.chunks) == (1000, 1000)
    assert await published(bus) == len({each.generation for each in written}) <= 2 + 1000 // GROUP_FILES_MAX
    assert await lexicon_is_whole(bus, machine)
    # What the earlier ones left is kept only as long as somebody may still read it.
    found = texts(machine, "here", live)
    assert found["7.txt"] == ["Page 7 of the book."] and len(found) == 1000


async def test_two_processes_commit_to_one_dataset_and_to_others_at_once(
    bus: Bus, machine: Machine, job: Job
) -> None:
    other = key_of("there")

    async def work(commits: GroupCommit, who: str) -> None:
        for number in range(6):
            mine = ready(job, f"{who}{number}.txt", f"{who} writes page {number}.")
            elsewhere = ready(job, f"{who}{number}.txt", f"{who} writes page {number}.", dataset=other)
            await asyncio.gather(commits.commit(mine), commits.commit(elsewhere), commits.commit(mine))

    async with committing(bus, machine, "one") as one, committing(bus, machine, "two") as two:
        await asyncio.gather(work(one, "ann"), work(two, "bob"))
    names = {f"{who}{number}.txt" for who in ("ann", "bob") for number in range(6)}
    live, there = await record(bus, "here"), await record(bus, "there")
    assert live is not None and (live.files, live.chunks) == (12, 12)
    assert there is not None and (there.files, there.chunks) == (12, 12)
    found = texts(machine, "here", live)
    assert found.keys() == names and all(len(each) == 1 for each in found.values())
    assert await lexicon_is_whole(bus, machine)


async def test_of_two_versions_of_one_file_the_last_is_live_and_the_same_again_changes_nothing(
    bus: Bus, machine: Machine, job: Job
) -> None:
    async with committing(bus, machine) as commits:
        first, second = ready(job, "a.txt", "Nets are mended."), ready(job, "a.txt", "Nets are torn.")
        both = await asyncio.gather(commits.commit(first), commits.commit(second))
        assert both[0] == both[1] and await published(bus) == 1
        assert texts(machine, "here", await record(bus, "here")) == {"a.txt": ["Nets are torn."]}
        again = await commits.commit(second)
        assert (again.changed, again.generation, again.files) == (False, both[0].generation, 1)
        assert await published(bus) == 1
        back = await commits.commit(first)
        assert back.replaced == {"a.txt"} and back.files == 1
    live = await record(bus, "here")
    assert texts(machine, "here", live) == {"a.txt": ["Nets are mended."]}
    assert await lexicon_is_whole(bus, machine)
    assert live is not None
    facts = live_facts(KEY, Live(generation=live.generation), "a.txt", machine.store)
    assert facts is not None and facts.made_by == "c e"


async def test_a_dead_holder_is_replaced_when_its_time_is_over(
    bus: Bus, machine: Machine, job: Job, quick_locks: None
) -> None:
    # What it had written, and retired, when it died.
    async with committing(bus, machine, ttl_seconds=LOCK_SECONDS) as commits:
        live = await commits.commit(ready(job, "a.txt", "Nets are mended."))
        dead = [ready(job, "a.txt", "Nets are torn."), ready(job, "b.txt", "Nets are sold.")]
        write_files(
            dead,
            Live(generation=live.generation, files=1),
            origin(job, live.generation + 5),
            machine.store,
            unchecked,
        )
        await Bucket(bus, streams.KV_LOCKS, WriteLock).create(LOCK, WriteLock(holder="dead"))
        began = time.monotonic()
        written = await commits.commit(ready(job, "c.txt", "Nets are new."))
        assert LOCK_SECONDS / 2 < time.monotonic() - began < 4 * LOCK_SECONDS
    assert written.files == 2
    assert texts(machine, "here", await record(bus, "here")) == {
        "a.txt": ["Nets are mended."],
        "c.txt": ["Nets are new."],
    }
    assert await lexicon_is_whole(bus, machine)


async def test_who_lost_the_lock_writes_no_more_and_begins_again(
    bus: Bus, machine: Machine, job: Job, quick_locks: None
) -> None:
    async with committing(bus, machine, ttl_seconds=LOCK_SECONDS) as commits:
        machine.engine.gate.shut(after=1)
        committed = asyncio.create_task(commits.commit(ready(job, "a.txt", "Nets are mended.")))
        await until(machine.engine.gate.reached.is_set)
        locks = Bucket(bus, streams.KV_LOCKS, WriteLock)
        held = await locks.get(LOCK)
        assert held is not None
        await locks.put(LOCK, WriteLock(holder="another"))
        writes = machine.engine.writes
        await asyncio.sleep(LOCK_SECONDS * dataset_locks.WRITE_SHARE)
        machine.engine.gate.open()
        await asyncio.sleep(0.2)
        assert machine.engine.writes == writes + 1  # the step that was under way
        written = await committed
    assert written.files == 1
    assert texts(machine, "here", await record(bus, "here")) == {"a.txt": ["Nets are mended."]}
    assert await lexicon_is_whole(bus, machine)


class LatePublisher(Publisher):
    """Comes to its first publishing when the lock is another's: ``tried`` are the generations that it was
    asked to publish."""

    tried: list[int]
    locks: Bucket[WriteLock]

    async def publish(
        self, job: Job, result: IndexResult, stage: IndexStage, *, check: Check = unchecked
    ) -> None:
        self.tried.append(result.generation)
        if len(self.tried) == 1:
            await self.locks.put(LOCK, WriteLock(holder="another"))
            async with asyncio.timeout(5 * LOCK_SECONDS):
                while not is_lost(check):
                    await asyncio.sleep(0.02)
        await super().publish(job, result, stage, check=check)


def is_lost(check: Check) -> bool:
    try:
        check()
    except LockLost:
        return True
    return False


async def test_who_lost_the_lock_publishes_nothing_of_what_it_wrote(
    bus: Bus, machine: Machine, job: Job, quick_locks: None
) -> None:
    encoder = machine.encoder.version
    publisher = LatePublisher(bus, encoder=encoder, chunker="document", now=now, on_change=lambda *_: None)
    publisher.tried, publisher.locks = [], Bucket(bus, streams.KV_LOCKS, WriteLock)
    locks = DatasetLocks(bus, "one", ttl_seconds=LOCK_SECONDS)
    async with GroupCommit(machine.store, publisher, locks, encoder=encoder) as commits:
        written = await commits.commit(ready(job, "a.txt", "Nets are mended."))
    first, second = publisher.tried
    live = await record(bus, "here")
    assert live is not None
    assert (written.generation, live.generation) == (second, second) and first < second
    assert texts(machine, "here", live) == {"a.txt": ["Nets are mended."]}


async def test_a_lock_is_kept_for_as_long_as_its_holder_needs_it(
    bus: Bus, machine: Machine, quick_locks: None
) -> None:
    one, two = (DatasetLocks(bus, name, ttl_seconds=LOCK_SECONDS) for name in ("one", "two"))
    taken: list[float] = []

    async def wait() -> None:
        async with two.hold(KEY) as check:
            check()
            taken.append(time.monotonic())

    async with one.hold(KEY) as check:
        waiting = asyncio.create_task(wait())
        await asyncio.sleep(1.5 * LOCK_SECONDS)
        check()
        assert not taken
        left = time.monotonic()
    await waiting
    assert 0 <= taken[0] - left < 1
    with pytest.raises(LockLost):
        check()


async def test_clearing_removes_what_was_never_published_and_nothing_else(
    bus: Bus, machine: Machine, job: Job
) -> None:
    async with committing(bus, machine) as commits:
        live = await commits.commit(ready(job, "a.txt", "Nets are mended."))
        write_files(
            [ready(job, "a.txt", "Nets are torn."), ready(job, "b.txt", "Nets are sold.")],
            Live(generation=live.generation, files=1),
            origin(job, live.generation + 5),
            machine.store,
            unchecked,
        )
        for _ in range(2):
            await commits.clear(job, KEY)
        assert machine.store.left_by(job.job_id, 9) == {KEY: {live.generation}}
        assert texts(machine, "here", await record(bus, "here")) == {"a.txt": ["Nets are mended."]}
        assert await lexicon_is_whole(bus, machine)
        await commits.clear(job, key_of("never"))


async def test_a_full_disk_fails_the_files_and_leaves_nothing(bus: Bus, machine: Machine, job: Job) -> None:
    async with committing(bus, machine) as commits:
        live = await commits.commit(ready(job, "a.txt", "Nets are mended."))
        machine.engine.broken = StoreFull("full")
        with pytest.raises(StoreFull):
            await commits.commit(ready(job, "b.txt", "Nets are sold."))
        machine.engine.broken = None
        assert machine.store.left_by(job.job_id, 9) == {KEY: {live.generation}}
        assert (await commits.commit(ready(job, "b.txt", "Nets are sold."))).files == 2


async def test_without_the_bus_files_are_left_to_a_redelivery(
    bus: Bus, nats_server: NatsServer, machine: Machine, job: Job, quick_locks: None
) -> None:
    async with committing(bus, machine, ttl_seconds=LOCK_SECONDS) as commits:
        machine.engine.gate.shut()
        files = [ready(job, f"{number}.txt", "Nets are mended.") for number in range(3)]
        committed = [asyncio.create_task(commits.commit(file)) for file in files]
        await until(machine.engine.gate.reached.is_set)
        nats_server.kill()
        await asyncio.sleep(LOCK_SECONDS)
        machine.engine.gate.open()
        for each in committed:
            with pytest.raises(TROUBLE):
                await asyncio.wait_for(each, 30)
    assert machine.store.count(KEY, 2**52, "chunk") <= 3
