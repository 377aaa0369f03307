"""Finding jobs: a queue, JOBS and LEDGER know at once what they hold; history knows the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol, TypeVar
from uuid import UUID

import msgspec
import structlog

from pharos_contracts import rpc
from pharos_contracts.history.v1 import FindJob, JobLog, JobPage, JobView, ListJobs, ReadLog
from pharos_contracts.identity import token
from pharos_contracts.jobs.v1 import Job
from pharos_contracts.message import UnreadableMessage, decode
from pharos_contracts.streams import JOBS, LEDGER
from pharos_gateway.queueing import Queue
from pharos_gateway.sight import Sight
from pharos_service.asking import NobodyAnswers, QuestionRefused, ask
from pharos_service.bus import Bus

log = structlog.get_logger()

A = TypeVar("A", JobPage, JobLog)

HISTORY_SECONDS: Final = 1.5
JUST_NOW_SECONDS: Final = 0.2
PAGES_MAX: Final = 10  # that are read for one page where much of the tenant is hidden
NUMBER_MAX: Final = 2**63 - 1


class HistoryUnavailable(Exception):
    """No process of the history service answers."""


class _JobOfEvent(msgspec.Struct, frozen=True):
    """The part of a job's event, of whatever type, that says all about the job."""

    job: Job


class Recent(Protocol):
    """Jobs that this process has seen lately."""

    def recent_job(self, number: int) -> tuple[str, str] | None:
        """(tenant, job id) of the job with *number*."""

    async def primed(self) -> None:
        """Wait, but not for long, until what happened last before this process began is known."""


class Finder:
    """Finds jobs; errors of the bus pass through."""

    def __init__(self, bus: Bus, queue: Queue, documents: Queue, recent: Recent) -> None:
        self._bus = bus
        self._queue = queue
        self._documents = documents
        self._recent = recent

    async def known(self, tenant: str | None, job_id: str) -> Job | None:
        """The job as of this moment, by its events before its queue's word. *tenant* None is every one."""
        # The queues first: a job leaves them only after its event is stored.
        waiting = await self._queue.of_job(job_id) or await self._documents.of_job(job_id)
        name = "*" if tenant is None else token(tenant)
        # JOBS is what is true now; LEDGER, its copy, lags behind it but remembers what JOBS has let go.
        stored = await self._bus.last(JOBS, f"events.job.{name}.{token(job_id)}.*") or await self._bus.last(
            LEDGER, f"ledger.job.{name}.{token(job_id)}"
        )
        if stored is not None:
            try:
                return decode(stored.data, _JobOfEvent).job
            except UnreadableMessage as error:
                log.warning("job_unreadable", job_id=job_id, error=error.reason)
        if waiting is not None and tenant in (None, waiting.command.tenant):
            return waiting.job
        return None

    async def by_id(self, tenant: str | None, job_id: str) -> Job | None:
        """A job by its UUID. HistoryUnavailable where only history can tell."""
        return await self.known(tenant, job_id) or await self._from_history(
            FindJob(tenant=tenant, job_id=job_id)
        )

    async def by_number(self, tenant: str | None, number: int) -> Job | None:
        """A job by the number that Q gave it. HistoryUnavailable where only history can tell."""
        await self._recent.primed()
        owner = self._recent.recent_job(number)
        if owner is None:
            waiting = await self._queue.numbered(number)
            if waiting is not None:
                return waiting.job if tenant in (None, waiting.command.tenant) else None
            found, unavailable = None, None
            try:
                found = await self._from_history(FindJob(tenant=tenant, number=number))
            except HistoryUnavailable as error:
                unavailable = error
            if found is not None:
                return await self.known(found.tenant, found.job_id) or found  # history may lag
            # It may have left Q a moment ago, and its event be on the way here.
            await asyncio.sleep(JUST_NOW_SECONDS)
            owner = self._recent.recent_job(number)
            if owner is None:
                if unavailable is not None:
                    raise unavailable
                return None
        return await self.known(*owner) if tenant in (None, owner[0]) else None

    async def page(self, sight: Sight, *, states: Sequence[str], limit: int, before: int | None) -> JobPage:
        """A page of history, as far as *sight* shows it. HistoryUnavailable, QuestionRefused.

        Where much is hidden a page may be short, or empty, although its cursor says that more follows.
        """
        if sight.projects is not None and not sight.projects:
            return JobPage(jobs=(), cursor=None)
        only = next(iter(sight.projects)) if sight.projects is not None and len(sight.projects) == 1 else None
        found: list[JobView] = []
        for _ in range(1 if sight.is_whole else PAGES_MAX):
            page = await self._ask_history(
                ListJobs(
                    tenant=sight.tenant,
                    project=only,
                    states=tuple(states),
                    kinds=() if sight.kinds is None else tuple(sorted(sight.kinds)),
                    limit=limit - len(found),
                    before=before,
                ),
                JobPage,
            )
            found.extend(view for view in page.jobs if sight.job(view.job))
            before = page.cursor
            if before is None or len(found) >= limit:
                break
        return msgspec.structs.replace(page, jobs=tuple(found))

    async def newest(
        self, sight: Sight, *, states: Sequence[str], limit: int
    ) -> tuple[Sequence[Job], int | None]:
        """(the newest jobs, the cursor of the page that follows). HistoryUnavailable, QuestionRefused.

        What waits and history does not know of yet is among them, and alone may make them more than *limit*.
        """
        waiting = await self.waiting(sight)
        page = await self.page(sight, states=states, limit=limit, before=None)
        known = [view.job for view in page.jobs]
        fresh = unknown(known, waiting, whole=page.cursor is None)
        if fresh and len(fresh) + len(known) > limit:  # then the page ends earlier, and so does its cursor
            if len(fresh) >= limit:
                return fresh, NUMBER_MAX if known else None
            page = await self.page(sight, states=states, limit=limit - len(fresh), before=None)
            known = [view.job for view in page.jobs]
            fresh = [job for job in fresh if job.job_id not in {each.job_id for each in known}]
        return [*known, *fresh], page.cursor

    async def log(self, job: Job, *, after: int | None, limit: int) -> JobLog:
        """What happened to *job*, in sentences, oldest first. HistoryUnavailable, QuestionRefused."""
        return await self._ask_history(
            ReadLog(tenant=job.tenant, job_id=job.job_id, after=after, limit=limit), JobLog
        )

    async def waiting(self, sight: Sight) -> list[Job]:
        """What waits in Q and DOCS, which history may not know of yet."""
        repositories, documents = await asyncio.gather(
            self._queue.waiting(sight.tenant), self._documents.waiting(sight.tenant)
        )
        jobs = (waiting.job for waiting in (*repositories, *documents))
        return [job for job in jobs if sight.job(job)]

    async def _from_history(self, question: FindJob) -> Job | None:
        try:
            views = (await self._ask_history(question, JobPage)).jobs
        except QuestionRefused as error:
            if error.refusal.status == 404:
                return None
            raise
        return views[0].job if views else None

    async def _ask_history(self, question: ListJobs | FindJob | ReadLog, answer: type[A]) -> A:
        try:
            return await ask(self._bus, rpc.HISTORY, question, answer, timeout=HISTORY_SECONDS)
        except NobodyAnswers as error:
            raise HistoryUnavailable(str(error)) from error
        except QuestionRefused as error:
            if error.refusal.status >= 500:
                raise HistoryUnavailable(error.refusal.detail) from error
            raise


def unknown(known: Sequence[Job], waiting: Sequence[Job], *, whole: bool) -> list[Job]:
    """Those of *waiting* that history does not know of, by a page of what it *known*, newest first.

    Jobs become known in the order in which they were submitted: what waits and is older than the page is on a
    later one. *whole*: there is none.
    """
    ids = {job.job_id for job in known}
    oldest = min((job.submitted_at for job in known), default=None)
    return [
        job
        for job in waiting
        if job.job_id not in ids and (whole or oldest is None or job.submitted_at >= oldest)
    ]


def parse_identifier(text: str) -> str | int | None:
    """A job's UUID in its usual form, or its number; None for a text that can be neither."""
    if text.isascii() and text.isdigit() and len(text) < 20:
        number = int(text)
        return number if 0 < number <= NUMBER_MAX else None
    try:
        return str(UUID(text))
    except ValueError:
        return None


async def find(finder: Finder, sight: Sight, identifier: str) -> Job | None:
    """The job that *identifier* names, if *sight* shows it. HistoryUnavailable, BusError."""
    parsed = parse_identifier(identifier)
    if parsed is None:
        return None
    if isinstance(parsed, int):
        job = await finder.by_number(sight.tenant, parsed)
    else:
        job = await finder.by_id(sight.tenant, parsed)
    return job if job is not None and sight.job(job) else None
