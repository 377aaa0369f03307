"""What is done with a repository item: index it beside what is live."""

from __future__ import annotations

from functools import partial
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
from pharos_embedder.bounded_cache import BoundedCache, parse_label
from pharos_embedder.items import last_fact
from pharos_embedder.pipeline import Target, Unchanged, index
from pharos_embedder.ports import Held, NothingToDo
from pharos_embedder.published_work import PublishedWork, Writing, in_workspace, writing
from pharos_embedder.publishing import DeletedMeanwhile, Publisher
from pharos_embedder.stages import Limits, Tools, check_words
from pharos_embedder.threads import in_thread
from pharos_embedder.vectors import DatasetKey
from pharos_service.bus import TROUBLE, Bus
from pharos_sources.hosts import AllowedHosts
from pharos_sources.repository_url import parse_repository_url
from pharos_sources.secret import Secret

log = structlog.get_logger()

GITHUB: Final = "github.com"


class IndexingConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What does not change between jobs."""

    workspaces: Path
    allowed_hosts: AllowedHosts
    github_token: Secret | None
    limits: Limits


class Indexing(PublishedWork):
    """The ``ports.Work`` of one slot."""

    def __init__(self, tools: Tools, publisher: Publisher, config: IndexingConfig) -> None:
        super().__init__(tools.store, (tools.cache, tools.parse_cache), publisher)
        self._tools = tools
        self._config = config

    async def run(self, held: Held) -> IndexResult:
        async def work(workspace: Path) -> IndexResult:
            try:
                async with writing(held, self._publisher) as claimed:
                    return await self._index(claimed, workspace)
            except Unchanged as unchanged:
                raise NothingToDo(str(unchanged)) from unchanged
            except DeletedMeanwhile:
                await self._forget(held.job)
                raise

        seconds = self._config.limits.job_seconds
        return await in_workspace(self._config.workspaces, held.job.job_id, seconds, work)

    async def _forget(self, job: Job) -> None:
        await super()._forget(job)
        if job.source is not None:
            forget = self._tools.checkouts.forget
            await anyio.to_thread.run_sync(forget, job.tenant, job.source.identity)

    async def _index(self, held: Writing, workspace: Path) -> IndexResult:
        job = held.job
        assert job.source is not None, "documents are not indexed here"
        address = parse_repository_url(job.source.clone_url, allowed_hosts=self._config.allowed_hosts)
        its_own = job.tenant == TENANT_DEFAULT and address.host == GITHUB

        async def lookup(name: str) -> Target:
            return await self._publisher.target(job, name)

        async def lexical_ready(result: IndexResult) -> None:
            held.check()
            key = DatasetKey(job.tenant, job.project, result.dataset)

            async def look() -> None:
                await in_thread(partial(check_words, key, result, self._tools.store), held.check)

            await self._publisher.publish(job, result, IndexStage.LEXICAL, check=held.check, look=look)
            await held.lexical_ready(result.dataset, result.files_processed, result.chunks)

        return await index(
            held,
            address,
            workspace,
            tools=self._tools,
            limits=self._config.limits,
            token=self._config.github_token if its_own else None,
            lookup=lookup,
            begin=held.begin,
            on_lexical_ready=lexical_ready,
        )


async def forget_cancelled(bus: Bus, cache: BoundedCache) -> None:
    """Remove what *cache* holds for jobs that were cancelled while no worker lived on this machine."""
    for label in await anyio.to_thread.run_sync(cache.jobs):
        name, tenant = parse_label(label)
        job_id, _, item_id = name.partition(".")
        try:
            last = await last_fact(bus, tenant, job_id, item_id or ITEM_REPOSITORY)
        except TROUBLE as error:
            log.debug("cancelled_jobs_unknown", reason=repr(error))  # the next start asks again
            return
        if last is not None and isinstance(last.event, ItemCancelled):
            await anyio.to_thread.run_sync(cache.forget, label)
