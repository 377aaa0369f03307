"""What comes back later by itself."""

from __future__ import annotations

from typing import Final

from pharos_contracts.jobs.v1 import Job
from pharos_contracts.subjects import Due, DueKind
from pharos_scheduler.later import send_later
from pharos_service.bus import Bus

# A message that became due while no scheduler ran is kept for this long; later a new leader puts it back.
DUE_KEPT_SECONDS: Final = 3600


class BusBackoffs:
    """The adapter of ``ports.Backoffs``."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def put(self, job: Job) -> None:
        assert job.next_attempt_at is not None, "a job that is retrying has a time"
        due = Due(DueKind.RETRY, job.tenant, job.job_id)
        await send_later(
            self._bus,
            due,
            str(job.attempt).encode(),
            job.next_attempt_at,
            kept_seconds=DUE_KEPT_SECONDS,
            after=None,
        )
