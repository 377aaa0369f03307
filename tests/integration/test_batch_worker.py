"""A worker does files of batches: several at once, published together, each of them exactly once."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from pharos_contracts.connections.v1 import SourceType, archive_name
from pharos_contracts.control.v1 import Action
from pharos_contracts.jobs.v1 import (
    IndexResult,
    ItemCancelled,
    ItemCommitting,
    ItemCompleted,
    ItemFailed,
    ItemSkipped,
    ItemStarted,
    WorkItem,
)
from pharos_contracts.streams import OBJ_ARCHIVES
from pharos_embedder.bm25 import Lexicon
from pharos_embedder.document_points import terms_of
from pharos_embedder.documents.pool import DocumentPool
from pharos_embedder.items import ItemLog, last_fact
from pharos_embedder.kept import forget_chunks
from pharos_embedder.vectors import StoreFull, StoreUnavailable
from pharos_service.bus import Bus
from pharos_sources.connections import Installation
from pharos_sources.hosts import AllowedHosts
from tests.support.agreeing import disagreements
from tests.support.batch_machine import (
    batch,
    doing,
    hand_out,
    hand_out_clearing,
    item_of,
    keep_connection,
    key_of,
    last_said,
    passages_with,
    published,
    record,
    stop,
    texts,
    until_ended,
    write_files,
)
from tests.support.batch_process import ACK_WAIT_SECONDS, CONFIG, LOCK_SECONDS
from tests.support.nats_server import NatsServer
from tests.support.s3_server import S3Server
from tests.support.web_server import WebServer, answer
from tests.support.workers import Machine, declared, now, until, until_settled, worker_entry

pytestmark = pytest.mark.anyio

LOCAL = {"here": SourceType.LOCAL_DIRECTORY}
KEEPER = "The lighthouse keeper writes a letter about the storm that took the boats."
BREAD = "Bread is baked with flour, water and patience, and then with fire."


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with Machine(tmp_path / "home") as found:
        yield found


@pytest.fixture(scope="module")
def pool() -> Iterator[DocumentPool]:
    with DocumentPool(2) as found:
        yield found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "papers"
    found.mkdir()
    return found


@pytest.fixture
async def installation(bus: Bus, folder: Path) -> Installation:
    """That admits the folder, which is the connection `here`."""
    found = Installation(roots=(folder.parent,))
    await keep_connection(bus, "here", SourceType.LOCAL_DIRECTORY, found, path=str(folder))
    return found


async def test_files_of_several_sources_are_done_at_once_and_found(
    bus: Bus, machine: Machine, pool: DocumentPool, folder: Path
) -> None:
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("b.md", f"# Baking\n\n{BREAD}")
    await (await bus.jetstream.object_store(OBJ_ARCHIVES)).put(
        archive_name("default", "u1"), packed.getvalue()
    )
    write_files(folder, {"a.txt": KEEPER, "deep/c.txt": BREAD})
    with S3Server() as s3:
        s3.bucket("papers", {"d.txt": KEEPER.encode()})
        async with WebServer() as web:
            page = f"<html lang='en'><head><title>Harbour</title></head><body><p>{KEEPER}</p></body></html>"
            web.answers["/guide"] = answer(body=page.encode(), content_type="text/html; charset=utf-8")
            allowed = AllowedHosts.parse(f"{s3.url},{web.url}")
            installation = Installation(roots=(folder.parent,), allowed_hosts=allowed)
            await keep_connection(bus, "here", SourceType.LOCAL_DIRECTORY, installation, path=str(folder))
            await keep_connection(bus, "zip", SourceType.LOCAL_ZIP, installation, upload_id="u1")
            await keep_connection(
                bus,
                "bucket",
                SourceType.S3,
                installation,
                bucket="papers",
                endpoint=s3.url,
                region="eu-central-1",
                access_key_id=s3.access_key,
                secret_access_key=s3.secret_key,
            )
            await keep_connection(bus, "web", SourceType.HTTP, installation, urls=[f"{web.url}/guide"])
            from pharos_sources.http_source import addresses_of

            (page_id,) = addresses_of([f"{web.url}/guide"], allowed_hosts=allowed)
            job = batch(
                {
                    "here": SourceType.LOCAL_DIRECTORY,
                    "zip": SourceType.LOCAL_ZIP,
                    "bucket": SourceType.S3,
                    "web": SourceType.HTTP,
                },
                2,
            )
            items = [
                item_of(job, 0, "a.txt"),
                item_of(job, 1, "deep/c.txt"),
                item_of(job, 2, "b.md", part=1),
                item_of(job, 3, "d.txt", part=2),
                item_of(job, 4, page_id, part=3, name="guide"),
            ]
            async with doing(bus, machine, pool, installation):
                await hand_out(bus, *items)
                ended = await until_ended(bus, *items)
                await until_settled(bus)
    assert [type(each) for each in ended] == [ItemCompleted] * 5, ended
    here = await record(bus, "here")
    assert here is not None and (here.files, here.chunks, here.repository) == (2, 2, "")
    assert texts(machine, "here", here) == {"a.txt": [KEEPER], "deep/c.txt": [BREAD]}
    (bread,) = passages_with(machine, "zip", "flour", await record(bus, "zip"))
    assert bread.document is not None
    assert (bread.path, bread.document.headings, bread.document.filename) == ("b.md", ("Baking",), "b.md")
    assert texts(machine, "bucket", await record(bus, "bucket")) == {"d.txt": [KEEPER]}
    (guide,) = passages_with(machine, "web", "lighthouse", await record(bus, "web"))
    assert guide.document is not None and guide.document.title == "Harbour"
    results = [each.result for each in ended if isinstance(each, ItemCompleted)]
    assert all(each.generation > 0 and each.files_processed == 1 and each.sha256 for each in results)
    assert not any(machine.workspaces.iterdir())
    # Whoever deletes the dataset finds what the cache has of it.
    of_dataset = machine.store.live_ids(key_of("here"), here.generation, "chunk")
    before = machine.cache.count()
    forget_chunks(machine.cache, machine.encoder.version, machine.store.payloads(key_of("here"), of_dataset))
    assert machine.cache.count() == before - 2


async def test_files_that_are_ready_together_are_one_generation(
    bus: Bus, machine: Machine, pool: DocumentPool, folder: Path, installation: Installation
) -> None:
    names = [f"{number}.txt" for number in range(12)]
    write_files(folder, {name: f"{KEEPER} Page {name}." for name in names})
    job = batch(LOCAL, len(names))
    items = [item_of(job, number, name) for number, name in enumerate(names)]
    async with doing(bus, machine, pool, installation, slots=4):
        await hand_out(bus, *items)
        ended = await until_ended(bus, *items)
        entry = await worker_entry(bus, "w2")
    assert all(isinstance(each, ItemCompleted) for each in ended), ended
    assert entry is not None and entry.document_slots == 4
    live = await record(bus, "here")
    assert live is not None and (live.files, live.chunks) == (12, 12)
    assert {path: len(found) for path, found in texts(machine, "here", live).items()} == dict.fromkeys(
        names, 1
    )
    assert await published(bus) < 12
    alive = machine.store.payloads(
        key_of("here"), machine.store.live_ids(key_of("here"), live.generation, "chunk")
    )
    assert machine.store.lexicon(key_of("here"), live.generation) == Lexicon.of(map(terms_of, alive))
    assert machine.store.ids_without_text(key_of("here"), live.generation) == set()


async def test_a_file_that_is_there_already_is_skipped_and_one_that_changed_replaces_its_chunks(
    bus: Bus, machine: Machine, pool: DocumentPool, folder: Path, installation: Installation
) -> None:
    write_files(folder, {"a.txt": KEEPER, "b.txt": BREAD})
    async with doing(bus, machine, pool, installation):
        first = batch(LOCAL, 2)
        one = [item_of(first, 0, "a.txt"), item_of(first, 1, "b.txt")]
        await hand_out(bus, *one)
        assert all(isinstance(each, ItemCompleted) for each in await until_ended(bus, *one))
        before, encoded = await record(bus, "here"), len(machine.encoder.given)

        write_files(folder, {"a.txt": "The keeper sleeps."})
        (folder / "b.txt").touch()  # another version of the same bytes
        second = batch(LOCAL, 2)
        two = [item_of(second, 0, "a.txt"), item_of(second, 1, "b.txt")]
        await hand_out(bus, *two)
        changed, touched = await until_ended(bus, *two)
        assert isinstance(changed, ItemCompleted) and changed.result.summary == "Replaced a file of 1 chunk."
        assert isinstance(touched, ItemSkipped)
        assert touched.reason == "The file is already indexed, and has not changed"
        after = await record(bus, "here")
        assert texts(machine, "here", after) == {"a.txt": ["The keeper sleeps."], "b.txt": [BREAD]}
        assert passages_with(machine, "here", "lighthouse", after) == []
        assert before is not None and after is not None and (after.files, after.chunks) == (2, 2)
        assert len(machine.encoder.given) == encoded + 1

        third = batch(LOCAL, 2)
        again = item_of(third, 0, "a.txt")
        await hand_out(bus, again)
        (skipped,) = await until_ended(bus, again)
        assert isinstance(skipped, ItemSkipped)
        assert skipped.reason == "This version of the file is already indexed"

        # Cut otherwise, it is another content; and whoever does not want to skip does not.
        for number, options in enumerate(({"chunk_size": 500}, {"skip_existing": False}), 1):
            job = batch(LOCAL, 1, **options)
            item = item_of(job, number, "a.txt")
            await hand_out(bus, item)
            (done,) = await until_ended(bus, item)
            assert isinstance(done, ItemCompleted), done
        live = await record(bus, "here")
        assert texts(machine, "here", live) == {"a.txt": ["The keeper sleeps."], "b.txt": [BREAD]}
        assert disagreements(machine.store, live) == []


async def test_what_cannot_be_done_fails_with_its_sentence_and_the_others_go_on(
    bus: Bus, machine: Machine, pool: DocumentPool, folder: Path, installation: Installation
) -> None:
    write_files(
        folder,
        {"a.txt": KEEPER, "empty.txt": " ", "b.pdf": b"%PDF-1.7 nothing of it", "large.txt": "x" * 2_000_001},
    )
    (folder / "bad.txt").write_text("\ufffd " * 300 + KEEPER)
    parts = {**LOCAL, "gone": SourceType.S3}
    job = batch(parts, 6, quality_threshold=0.7)
    items = [
        item_of(job, 0, "a.txt"),
        item_of(job, 1, "empty.txt"),
        item_of(job, 2, "b.pdf"),
        item_of(job, 3, "large.txt"),
        item_of(job, 4, "never.txt"),
        item_of(job, 5, "x", part=1),
        item_of(job, 6, "bad.txt"),
    ]
    async with doing(bus, machine, pool, installation):
        await hand_out(bus, *items)
        ended = await until_ended(bus, *items)
    good, *failed, poor = ended
    assert isinstance(good, ItemCompleted)
    assert [(each.code, each.transient, each.cleared) for each in failed if isinstance(each, ItemFailed)] == [
        ("document_empty", False, True),
        ("document_damaged", False, True),
        ("file_too_large", False, True),
        ("file_not_found", False, True),
        ("source_refused", False, True),
    ]
    assert "no connection 'gone'" in failed[4].error
    assert isinstance(poor, ItemSkipped)
    assert poor.reason.startswith("Its text has a quality of 0.") and poor.reason.endswith(
        "below the threshold of 0.7 of its batch"
    )
    assert texts(machine, "here", await record(bus, "here")) == {"a.txt": [KEEPER]}


async def test_a_file_that_finds_no_room_on_the_disk_fails_and_is_not_said_to_be_tried_again(
    bus: Bus, machine: Machine, pool: DocumentPool, folder: Path, installation: Installation
) -> None:
    write_files(folder, {"a.txt": KEEPER})
    machine.engine.broken = StoreFull("full")
    item = item_of(batch(LOCAL, 1), 0, "a.txt")
    async with doing(bus, machine, pool, installation):
        await hand_out(bus, item)
        (failed,) = await until_ended(bus, item)
    assert isinstance(failed, ItemFailed) and (failed.code, failed.transient) == ("disk_full", False)
    assert failed.error == "The worker's disk is full; retry the batch when it has room again"


async def test_a_file_that_takes_too_long_fails_and_says_where_it_was(
    bus: Bus, machine: Machine, pool: DocumentPool, folder: Path, installation: Installation
) -> None:
    write_files(folder, {"a.txt": f"{KEEPER}\n\n" * 100})  # of several batches of the encoder
    machine.encoder.gate.shut()
    item = item_of(batch(LOCAL, 1, timeout_seconds=1), 0, "a.txt")
    async with doing(bus, machine, pool, installation):
        await hand_out(bus, item)
        await until(machine.encoder.gate.reached.is_set)
        await asyncio.sleep(1.1)
        machine.encoder.gate.open()
        (failed,) = await until_ended(bus, item)
    assert isinstance(failed, ItemFailed) and (failed.code, failed.transient) == ("timed_out", False)
    assert failed.error == (
        "The file took longer than the 1 seconds that its batch gives one; it was at the stage 'encode'"
    )


async def test_a_cancelled_batch_stops_within_seconds_and_what_was_published_stays(
    bus: Bus, machine: Machine, pool: DocumentPool, folder: Path, installation: Installation
) -> None:
    write_files(folder, {"a.txt": KEEPER, "b.txt": BREAD, "c.txt": "Nets are mended in winter."})
    job = batch(LOCAL, 3)
    done, *flying = [item_of(job, number, name) for number, name in enumerate(("a.txt", "b.txt", "c.txt"))]
    async with doing(bus, machine, pool, installation):
        await hand_out(bus, done)
        await until_ended(bus, done)
        machine.encoder.gate.shut()
        await hand_out(bus, *flying)
        await until(machine.encoder.gate.reached.is_set)
        for item in flying:
            while not isinstance(await last_said(bus, item), ItemStarted):
                await asyncio.sleep(0.01)
        began = time.monotonic()
        for item in flying:
            await stop(bus, item, Action.CANCEL)
        machine.encoder.gate.open()
        await hand_out_clearing(bus, replace(job, state=job.state.CANCELLED))
        await until_settled(bus)
        assert time.monotonic() - began < 5
        while (entry := await worker_entry(bus, "w2")) is None or entry.job_ids:
            await asyncio.sleep(0.02)
    assert [type(each) for each in await until_ended(bus, *flying)] == [ItemCancelled] * 2
    live = await record(bus, "here")
    assert texts(machine, "here", live) == {"a.txt": [KEEPER]}
    assert live is not None and machine.store.left_by(job.job_id, 9) == {key_of("here"): {live.generation}}
    assert not any(job.job_id in label for label in machine.cache.jobs())
    assert not any(machine.workspaces.iterdir())


@pytest.mark.parametrize("moment", ["encode:3", "write:4", "published:2"])
async def test_a_worker_that_is_killed_leaves_every_file_to_the_next_one_exactly_once(
    bus: Bus,
    nats_server: NatsServer,
    tmp_path: Path,
    pool: DocumentPool,
    folder: Path,
    installation: Installation,
    moment: str,
) -> None:
    await declared(bus, work_ack_wait_seconds=ACK_WAIT_SECONDS, lock_ttl_seconds=LOCK_SECONDS)
    names = [f"{number}.txt" for number in range(8)]
    write_files(folder, {name: f"{KEEPER} Page {name}." for name in names})
    job = batch(LOCAL, len(names))
    items = [item_of(job, number, name) for number, name in enumerate(names)]
    command = [sys.executable, "-m", "tests.support.batch_process", "--nats", nats_server.url]
    command += ["--home", str(tmp_path / "home"), "--root", str(folder.parent), "--die", moment]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as dying:
        try:
            assert dying.stdout is not None
            while (line := await asyncio.to_thread(dying.stdout.readline)) and line != "ready\n":
                pass
            await hand_out(bus, *items)
            assert await asyncio.to_thread(dying.wait, 40) == -9
        finally:
            dying.kill()
    with Machine(tmp_path / "home") as machine:
        before = await published(bus)
        async with doing(bus, machine, pool, installation, config=CONFIG, lock_ttl_seconds=LOCK_SECONDS):
            ended = await until_ended(bus, *items)
            await until_settled(bus)
        assert all(isinstance(each, ItemCompleted) for each in ended), ended
        live = await record(bus, "here")
        assert live is not None and (live.files, live.chunks) == (8, 8)
        assert texts(machine, "here", live) == {name: [f"{KEEPER} Page {name}."] for name in names}
        alive = machine.store.live_ids(key_of("here"), live.generation, "chunk")
        assert machine.store.lexicon(key_of("here"), live.generation) == Lexicon.of(
            map(terms_of, machine.store.payloads(key_of("here"), alive))
        )
        assert moment != "published:2" or before == 2


async def test_a_paused_file_is_let_go_and_done_when_it_comes_again(
    bus: Bus, machine: Machine, pool: DocumentPool, folder: Path, installation: Installation
) -> None:
    write_files(folder, {"a.txt": KEEPER})
    item = item_of(batch(LOCAL, 1), 0, "a.txt")
    async with doing(bus, machine, pool, installation):
        machine.encoder.gate.shut()
        await hand_out(bus, item)
        await until(machine.encoder.gate.reached.is_set)
        await stop(bus, item, Action.PAUSE)
        machine.encoder.gate.open()
        await until_settled(bus)
        assert await record(bus, "here") is None
        last = await last_fact(bus, "default", item.job.job_id, "0")
        assert last is not None
        again = replace(item, job=replace(item.job, facts_after=last.sequence), dispatch=2)
        await hand_out(bus, again)
        (done,) = await until_ended(bus, again)
    assert isinstance(done, ItemCompleted) and done.result.chunks_reused == 1


async def left_committing(bus: Bus, item: WorkItem, result: IndexResult) -> None:
    """What a worker said of it that died then."""
    said = ItemLog(bus, item, None, attempt=1, deaths=0, worker="dead", instance="dead", now=now)
    await said.say(ItemStarted)
    await said.say(ItemCommitting, result=result)


async def test_what_was_committing_when_its_worker_died_is_published_once(
    bus: Bus, machine: Machine, pool: DocumentPool, folder: Path, installation: Installation
) -> None:
    write_files(folder, {"a.txt": KEEPER, "b.txt": BREAD})
    # Whatever it is that makes one skip a file: this one was found worth it before.
    job = batch(LOCAL, 2, quality_threshold=1)
    items = [item_of(job, number, name) for number, name in enumerate(("a.txt", "b.txt"))]
    async with doing(bus, machine, pool, installation, slots=1):
        await hand_out(bus, items[0])
        (done,) = await until_ended(bus, items[0])
        assert isinstance(done, ItemCompleted)
        generation = done.result.generation

        other = batch(LOCAL, 2)
        again = [item_of(other, number, name) for number, name in enumerate(("a.txt", "b.txt"))]
        for item in again:
            await left_committing(bus, item, replace(done.result, generation=0, built_on=0))
        read, failed = machine.engine.payloads, []

        def payloads(*arguments: Any, **others: Any) -> Any:
            if not failed:
                failed.append(True)
                raise StoreUnavailable("its owner is away")
            return read(*arguments, **others)

        machine.engine.payloads = payloads  # type: ignore[method-assign]
        await hand_out(bus, *again)
        live, made = await until_ended(bus, *again)
        assert failed and isinstance(live, ItemCompleted) and isinstance(made, ItemCompleted)
        assert (live.result.generation, live.result.summary) == (generation, done.result.summary)
        assert made.result.generation > generation and await published(bus) == 2
    assert texts(machine, "here", await record(bus, "here")) == {"a.txt": [KEEPER], "b.txt": [BREAD]}


async def test_what_cannot_be_made_ready_again_fails_for_good(
    bus: Bus, machine: Machine, pool: DocumentPool, folder: Path, installation: Installation
) -> None:
    item = item_of(batch(LOCAL, 1), 0, "gone.txt")
    result = IndexResult(
        dataset="connections/here",
        generation=0,
        commit="",
        files_processed=1,
        embeddings_generated=1,
        chunks=1,
        sha256="aa",
    )
    await left_committing(bus, item, result)
    async with doing(bus, machine, pool, installation, slots=1):
        await hand_out(bus, item)
        (failed,) = await until_ended(bus, item)
    assert isinstance(failed, ItemFailed)
    assert (failed.code, failed.transient, failed.cleared) == ("file_not_found", False, True)
    assert await record(bus, "here") is None


async def test_a_committing_file_is_not_cancelled_any_more(
    bus: Bus, machine: Machine, pool: DocumentPool, folder: Path, installation: Installation
) -> None:
    write_files(folder, {"a.txt": KEEPER})
    item = item_of(batch(LOCAL, 1), 0, "a.txt")
    async with doing(bus, machine, pool, installation):
        machine.engine.gate.shut()  # only a commit writes
        await hand_out(bus, item)
        await until(machine.engine.gate.reached.is_set)
        assert isinstance(await last_said(bus, item), ItemCommitting)
        machine.engine.gate.open()
        (done,) = await until_ended(bus, item)
    assert isinstance(done, ItemCompleted)
