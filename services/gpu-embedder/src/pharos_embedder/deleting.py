"""Deleting a dataset: what stands in its place in the bucket comes first, its points follow in steps.

From the first write on nobody finds the dataset, and nothing that was begun before can be published. So what
is deleted afterwards is seen by nobody, and every step can be repeated; what a crash leaves is found again,
or removed by the next index of that name.
"""

from __future__ import annotations

import time
from collections.abc import Callable
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
from pharos_embedder.catalogue import Catalogue
from pharos_embedder.kept import Kept, forgetting
from pharos_embedder.vectors import DatasetKey, Dropped, StoreError, VectorStore, generation_after
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus, BusError

log = structlog.get_logger()

STEP_SECONDS: Final = 1.0
STEP_POINTS: Final = 1_000
WRITES_MAX: Final = 20
STARTING_SECONDS_MAX: Final = 1.0
# Longer than anything that was begun before may go on, so that nothing of it is published.
DELETED_KEPT_SECONDS: Final = 2 * 86_400


class Deleting:
    """Answers to whoever deletes datasets. Where this process takes no jobs it has nothing *kept*."""

    def __init__(
        self,
        bus: Bus,
        store: VectorStore,
        catalogue: Catalogue,
        kept: Kept | None,
        *,
        encoder: str,
        now: Callable[[], datetime],
    ) -> None:
        self._bucket = Bucket[DatasetRecord](bus, streams.KV_DATASETS, DatasetRecord)
        self._store = store
        self._catalogue = catalogue
        self._kept = kept
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
        forget = forgetting(self._kept, self._encoder)
        chunks = 0
        while True:
            dropped = self._store.drop(key, generation, most=STEP_POINTS, forget=forget)
            chunks += dropped.chunks
            if not dropped.left:
                self._store.flush()
                if self._kept is not None:
                    self._kept.forget_dataset(key)
            if not dropped.left or time.monotonic() >= ends:
                return Dropped(chunks, dropped.left)


def _names(key: DatasetKey) -> tuple[str, str, str]:
    return key.tenant, key.project, key.dataset


def _away(error: StoreError) -> Refused:
    return Refused(code="store_unavailable", detail=str(error), status=503)


def _starting() -> Refused:
    return Refused(
        code="search_starting", detail="The search service is starting; try again in a moment", status=503
    )
