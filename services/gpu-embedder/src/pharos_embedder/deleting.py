"""Deleting a dataset: what stands in its place in the bucket comes first, its points follow in steps.

From the first write on nobody finds the dataset, and nothing that was begun before can be published. So what
is deleted afterwards is seen by nobody, and every step can be repeated; what a crash leaves is found again,
or removed by the next index of that name.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Final

import anyio.to_thread
import structlog

from pharos_contracts import streams
from pharos_contracts.datasets.v1 import (
    Dataset,
    DatasetDeleted,
    DatasetRecord,
    DeleteDataset,
    DeletedDataset,
    FindDatasets,
    FoundDatasets,
)
from pharos_contracts.identity import dataset_key
from pharos_contracts.message import Message
from pharos_contracts.rpc import Refused
from pharos_embedder import document_points
from pharos_embedder.bounded_cache import owner_of
from pharos_embedder.catalogue import Catalogue
from pharos_embedder.chunking import CHUNKER_VERSION
from pharos_embedder.parse_cache import ParseCache
from pharos_embedder.path_vectors import path_key
from pharos_embedder.trained_graphs import key_of_graph
from pharos_embedder.vector_cache import VectorCache, vector_key
from pharos_embedder.vectors import (
    DatasetKey,
    Dropped,
    Payload,
    StoreError,
    VectorStore,
    generation_after,
)
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus, BusError
from pharos_sources.kept_checkouts import KeptCheckouts

log = structlog.get_logger()

STEP_SECONDS: Final = 1.0
STEP_POINTS: Final = 1_000
WRITES_MAX: Final = 20
STARTING_SECONDS_MAX: Final = 1.0
# Longer than anything that was begun before may go on, so that nothing of it is published.
DELETED_KEPT_SECONDS: Final = 2 * 86_400


class Deleting:
    """Answers to whoever deletes datasets; the caches are None where this process takes no jobs."""

    def __init__(
        self,
        bus: Bus,
        store: VectorStore,
        catalogue: Catalogue,
        cache: VectorCache | None,
        parse_cache: ParseCache | None,
        checkouts: KeptCheckouts | None,
        *,
        encoder: str,
        now: Callable[[], datetime],
    ) -> None:
        self._bucket = Bucket[DatasetRecord](bus, streams.KV_DATASETS, DatasetRecord)
        self._store = store
        self._catalogue = catalogue
        self._cache = cache
        self._parse_cache = parse_cache
        self._checkouts = checkouts
        self._encoder = encoder
        self._now = now

    async def find(self, question: FindDatasets) -> Message:
        """Which datasets are meant."""
        if not await self._catalogue.known(STARTING_SECONDS_MAX):
            return _starting()
        try:
            return FoundDatasets(datasets=tuple(sorted(await self._find(question))))
        except StoreError as error:
            return _away(error)

    async def _find(self, question: FindDatasets) -> set[str]:
        if question.dataset is not None:
            key = DatasetKey(question.tenant, question.project, question.dataset)
            entry = await self._bucket.get(dataset_key(*_names(key)))
            if entry is not None and isinstance(entry.value, Dataset):
                return {question.dataset}
            left = await anyio.to_thread.run_sync(self._store.size, key)
            return {question.dataset} if left else set()
        assert question.repository is not None, "it was checked when the question was read"
        wanted = question.repository.lower()
        live = {
            each.dataset
            for each in self._catalogue.all()
            if (each.tenant, each.project) == (question.tenant, question.project)
            and each.repository.lower() == wanted
        }
        stored = await anyio.to_thread.run_sync(self._store.of_repository, question.repository)
        return live | {
            key.dataset for key in stored if (key.tenant, key.project) == (question.tenant, question.project)
        }

    async def delete(self, command: DeleteDataset) -> Message:
        """One step. Nobody finds the dataset from the first one on."""
        key = DatasetKey(command.tenant, command.project, command.dataset)
        try:
            generation = command.generation or await self._bury(key)
            drop = partial(self._drop, key, generation)
            dropped = await anyio.to_thread.run_sync(drop)
        except StoreError as error:
            return _away(error)
        except BusError as error:
            return Refused(code="bus_unavailable", detail=str(error), status=503)
        log.info("dataset_deleted", dataset=key.dataset, chunks=dropped.chunks, left=dropped.left)
        return DatasetDeleted(generation=generation, vectors=dropped.chunks, left=dropped.left)

    async def _bury(self, key: DatasetKey) -> int:
        """Put what says that it is deleted in the place of its record; the generation that it names.

        A new one each time that somebody begins: what was built on the one before is to be stopped as well.
        """
        name = dataset_key(*_names(key))
        for _ in range(WRITES_MAX):
            entry = await self._bucket.get(name)
            last = entry.value.generation if entry is not None else 0
            record = DeletedDataset(
                tenant=key.tenant,
                project=key.project,
                dataset=key.dataset,
                generation=generation_after(last),
                deleted_at=self._now(),
            )
            if entry is None:
                written = await self._bucket.create(name, record, ttl_seconds=DELETED_KEPT_SECONDS)
            else:
                written = await self._bucket.update(
                    name, record, entry.revision, ttl_seconds=DELETED_KEPT_SECONDS
                )
            if written is not None:
                self._catalogue.note(name, None)
                return record.generation
        raise BusError(f"the record of {key.dataset} changed {WRITES_MAX} times")

    def _drop(self, key: DatasetKey, generation: int) -> Dropped:
        ends = time.monotonic() + STEP_SECONDS
        chunks = 0
        while True:
            dropped = self._store.drop(key, generation, most=STEP_POINTS, forget=self._forget)
            chunks += dropped.chunks
            if not dropped.left:
                self._store.flush()
                for cache in (self._cache, self._parse_cache):
                    if cache is not None:
                        cache.forget_owner(owner_of(*_names(key)))
                if self._parse_cache is not None:
                    self._parse_cache.remove([key_of_graph(key)])
            if not dropped.left or time.monotonic() >= ends:
                return Dropped(chunks, dropped.left)

    def _forget(self, points: Sequence[Payload]) -> None:
        if self._cache is not None:
            forget(self._cache, self._encoder, [each for each in points if each.kind == "chunk"])
        if self._parse_cache is not None:
            forget_parsed(self._parse_cache, [each for each in points if each.kind == "file"])
        if self._checkouts is not None:
            for tenant, repository in {(each.dataset.tenant, each.repository) for each in points}:
                self._checkouts.forget(tenant, repository)


def forget(cache: VectorCache, encoder: str, chunks: Sequence[Payload]) -> None:
    """Remove their vectors and those of their paths from the cache of this machine.

    Others of the tenant are encoded again. *encoder* is that of chunks which do not say it.
    """
    contents = [
        vector_key(
            tenant=chunk.dataset.tenant,
            content=chunk.content_hash,
            chunker=CHUNKER_VERSION if chunk.document is None else document_points.CHUNKER,
            encoder=chunk.encoder or encoder,
        )
        for chunk in chunks
    ]
    paths = {
        path_key(chunk.path, tenant=chunk.dataset.tenant, encoder=chunk.encoder or encoder)
        for chunk in chunks
        if chunk.document is None
    }
    cache.remove(contents + sorted(paths))


def forget_parsed(cache: ParseCache, files: Sequence[Payload]) -> None:
    """Remove what they were parsed to from this machine. Others of the tenant parse them again."""
    cache.remove(
        [
            cache.key_of(
                tenant=file.dataset.tenant,
                path=file.path,
                language=file.language,
                content_hash=file.content_hash,
            )
            for file in files
        ]
    )


def _names(key: DatasetKey) -> tuple[str, str, str]:
    return key.tenant, key.project, key.dataset


def _away(error: StoreError) -> Refused:
    return Refused(code="store_unavailable", detail=str(error), status=503)


def _starting() -> Refused:
    return Refused(
        code="search_starting", detail="The search service is starting; try again in a moment", status=503
    )
