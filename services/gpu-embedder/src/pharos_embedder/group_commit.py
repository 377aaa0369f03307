"""Files that are ready, published together: one generation of their dataset for all that there are.

One task for each dataset that has any takes all of its files, has the dataset to itself (``dataset_locks``),
writes them beside what is live, publishes, and lets go. Files that become ready meanwhile are the next group.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Final, Self

import anyio
import anyio.to_thread
import structlog

from pharos_contracts.datasets.v1 import IndexStage
from pharos_contracts.jobs.v1 import IndexResult, Job
from pharos_embedder.batch_stages import ReadyFile, Written, write_files
from pharos_embedder.dataset_locks import DatasetLocks, LockLost
from pharos_embedder.document_points import CHUNKER
from pharos_embedder.holding import clock
from pharos_embedder.points import Origin
from pharos_embedder.ports import Check
from pharos_embedder.publishing import DeletedMeanwhile, PublishConflict, Publisher
from pharos_embedder.stages import IndexIncomplete
from pharos_embedder.threads import in_thread
from pharos_embedder.vectors import (
    DatasetKey,
    StoreError,
    StoreUnavailable,
    VectorStore,
    generation_after,
)
from pharos_service.ending import end

log = structlog.get_logger()

GROUP_FILES_MAX: Final = 64
GATHER_SECONDS: Final = 0.1  # that a group waits for files of its dataset that are in the making here
KEPT_MS: Final = 10_000  # readers that began before a generation was replaced still see it for so long
AGAIN_SECONDS_MAX: Final = 60.0
AGAIN_PAUSE_SECONDS: Final = 0.5

# What another try, with the dataset to oneself and on top of what is live then, gets over.
PASSING: Final = (LockLost, DeletedMeanwhile, PublishConflict, IndexIncomplete, StoreUnavailable)


class GroupCommit:
    """What is ready in this process. A context manager: at its end nothing is written any more."""

    def __init__(
        self, store: VectorStore, publisher: Publisher, locks: DatasetLocks, *, encoder: str
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._locks = locks
        self._encoder = encoder
        self._making: Counter[DatasetKey] = Counter()
        self._waiting: dict[DatasetKey, list[_Waiting]] = {}
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await end(*self._tasks)

    @contextmanager
    def making(self, dataset: DatasetKey) -> Iterator[None]:
        """While the block lasts a file of *dataset* is in the making, for which a group waits a little."""
        self._making[dataset] += 1
        try:
            yield
        finally:
            self._making[dataset] -= 1
            self._changed.set()
            if not self._making[dataset]:
                del self._making[dataset]

    async def commit(self, file: ReadyFile) -> Written:
        """What the dataset has once *file* is live. Repeatable.

        Raises StoreError, the errors of the bus, and TimeoutError where others do not let it through.
        """
        one = _Waiting(file, asyncio.get_running_loop().create_future())
        if file.dataset in self._waiting:
            self._waiting[file.dataset].append(one)
            self._changed.set()
        else:
            self._waiting[file.dataset] = [one]
            task = asyncio.create_task(self._serve(file.dataset))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await one.written

    async def clear(self, job: Job, dataset: DatasetKey) -> None:
        """Remove what was written to *dataset* and never published, as somebody who died leaves it.

        Nothing that is live, and nothing that is being written: whoever writes has the dataset to itself.
        """
        async with self._locks.hold(dataset) as check:
            live = (await self._publisher.target(job, dataset.dataset)).live
            store = self._store.guarded(check)
            await in_thread(lambda _: store.discard_unpublished(dataset, live.generation), check)

    async def _serve(self, dataset: DatasetKey) -> None:
        """Until no file of *dataset* waits."""
        waiting = self._waiting[dataset]
        try:
            while waiting:
                await self._gather(dataset, waiting)
                group, waiting[:] = waiting[:GROUP_FILES_MAX], waiting[GROUP_FILES_MAX:]
                try:
                    written = await self._commit(dataset, [each.file for each in group])
                except Exception as error:
                    for each in group:
                        each.fails(error)
                except BaseException:
                    waiting[:0] = group
                    raise
                else:
                    for each in group:
                        each.succeeds(written)
        finally:
            del self._waiting[dataset]
            for each in waiting:
                each.written.cancel()  # the process ends

    async def _gather(self, dataset: DatasetKey, waiting: Sequence[_Waiting]) -> None:
        """Wait a little for files of *dataset* that are about to be ready."""
        with anyio.move_on_after(GATHER_SECONDS):
            while self._making[dataset] and len(waiting) < GROUP_FILES_MAX:
                self._changed.clear()
                await self._changed.wait()

    async def _commit(self, dataset: DatasetKey, files: Sequence[ReadyFile]) -> Written:
        deadline = clock() + AGAIN_SECONDS_MAX
        while True:
            try:
                async with self._locks.hold(dataset) as check:
                    return await self._publish(dataset, files, check)
            except PASSING as error:
                if clock() >= deadline:
                    # Not the fault of any file: they come again, perhaps to another worker.
                    raise TimeoutError(f"The dataset could not be written to: {error!r}") from error
                log.warning("commit_repeated", dataset=dataset.dataset, reason=repr(error))
            await asyncio.sleep(AGAIN_PAUSE_SECONDS)

    async def _publish(self, dataset: DatasetKey, files: Sequence[ReadyFile], check: Check) -> Written:
        first = files[0]
        live = (await self._publisher.target(first.job, dataset.dataset)).live
        origin = Origin(
            dataset=dataset,
            generation=generation_after(live.follows),
            scope=first.job.scope,
            repository="",
            encoder=self._encoder,
            chunker=CHUNKER,
            job=first.job.job_id,
            attempt=first.attempt,
        )
        try:
            written = await in_thread(partial(write_files, files, live, origin, self._store), check)
        except StoreError:
            await self._take_back(dataset, live.generation, check)
            raise
        if written.changed:
            await self._publisher.publish(
                first.job, _result(dataset, written, len(files)), IndexStage.FULL, check=check
            )
            await self._collect(dataset, written, check)
        return written

    async def _take_back(self, dataset: DatasetKey, live: int, check: Check) -> None:
        """Nothing of a group that cannot be stored stays; what stays after all, the next one takes back."""
        store = self._store.guarded(check)
        try:
            await anyio.to_thread.run_sync(store.discard_unpublished, dataset, live)
        except (StoreError, LockLost) as error:
            log.warning("not_taken_back", dataset=dataset.dataset, reason=repr(error))

    async def _collect(self, dataset: DatasetKey, written: Written, check: Check) -> None:
        """Delete what no reader sees any more. What fails here is done with the next group."""
        oldest = min(written.built_on, written.generation - KEPT_MS)
        store = self._store.guarded(check)
        try:
            await anyio.to_thread.run_sync(store.collect, dataset, oldest)
        except (StoreError, LockLost) as error:
            log.warning("not_tidied", dataset=dataset.dataset, reason=repr(error))


class _Waiting:
    """A file and whoever waits for it."""

    def __init__(self, file: ReadyFile, written: asyncio.Future[Written]) -> None:
        self.file = file
        self.written = written

    def succeeds(self, written: Written) -> None:
        if not self.written.done():
            self.written.set_result(written)

    def fails(self, error: Exception) -> None:
        if not self.written.done():
            self.written.set_exception(error)


def _result(dataset: DatasetKey, written: Written, files: int) -> IndexResult:
    return IndexResult(
        dataset=dataset.dataset,
        generation=written.generation,
        built_on=written.built_on,
        commit="",
        files_processed=files,
        embeddings_generated=0,
        chunks=0,
        dataset_files=written.files,
        dataset_chunks=written.chunks,
    )
