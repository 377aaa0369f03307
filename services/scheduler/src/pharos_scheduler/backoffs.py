"""What comes back later by itself: messages that SCHED sends when their time has come (NATS ADR-51)."""

from __future__ import annotations

from datetime import UTC
from typing import Final

from pharos_contracts import subjects
from pharos_contracts.jobs.v1 import Job
from pharos_contracts.subjects import Due, DueKind
from pharos_service.bus import Bus

# A message that became due while no scheduler ran is kept for this long; later a new leader puts it back.
DUE_KEPT: Final = "3600s"


class BusBackoffs:
    """The adapter of ``ports.Backoffs``."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def put(self, job: Job) -> None:
        assert job.next_attempt_at is not None, "a job that is retrying has a time"
        due = Due(DueKind.RETRY, job.tenant, job.job_id)
        at = job.next_attempt_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        await self._bus.publish(
            subjects.later_subject(due),
            str(job.attempt).encode(),
            headers={
                "Nats-Schedule": f"@at {at}",
                "Nats-Schedule-Target": subjects.due_subject(due),
                "Nats-Schedule-TTL": DUE_KEPT,
            },
        )
