"""The worker: takes an item, holds it, says what became of it.

An item is delivered at least once. Who takes it says ``started`` behind whatever was said last; that
compare-and-set is what makes a second holder impossible. A worker that dies leaves the item to the bus,
which hands it to another after ``ack_wait``; what was stored by content is found again.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import msgspec
import structlog
from msgspec.structs import replace
from nats.aio.msg import Msg

from pharos_contracts import streams
from pharos_contracts.datasets.v1 import IndexStage
from pharos_contracts.jobs.v1 import (
    IndexResult,
    ItemCommitting,
    ItemCompleted,
    ItemFailed,
    ItemLexicalReady,
    ItemSkipped,
    ItemStarted,
    Job,
    Stage,
    WorkItem,
)
from pharos_contracts.message import UnreadableMessage, decode
from pharos_contracts.subjects import work_message_id, work_subject
from pharos_embedder.items import ItemLog
from pharos_embedder.pipeline import Target, Unchanged, index
from pharos_embedder.presence import Presence, ProgressFeed
from pharos_embedder.problems import Problem, problem_of, unexpected
from pharos_embedder.publishing import Publisher
from pharos_embedder.stages import Limits, Tools
from pharos_embedder.vectors import DatasetKey
from pharos_service.bus import TROUBLE, Bus
from pharos_service.journal import Superseded
from pharos_service.pull import durable
from pharos_sources.hosts import AllowedHosts
from pharos_sources.removal import remove_tree
from pharos_sources.repository_url import parse_repository_url
from pharos_sources.secret import Secret

log = structlog.get_logger()

HOLD_SECONDS: Final = streams.WORK_ACK_WAIT_SECONDS / 4
EXPIRED: Final = "Task exceeded TTL"
GITHUB: Final = "github.com"
ACK_TRIES: Final = 20


class WorkerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What does not change between jobs. Times are seconds."""

    workspaces: Path
    allowed_hosts: AllowedHosts
    github_token: Secret | None
    job_timeout_seconds: float
    limits: Limits


class Worker:
    """One slot: one item at a time."""

    def __init__(
        self,
        bus: Bus,
        tools: Tools,
        publisher: Publisher,
        presence: Presence,
        config: WorkerConfig,
        *,
        now: Callable[[], datetime],
    ) -> None:
        self._bus = bus
        self._tools = tools
        self._publisher = publisher
        self._presence = presence
        self._config = config
        self._now = now

    async def serve(self) -> None:
        """Take items, one after the other, until cancelled."""
        async with aclosing(durable(self._bus, streams.WORK, streams.WORKERS, batch=1)) as messages:
            async for message in messages:
                try:
                    item: WorkItem = decode(message.data, WorkItem)
                except UnreadableMessage as error:
                    log.error("item_unreadable", subject=message.subject, error=error.reason)
                    await message.term()
                    continue
                with structlog.contextvars.bound_contextvars(job_id=item.job.job_id):
                    try:
                        await self._take(item, message)
                    except asyncio.CancelledError:
                        await asyncio.shield(self._hand_back(item, message))
                        raise

    async def _take(self, item: WorkItem, message: Msg) -> None:
        attempt = _attempt(item, message)
        items = ItemLog(
            self._bus,
            item,
            attempt=min(attempt, item.job.max_attempts),
            worker=self._presence.name,
            now=self._now,
        )
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._hold, message)
                await self._handle(item, attempt, items)
                tasks.cancel_scope.cancel()
            await _settle(message)
        except* Superseded:
            log.warning("item_lost", attempt=attempt)  # whoever has it now will settle it
        except* TROUBLE as errors:
            # Nothing is settled: the bus delivers the item again, and what was done is found by content.
            log.warning("item_interrupted", attempt=attempt, reason=repr(errors.exceptions[0]))

    async def _hold(self, message: Msg) -> None:
        while True:
            await asyncio.sleep(HOLD_SECONDS)
            try:
                await message.in_progress()
            except TROUBLE as error:
                log.debug("hold_failed", reason=repr(error))

    async def _handle(self, item: WorkItem, attempt: int, items: ItemLog) -> None:
        job = item.job
        last = await items.last()
        if isinstance(last, ItemCompleted | ItemFailed | ItemSkipped) and last.attempt >= item.attempt:
            return  # it ended, and its worker died before saying so to the queue
        if isinstance(last, ItemCommitting):
            await self._try(job, items, [last.result.dataset], lambda: self._finish(job, last.result, items))
            return
        if attempt > job.max_attempts:
            if isinstance(last, ItemLexicalReady):
                await self._withdraw(job, last.dataset)
            await items.say(
                ItemFailed,
                error=worker_lost(job),
                code="worker_lost",
            )
            return
        # The time to live ends at the first start: an item that was begun once is finished.
        if last is None and (self._now() - job.submitted_at).total_seconds() > job.ttl_seconds:
            await items.say(ItemSkipped, reason=EXPIRED)
            return
        await items.say(ItemStarted)
        # The datasets that this job may have shown before it was done: their names are known late.
        begun = [last.dataset] if isinstance(last, ItemLexicalReady) else []
        await self._try(job, items, begun, lambda: self._run(job, attempt, items, begun))

    async def _try(
        self, job: Job, items: ItemLog, begun: list[str], work: Callable[[], Awaitable[None]]
    ) -> None:
        """Do *work*, and say so where it fails; what is wrong with the bus, or lost to another, is raised."""
        self._presence.busy(job)
        error: str | None = None
        try:
            await work()
        except Superseded:
            raise
        except Unchanged as unchanged:
            await items.say(ItemSkipped, reason=str(unchanged))
        except Exception as raised:
            problem = problem_of(raised)
            if problem is None and isinstance(raised, TROUBLE):
                raise
            if problem is None:
                log.exception("item_failed_unexpectedly")
                problem = unexpected(raised)
            error = problem.sentence
            await self._fail(job, problem, begun, items)
        finally:
            self._presence.done(job, error)

    async def _run(self, job: Job, attempt: int, items: ItemLog, begun: list[str]) -> None:
        feed = ProgressFeed(self._bus, job, attempt, self._presence, self._now)
        workspace = self._config.workspaces / f"{job.job_id}-{secrets.token_hex(4)}"
        address = parse_repository_url(job.source.clone_url, allowed_hosts=self._config.allowed_hosts)

        async def lookup(name: str) -> Target:
            begun.append(name)
            return await self._publisher.target(job, name)

        async def lexical_ready(result: IndexResult) -> None:
            await self._publisher.publish(job, result, IndexStage.LEXICAL)
            await items.say(
                ItemLexicalReady, dataset=result.dataset, files=result.files_processed, chunks=result.chunks
            )

        sending = asyncio.create_task(feed.send())
        try:
            async with asyncio.timeout(self._config.job_timeout_seconds):
                result = await index(
                    job,
                    address,
                    workspace,
                    tools=self._tools,
                    limits=self._config.limits,
                    token=self._config.github_token
                    if job.tenant == "default" and address.host == GITHUB
                    else None,
                    lookup=lookup,
                    report=feed.report,
                    on_lexical_ready=lexical_ready,
                )
            feed.report(Stage.PUBLISH, 0, 1)
            await items.say(ItemCommitting, result=result)
            await self._finish(job, result, items)
            feed.report(Stage.PUBLISH, 1, 1)
        finally:
            sending.cancel()
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(_clear, workspace)

    async def _finish(self, job: Job, result: IndexResult, items: ItemLog) -> None:
        """Publish what is stored; also when an earlier worker died on the way."""
        await self._publisher.publish(job, result, IndexStage.FULL)
        await items.say(ItemCompleted, result=result)
        key = DatasetKey(job.tenant, job.project, result.dataset)
        # Readers that began before the publishing still see the generation before: it is kept until the next.
        await anyio.to_thread.run_sync(self._tools.store.collect, key, result.built_on)

    async def _fail(self, job: Job, problem: Problem, begun: Sequence[str], items: ItemLog) -> None:
        log.warning("item_failed", code=problem.code, error=problem.sentence, diagnostic=problem.diagnostic)
        if not problem.transient:
            for name in dict.fromkeys(begun):
                await self._withdraw(job, name)
        await items.say(ItemFailed, error=problem.sentence, code=problem.code, transient=problem.transient)

    async def _hand_back(self, item: WorkItem, message: Msg) -> None:
        """Hand the item out again: the same attempt, since it did not fail, as a new dispatch."""
        again = replace(item, attempt=_attempt(item, message), dispatch=item.dispatch + 1)
        try:
            await self._bus.publish(work_subject(again), again, message_id=work_message_id(again))
            await message.ack()
            log.info("item_handed_back", attempt=again.attempt)
        except TROUBLE as error:
            log.warning("item_not_handed_back", reason=repr(error))

    async def _withdraw(self, job: Job, name: str) -> None:
        """A first index that failed after its words were searchable leaves nothing behind."""
        if await self._publisher.withdraw(job, name):
            key = DatasetKey(job.tenant, job.project, name)
            await anyio.to_thread.run_sync(self._tools.store.drop, key)


def _clear(workspace: Path) -> None:
    """Remove what a job fetched; what cannot be removed now is tried again when the process starts."""
    try:
        remove_tree(workspace)
    except OSError as error:
        log.warning("workspace_not_removed", reason=str(error))


def _attempt(item: WorkItem, message: Msg) -> int:
    """Each delivery after the first means that the worker before died."""
    return item.attempt + message.metadata.num_delivered - 1


def worker_lost(job: Job) -> str:
    """Why a job ends whose last worker died; *job* is as it was handed out, with what failed before."""
    if job.error:
        return f"Its worker died during the last of {job.max_attempts} attempts; before that: {job.error}"
    return f"It was tried {job.max_attempts} times, and its worker died each time"


async def _settle(message: Msg) -> None:
    """Tell the queue, over a bus that may be away for a moment; if it stays away, the item comes again."""
    for _ in range(ACK_TRIES):
        try:
            await message.ack_sync(timeout=1)
            return
        except TROUBLE as error:
            log.debug("settling_retried", reason=repr(error))
        await asyncio.sleep(0.5)
