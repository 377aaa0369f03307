"""What is done with a repository item: index it beside what is live, publish that, or take it all back."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import msgspec
import structlog

from pharos_contracts.datasets.v1 import IndexStage
from pharos_contracts.identity import TENANT_DEFAULT
from pharos_contracts.jobs.v1 import IndexResult, ItemCancelled, Job
from pharos_contracts.subjects import ITEM_REPOSITORY
from pharos_embedder.items import last_fact
from pharos_embedder.pipeline import Target, Unchanged, index
from pharos_embedder.ports import Failed, Held, NothingToDo, Problem, Stopped, unexpected
from pharos_embedder.problems import problem_of
from pharos_embedder.publishing import PublishConflict, Publisher
from pharos_embedder.stages import Limits, StageTimedOut, Tools
from pharos_embedder.vector_cache import VectorCache, label_of, parse_label
from pharos_embedder.vectors import DatasetKey
from pharos_service.bus import TROUBLE, Bus, BusError
from pharos_service.journal import Superseded
from pharos_sources.hosts import AllowedHosts
from pharos_sources.removal import remove_tree
from pharos_sources.repository_url import parse_repository_url
from pharos_sources.secret import Secret

log = structlog.get_logger()

GITHUB: Final = "github.com"
# What the worker knows how to treat: trouble with the bus, an item that is another's, a wish to stop.
PASSED_ON: Final = (BusError, Superseded, Stopped)


class IndexingConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What does not change between jobs."""

    workspaces: Path
    allowed_hosts: AllowedHosts
    github_token: Secret | None
    limits: Limits


class Indexing:
    """The ``ports.Work`` of one slot."""

    def __init__(self, tools: Tools, publisher: Publisher, config: IndexingConfig) -> None:
        self._tools = tools
        self._publisher = publisher
        self._config = config

    async def run(self, held: Held) -> IndexResult:
        workspace = self._config.workspaces / f"{held.job.job_id}-{secrets.token_hex(4)}"
        seconds = self._config.limits.job_seconds
        try:
            with anyio.move_on_after(seconds):
                return await self._index(held, workspace)
            raise StageTimedOut(None, seconds)
        except Unchanged as unchanged:
            raise NothingToDo(str(unchanged)) from unchanged
        except PASSED_ON:
            raise
        except Exception as error:
            raise Failed(_problem(error)) from error
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(_remove, workspace)

    async def _index(self, held: Held, workspace: Path) -> IndexResult:
        job = held.job
        assert job.source is not None, "documents are not indexed here"
        address = parse_repository_url(job.source.clone_url, allowed_hosts=self._config.allowed_hosts)
        its_own = job.tenant == TENANT_DEFAULT and address.host == GITHUB

        async def lookup(name: str) -> Target:
            return await self._publisher.target(job, name)

        async def lexical_ready(result: IndexResult) -> None:
            held.check()
            await self._publisher.publish(job, result, IndexStage.LEXICAL)
            await held.lexical_ready(result.dataset, result.files_processed, result.chunks)

        return await index(
            held,
            address,
            workspace,
            tools=self._tools,
            limits=self._config.limits,
            token=self._config.github_token if its_own else None,
            lookup=lookup,
            on_lexical_ready=lexical_ready,
        )

    async def finish(self, job: Job, result: IndexResult) -> None:
        try:
            await self._publisher.publish(job, result, IndexStage.FULL)
        except PublishConflict as error:
            raise Failed(_problem(error)) from error

    async def tidy(self, job: Job, result: IndexResult) -> None:
        key = DatasetKey(job.tenant, job.project, result.dataset)
        # Readers that began before the publishing still see the generation before: it is kept until the next.
        await anyio.to_thread.run_sync(self._tools.store.collect, key, result.built_on)
        await anyio.to_thread.run_sync(self._tools.cache.keep, label_of(job.job_id, job.tenant))

    async def clear(self, job: Job, attempts: int, *, forget: bool) -> None:
        store = self._tools.store
        left = await anyio.to_thread.run_sync(store.left_by, job.job_id, attempts)
        for dataset, generations in left.items():
            # What is shown before its vectors are in goes first: nobody is to find what is being removed.
            live = await self._publisher.withdraw(job, dataset.dataset, generations)
            await anyio.to_thread.run_sync(store.undo, dataset, job.job_id, attempts, live)
        if left:
            await anyio.to_thread.run_sync(store.flush)
        if forget:
            await anyio.to_thread.run_sync(self._tools.cache.forget, label_of(job.job_id, job.tenant))


async def forget_cancelled(bus: Bus, cache: VectorCache) -> None:
    """Remove what *cache* holds for jobs that were cancelled while no worker lived on this machine."""
    for label in await anyio.to_thread.run_sync(cache.jobs):
        job_id, tenant = parse_label(label)
        try:
            last = await last_fact(bus, tenant, job_id, ITEM_REPOSITORY)
        except TROUBLE as error:
            log.debug("cancelled_jobs_unknown", reason=repr(error))  # the next start asks again
            return
        if last is not None and isinstance(last.event, ItemCancelled):
            await anyio.to_thread.run_sync(cache.forget, label)


def _problem(error: Exception) -> Problem:
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
