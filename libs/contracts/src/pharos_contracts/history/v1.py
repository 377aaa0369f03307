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


class ItemView(msgspec.Struct, frozen=True, kw_only=True):
    """An item of a job as history has it. ``lexical_ready_at``: when words could be searched."""

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


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """A job as history has it. ``sequence`` is that of its last event on JOBS.

    ``lexical_ready_at`` is the earliest of its items. ``items`` are told to a ``FindJob`` only, at most
    1,000 of them.
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
