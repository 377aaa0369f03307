"""What the read side is asked and what it answers, version 1."""

from __future__ import annotations

from datetime import datetime

import msgspec

from pharos_contracts.jobs.v1 import Job, JobKind
from pharos_contracts.lifecycle import JobState
from pharos_contracts.message import Message


class ListJobs(Message, frozen=True, kw_only=True, tag="history.query.v1.list"):
    """The jobs of a tenant, newest first. ``before`` is the ``cursor`` of the page before; None begins.

    ``states`` and ``kinds`` are those that are wanted; empty is every one.
    """

    tenant: str | None
    project: str | None = None
    states: tuple[str, ...] = ()
    kinds: tuple[JobKind, ...] = ()
    limit: int = 10
    before: int | None = None


class FindJob(Message, frozen=True, kw_only=True, tag="history.query.v1.find"):
    """One job, by its UUID or by the number that the queue gave it."""

    tenant: str | None
    job_id: str | None = None
    number: int | None = None


class ReadLog(Message, frozen=True, kw_only=True, tag="history.query.v1.log"):
    """What happened to one job and its items, oldest first; ``after`` is the last page's ``cursor``."""

    tenant: str | None
    job_id: str
    after: int | None = None
    limit: int = 200


class ItemView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An item of a job as history has it. ``lexical_ready_at``: when words could be searched.

    ``transient``: it failed, and another try may help. ``chunks`` is what was made of it, ``seconds`` how
    long its last attempt took, where it completed. ``sequence`` is that of its last event on JOBS.
    """

    item_id: str
    state: JobState
    attempt: int
    dispatch: int
    worker: str
    changed_at: datetime
    started_at: datetime | None = None
    lexical_ready_at: datetime | None = None
    error: str | None = None
    code: str | None = None
    reason: str | None = None
    transient: bool = False
    chunks: int = 0
    seconds: float | None = None
    sequence: int = 0


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """A job as history has it. ``sequence`` is that of its last event on JOBS.

    ``lexical_ready_at`` is the earliest of its items. ``items`` are told to a ``FindJob`` only, at most
    1,000 of them, and none of a batch: see ``ListItems``.
    """

    job: Job
    sequence: int
    changed_at: datetime
    lexical_ready_at: datetime | None = None
    items: tuple[ItemView, ...] = ()


class JobPage(Message, frozen=True, kw_only=True, tag="history.view.v1.page"):
    """Jobs, newest first; ``cursor`` continues, None ends. ``sequence`` is how far history has read JOBS."""

    jobs: tuple[JobView, ...]
    cursor: int | None = None
    sequence: int = 0


class LogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One event in a sentence. ``event`` is its tag, ``sequence`` its place on JOBS."""

    sequence: int
    event: str
    at: datetime
    text: str


class JobLog(Message, frozen=True, kw_only=True, tag="history.view.v1.log"):
    """The log of a job, oldest first; ``cursor`` continues, None ends."""

    entries: tuple[LogEntry, ...]
    cursor: int | None = None


class ListBatches(Message, frozen=True, kw_only=True, tag="history.query.v1.batches"):
    """The batches of one user of a tenant, newest first, *limit* of them behind the first *offset*.

    ``states`` and ``projects`` are those that are wanted; no state is every one, None is every project.
    """

    tenant: str
    owner: str
    projects: tuple[str, ...] | None = None
    states: tuple[str, ...] = ()
    limit: int = 10
    offset: int = 0


class BatchPage(Message, frozen=True, kw_only=True, tag="history.view.v1.batches"):
    """Batches, newest first, of ``total`` that were asked for; fewer than asked for where they are large."""

    jobs: tuple[JobView, ...]
    total: int
    sequence: int = 0


class ListItems(Message, frozen=True, kw_only=True, tag="history.query.v1.items"):
    """The items of a batch by their number, those from ``first`` on. What waits untouched has no item."""

    tenant: str
    job_id: str
    first: int = 0
    limit: int = 10_000


class ItemPage(Message, frozen=True, kw_only=True, tag="history.view.v1.items"):
    """Items in order; ``next`` is where it goes on, None at the end. ``sequence`` is as of a ``JobPage``."""

    items: tuple[ItemView, ...]
    next: int | None = None
    sequence: int = 0


class SummarizeBatches(Message, frozen=True, kw_only=True, tag="history.query.v1.summarize_batches"):
    """What became of all batches of one user of a tenant?"""

    tenant: str
    owner: str
    projects: tuple[str, ...] | None = None


class SourceSummary(msgspec.Struct, frozen=True, kw_only=True):
    """How many files of one type of source have ended, and how."""

    completed: int = 0
    failed: int = 0
    skipped: int = 0


class BatchSummary(Message, frozen=True, kw_only=True, tag="history.view.v1.batch_summary"):
    """Batches by state and by priority, their files by type of source.

    ``seconds_per_file`` is the mean of the last 1,000 files of the user that completed, None without any.
    """

    by_state: dict[str, int]
    by_priority: dict[str, int]
    by_source: dict[str, SourceSummary]
    seconds_per_file: float | None = None


class MeasureSources(Message, frozen=True, kw_only=True, tag="history.query.v1.measure_sources"):
    """How long does a file of each type of source take in this tenant?"""

    tenant: str


class SourceRates(Message, frozen=True, kw_only=True, tag="history.view.v1.source_rates"):
    """Seconds that a file took, by type of source: the mean of the last 200; absent where there was none."""

    seconds_per_file: dict[str, float]
