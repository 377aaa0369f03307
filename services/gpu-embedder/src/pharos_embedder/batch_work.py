"""What is done with a file of a batch: fetch it, read it, encode it, and publish it together with others.

    access → fetch → parse → chunk → encode, then the commit of all files of a connection that are ready

Until the commit nothing is stored of a file but its vectors, in the cache.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import msgspec
import structlog

from pharos_contracts.batches.v1 import BatchFile, BatchOptions, connection_dataset
from pharos_contracts.jobs.v1 import IndexResult, Job, Notice, Purpose, Stage, WorkItem
from pharos_contracts.subjects import held_name
from pharos_embedder.batch_stages import (
    FileTimedOut,
    ReadyFile,
    Written,
    encode_passages,
    live_facts,
    made_by,
)
from pharos_embedder.bounded_cache import label_of, parse_label
from pharos_embedder.document_points import CHUNKER, passages
from pharos_embedder.documents.limits import DocumentLimits
from pharos_embedder.documents.pool import DocumentPool, ReadDocument
from pharos_embedder.documents.protocol import Summary
from pharos_embedder.encoders import TextEncoder
from pharos_embedder.group_commit import GroupCommit
from pharos_embedder.open_connections import OpenConnections
from pharos_embedder.pipeline import Target, batch_tokens
from pharos_embedder.points import Origin
from pharos_embedder.ports import Check, Failed, Held, NothingToDo, Problem, Report, unchecked
from pharos_embedder.published_work import StageSeconds, in_workspace, told
from pharos_embedder.publishing import Publisher
from pharos_embedder.threads import in_thread
from pharos_embedder.vector_cache import VectorCache
from pharos_embedder.vectors import (
    DatasetKey,
    DocumentFacts,
    StoreError,
    StoreFull,
    StoreUnavailable,
    VectorStore,
)
from pharos_sources.source import Entry, EntryRefused, EntryTooLarge, Source

log = structlog.get_logger()

FILE: Final = "file"
# Of a file that was ready: no other attempt follows by itself.
DISK_FULL: Final = Problem(
    sentence="The worker's disk is full; retry the batch when it has room again", code="disk_full"
)
AGAIN_TRIES: Final = 4
AGAIN_PAUSE_SECONDS: Final = 1.0  # doubled each time


class BatchConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What does not change between files. Sizes are characters, for batches that say nothing of them."""

    workspaces: Path
    limits: DocumentLimits
    chunk_size: int = 1000
    overlap: int = 100
    batch_tokens: int | None = None


class BatchTools(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker has at hand for every file."""

    connections: OpenConnections
    commits: GroupCommit
    pool: DocumentPool
    store: VectorStore
    encoder: TextEncoder
    cache: VectorCache


class Cutting(msgspec.Struct, frozen=True, kw_only=True):
    """How a file is read and cut."""

    chunk_size: int
    overlap: int
    structure: bool
    math: bool

    @property
    def chunker(self) -> str:
        """What decides, beside its bytes, how a file is cut."""
        plain = "" if self.structure else ":plain"
        return f"{CHUNKER}:{self.chunk_size}:{self.overlap}{plain}{'' if self.math else ':no-math'}"


def cutting(options: BatchOptions, config: BatchConfig) -> Cutting:
    """What *options* ask for; where only one of the two numbers is asked for, the overlap gives way."""
    size = options.chunk_size or config.chunk_size
    overlap = config.overlap if options.chunk_overlap is None else options.chunk_overlap
    return Cutting(
        chunk_size=size,
        overlap=min(overlap, size // 2),
        structure=options.preserve_structure,
        math=options.extract_math,
    )


def why_nothing(
    facts: DocumentFacts | None, made: str, *, version: str | None = None, sha256: str | None = None
) -> str | None:
    """Why a file of that *version* or *sha256* need not be indexed again; None where it must."""
    if facts is None or facts.made_by != made:
        return None
    if version is not None and version == facts.version:
        return "This version of the file is already indexed"
    if sha256 is not None and sha256 == facts.sha256:
        return "The file is already indexed, and has not changed"
    return None


class BatchWork:
    """The ``ports.Work`` of one slot."""

    def __init__(self, tools: BatchTools, publisher: Publisher, config: BatchConfig) -> None:
        self._tools = tools
        self._publisher = publisher
        self._config = config
        self._ready: tuple[str, str, ReadyFile] | None = None  # whose, its sha256, and what is to be stored

    async def run(self, held: Held) -> IndexResult:
        self._ready = None  # of an item that was taken away, perhaps
        ready, result = await self._make_ready(
            held.item, held.attempt, held.report, held.check, held.check_midway
        )
        self._ready = (held_name(held.job, held.item.item_id), result.sha256, ready)
        return result

    async def finish(self, item: WorkItem, result: IndexResult) -> IndexResult:
        name, sha256, ready = self._ready or ("", "", None)
        self._ready = None
        if ready is None or (name, sha256) != (held_name(item.job, item.item_id), result.sha256):
            return await self._finish_again(item, result)
        return await self._commit(ready, result)

    async def tidy(self, item: WorkItem, result: IndexResult) -> None:
        await anyio.to_thread.run_sync(self._tools.cache.keep, _label(item))

    async def clear(self, item: WorkItem, attempts: int, *, forget: bool) -> None:
        self._ready = None
        if item.purpose is not Purpose.CLEAR:  # of one file nothing is stored before it is committed
            if forget:
                await anyio.to_thread.run_sync(self._tools.cache.forget, _label(item))
            return
        assert item.job.batch is not None, "only batches are cleared here"
        for connection_id in dict.fromkeys(part.connection_id for part in item.job.batch.parts):
            await self._tools.commits.clear(item.job, _dataset(item.job, connection_id))
        if forget:
            await anyio.to_thread.run_sync(_forget, self._tools.cache, item.job.job_id)

    # One file

    async def _make_ready(
        self,
        item: WorkItem,
        attempt: int,
        report: Report,
        check: Check,
        midway: Check,
        *,
        again: bool = False,
    ) -> tuple[ReadyFile, IndexResult]:
        """Everything but the commit; *again*: it was judged worth it before. Raises Failed, NothingToDo."""
        assert item.job.batch is not None and item.file is not None, "only files of batches are read here"
        seconds = item.job.batch.options.timeout_seconds
        where = _LastStage(report)
        making = _Making(self._tools, self._config, item, item.file, attempt, where, check, midway)

        async def work(workspace: Path) -> tuple[ReadyFile, IndexResult]:
            with anyio.move_on_after(seconds):
                target = await self._publisher.target(item.job, making.dataset.dataset)
                return await making.make(target, workspace, again=again)
            raise FileTimedOut(where.stage, seconds)

        with self._tools.commits.making(making.dataset):
            name = held_name(item.job, item.item_id)
            return await in_workspace(self._config.workspaces, name, math.inf, work)

    async def _commit(self, ready: ReadyFile, result: IndexResult) -> IndexResult:
        try:
            written = await self._tools.commits.commit(ready)
        except StoreFull as error:
            raise Failed(DISK_FULL) from error
        except StoreError as error:
            raise Failed(told(error)) from error
        return _published(result, written, ready.identity in written.replaced)

    async def _finish_again(self, item: WorkItem, result: IndexResult) -> IndexResult:
        """Publish a file whose worker died on the way there, unless it is live already.

        What may pass is waited for: no other attempt follows this one.
        """
        for number in range(AGAIN_TRIES):
            try:
                known = await self._known_as_live(item, result)
                if known is not None:
                    log.info("file_was_published")
                    return known
                ready, found = await self._make_ready(
                    item, item.attempt, _unheard, unchecked, unchecked, again=True
                )
            except StoreUnavailable as error:
                log.warning("file_not_ready_again", error=str(error))
            except StoreError as error:
                raise Failed(told(error)) from error
            except Failed as failed:
                if not failed.problem.transient or number == AGAIN_TRIES - 1:
                    raise
                log.warning("file_not_ready_again", error=failed.problem.sentence)
            else:
                return await self._commit(ready, found)
            await asyncio.sleep(AGAIN_PAUSE_SECONDS * 2.0**number)
        raise TimeoutError("The store does not answer")  # the item comes again

    async def _known_as_live(self, item: WorkItem, result: IndexResult) -> IndexResult | None:
        """*result* as it was published, if it was."""
        assert item.job.batch is not None and item.file is not None, "only files of batches are read here"
        dataset = _dataset(item.job, item.job.batch.parts[item.file.part].connection_id)
        made = made_by(cutting(item.job.batch.options, self._config).chunker, self._tools.encoder.version)
        live = (await self._publisher.target(item.job, dataset.dataset)).live
        facts = await anyio.to_thread.run_sync(
            live_facts, dataset, live, item.file.file_id, self._tools.store
        )
        if why_nothing(facts, made, sha256=result.sha256) is None:
            return None
        return msgspec.structs.replace(
            result, generation=live.generation, built_on=live.generation, dataset_files=live.files
        )


class _Making:
    """One file on its way from its connection to what can be stored."""

    def __init__(
        self,
        tools: BatchTools,
        config: BatchConfig,
        item: WorkItem,
        file: BatchFile,
        attempt: int,
        report: Report,
        check: Check,
        midway: Check,
    ) -> None:
        assert item.job.batch is not None, "a file is of a batch"
        self._tools = tools
        self._config = config
        self._item = item
        self._file = file
        self._attempt = attempt
        self._report = report
        self._check = check
        self._midway = midway
        self._options = item.job.batch.options
        self._part = item.job.batch.parts[file.part]
        self._cutting = cutting(self._options, config)
        self._seconds = StageSeconds()
        self.dataset = _dataset(item.job, self._part.connection_id)

    async def make(self, target: Target, workspace: Path, *, again: bool) -> tuple[ReadyFile, IndexResult]:
        skips = self._options.skip_existing and not again
        made = made_by(self._cutting.chunker, self._tools.encoder.version)
        facts = None
        if skips:
            facts = await anyio.to_thread.run_sync(
                live_facts, self.dataset, target.live, self._file.file_id, self._tools.store
            )
        await anyio.Path(workspace).mkdir(parents=True)
        path = workspace / FILE
        self._report(Stage.ACCESS, 0, 0)
        job, part = self._item.job, self._part
        async with self._tools.connections.use(
            job.tenant, part.connection_id, user=part.user, project=job.project
        ) as source:
            # Asked before the bytes: where they change in between, they are newer than what is said of them.
            entry = await source.stat(self._file.file_id)
            self._refuse(entry)
            if skips and (why := why_nothing(facts, made, version=entry.identity)) is not None:
                raise NothingToDo(why)
            self._seconds.end(Stage.ACCESS)
            sha256 = await self._fetch(source, entry, path)
        if skips and (why := why_nothing(facts, made, sha256=sha256)) is not None:
            raise NothingToDo(why)
        self._seconds.end(Stage.FETCH)
        self._report(Stage.PARSE, 0, 1)
        read = await in_thread(partial(self._read, entry, path), self._check)
        self._seconds.end(Stage.PARSE)
        if not again and read.summary.quality < self._options.quality_threshold:
            raise NothingToDo(
                f"Its text has a quality of {_down(read.summary.quality)}, below the threshold of "
                f"{self._options.quality_threshold:g} of its batch"
            )
        self._report(Stage.CHUNK, 0, 1)
        origin = self._origin()
        found = passages(
            read,
            self._file.file_id,
            origin,
            title="",
            url="",
            filename=self._file.name,
            version=entry.identity or "",
            sha256=sha256,
            made_by=made,
        )
        self._seconds.end(Stage.CHUNK)
        usual = self._config.batch_tokens or self._tools.encoder.token_budget
        vectors, encoded = await in_thread(
            lambda check: encode_passages(
                found,
                origin,
                self._tools.encoder,
                self._tools.cache,
                self._tools.store,
                label=_label(self._item),
                token_budget=batch_tokens(self._item.job, self._attempt, usual),
                report=self._report,
                check=check,
                midway=self._midway,
            ),
            self._check,
        )
        self._seconds.end(Stage.ENCODE)
        ready = ReadyFile(
            job=self._item.job,
            attempt=self._attempt,
            dataset=self.dataset,
            identity=self._file.file_id,
            passages=tuple(found),
            vectors=vectors,
        )
        return ready, self._result(read.summary, target, encoded, sha256)

    def _refuse(self, entry: Entry) -> None:
        """What need not be fetched to be refused."""
        if entry.folder:
            raise EntryRefused(self._file.file_id, "it is a folder")
        if entry.size is not None and entry.size > self._config.limits.bytes_max:
            raise EntryTooLarge(self._file.file_id, self._config.limits.bytes_max)

    async def _fetch(self, source: Source, entry: Entry, into: Path) -> str:
        """The file's bytes in *into*; their hexadecimal SHA-256."""
        digest, size = hashlib.sha256(), 0
        self._report(Stage.FETCH, 0, entry.size or 0)
        async with (
            source.open(self._file.file_id, bytes_max=self._config.limits.bytes_max) as pieces,
            await anyio.open_file(into, "xb") as file,
        ):
            async for piece in pieces:
                await file.write(piece)
                digest.update(piece)
                size += len(piece)
                self._report(Stage.FETCH, size, entry.size or 0)
        return digest.hexdigest()

    def _read(self, entry: Entry, path: Path, check: Check) -> ReadDocument:
        return self._tools.pool.read(
            path,
            self._file.name,
            self._file.media_type or entry.content_type or "",
            self._config.limits,
            chunk_size=self._cutting.chunk_size,
            overlap=self._cutting.overlap,
            structure=self._cutting.structure,
            math=self._cutting.math,
            check=check,
        )

    def _origin(self) -> Origin:
        job = self._item.job
        return Origin(
            dataset=self.dataset,
            generation=0,  # known when it is written
            scope=job.scope,
            repository="",
            encoder=self._tools.encoder.version,
            chunker=self._cutting.chunker,
            job=job.job_id,
            attempt=self._attempt,
        )

    def _result(self, summary: Summary, target: Target, encoded: int, sha256: str) -> IndexResult:
        return IndexResult(
            dataset=self.dataset.dataset,
            generation=0,
            built_on=target.live.follows,
            commit="",
            files_processed=1,
            embeddings_generated=summary.chunks,
            chunks=summary.chunks,
            chunks_encoded=encoded,
            chunks_reused=summary.chunks - encoded,
            languages={summary.kind: 1},
            stage_seconds=self._seconds.by_stage,
            warnings=tuple(Notice(message=warning) for warning in summary.warnings),
            warnings_total=len(summary.warnings),
            title=summary.title,
            natural_language=summary.language,
            quality=round(summary.quality, 3),
            sha256=sha256,
        )


class _LastStage:
    """A report that remembers where it was last."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self.stage = Stage.ACCESS

    def __call__(
        self,
        stage: Stage,
        done: int,
        total: int,
        *,
        current_file: str | None = None,
        detail: str | None = None,
    ) -> None:
        self.stage = stage
        self._report(stage, done, total, current_file=current_file, detail=detail)


def _unheard(
    stage: Stage, done: int, total: int, *, current_file: str | None = None, detail: str | None = None
) -> None:
    """The report of a file that is committing already, as far as anybody knows."""


def _published(result: IndexResult, written: Written, replaced: bool) -> IndexResult:
    chunks = "chunk" if result.chunks == 1 else "chunks"
    return msgspec.structs.replace(
        result,
        generation=written.generation,
        built_on=written.built_on,
        dataset_files=written.files,
        dataset_chunks=written.chunks,
        summary=f"{'Replaced' if replaced else 'Added'} a file of {result.chunks} {chunks}.",
    )


def _down(quality: float) -> str:
    """Never rounded up to a threshold that it is below."""
    return f"{math.floor(quality * 1000) / 1000:g}"


def _dataset(job: Job, connection_id: str) -> DatasetKey:
    return DatasetKey(job.tenant, job.project, connection_dataset(connection_id))


def _label(item: WorkItem) -> str:
    return label_of(held_name(item.job, item.item_id), item.job.tenant)


def _forget(cache: VectorCache, job_id: str) -> None:
    for label in cache.jobs():
        if parse_label(label)[0].partition(".")[0] == job_id:
            cache.forget(label)
