"""Batches: created, read, listed and counted for the user that they belong to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Any, Final, Protocol, TypeVar

import msgspec
import structlog
from msgspec.structs import replace

from pharos_contracts import rpc
from pharos_contracts.batches.v1 import BatchSource, Manifest
from pharos_contracts.control.v1 import Controlled, CreateBatch
from pharos_contracts.history.v1 import (
    BatchPage,
    BatchSummary,
    ItemPage,
    ListBatches,
    ListItems,
    MeasureSources,
    SourceRates,
    SummarizeBatches,
)
from pharos_contracts.identity import fingerprint
from pharos_contracts.jobs.v1 import (
    NO_NUMBER,
    AnyItemEvent,
    Job,
    JobKind,
    Progress,
    SubmitJob,
    command_of,
    job_of,
)
from pharos_contracts.lifecycle import JobState
from pharos_contracts.message import Message, UnreadableMessage, decode
from pharos_contracts.streams import JOBS, OBJ_MANIFESTS
from pharos_contracts.subjects import batch_item_events, tenant_job_events
from pharos_contracts.workers.v1 import Worker
from pharos_gateway import batches
from pharos_gateway.batch_files import Files
from pharos_gateway.batches import (
    BatchList,
    BatchRequest,
    BatchStatistics,
    BatchView,
    InvalidBatch,
    ListRequest,
)
from pharos_gateway.callback_url import CallbackAddress, InvalidCallbackUrl
from pharos_gateway.commanding import Commands, CommandUnsent, SchedulerSilent
from pharos_gateway.finding import HISTORY_SECONDS, Finder, HistoryUnavailable, parse_identifier
from pharos_gateway.manifests import ManifestGone, Manifests
from pharos_gateway.quotas import JobQuota
from pharos_gateway.resolving import Address, HostRefused
from pharos_gateway.selecting import Selecting
from pharos_gateway.sight import Sight
from pharos_service.asking import NobodyAnswers, QuestionRefused, ask
from pharos_service.buckets import Bucket
from pharos_service.bus import Bus
from pharos_service.objects import ObjectTooLarge, remove
from pharos_service.pull import CaughtUp, tail

log = structlog.get_logger()

# A batch waits for its owner, and not in a queue: the scheduler has a limit of its own for that.
TTL_SECONDS: Final = 7 * 86_400
CATCH_UP_SECONDS: Final = 5.0
LOOK_SECONDS: Final = 0.05
LOOKS_MAX: Final = 20
PAGES_MAX: Final = 50
GONE: Final = "The list of the files of this batch is not kept any more: only its counters are"

A = TypeVar("A", bound=Message)


class RememberedBatch(Message, frozen=True, kw_only=True, tag="idempotency.view.v1.batch"):
    """Which batch an Idempotency-Key stands for."""

    job_id: str


class BatchUndecided(Exception):
    """Nobody has said yet whether the batch is kept; the same Idempotency-Key, or its id, will tell."""

    def __init__(self, reason: str, job_id: str) -> None:
        super().__init__(reason)
        self.job_id = job_id


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A batch that somebody asks for. ``sight`` is what they are shown of connections.

    ``quota`` is whose jobs of the day this is one of; None is nobody's.
    """

    tenant: str
    owner: str
    by: str
    sight: Sight
    request: BatchRequest
    idempotency_key: str | None = None
    quota: str | None = None


class Known(Protocol):
    """What this process sees of what is going on."""

    def workers(self) -> list[Worker]: ...
    def item_progress(self, job_id: str, item_id: str) -> Progress | None: ...


class Batching:
    """The use cases. Errors of the bus pass through."""

    def __init__(
        self,
        bus: Bus,
        commands: Commands,
        finder: Finder,
        live: Known,
        manifests: Manifests,
        selecting: Selecting,
        remembered: Bucket[RememberedBatch],
        jobs_of_the_day: JobQuota,
        *,
        callback_of: Callable[[str], CallbackAddress],
        check_host: Callable[[Address], Awaitable[None]],
        now: Callable[[], datetime],
        new_id: Callable[[], str],
    ) -> None:
        self._bus = bus
        self._commands = commands
        self._finder = finder
        self._live = live
        self._manifests = manifests
        self._selecting = selecting
        self._remembered = remembered
        self._jobs_of_the_day = jobs_of_the_day
        self._callback_of = callback_of
        self._check_host = check_host
        self._now = now
        self._new_id = new_id

    # Creating

    async def create(self, order: Order) -> BatchView:
        """The batch, which waits to be started.

        InvalidBatch, InvalidCallbackUrl, TooManyJobs, BatchUndecided, CommandUnsent, QuestionRefused, and
        what sources raise.
        """
        job_id, again = await self._identify(order)
        if again:
            job = await self._finder.known(order.tenant, job_id)
            if job is not None:
                return await self._as_created(job)
        options = batches.options_of(order.request.processing_options)
        callback = await self._callback(order.request.callback_url)
        selected = await self._selecting.select(order.request.file_selections, order.sight)
        encoders = sorted({name for each in self._live.workers() if (name := each.versions.get("encoder"))})
        command = SubmitJob(
            job_id=job_id,
            tenant=order.tenant,
            key=fingerprint("batch", job_id),
            kind=JobKind.BATCH,
            batch=BatchSource(
                name=order.request.name,
                description=order.request.description,
                manifest=job_id,
                parts=selected.parts,
                options=options,
                warnings=(*batches.warnings_of(options, encoders), *selected.warnings),
            ),
            project=selected.project,
            priority=order.request.priority,
            submitted_at=self._now(),
            submitted_by=order.owner,
            ttl_seconds=TTL_SECONDS,
            callback_url=callback,
        )
        if order.quota is not None:
            await self._jobs_of_the_day.spend(order.quota)
        kept = False
        try:
            await self._manifests.put(Manifest(job_id=job_id, tenant=order.tenant, files=selected.files))
            job = await self._command(command, by=order.by)
            kept = True
        except ObjectTooLarge as error:
            raise InvalidBatch(
                "too_many_files",
                "The names of the files are too long for one list: select fewer of them",
                field="file_selections",
            ) from error
        except BatchUndecided:
            kept = True
            raise
        finally:
            if not kept:
                if order.quota is not None:
                    self._jobs_of_the_day.give_back(order.quota)
                if not again:  # an earlier try may yet be carried out, and needs it
                    await remove(self._bus, OBJ_MANIFESTS, job_id)
        log.info("batch_created", job_id=job_id, tenant=order.tenant, files=len(selected.files))
        return await self._as_created(job)

    async def _callback(self, url: str | None) -> str | None:
        """*url*, where it may be told of the end. InvalidCallbackUrl."""
        if url is None:
            return None
        address = self._callback_of(url)
        try:
            await self._check_host(address)
        except HostRefused as error:
            raise InvalidCallbackUrl(error.reason) from error
        return address.url

    async def _identify(self, order: Order) -> tuple[str, bool]:
        """The id of the batch, and whether it may be there already."""
        job_id = self._new_id()
        if order.idempotency_key is None:
            return job_id, False
        key = f"{order.tenant}.{fingerprint('batch', order.owner, order.idempotency_key)}"
        while True:
            if await self._remembered.create(key, RememberedBatch(job_id=job_id)) is not None:
                return job_id, False
            found = await self._remembered.get(key)
            if found is not None:  # else it expired between the two
                return found.value.job_id, True

    async def _command(self, command: SubmitJob, *, by: str) -> Job:
        def command_to(reply_to: str) -> CreateBatch:
            return CreateBatch(
                tenant=command.tenant, by=by, at=command.submitted_at, reply_to=reply_to, job=command
            )

        async def carried_out(_: int) -> Controlled | None:
            found = await self._finder.known(command.tenant, command.job_id)
            return None if found is None else Controlled(job=found)

        try:
            answer = await self._commands.send(command_to, carried_out=carried_out)
        except SchedulerSilent as error:
            raise BatchUndecided(
                "No scheduler has answered yet; the batch is stored and will be kept", command.job_id
            ) from error
        except CommandUnsent as error:
            if error.fate_unknown:
                raise BatchUndecided(f"Queue unavailable: {error.reason}", command.job_id) from error
            raise
        assert isinstance(answer, Controlled), "a batch that is created is answered with the batch"
        return answer.job

    async def _as_created(self, job: Job) -> BatchView:
        """*job* as it was before anything happened to it: the first answer is the answer."""
        assert job.batch is not None, "an Idempotency-Key of a batch stands for a batch"
        command = job_of(command_of(job), NO_NUMBER)
        return await self._view(replace(command, state=JobState.PENDING), items=False)

    # Reading

    async def find(self, sight: Sight, job_id: str) -> Job | None:
        """The batch of that id, if *sight* shows it. HistoryUnavailable."""
        identifier = parse_identifier(job_id)
        if not isinstance(identifier, str):
            return None
        job = await self._finder.by_id(sight.tenant, identifier)
        return job if job is not None and job.batch is not None and sight.job(job) else None

    async def read(self, sight: Sight, job_id: str) -> BatchView | None:
        """The batch with all of its files, as of now. HistoryUnavailable."""
        job = await self.find(sight, job_id)
        return None if job is None else await self._view(job, items=job.state is not JobState.PENDING)

    async def _view(self, job: Job, *, items: bool) -> BatchView:
        rates = await self.rates(job.tenant)
        try:
            files = Files(job, await self._manifests.of(job))
        except ManifestGone:
            return batches.view_without_files(job, rates, GONE)
        if items:
            await self._recall(job, files)
        return batches.view_of(job, files, rates)

    async def _recall(self, job: Job, files: Files) -> None:
        """What was said of *files*, up to now."""
        known = await self.recall(job, files)
        newest = await self._bus.last(JOBS, batch_item_events(job.tenant, job.job_id))
        if newest is not None and newest.sequence > known:
            try:
                async with asyncio.timeout(CATCH_UP_SECONDS):
                    await self._catch_up(job, files, known)
            except TimeoutError as error:
                raise HistoryUnavailable("It is too far behind what has happened") from error
        for item in files.at_work():
            progress = self._live.item_progress(job.job_id, str(item))
            if progress is not None:
                files.progressed(progress)

    async def recall(self, job: Job, files: Files) -> int:
        """Fill *files* with what history knows; it has read JOBS up to the sequence that this answers."""
        following: int | None = 0
        sequence: int | None = None
        for _ in range(PAGES_MAX):
            if following is None:
                break
            page = await self._ask(ListItems(tenant=job.tenant, job_id=job.job_id, first=following), ItemPage)
            sequence = page.sequence if sequence is None else sequence
            for view in page.items:
                files.recall(view)
            following = page.next
        return sequence or 0

    async def _catch_up(self, job: Job, files: Files, after: int) -> None:
        subjects = [batch_item_events(job.tenant, job.job_id)]
        async with aclosing(tail(self._bus, JOBS, subjects, after=after)) as events:
            async for stored in events:
                if isinstance(stored, CaughtUp):
                    return
                try:
                    event: AnyItemEvent = decode(stored.data, AnyItemEvent)
                except UnreadableMessage as error:
                    log.warning("event_unreadable", sequence=stored.sequence, error=error.reason)
                    continue
                files.take(stored.sequence, event)

    async def rates(self, tenant: str) -> Mapping[str, float]:
        """Seconds that a file takes, by type of source; nothing where history does not say."""
        try:
            return (await self._ask(MeasureSources(tenant=tenant), SourceRates)).seconds_per_file
        except HistoryUnavailable as error:
            log.info("rates_unknown", reason=str(error))
            return {}

    async def list(self, sight: Sight, owner: str, asked: ListRequest) -> BatchList:
        """A page of the batches of *owner*. InvalidBatch, HistoryUnavailable."""
        states = batches.states_of(asked.status_filter)
        if sight.projects is not None and not sight.projects:
            return BatchList(jobs=(), total_jobs=0, has_more=False)
        page = await self._up_to_now(
            sight, lambda: self.page(sight, owner, states, limit=asked.limit, offset=asked.offset)
        )
        return BatchList(
            jobs=tuple(batches.row_of(view.job) for view in page.jobs),
            total_jobs=page.total,
            has_more=asked.offset + len(page.jobs) < page.total,
        )

    async def page(
        self, sight: Sight, owner: str, states: Sequence[str], *, limit: int, offset: int = 0
    ) -> BatchPage:
        """The same, as jobs in *states*."""
        assert sight.tenant is not None, "batches are listed in one tenant"
        return await self._ask(
            ListBatches(
                tenant=sight.tenant,
                owner=owner,
                projects=_projects(sight),
                states=tuple(states),
                limit=limit,
                offset=offset,
            ),
            BatchPage,
        )

    async def _up_to_now(self, sight: Sight, read: Callable[[], Awaitable[BatchPage]]) -> BatchPage:
        """What *read* reads, once history knows what has happened by now; if it lags, what it knows."""
        newest = await self._bus.last(JOBS, tenant_job_events(sight.tenant)[0])
        for _ in range(LOOKS_MAX):
            page = await read()
            if newest is None or page.sequence >= newest.sequence:
                break
            await asyncio.sleep(LOOK_SECONDS)
        return page

    async def statistics(self, sight: Sight, owner: str) -> BatchStatistics:
        """Those of *owner*. HistoryUnavailable."""
        assert sight.tenant is not None, "batches are counted in one tenant"
        # Who has just been told that a batch has ended finds its files in the numbers.
        await self._up_to_now(sight, lambda: self.page(sight, owner, (), limit=1))
        summary = await self._ask(
            SummarizeBatches(tenant=sight.tenant, owner=owner, projects=_projects(sight)), BatchSummary
        )
        return batches.statistics_of(summary)

    async def _ask(self, question: Any, answer: type[A]) -> A:
        try:
            return await ask(self._bus, rpc.HISTORY, question, answer, timeout=HISTORY_SECONDS)
        except NobodyAnswers as error:
            raise HistoryUnavailable(str(error)) from error
        except QuestionRefused as error:
            if error.refusal.status >= 500:
                raise HistoryUnavailable(error.refusal.detail) from error
            raise


def _projects(sight: Sight) -> tuple[str, ...] | None:
    return None if sight.projects is None else tuple(sorted(sight.projects))
