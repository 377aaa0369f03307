"""What is done with a document: obtain its bytes, read them in a process of their own, add it to its dataset.

    fetch → parse → store → encode

Everything is written beside the live generation, in which the document is still as it was.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

import anyio
import msgspec

from pharos_contracts.identity import documents_dataset
from pharos_contracts.jobs.v1 import DocumentSource, IndexResult, JobKind, Notice, Stage, WorkItem
from pharos_contracts.streams import OBJ_UPLOADS
from pharos_embedder.document_points import CHUNKER, Passage, passages
from pharos_embedder.document_stages import Placed, payloads_of_document, place_stage, seal_document
from pharos_embedder.documents.limits import DocumentLimits
from pharos_embedder.documents.pool import DocumentPool, ReadDocument
from pharos_embedder.encodables import EncodablesInMemory
from pharos_embedder.encoders import Priority, TextEncoder
from pharos_embedder.kept import forget_chunks
from pharos_embedder.pipeline import Target, batch_tokens
from pharos_embedder.points import Origin
from pharos_embedder.ports import Check, Held, NothingToDo
from pharos_embedder.published_work import PublishedWork, StageSeconds, Writing, in_workspace, writing
from pharos_embedder.publishing import Publisher
from pharos_embedder.text_vectors import encode_stage
from pharos_embedder.threads import in_thread
from pharos_embedder.vector_cache import VectorCache
from pharos_embedder.vectors import DatasetKey, VectorStore, generation_after
from pharos_service.bus import Bus
from pharos_service.objects import download, remove
from pharos_sources.fetching import DocumentFetcher
from pharos_sources.hosts import AllowedHosts
from pharos_sources.web_address import parse_web_address

FILE: Final = "document"
NOT_THERE: Final = "There is no such document"


class DocumentConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What does not change between jobs. Sizes are characters."""

    workspaces: Path
    allowed_hosts: AllowedHosts
    limits: DocumentLimits
    chunk_size: int = 1000
    overlap: int = 100
    batch_tokens: int | None = None
    job_seconds: float = 600

    @property
    def chunker(self) -> str:
        """What decides how a document is cut."""
        return f"{CHUNKER}:{self.chunk_size}:{self.overlap}"


class DocumentTools(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker has at hand for every document."""

    bus: Bus
    fetcher: DocumentFetcher
    pool: DocumentPool
    store: VectorStore
    encoder: TextEncoder
    cache: VectorCache


class Obtained(msgspec.Struct, frozen=True, kw_only=True):
    """The bytes of a document and what is said of them."""

    path: Path
    name: str
    media_type: str


class DocumentWork(PublishedWork):
    """The ``ports.Work`` of one slot."""

    def __init__(self, tools: DocumentTools, publisher: Publisher, config: DocumentConfig) -> None:
        super().__init__(tools.store, (tools.cache,), publisher)
        self._tools = tools
        self._config = config

    async def run(self, held: Held) -> IndexResult:
        async def work(workspace: Path) -> IndexResult:
            async with writing(held, self._publisher) as claimed:
                return await self._add(claimed, workspace)

        seconds = self._config.job_seconds
        return await in_workspace(self._config.workspaces, held.job.job_id, seconds, work)

    async def tidy(self, item: WorkItem, result: IndexResult) -> None:
        job = item.job
        if job.kind is JobKind.DELETE:
            # At once, and not with the next generation: its owner was told that it is gone.
            key = DatasetKey(job.tenant, job.project, result.dataset)
            await anyio.to_thread.run_sync(self._store.collect, key, result.generation)
        await super().tidy(item, result)
        # Not of a job that failed: its owner may have it tried again.
        document = job.document
        if document is not None and document.object_name is not None:
            await remove(self._tools.bus, OBJ_UPLOADS, document.object_name)

    async def _add(self, held: Writing, workspace: Path) -> IndexResult:
        job, source, seconds = held.job, held.job.document, StageSeconds()
        assert source is not None, "only documents are read here"
        if job.kind is JobKind.DELETE:
            return await self._remove(held, source)
        held.report(Stage.FETCH, 0, 0)
        await anyio.Path(workspace).mkdir(parents=True)
        obtained = await self._obtain(source, workspace / FILE)
        seconds.end(Stage.FETCH)
        held.report(Stage.PARSE, 0, 1)
        read = await in_thread(partial(self._read, obtained), held.check)
        seconds.end(Stage.PARSE)
        name = job.dataset or documents_dataset(source.label)
        target = await held.begin(name)
        origin = self._origin(held, target)
        found = passages(
            read,
            source.identity,
            origin,
            title=source.title,
            url=source.url or source.link or "",  # not where it led: a redirect may carry a secret
            filename=source.filename or obtained.name,
        )
        held.report(Stage.STORE, 0, len(found))
        place = partial(place_stage, found, source.identity, target.live, origin, self._tools.store)
        placed = await in_thread(place, held.check)
        seconds.end(Stage.STORE)
        encoded, reused = await in_thread(partial(self._encode, held, found, origin), held.check)
        seconds.end(Stage.ENCODE)
        seal = partial(seal_document, found, source.identity, placed, origin, self._tools.store)
        await in_thread(seal, held.check)
        seconds.end(Stage.PUBLISH)
        result = _result(name, origin, target, read, placed)
        return msgspec.structs.replace(
            result, chunks_encoded=encoded, chunks_reused=reused, stage_seconds=seconds.by_stage
        )

    def _origin(self, held: Held, target: Target) -> Origin:
        return Origin(
            dataset=target.dataset,
            generation=generation_after(target.live.follows),
            scope=held.job.scope,
            repository="",
            encoder=self._tools.encoder.version,
            chunker=CHUNKER,
            job=held.job.job_id,
            attempt=held.attempt,
        )

    async def _remove(self, held: Writing, source: DocumentSource) -> IndexResult:
        """A generation without the document. NothingToDo where it is not there."""
        job, store, seconds = held.job, self._tools.store, StageSeconds()
        name = job.dataset or documents_dataset(source.label)
        target = await held.begin(name)
        origin = self._origin(held, target)
        held.report(Stage.STORE, 0, 1)
        look = partial(payloads_of_document, source.identity, target.live, origin, store)
        gone = await anyio.to_thread.run_sync(look)
        if not gone:
            raise NothingToDo(NOT_THERE)
        # First: a crash behind this costs an encoding, not a vector that stays.
        await anyio.to_thread.run_sync(forget_chunks, self._tools.cache, self._tools.encoder.version, gone)
        place = partial(place_stage, [], source.identity, target.live, origin, store)
        placed = await in_thread(place, held.check)
        seconds.end(Stage.STORE)
        await in_thread(partial(seal_document, [], source.identity, placed, origin, store), held.check)
        seconds.end(Stage.PUBLISH)
        chunks = "chunk" if len(gone) == 1 else "chunks"
        return IndexResult(
            dataset=name,
            generation=origin.generation,
            built_on=target.live.follows,
            commit="",
            files_processed=0,
            embeddings_generated=0,
            chunks=0,
            summary=f"Removed a document of {len(gone)} {chunks}.",
            dataset_files=target.live.files - 1,
            dataset_chunks=placed.chunks,
            stage_seconds=seconds.by_stage,
        )

    async def _obtain(self, source: DocumentSource, into: Path) -> Obtained:
        if source.url is not None:
            address = parse_web_address(source.url, allowed_hosts=self._config.allowed_hosts)
            page = await self._tools.fetcher.fetch(address, into)
            kind = page.content.media_type
            if page.content.charset:
                kind = f"{kind}; charset={page.content.charset}"
            return Obtained(path=into, name=page.content.name, media_type=kind)
        assert source.object_name is not None, "it was checked when the message was read"
        await download(self._tools.bus, OBJ_UPLOADS, source.object_name, into)
        return Obtained(path=into, name=source.filename or "", media_type=source.media_type)

    def _read(self, obtained: Obtained, check: Check) -> ReadDocument:
        return self._tools.pool.read(
            obtained.path,
            obtained.name,
            obtained.media_type,
            self._config.limits,
            chunk_size=self._config.chunk_size,
            overlap=self._config.overlap,
            check=check,
        )

    def _encode(self, held: Held, found: list[Passage], origin: Origin, check: Check) -> tuple[int, int]:
        usual = self._config.batch_tokens or self._tools.encoder.token_budget
        return encode_stage(
            EncodablesInMemory({passage.id: passage for passage in found}),
            origin,
            self._tools,
            batch_tokens(held.job, held.attempt, usual),
            held.report,
            held.check_midway,
            check,
            priority=Priority.NOTE,
        )


def _result(name: str, origin: Origin, target: Target, read: ReadDocument, placed: Placed) -> IndexResult:
    summary = read.summary
    chunks = "chunk" if summary.chunks == 1 else "chunks"
    return IndexResult(
        dataset=name,
        generation=origin.generation,
        built_on=target.live.follows,
        commit="",
        files_processed=1,
        embeddings_generated=summary.chunks,
        chunks=summary.chunks,
        languages={summary.kind: 1},
        warnings=tuple(Notice(message=warning) for warning in summary.warnings),
        warnings_total=len(summary.warnings),
        summary=f"{'Replaced' if placed.replaced else 'Added'} a document of {summary.chunks} {chunks}.",
        dataset_files=target.live.files + (not placed.replaced),
        dataset_chunks=placed.chunks,
        title=summary.title,
        natural_language=summary.language,
        quality=round(summary.quality, 3),
    )
