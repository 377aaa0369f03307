"""What the use cases need of the world."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Protocol

import msgspec

from pharos_contracts.batches.v1 import Manifest
from pharos_contracts.control.v1 import Action, DeadLetter
from pharos_contracts.jobs.v1 import (
    ActiveJob,
    AnyItemEvent,
    ItemCancelled,
    ItemPaused,
    Job,
    SubmitJob,
    WorkItem,
)
from pharos_contracts.subjects import ITEM_REPOSITORY, QueuedCommand


class Tracked(msgspec.Struct, frozen=True):
    """A job and the sequence of its last event, which the next one must name; 0 where it has none."""

    job: Job
    sequence: int


class Fact(msgspec.Struct, frozen=True):
    """What was said of an item, and its sequence on JOBS."""

    event: AnyItemEvent
    sequence: int


class JobStore(Protocol):
    """Job states, each written by compare-and-set."""

    def open_jobs(self) -> AsyncIterator[Tracked]:
        """Every job that has not ended."""
        ...

    async def load(self, tenant: str | None, job_id: str) -> Tracked | None:
        """The job as of its last event; of any tenant where that is None."""
        ...

    async def record(
        self, job: Job, sequence: int, *, resumed: bool = False, advanced: bool = False
    ) -> Tracked:
        """Write the event of *job*'s state behind *sequence*; Superseded where somebody else wrote since.

        *resumed*: it is queued by that; *advanced*: only files of a batch have ended.
        """
        ...

    async def active(self, tenant: str, key: str) -> ActiveJob | None:
        """What the gateway keeps of a pending or running job."""
        ...

    async def claim(self, job: Job) -> str | None:
        """Keep the same work from being submitted again; the id of the job that does it already, if any."""
        ...

    async def claims(self, before: datetime) -> list[ActiveJob]:
        """All claims that were made before then."""
        ...

    async def abandon(self, claim: ActiveJob) -> None:
        """Let go of the claim, if it is still as it was."""
        ...

    async def release(self, job: Job) -> None:
        """Let the same work be submitted again."""
        ...


class Manifests(Protocol):
    """Which files each batch is about."""

    async def load(self, job: Job) -> Manifest | None:
        """Those of *job*; None where they are not kept any more."""
        ...


class Items(Protocol):
    """The facts of items, as the scheduler reads them and takes items away."""

    async def last(self, job: Job, item_id: str = ITEM_REPOSITORY) -> Fact | None:
        """What was said of an item of the job last."""
        ...

    async def of_batch(self, job: Job) -> dict[str, Fact]:
        """What was said of each item of a batch last, as far as anything was."""
        ...

    async def take_away_file(
        self,
        job: Job,
        item_id: str,
        kind: type[ItemCancelled | ItemPaused],
        after: Fact | None,
        attempt: int,
    ) -> Fact:
        """Likewise of a file of a batch, which was handed out for its *attempt*-th attempt."""
        ...

    async def fail(self, item: WorkItem, error: str, after: Fact | None) -> Fact:
        """Say that a file that no worker is given any more has failed; Superseded likewise."""
        ...

    async def take_away(self, job: Job, kind: type[ItemCancelled | ItemPaused], after: Fact | None) -> int:
        """Say that nobody has the item; the fact's sequence. Superseded unless *after* is the last."""
        ...

    async def workers(self, job: Job) -> tuple[str, ...]:
        """Who has had the item, each once."""
        ...


class Handed(msgspec.Struct, frozen=True):
    """What is with workers, or on its way to them: the ids of jobs, and of those that are cleared away.

    ``items`` are (job, item).
    """

    jobs: frozenset[str] = frozenset()
    clearing: frozenset[str] = frozenset()
    items: frozenset[tuple[str, str]] = frozenset()

    def of(self, job_id: str) -> frozenset[str]:
        """Which items of that job; what clears it away is none."""
        return frozenset(item_id for each, item_id in self.items if each == job_id)


class Dispatcher(Protocol):
    """The way to the workers."""

    async def dispatch(self, item: WorkItem) -> None:
        """Hand *item* out, unless the job has an item of this name with the workers already."""
        ...

    async def handed(self) -> Handed:
        """What workers have or are to have."""
        ...

    async def withdraw(self, job: Job, action: Action, fact: int, item_id: str = ITEM_REPOSITORY) -> None:
        """Take an item of the job out of the queue, and tell whoever works on it to stop. Repeatable."""
        ...

    async def commands(self) -> frozenset[str]:
        """The ids of the jobs whose commands wait in Q or in DOCS."""
        ...

    async def remove_command(self, job: Job) -> None:
        """Take the job's command out of where it waits, if it is still there."""
        ...

    async def remove_item(self, job_id: str, item_id: str = ITEM_REPOSITORY) -> None:
        """Take an item of the job from the workers' queue."""
        ...

    async def lapsed(self, job_id: str) -> QueuedCommand | None:
        """What is left of the job's command, if its time to live has passed."""
        ...

    async def queued(self, job_id: str) -> tuple[SubmitJob, int] | None:
        """The job's command and its number, if it still waits."""
        ...


class Backoffs(Protocol):
    """What comes back later by itself."""

    async def put(self, job: Job) -> None:
        """Say that *job*, which is retrying, is due at its ``next_attempt_at``; repeatable."""
        ...


class DeadLetters(Protocol):
    """What will not be tried again by itself."""

    async def put(self, letter: DeadLetter) -> None:
        """Keep it; one of the same id is replaced."""
        ...

    async def get(self, tenant: str | None, letter_id: str) -> DeadLetter | None: ...
    async def purge(self, letter: DeadLetter) -> None: ...
    async def republish(self, letter: DeadLetter) -> None:
        """Put a message back where it came from."""
        ...


class Command(Protocol):
    """A command that is held unacknowledged."""

    async def ack(self) -> None: ...


class Clock(Protocol):
    def __call__(self) -> datetime: ...
