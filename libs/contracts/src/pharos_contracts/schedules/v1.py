"""Schedules, version 1."""

from __future__ import annotations

from datetime import datetime

from pharos_contracts.jobs.v1 import Priority, RepositorySource, Scope
from pharos_contracts.message import Message


class Schedule(Message, frozen=True, kw_only=True, tag="schedules.view.v1.schedule"):
    """A repository that is indexed whenever ``cron`` says, in ``timezone`` (an IANA name).

    Each run is late by a part of ``jitter_seconds`` that is the schedule's own, so that a hundred schedules
    of midnight are not one. A run that was missed while nothing ran happens once, late. With
    ``skip_unchanged`` a run that finds the commit indexed already ends as skipped. ``repository_key`` is what
    submits of the same repository share; its identity where it is empty.
    """

    schedule_id: str
    tenant: str
    source: RepositorySource
    project: str
    dataset: str | None = None
    scope: Scope = Scope.PROJECT
    priority: Priority = Priority.NORMAL
    cron: str
    timezone: str = "UTC"
    jitter_seconds: int = 0
    skip_unchanged: bool = True
    repository_key: str = ""
    ttl_seconds: int
    created_at: datetime
    created_by: str
    next_run_at: datetime | None = None
    last_run_at: datetime | None = None
    last_job_id: str | None = None
    last_outcome: str | None = None
