"""Watches, version 1."""

from __future__ import annotations

from datetime import datetime

from pharos_contracts.jobs.v1 import Priority, RepositorySource, Scope
from pharos_contracts.message import Message


class Watch(Message, frozen=True, kw_only=True, tag="watches.view.v1.watch"):
    """A repository that is indexed when somebody pushes to it, as the bucket ``watches`` keeps it.

    ``branches`` are patterns, of which one must fit the branch; none is the repository's default branch.
    ``repository_key`` is what submits of the same repository share. ``sealed`` is the secret that pushes are
    signed with: it opens only with the installation's secret key, and only for this tenant and watch.
    ``quota`` is whose jobs of the day its pushes are counted with; None is nobody's.
    """

    watch_id: str
    tenant: str
    source: RepositorySource
    repository_key: str
    branches: tuple[str, ...] = ()
    project: str
    dataset: str | None = None
    scope: Scope = Scope.PROJECT
    priority: Priority = Priority.NORMAL
    sealed: str
    quota: str | None = None
    created_at: datetime
    created_by: str
