"""What is open now, for a client that missed more than can be told event by event."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog

from pharos_contracts.jobs.v1 import Job
from pharos_contracts.lifecycle import TERMINAL, JobState
from pharos_contracts.workers.v1 import Worker
from pharos_gateway import history, job_view, statuses
from pharos_gateway.finding import Finder, HistoryUnavailable
from pharos_gateway.live import Live
from pharos_gateway.sight import Sight
from pharos_service.asking import QuestionRefused
from pharos_service.bus import BusError

log = structlog.get_logger()

JOBS_MAX: Final = 100
NUMBERS_MAX: Final = 100
OPEN_STATES: Final = tuple(state.value for state in JobState if state not in TERMINAL)


class Snapshots:
    """Open jobs from history, the queue, and what the live tail has seen since; and the workers."""

    def __init__(self, finder: Finder, live: Live) -> None:
        self._finder = finder
        self._live = live

    async def take(self, sight: Sight, *, public: bool) -> Mapping[str, Any]:
        """Newest first, at most 100 jobs; ``complete`` is false where history or the queue did not answer."""
        jobs, complete = await self._open_jobs(sight)
        alive = {worker.name for worker in self._live.workers()}
        shown: list[Any] = []
        for job in jobs:
            progress = self._live.progress(job.job_id)
            shown.append(
                history.row(job, progress) if public else job_view.view(job, progress, workers=alive)
            )
        workers = self._live.workers()
        status = statuses.status_of(workers, sight.workers, await self.numbers(workers))
        return {"jobs": shown, "workers": status.workers, "status": status.status, "complete": complete}

    async def of_job(self, tenant: str, job_id: str) -> Mapping[str, Any]:
        """One job alone."""
        try:
            job = await self._finder.known(tenant, job_id)
        except BusError as error:
            log.info("snapshot_incomplete", reason=str(error))
            job = None
        alive = {worker.name for worker in self._live.workers()}
        shown = [] if job is None else [job_view.view(job, self._live.progress(job_id), workers=alive)]
        return {"jobs": shown, "complete": job is not None}

    async def numbers(self, workers: Sequence[Worker]) -> dict[str, int]:
        """Job id -> number, for what *workers* are busy with; what cannot be told is left out."""
        named = [
            (worker.tenant, job_id)
            for worker in workers[:NUMBERS_MAX]
            for job_id in worker.job_ids[:1]
            if "." not in job_id  # a file of a batch, which has no number
        ]
        numbers = await asyncio.gather(*(self._number(tenant, job_id) for tenant, job_id in named))
        return {
            job_id: number for (_, job_id), number in zip(named, numbers, strict=True) if number is not None
        }

    async def _number(self, tenant: str | None, job_id: str) -> int | None:
        job = self._live.recent(job_id)
        if job is not None:
            return job.number or None
        try:
            job = await self._finder.known(tenant, job_id)
        except (BusError, ValueError) as error:
            log.debug("number_unknown", job_id=job_id, reason=str(error))
            return None
        return None if job is None else job.number or None

    async def _open_jobs(self, sight: Sight) -> tuple[tuple[Job, ...], bool]:
        found: dict[str, Job] = {}
        complete = True
        results = await asyncio.gather(
            self._finder.waiting(sight),
            self._finder.page(sight, states=OPEN_STATES, limit=JOBS_MAX, before=None),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, BusError | HistoryUnavailable | QuestionRefused):
                log.info("snapshot_incomplete", reason=str(result))
                complete = False
            elif isinstance(result, BaseException):
                raise result
            elif isinstance(result, list):
                found.update((job.job_id, job) for job in result)
            else:
                found.update((view.job.job_id, view.job) for view in result.jobs)
        # The live tail is at the sequence of the snapshot; history may be behind it.
        for job in self._live.recent_jobs():
            if sight.job(job):
                found[job.job_id] = job
        open_jobs = [job for job in found.values() if job.state not in TERMINAL]
        return history.merged(open_jobs, (), JOBS_MAX), complete
