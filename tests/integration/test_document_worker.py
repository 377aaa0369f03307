"""A worker reads documents into their dataset, one at a time, and takes back what must not stay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import anyio
import pytest
from msgspec.structs import replace

from pharos_contracts import streams
from pharos_contracts.control.v1 import Action
from pharos_contracts.datasets.v1 import Dataset
from pharos_contracts.identity import dataset_key, documents_dataset
from pharos_contracts.jobs.v1 import (
    DocumentSource,
    ItemCompleted,
    ItemFailed,
    ItemSkipped,
    ItemStarted,
    Job,
    JobKind,
)
from pharos_contracts.workers.v1 import Worker as WorkerView
from pharos_contracts.workers.v1 import WorkerState
from pharos_embedder.bm25 import Lexicon, query_vector
from pharos_embedder.control import Control
from pharos_embedder.document_points import terms_of
from pharos_embedder.document_work import DocumentConfig, DocumentTools, DocumentWork
from pharos_embedder.documents.limits import DocumentLimits
from pharos_embedder.documents.pool import DocumentPool
from pharos_embedder.draining import Drain
from pharos_embedder.encoding import EncoderService
from pharos_embedder.presence import Presence
from pharos_embedder.publishing import Publisher
from pharos_embedder.vectors import DatasetKey, Payload, Searched, Selection
from pharos_embedder.worker import Worker
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus
from pharos_service.ending import end
from pharos_sources.fetching import DocumentFetcher
from pharos_sources.hosts import AllowedHosts
from tests.support.agreeing import disagreements
from tests.support.web_server import WebServer, answer
from tests.support.workers import (
    Machine,
    hand_out,
    hand_out_clearing,
    new_job,
    now,
    stop,
    until,
    until_said,
    until_settled,
)

pytestmark = pytest.mark.anyio

LABEL = "docs"
NAME = documents_dataset(LABEL)
KEY = DatasetKey("default", "default", NAME)
FIRST = "The lighthouse keeper writes a letter about the storm."
SECOND = "Bread is baked with flour, water and patience."


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with Machine(tmp_path) as found:
        yield found


@pytest.fixture
def pool() -> Iterator[DocumentPool]:
    with DocumentPool(1) as found:
        yield found


@asynccontextmanager
async def reading(
    bus: Bus, machine: Machine, pool: DocumentPool, *, allowed_hosts: str = ""
) -> AsyncIterator[None]:
    """One slot for documents."""
    config = DocumentConfig(
        workspaces=machine.workspaces,
        allowed_hosts=AllowedHosts.parse(allowed_hosts),
        limits=DocumentLimits(),
    )
    publisher = Publisher(
        bus, encoder=machine.encoder.version, chunker=config.chunker, now=now, on_change=lambda *_: None
    )
    view = WorkerView(
        name="w2",
        instance=str(uuid4()),
        pool="default",
        state=WorkerState.IDLE,
        device="cpu",
        slots=0,
        document_slots=1,
        since=now(),
        seen_at=now(),
    )
    presence, control, drain = Presence(bus, view, now), Control(bus), Drain()
    async with DocumentFetcher(config.allowed_hosts) as fetcher:
        tools = DocumentTools(
            bus=bus,
            fetcher=fetcher,
            pool=pool,
            store=machine.store,
            encoder=EncoderService(machine.encoder),
            cache=machine.cache,
        )
        worker = Worker(
            bus,
            DocumentWork(tools, publisher, config),
            presence,
            control,
            drain,
            now=now,
            consumer=streams.WORKERS_DOCUMENTS,
        )
        tasks = [asyncio.create_task(each) for each in (control.follow(), presence.beat(), worker.serve())]
        try:
            yield
        finally:
            machine.encoder.gate.open()
            await end(*tasks)


async def note(bus: Bus, text: str | bytes, identity: str = "note", filename: str | None = None) -> Job:
    """The job of a document that was just uploaded."""
    store = await bus.jetstream.object_store(streams.OBJ_UPLOADS)
    name = str(uuid4())
    await store.put(name, text.encode() if isinstance(text, str) else text)
    source = DocumentSource(
        label=LABEL, identity=identity, object_name=name, filename=filename, title="A note"
    )
    return job_of(source, JobKind.TEXT if filename is None else JobKind.FILE)


def job_of(source: DocumentSource, kind: JobKind) -> Job:
    return new_job("", kind=kind, source=None, document=source, dataset=documents_dataset(source.label))


def page(url: str) -> Job:
    return job_of(DocumentSource(label=LABEL, identity=url, url=url), JobKind.URL)


async def completed(bus: Bus, job: Job) -> ItemCompleted:
    await hand_out(bus, job)
    said: ItemCompleted = await until_said(bus, job, ItemCompleted)
    await until_settled(bus)
    return said


async def record(bus: Bus) -> Dataset | None:
    entry = await Bucket(bus, streams.KV_DATASETS, Dataset).get(dataset_key("default", "default", NAME))
    return entry.value if entry is not None else None


async def objects(bus: Bus) -> int:
    """How many messages the object store has, once nothing removes any."""
    held = -1
    with anyio.move_on_after(5):
        while held:
            held = (await bus.api(f"STREAM.INFO.OBJ_{streams.OBJ_UPLOADS}"))["state"]["messages"]
            await anyio.sleep(0.02)
    return held


def found(machine: Machine, words: str, generation: int) -> list[Payload]:
    """The passages with any of *words* in what readers of *generation* see."""
    vector = query_vector(words, [machine.store.lexicon(KEY, generation)])
    where = Selection(datasets=(Searched(dataset=KEY, generation=generation, has_dense=True),))
    return [hit.payload for hit in machine.store.sparse(vector, where, 50)]


async def test_a_note_is_added_and_found_and_another_one_beside_it(
    bus: Bus, machine: Machine, pool: DocumentPool
) -> None:
    async with reading(bus, machine, pool):
        first = (await completed(bus, await note(bus, FIRST, "one"))).result
        second = (await completed(bus, await note(bus, f"# Baking\n\n{SECOND}", "docs/b.md", "b.md"))).result
    assert (first.chunks, first.dataset_files, first.dataset_chunks) == (1, 1, 1)
    assert (second.chunks, second.dataset_files, second.dataset_chunks) == (1, 2, 2)
    assert (second.built_on, second.title) == (first.generation, "Baking")
    live = await record(bus)
    assert live is not None
    assert (live.generation, live.files, live.chunks, live.repository) == (second.generation, 2, 2, "")
    (letter,) = found(machine, "lighthouse", second.generation)
    assert (letter.path, letter.text) == ("one", FIRST)
    assert letter.document is not None and letter.document.title == "A note"
    (bread,) = found(machine, "flour", second.generation)
    assert bread.document is not None
    assert (bread.document.headings, bread.document.filename) == (("Baking",), "b.md")
    assert machine.store.ids_without_text(KEY, second.generation) == set()
    assert await objects(bus) == 0  # what was read is not kept a second time


async def test_the_same_document_again_replaces_its_chunks_and_no_others(
    bus: Bus, machine: Machine, pool: DocumentPool
) -> None:
    async with reading(bus, machine, pool):
        await completed(bus, await note(bus, SECOND, "other"))
        before = (await completed(bus, await note(bus, FIRST))).result
        after = (await completed(bus, await note(bus, "The keeper sleeps."))).result
        # Whoever began to read before it was replaced still finds the old one.
        assert [each.text for each in found(machine, "lighthouse", before.generation)] == [FIRST]
        again = (await completed(bus, await note(bus, "The keeper sleeps."))).result
    assert (after.dataset_files, after.dataset_chunks) == (2, 2)
    assert (again.dataset_files, again.dataset_chunks, again.chunks_encoded) == (2, 2, 0)
    for generation in (after.generation, again.generation):
        assert found(machine, "lighthouse", generation) == []
        assert [each.text for each in found(machine, "keeper", generation)] == ["The keeper sleeps."]
        assert [each.text for each in found(machine, "flour", generation)] == [SECOND]
        alive = machine.store.payloads(KEY, machine.store.live_ids(KEY, generation, "chunk"))
        assert machine.store.lexicon(KEY, generation) == Lexicon.of(map(terms_of, alive))


async def test_a_page_is_fetched_and_one_that_is_not_there_fails_in_the_words_of_its_server(
    bus: Bus, machine: Machine, pool: DocumentPool
) -> None:
    html = f"<html lang='en'><head><title>Harbour</title></head><body><p>{FIRST}</p></body></html>".encode()
    async with WebServer() as server:
        server.answers["/guide"] = answer(body=html, content_type="text/html; charset=utf-8")
        server.answers["/busy"] = answer("503 Service Unavailable")
        url = f"{server.url}/guide"
        async with reading(bus, machine, pool, allowed_hosts=server.url):
            result = (await completed(bus, page(url))).result
            (passage,) = found(machine, "lighthouse", result.generation)
            assert (passage.path, passage.document and passage.document.url) == (url, url)
            assert (result.title, passage.language) == ("Harbour", "html")
            for path, error, transient in (
                ("/gone", "HTTPError: 404 Not Found", False),
                ("/busy", "HTTPError: 503 Service Unavailable", True),
            ):
                job = page(server.url + path)
                await hand_out(bus, job)
                failed = await until_said(bus, job, ItemFailed)
                assert (failed.error, failed.transient) == (error, transient)
    live = await record(bus)
    assert live is not None and live.generation == result.generation


async def test_what_cannot_be_read_fails_with_its_sentence(
    bus: Bus, machine: Machine, pool: DocumentPool
) -> None:
    async with reading(bus, machine, pool):
        gone = DocumentSource(label=LABEL, identity="x", object_name="never")
        for job, code in (
            (await note(bus, " \n "), "document_empty"),
            (await note(bus, b"%PDF-1.7 nothing of it", filename="a.pdf"), "document_damaged"),
            (job_of(gone, JobKind.TEXT), "upload_gone"),
            (page("http://127.0.0.1:9/private"), "invalid_url"),
        ):
            await hand_out(bus, job)
            failed = await until_said(bus, job, ItemFailed)
            assert (failed.code, failed.transient) == (code, False)
            assert failed.error.endswith((".", "again")) or code == "invalid_url"
            assert machine.holds_nothing_of(job)
    assert await record(bus) is None


async def test_a_cancelled_document_leaves_its_dataset_as_it_was(
    bus: Bus, machine: Machine, pool: DocumentPool
) -> None:
    async with reading(bus, machine, pool):
        before = (await completed(bus, await note(bus, FIRST))).result
        machine.encoder.gate.shut()
        job = await note(bus, SECOND)
        await hand_out(bus, job)
        await until_said(bus, job, ItemStarted)
        await until(machine.encoder.gate.reached.is_set)
        await stop(bus, job, Action.CANCEL)
        machine.encoder.gate.open()
        await hand_out_clearing(bus, job)
        await until_settled(bus)
        await until(lambda: machine.holds_nothing_of(job))
        live = await record(bus)
        assert live is not None and live.generation == before.generation
        assert [each.text for each in found(machine, "lighthouse", before.generation)] == [FIRST]
        assert found(machine, "flour", before.generation + 10) == []
        after = (await completed(bus, await note(bus, SECOND))).result
    assert [each.text for each in found(machine, "flour", after.generation)] == [SECOND]
    assert found(machine, "lighthouse", after.generation) == []


async def test_a_paused_document_goes_on_with_what_it_had(
    bus: Bus, machine: Machine, pool: DocumentPool
) -> None:
    async with reading(bus, machine, pool):
        machine.encoder.gate.shut()
        job = await note(bus, FIRST)
        await hand_out(bus, job)
        await until(machine.encoder.gate.reached.is_set)
        fact = await stop(bus, job, Action.PAUSE)
        machine.encoder.gate.open()
        await until_settled(bus)
        assert await record(bus) is None
        await hand_out(bus, replace(job, facts_after=fact), dispatch=2)
        result = (await until_said(bus, job, ItemCompleted)).result
    assert [each.text for each in found(machine, "lighthouse", result.generation)] == [FIRST]


def deletion(identity: str) -> Job:
    return job_of(DocumentSource(label=LABEL, identity=identity), JobKind.DELETE)


async def test_one_document_is_deleted_and_the_others_stay(
    bus: Bus, machine: Machine, pool: DocumentPool
) -> None:
    async with reading(bus, machine, pool):
        await completed(bus, await note(bus, FIRST, "one"))
        before = (await completed(bus, await note(bus, SECOND, "two"))).result
        result = (await completed(bus, deletion("one"))).result
        assert (result.built_on, result.summary) == (before.generation, "Removed a document of 1 chunk.")
        live = await record(bus)
        assert live is not None
        assert (live.generation, live.files, live.chunks) == (result.generation, 1, 1)
        assert found(machine, "lighthouse", live.generation) == []
        assert [each.path for each in found(machine, "flour", live.generation)] == ["two"]
        alive = machine.store.payloads(KEY, machine.store.live_ids(KEY, live.generation, "chunk"))
        assert machine.store.lexicon(KEY, live.generation) == Lexicon.of(map(terms_of, alive))
        # Not only hidden: neither its vectors nor what only saved work are kept.
        assert machine.store.live_ids(KEY, before.generation, "chunk", path="one") == set()
        assert machine.cache.count() == 1
        again = (await completed(bus, await note(bus, FIRST, "one"))).result
        assert (again.chunks_encoded, again.dataset_files) == (1, 2)
        assert [each.path for each in found(machine, "lighthouse", again.generation)] == ["one"]
        assert disagreements(machine.store, await record(bus)) == []


async def test_the_last_document_may_go_and_one_that_is_not_there_is_nothing_to_do(
    bus: Bus, machine: Machine, pool: DocumentPool
) -> None:
    async with reading(bus, machine, pool):
        for there in (False, True):
            if there:
                await completed(bus, await note(bus, FIRST, "one"))
                await completed(bus, deletion("one"))
            nothing = deletion("one")
            await hand_out(bus, nothing)
            skipped = await until_said(bus, nothing, ItemSkipped)
            assert skipped.reason == "There is no such document"
            assert machine.holds_nothing_of(nothing)
        live = await record(bus)
        assert live is not None and (live.files, live.chunks) == (0, 0)
        result = (await completed(bus, await note(bus, SECOND, "two"))).result
        assert (result.dataset_files, result.dataset_chunks) == (1, 1)
