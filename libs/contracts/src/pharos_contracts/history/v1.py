"""What the read side is asked and what it answers, version 1."""

from __future__ import annotations

from datetime import datetime

import msgspec

from pharos_contracts.jobs.v1 import Job
from pharos_contracts.message import Message


class ListJobs(Message, frozen=True, kw_only=True, tag="history.query.v1.list"):
    """The jobs of a tenant, newest first. ``before`` is the ``cursor`` of the page before; None begins."""

    tenant: str | None
    project: str | None = None
    states: tuple[str, ...] = ()
    limit: int = 10
    before: int | None = None


class FindJob(Message, frozen=True, kw_only=True, tag="history.query.v1.find"):
    """One job, by its UUID or by the number that the queue gave it."""

    tenant: str | None
    job_id: str | None = None
    number: int | None = None


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """A job as history has it. ``sequence`` is that of its last event on JOBS."""

    job: Job
    sequence: int
    changed_at: datetime


class JobPage(Message, frozen=True, kw_only=True, tag="history.view.v1.page"):
    """Jobs, newest first; ``cursor`` continues, None ends. ``sequence`` is how far history has read JOBS."""

    jobs: tuple[JobView, ...]
    cursor: int | None = None
    sequence: int = 0
