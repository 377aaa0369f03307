"""What the use cases need of the world."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

from pharos_contracts.jobs.v1 import ActiveJob, Job, WorkItem


class Tracked(msgspec.Struct, frozen=True):
    """A job and the sequence of its last event, which the next one must name; 0 where it has none."""

    job: Job
    sequence: int


class JobStore(Protocol):
    """Job states, each written by compare-and-set."""

    def open_jobs(self) -> AsyncIterator[Tracked]:
        """Every job that has not ended."""
        ...

    async def load(self, tenant: str, job_id: str) -> Tracked | None:
        """The job as of its last event."""
        ...

    async def record(self, job: Job, sequence: int) -> Tracked:
        """Write the event of *job*'s state behind *sequence*; Superseded where somebody else wrote since."""
        ...

    async def active(self, tenant: str, key: str) -> ActiveJob | None:
        """What the gateway keeps of a pending or running job."""
        ...

    async def release(self, job: Job) -> None:
        """Let the same work be submitted again."""
        ...


class Dispatcher(Protocol):
    """The way to the workers."""

    async def dispatch(self, item: WorkItem) -> None:
        """Hand *item* out; a second time with the same attempt and dispatch changes nothing."""
        ...

    async def dispatched(self) -> set[str]:
        """The ids of all jobs that workers have or are to have."""
        ...

    async def is_queued(self, job_id: str) -> bool:
        """Whether the job's command still waits in Q."""
        ...


class Command(Protocol):
    """A command that is held unacknowledged."""

    async def ack_sync(self) -> object: ...
    async def in_progress(self) -> None: ...
    async def term(self) -> None: ...
