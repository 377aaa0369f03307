"""The work of a slot that is kept for documents: jobs of one document, and files of batches."""

from __future__ import annotations

from pharos_contracts.jobs.v1 import IndexResult, JobKind, WorkItem
from pharos_embedder.batch_work import BatchWork
from pharos_embedder.document_work import DocumentWork
from pharos_embedder.ports import Held, Work


class DocumentSlot:
    """The ``ports.Work`` of one slot: that of *documents* or of *files*, by the item."""

    def __init__(self, documents: DocumentWork, files: BatchWork) -> None:
        self._documents = documents
        self._files = files

    async def run(self, held: Held) -> IndexResult:
        return await self._work_of(held.item).run(held)

    async def finish(self, item: WorkItem, result: IndexResult) -> IndexResult:
        return await self._work_of(item).finish(item, result)

    async def tidy(self, item: WorkItem, result: IndexResult) -> None:
        await self._work_of(item).tidy(item, result)

    async def clear(self, item: WorkItem, attempts: int, *, forget: bool) -> None:
        await self._work_of(item).clear(item, attempts, forget=forget)

    def _work_of(self, item: WorkItem) -> Work:
        return self._files if item.job.kind is JobKind.BATCH else self._documents
