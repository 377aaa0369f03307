"""What all work has in common that ends as a generation of a dataset.

A try has a folder of its own and a time; then the result is published and tidied up behind, or taken back.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import anyio
import anyio.to_thread
import structlog

from pharos_contracts.datasets.v1 import IndexStage
from pharos_contracts.jobs.v1 import IndexResult, Job, Stage, WorkItem
from pharos_embedder.bounded_cache import BoundedCache, label_of, owner_of
from pharos_embedder.dataset_locks import DatasetBusy, LockLost
from pharos_embedder.pipeline import Target
from pharos_embedder.ports import (
    Check,
    Failed,
    Held,
    NothingToDo,
    Problem,
    Report,
    Stopped,
    unchecked,
    unexpected,
)
from pharos_embedder.problems import problem_of
from pharos_embedder.publishing import (
    DeletedMeanwhile,
    PublishConflict,
    Publisher,
    nothing,
    patiently,
)
from pharos_embedder.stages import IndexIncomplete, StageTimedOut, check_whole
from pharos_embedder.threads import in_thread
from pharos_embedder.vectors import DatasetKey, StoreUnavailable, VectorStore
from pharos_service.bus import BusError
from pharos_service.journal import Superseded
from pharos_sources.removal import remove_tree

log = structlog.get_logger()

T = TypeVar("T")

# What the worker knows how to treat: trouble with the bus, an item that is another's, a wish to stop, an end.
PASSED_ON: Final = (BusError, Superseded, Stopped, NothingToDo)


class StageSeconds:
    """How long each stage took, one after the other."""

    def __init__(self) -> None:
        self.by_stage: dict[str, float] = {}
        self._began = time.perf_counter()

    def end(self, stage: Stage) -> None:
        now = time.perf_counter()
        self.by_stage[stage] = round(now - self._began, 3)
        self._began = now


async def in_workspace(
    workspaces: Path, name: str, seconds: float, work: Callable[[Path], Awaitable[T]]
) -> T:
    """What *work* makes, given a folder that is not there yet and will be removed. Raises Failed."""
    workspace = workspaces / f"{name}-{secrets.token_hex(4)}"
    try:
        with anyio.move_on_after(seconds):
            return await work(workspace)
        raise StageTimedOut(None, seconds)
    except PASSED_ON:
        raise
    except Exception as error:
        raise Failed(told(error)) from error
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(_remove, workspace)


class Writing:
    """``ports.Held``, with the dataset that `begin` was asked for: its checks are of both."""

    def __init__(self, held: Held, publisher: Publisher, claimed: AsyncExitStack) -> None:
        self.item: Final = held.item
        self.job: Final = held.job
        self.attempt: Final = held.attempt
        self.report: Final[Report] = held.report
        self._held = held
        self._publisher = publisher
        self._claimed = claimed
        self._check: Check = unchecked

    def check(self) -> None:
        self._held.check()
        self._check()

    def check_midway(self) -> None:
        self._held.check_midway()
        self._check()

    async def lexical_ready(self, dataset: str, files: int, chunks: int) -> None:
        await self._held.lexical_ready(dataset, files, chunks)

    async def begin(self, name: str) -> Target:
        """The target of the dataset *name*, to which nobody else writes from now on. Raises DatasetBusy."""
        key = DatasetKey(self.job.tenant, self.job.project, name)
        hold = partial(self._publisher.locks.hold_for, self.job.job_id, key, stays=True)
        self._check = (await patiently(lambda: self._claimed.enter_async_context(hold()))).check
        return await self._publisher.target(self.job, name)


@asynccontextmanager
async def writing(held: Held, publisher: Publisher) -> AsyncIterator[Writing]:
    """*held* for whoever will write to a dataset; where that succeeded, the job has it still, to publish."""
    async with AsyncExitStack() as claimed:
        yield Writing(held, publisher, claimed)


class PublishedWork:
    """``ports.Work``, but for ``run``."""

    def __init__(self, store: VectorStore, caches: Sequence[BoundedCache], publisher: Publisher) -> None:
        self._store = store
        self._caches = caches
        self._publisher = publisher

    async def finish(self, item: WorkItem, result: IndexResult) -> IndexResult:
        job = item.job
        key = DatasetKey(job.tenant, job.project, result.dataset)
        try:
            async with self._publisher.locks.hold_for(job.job_id, key, stays=False) as (check, kept):

                async def look() -> None:
                    # Where its worker died, and no other came in time, others may have written meanwhile.
                    await in_thread(partial(check_whole, job.kind, key, result, self._store), check)

                look_first = nothing if kept else look
                await self._publisher.publish(job, result, IndexStage.FULL, check=check, look=look_first)
        except (PublishConflict, DeletedMeanwhile, IndexIncomplete) as error:
            await self._forget(job)  # its dataset may have been deleted meanwhile
            raise Failed(told(error)) from error
        except (DatasetBusy, LockLost, StoreUnavailable) as error:
            # Not the job's fault, and not its end: it comes again, perhaps to another worker.
            raise TimeoutError(f"The dataset could not be published: {error}") from error
        return result

    async def tidy(self, item: WorkItem, result: IndexResult) -> None:
        job = item.job
        key = DatasetKey(job.tenant, job.project, result.dataset)
        # Readers that began before the publishing still see the generation before: it is kept until the next.
        await anyio.to_thread.run_sync(self._store.collect, key, result.built_on)
        for cache in self._caches:
            label, owner = label_of(job.job_id, job.tenant), owner_of(key.tenant, key.project, key.dataset)
            await anyio.to_thread.run_sync(cache.keep, label, owner)

    async def clear(self, item: WorkItem, attempts: int, *, forget: bool) -> None:
        job = item.job
        left = await anyio.to_thread.run_sync(self._store.left_by, job.job_id, attempts)
        for dataset, generations in left.items():
            # What is shown before its vectors are in goes first: nobody is to find what is being removed.
            live = await self._publisher.withdraw(job, dataset.dataset, generations)
            await anyio.to_thread.run_sync(self._store.undo, dataset, job.job_id, attempts, live)
            await self._publisher.locks.give_back(job.job_id, dataset)  # its worker may have died
        if left:
            await anyio.to_thread.run_sync(self._store.flush)
        if forget:
            await self._forget(job)

    async def _forget(self, job: Job) -> None:
        """Remove from this machine what only saves work when *job* is tried again."""
        for cache in self._caches:
            await anyio.to_thread.run_sync(cache.forget, label_of(job.job_id, job.tenant))


def told(error: Exception) -> Problem:
    """The problem that *error* stands for; the log has the rest of one that no job is expected to have."""
    problem = problem_of(error)
    if problem is None:
        log.error("work_failed_unexpectedly", exc_info=error)
        return unexpected(error)
    return problem


def _remove(workspace: Path) -> None:
    """Remove what a job fetched; what cannot be removed now is tried again when the process starts."""
    try:
        remove_tree(workspace)
    except OSError as error:
        log.warning("workspace_not_removed", reason=str(error))
