"""One job as its owner reads it, with everything that is known of it at this moment."""

from __future__ import annotations

from pharos_contracts.jobs.v1 import Job
from pharos_contracts.lifecycle import JobState
from pharos_gateway.job_view import JobView, view
from pharos_gateway.live import Live
from pharos_gateway.placing import Places


class Showing:
    """Joins a job with its progress, the workers and its place in the queue."""

    def __init__(self, live: Live, places: Places) -> None:
        self._live = live
        self._places = places

    def briefly(self, job: Job) -> JobView:
        """Without its place in the queue: nobody is asked."""
        return view(job, self._live.progress(job.job_id), workers=self._workers())

    async def whole(self, job: Job) -> JobView:
        """With its place in the queue, where it waits there."""
        place = await self._places.of(job) if job.state is JobState.QUEUED else None
        return view(job, self._live.progress(job.job_id), workers=self._workers(), place=place)

    def _workers(self) -> frozenset[str]:
        return frozenset(worker.name for worker in self._live.workers())
